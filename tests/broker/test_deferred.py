"""Deferred messages received by their numbers: all or none, and no more at once than one answer may hold."""

from __future__ import annotations

import asyncio

import pytest

from broker.jumped import World
from hubbub.broker import selection
from hubbub.broker.entity import Queue
from hubbub.broker.errors import MessageNotFound, TooLarge
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
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


@pytest.mark.parametrize("keeps", [True, False])
def test_deferred_messages_expire_when_they_are_asked_for(tmp_path, keeps):
    """Not before, also after a restart; then as any other would."""

    async def world():
        return World(FileEngine(str(tmp_path)))

    async def before():
        w = await world()
        await w.queue("q", dead_letter_on_expiration=keeps)
        await w.send("q", "short", "waits", ttl=5000)
        await w.send("q", "long")
        for _ in range(3):
            held = await w.receive("q")
            if held.sequence != 2:
                await w.settle("q", "defer", held)
        await w.later(10_000)
        found = [(d.sequence, d.state) for d in w.ns.peek("q", 0, 9)]
        assert found == [(1, "Deferred"), (3, "Deferred")], "the other is locked, and its time is over"
        await w.engine.close()
        return w.clock

    async def after(clock):
        w = await world()
        w.clock.advance(clock.now() - w.clock.now())
        queue = w.ns.receiver("q")
        await w.later(1000)
        assert [d.sequence for d in queue.peek(0, 9)] == [1, 3]
        for _ in range(2):
            assert isinstance(await ask(queue.receive_deferred, [3, 1], True), MessageNotFound)
            await w.quiet()
            assert [(d.sequence, d.state) for d in queue.peek(0, 9)] == [(3, "Deferred")]
        reasons = [
            d.message.dead_letter_reason
            for d in queue.dead_letters.peek(0, 9)
            if d.message.payload == b"short"
        ]
        assert reasons == (["TTLExpiredException"] if keeps else [])
        assert sequences(await ask(queue.receive_deferred, [3], True)) == [3]
        await w.engine.close()

    asyncio.run(after(asyncio.run(before())))
