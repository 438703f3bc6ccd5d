"""A lean AMQP client on our own wire library: what `send`, `tail` and `bench` need, and no more.

One connection with one session. Sends are pipelined: each returns a future of its outcome. Failures are
`AmqpError`s with the exit code they deserve.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from ..wire.amqp.connection import Connection
from ..wire.amqp.delivery import Delivery, Sent
from ..wire.amqp.handler import Limits
from ..wire.amqp.link import Link, Receiver, Sender
from ..wire.amqp.message import (
    APPLICATION_PROPERTIES,
    map_section,
    properties_of,
    properties_section,
    section_map,
    section_value,
    split,
    value_section,
)
from ..wire.amqp.performatives import ACCEPTED, Accepted, Error, Rejected, Source, State, Target
from ..wire.amqp.session import Session
from ..wire.amqp.types import Described, Symbol
from .client import TOKEN_SECONDS
from .client import Target as Server

SELECTOR = Symbol("apache.org:selector-filter:string")
BATCH_FORMAT = 0x80013700
OPEN_SECONDS_MAX = 10
_CODES = {
    "amqp:not-found": 3,
    "amqp:unauthorized-access": 4,
    "com.microsoft:entity-disabled": 4,
    "com.microsoft:server-busy": 8,
    "amqp:connection:forced": 7,
}


class AmqpError(Exception):
    """`code`: the exit code. `lost`: a connection that stood has gone."""

    def __init__(self, text: str, code: int, *, lost: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.lost = lost


def error_of(error: Error | None, otherwise: str) -> AmqpError:
    if error is None:
        return AmqpError(otherwise, 7, lost=True)
    code = _CODES.get(error.condition, 1)
    return AmqpError(f"{error.condition}: {error.description or ''}", code, lost=code == 7)


class AmqpClient(asyncio.Protocol):
    """Also the handler of its connection. Use `connect`."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop = asyncio.get_running_loop()
        plain = bool(server.key)
        self.wire = Connection.client(
            self,
            container_id="hubbub-cli",
            hostname=server.host,
            mechanism="PLAIN" if plain else "ANONYMOUS",
            user=server.key_name,
            password=server.key,
            limits=Limits(idle_ms=60_000),
            wake=self._wake,
        )
        self._plain = plain
        self.session: Session = self.wire.begin()
        self._gone = asyncio.Event()
        self._names = itertools.count()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: AmqpError | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(cls, server: Server, ca: str | None = None, port: int | None = None) -> AmqpClient:
        """Raises AmqpError if nobody answers, or does not let us in."""
        context = ssl.create_default_context(cafile=ca) if server.secure else None
        where = f"{server.host}:{port or server.port}"
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                _, client = await asyncio.get_running_loop().create_connection(
                    lambda: cls(server), server.host, port or server.port, ssl=context
                )
                await client._opened
                await client._authorize()
        except TimeoutError:
            raise AmqpError(f"{where} does not answer. Is a hubbub running there?", 7) from None
        except OSError as error:
            raise AmqpError(
                f"no hubbub answers at {where} ({error.strerror or error}). Start one with `hubbub up`.", 7
            ) from None
        return client

    async def close(self) -> None:
        self.wire.close()
        self._flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._gone.wait()
        self.transport.close()

    # Links.

    async def sender(self, address: str) -> Outbox:
        """Raises AmqpError if the server refuses the link."""
        link = self.session.sender(f"out-{next(self._names)}", Target(address), Source("hubbub-cli"))
        link.context = outbox = Outbox(self, link)
        await self.wait(outbox.attached)
        return outbox

    async def receiver(
        self,
        address: str,
        on_delivery: Callable[[Receiver, Delivery], object],
        *,
        credit: int = 500,
        selector: str = "",
    ) -> Inbox:
        """Raises AmqpError if the server refuses the link."""
        wanted = {SELECTOR: Described(SELECTOR, selector)} if selector else None
        source = Source(address, filter=wanted)
        link = self.session.receiver(f"in-{next(self._names)}", source, Target("hubbub-cli"))
        link.context = inbox = Inbox(self, link, on_delivery)
        await self.wait(inbox.attached)
        link.grant(credit, keep=True)
        return inbox

    async def request(self, node: str, application: dict[str, Any], body: Any = None) -> Any:
        """One request to a node that answers; the body of the answer. Raises AmqpError."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        reply_to = f"reply-{next(self._names)}"

        def answered(link: Receiver, delivery: Delivery) -> None:
            link.settle(delivery)
            if not answer.done():
                answer.set_result(delivery.payload)

        await self.receiver(node, answered, credit=1)
        outbox = await self.sender(node)
        properties = properties_section(message_id="1", reply_to=reply_to)
        payload = properties + map_section(APPLICATION_PROPERTIES, application) + value_section(body)
        await outbox.send(payload)
        sections = split(await self.wait(answer))
        said = section_map(sections.application_properties)
        status = int(said.get("status-code", 0))
        if not 200 <= status < 300:
            text = str(said.get("status-description", ""))
            raise AmqpError(f"{status} {text}", {401: 4, 404: 3}.get(status, 1))
        return section_value(sections.body)

    async def wait(self, future: asyncio.Future[Any]) -> Any:
        """The result, or an AmqpError if the connection goes first."""
        if self._lost is not None and not future.done():
            raise self._lost
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return await future

    async def _authorize(self) -> None:
        """A token, where the connection itself could not show a key."""
        if self._plain:
            return
        token = {
            "operation": "put-token",
            "type": "servicebus.windows.net:sastoken",
            "name": f"sb://{self.server.host}/",
            "expiration": int(time.time()) + TOKEN_SECONDS,
        }
        await self.request("$cbs", token, self.server.signature)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._flush()
        self._tick()

    def data_received(self, data: bytes) -> None:
        self.wire.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire.eof()
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        data = self.wire.take()
        if data and not self.transport.is_closing():
            self.transport.write(data)
        if self.wire.finished:
            self.transport.close()

    def _tick(self) -> None:
        now = int(self._loop.time() * 1000)
        due = self.wire.tick(now)
        self._flush()
        if not self.wire.finished:
            self._timer = self._loop.call_later(max(1, due - now) / 1000, self._tick)

    # The wire library's handler.

    def authenticate(self, connection: Connection, mechanism: str, user: str, password: str) -> None:
        """We are no server."""

    def opened(self, connection: Connection) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def begun(self, session: Session) -> None:
        """Links were asked for already."""

    def attach(self, link: Link) -> None:
        link.refuse("amqp:not-allowed", "This client takes no links.")

    def attached(self, link: Link) -> None:
        if not link.refused:
            link.context.attached.set_result(None)

    def flow(self, link: Link) -> None:
        if isinstance(link.context, Outbox):
            link.context.flow()

    def delivery(self, link: Receiver, delivery: Delivery) -> None:
        link.context.on_delivery(link, delivery)

    def disposition(self, link: Link, deliveries: Sequence[Sent], state: State | None, settled: bool) -> None:
        for sent in deliveries:
            link.context.settled(sent, state)

    def detached(self, link: Link, error: Error | None, closed: bool) -> None:
        link.context.ended(error_of(error, "the server has ended the link"))

    def ended(self, session: Session, error: Error | None) -> None:
        """Its links were told."""

    def closed(self, connection: Connection, error: Error | None) -> None:
        self._gone.set()
        denied = not self._opened.done() and error is None
        text = "the server does not accept the key" if denied else "the connection was lost"
        self._lost = AmqpError(text, 4) if denied else error_of(error, text)
        for future in [self._opened, *self._waiting]:
            if not future.done():
                future.set_exception(self._lost)


class Outbox:
    """A link that sends."""

    def __init__(self, client: AmqpClient, link: Sender) -> None:
        self.client = client
        self.link = link
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room: asyncio.Future[None] | None = None
        self._tags = itertools.count()
        self._pending: set[asyncio.Future[None]] = set()
        self._lost: AmqpError | None = None

    def send(self, payload: bytes, form: int = 0) -> asyncio.Future[None]:
        """Done when the server has the message safe; fails with AmqpError. Raises it if the link is gone."""
        if self._lost is not None:
            raise self._lost
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        self.link.send(payload, next(self._tags).to_bytes(4, "big"), format=form, context=future)
        return future

    async def room(self) -> None:
        """Returns when the server takes more."""
        while self.link.credit <= 0:
            if self._lost is not None:
                raise self._lost
            self._room = asyncio.get_running_loop().create_future()
            await self.client.wait(self._room)

    def flow(self) -> None:
        if self._room is not None and not self._room.done() and self.link.credit > 0:
            self._room.set_result(None)

    def settled(self, sent: Sent, state: State | None) -> None:
        future = sent.context
        self._pending.discard(future)
        if future.done():
            return
        if isinstance(state, Accepted):
            future.set_result(None)
        else:
            error = state.error if isinstance(state, Rejected) else None
            future.set_exception(error_of(error, "the message was not accepted"))

    def ended(self, error: AmqpError) -> None:
        self._lost = error
        for future in [self.attached, *self._pending, *filter(None, [self._room])]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # Not all of them are waited for.
        self._pending = set()


class Inbox:
    """A link that receives."""

    def __init__(
        self, client: AmqpClient, link: Receiver, on_delivery: Callable[[Receiver, Delivery], object]
    ) -> None:
        self.link = link
        self.on_delivery = on_delivery
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the link is gone."""

    def settled(self, sent: Sent, state: State | None) -> None:
        """Only what is sent is settled by the other side."""

    def ended(self, error: AmqpError) -> None:
        for future in (self.attached, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()


def accept(link: Receiver, delivery: Delivery) -> None:
    """Settles what was received, if that is for us to do."""
    if not delivery.settled:
        link.settle(delivery, ACCEPTED)


def opened(payload: bytes) -> tuple[dict[str, Any], dict[Any, Any], dict[Any, Any], bytes]:
    """Properties, application properties, annotations and body section of a message."""
    sections = split(payload)
    return (
        properties_of(sections.properties),
        section_map(sections.application_properties),
        section_map(sections.message_annotations),
        sections.body,
    )
