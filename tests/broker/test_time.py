"""Timers: each keeps its moment beside many others and over restarts, and many of one moment keep nobody
waiting. The clock is jumped."""

from __future__ import annotations

import asyncio

import pytest

from broker.jumped import World
from hubbub.broker import receiver as receivers
from hubbub.broker.entity import FOREVER, MINUTE
from hubbub.broker.history import FORGOTTEN_PER_MESSAGE, History
from hubbub.broker.ledger import TIMERS_PER_TURN
from hubbub.broker.message import Message
from hubbub.broker.node import Broker
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
from hubbub.engine.memory import MemoryEngine

OTHERS = 1500
HOUR = 60 * MINUTE


class Pile(World):
    """Queues with very many timers, all of them later than those that are looked at."""

    async def build(self):
        await self.queue("q", lock_duration=5000, dead_letter_on_expiration=True)
        await self.queue("held", lock_duration=5 * MINUTE)
        await self.queue("seats", lock_duration=5000, requires_session=True)
        await self.queue("once", requires_duplicate_detection=True, duplicate_window=20_000)
        now = self.clock.now()
        for n in range(OTHERS):
            self.put("q", scheduled=now + HOUR + n)
            self.put("q", ttl=HOUR + n, scheduled=now + HOUR)
            self.put("held")
            self.put("once", id=f"old-{n}")
        await self.quiet()
        held = self.ns.receiver("held")
        for _ in range(OTHERS):
            held.receive(True, 0, lambda delivery: None)
        await self.quiet()
        assert self.ns.counts("held").locked == OTHERS

    def put(self, path, body=b"other", id=None, **fields):
        self.ns.send(path, [Message(body, message_id=id, **fields)], self.clock.now(), lambda error: None)

    async def at(self, moment, seen):
        """`seen` holds from that moment on, and not a millisecond earlier."""
        await self.later(moment - 1 - self.clock.now())
        assert not seen()
        await self.later(1)
        assert seen()

    async def accept(self):
        return await self._call(
            self.ns.receiver("seats", sessions=True).sessions.accept, None, self.clock.now()
        )


def story(act, clock=None, engine=None):
    async def main():
        world = Pile(engine or MemoryEngine(), clock)
        await world.build()
        await act(world)
        await world.engine.close()

    asyncio.run(main())


def arrivals(world, path, **how):
    """What a client gets that waits there."""
    came = []
    world.ns.receiver(path).receive(True, FOREVER, came.append)
    return came


def test_a_schedule_a_time_to_live_and_a_lock_beside_many_others():
    async def act(w):
        now = w.clock.now()
        w.put("q", b"scheduled", scheduled=now + 777)
        await w.quiet()
        came = arrivals(w, "q")
        await w.at(now + 777, lambda: came)
        again = arrivals(w, "q")
        await w.at(now + 777 + 5000, lambda: again)
        assert again[0].deliveries == 2
        w.put("q", b"ending", ttl=1234)
        await w.quiet()
        dead = arrivals(w, "q/$deadletterqueue")
        await w.at(w.clock.now() + 1234, lambda: dead)
        assert dead[0].message.dead_letter_reason == "TTLExpiredException"

    story(act)


def test_a_session_lock_beside_many_others():
    async def act(w):
        await w.send("seats", "x", session_id="s")
        first = await w.accept()
        lost, second = [], []
        first.on_lost = lambda: lost.append(w.clock.now())
        w.ns.receiver("seats", sessions=True).sessions.accept(None, FOREVER, second.append)
        await w.at(first.until, lambda: second)
        assert lost == [first.until]

    story(act)


def test_the_window_of_duplicates_beside_many_others():
    async def act(w):
        def count():
            return w.ns.counts("once").active

        began, before = w.clock.now(), count()
        for passed, more in ((0, 1), (20_000, 1), (20_001, 2), (20_002, 2)):
            await w.later(began + passed - w.clock.now())
            w.put("once", id="again")
            await w.quiet()
            assert count() == before + more

    story(act)


def test_timers_survive_a_restart(tmp_path):
    async def act(w):
        now = w.clock.now()
        w.put("q", b"scheduled", scheduled=now + 8000)
        w.put("q", b"ending", ttl=9000)
        await w.quiet()
        locked = await w.receive("q")
        assert locked.message.payload == b"ending"
        await w.later(200)
        await w.engine.close()
        w.engine = FileEngine(str(tmp_path))
        World.__init__(w, w.engine, w.clock)
        assert w.ns.counts("held").locked == OTHERS
        again = arrivals(w, "q")
        await w.at(locked.locked_until, lambda: again)
        settled = again[0]
        w.ns.receiver("q").give_back(w.ns.receiver("q").holder(settled.token), lambda error: None)
        await w.quiet()
        dead = arrivals(w, "q/$deadletterqueue")
        came = []
        await w.later(now + 7999 - w.clock.now())
        while (delivery := await w.receive("q")) is not None:
            came.append(delivery.message.payload)
        assert came == [b"ending"]
        scheduled = arrivals(w, "q")
        await w.at(now + 8000, lambda: scheduled)
        assert not dead

    story(act, engine=FileEngine(str(tmp_path)))


def test_an_idle_queue_goes_at_its_moment():
    async def act(w):
        broker = Broker(w.engine, w.clock, [w.ns])
        broker.start()
        await w.later(12_345)
        await w.queue("idle", auto_delete_on_idle=5 * MINUTE)
        end = w.clock.now() + 5 * MINUTE
        for _ in range(4):
            await w.later(MINUTE)
        await w.at(end, lambda: w.ns.entity("idle") is None)
        broker.stop()

    story(act)


# Very many at one moment.


class Busy(ManualClock):
    """Time passes with work: ten microseconds for each question of what time it is. `turns` are the lengths of
    what was called, ms."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        self.turns = []

    def now(self):
        self.asked += 1
        return self._now + self.asked // 100

    def call_at(self, moment, callback):
        def turn():
            before = self.asked
            callback()
            self.turns.append((self.asked - before) / 100)

        return super().call_at(moment, turn)


@pytest.mark.parametrize("kind", ["scheduled", "ttl", "locked"])
def test_those_of_one_moment_go_in_slices(kind):
    async def act(w):
        count, path = OTHERS, "held" if kind == "locked" else "q"
        now = w.clock.now()
        if kind != "locked":
            for _ in range(OTHERS):
                w.put(path, **({"scheduled": now + 50_000} if kind == "scheduled" else {"ttl": 50_000}))
            await w.quiet()
        w.clock.turns.clear()
        for _ in range(200):
            await w.later(5 * MINUTE if kind == "locked" else 100_000)
            counts = w.ns.counts(path)
            if kind == "ttl":
                done = counts.dead_letter
            else:
                done = counts.active - (counts.locked if kind == "locked" else 0)
            if done >= count:
                break
        assert done == count
        assert len(w.clock.turns) >= OTHERS // TIMERS_PER_TURN
        assert max(w.clock.turns) < receivers.SLICE + 2

    story(act, Busy())


def test_a_slow_disk_is_not_given_more_than_it_takes():
    async def act(w):
        for _ in range(OTHERS):
            w.put("q", ttl=50_000)
        await w.quiet()
        w.clock.advance(60_000)
        receiver = w.ns.receiver("q")
        assert receiver.ledger.numbers[4] == receivers.LEAVING_MAX
        w.clock.advance(60_000)
        assert receiver.ledger.numbers[4] == receivers.LEAVING_MAX
        for _ in range(OTHERS // receivers.LEAVING_MAX):
            await w.later(1)
        assert w.ns.counts("q").dead_letter == OTHERS

    story(act)


def test_a_message_that_cannot_be_read_keeps_no_others_from_their_end(tmp_path):
    async def act(w):
        for body in (b"first", b"damaged", b"last"):
            w.put("q", body, ttl=10_000)
        await w.quiet()
        (journal,) = tmp_path.glob("*.journal")
        data = journal.read_bytes()
        assert data.count(b"damaged") == 1
        with open(journal, "r+b") as file:
            file.seek(data.index(b"damaged"))
            file.write(b"DAMAGED")
        await w.later(10_000)
        await w.later(5000)
        assert sorted(w.bodies("q/$deadletterqueue")) == ["first", "last"]
        w.put("q", b"other", ttl=10_000)
        await w.quiet()
        await w.later(10_000)
        assert sorted(w.bodies("q/$deadletterqueue")) == ["first", "last", "other"]

    story(act, engine=FileEngine(str(tmp_path)))


def test_ids_whose_time_is_over_are_forgotten_by_and_by():
    history = History(MemoryEngine().open("ids"), False)
    for n in range(1000):
        history.add(str(n), 100)
    history.add("young", 200)

    def fresh(*ids):
        return [
            message.message_id for message in history.unseen([Message(b"", message_id=id) for id in ids], 150)
        ]

    assert fresh("999", "young", "new") == ["999", "new"]
    assert len(history._seen) == 1001 - 3 * FORGOTTEN_PER_MESSAGE
    for _ in range(1000):
        fresh("x")
    assert history._seen == {"young": 200}
