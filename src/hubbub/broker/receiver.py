"""What is in one queue, subscription or dead-letter queue: its log, its ledger, and who waits for it.

The order rule of the house lives here: a message is durable before it is visible; a settlement is
acknowledged when it is durable; locks are taken at once and those that last are noted a moment later, since
a lock that is lost in a crash costs a redelivery and no more.

Callbacks, not coroutines: this is the hot path of every receive.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..clock import Clock, Timer
from ..engine.log import Done, Engine, EngineError, Log, Put, Record
from .entity import FOREVER
from .errors import Busy, LockLost
from .ledger import (
    AVAILABLE,
    DEFERRED,
    LOCKED,
    SCHEDULED,
    STATE_NAMES,
    Counts,
    Entry,
    Ledger,
    Note,
    decode_note,
    encode_note,
)
from .message import Message, decode_message, encode_message

DUE_PER_TICK = 500
"""So that a million messages expiring at once do not stop the house."""
NOTES_DELAY = 50
"""Milliseconds a lock lives in memory only: a message settled sooner costs no note."""
RETRY = 1000
"""Milliseconds until what a full disk prevented is tried again."""


class Delivery(NamedTuple):
    """A message as a receiver sees it. Moments in ms."""

    sequence: int
    enqueued: int
    deliveries: int
    state: str
    locked_until: int
    token: bytes
    message: Message


Outcome = Delivery | Exception | None
Tokens = Callable[[], bytes]


class Terms(NamedTuple):
    """What the entity says about delivery; read anew at each use, because entities change."""

    lock_duration: int
    deliveries_max: int
    default_ttl: int
    dead_letter_on_expiration: bool
    source: str
    """The entity's path, as it stands in dead-lettered messages."""
    dead_letter_on_filter_error: bool = False


class Waiter:
    """One receive that waits. `cancel` when the client has gone: it will then get and lock nothing.

    `left` is asked before it gets anything: a client may be gone a moment before one hears of it.
    """

    __slots__ = ("_receiver", "done", "left", "lock", "timer")

    def __init__(self, receiver: Receiver, lock: bool, done: Callable[[Outcome], object]) -> None:
        self._receiver = receiver
        self.lock = lock
        self.done = done
        self.left: Callable[[], bool] | None = None
        self.timer: Timer | None = None

    def cancel(self) -> None:
        self._receiver.waiting.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()

    def expire(self) -> None:
        self.cancel()
        self.done(None)


class History:
    """Message ids seen within the duplicate-detection window; a log keeps them over restarts."""

    __slots__ = ("_order", "_seen", "log")

    def __init__(self, log: Log) -> None:
        self.log = log
        self._seen: dict[str, int] = {}
        self._order: deque[tuple[int, str]] = deque()

    def load(self, since: int) -> None:
        sequence: int | None = self.log.find(since)
        while sequence is not None:
            records = self.log.read(sequence, 1000, 1 << 20)
            for record in records:
                self.add(record.payload.decode(), record.time)
            sequence = records[-1].sequence + 1 if records else None

    def seen(self, message_id: str, since: int) -> bool:
        order = self._order
        while order and order[0][0] < since:
            moment, old = order.popleft()
            if self._seen.get(old) == moment:
                del self._seen[old]
        return message_id in self._seen

    def add(self, message_id: str, now: int) -> None:
        self._seen[message_id] = now
        self._order.append((now, message_id))

    def remove(self, message_id: str) -> None:
        self._seen.pop(message_id, None)


def remember(history: History | None, messages: Sequence[Message], now: int, puts: list[Put]) -> None:
    """The ids of messages on their way to the disk count at once, or two in one flush would both pass."""
    if history is not None:
        for message in messages:
            history.add(message.message_id or "", now)
            puts.append(Put(history.log, (message.message_id or "").encode()))


def forget(history: History | None, messages: Sequence[Message]) -> None:
    """They did not get there."""
    if history is not None:
        for message in messages:
            history.remove(message.message_id or "")


class Receiver:
    """One queue-like thing. `terms()` gives what its entity says; `tokens()` a fresh lock token."""

    __slots__ = (
        "_armed",
        "_not_before",
        "_noting",
        "_timer",
        "_unnoted",
        "clock",
        "dead_letters",
        "engine",
        "ledger",
        "log",
        "notes",
        "path",
        "terms",
        "tokens",
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
        self.ledger = Ledger(self.log)
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.clock = clock
        self.tokens = tokens
        self._timer: Timer | None = None
        self._armed = 0
        self._not_before = 0
        self._unnoted: dict[int, Entry] = {}
        """Locked messages whose notes are not written yet."""
        self._noting: Timer | None = None

    def load(self) -> None:
        """Rebuilds the ledger after a restart."""
        notes: list[tuple[int, Note]] = []
        sequence = self.notes.next_alive(self.notes.first)
        while sequence is not None:
            records = self.notes.read(sequence, 1000, 1 << 20)
            notes += [(record.sequence, decode_note(record.payload)) for record in records]
            sequence = self.notes.next_alive(records[-1].sequence + 1)
        stale = self.ledger.load(notes)
        if stale:
            self.engine.append([], 0, _ignore, dead=[(self.notes, at) for at in stale])
        self.arm()

    def stop(self) -> None:
        """The entity is going: nobody may wait for it any more."""
        if self._timer is not None:
            self._timer.cancel()
        for waiter in list(self.waiting):
            waiter.expire()
        self._unnoted = {}

    def close(self) -> None:
        """The house is going: what is locked must be known as locked when it comes back."""
        self._write_notes()
        self.stop()

    # Sending.

    def enclose(self, message: Message, nth: int, now: int, puts: list[Put], notes: list[int]) -> None:
        """Adds what it takes to append the message as the `nth` (from 0) of one append here.

        `notes` gets the sequences that got an entry.
        """
        terms = self.terms()
        sequence = self.log.next + nth
        puts.append(Put(self.log, encode_message(message)))
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
                self.ledger.forget(self.ledger.entries[sequence])
            return
        if notes:
            self.arm()
        self.pump()

    # Receiving.

    def receive(self, lock: bool, until: int, done: Callable[[Outcome], object]) -> Waiter | None:
        """Calls `done` with the next message, now or once there is one; with None at the moment `until`
        (FOREVER: never).

        `lock`: peek-lock; otherwise the message is deleted first. Returns the waiter if it has to wait.
        """
        now = self.clock.now()
        if not self.waiting and self._deliver(lock, now, done):
            return None
        if until <= now:
            done(None)
            return None
        waiter = Waiter(self, lock, done)
        if until < FOREVER:
            waiter.timer = self.clock.call_at(until, waiter.expire)
        self.waiting[waiter] = None
        return waiter

    def pump(self) -> None:
        """Something may have become available: serve who waits."""
        waiting = self.waiting
        while waiting:
            waiter = next(iter(waiting))
            if waiter.left is not None and waiter.left():
                waiter.cancel()
                continue
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
        try:
            record = self.log.get(sequence)
        except EngineError as error:
            done(error)
            return True
        assert record is not None
        if lock:
            done(self._lock(record, now))
        else:
            self._take(record, now, done)
        return True

    def _lock(self, record: Record, now: int) -> Delivery:
        entry = self.ledger.lock(record.sequence, self.tokens(), now + self.terms().lock_duration)
        self._unnoted[entry.sequence] = entry
        if self._noting is None:
            self._noting = self.clock.call_at(now + NOTES_DELAY, self._write_notes)
        if self._armed == 0 or entry.until < self._armed:
            self.arm()
        return delivery_of(record, entry)

    def _take(self, record: Record, now: int, done: Callable[[Outcome], object]) -> None:
        entry = self.ledger.take(record.sequence)
        delivery = delivery_of(record, entry)

        def taken(error: EngineError | None) -> None:
            done(busy(error) if error is not None else delivery)

        self._bury(entry, now, taken)

    # Settling. Each calls `done` with None when durable, or with the reason.

    def find(self, name: str, token: bytes) -> Entry:
        """The locked message of this token, if `name` is its sequence number or message id.

        Raises LockLost. Ids that look like GUIDs are compared without dashes and case (REST 3.10).
        """
        entry = self.holder(token)
        if name != str(entry.sequence):
            record = self.log.get(entry.sequence)
            own = None if record is None else decode_message(record.payload).message_id
            if own is None or _plain(own) != _plain(name):
                raise LockLost
        return entry

    def holder(self, token: bytes) -> Entry:
        """The message this lock holds. Raises LockLost."""
        entry = self.ledger.held(token, self.clock.now())
        if entry is None:
            raise LockLost
        return entry

    def complete(self, entry: Entry, done: Callable[[Exception | None], object]) -> None:
        self.ledger.claim(entry)
        self._bury(entry, self.clock.now(), lambda error: done(busy(error)))

    def unlock(self, entry: Entry, done: Callable[[Exception | None], object]) -> None:
        now = self.clock.now()
        if entry.deliveries >= self.terms().deliveries_max:
            self._dead_letter_for_deliveries(entry, now, lambda error: done(busy(error)))
            return
        self._settle(entry, AVAILABLE, now, done)

    def give_back(self, entry: Entry, done: Callable[[Exception | None], object]) -> None:
        """Unlocks as if it had not been delivered."""
        entry.deliveries -= 1
        self._settle(entry, AVAILABLE, self.clock.now(), done)

    def defer(self, entry: Entry, done: Callable[[Exception | None], object]) -> None:
        self._settle(entry, DEFERRED, self.clock.now(), done)

    def renew(self, entry: Entry, done: Callable[[Exception | None], object]) -> None:
        now = self.clock.now()
        until = now + self.terms().lock_duration
        state = DEFERRED if entry.deferred else LOCKED
        note = Note(entry.sequence, state, entry.deliveries, until, entry.token, entry.expires)

        def renewed(error: EngineError | None) -> None:
            if error is None and entry.state == LOCKED:
                self.ledger.renew(entry, until)
                self.arm()
            done(busy(error))

        self._put_note(entry, note, now, renewed)

    def dead_letter(
        self, entry: Entry, reason: str, description: str, done: Callable[[Exception | None], object]
    ) -> None:
        self._move(entry, reason, description, self.clock.now(), lambda error: done(busy(error)))

    def _settle(self, entry: Entry, state: int, now: int, done: Callable[[Exception | None], object]) -> None:
        state = DEFERRED if entry.deferred else state
        note = Note(entry.sequence, state, entry.deliveries, 0, b"", entry.expires)
        self.ledger.claim(entry)

        def settled(error: EngineError | None) -> None:
            if error is not None:
                self.ledger.unclaim(entry)
            elif state == AVAILABLE:
                self.ledger.release(entry)
                self.pump()
            else:
                self.ledger.defer(entry)
            done(busy(error))

        self._put_note(entry, note, now, settled)

    # Moving and burying.

    def _bury(self, entry: Entry, now: int, done: Done) -> None:
        """The message goes for good; the entry is claimed already."""

        def buried(error: EngineError | None) -> None:
            if error is None:
                self.ledger.forget(entry)
            else:
                self.ledger.unclaim(entry)
            done(error)

        self.engine.append([], now, buried, dead=self.graves(entry))

    def graves(self, entry: Entry) -> list[tuple[Log, int]]:
        """What the journal forgets with the message."""
        graves = [(self.log, entry.sequence)]
        if entry.note >= 0:
            graves.append((self.notes, entry.note))
        return graves

    def _dead_letter_for_deliveries(self, entry: Entry, now: int, done: Done) -> None:
        most = self.terms().deliveries_max
        text = f"Message could not be consumed after {most} delivery attempts."
        self._move(entry, "MaxDeliveryCountExceeded", text, now, done)

    def _move(self, entry: Entry, reason: str, description: str, now: int, done: Done) -> None:
        """To the dead-letter queue, in one append with its end here."""
        target = self.dead_letters
        record = self.log.get(entry.sequence)
        assert target is not None
        assert record is not None
        message = decode_message(record.payload)
        message.enqueued_sequence = message.enqueued_sequence or entry.sequence
        message.enqueued = message.enqueued or record.time
        message.deliveries = entry.deliveries
        message.scheduled = message.ttl = None
        message.dead_letter_source = self.terms().source
        message.dead_letter_reason, message.dead_letter_description = reason, description
        puts: list[Put] = []
        target.enclose(message, 0, now, puts, [])
        self.ledger.claim(entry)

        def moved(error: EngineError | None) -> None:
            if error is None:
                self.ledger.forget(entry)
                target.pump()
            else:
                self._not_before = now + RETRY
                self.ledger.unclaim(entry)
            done(error)

        self.engine.append(puts, now, moved, dead=self.graves(entry))

    def _write_notes(self) -> None:
        """The locks that still hold. Most messages are settled before anything needs to be written."""
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None
        held = [entry for entry in self._unnoted.values() if entry.state == LOCKED]
        self._unnoted = {}
        if not held:
            return
        puts, dead, old = [], [], []
        for n, entry in enumerate(held):
            puts.append(Put(self.notes, entry.record()))
            old.append(entry.note)
            if entry.note >= 0:
                dead.append((self.notes, entry.note))
            entry.note = self.notes.next + n
        first = self.notes.next

        def noted(error: EngineError | None) -> None:
            # A failed append gives its sequences to others.
            for n, entry in enumerate(held if error is not None else ()):
                if entry.note == first + n:
                    entry.note = old[n]

        self.engine.append(puts, self.clock.now(), noted, dead=dead)

    def _put_note(self, entry: Entry, note: Note, now: int, done: Done) -> None:
        """Writes the state that will be; the entry points to it only when it is durable."""
        at, old = self.notes.next, entry.note
        self._unnoted.pop(entry.sequence, None)

        def noted(error: EngineError | None) -> None:
            if error is None and entry.note == old:
                entry.note = at
            done(error)

        dead = ((self.notes, old),) if old >= 0 else ()
        self.engine.append((Put(self.notes, encode_note(note)),), now, noted, dead=dead)

    # Time.

    def arm(self) -> None:
        """Sets the timer to the next moment that changes something."""
        deadline = self.ledger.next_deadline()
        if deadline is None:
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
        for n, (entry, expired) in enumerate(self.ledger.due(now)):
            if expired:
                self._expire(entry, now)
            elif entry.state == LOCKED and entry.deliveries >= self.terms().deliveries_max:
                self._dead_letter_for_deliveries(entry, now, _ignore)
            elif entry.state == LOCKED:
                self.ledger.release(entry)
            if n >= DUE_PER_TICK:
                break
        self.pump()
        self.arm()

    def _expire(self, entry: Entry, now: int) -> None:
        if self.terms().dead_letter_on_expiration and self.dead_letters is not None:
            text = "The message expired and was dead lettered."
            self._move(entry, "TTLExpiredException", text, now, _ignore)
        else:
            self.ledger.claim(entry)
            self._bury(entry, now, self._retry_later)

    def _retry_later(self, error: EngineError | None) -> None:
        if error is not None:
            self._not_before = self.clock.now() + RETRY

    # Looking.

    @property
    def size_bytes(self) -> int:
        """Payload bytes of its messages; those among the dead letters count, as they do for the quota."""
        dead = self.dead_letters
        return self.log.bytes if dead is None else self.log.bytes + dead.log.bytes

    def peek(self, start: int, count_max: int, bytes_max: int = 4 << 20) -> list[Delivery]:
        """Messages in any state from a sequence on; nothing changes."""
        found = []
        now = self.clock.now()
        for record in self.log.read(start, count_max, bytes_max):
            entry = self.ledger.entries.get(record.sequence) or Entry(record.sequence)
            if not 0 < entry.expires <= now:
                found.append(delivery_of(record, entry))
        return found

    def counts(self) -> Counts:
        counts = self.ledger.counts()
        if self.dead_letters is None:
            return counts
        dead = self.dead_letters.log
        return counts._replace(dead_letter=dead.count, size_bytes=counts.size_bytes + dead.bytes)


def delivery_of(record: Record, entry: Entry) -> Delivery:
    """The message as it stands."""
    message = decode_message(record.payload)
    return Delivery(
        record.sequence,
        message.enqueued or record.time,
        entry.deliveries + message.deliveries,
        "Deferred" if entry.is_deferred else STATE_NAMES[entry.state],
        entry.until if entry.state == LOCKED else 0,
        entry.token,
        message,
    )


def _plain(text: str) -> str:
    return text.replace("-", "").lower()


def _ignore(error: EngineError | None) -> None:
    """A note that is lost costs a redelivery; the engine has told who needs to know."""


def busy(error: EngineError | None) -> Busy | None:
    """An engine's failure in the words of the broker."""
    return None if error is None else Busy(f"{error}. Nothing has been changed; try again later")
