"""AutoDeleteOnIdle: what counts as use, and that what is not used goes. The clock is jumped."""

from __future__ import annotations

import asyncio

import pytest

from broker.jumped import World
from hubbub.broker.entity import FOREVER, MINUTE, Queue, Rule, Subscription, Topic
from hubbub.broker.message import Message
from hubbub.broker.namespace import RETENTION_PERIOD
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine

LENGTH = 5 * MINUTE


class Idle(World):
    """A world in which a minute is a minute, with looks at its end."""

    async def minutes(self, count):
        for _ in range(count):
            await self.later(RETENTION_PERIOD)
            self.ns.retain()
            await self.quiet()

    def left(self):
        return {path for path in ("q", "t", "t/subscriptions/s") if self.ns.entity(path) is not None}


def story(act):
    async def main():
        world = Idle(MemoryEngine())
        await world.ns.create(Queue(path="kept"))
        await act(world)
        assert world.ns.entity("kept") is not None
        await world.engine.close()

    asyncio.run(main())


async def _queue(w, **fields):
    await w.queue("q", auto_delete_on_idle=LENGTH, **fields)


def test_an_idle_queue_goes_with_all_that_is_in_it():
    async def act(w):
        await _queue(w)
        await w.send("q", "x")
        await w.minutes(4)
        assert w.left() == {"q"}
        await w.minutes(1)
        assert w.left() == set()
        assert "ns:q" not in {log.name for log in w.engine.logs()}

    story(act)


async def _send(w):
    await w.send("q", "x")


async def _receive(w):
    await w.receive("q")


async def _receive_dead(w):
    await w.receive("q/$deadletterqueue")


async def _peek(w):
    w.ns.peek("q", 0, 1)


async def _look(w):
    w.ns.receiver("q", sessions=True)


async def _change(w):
    await w.change("q", user_metadata=str(w.clock.now()))


@pytest.mark.parametrize("use", [_send, _receive, _receive_dead, _peek, _look, _change])
def test_use_of_a_queue(use):
    async def act(w):
        await _queue(w)
        for _ in range(3):
            await w.minutes(4)
            await use(w)
        await w.minutes(4)
        assert w.left() == {"q"}
        await w.minutes(1)
        assert w.left() == set()

    story(act)


def test_a_session_is_use():
    async def act(w):
        await _queue(w, requires_session=True, lock_duration=2 * MINUTE)
        sessions = w.ns.receiver("q", sessions=True).sessions
        lock = await w._call(sessions.accept, "s", w.clock.now())
        for _ in range(8):
            await w._call(lock.renew)
            await w.minutes(1)
        assert w.left() == {"q"}
        lock.release()
        await w.minutes(5)
        assert w.left() == {"q"}
        await w.minutes(1)
        assert w.left() == set()

    story(act)


def test_who_waits_or_holds_a_message_is_use():
    async def act(w):
        await _queue(w, lock_duration=MINUTE)
        waiting = asyncio.ensure_future(w._call(w.ns.receiver("q").receive, True, w.clock.now() + 9 * MINUTE))
        await w.quiet()
        await w.minutes(8)
        assert not waiting.done()
        await w.send("q", "x")
        delivery = await waiting
        for _ in range(8):
            await w.minutes(1)
            assert w.left() == {"q"}
            if delivery is not None:
                delivery = await w.receive("q") or delivery
        await w.minutes(6)
        assert w.left() == set()

    story(act)


def test_who_has_just_left_was_there():
    """A receiver may leave right after it was seen waiting, and another right before the end."""

    async def act(w):
        await _queue(w)
        receive = w.ns.receiver("q").receive
        waiter = receive(True, FOREVER, lambda outcome: None)
        await w.minutes(6)
        await w.later(RETENTION_PERIOD - 1)
        waiter.cancel()
        await w.later(1)
        for _ in range(4):
            await w.minutes(1)
            assert w.left() == {"q"}

    story(act)


def test_what_is_scheduled_keeps_a_queue_and_a_topic_but_not_a_subscription():
    async def act(w):
        await _queue(w)
        await w.ns.create(Topic(path="t", auto_delete_on_idle=LENGTH))
        await w.subscription("t", "other")
        await w.subscription("t", "s", auto_delete_on_idle=LENGTH)
        for path in ("q", "t"):
            await w.send(path, "x", scheduled=w.clock.now() + 20 * MINUTE)
        await w.minutes(19)
        assert w.left() == {"q", "t"}
        await w.minutes(8)
        assert w.left() == set()

    story(act)


def test_a_topic_goes_with_its_subscriptions():
    async def act(w):
        await w.ns.create(Topic(path="t", auto_delete_on_idle=LENGTH))
        await w.subscription("t", "s")
        await w.minutes(4)
        await w.send("t", "x")
        await w.minutes(4)
        await w.receive("t/subscriptions/s", lock=False)
        await w.minutes(4)
        await w.subscription("t", "another")
        await w.minutes(4)
        assert w.left() == {"t", "t/subscriptions/s"}
        await w.minutes(1)
        assert w.left() == set()

    story(act)


def test_what_comes_is_no_use_of_a_subscription_and_a_new_rule_is():
    async def act(w):
        await w.ns.create(Topic(path="t"))
        path = "t/subscriptions/s"
        await w.ns.create(Subscription(path=path, topic="t", name="s", auto_delete_on_idle=LENGTH))
        await w.minutes(4)
        await w.ns.create(Rule(path=f"{path}/rules/r", subscription=path, name="r"))
        for _ in range(4):
            await w.send("t", "x")
            await w.minutes(1)
        assert w.left() == {"t", path}
        await w.minutes(1)
        assert w.left() == {"t"}

    story(act)


def test_what_the_disk_refuses_goes_later():
    async def act(w):
        await _queue(w)
        faults = [Full("no space")]
        w.engine._fault = lambda: faults[0] if faults else None
        await w.minutes(6)
        assert w.left() == {"q"}
        faults.clear()
        await w.minutes(1)
        assert w.left() == set()

    story(act)


def test_the_length_may_change_and_end():
    async def act(w):
        await _queue(w)
        await w.minutes(4)
        await w.change("q", auto_delete_on_idle=FOREVER)
        await w.minutes(20)
        await w.change("q", auto_delete_on_idle=2 * LENGTH)
        await w.minutes(9)
        assert w.left() == {"q"}
        await w.minutes(1)
        assert w.left() == set()

    story(act)


def test_after_a_restart_the_time_begins_anew(tmp_path):
    clock = ManualClock()

    async def before():
        w = Idle(FileEngine(str(tmp_path)), clock)
        await _queue(w)
        await w._call(w.ns.send, "q", [Message(b"x")], clock.now())
        await w.minutes(4)
        await w.engine.close()

    async def after():
        w = Idle(FileEngine(str(tmp_path)), clock)
        await w.minutes(4)
        assert w.bodies("q") == ["x"]
        await w.minutes(1)
        await w.quiet()
        assert w.left() == set()
        await w.engine.close()

    asyncio.run(before())
    asyncio.run(after())
