"""What is in one queue, subscription or dead-letter queue: its log, its ledger, and who waits for it.

The order rule of the house lives here: a message is durable before it is visible; a settlement is
acknowledged when it is durable; locks are taken at once and those that last are noted a moment later, since
a lock that is lost in a crash costs a redelivery and no more.

Callbacks, not coroutines: this is the hot path of every receive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from ..clock import Clock, Timer
from ..engine.log import Done, Engine, EngineError, Log, Put, Record
from . import selection
from .deadletters import expire, give_up, move
from .delivery import Delivery as Delivery
from .delivery import Outcome as Outcome
from .delivery import Settled, Terms, Tokens, delivery_of, first_present, only_by_session
from .delivery import Waiter as Waiter
from .delivery import busy as busy
from .entity import FOREVER
from .errors import Busy, Disabled, Forwards, Invalid, LockLost, SessionLockLost, SessionRequired
from .forwarding import Forwarder
from .ledger import (
    AVAILABLE,
    DEFERRED,
    LOCKED,
    SCHEDULED,
    Counts,
    Entry,
    Ledger,
    Note,
    decode_note,
    encode_note,
)
from .line import Line
from .message import Message, decode_message
from .notebook import Notebook
from .numbering import number_of
from .sessions import STATE_MARK, Sessions

SLICE = 4
"""Milliseconds of work for messages that are due before everything else has its turn."""
LEAVING_MAX = 300
"""Messages on their way out because of the time: more than a slow disk takes would only fill the memory."""
RETRY = 1000
"""Milliseconds until what a full disk prevented is tried again."""


class Receiver:
    """One queue-like thing. `terms()` gives what its entity says; `tokens()` a fresh lock token."""

    __slots__ = (
        "_armed",
        "_leaving",
        "_not_before",
        "_stopped",
        "_timer",
        "clock",
        "dead_letters",
        "engine",
        "forwarder",
        "ledger",
        "log",
        "notebook",
        "notes",
        "partitioned",
        "path",
        "sessions",
        "terms",
        "tokens",
        "transfer_dead_letters",
        "used",
        "waiting",
    )

    def __init__(
        self,
        path: str,
        engine: Engine,
        logs: tuple[Log, Log],
        clock: Clock,
        terms: Callable[[], Terms],
        tokens: Tokens,
        dead_letters: Receiver | None,
    ) -> None:
        self.path = path
        self.engine = engine
        self.log, self.notes = logs
        self.terms = terms
        self.dead_letters = dead_letters
        self.transfer_dead_letters: Receiver | None = None
        """Messages that failed on their way through here to another entity; None: none ever did."""
        self.ledger = Ledger(self.log)
        self.notebook = Notebook(self.notes, self.ledger, engine, clock)
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.used = 0
        """When somebody last asked for a message."""
        self.clock = clock
        self.tokens = tokens
        self._timer: Timer | None = None
        self._armed = 0
        self._not_before = 0
        self._leaving = 0
        self._stopped = False
        self.forwarder: Forwarder | None = None
        """Sends on what comes; None: it is to be received here."""
        self.partitioned = terms().partitioned
        self.sessions = Sessions(self) if terms().requires_session else None
        """Who holds which session; None for an entity without."""

    def load(self) -> None:
        """Rebuilds the ledger after a restart."""
        notes: list[tuple[int, Note]] = []
        stale: list[int] = []
        sequence = self.notes.next_alive(self.notes.first)
        while sequence is not None:
            records = self.notes.read(sequence, 1000, 1 << 20)
            for at, _, _, payload in records:
                if payload[:1] != STATE_MARK:
                    notes.append((at, decode_note(payload)))
                elif self.sessions is not None:
                    stale += self.sessions.note(at, payload)
            sequence = self.notes.next_alive(records[-1].sequence + 1)
        stale += self.ledger.load(notes)
        if stale:
            self.engine.append([], 0, _ignore, dead=[(self.notes, at) for at in stale])
        if self.sessions is not None:
            self.sessions.load()
        self.arm()

    def stop(self) -> None:
        """The entity is going: nobody may wait for it any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for waiter in list(self.waiting):
            waiter.expire()
        if self.forwarder is not None:
            self.forwarder.stop()
        if self.sessions is not None:
            self.sessions.stop()
        self.notebook.drop()

    def close(self) -> None:
        """The house is going: what is locked must be known as locked when it comes back."""
        self.notebook.write()
        self.stop()

    # Sending.

    def enclose(
        self, message: Message, record: bytes, nth: int, now: int, puts: list[Put], notes: list[int]
    ) -> None:
        """Adds what it takes to append the message, encoded as `record`, as the `nth` (from 0) of one append
        here. `notes` gets the sequences that got an entry."""
        terms = self.terms()
        sequence = self.log.next + nth
        puts.append(Put(self.log, record))
        if self.sessions is not None:
            self.sessions.coming[sequence] = message.session_id or ""
        if message.scheduled is None and message.ttl is None and terms.default_ttl >= FOREVER:
            return
        visible = max(now, message.scheduled or 0)
        ttl = min(message.ttl or FOREVER, terms.default_ttl)
        expires = visible + ttl if ttl < FOREVER else 0
        scheduled = message.scheduled is not None and message.scheduled > now
        if not scheduled and not expires:
            return
        state = SCHEDULED if scheduled else AVAILABLE
        note = Note(sequence, state, 0, visible if scheduled else 0, b"", expires)
        puts.append(Put(self.notes, encode_note(note)))
        # At once, so that nobody can see the message without its note.
        self.ledger.note(note, self.notes.next + len(notes))
        notes.append(sequence)

    def appended(self, notes: list[int], error: EngineError | None) -> None:
        """What `enclose` prepared is durable, or failed."""
        if error is not None:
            for sequence in notes:
                self.ledger.undo(self.ledger.entries[sequence])
            if self.sessions is not None:
                self.sessions.failed()
            return
        if notes:
            # The time of some may have been over before they were here.
            found = map(self.ledger.entries.get, notes)
            for entry in filter(None, found):
                self.ledger.time(entry)
            self.arm()
        self.pump()

    # Receiving.

    def receive(self, lock: bool, until: int, done: Callable[[Outcome], object]) -> Waiter | None:
        """Calls `done` with the next message, now or once there is one; with None at the moment `until`
        (FOREVER: never); with SessionRequired where messages are had by session only, with Forwards where
        they go on by themselves, with Disabled where nobody may receive, with
        Busy where too many wait.

        `lock`: peek-lock; otherwise the message is deleted first. Returns the waiter if it has to wait.
        """
        if self.sessions is not None:
            done(only_by_session(self.path))
            return None
        if self.forwarder is not None:
            done(Forwards())
            return None
        terms = self.terms()
        if terms.closed:
            done(Disabled(terms.closed))
            return None
        now = self.used = self.clock.now()
        if not self.waiting and self._deliver(lock, now, done):
            return None
        if until <= now:
            done(None)
            return None
        if len(self.waiting) >= terms.receives_max > 0:
            done(Busy(f"{len(self.waiting)} receives wait on this entity already; try again later"))
            return None
        return Waiter(self.waiting, lock, done).wait(self.clock, until)

    def receive_deferred(self, sequences: Sequence[int], lock: bool, done: selection.Found) -> None:
        """Delivers deferred messages, all or none, locked or deleted first; MessageNotFound if one is not,
        TooLarge if they are too much for one answer.
        Where messages have sessions that is a verb of SessionLock, and `done` gets SessionRequired here."""
        selection.receive_deferred(self, sequences, lock, done)

    def pump(self) -> None:
        """Something may have become available: serve who waits."""
        if self.forwarder is not None:
            self.forwarder.pump()
            return
        if self.sessions is not None:
            self.sessions.pump()
            return
        while (waiter := first_present(self.waiting)) is not None:
            if not self._deliver(waiter.lock, self.clock.now(), waiter.done, waiter):
                return

    def _deliver(
        self, lock: bool, now: int, done: Callable[[Outcome], object], waiter: Waiter | None = None
    ) -> bool:
        sequence = self.ledger.next_available(now)
        if sequence is None:
            return False
        if waiter is not None:
            waiter.cancel()
        record = self.record(sequence, done)
        if record is None:
            return True
        if lock:
            done(self.lock(record, now + self.terms().lock_duration, now)[0])
        else:
            self.take(record, now, done)
        return True

    def record(self, sequence: int, done: Callable[[Outcome], object]) -> Record | None:
        """An available message. None if it cannot be read, and `done` has been told."""
        try:
            record = self.log.get(sequence)
        except EngineError as error:
            done(busy(error))
            return None
        assert record is not None
        return record

    def lock(self, record: Record, until: int, now: int, line: Line | None = None) -> tuple[Delivery, Entry]:
        """One more delivery of an available message. `line`: its session, where messages have one."""
        entry = self.ledger.lock(record.sequence, self.tokens(), until)
        entry.line = line
        self.note_soon(entry, now)
        return delivery_of(record, entry, self.partitioned), entry

    def note_soon(self, entry: Entry, now: int) -> None:
        """The message was locked: a note of it is written, if the lock lasts, and its end is waited for."""
        self.notebook.soon(entry, now)
        if self._armed == 0 or entry.until < self._armed:
            self.arm()

    def take(
        self, record: Record, now: int, done: Callable[[Outcome], object], line: Line | None = None
    ) -> None:
        """Delivers an available message once it is deleted."""
        entry = self.ledger.take(record.sequence)
        entry.line = line
        entry.deliveries += 1
        delivery = delivery_of(record, entry, self.partitioned)

        def taken(error: EngineError | None) -> None:
            if error is not None:
                entry.deliveries -= 1
            done(busy(error) or delivery)

        self.bury(entry, now, taken)

    # Settling. Each calls `done` with None when durable, or with the reason. `changes`, if given, replace
    # what receivers changed of the message's properties before; they stay with it, wherever it goes.

    def find(self, name: str, token: bytes) -> Entry:
        """The locked message of this token, if `name` is its sequence number or message id.

        Raises LockLost. Ids that look like GUIDs are compared without dashes and case (REST 3.10).
        """
        entry = self.holder(token)
        if name != str(self.number(entry.sequence)):
            record = self.log.get(entry.sequence)
            own = None if record is None else decode_message(record.payload).message_id
            if own is None or _plain(own) != _plain(name):
                raise LockLost
        return entry

    def number(self, sequence: int) -> int:
        """What clients call the message by; 0 if it is not there (yet)."""
        if not self.partitioned:
            return sequence
        record = self.log.get(sequence)
        return 0 if record is None else number_of(sequence, decode_message(record.payload))

    def holder(self, token: bytes) -> Entry:
        """The message this lock holds. Raises LockLost; where messages have sessions, SessionLockLost."""
        entry = self.ledger.held(token, self.clock.now())
        if entry is None:
            raise LockLost if self.sessions is None else SessionLockLost
        return entry

    def complete(self, entry: Entry, done: Settled) -> None:
        self.ledger.claim(entry)
        self.bury(entry, self.clock.now(), lambda error: done(busy(error)))

    def unlock(self, entry: Entry, done: Settled, changes: bytes | None = None) -> None:
        """The message may be delivered again, unless that was its last time."""
        if entry.deliveries >= self.terms().deliveries_max:
            give_up(self, entry, self.clock.now(), lambda error: done(busy(error)), changes)
        else:
            self._settle(entry, AVAILABLE, entry.deliveries, changes, done)

    def give_back(self, entry: Entry, done: Settled) -> None:
        """Unlocks as if it had not been delivered."""
        self._settle(entry, AVAILABLE, entry.deliveries - 1, None, done)

    def defer(self, entry: Entry, done: Settled, changes: bytes | None = None) -> None:
        self._settle(entry, DEFERRED, entry.deliveries, changes, done)

    def renew(self, entry: Entry, done: Settled) -> None:
        if self.sessions is not None:
            done(SessionRequired("A message of a session is locked for as long as the session: renew that."))
            return
        now = self.clock.now()
        until = now + self.terms().lock_duration

        def renewed(error: EngineError | None) -> None:
            if error is not None:
                self.note_soon(entry, now)
            elif entry.state == LOCKED:
                self.ledger.renew(entry, until)
                self.arm()
            done(busy(error))

        self.notebook.put(entry, entry.as_note(LOCKED, until, entry.token), now, renewed)

    def dead_letter(
        self,
        entry: Entry,
        reason: str | None,
        description: str | None,
        done: Settled,
        changes: bytes | None = None,
    ) -> None:
        if self.dead_letters is None:
            done(Invalid("A message among the dead letters cannot be dead-lettered again."))
            return
        now = self.clock.now()
        move(self, entry, reason, description, now, lambda error: done(busy(error)), changes)

    def _settle(
        self, entry: Entry, state: int, deliveries: int, changes: bytes | None, done: Settled
    ) -> None:
        state = DEFERRED if entry.deferred else state
        note = entry.as_note(state)
        note.deliveries = deliveries
        note.changes = entry.changes if changes is None else changes
        self.ledger.claim(entry)

        def settled(error: EngineError | None) -> None:
            if error is not None:
                self.unclaim(entry)
            else:
                entry.deliveries, entry.changes = note.deliveries, note.changes
                if state == AVAILABLE:
                    self.ledger.release(entry)
                    self.pump()
                else:
                    self.ledger.defer(entry)
                self.arm()  # Its time may have been over while it was held.
            done(busy(error))

        self.notebook.put(entry, note, self.clock.now(), settled)

    def unclaim(self, entry: Entry) -> None:
        """A settlement failed; the lock may have ended meanwhile, or not been noted for it."""
        self.ledger.unclaim(entry)
        if entry.state == LOCKED:
            self.note_soon(entry, self.clock.now())
        if self.sessions is not None and self.sessions.orphaned(entry):
            self.ledger.release(entry)
            self.pump()
        self.arm()  # Its time may have been over meanwhile.

    def lapse(self, entry: Entry) -> None:
        """A lock ended by itself."""
        if entry.deliveries >= self.terms().deliveries_max:
            self._leaving += 1
            give_up(self, entry, self.clock.now(), self._left)
        else:
            self.ledger.release(entry)

    # Moving and burying.

    def cancel(self, sequences: Sequence[int], done: Settled) -> None:
        """Takes back scheduled messages, all or none; MessageNotFound if one is not scheduled."""
        selection.cancel(self, sequences, done)

    def delete_before(
        self,
        moment: int,
        count_max: int,
        done: Callable[[int | Exception], object],
        session: str | None = None,
    ) -> None:
        """Deletes the oldest messages that came before the moment (of one session, if given), but for those
        that are locked, deferred or scheduled. `done` gets their number."""
        selection.delete_before(self, moment, count_max, done, session)

    def bury(self, entry: Entry, now: int, done: Done) -> None:
        """The message goes for good; the entry is claimed already."""
        note = entry.note

        def buried(error: EngineError | None) -> None:
            if error is None:
                self.forget(entry, note)
            else:
                self.unclaim(entry)
            done(error)

        self.engine.append([], now, buried, dead=self.graves(entry))

    def graves(self, entry: Entry) -> list[tuple[Log, int]]:
        """What the journal forgets with the message."""
        graves = [(self.log, entry.sequence)]
        if entry.note >= 0:
            graves.append((self.notes, entry.note))
        return graves

    def forget(self, entry: Entry, note: int) -> None:
        """The message is gone, and so is `note`."""
        self.ledger.forget(entry)
        if entry.note != note:
            self.notebook.bury(entry.note)  # Of a lock that was being renewed meanwhile.

    # Time.

    def arm(self) -> None:
        """Sets the timer to the next moment that changes something."""
        deadline = self.ledger.next_deadline()
        if deadline is None or self._stopped or self._leaving >= LEAVING_MAX:
            return
        deadline = max(deadline, self._not_before)
        if self._armed and self._armed <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = self.clock.call_at(deadline, self._tick)

    def _tick(self) -> None:
        now = self.clock.now()
        self._armed = 0
        self._timer = None
        for entry, expired in self.ledger.due(now):
            if entry.state == LOCKED:
                self.lapse(entry)
            elif expired and entry.sequence < self.log.durable:  # Or it is looked at again when it is.
                self._leaving += 1
                expire(self, entry, now, self._left)
            if self._leaving >= LEAVING_MAX or self.clock.now() >= now + SLICE:
                break
        self.pump()
        self.arm()

    def _left(self, error: EngineError | None) -> None:
        """What the time took away is gone, or could not go."""
        self._leaving -= 1
        if error is not None:
            self._not_before = self.clock.now() + RETRY
        if error is not None or self._leaving == LEAVING_MAX - 1:
            self.arm()

    # Looking.

    @property
    def in_use(self) -> bool:
        """Whether somebody waits for a message, or holds one or a session."""
        if self.waiting or self.ledger.numbers[LOCKED]:
            return True
        return self.sessions is not None and self.sessions.in_use

    @property
    def size_bytes(self) -> int:
        """Payload bytes of its messages; those of its sub-queues count, as they do for the quota."""
        size = self.log.bytes
        if self.dead_letters is not None:
            size += self.dead_letters.log.bytes
        if self.transfer_dead_letters is not None:
            size += self.transfer_dead_letters.log.bytes
        return size

    def peek(
        self, start: int, count_max: int, bytes_max: int = 4 << 20, session: str | None = None
    ) -> list[Delivery]:
        """Messages in any state from a sequence on (of one session, if given), but for expired ones; nothing
        changes. Raises SessionRequired for a session where there are none."""
        return selection.peek(self, start, count_max, bytes_max, session)

    def counts(self) -> Counts:
        counts = self.ledger.counts()
        if self.dead_letters is None:
            return counts
        if self.forwarder is not None:
            held = self.ledger.numbers[LOCKED]
            counts = counts._replace(active=held, transfer=counts.active - held)
        failed = self.transfer_dead_letters
        return counts._replace(
            dead_letter=self.dead_letters.log.count,
            transfer_dead_letter=0 if failed is None else failed.log.count,
            size_bytes=self.size_bytes,
        )


def _plain(text: str) -> str:
    return text.replace("-", "").lower()


def _ignore(error: EngineError | None) -> None:
    """A note that is lost costs a redelivery; the engine has told who needs to know."""
