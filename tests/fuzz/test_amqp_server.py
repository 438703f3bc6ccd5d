"""Random conversations with a whole AMQP server in memory (see `amqp_talk`).

Whatever comes: nothing is logged as a mistake of ours, every answer is a well-formed frame, every condition is
one the service documents, nothing is left behind when the connection ends, and another client notices nothing.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import uuid
from collections import Counter
from random import Random
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.amqp_house import CONDITIONS, KEY, ROOT, AmqpHouse, Raw
from fuzz.amqp_talk import Talk
from hubbub.broker.entity import Queue, Subscription, Topic
from hubbub.front.amqp import transactions
from hubbub.front.amqp.server import AmqpTransport
from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.delivery import Delivery, Sent
from hubbub.wire.amqp.link import Link
from hubbub.wire.amqp.message import data_section, properties_section
from hubbub.wire.amqp.performatives import Modified
from hubbub.wire.amqp.session import Session

GREETINGS = (
    ("PLAIN", KEY),
    ("PLAIN", KEY),
    ("PLAIN", KEY),
    ("ANONYMOUS", ""),
    (None, ""),
    ("PLAIN", "wrong"),
)


async def opened() -> AmqpHouse:
    house = await AmqpHouse().open()
    for entity in (
        Queue(path="sessions", requires_session=True),
        Topic(path="topic"),
        Subscription(path="topic/subscriptions/s", topic="topic", name="s"),
    ):
        await house.namespace.create(entity)
    for address, count in (("hub/Partitions/0", 5), ("queue", 12), ("sessions", 4), ("topic", 5)):
        link = await house.good.sender(address)
        for n in range(count):
            group = properties_section(group_id=f"s{n % 2}") if address == "sessions" else b""
            link.send(group + data_section(b"%d" % n), b"%d" % n)
        await house.good.run()
    return house


async def locked(house: AmqpHouse) -> list[uuid.UUID]:
    """Tokens of messages that another client holds; the fourth is deferred."""
    holder = await house.client()
    holder.notes.auto, holder.notes.credit, holder.notes.keep = False, 4, False
    link = await holder.receiver("queue")
    tokens = [uuid.UUID(bytes_le=delivery.tag) for delivery in holder.notes.deliveries]
    link.settle(holder.notes.deliveries[-1:], Modified(False, True))
    await holder.run()
    await holder.leave()
    return tokens


async def converse(house: AmqpHouse, seed: int) -> Raw:
    chance = Random(seed)
    mechanism, password = chance.choice(GREETINGS)
    tokens = await locked(house) if house.namespace.receivers["queue"].counts().active > 4 else []
    now = house.clock.now()
    talk = Talk(
        seed, mechanism=mechanism, user=ROOT, password=password or KEY, key=KEY, tokens=tokens, now=now
    )
    raw = Raw(house)
    ids = (b"t%d" % n for n in itertools.count())  # such as the talk names
    with mock.patch.object(transactions, "guid_bytes", side_effect=ids):
        await say(house, raw, talk, chance)
    return raw


async def say(house: AmqpHouse, raw: Raw, talk: Talk, chance: Random) -> None:
    for piece in chance.choice((talk.pieces, lambda: talk.frames))():
        if raw.gone:
            break
        await raw.send(piece)
        if chance.randrange(20) == 0:
            house.clock.advance(chance.choice((1, 1000, 70_000)))
            house.good.wire.tick(house.clock.now())
            await house.good.run()


def nothing_left(house: AmqpHouse) -> None:
    """What connections hold goes with them."""
    server = house.server
    assert server.connections == {house.good.protocol}
    assert server.readers == {}
    assert server.kept_bytes == 0
    assert server.held_bytes == 0
    for receiver in house.namespace.receivers.values():
        assert not [waiter for waiter in receiver.waiting if waiter.left is None or not waiter.left()]


class Complaints(logging.Handler):
    """What is logged as an error, and what an event loop catches."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))

    def __enter__(self) -> Complaints:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        assert not self.found, self.found[0]


@given(st.integers(0, 2**32))
def test_whatever_frames_come(seed):
    async def main():
        house = await opened()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context))
        for one in range(seed, seed + 3):
            raw = await converse(house, one)
            wrong = set(raw.conditions) - CONDITIONS
            assert not wrong, (one, wrong)
            assert b"amqp:internal-error" not in raw.output, one
            await raw.leave()
            nothing_left(house)
        await house.works()

    caught: list[dict[str, object]] = []
    with Complaints():
        asyncio.run(main())
    assert not caught, caught[0]


def test_the_talk_gets_far():
    """Most of what the server can do is done by some conversation, or the test above would say little."""

    async def main():
        house = await opened()
        names: Counter[str] = Counter()
        for seed in range(150):
            raw = await converse(house, seed)
            names.update(type(found).__name__ for found in raw.performatives)
            names.update(type(getattr(found, "state", None)).__name__ for found in raw.performatives)
            names.update(raw.conditions)
            await raw.leave()
        return names

    names = asyncio.run(main())
    for name in ("Declared", "amqp:transaction:unknown-id"):
        assert names[name] > 2, names
    for name in ("Attach", "Transfer", "Disposition", "Flow", "Detach", "End", "Close"):
        assert names[name] > 20, names
    assert len([name for name in names if ":" in name]) >= 12, names


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(found, kind) for found in gc.get_objects())


@pytest.mark.parametrize("kind", [AmqpTransport, Connection, Session, Link, Delivery, Sent])
def test_nothing_stays_in_memory(kind):
    """However connections end, what was theirs goes: locks and timers keep nothing of them either."""

    async def main():
        house = await opened()
        before = alive(kind)
        for seed in range(40):
            raw = await converse(house, seed)
            await raw.leave()
        del raw
        house.clock.advance(400_000)
        await house.good.run()
        await house.renew()
        assert alive(kind) <= before

    asyncio.run(main())
