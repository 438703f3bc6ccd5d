"""The sessions of one queue or subscription: who holds which, what comes next in each, and their states.

Rules:
1. Whoever holds the lock of a session gets its messages, in the order of their sequences; what comes back
   comes again first. Messages are locked under the session's lock and for as long as it.
2. When that lock ends, by time or by release, so do all locks under it; deliveries count all the same.
   Session locks live in memory: after a restart nobody holds any.
3. Who asks for the next available session gets the one with the oldest message. A session that was held
   stands behind all that had come by then, so that none starves.
4. A session's state is a record among the notes, and outlives its messages.

Record of a state, version 1: byte 0x03, then a MessagePack array (session id, moment in ms, bytes). Notes of
messages begin with the head of an array, 0x90 to 0x9f.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..clock import Timer
from ..engine.log import EngineError, Put
from .delivery import Delivery, Outcome, Settled, Waiter, busy, first_present
from .errors import Disabled, LockLost, SessionCannotBeLocked, SessionLockLost, TooLarge
from .ledger import AVAILABLE, CLAIMED, LOCKED, Entry
from .line import Line
from .message import session_of
from .selection import receive_deferred

if TYPE_CHECKING:
    from .receiver import Receiver

STATE_MARK = b"\x03"


class _State(msgspec.Struct, array_like=True, gc=False):
    session: str
    updated: int
    state: bytes


_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(_State).decode


class SessionLock:
    """One who holds a session, up to the moment `until`. Its verbs end in SessionLockLost once it is lost."""

    __slots__ = (
        "_line",
        "_receiver",
        "_sessions",
        "_timer",
        "held",
        "live",
        "on_lost",
        "until",
        "waiting",
    )

    def __init__(self, sessions: Sessions, receiver: Receiver, line: Line, until: int) -> None:
        self._sessions = sessions
        self._receiver = receiver
        self._line = line
        self.until = until
        self.live = True
        self.held: dict[int, Entry] = {}
        """Messages locked under it."""
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.on_lost: Callable[[], object] | None = None
        """Called when the lock ran out or the entity is going; not after `release`."""
        self._timer: Timer = receiver.clock.call_at(until, self._watch)

    @property
    def id(self) -> str:
        return self._line.id

    # Messages.

    def receive(self, lock: bool, until: int, done: Callable[[Outcome], object]) -> Waiter | None:
        """As Receiver.receive, for the session's own messages."""
        if self.lost():
            done(SessionLockLost())
            return None
        if closed := self._receiver.terms().closed:
            done(Disabled(closed))
            return None
        now = self._receiver.used = self._receiver.clock.now()
        if not self.waiting and self._deliver(lock, now, done):
            return None
        if until <= now:
            done(None)
            return None
        return Waiter(self.waiting, lock, done).wait(self._receiver.clock, until)

    def receive_deferred(
        self, sequences: Sequence[int], lock: bool, done: Callable[[list[Delivery] | Exception], object]
    ) -> None:
        """As Receiver.receive_deferred; those of other sessions are not found."""
        if self.lost():
            done(SessionLockLost())
        else:
            receive_deferred(self._receiver, sequences, lock, done, self)

    def holder(self, token: bytes) -> Entry:
        """The message this token holds, to be settled. Raises SessionLockLost; LockLost if it is not held."""
        if self.lost():
            raise SessionLockLost
        entry = self._receiver.ledger.held(token, self._receiver.clock.now())
        if entry is None or entry.sequence not in self.held:
            raise LockLost
        return entry

    def pump(self) -> None:
        """Something may have become available."""
        while self.live and (waiter := first_present(self.waiting)) is not None:
            if not self._deliver(waiter.lock, self._receiver.clock.now(), waiter.done, waiter):
                return

    def hold(self, entry: Entry) -> None:
        """The message was locked under this."""
        self.held[entry.sequence] = entry

    def owns(self, entry: Entry) -> bool:
        """Whether the message is one of the session."""
        return entry.line is self._line

    def _deliver(
        self, lock: bool, now: int, done: Callable[[Outcome], object], waiter: Waiter | None = None
    ) -> bool:
        sequence = self._line.first(self._receiver.ledger.deliverable, now)
        if sequence is None:
            return False
        if waiter is not None:
            waiter.cancel()
        record = self._receiver.record(sequence, done)
        if record is None:
            return True
        self._line.take(sequence)
        if lock:
            delivery, entry = self._receiver.lock(record, self.until, now, self._line)
            self.hold(entry)
            done(delivery)
        else:
            self._receiver.take(record, now, done, self._line)
        return True

    # The lock.

    def renew(self, done: Settled) -> None:
        """From now on for the entity's lock duration."""
        if self.lost():
            done(SessionLockLost())
            return
        clock = self._receiver.clock
        self.until = clock.now() + self._receiver.terms().lock_duration
        for entry in self.held.values():
            entry.until = self.until
        self._timer.cancel()
        self._timer = clock.call_at(self.until, self._watch)
        done(None)

    def release(self) -> None:
        """The session is free for others. Who waits for messages of it hears None."""
        if self.live:
            self._end()
            for waiter in list(self.waiting):
                waiter.expire()
            self._sessions.pump()

    def stop(self) -> None:
        """The entity is going."""
        self.live = False
        self._timer.cancel()
        for waiter in list(self.waiting):
            waiter.expire()
        if self.on_lost is not None:
            self.on_lost()

    def lost(self) -> bool:
        """Whether it is lost; it is if its time is over."""
        if self.live and self._receiver.clock.now() >= self.until:
            self._end()
            for waiter in list(self.waiting):
                waiter.fail(SessionLockLost())
            if self.on_lost is not None:
                self.on_lost()
            self._sessions.pump()
        return not self.live

    def _watch(self) -> None:
        # A wall clock may have been set back meanwhile.
        if not self.lost():
            self._timer = self._receiver.clock.call_at(self.until, self._watch)

    def _end(self) -> None:
        self.live = False
        self._timer.cancel()
        held, self.held = self.held, {}
        self._sessions.leave(self._line)
        for entry in held.values():
            # One whose settlement is on its way is left to that.
            if entry.state == LOCKED:
                self._receiver.lapse(entry)
        self._receiver.arm()  # The time of some may have been over while they were held.
        self._sessions.offer(self._line)

    # The state.

    def state(self) -> bytes | None:
        """What was last set. Raises SessionLockLost, Busy."""
        if self.lost():
            raise SessionLockLost
        return self._sessions.state(self.id)

    def set_state(self, state: bytes | None, done: Settled) -> None:
        """None: the session has no state any more. TooLarge is one of the reasons `done` may get."""
        if self.lost():
            done(SessionLockLost())
            return
        bytes_max = self._receiver.terms().session_state_bytes_max
        if state is not None and len(state) > bytes_max > 0:
            done(TooLarge(len(state), bytes_max, "session state"))
        else:
            self._sessions.set_state(self.id, state, done)


class Sessions:
    """All sessions of an entity that requires them."""

    __slots__ = (
        "_indexed",
        "_lines",
        "_ready",
        "_receiver",
        "_states",
        "_stirred",
        "_tickets",
        "coming",
        "waiting",
    )

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        receiver.ledger.on_free = self._freed
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        """Who waits for the next available session."""
        self.coming: dict[int, str] = {}
        """Sessions of messages on their way to the disk, by sequence."""
        self._indexed = receiver.log.durable
        """Messages below it have their place in a line."""
        self._lines: dict[str, Line] = {}
        """Those with messages, or with a lock."""
        self._ready: list[tuple[int, int, Line]] = []
        """(order, ticket, line) of those that have something and are not locked; stale ones are skipped."""
        self._tickets = 0
        self._stirred: dict[SessionLock, None] = {}
        """Locks that something became available for."""
        self._states: dict[str, tuple[int, int]] = {}
        """(sequence of the note, moment of the update)"""

    @property
    def in_use(self) -> bool:
        """Whether somebody waits for a session, or holds one."""
        return bool(self.waiting) or any(line.lock is not None for line in self._lines.values())

    def all_waiting(self) -> list[Waiter]:
        """Who waits for a session, or for messages of one that they hold."""
        locks = [line.lock for line in self._lines.values() if line.lock is not None]
        return [*self.waiting, *(waiter for lock in locks for waiter in lock.waiting)]

    def load(self) -> None:
        """Finds the messages of each session after a restart; the ledger is loaded, and nobody holds any."""
        log = self._receiver.log
        sequence = log.next_alive(log.first)
        while sequence is not None:
            records = log.read(sequence, 1000, 4 << 20)
            for record in records:
                self._place(record.sequence, session_of(record.payload))
            sequence = log.next_alive(records[-1].sequence + 1)
        self._indexed = log.durable
        entries = self._receiver.ledger.entries
        for entry in [entry for entry in entries.values() if entry.state == LOCKED]:
            self._receiver.lapse(entry)

    def stop(self) -> None:
        """The entity is going."""
        for line in list(self._lines.values()):
            if line.lock is not None:
                line.lock.stop()
        for waiter in list(self.waiting):
            waiter.expire()

    # Accepting.

    def accept(
        self,
        session_id: str | None,
        until: int,
        done: Callable[[SessionLock | Exception | None], object],
    ) -> Waiter | None:
        """Calls `done` with the lock of the session, or with SessionCannotBeLocked or Disabled.

        None is the next available one, for which it waits: `done` gets None at the moment `until` (FOREVER:
        never). Returns the waiter if it has to wait.
        """
        if closed := self._receiver.terms().closed:
            done(Disabled(closed))
            return None
        now = self._receiver.used = self._receiver.clock.now()
        if session_id is not None:
            done(self._accept(session_id, now))
            return None
        line = None if self.waiting else self._next(now)
        if line is not None:
            done(self._lock(line, now))
            return None
        if until <= now:
            done(None)
            return None
        return Waiter(self.waiting, True, done).wait(self._receiver.clock, until)

    def lock_of(self, session_id: str) -> SessionLock:
        """Who holds the session now. Raises SessionLockLost if nobody does."""
        line = self._lines.get(session_id)
        if line is None or line.lock is None or line.lock.lost():
            raise SessionLockLost
        return line.lock

    def _accept(self, session_id: str, now: int) -> SessionLock | SessionCannotBeLocked:
        lock = self._line(session_id).lock
        if lock is not None and not lock.lost():
            return SessionCannotBeLocked(session_id)
        return self._lock(self._line(session_id), now)

    def _lock(self, line: Line, now: int) -> SessionLock:
        until = now + self._receiver.terms().lock_duration
        line.lock = SessionLock(self, self._receiver, line, until)
        line.ticket = 0
        return line.lock

    def leave(self, line: Line) -> None:
        """The lock ended."""
        line.lock = None
        line.after = self._receiver.log.next

    # Order.

    def pump(self) -> None:
        """Something may have become available: serve who waits."""
        self._absorb()
        while self._stirred:
            self._stirred.popitem()[0].pump()
        clock = self._receiver.clock
        while (waiter := first_present(self.waiting)) is not None:
            line = self._next(clock.now())
            if line is None:
                return
            waiter.cancel()
            waiter.done(self._lock(line, clock.now()))

    def offer(self, line: Line) -> None:
        """Puts a session that nobody holds where it belongs among the ready; forgets one that is over."""
        if line.lock is not None:
            return
        if line.empty:
            line.ticket = 0
            self._lines.pop(line.id, None)
            return
        first = line.first(self._receiver.ledger.deliverable, self._receiver.clock.now())
        if first is None:
            return
        order = max(first, line.after)
        if not line.ticket or order < line.order:
            self._tickets += 1
            line.ticket, line.order = self._tickets, order
            heapq.heappush(self._ready, (order, line.ticket, line))
            if len(self._ready) > 64 and len(self._ready) > 2 * len(self._lines):
                self._ready = [ready for ready in self._ready if ready[1] == ready[2].ticket]
                heapq.heapify(self._ready)

    def _next(self, now: int) -> Line | None:
        ready = self._ready
        while ready:
            order, ticket, line = heapq.heappop(ready)
            if ticket != line.ticket:
                continue
            line.ticket = 0
            first = line.first(self._receiver.ledger.deliverable, now)
            if first is None:
                continue
            if max(first, line.after) <= order:
                return line
            # What it was offered for has gone.
            line.ticket, line.order = ticket, max(first, line.after)
            heapq.heappush(ready, (line.order, ticket, line))
        return None

    def failed(self) -> None:
        """An append failed: its sequences will be others'."""
        following = self._receiver.log.next
        for sequence in [sequence for sequence in self.coming if sequence >= following]:
            del self.coming[sequence]

    def _absorb(self) -> None:
        """Messages that became durable get their place."""
        log = self._receiver.log
        while self._indexed < log.durable:
            sequence = self._indexed
            self._indexed += 1
            self._place(sequence, self.coming.pop(sequence))

    def _place(self, sequence: int, session_id: str) -> None:
        line = self._line(session_id)
        line.add(sequence)
        entry = self._receiver.ledger.entries.get(sequence)
        if entry is not None:
            entry.line = line
        # One that is offered already stands there for an older message.
        if not line.ticket and (entry is None or entry.state == AVAILABLE):
            self._stir(line)

    def _stir(self, line: Line) -> None:
        if line.lock is None:
            self.offer(line)
        elif line.lock.waiting:
            self._stirred[line.lock] = None

    def _line(self, session_id: str) -> Line:
        line = self._lines.get(session_id)
        if line is None:
            line = self._lines[session_id] = Line(session_id)
        return line

    def _freed(self, entry: Entry) -> None:
        """What the ledger tells: nobody holds the message any more."""
        line = entry.line
        if line is None:
            return  # Not durable yet, or never was.
        if line.lock is not None:
            line.lock.held.pop(entry.sequence, None)
        if self._receiver.ledger.entries.get(entry.sequence) is not entry:
            line.bury(self._receiver.log.alive)
            if line.empty:
                self.offer(line)
        elif entry.state == AVAILABLE:
            line.give_back(entry.sequence)
            self._stir(line)

    # Messages that are not simply next.

    def adopt(self, entry: Entry, session_id: str) -> None:
        """The entry may be new: it belongs to the session that its message names."""
        entry.line = self._line(session_id)

    def orphaned(self, entry: Entry) -> bool:
        """Whether it is locked under a session lock that has ended."""
        lock = None if entry.line is None else entry.line.lock
        return entry.state == LOCKED and (lock is None or entry.sequence not in lock.held)

    def since(self, session_id: str, start: int) -> Sequence[int]:
        """The messages of a session, in any state, from a sequence on; dead ones may be among them."""
        line = self._lines.get(session_id)
        return () if line is None else line.since(start)

    def sweep(self) -> None:
        """Messages were purged that had no entry."""
        for line in list(self._lines.values()):
            line.sweep(self._receiver.log.alive)
            if line.empty:
                self.offer(line)

    # States, and looking.

    def list(self, updated_since: int | None, skip: int, top: int) -> Sequence[str]:
        """Ids in their order: of sessions with active messages; given a moment, of those whose state was
        updated after it (AMQP reference 4.8, get-message-sessions)."""
        if updated_since is None:
            now = self._receiver.clock.now()
            found = [line.id for line in self._lines.values() if self._active(line, now)]
        else:
            found = [id for id, (_, updated) in self._states.items() if updated > updated_since]
        return sorted(found)[skip : skip + top]

    def _active(self, line: Line, now: int) -> bool:
        if line.first(self._receiver.ledger.deliverable, now) is not None:
            return True
        held = () if line.lock is None else line.lock.held.values()
        return any(entry.state in (LOCKED, CLAIMED) and not entry.deferred for entry in held)

    def note(self, at: int, payload: bytes) -> Sequence[int]:
        """A state found at a restart. Returns the sequences of notes that no longer count."""
        found = _decode_state(memoryview(payload)[1:])
        old = self._states.get(found.session)
        self._states[found.session] = (at, found.updated)
        return () if old is None else old[:1]

    def state(self, session_id: str) -> bytes | None:
        """Raises Busy."""
        found = self._states.get(session_id)
        if found is None:
            return None
        try:
            record = self._receiver.notes.get(found[0])
        except EngineError as error:
            raise busy(error) from error
        assert record is not None
        return _decode_state(memoryview(record.payload)[1:]).state

    def set_state(self, session_id: str, state: bytes | None, done: Settled) -> None:
        receiver, now = self._receiver, self._receiver.clock.now()
        at, old = receiver.notes.next, self._states.get(session_id)
        puts = []
        if state is not None:
            puts.append(Put(receiver.notes, STATE_MARK + _encode_state(_State(session_id, now, state))))

        def written(error: EngineError | None) -> None:
            if error is None:
                current = self._states.pop(session_id, None)
                if current is not None and current != old:
                    # Another was on its way before this one.
                    receiver.engine.append([], now, _ignore, dead=((receiver.notes, current[0]),))
                if state is not None:
                    self._states[session_id] = (at, now)
            done(busy(error))

        dead = () if old is None else ((receiver.notes, old[0]),)
        receiver.engine.append(puts, now, written, dead=dead)


def _ignore(error: EngineError | None) -> None:
    """A state that no longer counts is found again at the next restart."""
