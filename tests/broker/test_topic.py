"""What a topic reckons about itself."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from broker.jumped import World
from hubbub.broker.entity import Rule, Subscription, Topic
from hubbub.broker.errors import MessageNotFound
from hubbub.broker.filters import SqlFilter
from hubbub.broker.message import Message
from hubbub.broker.topic import SIZE_LASTS, Fanout
from hubbub.engine.memory import MemoryEngine, MemoryLog
from hubbub.front.letters import Letters
from hubbub.wire.amqp.message import data_section


def test_how_full_it_is():
    receivers = [SimpleNamespace(size_bytes=40) for _ in range(2)]
    fanout = Fanout(SimpleNamespace(first=1), None, None)
    for number, receiver in enumerate(receivers):
        fanout.put(f"t/subscriptions/{number}", receiver)
    assert not fanout.full(81, 5_000)
    assert fanout.full(80, 5_000)
    # What has gone is seen when it could make the difference; what has come by other ways, soon.
    receivers[0].size_bytes = 30
    assert not fanout.full(80, 5_001)
    receivers[0].size_bytes = 60
    assert not fanout.full(100, 5_000 + SIZE_LASTS)
    assert fanout.full(100, 5_001 + SIZE_LASTS)
    # Also when the clock was set back.
    receivers[0].size_bytes = 1
    assert not fanout.full(100, 4_000)
    fanout.drop("t/subscriptions/1")
    assert fanout.full(1, 4_001)
    assert not fanout.full(2, 4_000 + SIZE_LASTS)


def story(act, expression="1=1"):
    """Runs `act(world)` with a topic `t` and its subscription `s`, whose only rule has the expression."""

    async def main():
        w = World(MemoryEngine())
        w.ns._letters = Letters()
        await w.ns.create(Topic(path="t"))
        path = "t/subscriptions/s"
        rule = Rule(
            path=f"{path}/rules/r", subscription=path, name="r", filter=SqlFilter(expression=expression)
        )
        await w.ns.create(Subscription(path=path, topic="t", name="s"), rule)
        await act(w)
        await w.engine.close()

    asyncio.run(main())


def test_what_no_filter_could_judge_stays_among_the_dead_letters():
    """Neither its time to live nor its schedule count any more."""

    async def act(w):
        for fields in ({"ttl": 1000}, {"scheduled": w.clock.now() + 5000}):
            message = Message(data_section(b"x"), **fields)
            await w._call(w.ns.send, "t", [message], w.clock.now())
        dead = "t/subscriptions/s/$deadletterqueue"
        assert w.ns.receiver(dead).counts().active == 2
        await w.later(10_000)
        for _ in range(2):
            found = await w.receive(dead, lock=False)
            assert found.message.dead_letter_reason == "FilterEvaluationException"

    story(act, "1 / 0 = 1")


def test_scheduled_messages_are_found_by_reading_few(monkeypatch):
    async def act(w):
        numbers = []
        for n in range(300):
            scheduled = None if n % 3 else w.clock.now() + 5000 - n
            w.ns.send("t", [Message(b"x", scheduled=scheduled)], w.clock.now(), lambda error: None, numbers)
        await w.quiet()
        receiver = w.ns.receiver("t/subscriptions/s")
        read = []
        get = MemoryLog.get
        monkeypatch.setattr(
            MemoryLog, "get", lambda log, sequence: read.append(sequence) or get(log, sequence)
        )
        chosen = [numbers[0], numbers[150], numbers[297]]
        await w._call(w.ns.topics["t"].cancel, chosen, w.clock.now())
        assert receiver.counts().scheduled == 97
        assert len(read) <= 40
        for number in (numbers[0], numbers[1], 0, -1, 1 << 60, numbers[-1] + 1):
            with pytest.raises(MessageNotFound):
                await w._call(w.ns.topics["t"].cancel, [numbers[3], number], w.clock.now())
        assert receiver.counts().scheduled == 97

    story(act)
