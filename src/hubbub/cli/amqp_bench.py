"""What `bench` does when it speaks AMQP.

Every figure is the seconds of one request: to its outcome or, in mode latency, to its arrival at a reader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ..wire.amqp.delivery import Delivery
from ..wire.amqp.link import Receiver
from ..wire.amqp.message import body_bytes, data_section
from .amqp import BATCH_FORMAT, AmqpClient, AmqpError, accept, opened
from .client import Target
from .over_amqp import selector_of

Found = tuple[list[float], int]
LOST_SECONDS = 5
"""What did not arrive until then counts as an error."""


async def measure(server: Target, ca: str | None, options: dict[str, Any]) -> Found:
    """Seconds of each request that succeeded, and how many failed. Raises AmqpError."""
    if options["mode"] == "latency":
        return await _latency(server, ca, options)
    one = _pairs if options["mode"] == "lock" else _sends
    until = time.perf_counter() + options["duration"]
    found = await asyncio.gather(*(one(server, ca, options, until) for _ in range(options["clients"])))
    return [seconds for times, _ in found for seconds in times], sum(errors for _, errors in found)


async def _sends(server: Target, ca: str | None, options: dict[str, Any], until: float) -> Found:
    """A window of sends, each going on when its last one is answered."""
    client = await AmqpClient.connect(server, ca)
    outbox = await client.sender(options["entity"])
    payload, form = data_section(b"x" * options["size"]), 0
    if options["mode"] == "batch":
        payload, form = data_section(payload) * options["batch"], BATCH_FORMAT
    times: list[float] = []
    errors = 0

    async def lane() -> None:
        nonlocal errors
        while (start := time.perf_counter()) < until:
            await outbox.room()
            try:
                await client.wait(outbox.send(payload, form))
                times.append(time.perf_counter() - start)
            except AmqpError as error:
                if error.lost:
                    raise
                errors += 1
                await asyncio.sleep(0.01)

    window = max(1, options["window"] // (options["batch"] if form else 1))
    await asyncio.gather(*(lane() for _ in range(window)))
    await client.close()
    return times, errors


async def _pairs(server: Target, ca: str | None, options: dict[str, Any], until: float) -> Found:
    """A message sent, received under a lock, and completed; any waiting message will do."""
    client = await AmqpClient.connect(server, ca)
    outbox = await client.sender(options["entity"])
    arrived: asyncio.Queue[tuple[Receiver, Delivery]] = asyncio.Queue()
    await client.receiver(
        options["entity"], lambda link, delivery: arrived.put_nowait((link, delivery)), credit=1
    )
    times: list[float] = []
    errors = 0
    while (start := time.perf_counter()) < until:
        await client.wait(outbox.send(data_section(b"x" * options["size"])))
        try:
            async with asyncio.timeout(LOST_SECONDS):
                link, delivery = await arrived.get()
        except TimeoutError:
            errors += 1
            continue
        accept(link, delivery)
        times.append(time.perf_counter() - start)
    await client.close()
    return times, errors


async def _latency(server: Target, ca: str | None, options: dict[str, Any]) -> Found:
    """One event after the other, each timed until a reader that waits for it has it."""
    client = await AmqpClient.connect(server, ca)
    hub = options["entity"]
    outbox = await client.sender(f"{hub}/Partitions/0")
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    await client.receiver(
        f"{hub}/ConsumerGroups/$Default/Partitions/0", _into(arrived), selector=selector_of("end")
    )
    times: list[float] = []
    errors = 0
    until = time.perf_counter() + options["duration"]
    number = 0
    while (start := time.perf_counter()) < until:
        number += 1
        body = b"%016d" % number + b"x" * max(0, options["size"] - 16)
        sent = outbox.send(data_section(body))
        try:
            async with asyncio.timeout(LOST_SECONDS):
                while await arrived.get() != body:
                    """Somebody else's."""
        except TimeoutError:
            errors += 1
        else:
            times.append(time.perf_counter() - start)
        await client.wait(sent)
    await client.close()
    return times, errors


def _into(arrived: asyncio.Queue[bytes]) -> Callable[[Receiver, Delivery], object]:
    return lambda link, delivery: arrived.put_nowait(body_bytes(opened(delivery.payload)[3]))
