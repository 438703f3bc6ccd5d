"""The crash test's AMQP clients: writers that pipeline, a receiver, and a reader of whole partitions."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from hubbub.cli.amqp import BATCH_FORMAT, AmqpClient, AmqpError, opened
from hubbub.cli.client import parse
from hubbub.cli.over_amqp import selector_of
from hubbub.wire.amqp.delivery import Delivery
from hubbub.wire.amqp.link import Receiver
from hubbub.wire.amqp.message import body_bytes, data_section
from hubbub.wire.amqp.performatives import Modified

if TYPE_CHECKING:
    from crash import History

MARKS = "marks"
"""A hub whose events mean nothing."""
WINDOW = 30
BREATH = 0.05
"""Seconds now and then, or there would be more to read back than the test has time for."""


def connection_string(port: int) -> str:
    return (
        f"Endpoint=sb://localhost:{port};SharedAccessKeyName=RootManageSharedAccessKey;"
        "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
    )


def write(history: History, port: int, target: str, chance: random.Random) -> None:
    """Sends numbered messages to one target, many under way at a time, until the server is gone."""
    asyncio.run(_write(history, port, target, chance))


async def _write(history: History, port: int, target: str, chance: random.Random) -> None:
    sent = history.acknowledged.setdefault(target, [])
    unsure = history.unsure.setdefault(target, set())
    under_way: list[tuple[asyncio.Future[None], list[str]]] = []
    try:
        client = await AmqpClient.connect(parse(connection_string(port)))
        outbox = await client.sender(target)
        while True:
            await outbox.room()
            if history.numbers[target] % WINDOW == 0:
                await asyncio.sleep(BREATH)
            bodies = []
            for _ in range(chance.choice((1, 1, 1, 7))):
                history.numbers[target] += 1
                bodies.append(f"{target}:{history.numbers[target]}")
            parts = [data_section(body.encode()) for body in bodies]
            if len(parts) == 1:
                under_way.append((outbox.send(parts[0]), bodies))
            else:
                under_way.append((outbox.send(b"".join(map(data_section, parts)), BATCH_FORMAT), bodies))
            while len(under_way) >= WINDOW:
                await client.wait(under_way[0][0])
                sent.extend(under_way.pop(0)[1])
    except AmqpError as error:
        if error.code != 7:
            history.problems.append(f"send to {target}: {error}")
    for future, bodies in under_way:
        if future.done() and future.exception() is None:
            sent.extend(bodies)
        else:
            unsure.update(bodies)


def receive(history: History, port: int, source: str, chance: random.Random) -> None:
    """Locks and completes, or abandons, until the server is gone."""
    asyncio.run(_receive(history, port, source, chance))


async def _receive(history: History, port: int, source: str, chance: random.Random) -> None:
    arrived: list[tuple[Receiver, Delivery]] = []
    more = asyncio.get_running_loop().create_future()

    def got(link: Receiver, delivery: Delivery) -> None:
        arrived.append((link, delivery))
        if not more.done():
            more.set_result(None)

    try:
        client = await AmqpClient.connect(parse(connection_string(port)))
        marks = await client.sender(MARKS)
        await client.receiver(source, got, credit=20)
        while True:
            await client.wait(more)
            more = asyncio.get_running_loop().create_future()
            here, arrived = arrived, []
            done = set()
            for link, delivery in here:
                body = body_bytes(opened(delivery.payload)[3]).decode()
                if body in history.completed[source]:
                    history.problems.append(f"{body} came back after it was completed")
                if chance.random() < 0.3:
                    link.settle(delivery, Modified(delivery_failed=True))
                    done.add("")
                else:
                    history.maybe_completed[source].add(body)
                    link.settle(delivery)
                    done.add(body)
            # The journal has one order: what is durable after a settlement says that the settlement is, too.
            await client.wait(marks.send(data_section(b"mark")))
            history.completed[source] |= done - {""}
    except AmqpError as error:
        if error.code != 7:
            history.problems.append(f"receive from {source}: {error}")


def events(port: int, partition: int, count: int) -> list[str]:
    """The first `count` events of a partition, as a consumer gets them."""
    return asyncio.run(_events(port, partition, count)) if count else []


async def _events(port: int, partition: int, count: int) -> list[str]:
    client = await AmqpClient.connect(parse(connection_string(port)))
    found: list[str] = []
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def got(link, delivery) -> None:
        found.append(body_bytes(opened(delivery.payload)[3]).decode())
        if len(found) == count:
            finished.set_result(None)

    address = f"events/ConsumerGroups/$Default/Partitions/{partition}"
    await client.receiver(address, got, selector=selector_of("start"))
    async with asyncio.timeout(30):
        await client.wait(finished)
    await client.close()
    return found[:count]
