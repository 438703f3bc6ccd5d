"""What a namespace does over time and over restarts. The clock is jumped, never waited for."""

from __future__ import annotations

import asyncio

import pytest

from broker.jumped import World
from hubbub.broker import selection
from hubbub.broker.entity import FOREVER, EventHub, Queue, Subscription, Topic
from hubbub.broker.errors import (
    AlreadyExists,
    Busy,
    Conflict,
    Disabled,
    Invalid,
    LockLost,
    NotFound,
    QuotaExceeded,
    SessionRequired,
)
from hubbub.broker.message import Message
from hubbub.broker.partitions import Start
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine


def story(act, **queue):
    """Runs `act(world)` on a memory engine with queue `q`."""

    async def main():
        world = World(MemoryEngine())
        await world.ns.create(Queue(path="q", **queue))
        await act(world)
        await world.engine.close()

    asyncio.run(main())


def test_who_waits_hears_that_receiving_is_disabled():
    async def act(w):
        await w.ns.create(Queue(path="s", requires_session=True))
        heard, sessions = [], w.ns.receiver("s", sessions=True).sessions
        w.ns.receiver("q").receive(True, FOREVER, heard.append)
        w.ns.receiver("q/$deadletterqueue").receive(True, FOREVER, heard.append)
        sessions.accept("held", FOREVER, heard.append)
        heard.pop().receive(True, FOREVER, heard.append)
        sessions.accept(None, FOREVER, heard.append)
        assert heard == []
        for path in ("q", "s"):
            await w.ns.update(Queue(path=path, requires_session=path == "s", status="ReceiveDisabled"))
        assert [type(error) for error in heard] == [Disabled] * 4
        await w.send("q", "a")
        assert len(heard) == 4
        with pytest.raises(Disabled):
            await w.receive("q")
        await w.ns.update(Queue(path="q"))
        assert (await w.receive("q")).message.payload == b"a"

    story(act)


def test_a_receiver_taken_before_hears_that_receiving_is_disabled():
    async def act(w):
        await w.ns.create(Queue(path="s", requires_session=True))
        plain, sessions = w.ns.receiver("q"), w.ns.receiver("s", sessions=True).sessions
        lock = await w._call(sessions.accept, "held", 0)
        await w.send("q", "a")
        for path in ("q", "s"):
            await w.ns.update(Queue(path=path, requires_session=path == "s", status="Disabled"))
        for receive in (plain.receive, lock.receive):
            with pytest.raises(Disabled, match="is disabled for receiving"):
                await w._call(receive, True, FOREVER)
        with pytest.raises(Disabled):
            await w._call(sessions.accept, None, FOREVER)

    story(act)


def test_a_lock_runs_out():
    async def act(w):
        await w.send("q", "a")
        first = await w.receive("q")
        assert await w.receive("q") is None
        await w.later(5000)
        with pytest.raises(LockLost):
            await w.settle("q", "complete", first)
        again = await w.receive("q")
        assert (again.sequence, again.deliveries) == (first.sequence, 2)
        await w.later(3000)
        await w.settle("q", "renew", again)
        await w.later(3000)
        await w.settle("q", "complete", again)
        assert w.ns.counts("q").active == 0

    story(act, lock_duration=5000)


@pytest.mark.parametrize("how", ["unlock", "expiry"])
def test_too_many_deliveries_end_among_the_dead(how):
    async def act(w):
        await w.send("q", "poison")
        for _ in range(3):
            delivery = await w.receive("q")
            if how == "unlock":
                await w.settle("q", "unlock", delivery)
            else:
                await w.later(5000)
        assert await w.receive("q") is None
        dead = await w.receive("q/$deadletterqueue")
        assert dead.message.dead_letter_reason == "MaxDeliveryCountExceeded"
        assert dead.message.dead_letter_source == "q"
        assert (dead.deliveries, dead.message.enqueued_sequence) == (4, 1)
        counts = w.ns.counts("q")
        assert (counts.active, counts.dead_letter) == (0, 1)
        await w.settle("q/$deadletterqueue", "unlock", dead)
        dead = await w.receive("q/$deadletterqueue")
        await w.settle("q/$deadletterqueue", "complete", dead)
        assert w.ns.counts("q").dead_letter == 0

    story(act, lock_duration=5000, deliveries_max=3)


@pytest.mark.parametrize("dead_letter", [True, False])
def test_time_to_live(dead_letter):
    async def act(w):
        await w.send("q", "short", ttl=1000)
        await w.send("q", "long", ttl=10**9)
        await w.later(1000)
        assert (await w.receive("q")).message.payload == b"long"
        await w.later(0)
        assert w.ns.counts("q").dead_letter == int(dead_letter)
        if dead_letter:
            found = await w.receive("q/$deadletterqueue")
            assert found.message.dead_letter_reason == "TTLExpiredException"

    story(act, default_ttl=60_000, dead_letter_on_expiration=dead_letter)


def test_a_held_message_outlives_its_time():
    async def act(w):
        await w.send("q", "a", ttl=1000)
        held = await w.receive("q")
        await w.later(2000)
        await w.settle("q", "complete", held)

    story(act, lock_duration=5000)


def test_the_entitys_time_to_live_counts_if_shorter():
    async def act(w):
        await w.send("q", "a", ttl=10**9)
        await w.later(60_000)
        assert await w.receive("q") is None
        assert w.ns.counts("q").active == 0

    story(act, default_ttl=60_000)


def test_schedules():
    async def act(w):
        await w.send("q", "later", scheduled=w.clock.now() + 5000)
        await w.send("q", "now")
        assert w.ns.counts("q").scheduled == 1
        assert (await w.receive("q", lock=False)).message.payload == b"now"
        waiting = asyncio.get_running_loop().create_future()
        w.ns.receiver("q").receive(True, w.clock.now() + 10_000, waiting.set_result)
        await w.later(4999)
        assert not waiting.done()
        await w.later(1)
        assert (await waiting).sequence == 1

    story(act)


def test_each_message_is_told_its_number_and_a_duplicate_none():
    async def act(w):
        await w.send("q", "first", message_id="0")
        messages = [Message(b"x", message_id=id) for id in ("a", "0", "b", "a")]
        numbers = []
        w.ns.send("q", messages, w.clock.now(), lambda error: None, numbers)
        assert numbers == [2, 0, 3, 0]
        await w.quiet()
        assert [d.message.message_id for d in w.ns.peek("q", 0, 9)] == ["0", "a", "b"]
        w.ns.send("q", messages[:2], w.clock.now(), lambda error: None, numbers)
        assert numbers[4:] == [0, 0]

    story(act, requires_duplicate_detection=True)


def test_duplicates_within_the_window():
    async def act(w):
        for _ in range(3):
            await w.send("q", "a", message_id="1")
        await w.send("q", "b", "c", message_id="2")
        assert w.ns.counts("q").active == 2
        await w.later(20_001)
        await w.send("q", "a", message_id="1")
        assert w.ns.counts("q").active == 3

    story(act, requires_duplicate_detection=True, duplicate_window=20_000)


def test_who_waits_is_served_in_turn_and_who_left_gets_nothing():
    async def act(w):
        receiver = w.ns.receiver("q")
        got = []
        waiters = [
            receiver.receive(True, w.clock.now() + 9999, lambda d, n=n: got.append(n)) for n in range(3)
        ]
        waiters[1].cancel()
        await w.send("q", "a", "b", "c")
        assert got == [0, 2]
        assert w.ns.counts("q").locked == 2

    story(act)


def test_a_wait_ends():
    async def act(w):
        got = []
        w.ns.receiver("q").receive(True, w.clock.now() + 1000, got.append)
        await w.later(1000)
        assert got == [None]
        assert not w.ns.receiver("q").waiting

    story(act)


def test_a_duplicate_is_answered_when_what_it_repeats_is_durable():
    """Or, where that fails, as that is: else its sender would think it stored."""

    async def main():
        fault = [Full("no space")]
        w = World(MemoryEngine(lambda: fault[0]))
        fault[0] = None
        await w.ns.create(Queue(path="q", requires_duplicate_detection=True))
        for expected in (Full("no space"), None):
            fault[0] = expected
            heard = []
            for _ in range(2):
                w.ns.send("q", [Message(b"x", message_id="1")], w.clock.now(), heard.append)
            assert heard == []
            await w.quiet()
            assert [type(error) for error in heard] == [Busy if expected else type(None)] * 2
            fault[0] = None
            assert w.ns.counts("q").active == (0 if expected else 1)
        await w.engine.close()

    asyncio.run(main())


def test_a_purge_goes_by_pieces(monkeypatch):
    """What comes meanwhile stays, and so does what somebody holds."""
    monkeypatch.setattr(selection, "PURGE_MAX", 3)

    async def act(w):
        await w.send("q", *"abcdefgh")
        held = await w.receive("q")
        purging = asyncio.ensure_future(w.ns.purge("q"))
        await asyncio.sleep(0)
        await w.send("q", "new")
        assert await purging == 7
        assert [d.message.payload for d in w.ns.peek("q", 0, 9)] == [b"a", b"new"]
        await w.settle("q", "complete", held)
        assert await w.ns.purge("q") == 1
        assert await w.ns.purge("q") == 0
        assert w.ns.counts("q").active == 0

    story(act)


def test_a_full_disk_loses_and_tells_nothing_false():
    async def main():
        fault = [None]
        w = World(MemoryEngine(lambda: fault[0]))
        await w.ns.create(Queue(path="q", lock_duration=5000))
        await w.send("q", "kept")
        held = await w.receive("q")
        await w.quiet()
        fault[0] = Full("no space")
        with pytest.raises(Busy):
            await w.send("q", "refused", ttl=5000)
        for verb in ("complete", "unlock", "renew"):
            with pytest.raises(Busy):
                await w.settle("q", verb, held)
        with pytest.raises(Busy):
            await w.ns.create(Queue(path="other"))
        fault[0] = None
        await w.settle("q", "complete", held)
        assert w.ns.counts("q") == (0,) * 8
        assert w.ns.entity("other") is None

    asyncio.run(main())


def test_topics_copy_to_every_subscription():
    async def act(w):
        await w.ns.create(Topic(path="t"))
        await w.send("t", "nobody hears")
        for name in ("a", "b"):
            await w.ns.create(Subscription(path=f"t/subscriptions/{name}", topic="t", name=name))
        await w.ns.delete("t/subscriptions/b/rules/$Default")
        await w.send("t", "hello")
        got = await w.receive("t/subscriptions/a")
        assert (got.message.payload, got.sequence, got.message.enqueued_sequence) == (b"hello", 1, 2)
        assert await w.receive("t/subscriptions/b") is None

    story(act)


def test_disabled_entities_refuse():
    import msgspec

    async def act(w):
        await w.send("q", "a")
        queue = w.ns.entity("q")
        for status, sends, receives in (
            ("SendDisabled", False, True),
            ("ReceiveDisabled", True, False),
            ("Disabled", False, False),
        ):
            queue = await w.ns.update(msgspec.structs.replace(queue, status=status))
            if not sends:
                with pytest.raises(Disabled):
                    await w.send("q", "x")
            if not receives:
                with pytest.raises(Disabled):
                    w.ns.receiver("q")

    story(act)


def test_session_entities_refuse_what_they_must():
    async def act(w):
        with pytest.raises(SessionRequired):
            await w.send("q", "x")
        await w.send("q", "x", session_id="s")
        with pytest.raises(SessionRequired):
            w.ns.receiver("q")

    story(act, requires_session=True)


def test_entities_one_change_at_a_time():
    async def act(w):
        results = await asyncio.gather(w.ns.delete("q"), w.ns.delete("q"), return_exceptions=True)
        assert sorted(type(r).__name__ for r in results) == ["Conflict", "NoneType"]
        assert Conflict
        with pytest.raises(NotFound):
            await w.ns.delete("q")
        made = await asyncio.gather(
            w.ns.create(Queue(path="x")), w.ns.create(Queue(path="X")), return_exceptions=True
        )
        assert sum(isinstance(r, Queue) for r in made) == 1
        with pytest.raises(AlreadyExists):
            await w.ns.create(Topic(path="x"))
        with pytest.raises(NotFound):
            await w.ns.create(Subscription(path="x/subscriptions/s", topic="x", name="s"))
        with pytest.raises(Invalid):
            await w.ns.create(EventHub(path="h", partition_count=33))

    story(act)


def test_numbers_are_limited():
    async def act(w):
        for n in range(10):
            await w.ns.create(EventHub(path=f"h{n}"))
        with pytest.raises(QuotaExceeded):
            await w.ns.create(EventHub(path="h10"))

    story(act)


def test_retention():
    async def act(w):
        await w.ns.create(EventHub(path="h", partition_count=1, retention=60_000))
        hub = w.ns.hub("h")
        for body in (b"old", b"new"):
            await w._call(w.ns.publish, hub, [Message(body)], 0, w.clock.now())
            await w.later(40_000)
        w.ns.retain()
        await w.quiet()
        found = w.ns.read_events("h", "0", Start(earliest=True), 10, 1000)
        assert [(e.sequence, e.message.payload) for e in found] == [(1, b"new")]
        assert w.ns.partition("h", "0").begin_sequence == 1

    story(act)


def test_everything_survives_a_restart(tmp_path):
    """Locks, counts, schedules, duplicates, entities and dead letters, on the file engine."""
    clock = ManualClock()

    async def before():
        w = World(FileEngine(str(tmp_path)), clock)
        await w.ns.create(Queue(path="Q", lock_duration=60_000, requires_duplicate_detection=True))
        await w.ns.create(Topic(path="t"))
        await w.ns.create(Subscription(path="t/subscriptions/s", topic="t", name="s"))
        for n in range(6):
            await w.send("q", str(n), message_id=str(n))
        await w.send("q", "later", message_id="later", scheduled=clock.now() + 5000)
        await w.send("t", "x")
        locked, unlocked, dead, gone, deferred = [await w.receive("q") for _ in range(5)]
        await w.settle("q", "unlock", unlocked)
        await w.settle("q", "dead_letter", dead, "why", "because")
        await w.settle("q", "complete", gone)
        await w.settle("q", "defer", deferred)
        await w.later(100)  # Locks are noted a moment after they were taken.
        await w.engine.close()
        return locked

    async def after(locked):
        w = World(FileEngine(str(tmp_path)), clock)
        assert w.ns.entity("q").path == "Q"
        counts = w.ns.counts("q")
        assert (counts.active, counts.locked, counts.deferred, counts.scheduled, counts.dead_letter) == (
            3,
            1,
            1,
            1,
            1,
        )
        await w.send("q", "again", message_id="3")
        assert w.ns.counts("q").active == 3
        await w.settle("q", "complete", locked)
        second = await w.receive("q")
        assert (second.message.payload, second.deliveries) == (b"1", 2)
        assert (await w.receive("q")).message.payload == b"5"
        assert await w.receive("q") is None
        await w.later(5000)
        assert (await w.receive("q")).message.payload == b"later"
        dead = await w.receive("q/$deadletterqueue")
        assert dead.message.dead_letter_reason == "why"
        assert (await w.receive("t/subscriptions/s")).message.enqueued_sequence == 1
        await w.send("t", "y")
        assert (await w.receive("t/subscriptions/s")).message.enqueued_sequence == 2
        await w.engine.close()

    locked = asyncio.run(before())
    asyncio.run(after(locked))
