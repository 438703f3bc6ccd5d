"""What `send` and `tail` do when they speak AMQP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

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
from .amqp import BATCH_FORMAT, AmqpClient, AmqpError, opened
from .client import Target, fail

WINDOW = 500
"""Sends under way at a time."""
PAUSES = (0.2, 0.5, 1, 2, 5)
"""Seconds before `tail` connects again, the last one for ever."""
PARTITION_KEY = Symbol("x-opt-partition-key")
Broker = Callable[[dict[str, Any], int], dict[str, Any]]
Show = Callable[[str, dict[str, Any]], object]


def run(work: Any) -> Any:
    """Runs a coroutine to its end; an AmqpError ends the program."""
    try:
        return asyncio.run(work)
    except AmqpError as error:
        fail(str(error), error.code)


def send_all(
    server: Target,
    ca: str | None,
    entity: str,
    groups: Iterator[list[bytes]],
    broker: Broker,
    options: dict[str, Any],
    posted: Callable[[list[bytes]], object],
) -> None:
    """Sends the groups, pipelined; `posted` is told of each when the server has it safe."""

    async def work() -> None:
        client = await AmqpClient.connect(server, ca)
        partition = options["partition"]
        outbox = await client.sender(f"{entity}/Partitions/{partition}" if partition else entity)
        waiting: deque[tuple[asyncio.Future[None], list[bytes]]] = deque()
        number = 0
        # One at a time if a pace is asked for: what it says is then what happens.
        window = 1 if options["rate"] else WINDOW
        for group in groups:
            await outbox.room()
            messages = [
                encode(body, broker(options, number + n), options, own_key=len(group) == 1)
                for n, body in enumerate(group)
            ]
            number += len(group)
            waiting.append((_send(outbox, messages, options), group))
            while len(waiting) >= window:
                await _first(client, waiting, posted)
        while waiting:
            await _first(client, waiting, posted)
        await client.close()

    run(work())


async def _first(client: AmqpClient, waiting: deque[Any], posted: Callable[[list[bytes]], object]) -> None:
    future, group = waiting.popleft()
    await client.wait(future)
    posted(group)


def _send(outbox: Any, messages: list[bytes], options: dict[str, Any]) -> Any:
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
    """The filter of a consumer that starts at `start`, `end`, `seq:N`, `offset:X` or `time:ISO`."""
    if start in ("start", "end"):
        return f"amqp.annotation.x-opt-offset > '{'-1' if start == 'start' else '@latest'}'"
    kind, _, value = start.partition(":")
    if kind == "seq" and re.fullmatch(r"-?\d+", value):
        return f"amqp.annotation.x-opt-sequence-number > '{value}'"
    if kind == "offset" and value:
        return f"amqp.annotation.x-opt-offset > '{value}'"
    if kind == "time":
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return f"amqp.annotation.x-opt-enqueued-time > '{int(moment.timestamp() * 1000)}'"
    return fail(f"--from {start}: say start, end, seq:NUMBER, offset:OFFSET or time:2026-01-31T12:00:00Z.", 2)


def follow_all(
    server: Target,
    ca: str | None,
    hub: str,
    partitions: tuple[str, ...],
    start: str,
    count: int | None,
    show: Show,
) -> None:
    """Shows events as they come, through lost connections; ends after `count` if that is given."""
    selector = selector_of(start)
    seen: dict[str, int] = {}
    left = count

    async def once() -> None:
        nonlocal left
        client = await AmqpClient.connect(server, ca)
        request = {"operation": "READ", "name": hub, "type": "com.microsoft:eventhub"}
        ids = partitions or [str(n) for n in (await client.request("$management", request))["partition_ids"]]
        finished = asyncio.get_running_loop().create_future()

        def taker(number: str) -> Callable[[Receiver, Delivery], object]:
            def got(link: Receiver, delivery: Delivery) -> None:
                nonlocal left
                event = event_of(delivery.payload)
                seen[number] = event["sequenceNumber"]
                if left is None or left > 0:
                    show(number, event)
                left = None if left is None else left - 1
                if left == 0 and not finished.done():
                    finished.set_result(None)

            return got

        for number in ids:
            behind = f"amqp.annotation.x-opt-sequence-number > '{seen[number]}'" if number in seen else ""
            address = f"{hub}/ConsumerGroups/$Default/Partitions/{number}"
            await client.receiver(address, taker(number), selector=behind or selector)
        await client.wait(finished)
        await client.close()

    async def work() -> None:
        tries = 0
        while left is None or left > 0:
            before = dict(seen)
            try:
                await once()
            except AmqpError as error:
                if error.code != 7 or not (tries or seen or error.lost):
                    raise
                tries = 0 if seen != before else tries
                click.secho(f"{error}; connecting again", fg="yellow", err=True)
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    run(work())


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
