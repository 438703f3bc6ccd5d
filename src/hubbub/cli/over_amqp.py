"""What `send` and `tail` do when they speak AMQP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from ..wire.amqp.delivery import Delivery
from ..wire.amqp.link import Receiver
from ..wire.amqp.message import (
    APPLICATION_PROPERTIES,
    HEADER,
    MESSAGE_ANNOTATIONS,
    body_bytes,
    data_section,
    list_section,
    map_section,
    properties_section,
)
from ..wire.amqp.types import Symbol, Uint
from .amqp import BATCH_FORMAT, AmqpClient, AmqpError, Inbox, Outbox, accept, opened
from .client import Failure, Target, fail
from .tail import Tail, first_end, start_of

WINDOW = 500
"""Sends under way at a time."""
CHUNKS_MAX = 16
"""Pieces of standard input read ahead."""
PARTITION_KEY = Symbol("x-opt-partition-key")
Broker = Callable[[dict[str, Any], int], dict[str, Any]]


def run(work: Any) -> Any:
    """Runs a coroutine to its end; a Failure ends the program."""
    try:
        return asyncio.run(work)
    except Failure as error:
        fail(str(error), error.code, error.hint)


def send_all(
    server: Target,
    ca: str | None,
    entity: str,
    groups: AsyncIterator[list[bytes]],
    broker: Broker,
    options: dict[str, Any],
    posted: Callable[[list[bytes]], object],
) -> None:
    """Sends the groups, pipelined; `posted` is told of each when the server has it safe."""

    async def work() -> None:
        async with await AmqpClient.connect(server, ca) as client:
            partition = options["partition"]
            outbox = await client.sender(f"{entity}/Partitions/{partition}" if partition else entity)
            flight = _Flight(outbox, posted)
            began, number = asyncio.get_running_loop().time(), 0
            try:
                async for group in groups:
                    await _until(began, number, options["rate"])
                    await flight.room()
                    messages = [
                        encode(body, broker(options, number + n), options, own_key=len(group) == 1)
                        for n, body in enumerate(group)
                    ]
                    number += len(group)
                    flight.add(_send(outbox, messages, options), group)
                await flight.landed()
            except asyncio.CancelledError:
                if flight.failure is None:
                    raise
                raise flight.failure from None

    run(work())


async def _until(began: float, sent: int, rate: float | None) -> None:
    """Waits until the next message is due."""
    if rate:
        await asyncio.sleep(max(0.0, began + sent / rate - asyncio.get_running_loop().time()))


class _Flight:
    """Sends under way, WINDOW at most. The first that fails cancels the task that made this, whatever it
    waits for: perhaps for a line that never comes."""

    def __init__(self, outbox: Outbox, posted: Callable[[list[bytes]], object]) -> None:
        self.failure: AmqpError | None = None
        self._outbox = outbox
        self._posted = posted
        self._free = asyncio.Semaphore(WINDOW)
        self._task = asyncio.current_task()
        outbox.on_end = self._failed

    async def room(self) -> None:
        """Returns when another may go; what is `add`ed next takes that place."""
        await self._free.acquire()
        await self._outbox.room()

    def add(self, future: asyncio.Future[None], group: list[bytes]) -> None:
        future.add_done_callback(lambda done: self._done(done, group))

    async def landed(self) -> None:
        """Returns when all is answered."""
        for _ in range(WINDOW):
            await self._free.acquire()
        self._outbox.on_end = lambda error: None

    def _done(self, future: asyncio.Future[None], group: list[bytes]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, AmqpError):
            self._failed(error)
        else:
            self._posted(group)
            self._free.release()

    def _failed(self, error: AmqpError) -> None:
        if self.failure is None and self._task is not None:
            self.failure = error
            self._task.cancel()


async def made(groups: Iterator[list[bytes]]) -> AsyncIterator[list[bytes]]:
    """Groups that wait for nothing."""
    for group in groups:
        yield group


async def piped(descriptor: int, most: int) -> AsyncIterator[list[bytes]]:
    """Groups of up to `most` lines. A pipe may be quiet for long: a thread of its own reads it, and lines go
    when they are there, in smaller groups if need be."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    taken = threading.Semaphore(CHUNKS_MAX)

    def read() -> None:
        chunk = b"begin"
        while chunk:
            taken.acquire()
            chunk = os.read(descriptor, 65536)
            with contextlib.suppress(RuntimeError):  # The loop has ended, and so have we.
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while chunk := await chunks.get():
        *lines, rest = (rest + chunk).split(b"\n")
        for at in range(0, len(lines), most):
            yield [line.rstrip(b"\r") for line in lines[at : at + most]]
        taken.release()
    if rest:
        yield [rest.rstrip(b"\r")]


def _send(outbox: Outbox, messages: list[bytes], options: dict[str, Any]) -> asyncio.Future[None]:
    if len(messages) == 1:
        return outbox.send(messages[0])
    key = options["partition_key"]
    envelope = map_section(MESSAGE_ANNOTATIONS, {PARTITION_KEY: key}) if key else b""
    return outbox.send(envelope + b"".join(map(data_section, messages)), BATCH_FORMAT)


def encode(body: bytes, broker: dict[str, Any], options: dict[str, Any], *, own_key: bool) -> bytes:
    """One message. In a batch the key is on the envelope."""
    user = dict(item.partition("=")[::2] for item in options["properties"])
    ttl, key = broker.get("TimeToLive"), broker.get("PartitionKey")
    payload = list_section(HEADER, [None, None, Uint(int(ttl * 1000))]) if ttl else b""
    if key and own_key:
        payload += map_section(MESSAGE_ANNOTATIONS, {PARTITION_KEY: key})
    payload += properties_section(
        message_id=broker.get("MessageId"),
        subject=broker.get("Label"),
        content_type=options["content_type"],
        group_id=broker.get("SessionId"),
    )
    if user:
        payload += map_section(APPLICATION_PROPERTIES, user)
    return payload + data_section(body)


def selector_of(start: str) -> str:
    """The filter of a consumer that starts at a place, as `tail --from` names it. Raises ValueError."""
    kind, value = start_of(start)
    name, place = {
        "start": ("offset", "-1"),
        "end": ("offset", "@latest"),
        "offset": ("offset", value),
        "seq": ("sequence-number", value),
        "time": ("enqueued-time", value),
    }[kind]
    return f"amqp.annotation.x-opt-{name} > '{place}'"


def follow(server: Target, ca: str | None, group: str) -> Callable[[Tail], Awaitable[None]]:
    """What feeds a tail over AMQP: one connection, a link for each partition."""

    async def feed(tail: Tail) -> None:
        async with await AmqpClient.connect(server, ca) as client:
            ids = tail.choose(await partitions_of(client, tail.hub))
            inboxes = [await _inbox(client, tail, group, number) for number in ids]
            tail.standing += 1
            await first_end([inbox.done for inbox in inboxes])

    return feed


async def partitions_of(client: AmqpClient, hub: str) -> list[str]:
    """Raises AmqpError; its code is 3 if there is no such hub."""
    request = {"operation": "READ", "name": hub, "type": "com.microsoft:eventhub"}
    return [str(number) for number in (await client.request("$management", request))["partition_ids"]]


async def _inbox(client: AmqpClient, tail: Tail, group: str, number: str) -> Inbox:
    request = {"operation": "READ", "name": tail.hub, "type": "com.microsoft:partition", "partition": number}
    last = (await client.request("$management", request))["last_enqueued_sequence_number"]

    def got(link: Receiver, delivery: Delivery) -> None:
        accept(link, delivery)
        tail.take(number, event_of(delivery.payload))

    address = f"{tail.hub}/ConsumerGroups/{group}/Partitions/{number}"
    return await client.receiver(address, got, selector=selector_of(tail.start(number, last)))


def event_of(payload: bytes) -> dict[str, Any]:
    """An event in the shape of the JSON API."""
    properties, user, annotations, body = opened(payload)
    content = body_bytes(body)
    event: dict[str, Any] = {
        "sequenceNumber": annotations.get("x-opt-sequence-number"),
        "offset": annotations.get("x-opt-offset"),
        "enqueuedTimeUtc": _iso(annotations.get("x-opt-enqueued-time")),
        "partitionKey": annotations.get("x-opt-partition-key"),
        "contentType": properties.get("content_type"),
        "properties": {str(name): plain(value) for name, value in user.items()} or None,
    }
    try:
        event["body"] = content.decode()
    except UnicodeDecodeError:
        event["bodyBase64"] = base64.b64encode(content).decode()
    return {name: value for name, value in event.items() if value is not None}


def plain(value: Any) -> Any:
    """What JSON can say of an AMQP value."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _iso(moment: Any) -> str | None:
    if not isinstance(moment, int):
        return None
    found = datetime.fromtimestamp(moment / 1000, UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")
