"""Messages that are not simply next: those asked for by sequence number, the oldest, or all.

Functions over a `Receiver`. Each is durable, all or nothing, before it calls `done`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..engine.log import Done, EngineError, Log, Record
from .errors import MessageNotFound
from .ledger import AVAILABLE, DEFERRED, SCHEDULED, Entry
from .receiver import Delivery, Receiver, busy, delivery_of

Found = Callable[[list[Delivery] | Exception], object]


def receive_deferred(receiver: Receiver, sequences: Sequence[int], lock: bool, done: Found) -> None:
    """Delivers deferred messages, locked, or deleted first. Raises MessageNotFound for any that is not."""
    now = receiver.clock.now()
    found = [(entry, _record(receiver, entry)) for entry in _entries(receiver, sequences, DEFERRED, now)]
    if lock:
        until = now + receiver.terms().lock_duration
        for entry, _ in found:
            receiver.ledger.lock_deferred(entry, receiver.tokens(), until)
        receiver.arm()
        done([delivery_of(record, entry) for entry, record in found])
        return
    for entry, _ in found:
        entry.deliveries += 1

    def taken(error: EngineError | None) -> None:
        if error is not None:
            for entry, _ in found:
                entry.deliveries -= 1
        done(busy(error) or [delivery_of(record, entry) for entry, record in found])

    _bury(receiver, [entry for entry, _ in found], [], now, taken)


def cancel(receiver: Receiver, sequences: Sequence[int], done: Callable[[Exception | None], object]) -> None:
    """Takes back scheduled messages. Raises MessageNotFound for any that is not scheduled."""
    now = receiver.clock.now()
    entries = _entries(receiver, sequences, SCHEDULED, now)
    _bury(receiver, entries, [], now, lambda error: done(busy(error)))


def delete_before(
    receiver: Receiver, moment: int, count_max: int, done: Callable[[int | Exception], object]
) -> None:
    """Deletes the oldest messages that were enqueued before the moment and that nobody holds."""
    ledger, log = receiver.ledger, receiver.log
    entries: list[Entry] = []
    sequence = log.next_alive(log.first)
    while sequence is not None and len(entries) < count_max:
        records = log.read(sequence, 1000, 1 << 20)
        for record in records:
            if record.time >= moment or len(entries) == count_max:
                sequence = None
                break
            entry = ledger.entries.get(record.sequence)
            if entry is None or entry.state == AVAILABLE:
                entries.append(ledger.take(record.sequence))
        else:
            sequence = log.next_alive(records[-1].sequence + 1) if records else None

    def deleted(error: EngineError | None) -> None:
        for entry in entries:
            (ledger.forget if error is None else ledger.unclaim)(entry)
        done(busy(error) or len(entries))

    graves = [grave for entry in entries for grave in receiver.graves(entry)]
    receiver.engine.append([], receiver.clock.now(), deleted, dead=graves)


def purge(receiver: Receiver, done: Done) -> int:
    """Everything that is not locked or being settled goes. Returns how many messages that is."""
    entries: list[Entry] = []
    untouched: list[tuple[Log, int]] = []
    log = receiver.log
    sequence = log.next_alive(log.first)
    while sequence is not None:
        entry = receiver.ledger.entries.get(sequence)
        if entry is None:
            untouched.append((log, sequence))
        elif entry.state in (AVAILABLE, DEFERRED, SCHEDULED):
            entries.append(entry)
        sequence = log.next_alive(sequence + 1)
    _bury(receiver, entries, untouched, receiver.clock.now(), done)
    return len(entries) + len(untouched)


def _entries(receiver: Receiver, sequences: Sequence[int], state: int, now: int) -> list[Entry]:
    found = []
    for sequence in dict.fromkeys(sequences):
        entry = receiver.ledger.entries.get(sequence)
        if entry is None or entry.state != state or 0 < entry.expires <= now:
            raise MessageNotFound(sequence)
        found.append(entry)
    return found


def _record(receiver: Receiver, entry: Entry) -> Record:
    record = receiver.log.get(entry.sequence)
    if record is None:
        raise MessageNotFound(entry.sequence)
    return record


def _bury(
    receiver: Receiver, entries: Sequence[Entry], untouched: Sequence[tuple[Log, int]], now: int, done: Done
) -> None:
    ledger = receiver.ledger
    for entry in entries:
        if entry.state == AVAILABLE:
            entry.deliveries += 1  # Undone, as for every message that was to be taken, if this fails.
        ledger.claim(entry)

    def buried(error: EngineError | None) -> None:
        for entry in entries:
            (ledger.forget if error is None else ledger.unclaim)(entry)
        done(error)

    graves = [*untouched, *(grave for entry in entries for grave in receiver.graves(entry))]
    receiver.engine.append([], now, buried, dead=graves)
