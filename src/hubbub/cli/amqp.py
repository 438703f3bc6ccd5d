"""A lean AMQP client on our own wire library: what `send`, `tail` and `bench` need, and no more.

One connection with one session. It shows a key by SASL PLAIN, a signature by a token put to `$cbs`. Sends are
pipelined: each returns a future of its outcome. Failures are `AmqpError`s with the exit code they deserve. It
does not connect again: who wants that makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
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
from .client import HINTS, TOKEN_SECONDS, Failure, tls, unreachable
from .client import Target as Server

SELECTOR = Symbol("apache.org:selector-filter:string")
BATCH_FORMAT = 0x80013700
OPEN_SECONDS_MAX = 10
_CODES = {
    "amqp:not-found": 3,
    "amqp:unauthorized-access": 4,
    "amqp:link:stolen": 4,
    "com.microsoft:auth-failed": 4,
    "com.microsoft:entity-disabled": 4,
    "com.microsoft:server-busy": 8,
    "amqp:resource-limit-exceeded": 8,
    "amqp:connection:forced": 7,
    "amqp:connection:framing-error": 7,
    "amqp:link:detach-forced": 7,
    "com.microsoft:timeout": 7,
}
_HINTS = {
    "amqp:link:stolen": "A consumer owns this partition alone; follow it in another consumer group: --group.",
    "amqp:resource-limit-exceeded": "Close other readers of this partition, or use another --group.",
    "amqp:link:message-size-exceeded": "Send smaller messages, or fewer in a --batch.",
}


class AmqpError(Failure):
    """What went wrong over AMQP."""


def error_of(error: Error | None, otherwise: str) -> AmqpError:
    """The peer's error; without one, a connection or link that just ended."""
    if error is None:
        return AmqpError(otherwise, 7, lost=True)
    code = _CODES.get(error.condition, 1)
    text = f"{error.condition}: {error.description or 'the server says no more'}"
    hint = _HINTS.get(error.condition) or HINTS.get(code, "")
    return AmqpError(text, code, lost=code == 7, hint=hint)


class AmqpClient(asyncio.Protocol):
    """Also the handler of its connection. Use `connect`."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self._loop = asyncio.get_running_loop()
        self._plain = bool(server.key)
        self.wire = Connection.client(
            self,
            container_id="hubbub-cli",
            hostname=server.host,
            mechanism="PLAIN" if self._plain else "ANONYMOUS",
            user=server.key_name,
            password=server.key,
            limits=Limits(idle_ms=60_000),
            wake=self._wake,
        )
        self.session: Session = self.wire.begin()
        self._gone = asyncio.Event()
        self._names = itertools.count()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._lost: AmqpError | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._nodes: dict[str, _Node] = {}
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(cls, server: Server, ca: str | None = None, port: int | None = None) -> AmqpClient:
        """Raises AmqpError if nobody answers, or does not let us in."""
        port = port or server.amqp_port
        context = tls(server, ca)
        client: AmqpClient | None = None
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                _, client = await asyncio.get_running_loop().create_connection(
                    lambda: cls(server), server.host, port, ssl=context
                )
                await client.wait(client._opened)
                await client._authorize()
                return client
        except TimeoutError:
            text = f"{server.host}:{port} says nothing for {OPEN_SECONDS_MAX} s. Does it speak AMQP?"
            failure = AmqpError(f"{text} Another port stands in the connection string: sb://HOST:PORT.", 7)
        except OSError as error:
            failure = AmqpError(unreachable(server, port, error), 7)
        except AmqpError as error:
            failure = error
        if client is not None:
            client.abort()
        raise failure from None

    async def close(self) -> None:
        """Says goodbye and waits a moment for the answer."""
        self.wire.close()
        self._flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._gone.wait()
        self.abort()

    def abort(self) -> None:
        """Ends the connection without a word. Nothing happens if it has ended."""
        self.transport.abort()

    async def __aenter__(self) -> AmqpClient:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self.close()
        else:
            self.abort()

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

    async def request(self, name: str, application: dict[str, Any], body: Any = None) -> Any:
        """One request to a node that answers, and the body of its answer. Raises AmqpError."""
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = _Node(self)
            await self.receiver(name, node.answered, credit=10)
            node.outbox = await self.sender(name)
        sections = split(await node.ask(application, body))
        said = section_map(sections.application_properties)
        status = int(said.get("status-code", said.get("statusCode", 0)))
        if not 200 <= status < 300:
            text = str(said.get("status-description", said.get("statusDescription", "")))
            code = {401: 4, 403: 4, 404: 3, 503: 8}.get(status, 1)
            raise AmqpError(f"{status} {text}", code, hint=HINTS.get(code, ""))
        return section_value(sections.body)

    async def wait(self, future: asyncio.Future[Any]) -> Any:
        """The result, or an AmqpError if the connection goes first."""
        if self._lost is not None and not future.done():
            raise self._lost
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return await future

    async def _authorize(self) -> None:
        """A token, where the connection itself could not show a key. Who has neither perhaps needs none."""
        if self._plain or not self.server.signature:
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
        try:
            link.context.on_delivery(link, delivery)
        except Exception as error:  # A handler must not raise; who waits for the inbox gets it.
            link.context.ended(error)

    def disposition(self, link: Link, deliveries: Sequence[Sent], state: State | None, settled: bool) -> None:
        if not settled:
            cast(Sender, link).settle(deliveries, state)
        for sent in deliveries:
            link.context.settled(sent, state)

    def detached(self, link: Link, error: Error | None, closed: bool) -> None:
        link.context.ended(error_of(error, "the server has ended the link or the connection"))

    def ended(self, session: Session, error: Error | None) -> None:
        """Its links were told."""

    def closed(self, connection: Connection, error: Error | None) -> None:
        self._gone.set()
        text = "the connection was lost"
        if not self._opened.done():
            text = (
                "the server ends the connection before AMQP has begun; does its port speak it, without TLS?"
            )
            if self.server.secure:
                text = (
                    "the server ends the connection before AMQP has begun; does its port speak it, over TLS?"
                )
        self._lost = error_of(error, text)
        for future in [*self._waiting]:
            if not future.done():
                future.set_exception(self._lost)
                future.exception()  # Not all of them are waited for.


class _Node:
    """The two links to a node that answers requests."""

    outbox: Outbox

    def __init__(self, client: AmqpClient) -> None:
        self._client = client
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)

    async def ask(self, application: dict[str, Any], body: Any) -> bytes:
        """The answer, as it came."""
        number = str(next(self._numbers))
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        properties = properties_section(message_id=number, reply_to="hubbub-cli")
        try:
            await self._client.wait(
                self.outbox.send(
                    properties + map_section(APPLICATION_PROPERTIES, application) + value_section(body)
                )
            )
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                return bytes(await self._client.wait(answer))
        except TimeoutError:
            raise AmqpError(
                f"the server answers no request for {OPEN_SECONDS_MAX} s. Try again.", 7
            ) from None
        finally:
            del self._answers[number]

    def answered(self, link: Receiver, delivery: Delivery) -> None:
        accept(link, delivery)
        number = properties_of(split(delivery.payload).properties).get("correlation_id")
        answer = self._answers.get(str(number))
        if answer is not None and not answer.done():
            answer.set_result(delivery.payload)


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
        self.on_end: Callable[[AmqpError], object] = lambda error: None
        """Told when the link is gone."""

    def send(self, payload: bytes, form: int = 0) -> asyncio.Future[None]:
        """Done when the server has the message safe; fails with AmqpError. Raises it if the link is gone."""
        if self._lost is not None:
            raise self._lost
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.add(future)
        self.link.send(payload, next(self._tags).to_bytes(4, "big"), format=form, context=future)
        return future

    async def room(self) -> None:
        """Returns when the server takes more. Many may wait."""
        while self.link.credit <= 0:
            if self._lost is not None:
                raise self._lost
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            await self.client.wait(asyncio.shield(self._room))

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
            refused = AmqpError("the server did not accept the message, and did not say why. Try again.", 1)
            future.set_exception(error_of(error, "") if error else refused)
            future.exception()  # Not all of them are waited for.

    def ended(self, error: AmqpError) -> None:
        self._lost = error
        for future in [self.attached, *self._pending, *filter(None, [self._room])]:
            if not future.done():
                future.set_exception(error)
                future.exception()  # Not all of them are waited for.
        self._pending = set()
        self.on_end(error)


class Inbox:
    """A link that receives."""

    def __init__(
        self, client: AmqpClient, link: Receiver, on_delivery: Callable[[Receiver, Delivery], object]
    ) -> None:
        self.link = link
        self.on_delivery = on_delivery
        self.attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the link is gone, or with what `on_delivery` raised."""

    def settled(self, sent: Sent, state: State | None) -> None:
        """Only what is sent is settled by the other side."""

    def ended(self, error: Exception) -> None:
        for future in (self.attached, self.done):
            if not future.done():
                future.set_exception(error)
                future.exception()


def accept(link: Receiver, delivery: Delivery) -> None:
    """Settles what was received, if that is for us to do."""
    if not delivery.settled:
        link.settle(delivery, ACCEPTED)


def opened(payload: bytes) -> tuple[dict[str, Any], dict[Any, Any], dict[Any, Any], bytes]:
    """Properties, application properties, annotations and body section of a message. Raises DecodeError."""
    sections = split(payload)
    return (
        properties_of(sections.properties),
        section_map(sections.application_properties),
        section_map(sections.message_annotations),
        sections.body,
    )
