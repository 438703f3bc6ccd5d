"""The ledger of one queue or subscription: who may see which message, and who holds it.

Pure: no I/O, no clock, no chance. `now` and lock tokens are arguments; deadlines are reported, not slept on.

Rules:
1. A message nobody touched has no entry: a million waiting messages cost the ledger nothing.
2. An entry is one message's whole state, and a `Note` is that state as a record. The newest note of a
   message counts; `load` rebuilds the ledger from the live notes. Whoever calls makes notes durable.
3. A settlement first reserves the message (`claim`), and takes effect when it is durable (`forget`,
   `release`, …) or not at all (`unclaim`). Meanwhile nobody else can settle or receive it.
4. What time alone does (locks run out, schedules come due) needs no note: it follows from the last one.

    available ── lock ──► locked ── claim ──► claimed ── forget ──► gone
        ▲  ▲                │ time, unlock        │ unclaim: back to locked
        │  └────────────────┘◄────────────────────┘
    scheduled ── time ──► available         locked ── defer ──► deferred ── claim ──► claimed
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from ..engine.log import Log

AVAILABLE, LOCKED, DEFERRED, SCHEDULED, CLAIMED = range(5)
STATE_NAMES = ("Active", "Locked", "Deferred", "Scheduled", "Locked")


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


encode_note = msgspec.msgpack.Encoder().encode
decode_note = msgspec.msgpack.Decoder(Note).decode


class Entry:
    """The state of a message that is not simply waiting. `note` is the sequence of its newest note."""

    __slots__ = ("before", "deferred", "deliveries", "expires", "note", "sequence", "state", "token", "until")

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
        self.note = -1

    @property
    def is_deferred(self) -> bool:
        """Delivered only to who asks for its sequence, also while somebody holds it."""
        return self.deferred or DEFERRED in (self.state, self.before if self.state == CLAIMED else AVAILABLE)

    def record(self) -> bytes:
        return encode_note(
            Note(self.sequence, self.state, self.deliveries, self.until, self.token, self.expires)
        )


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

    __slots__ = ("_head", "_log", "_returned", "_timers", "by_token", "entries", "numbers")

    def __init__(self, log: Log) -> None:
        self._log = log
        self.entries: dict[int, Entry] = {}
        self.by_token: dict[bytes, Entry] = {}
        self.numbers = [0] * 5
        """Entries per state."""
        self._head = 0
        """Below it, only what is in `_returned` may be available."""
        self._returned: list[int] = []
        self._timers: list[tuple[int, int]] = []
        """(moment, sequence) of everything that time will change; stale ones are skipped."""

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
        self._become(entry, note.state, note.token)
        if note.expires and note.state != AVAILABLE:
            self._remind(note.expires, note.sequence)
        return entry

    # Receiving.

    def next_available(self, now: int) -> int | None:
        """The lowest sequence that may be delivered now."""
        while self._returned:
            sequence = self._returned[0]
            if self._deliverable(sequence, now):
                return sequence
            heapq.heappop(self._returned)
        log = self._log
        sequence = log.next_alive(self._head)  # type: ignore[assignment]
        while sequence is not None:
            if sequence not in self.entries or self._deliverable(sequence, now):
                self._head = sequence
                return sequence
            self._head = sequence + 1
            sequence = log.next_alive(sequence + 1)  # type: ignore[assignment]
        return None

    def _deliverable(self, sequence: int, now: int) -> bool:
        entry = self.entries.get(sequence)
        if entry is None:
            return self._log.alive(sequence)
        return entry.state == AVAILABLE and not 0 < entry.expires <= now

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
        """Reserves an available message that will be deleted as it is delivered."""
        entry = self._entry(sequence)
        self._leave(sequence)
        entry.deliveries += 1
        entry.before = AVAILABLE
        self._become(entry, CLAIMED)
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
        if entry.before == AVAILABLE:
            entry.deliveries = max(0, entry.deliveries - 1)
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
        """The message is gone."""
        self.by_token.pop(entry.token, None)
        self.numbers[entry.state] -= 1
        self.entries.pop(entry.sequence, None)

    # Time.

    def next_deadline(self) -> int | None:
        """When time will next change something (it may turn out to be nothing)."""
        return self._timers[0][0] if self._timers else None

    def due(self, now: int) -> Iterator[tuple[Entry, bool]]:
        """Entries whose moment has come, as (entry, expired). `expired`: its time to live is over, and
        nobody holds it. Otherwise a lock ran out (state still LOCKED) or a scheduled message is now
        available. Reserved messages are left alone."""
        while self._timers and self._timers[0][0] <= now:
            _, sequence = heapq.heappop(self._timers)
            entry = self.entries.get(sequence)
            if entry is None or entry.state == CLAIMED:
                continue
            if entry.state == LOCKED:
                if entry.until <= now:
                    yield entry, False
            elif 0 < entry.expires <= now:
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
        if sequence >= self._head:
            self._head = sequence + 1
        elif self._returned and self._returned[0] == sequence:
            heapq.heappop(self._returned)

    def _become(self, entry: Entry, state: int, token: bytes = b"") -> None:
        numbers = self.numbers
        numbers[entry.state] -= 1
        numbers[state] += 1
        if entry.token and entry.token != token:
            self.by_token.pop(entry.token, None)
        entry.token = token
        entry.state = state
        if token:
            self.by_token[token] = entry
        if state in (LOCKED, SCHEDULED):
            self._remind(entry.until, entry.sequence)
        elif state == AVAILABLE:
            if entry.sequence < self._head:
                heapq.heappush(self._returned, entry.sequence)
            if entry.expires:
                self._remind(entry.expires, entry.sequence)

    def _remind(self, moment: int, sequence: int) -> None:
        timers = self._timers
        heapq.heappush(timers, (moment, sequence))
        if len(timers) > 64 and len(timers) > 4 * len(self.entries):
            self._sweep_timers()

    def _sweep_timers(self) -> None:
        """Most timers are stale once their messages are settled: keep those that still mean something."""
        entries = self.entries
        self._timers = [
            timer
            for timer in set(self._timers)
            if timer[1] in entries and timer[0] in (entries[timer[1]].until, entries[timer[1]].expires)
        ]
        heapq.heapify(self._timers)
