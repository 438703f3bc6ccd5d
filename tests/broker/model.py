"""Receivers with and without sessions against a naive model, over random histories.

The model keeps every message in a dictionary and answers each question by looking at all of them; time passes
in it moment by moment. What it cannot know is followed: lock tokens, and which of several sessions that stand
equal is granted first. Everything else must agree after each step: what is delivered to whom and in which
order, counts, states, deliveries, changed properties, session states, and what is among the dead letters.

Faults: an append fails, and the verb that made it must have changed nothing; the house closes and comes back;
the house dies, a moment after the last notes of locks were written, and comes back.

    python tests/broker/model.py --steps 1000000 [--seed 1] [--plain]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import Counter

from hubbub.broker import ledger
from hubbub.broker.delivery import Delivery, Terms
from hubbub.broker.entity import FOREVER
from hubbub.broker.errors import (
    Busy,
    LockLost,
    MessageNotFound,
    SessionCannotBeLocked,
    SessionLockLost,
    SessionRequired,
    TooLarge,
)
from hubbub.broker.message import Message, encode_message
from hubbub.broker.receiver import Receiver
from hubbub.broker.selection import purge
from hubbub.broker.sessions import SessionLock
from hubbub.clock import ManualClock
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine

DURATION, DELIVERIES_MAX, STATE_MAX = 300, 3, 8
NAMES = ("a", "b", "c", "d")
NONE = 1 << 40
"""The number of no message."""
MESSAGES_MAX = 24
"""More than that are not sent: the model looks at each of them all the time."""


class Modelled:
    """One message of the model. `state` is that of the ledger; `until` ends a lock or begins a schedule."""

    def __init__(self, sequence, session, body, enqueued, until, expires) -> None:
        self.sequence = sequence
        self.session = session
        self.body = body
        self.enqueued = enqueued
        self.state = "Scheduled" if until else "Active"
        self.until = until
        self.expires = expires
        self.deferred = False
        self.deliveries = 0
        self.changes = b""
        self.token = b""

    def seen(self):
        state = "Deferred" if self.deferred else self.state
        return (self.sequence, self.session, self.body, state, self.deliveries, self.changes)


class Pair:
    """The broker and its model, and one method for each step. Numbers choose among what there is."""

    def __init__(self, sessions: bool, every: int = 1) -> None:
        self.sessions = sessions
        self.every = every
        """Steps between two comparisons of everything."""
        self.steps = 0
        self.done = Counter()
        """How often each step was taken, and came to something."""
        self.loop = asyncio.new_event_loop()
        self.failing = False
        self.engine = MemoryEngine(lambda: Full("no space left") if self.failing else None)
        self.clock = ManualClock()
        self.tokens = itertools.count(1)
        self.bodies = itertools.count(1)
        self.messages: dict[int, Modelled] = {}
        self.dead: list[tuple] = []
        self.states: dict[str, tuple[bytes, int]] = {}
        self.after: dict[str, int] = {}
        self.locks: dict[str, SessionLock] = {}
        self.untils: dict[str, int] = {}
        self.stale: list[tuple[SessionLock | None, bytes]] = []
        """Locks that have ended, and who held them."""
        self.events: list[tuple[int, str, object, object]] = []
        """What waiters got: (moment, kind, key, outcome)."""
        self.lost: list[SessionLock] = []
        self.waiting: dict[object, list] = {}
        """Who waits: for a session (None), in a session (its lock), or for any message ("")."""
        self.build()

    def build(self) -> None:
        terms = Terms(DURATION, DELIVERIES_MAX, FOREVER, True, "q", False, self.sessions, STATE_MAX)
        dead_terms = terms._replace(
            deliveries_max=1 << 62, dead_letter_on_expiration=False, requires_session=False
        )

        def make(name, terms, dead):
            logs = (self.engine.open(name, 1), self.engine.open(name + "$notes"))
            return Receiver(name, self.engine, logs, self.clock, lambda: terms, self.token, dead)

        dead = make("q/$dead", dead_terms, None)
        self.live = make("q", terms, dead)
        self.run(dead.load)
        self.run(self.live.load)

    def token(self) -> bytes:
        return next(self.tokens).to_bytes(16, "big")

    def run(self, call, *arguments):
        """Calls, and lets everything become durable."""

        async def main():
            found = call(*arguments)
            for _ in range(3):
                await asyncio.sleep(0)
            return found

        return self.loop.run_until_complete(main())

    def ask(self, verb, *arguments):
        """The one thing that `done` gets."""
        got = []
        self.run(verb, *arguments, got.append)
        assert len(got) == 1, (verb, got)
        return got[0]

    # The model.

    @property
    def now(self) -> int:
        return self._now if hasattr(self, "_now") else self.clock.now()

    def in_state(self, *states, session=None):
        return [
            m for _, m in sorted(self.messages.items()) if m.state in states and session in (None, m.session)
        ]

    def available(self, session=None):
        found = self.in_state("Active", session=session)
        return [m for m in found if not 0 < m.expires <= self.now]

    def ready(self) -> list[str]:
        """The sessions of which the next must be granted: all that stand first."""
        orders = {}
        for m in reversed(self.available()):
            if m.session not in self.locks:
                orders[m.session] = max(m.sequence, self.after.get(m.session, 0))
        return [name for name, order in orders.items() if order == min(orders.values())]

    def lock(self, m: Modelled, delivery: Delivery, until: int) -> None:
        m.deliveries += 1
        m.state, m.until, m.token = "Locked", until, delivery.token
        assert delivery.locked_until == until
        self.compare(delivery, m)

    def compare(self, delivery: Delivery, m: Modelled) -> None:
        found = delivery.message
        assert (delivery.sequence, found.session_id, found.payload, delivery.enqueued) == (
            m.sequence,
            m.session,
            m.body,
            m.enqueued,
        )
        assert (delivery.deliveries, delivery.changes) == (m.deliveries, m.changes)

    def free(self, m: Modelled) -> None:
        """A lock ended by itself."""
        self.stale.append((None, m.token))
        if m.deliveries >= DELIVERIES_MAX:
            self.bury(m, "MaxDeliveryCountExceeded")
        else:
            m.state, m.until, m.token = "Deferred" if m.deferred else "Active", 0, b""

    def bury(self, m: Modelled, reason, changes=None) -> None:
        del self.messages[m.sequence]
        self.dead.append(
            (m.session, m.body, m.deliveries, reason, m.changes if changes is None else changes, m.sequence)
        )

    def come_free(self) -> None:
        """Of what is held no more, the time may have been over for long: both notice at once."""
        self.expire()
        self.run(self.clock.advance, 0)

    def leave(self, name: str) -> None:
        """A session is nobody's any more."""
        lock = self.locks.pop(name)
        del self.untils[name]
        self.after[name] = self.live.log.next
        self.waiting.pop(lock, None)
        for m in self.in_state("Locked", session=name):
            self.free(m)
        self.stale = [(lock if held is None else held, token) for held, token in self.stale][-8:]

    def tick(self) -> None:
        """What time alone does now."""
        for m in self.in_state("Scheduled"):
            if m.until <= self.now:
                m.state, m.until = "Active", 0
        self.follow()
        for name in [name for name, until in self.untils.items() if until <= self.now]:
            lock = self.locks[name]
            waiters = self.waiting.get(lock, [])
            self.leave(name)
            # Those who waited in it hear that it is lost, and so does who held it.
            assert [e[2:] for e in self.events if e[1] == "lost" and e[2] in waiters] == [
                (waiter, SessionLockLost) for waiter in waiters
            ]
            self.events = [e for e in self.events if e[1] != "lost" or e[2] not in waiters]
            assert lock in self.lost
        if not self.sessions:
            for m in self.in_state("Locked"):
                if m.until <= self.now:
                    self.free(m)
        self.expire()
        self.follow()

    def expire(self) -> None:
        for m in self.in_state("Active"):
            if 0 < m.expires <= self.now:
                self.bury(m, "TTLExpiredException")

    def moments(self):
        for m in self.messages.values():
            if m.state == "Scheduled" or (m.state == "Locked" and not self.sessions):
                yield m.until
            if m.expires:
                yield m.expires
        yield from self.untils.values()

    def follow(self) -> None:
        """What waiters got by now must have been theirs."""
        while self.events and self.events[0][0] <= self.now and self.event(*self.events[0][1:]):
            del self.events[0]
            self.done["served_waiter"] += 1

    def event(self, kind: str, waiter: object, outcome: object) -> bool:
        if kind == "session":
            if not self.waiting.get(None) or outcome.id not in self.ready():
                return False
            assert self.waiting[None].pop(0) is waiter
            self.grant(outcome)
            return True
        if kind != "message":
            return False
        key = waiter[0]
        found = self.available(key.id if self.sessions else None)
        if not found or found[0].sequence != outcome.sequence:
            return False
        assert self.waiting[key].pop(0) is waiter
        self.lock(found[0], outcome, key.until if self.sessions else self.now + DURATION)
        return True

    def grant(self, lock: SessionLock) -> None:
        assert lock.live == (lock not in self.lost)
        self.locks[lock.id], self.untils[lock.id] = lock, self.now + DURATION
        assert lock.until == self.untils[lock.id]

    # Steps. Each returns whether it came to something.

    def step(self, name: str, *arguments) -> None:
        came = getattr(self, name)(*arguments)
        self.follow()
        assert not self.events, self.events
        self.steps += 1
        self.done[name] += bool(came)
        self.check(self.steps % self.every == 0)

    def check(self, all: bool) -> None:
        assert not (self.waiting.get(None) and self.ready())
        for key, waiters in self.waiting.items():
            if key is not None:
                assert not (waiters and self.available(key.id if self.sessions else None))
        counts = self.live.counts()
        assert counts.active == len(self.in_state("Active", "Locked"))
        assert counts.scheduled == len(self.in_state("Scheduled"))
        assert counts.deferred == len(self.in_state("Deferred"))
        assert counts.locked == len(self.in_state("Locked"))
        assert counts.dead_letter == len(self.dead)
        if all:
            self.check_all()

    def check_all(self) -> None:
        seen = [self.seen(d) for d in self.live.peek(0, 1000)]
        assert seen == self.visible()
        dead = [
            (
                d.message.session_id,
                d.message.payload,
                d.deliveries,
                d.message.dead_letter_reason,
                d.changes,
                d.message.enqueued_sequence,
            )
            for d in self.live.dead_letters.peek(0, 1000)
        ]
        assert sorted(dead) == sorted(self.dead)
        if self.sessions:
            self.check_sessions()

    def check_sessions(self) -> None:
        listed = self.live.sessions
        held = [m for m in self.in_state("Locked") if not m.deferred]
        assert listed.list(None, 0, 100) == sorted({m.session for m in self.available() + held})
        for since in (0, self.now - 500):
            names = sorted(name for name, (_, updated) in self.states.items() if updated > since)
            assert listed.list(since, 0, 100) == names
        for name in NAMES:
            assert [self.seen(d) for d in self.live.peek(0, 1000, session=name)] == self.visible(name)

    def visible(self, session=None):
        """What a look shows: all states, but nothing whose time is over, though somebody may hold it, unless it
        is deferred."""
        return [
            m.seen()
            for _, m in sorted(self.messages.items())
            if session in (None, m.session)
            and (m.deferred or m.state == "Deferred" or not 0 < m.expires <= self.now)
        ]

    def seen(self, d: Delivery):
        return (d.sequence, d.message.session_id, d.message.payload, d.state, d.deliveries, d.changes)

    def send(self, who: int, count: int, delay: int, ttl: int, fails: bool) -> bool:
        if len(self.messages) >= MESSAGES_MAX:
            return False
        now, first = self.now, self.live.log.next
        count = 1 + count % 3
        names = [NAMES[(who + n) % len(NAMES)] for n in range(count)]
        bodies = [b"%d" % next(self.bodies) for _ in names]
        scheduled = now + delay if delay else None
        messages = [
            Message(body, session_id=name, ttl=ttl or None, scheduled=scheduled)
            for name, body in zip(names, bodies, strict=True)
        ]
        puts, notes = [], []

        def sent():
            for nth, message in enumerate(messages):
                self.live.enclose(message, encode_message(message), nth, now, puts, notes)
            self.engine.append(puts, now, lambda error: self.live.appended(notes, error))

        self.failing = fails
        self.run(sent)
        self.failing = False
        if fails:
            return False
        visible = scheduled or now
        for nth, (name, body) in enumerate(zip(names, bodies, strict=True)):
            expires = visible + ttl if ttl else 0
            self.messages[first + nth] = Modelled(first + nth, name, body, now, scheduled or 0, expires)
        return True

    def accept(self, who: int, waits: bool) -> bool:
        """One of the named, or the next available."""
        if not self.sessions:
            return False
        name = (*NAMES, None, None, None)[who % (len(NAMES) + 3)]
        until = FOREVER if waits else self.now
        got = []
        waiter_of = []
        first = self.waiting.setdefault(None, [])

        def done(outcome):
            if isinstance(outcome, SessionLock):
                outcome.on_lost = lambda: self.lost.append(outcome)
            if waiter_of and outcome is not None:
                self.events.append((self.clock.now(), "session", waiter_of[0], outcome))
            else:
                got.append(outcome)

        ready = self.ready()
        waiter = self.run(self.live.sessions.accept, name, until, done)
        if waiter is not None:
            assert name is None
            assert not ready
            assert not got
            waiter_of.append(waiter)
            first.append(waiter)
            return True
        (outcome,) = got
        if name is not None and name in self.locks:
            assert isinstance(outcome, SessionCannotBeLocked)
            return False
        if name is None and (first or not ready):
            assert outcome is None
            return False
        assert outcome.id in ([name] if name is not None else ready)
        self.grant(outcome)
        return True

    def receive(self, who: int, lock: bool, waits: bool, fails: bool) -> bool:
        key = self.holder(who) if self.sessions else ""
        if key is None:
            assert isinstance(self.ask(self.live.receive, lock, self.now), SessionRequired)
            return False
        found = self.available(key.id if self.sessions else None)
        waiters = self.waiting.setdefault(key, [])
        fails = fails and not lock
        got, mine = [], []

        def done(outcome):
            if not mine:
                got.append(outcome)
            elif isinstance(outcome, Delivery):
                self.events.append((self.clock.now(), "message", mine[0], outcome))
            elif outcome is not None:
                self.events.append((self.clock.now(), "lost", mine[0], type(outcome)))

        self.failing = fails
        source = key if self.sessions else self.live
        waiter = self.run(source.receive, lock, FOREVER if waits and lock else self.now, done)
        self.failing = False
        if waiter is not None:
            assert not found
            mine.append((key, waiter))
            waiters.append(mine[0])
            return True
        (outcome,) = got
        if not found or waiters:
            assert outcome is None
            return False
        if fails:
            assert isinstance(outcome, Busy)
            return False
        if lock:
            self.lock(found[0], outcome, key.until if self.sessions else self.now + DURATION)
        else:
            found[0].deliveries += 1
            self.compare(outcome, found[0])
            del self.messages[found[0].sequence]
        return True

    def holder(self, who: int) -> SessionLock | None:
        """One of those who hold a session."""
        held = [self.locks[name] for name in sorted(self.locks)]
        return held[who % len(held)] if held else None

    def settle(self, which: int, how: str, changes: int, fails: bool) -> bool:
        held = self.in_state("Locked")
        if not held:
            return False
        m = held[which % len(held)]
        source = self.locks[m.session] if self.sessions else self.live
        entry = source.holder(m.token)
        assert entry is self.live.holder(m.token)
        bytes_ = None if changes == 0 else b"%d" % changes
        self.failing = fails
        receiver = self.live
        if how in ("complete", "give_back"):
            error = self.ask(getattr(receiver, how), entry)
        elif how == "dead_letter":
            error = self.ask(
                lambda done: receiver.dead_letter(entry, None if changes % 2 else "why", None, done, bytes_)
            )
        else:
            error = self.ask(lambda done: getattr(receiver, how)(entry, done, bytes_))
        self.failing = False
        if fails:
            assert isinstance(error, Busy)
            return False
        assert error is None
        self.settled(m, how, bytes_, changes)
        return True

    def settled(self, m: Modelled, how: str, bytes_: bytes | None, changes: int) -> None:
        self.stale.append((self.locks.get(m.session), m.token))
        if how == "complete":
            del self.messages[m.sequence]
            return
        if how == "dead_letter":
            self.bury(m, None if changes % 2 else "why", bytes_)
            return
        if how == "unlock" and m.deliveries >= DELIVERIES_MAX:
            self.bury(m, "MaxDeliveryCountExceeded", bytes_)
            return
        if how == "give_back":
            m.deliveries -= 1
        elif bytes_ is not None:
            m.changes = bytes_
        m.deferred = m.deferred or how == "defer"
        m.state, m.until, m.token = "Deferred" if m.deferred else "Active", 0, b""
        self.come_free()

    def renew(self, who: int, fails: bool) -> bool:
        if self.sessions:
            lock = self.holder(who)
            if lock is None:
                return False
            assert self.ask(lock.renew) is None
            self.untils[lock.id] = lock.until
            assert lock.until == self.now + DURATION
            for m in self.in_state("Locked", session=lock.id):
                m.until = lock.until
                assert isinstance(self.ask(self.live.renew, lock.holder(m.token)), SessionRequired)
            return True
        held = self.in_state("Locked")
        if not held:
            return False
        m = held[who % len(held)]
        self.failing = fails
        error = self.ask(self.live.renew, self.live.holder(m.token))
        self.failing = False
        if not fails:
            assert error is None
            m.until = self.now + DURATION
        return not fails

    def stale_lock(self, which: int) -> bool:
        """Settling under a lock that has ended."""
        if not self.stale:
            return False
        lock, token = self.stale[which % len(self.stale)]
        for source in (self.live, lock) if lock is not None else (self.live,):
            try:
                source.holder(token)
            except LockLost as error:
                lost = isinstance(error, SessionLockLost)
                assert lost == (self.sessions and (source is self.live or not lock.live))
            else:
                raise AssertionError("a lock that has ended holds")
        return True

    def release(self, who: int) -> bool:
        lock = self.holder(who) if self.sessions else None
        if lock is None:
            return False
        self.leave(lock.id)
        self.run(lock.release)
        self.come_free()
        assert lock not in self.lost
        self.gone(lock)
        return True

    def gone(self, lock: SessionLock) -> None:
        """Nothing can be done any more with a lock that has ended."""
        for verb in (lock.renew, lambda done: lock.set_state(b"", done)):
            assert isinstance(self.ask(verb), SessionLockLost)
        assert isinstance(self.ask(lock.receive, True, FOREVER), SessionLockLost)
        assert isinstance(self.ask(lock.receive_deferred, [1], True), SessionLockLost)
        try:
            lock.state()
        except SessionLockLost:
            return
        raise AssertionError("a lock that has ended tells the state")

    def set_state(self, who: int, size: int, fails: bool) -> bool:
        lock = self.holder(who) if self.sessions else None
        if lock is None:
            return False
        state = None if size == 0 else bytes([size]) * (size - 1)
        self.failing = fails
        error = self.ask(lock.set_state, state)
        self.failing = False
        if state is not None and len(state) > STATE_MAX:
            assert isinstance(error, TooLarge)
        elif fails:
            assert isinstance(error, Busy)
        elif state is None:
            self.states.pop(lock.id, None)
        else:
            self.states[lock.id] = (state, self.now)
        assert lock.state() == self.states.get(lock.id, (None,))[0]
        return error is None

    def receive_deferred(self, who: int, which: int, count: int, lock: bool, fails: bool) -> bool:
        holder = self.holder(who) if self.sessions else None
        if self.sessions and holder is None:
            assert isinstance(self.ask(self.live.receive_deferred, [1], lock), SessionRequired)
            return False
        # Of any session: only those of the holder's own are to be found.
        found = self.in_state("Deferred")[which % 4 :][:count]
        sequences = [m.sequence for m in found] or [NONE]
        right = bool(found) and all(not self.sessions or m.session == holder.id for m in found)
        over = [m for m in found if right and 0 < m.expires <= self.now]
        right = right and not over
        self.failing = fails = fails and not lock and right
        outcome = self.ask((holder or self.live).receive_deferred, sequences, lock)
        self.failing = False
        if not right:
            assert isinstance(outcome, MessageNotFound)
            for m in over:
                self.bury(m, "TTLExpiredException")
            return bool(over)
        if fails:
            assert isinstance(outcome, Busy)
            return False
        for m, delivery in zip(found, outcome, strict=True):
            if lock:
                self.lock(m, delivery, holder.until if self.sessions else self.now + DURATION)
            else:
                m.deliveries += 1
                self.compare(delivery, m)
                del self.messages[m.sequence]
        return True

    def cancel(self, which: int, count: int, fails: bool) -> bool:
        found = self.in_state("Scheduled")[which % 4 :][: 1 + count % 3]
        wrong = count == 3 and self.in_state("Active")[:1]
        sequences = [m.sequence for m in (*found, *(wrong or ()))] or [NONE]
        self.failing = fails = fails and bool(found) and not wrong
        error = self.ask(self.live.cancel, sequences)
        self.failing = False
        if not found or wrong:
            assert isinstance(error, MessageNotFound)
            return False
        if fails:
            assert isinstance(error, Busy)
            return False
        assert error is None
        for m in found:
            del self.messages[m.sequence]
        return True

    def delete_before(self, ago: int, count: int, who: int, fails: bool) -> bool:
        name = NAMES[who % len(NAMES)] if self.sessions and who else None
        moment = self.now - ago
        found = [m for m in self.in_state("Active", session=name) if m.enqueued < moment][:count]
        self.failing = fails = fails and bool(found)
        outcome = self.ask(lambda done: self.live.delete_before(moment, count, done, name))
        self.failing = False
        if fails:
            assert isinstance(outcome, Busy)
            return False
        assert outcome == len(found)
        for m in found:
            del self.messages[m.sequence]
        return bool(found)

    def purge(self, sure: int, fails: bool) -> bool:
        if sure:
            return False
        found = self.in_state("Active", "Deferred", "Scheduled")
        self.failing = fails
        got = []
        assert self.run(purge, self.live, 0, 1 << 62, got.append)[0] == len(found)
        self.failing = False
        for m in found if not fails else ():
            del self.messages[m.sequence]
        return not fails

    def forget_dead(self) -> bool:
        """So that what was buried does not pile up."""
        if len(self.dead) < 20:
            return False
        self.run(purge, self.live.dead_letters, 0, 1 << 62, lambda error: None)
        self.dead = []
        return True

    def stop_waiting(self) -> bool:
        found = False
        for waiters in self.waiting.values():
            for waiter in waiters:
                (waiter[1] if isinstance(waiter, tuple) else waiter).cancel()
                found = True
            waiters.clear()
        return found

    def pass_time(self, by: int) -> bool:
        """The broker first; then the model, one moment after the other, beside what happened in each."""
        start = self.clock.now()
        self.lost.clear()
        self.run(self.clock.advance, by)
        self._now = start
        while True:
            due = min((m for m in self.moments() if self._now < m <= start + by), default=None)
            if due is None:
                break
            self._now = due
            self.tick()
        del self._now
        return True

    def restart(self, dies: bool) -> bool:
        """A house that dies does so after the notes of locks were written."""
        self.stop_waiting()
        if dies:
            self.pass_time(60)
        else:
            self.run(self.live.close)
            self.run(self.live.dead_letters.close)
        self.clock = ManualClock(self.now)
        for name in list(self.locks):
            lock = self.locks[name]
            assert lock.live == dies
            self.leave(name)
        self.after, self.stale = {}, []
        self.lost.clear()
        self.waiting = {}
        self.build()
        self.come_free()
        return True


STEPS = {
    "send": (range(4), range(3), (0, 0, 0, 101, 402), (0, 0, 0, 203, 904), (False,) * 9 + (True,)),
    "accept": (range(7), (True, False)),
    "receive": (range(4), (True, True, False), (True, False), (False,) * 5 + (True,)),
    "settle": (
        range(8),
        ("complete", "unlock", "unlock", "give_back", "defer", "dead_letter"),
        (0, 0, 1, 2),
        (False,) * 5 + (True,),
    ),
    "renew": (range(4), (False, False, True)),
    "stale_lock": (range(8),),
    "release": (range(4),),
    "set_state": (range(4), range(12), (False, False, True)),
    "receive_deferred": (range(4), range(4), range(1, 3), (True, True, False), (False, False, True)),
    "cancel": (range(4), range(4), (False, False, True)),
    "delete_before": ((0, 50, 500), range(3), (0, 0, 1, 2, 3, 4), (False, False, True)),
    "purge": ((0, 1, 1, 1), (False, False, True)),
    "forget_dead": (),
    "stop_waiting": (),
    "pass_time": ((1, 40, 100, 100, 301),),
    "restart": ((False, True),),
}
WEIGHTS = {
    "send": 8,
    "receive": 8,
    "settle": 8,
    "accept": 5,
    "pass_time": 4,
    "receive_deferred": 3,
    "renew": 2,
}


def walk(sessions: bool, steps: int, seed: int, every: int = 1) -> Pair:
    """A long random history."""
    chance = random.Random(seed)
    pair = Pair(sessions, every)
    names = [name for name in STEPS for _ in range(WEIGHTS.get(name, 1))]
    for n in range(steps):
        name = chance.choice(names)
        arguments = [chance.choice(values) for values in STEPS[name]]
        try:
            pair.step(name, *arguments)
        except BaseException:
            print(f"step {n} of seed {seed}: {name}{tuple(arguments)}", file=sys.stderr)
            raise
    pair.loop.close()
    return pair


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="an entity without sessions")
    options = parser.parse_args()
    ledger.STRETCH = 4  # So that walks pass whole ones.
    start = time.monotonic()
    pair = walk(not options.plain, options.steps, options.seed, options.every)
    print(f"{options.steps} steps in {time.monotonic() - start:.0f} s: {dict(pair.done)}")


if __name__ == "__main__":
    main()
