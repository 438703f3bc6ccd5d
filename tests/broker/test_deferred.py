"""Deferred messages received by their numbers: all or none, and no more at once than one answer may hold."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.broker import selection
from hubbub.broker.entity import Queue
from hubbub.broker.errors import MessageNotFound, TooLarge
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine


async def ask(verb, *arguments):
    answered = asyncio.get_running_loop().create_future()
    verb(*arguments, answered.set_result)
    return await asyncio.wait_for(answered, 5)


async def deferred(sizes):
    """A queue whose messages, numbered from 1, are all deferred."""
    clock = ManualClock()
    namespace = Namespace("ns", MemoryEngine(), clock, PROFILES["standard"])
    await namespace.create(Queue(path="q"))
    assert await ask(namespace.send, "q", [Message(b"x" * size) for size in sizes], clock.now()) is None
    queue = namespace.receiver("q")
    for _ in sizes:
        delivery = await ask(queue.receive, True, clock.now())
        assert await ask(queue.defer, queue.holder(delivery.token)) is None
    return queue


@pytest.fixture(autouse=True)
def bound(monkeypatch):
    monkeypatch.setattr(selection, "DEFERRED_BYTES_MAX", 1_000)


def sequences(outcome):
    assert isinstance(outcome, list), outcome
    return [delivery.sequence for delivery in outcome]


@pytest.mark.parametrize("lock", [True, False])
def test_too_many_bytes_are_refused_whole(lock):
    async def main():
        queue = await deferred([400, 400, 400])
        before = queue.counts()
        refused = await ask(queue.receive_deferred, [1, 2, 3], lock)
        assert isinstance(refused, TooLarge)
        assert "fewer sequence numbers" in str(refused)
        assert queue.counts() == before
        assert (before.deferred, before.locked) == (3, 0)
        assert sequences(await ask(queue.receive_deferred, [3, 1], lock)) == [3, 1]
        assert sequences(await ask(queue.receive_deferred, [2], lock)) == [2]

    asyncio.run(main())


@pytest.mark.parametrize("lock", [True, False])
def test_one_alone_always_fits(lock):
    async def main():
        queue = await deferred([5_000, 5_000])
        assert isinstance(await ask(queue.receive_deferred, [1, 2], lock), TooLarge)
        # A number that is given twice is one message.
        assert sequences(await ask(queue.receive_deferred, [1, 1], lock)) == [1]

    asyncio.run(main())


def test_what_is_not_there_is_told_first():
    async def main():
        queue = await deferred([900, 900])
        assert isinstance(await ask(queue.receive_deferred, [1, 2, 3], True), MessageNotFound)

    asyncio.run(main())
