"""The ledger of one queue or subscription: who may see which message, and who holds it.

Pure: no I/O, no clock, no chance. `now` and lock tokens are arguments; deadlines are reported, not slept on.

Rules:
1. A message nobody touched has no entry: a million waiting messages cost the ledger nothing.
2. An entry is one message's whole state, and a `Note` is that state as a record. The newest note of a
   message counts; `load` rebuilds the ledger from the live notes. Whoever calls makes notes durable.
3. A settlement first reserves the message (`claim`), and takes effect when it is durable (`forget`,
   `release`, …) or not at all (`unclaim`). Meanwhile nobody else can settle or receive it.
4. What time alone does (locks run out, schedules come due) needs no note: it follows from the last one.
5. Where the order is not simply that of the log, because messages have sessions, someone else keeps it: it
   is told of every message that came free (`on_free`) and ends the locks.

    available ── lock ──► locked ── claim ──► claimed ── forget ──► gone
        ▲  ▲                │ time, unlock        │ unclaim: back to locked
        │  └────────────────┘◄────────────────────┘
    scheduled ── time ──► available         locked ── defer ──► deferred ── claim ──► claimed
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..engine.log import Log

if TYPE_CHECKING:
    from .line import Line

AVAILABLE, LOCKED, DEFERRED, SCHEDULED, CLAIMED = range(5)
STATE_NAMES = ("Active", "Locked", "Deferred", "Scheduled", "Locked")
SWEPT_PER_TIMER = 8
"""Old timers looked at for each new one: a sweep of millions is never done in one go."""
TIMERS_PER_TURN = 500
"""Timers looked at in one go, so that a million at one moment do not stop the house."""
STRETCH = 512
"""Sequences that are passed at once if none of them is available, so that a million scheduled messages are
no long walk."""


class Note(msgspec.Struct, array_like=True, gc=False):
    """One message's state as a record of the notes log (MessagePack array, format version 1: append
    fields with defaults to extend it). Moments in ms; 0 means none."""

    sequence: int
    state: int = AVAILABLE
    deliveries: int = 0
    until: int = 0
    """End of the lock, or the moment a scheduled message appears."""
    token: bytes = b""
    """The lock token, 16 bytes."""
    expires: int = 0
    """End of the message's time to live."""
    deferred: bool = False
    """Locked by its sequence: when the lock ends it is deferred again."""
    changes: bytes = b""
    """What receivers changed of its properties; opaque here."""


encode_note = msgspec.msgpack.Encoder().encode
decode_note = msgspec.msgpack.Decoder(Note).decode


class Entry:
    """The state of a message that is not simply waiting. `note` is the sequence of its newest note."""

    __slots__ = (
        "before",
        "changes",
        "deferred",
        "deliveries",
        "expires",
        "line",
        "note",
        "sequence",
        "state",
        "timed",
        "token",
        "until",
    )

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.state = AVAILABLE
        self.before = AVAILABLE
        self.deliveries = 0
        self.deferred = False
        """Locked by its sequence: when the lock ends it is deferred again."""
        self.until = 0
        self.token = b""
        self.expires = 0
        self.timed = False
        """A timer for the end of its time to live is set."""
        self.changes = b""
        self.line: Line | None = None
        """Its session, where messages have one."""
        self.note = -1

    @property
    def is_deferred(self) -> bool:
        """Delivered only to who asks for its sequence, also while somebody holds it."""
        return self.deferred or DEFERRED in (self.state, self.before if self.state == CLAIMED else AVAILABLE)

    def as_note(self, state: int, until: int = 0, token: bytes = b"") -> Note:
        """What a note says when the message has become this."""
        return Note(
            self.sequence, state, self.deliveries, until, token, self.expires, self.deferred, self.changes
        )

    def record(self) -> bytes:
        return encode_note(self.as_note(self.state, self.until, self.token))


class Counts(NamedTuple):
    """How many messages are in which state."""

    active: int = 0
    dead_letter: int = 0
    scheduled: int = 0
    locked: int = 0
    deferred: int = 0
    transfer: int = 0
    transfer_dead_letter: int = 0
    size_bytes: int = 0


class Ledger:
    """State of delivery over `log`. Sequences are the log's."""

    __slots__ = (
        "_barred",
        "_head",
        "_log",
        "_old_timers",
        "_returned",
        "_timers",
        "by_token",
        "entries",
        "numbers",
        "on_free",
    )

    def __init__(self, log: Log) -> None:
        self._log = log
        self.entries: dict[int, Entry] = {}
        self.by_token: dict[bytes, Entry] = {}
        self.numbers = [0] * 5
        """Entries per state."""
        self._head = 0
        """Below it, only what is in `_returned` may be available."""
        self._barred: dict[int, int] = {}
        """How many of each stretch ahead are not available, or dead."""
        self._returned: list[int] = []
        self._timers: list[tuple[int, int]] = []
        """(moment, sequence) of everything that time will change; stale ones are skipped."""
        self._old_timers: list[tuple[int, int]] = []
        """Those that are being swept: a heap still, because they go from its end."""
        self.on_free: Callable[[Entry], object] | None = None
        """Told of each message that nobody holds any more: available, deferred, or forgotten."""

    # Building.

    def load(self, notes: Iterable[tuple[int, Note]]) -> list[int]:
        """Applies the notes of a restart, oldest first, as (note's sequence, note).

        Returns the sequences of notes that no longer count: superseded, or of messages that are gone.
        """
        stale = []
        for at, note in notes:
            old = self.entries.get(note.sequence)
            if old is not None and old.note >= 0:
                stale.append(old.note)
            self.note(note, at)
        for entry in [e for e in self.entries.values() if not self._log.alive(e.sequence)]:
            stale.append(entry.note)
            self.forget(entry)
        return stale

    def note(self, note: Note, at: int = -1) -> Entry:
        """The message `note.sequence` is now in the state the note tells."""
        entry = self.entries.get(note.sequence)
        if entry is None:
            entry = self.entries[note.sequence] = Entry(note.sequence)
            self.numbers[AVAILABLE] += 1
        entry.deliveries, entry.expires, entry.note = note.deliveries, note.expires, at
        entry.until = note.until
        entry.deferred, entry.changes = note.deferred, note.changes
        self._become(entry, note.state, note.token)
        if note.state != DEFERRED:
            self.time(entry)
        return entry

    # Receiving.

    def next_available(self, now: int) -> int | None:
        """The lowest sequence that may be delivered now."""
        while self._returned:
            sequence = self._returned[0]
            if self.deliverable(sequence, now):
                return sequence
            heapq.heappop(self._returned)
        log = self._log
        sequence = log.next_alive(self._head)  # type: ignore[assignment]
        while sequence is not None:
            if sequence not in self.entries or self.deliverable(sequence, now):
                self._head = sequence
                return sequence
            self._head = self._after(sequence)
            sequence = log.next_alive(self._head)  # type: ignore[assignment]
        return None

    def _after(self, sequence: int) -> int:
        """Where to look next: behind the whole stretches in which nothing is available."""
        following = sequence + 1
        while following % STRETCH == 0:
            self._barred.pop(following // STRETCH - 1, None)
            # What is not durable yet may fail, and give its sequences to others.
            if self._barred.get(following // STRETCH) != STRETCH or following + STRETCH > self._log.durable:
                break
            following += STRETCH
        return following

    def deliverable(self, sequence: int, now: int) -> bool:
        """Whether the message is there, held by nobody, and not expired."""
        entry = self.entries.get(sequence)
        if entry is not None and (entry.state != AVAILABLE or 0 < entry.expires <= now):
            return False
        return self._log.alive(sequence)

    def lock(self, sequence: int, token: bytes, until: int) -> Entry:
        """One more delivery of an available message, held by `token` until the moment."""
        entry = self._entry(sequence)
        self._leave(sequence)
        entry.deliveries += 1
        entry.until = until
        self._become(entry, LOCKED, token)
        return entry

    def lock_deferred(self, entry: Entry, token: bytes, until: int) -> None:
        """One more delivery of a deferred message."""
        entry.deliveries += 1
        entry.until = until
        entry.deferred = True
        self._become(entry, LOCKED, token)

    def take(self, sequence: int) -> Entry:
        """Reserves an available message that is to be deleted."""
        entry = self._entry(sequence)
        self._leave(sequence)
        self.claim(entry)
        return entry

    # Settling.

    def held(self, token: bytes, now: int) -> Entry | None:
        """The message this lock holds; None if the lock is lost or being settled."""
        entry = self.by_token.get(token)
        return entry if entry is not None and entry.state == LOCKED and now < entry.until else None

    def claim(self, entry: Entry) -> None:
        """Reserves a message for a settlement that is on its way to the disk."""
        entry.before = entry.state
        self._become(entry, CLAIMED, entry.token)

    def unclaim(self, entry: Entry) -> None:
        """The settlement failed: the message is again what it was."""
        self._become(entry, entry.before, entry.token if entry.before == LOCKED else b"")

    def renew(self, entry: Entry, until: int) -> None:
        entry.until = until
        self._become(entry, LOCKED, entry.token)

    def release(self, entry: Entry) -> None:
        """The message may be delivered again."""
        entry.until = 0
        self._become(entry, DEFERRED if entry.deferred else AVAILABLE)

    def defer(self, entry: Entry) -> None:
        """The message is delivered only to who asks for its sequence."""
        entry.until = 0
        self._become(entry, DEFERRED)

    def forget(self, entry: Entry) -> None:
        """The message is gone; it may be for the second time."""
        if self.entries.get(entry.sequence) is not entry:
            return
        del self.entries[entry.sequence]
        self.by_token.pop(entry.token, None)
        self.numbers[entry.state] -= 1
        if self.on_free is not None:
            self.on_free(entry)

    def undo(self, entry: Entry) -> None:
        """The message never came to be; its sequence will be another's."""
        if entry.state != AVAILABLE:
            self._bar(entry.sequence, -1)
        self.forget(entry)

    # Time.

    def next_deadline(self) -> int | None:
        """When time will next change something (it may turn out to be nothing)."""
        timers = self._next_timers()
        return timers[0][0] if timers else None

    def due(self, now: int) -> Iterator[tuple[Entry, bool]]:
        """Entries whose moment has come, as (entry, expired). `expired`: its time to live is over, and
        nobody holds it; deferred messages wait for who asks for them. Otherwise a lock ran out (state still
        LOCKED) or a scheduled message is now available. Reserved messages are left alone. Looks at
        TIMERS_PER_TURN timers at most, since those that mean nothing any more may be many: `next_deadline`
        tells whether there are others."""
        for _ in range(TIMERS_PER_TURN):
            timers = self._next_timers()
            if not timers or timers[0][0] > now:
                return
            moment, sequence = heapq.heappop(timers)
            entry = self.entries.get(sequence)
            if entry is None:
                continue
            if moment == entry.expires:
                entry.timed = False
            if entry.state == CLAIMED:
                continue
            if entry.state == LOCKED:
                if entry.until <= now:
                    yield entry, False
            elif 0 < entry.expires <= now and entry.state != DEFERRED:
                yield entry, True
            elif entry.state == SCHEDULED and entry.until <= now:
                self.release(entry)
                yield entry, False

    # Looking.

    def counts(self) -> Counts:
        numbers = self.numbers
        held = numbers[LOCKED] + numbers[CLAIMED]
        log = self._log
        return Counts(
            active=log.count - numbers[DEFERRED] - numbers[SCHEDULED],
            scheduled=numbers[SCHEDULED],
            locked=held,
            deferred=numbers[DEFERRED],
            size_bytes=log.bytes,
        )

    # The machinery.

    def _entry(self, sequence: int) -> Entry:
        entry = self.entries.get(sequence)
        if entry is None:
            entry = self.entries[sequence] = Entry(sequence)
            self.numbers[AVAILABLE] += 1
        return entry

    def _leave(self, sequence: int) -> None:
        if self.on_free is not None:
            return
        if sequence >= self._head:
            self._head = sequence + 1
            if self._barred and self._head % STRETCH == 0:
                self._barred.pop(sequence // STRETCH, None)
        elif self._returned and self._returned[0] == sequence:
            heapq.heappop(self._returned)

    def _become(self, entry: Entry, state: int, token: bytes = b"") -> None:
        if self.entries.get(entry.sequence) is not entry:
            return  # Purged while something else was on its way to the disk.
        numbers = self.numbers
        numbers[entry.state] -= 1
        numbers[state] += 1
        if entry.sequence >= self._head and (entry.state == AVAILABLE) != (state == AVAILABLE):
            self._bar(entry.sequence, 1 if entry.state == AVAILABLE else -1)
        if entry.token and entry.token != token:
            self.by_token.pop(entry.token, None)
        entry.token = token
        entry.state = state
        if token:
            self.by_token[token] = entry
        if state == SCHEDULED or (state == LOCKED and self.on_free is None):
            self._remind(entry.until, entry.sequence)
        elif state in (AVAILABLE, DEFERRED):
            self._free(entry)

    def _bar(self, sequence: int, by: int) -> None:
        if self.on_free is None and sequence >= self._head:
            stretch = sequence // STRETCH
            self._barred[stretch] = self._barred.get(stretch, 0) + by

    def _free(self, entry: Entry) -> None:
        if self.on_free is not None:
            self.on_free(entry)
        elif entry.state == AVAILABLE and entry.sequence < self._head:
            heapq.heappush(self._returned, entry.sequence)
        if entry.state == AVAILABLE:
            self.time(entry)

    # Timers. At most one for the end of each message's time to live, and one for each lock.

    def time(self, entry: Entry) -> None:
        """Waits for the end of its time to live, if it does not yet."""
        if entry.expires and not entry.timed:
            entry.timed = True
            self._remind(entry.expires, entry.sequence)

    def _next_timers(self) -> list[tuple[int, int]]:
        """The heap that holds the next timer; empty only if there is none."""
        old, timers = self._old_timers, self._timers
        return old if old and (not timers or old[0] < timers[0]) else timers

    def _remind(self, moment: int, sequence: int) -> None:
        timers, old = self._timers, self._old_timers
        heapq.heappush(timers, (moment, sequence))
        if old:
            for _ in range(min(SWEPT_PER_TIMER, len(old))):
                timer = old.pop()
                if self._means(timer):
                    heapq.heappush(timers, timer)
        elif len(timers) > 64 and len(timers) > 4 * len(self.entries):
            # Most timers are stale once their messages are settled.
            self._old_timers, self._timers = timers, []

    def _means(self, timer: tuple[int, int]) -> bool:
        """Whether time still changes something then."""
        entry = self.entries.get(timer[1])
        return entry is not None and timer[0] in (entry.until, entry.expires)
