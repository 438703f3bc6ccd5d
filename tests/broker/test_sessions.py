"""Sessions: every state of a lock × every verb, the order among sessions, states, and verbs that overlap."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.broker.delivery import Delivery
from hubbub.broker.entity import FOREVER, Queue, Subscription, Topic
from hubbub.broker.errors import (
    Busy,
    Invalid,
    LockLost,
    MessageNotFound,
    SessionCannotBeLocked,
    SessionLockLost,
    SessionRequired,
    TooLarge,
)
from hubbub.broker.limits import PROFILES
from hubbub.broker.line import DEAD_MIN
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.broker.selection import purge
from hubbub.broker.sessions import SessionLock
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine

DURATION = 5000


class World:
    """A namespace with queue `q`, which requires sessions, and queue `plain`, which does not."""

    def __init__(self, engine=None):
        self.failing = False
        self.engine = engine or MemoryEngine(lambda: Full("no space left") if self.failing else None)
        self.clock = ManualClock()
        self.open()

    def open(self):
        self.ns = Namespace("ns", self.engine, self.clock, PROFILES["standard"])

    async def build(self, **fields):
        await self.ns.create(Queue(path="q", requires_session=True, lock_duration=DURATION, **fields))
        await self.ns.create(Queue(path="plain", lock_duration=DURATION))

    @property
    def queue(self):
        return self.ns.receiver("q", sessions=True)

    @property
    def dead(self):
        return self.ns.receiver("q/$deadletterqueue")

    @property
    def sessions(self):
        return self.queue.sessions

    async def quiet(self):
        for _ in range(5):
            await asyncio.sleep(0)

    async def later(self, milliseconds):
        self.clock.advance(milliseconds)
        await self.quiet()

    async def ask(self, verb, *arguments):
        """What `done` gets; raised, if it is an error."""
        future = asyncio.get_running_loop().create_future()
        verb(*arguments, future.set_result)
        outcome = await asyncio.wait_for(future, 5)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def send(self, *bodies, path="q", **fields):
        """Bodies are `session:text`."""
        messages = [
            Message(body.encode(), session_id=body.split(":")[0] if ":" in body else None, **fields)
            for body in bodies
        ]
        await self.ask(self.ns.send, path, messages, self.clock.now())

    async def accept(self, session_id=None, queue=None):
        return await self.ask((queue or self.queue).sessions.accept, session_id, self.clock.now())

    async def receive(self, source, lock=True):
        return await self.ask(source.receive, lock, self.clock.now())

    async def texts(self, source):
        """All there is to be had now, in its order."""
        found = []
        while (delivery := await self.receive(source)) is not None:
            found.append(delivery.message.payload.decode())
        return found

    async def settle(self, lock, verb, delivery, *arguments):
        await self.ask(lambda done: getattr(self.queue, verb)(lock.holder(delivery.token), *arguments, done))


def story(act, **fields):
    async def main():
        world = World()
        await world.build(**fields)
        await act(world)
        await world.engine.close()

    asyncio.run(main())


# Every state of a lock × every verb.


async def held(w, lock):
    """Nothing has happened."""


async def renewed(w, lock):
    await w.later(DURATION - 1)
    await w.ask(lock.renew)
    await w.later(DURATION - 1)


async def expired(w, lock):
    await w.later(DURATION)


async def expired_unnoticed(w, lock):
    """Its time is over, and its timer has not been called yet."""
    lock._timer.cancel()
    await w.later(DURATION)


async def taken_over(w, lock):
    await w.later(DURATION)
    await w.accept("a")


async def released(w, lock):
    lock.release()


async def deleted(w, lock):
    await w.ns.delete("q")


async def closed(w, lock):
    w.queue.close()


LIVE = (held, renewed)
LOST = (expired, expired_unnoticed, taken_over, released, deleted, closed)

VERBS = {
    "receive": lambda w, lock, d: w.receive(lock),
    "take": lambda w, lock, d: w.receive(lock, lock=False),
    "receive_deferred": lambda w, lock, d: w.ask(lock.receive_deferred, [d["deferred"].sequence], True),
    "take_deferred": lambda w, lock, d: w.ask(lock.receive_deferred, [d["deferred"].sequence], False),
    "renew": lambda w, lock, d: w.ask(lock.renew),
    "set_state": lambda w, lock, d: w.ask(lock.set_state, b"new"),
    "clear_state": lambda w, lock, d: w.ask(lock.set_state, None),
    "state": lambda w, lock, d: _now(lock.state),
    "holder": lambda w, lock, d: _now(lock.holder, d["held"].token),
}


async def _now(verb, *arguments):
    return verb(*arguments)


async def _prepared(w):
    """A lock of session `a` with one message held, one deferred, one waiting, and a state."""
    await w.send("a:0", "a:1", "a:2", "b:3")
    lock = await w.accept("a")
    deferred = await w.receive(lock)
    await w.settle(lock, "defer", deferred)
    delivered = await w.receive(lock)
    await w.ask(lock.set_state, b"old")
    return lock, {"deferred": deferred, "held": delivered}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", LIVE + LOST, ids=lambda f: f.__name__)
def test_every_state_and_every_verb(state, verb):
    async def act(w):
        lock, deliveries = await _prepared(w)
        await state(w, lock)
        if state in LOST:
            with pytest.raises(SessionLockLost):
                await VERBS[verb](w, lock, deliveries)
            assert not lock.live
            return
        outcome = await VERBS[verb](w, lock, deliveries)
        if verb in ("receive", "take"):
            assert outcome.message.payload == b"a:2"
            assert (outcome.token != b"") == (verb == "receive")
        elif verb in ("receive_deferred", "take_deferred"):
            assert [(d.message.payload, d.state, d.deliveries) for d in outcome] == [(b"a:0", "Deferred", 2)]
        elif verb == "renew":
            assert lock.until == w.clock.now() + DURATION
            assert lock.holder(deliveries["held"].token).until == lock.until
        elif verb in ("set_state", "clear_state"):
            assert lock.state() == (b"new" if verb == "set_state" else None)
        elif verb == "state":
            assert outcome == b"old"
        else:
            assert outcome.sequence == deliveries["held"].sequence
        assert lock.live

    story(act)


@pytest.mark.parametrize("state", LIVE + LOST, ids=lambda f: f.__name__)
def test_accepting_in_every_state(state):
    """By name, and as the next; messages that were held under a lock that has ended come first again."""

    async def act(w):
        lock, _ = await _prepared(w)
        queue = w.queue
        await state(w, lock)
        if state in (deleted, closed):
            return
        if state in (*LIVE, taken_over):
            with pytest.raises(SessionCannotBeLocked):
                await w.accept("a", queue)
            assert (await w.accept(None, queue)).id == "b"
            assert await w.accept(None, queue) is None
            return
        assert (await w.accept(None, queue)).id == "b"
        again = await w.accept("a", queue)
        assert again is not lock
        assert again.state() == b"old"
        assert await w.texts(again) == ["a:1", "a:2"]
        with pytest.raises(LockLost):
            again.holder(b"of another lock.")

    story(act)


@pytest.mark.parametrize("state", LOST, ids=lambda f: f.__name__)
def test_who_holds_and_who_waits_hear_of_the_end(state):
    async def act(w):
        lock = await w.accept("a")
        lost, got = [], []
        lock.on_lost = lambda: lost.append(lock.live)
        lock.receive(True, FOREVER, got.append)
        lock.receive(False, FOREVER, got.append)
        await state(w, lock)
        if state is expired_unnoticed:
            with pytest.raises(SessionLockLost):
                w.sessions.lock_of("a")
        assert lost == ([] if state is released else [False])
        if state in (released, deleted, closed):
            assert got == [None, None]
        else:
            assert [type(outcome) for outcome in got] == [SessionLockLost] * 2
        assert not lock.waiting

    story(act)


def test_a_settlement_after_the_end_is_refused_and_the_delivery_counts():
    async def act(w):
        await w.send("a:1")
        for n in range(1, 4):
            lock = await w.accept("a")
            delivery = await w.receive(lock)
            assert delivery.deliveries == n
            assert delivery.locked_until == lock.until
            lock.release()
            with pytest.raises(SessionLockLost):
                w.queue.holder(delivery.token)
        await w.quiet()
        dead = await w.receive(w.dead)
        assert (dead.message.dead_letter_reason, dead.deliveries) == ("MaxDeliveryCountExceeded", 4)
        assert w.sessions.list(None, 0, 10) == []

    story(act, deliveries_max=3)


# Order.


def test_messages_come_in_order_and_what_comes_back_comes_first():
    async def act(w):
        await w.send("a:1", "b:1", "a:2", "a:3", "b:2", "a:4")
        lock = await w.accept("a")
        first = await w.receive(lock)
        second = await w.receive(lock)
        await w.settle(lock, "unlock", second)
        await w.settle(lock, "unlock", first)
        assert await w.texts(lock) == ["a:1", "a:2", "a:3", "a:4"]

    story(act)


def test_sessions_take_turns():
    async def act(w):
        await w.send("a:1", "a:2", "a:3", "b:1", "c:1", "b:2", "c:2")
        order = []
        for _ in range(9):
            lock = await w.accept()
            if lock is None:
                break
            delivery = await w.receive(lock)
            await w.settle(lock, "complete", delivery)
            order.append(delivery.message.payload.decode())
            lock.release()
        assert order == ["a:1", "b:1", "c:1", "a:2", "b:2", "c:2", "a:3"]

    story(act)


def test_a_session_that_always_fails_starves_nobody():
    async def act(w):
        await w.send("bad:1", "a:1", "b:1")
        order = []
        for n in range(6):
            lock = await w.accept()
            order.append(lock.id)
            await w.receive(lock)
            lock.release()
            await w.send(f"bad:{n}")
        assert order == ["bad", "a", "b"] * 2

    story(act)


def test_who_waits_for_a_session_is_served_in_turn():
    async def act(w):
        got = []
        waiters = [
            w.sessions.accept(None, FOREVER, lambda lock, n=n: got.append((n, lock.id))) for n in range(5)
        ]
        late = []
        w.sessions.accept(None, w.clock.now() + 100, late.append)
        waiters[1].left = lambda: True
        waiters[2].cancel()
        await w.send("x:1", "y:1")
        await w.send("x:2")
        assert got == [(0, "x"), (3, "y")]
        await w.later(100)
        assert late == [None]
        lock = w.sessions.lock_of("x")
        lock.release()
        assert got[2:] == [(4, "x")]
        assert not w.sessions.waiting

    story(act)


def test_a_scheduled_message_finds_who_waits_in_its_session():
    async def act(w):
        lock = await w.accept("a")
        got = []
        lock.receive(True, FOREVER, got.append)
        await w.send("a:later", scheduled=w.clock.now() + 1000)
        await w.later(999)
        assert got == []
        await w.later(1)
        assert [d.message.payload for d in got] == [b"a:later"]

    story(act)


@pytest.mark.parametrize("fails", [False, True])
def test_a_session_that_is_left_while_a_settlement_is_on_its_way(fails):
    async def act(w):
        await w.send("a:1", "a:2")
        lock = await w.accept("a")
        deliveries = [await w.receive(lock), await w.receive(lock)]
        outcomes = []
        w.failing = fails
        w.queue.complete(lock.holder(deliveries[0].token), outcomes.append)
        w.queue.unlock(lock.holder(deliveries[1].token), outcomes.append)
        lock.release()
        got = []
        w.sessions.accept("a", 0, got.append)
        (other,) = got
        other.receive(True, 0, got.append)
        assert got[1:] == [None]  # They are nobody's meanwhile.
        await w.quiet()
        w.failing = False
        assert [type(o) for o in outcomes] == [Busy if fails else type(None)] * 2
        found = [await w.receive(other), await w.receive(other)]
        texts = [(d.message.payload, d.deliveries) for d in found if d is not None]
        assert texts == ([(b"a:1", 2), (b"a:2", 2)] if fails else [(b"a:2", 2)])
        for delivery in found:
            if delivery is not None:
                await w.settle(other, "complete", delivery)
        assert w.queue.counts().active == w.queue.counts().locked == 0

    story(act)


# States.


def test_a_state_is_as_large_as_its_limit():
    async def act(w):
        most = PROFILES["standard"].session_state_bytes_max
        assert most == 256 * 1024
        lock = await w.accept("a")
        assert lock.state() is None
        await w.ask(lock.set_state, b"s" * most)
        with pytest.raises(TooLarge, match="session state size"):
            await w.ask(lock.set_state, b"s" * (most + 1))
        assert lock.state() == b"s" * most
        await w.ask(lock.set_state, b"")
        assert lock.state() == b""

    story(act)


def test_of_states_on_their_way_the_last_one_counts_and_none_is_left_behind():
    async def act(w):
        lock = await w.accept("a")
        notes = w.queue.notes
        for states in ([b"1", b"2", b"3"], [b"4", None, b"5"], [b"6", None]):
            outcomes = []
            for state in states:
                lock.set_state(state, outcomes.append)
            await w.quiet()
            assert outcomes == [None] * len(states)
            assert lock.state() == states[-1]
            assert notes.count == (states[-1] is not None)

    story(act)


def test_a_state_that_could_not_be_written_changes_nothing():
    async def act(w):
        lock = await w.accept("a")
        await w.ask(lock.set_state, b"old")
        w.failing = True
        for state in (b"new", None):
            with pytest.raises(Busy):
                await w.ask(lock.set_state, state)
        w.failing = False
        assert lock.state() == b"old"

    story(act)


def test_lists():
    async def act(w):
        await w.send("c:1", "a:1", "b:1", "d:1")
        start = w.clock.now()
        for n, name in enumerate("xcb"):
            await w.later(10)
            lock = await w.accept(name)
            await w.ask(lock.set_state, b"%d" % n)
        assert (await w.receive(lock)).message.payload == b"b:1"  # Held, and active for all that.
        taken = await w.accept("d")
        await w.receive(taken, lock=False)
        assert w.sessions.list(None, 0, 10) == ["a", "b", "c"]
        assert w.sessions.list(None, 1, 1) == ["b"]
        assert w.sessions.list(start, 0, 10) == ["b", "c", "x"]
        assert w.sessions.list(start + 10, 0, 10) == ["b", "c"]
        assert w.sessions.list(start + 10, 1, 10) == ["c"]
        assert w.sessions.list(start + 30, 0, 10) == []

    story(act)


# Restarts, on a disk.


def test_what_a_restart_keeps(tmp_path):
    async def main():
        w = World(FileEngine(str(tmp_path)))
        await w.build(deliveries_max=10)
        await w.send("a:1", "a:2", "b:1", "a:3", "a:4")
        await w.send("a:later", scheduled=w.clock.now() + 60_000)
        lock = await w.accept("a")
        deferred = await w.receive(lock)
        await w.ask(lambda done: w.queue.defer(lock.holder(deferred.token), done, b"changed"))
        await w.receive(lock)
        await w.settle(lock, "complete", await w.receive(lock))
        await w.ask(lock.set_state, b"one")
        await w.ask(lock.set_state, b"two")
        other = await w.accept("empty")
        await w.ask(other.set_state, b"kept")
        w.queue.close()
        await w.engine.close()

        w.engine = FileEngine(str(tmp_path))
        w.clock = ManualClock(w.clock.now() + 1000)
        w.open()
        assert w.sessions.list(None, 0, 10) == ["a", "b"]
        assert w.sessions.list(0, 0, 10) == ["a", "empty"]
        assert (await w.accept("empty")).state() == b"kept"
        assert [(await w.accept()).id for _ in "ab"] == ["a", "b"]
        lock = w.sessions.lock_of("a")
        assert lock.state() == b"two"
        found = [await w.receive(lock), await w.receive(lock)]
        assert [(d.message.payload, d.deliveries) for d in found] == [(b"a:2", 2), (b"a:4", 1)]
        assert await w.receive(lock) is None
        (again,) = await w.ask(lock.receive_deferred, [deferred.sequence], True)
        assert (again.message.payload, again.deliveries, again.changes) == (b"a:1", 2, b"changed")
        await w.ask(w.queue.dead_letter, lock.holder(again.token), None, None)
        dead = await w.receive(w.dead)
        assert (dead.message.dead_letter_reason, dead.message.dead_letter_description) == (None, None)
        assert (dead.changes, dead.message.session_id) == (b"changed", "a")
        await w.engine.close()

    asyncio.run(main())


# The verbs of a receiver.


def test_without_a_session_nothing_is_received_where_sessions_are_required():
    async def act(w):
        await w.send("a:1")
        with pytest.raises(SessionRequired):
            w.ns.receiver("q")
        with pytest.raises(SessionRequired):
            await w.receive(w.queue)
        with pytest.raises(SessionRequired):
            await w.ask(w.queue.receive_deferred, [1], True)
        lock = await w.accept()
        delivery = await w.receive(lock)
        with pytest.raises(SessionRequired):
            await w.ask(w.queue.renew, lock.holder(delivery.token))
        with pytest.raises(SessionRequired):
            await w.send("no session")
        plain = w.ns.receiver("plain", sessions=True)
        assert plain.sessions is None
        assert w.dead.sessions is None
        with pytest.raises(SessionRequired):
            plain.peek(0, 1, session="a")
        with pytest.raises(SessionRequired):
            await w.ask(lambda done: plain.delete_before(FOREVER, 1, done, "a"))

    story(act)


def test_a_subscription_with_sessions_buries_what_has_none():
    async def act(w):
        await w.ns.create(Topic(path="t"))
        path = "t/subscriptions/s"
        await w.ns.create(Subscription(path=path, topic="t", name="s", requires_session=True))
        await w.ns.create(Subscription(path="t/subscriptions/p", topic="t", name="p"))
        await w.send("a:1", "none", "b:2", path="t", ttl=10_000)
        queue = w.ns.receiver(path, sessions=True)
        assert [(await w.accept(None, queue)).id for _ in "ab"] == ["a", "b"]
        assert w.ns.receiver("t/subscriptions/p").counts().active == 3
        dead = w.ns.receiver(path + "/$deadletterqueue")
        await w.later(20_000)
        found = await w.receive(dead)
        assert found.message.payload == b"none"
        assert found.message.dead_letter_reason == "Session ID is null."
        assert await w.receive(dead) is None

    story(act)


@pytest.mark.parametrize("path", ["plain", "plain/$deadletterqueue"])
def test_deferred_messages_are_had_by_number(path):
    async def act(w):
        await w.send("1", "2", path="plain")
        plain = w.ns.receiver("plain")
        if path != "plain":
            for _ in range(2):
                entry = plain.holder((await w.receive(plain)).token)
                await w.ask(plain.dead_letter, entry, "why", "because")
        source = w.ns.receiver(path)
        sequences = []
        for n in range(2):
            delivery = await w.receive(source)
            sequences.append(delivery.sequence)
            entry, changes = source.holder(delivery.token), b"%d" % n
            await w.ask(lambda done, e=entry, c=changes: source.defer(e, done, c))
        with pytest.raises(MessageNotFound, match="77"):
            await w.ask(source.receive_deferred, [sequences[0], 77], True)
        assert source.counts().deferred == 2
        first, second = await w.ask(source.receive_deferred, sequences, True)
        assert (first.changes, second.changes) == (b"0", b"1")
        with pytest.raises(MessageNotFound):
            await w.ask(source.receive_deferred, sequences, False)
        await w.ask(source.unlock, source.holder(first.token))
        await w.later(DURATION)
        assert source.counts().deferred == 2
        found = await w.ask(source.receive_deferred, sequences, False)
        before = 1 if path != "plain" else 0
        assert [d.deliveries for d in found] == [3 + before, 3 + before]
        assert source.counts().deferred == source.log.count == source.notes.count == 0

    story(act)


def test_what_is_dead_cannot_die_again():
    async def act(w):
        await w.send("1", path="plain")
        plain, dead = w.ns.receiver("plain"), w.ns.receiver("plain/$deadletterqueue")
        await w.ask(plain.dead_letter, plain.holder((await w.receive(plain)).token), None, None)
        entry = dead.holder((await w.receive(dead)).token)
        with pytest.raises(Invalid):
            await w.ask(dead.dead_letter, entry, "again", None)
        await w.ask(dead.complete, entry)

    story(act)


def test_changes_go_where_the_message_goes_and_the_newest_count():
    async def act(w):
        await w.send("1", path="plain")
        plain, dead = w.ns.receiver("plain"), w.ns.receiver("plain/$deadletterqueue")

        async def settle(source, verb, *arguments, changes=None):
            delivery = await w.receive(source)
            entry = source.holder(delivery.token)
            await w.ask(lambda done: getattr(source, verb)(entry, *arguments, done, changes))
            return delivery.changes

        assert await settle(plain, "unlock", changes=b"one") == b""
        assert await settle(plain, "unlock") == b"one"
        assert await settle(plain, "unlock", changes=b"two") == b"one"
        assert [d.changes for d in plain.peek(0, 10)] == [b"two"]
        assert await settle(plain, "dead_letter", "why", None) == b"two"
        assert await settle(dead, "unlock", changes=b"three") == b"two"
        assert [d.changes for d in dead.peek(0, 10)] == [b"three"]

    story(act)


def test_looking_skips_what_has_expired_and_stops_in_time():
    async def act(w):
        await w.send(*["x" * 100] * 5, path="plain", ttl=1000)
        await w.send(*["y" * 100] * 5, path="plain")
        plain = w.ns.receiver("plain")
        w.clock._now += 1000  # Before any timer is called.
        assert [d.sequence for d in plain.peek(0, 3)] == [6, 7, 8]
        assert [d.sequence for d in plain.peek(8, 100)] == [8, 9, 10]
        assert len(plain.peek(0, 100, bytes_max=1)) == 1
        assert len(plain.peek(0, 100, bytes_max=400)) == 3
        assert plain.peek(0, 0) == []
        assert plain.peek(11, 1) == []

    story(act)


def test_deleting_the_oldest():
    async def act(w):
        await w.send("a:1", "b:1")
        await w.later(10)
        moment = w.clock.now()
        await w.send("a:2", "a:3", "b:2")
        queue = w.queue
        assert await w.ask(queue.delete_before, moment, 10) == 2
        assert await w.ask(queue.delete_before, moment, 10) == 0
        assert await w.ask(lambda done: queue.delete_before(moment + 1, 1, done, "a")) == 1
        assert await w.ask(queue.delete_before, moment + 1, 1) == 1
        assert [d.message.payload for d in queue.peek(0, 10)] == [b"b:2"]
        assert w.sessions.list(None, 0, 10) == ["b"]
        assert queue.notes.count == 0

    story(act)


# Verbs that overlap.


def test_no_note_is_left_of_a_lock_that_was_being_renewed():
    async def act(w):
        await w.send("1", "2", "3", "4", path="plain")
        plain = w.ns.receiver("plain")
        entries = [plain.holder((await w.receive(plain)).token) for _ in range(4)]
        await w.later(100)
        outcomes = []
        for entry in entries:
            plain.renew(entry, outcomes.append)
            plain.renew(entry, outcomes.append)
        plain.complete(entries[0], outcomes.append)
        plain.dead_letter(entries[1], None, None, outcomes.append)
        plain.unlock(entries[2], outcomes.append)
        await w.quiet()
        assert outcomes == [None] * 11
        assert plain.notes.count == 2
        await w.ask(plain.complete, entries[3])
        await w.ask(plain.complete, plain.holder((await w.receive(plain)).token))
        assert plain.notes.count == plain.log.count == 0

    story(act)


def test_a_purge_and_a_receive_at_once():
    async def act(w):
        await w.send("1", "2", "3", path="plain")
        plain = w.ns.receiver("plain")
        outcomes, deliveries = [], []
        assert purge(plain, 0, 4, outcomes.append) == (3, 4)
        plain.receive(True, w.clock.now(), deliveries.append)
        plain.receive(False, w.clock.now(), deliveries.append)
        plain.unlock(plain.holder(deliveries[0].token), outcomes.append)
        await w.quiet()
        assert outcomes == [None, None]
        assert await w.receive(plain) is None
        assert all(value == 0 for value in plain.counts())
        await w.later(DURATION)
        assert plain.ledger.entries == {}
        assert sum(plain.ledger.numbers) == 0

    story(act)


def test_a_purge_forgets_sessions():
    async def act(w):
        await w.send(*(f"{n}:1" for n in range(50)))
        lock = await w.accept("7")
        assert await w.ask(lambda done: purge(w.queue, 0, 51, done)) is None
        assert w.sessions.list(None, 0, 100) == []
        assert await w.accept() is None
        await w.send("7:2", "8:2")
        assert await w.texts(lock) == ["7:2"]
        assert (await w.accept()).id == "8"

    story(act)


def test_sessions_cost_nothing_once_they_are_over():
    """Nor does one that goes on for ever, though its first message stays."""

    async def act(w):
        for n in range(300):
            await w.send("for ever:x", f"{n}:x")
            lock = await w.accept(f"{n}")
            await w.receive(lock, lock=False)
            lock.release()
        lock = await w.accept("for ever")
        first = await w.receive(lock)
        await w.settle(lock, "defer", first)
        for _ in range(290):
            await w.settle(lock, "complete", await w.receive(lock))
        (line,) = w.sessions._lines.values()
        assert len(line.sequences) <= 2 * 10 + DEAD_MIN
        assert len(w.sessions._ready) <= 64
        assert not w.sessions.coming
        assert len(await w.texts(lock)) == 9
        await w.ask(lock.receive_deferred, [first.sequence], True)
        for entry in list(lock.held.values()):
            await w.ask(w.queue.complete, entry)
        assert not lock.held
        lock.release()
        assert not w.sessions._lines
        assert not w.queue.ledger.entries

    story(act)


def test_what_failed_to_arrive_is_in_no_session():
    async def act(w):
        w.failing = True
        for bodies in (["a:1", "b:1"], ["c:1"]):
            with pytest.raises(Busy):
                await w.send(*bodies)
        w.failing = False
        await w.send("d:1", "e:1")
        assert w.sessions.list(None, 0, 10) == ["d", "e"]
        assert [d.message.session_id for d in w.queue.peek(0, 10, session="d")] == ["d"]

    story(act)


def test_a_message_expires_when_it_comes_free_after_its_time():
    async def act(w):
        await w.send("a:1", ttl=1000)
        await w.send("1", path="plain", ttl=1000)
        lock, plain = await w.accept("a"), w.ns.receiver("plain")
        await w.receive(lock)
        delivery = await w.receive(plain)
        await w.later(2000)
        assert w.queue.counts().active == plain.counts().active == 1
        lock.release()
        await w.ask(plain.unlock, plain.holder(delivery.token))
        await w.later(1)
        assert w.queue.counts().active == plain.counts().active == 0

    story(act)


def test_types_that_doors_rely_on():
    """One waiter for both: `waiting` tells whether it still waits, `left` whether somebody does."""

    async def act(w):
        lock = await w.accept("a")
        assert isinstance(lock, SessionLock)
        got = []
        waiter = lock.receive(True, FOREVER, got.append)
        assert waiter in lock.waiting
        waiter.left = lambda: True
        await w.send("a:1")
        assert got == []
        assert waiter not in lock.waiting
        assert isinstance(await w.receive(lock), Delivery)

    story(act)
