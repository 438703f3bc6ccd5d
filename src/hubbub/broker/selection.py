"""Messages that are not simply next: those asked for by sequence number, the oldest, all, or only looked at.

Functions over a `Receiver`, which has most of them as its verbs. Each change is durable, all or nothing,
before `done` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ..engine.log import Done, EngineError, Log, Record
from .deadletters import expire
from .delivery import Delivery, Settled, busy, delivery_of
from .errors import MessageNotFound, SessionRequired, TooLarge
from .ledger import AVAILABLE, DEFERRED, SCHEDULED, Entry
from .message import session_of
from .numbering import sequence_of

if TYPE_CHECKING:
    from .receiver import Receiver
    from .sessions import SessionLock

Found = Callable[[list[Delivery] | Exception], object]
DEFERRED_BYTES_MAX = 8 << 20
"""Of messages received by their numbers at once, which go in one answer; one alone may have more."""
PURGE_MAX = 5000
"""Messages that are purged before everything else has its turn."""


def receive_deferred(
    receiver: Receiver, sequences: Sequence[int], lock: bool, done: Found, holder: SessionLock | None = None
) -> None:
    """Delivers deferred messages, locked, or deleted first. MessageNotFound if any of them is not deferred,
    TooLarge if they are too much for one answer; then nothing has changed, but that those expire whose
    time to live is over: what is deferred waits for that until somebody asks for it.

    `holder`: whose session they must be of, where there are sessions.
    """
    if receiver.sessions is not None and holder is None:
        done(SessionRequired("A deferred message of a session is received by who holds the session."))
        return
    now = receiver.clock.now()
    try:
        entries = _entries(receiver, sequences, DEFERRED)
        for entry in entries:
            if holder is not None and not holder.owns(entry):
                raise MessageNotFound(receiver.number(entry.sequence))
        _expire(receiver, entries, now)
        found = _records(receiver, entries)
    except (MessageNotFound, TooLarge) as error:
        done(error)
        return
    except EngineError as error:
        done(busy(error))
        return
    if lock:
        _lock(receiver, entries, now, holder)
        done([delivery_of(record, entry, receiver.partitioned) for entry, record in found])
    else:
        _take(receiver, found, now, done)


def _lock(receiver: Receiver, entries: Sequence[Entry], now: int, holder: SessionLock | None) -> None:
    until = now + receiver.terms().lock_duration if holder is None else holder.until
    for entry in entries:
        receiver.ledger.lock_deferred(entry, receiver.tokens(), until)
        receiver.note_soon(entry, now)
        if holder is not None:
            holder.hold(entry)


def _take(receiver: Receiver, found: Sequence[tuple[Entry, Record]], now: int, done: Found) -> None:
    def taken(error: EngineError | None) -> None:
        for entry, _ in found:
            entry.deliveries += 1
        deliveries = [delivery_of(record, entry, receiver.partitioned) for entry, record in found]
        if error is not None:
            for entry, _ in found:
                entry.deliveries -= 1
        done(busy(error) or deliveries)

    _bury(receiver, [entry for entry, _ in found], [], now, taken)


def cancel(receiver: Receiver, sequences: Sequence[int], done: Settled) -> None:
    """Takes back scheduled messages. MessageNotFound if any of them is not scheduled."""
    now = receiver.clock.now()
    try:
        entries = _entries(receiver, sequences, SCHEDULED)
    except MessageNotFound as error:
        done(error)
        return
    _bury(receiver, entries, [], now, lambda error: done(busy(error)))


def delete_before(
    receiver: Receiver,
    moment: int,
    count_max: int,
    done: Callable[[int | Exception], object],
    session: str | None = None,
) -> None:
    """Deletes the oldest messages that came before the moment and that nobody holds."""
    ledger = receiver.ledger
    try:
        found = list(islice(_older(receiver, moment, session), count_max))
    except SessionRequired as error:
        done(error)
        return
    except EngineError as error:
        done(busy(error))
        return
    entries = [ledger.take(sequence) for sequence, _ in found]
    if receiver.sessions is not None:
        for entry, (_, session_id) in zip(entries, found, strict=True):
            receiver.sessions.adopt(entry, session_id)

    def deleted(error: EngineError | None) -> None:
        for entry in entries:
            (ledger.forget if error is None else ledger.unclaim)(entry)
        done(busy(error) or len(entries))

    graves = [grave for entry in entries for grave in receiver.graves(entry)]
    receiver.engine.append([], receiver.clock.now(), deleted, dead=graves)


def _older(receiver: Receiver, moment: int, session: str | None) -> Iterator[tuple[int, str]]:
    """Those that nobody holds, oldest first, and their sessions. Raises SessionRequired, EngineError."""
    for sequence in _sequences(receiver, 0, session):
        entry = receiver.ledger.entries.get(sequence)
        if entry is None or entry.state == AVAILABLE:
            record = receiver.log.get(sequence)
            if record is None or record.time >= moment:
                return
            yield sequence, session_of(record.payload)


def purge(receiver: Receiver, start: int, before: int, done: Done) -> tuple[int, int]:
    """Of the messages from `start` on and before another sequence, up to PURGE_MAX go that are not locked or
    being settled. Returns how many that is, and where to go on."""
    entries: list[Entry] = []
    untouched: list[tuple[Log, int]] = []
    log = receiver.log
    sequence = log.next_alive(start)
    while sequence is not None and sequence < before and len(entries) + len(untouched) < PURGE_MAX:
        entry = receiver.ledger.entries.get(sequence)
        if entry is None:
            untouched.append((log, sequence))
        elif entry.state in (AVAILABLE, DEFERRED, SCHEDULED):
            entries.append(entry)
        sequence = log.next_alive(sequence + 1)

    def purged(error: EngineError | None) -> None:
        if error is None:
            _forget_late(receiver, untouched)
        done(error)

    _bury(receiver, entries, untouched, receiver.clock.now(), purged)
    return len(entries) + len(untouched), before if sequence is None else sequence


def _forget_late(receiver: Receiver, untouched: Sequence[tuple[Log, int]]) -> None:
    """Some that nobody had touched may have been delivered while their burial was on its way."""
    ledger = receiver.ledger
    for _, sequence in untouched:
        entry = ledger.entries.get(sequence)
        if entry is not None:
            ledger.forget(entry)
    if receiver.sessions is not None:
        receiver.sessions.sweep()


def peek(
    receiver: Receiver, start: int, count_max: int, bytes_max: int, session: str | None
) -> list[Delivery]:
    """Messages from a sequence on that have not expired, or are deferred: as many as that, of about so many
    bytes, but one."""
    found: list[Delivery] = []
    now = receiver.clock.now()
    size = 0
    start = sequence_of(start) if receiver.partitioned else start
    for sequence in _sequences(receiver, start, session) if count_max > 0 else ():
        entry = receiver.ledger.entries.get(sequence) or Entry(sequence)
        expired = 0 < entry.expires <= now and not entry.is_deferred
        record = None if expired else receiver.log.get(sequence)
        if record is None:
            continue
        size += len(record.payload)
        if found and size > bytes_max:
            break
        found.append(delivery_of(record, entry, receiver.partitioned))
        if len(found) == count_max:
            break
    return found


def _sequences(receiver: Receiver, start: int, session: str | None) -> Iterator[int]:
    """Messages in any state from a sequence on. Raises SessionRequired."""
    log = receiver.log
    if session is None:
        sequence = log.next_alive(start)
        while sequence is not None:
            yield sequence
            sequence = log.next_alive(sequence + 1)
    elif receiver.sessions is None:
        raise SessionRequired(f"'{receiver.path}' has no sessions.")
    else:
        yield from filter(log.alive, receiver.sessions.since(session, start))


def _expire(receiver: Receiver, entries: Sequence[Entry], now: int) -> None:
    """Raises MessageNotFound if the time to live of any is over."""
    over = [entry for entry in entries if 0 < entry.expires <= now]
    numbers = [receiver.number(entry.sequence) for entry in over]
    for entry in over:
        expire(receiver, entry, now, _ignore)
    if over:
        raise MessageNotFound(numbers[0])


def _ignore(error: EngineError | None) -> None:
    """Whoever asks again finds it as it is then."""


def _entries(receiver: Receiver, numbers: Sequence[int], state: int) -> list[Entry]:
    found = []
    for number in dict.fromkeys(numbers):
        entry = receiver.ledger.entries.get(sequence_of(number) if receiver.partitioned else number)
        if entry is None or entry.state != state:
            raise MessageNotFound(number)
        if receiver.partitioned and receiver.number(entry.sequence) != number:
            raise MessageNotFound(number)
        found.append(entry)
    return found


def _records(receiver: Receiver, entries: Sequence[Entry]) -> list[tuple[Entry, Record]]:
    """Raises TooLarge before more is read than may be."""
    found: list[tuple[Entry, Record]] = []
    size = 0
    for entry in entries:
        record = _record(receiver, entry)
        size += len(record.payload)
        if found and size > DEFERRED_BYTES_MAX:
            raise TooLarge(size, DEFERRED_BYTES_MAX, "answer", "Ask for fewer sequence numbers at a time.")
        found.append((entry, record))
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
        ledger.claim(entry)

    def buried(error: EngineError | None) -> None:
        for entry in entries:
            (ledger.forget if error is None else ledger.unclaim)(entry)
        done(error)

    graves = [*untouched, *(grave for entry in entries for grave in receiver.graves(entry))]
    receiver.engine.append([], now, buried, dead=graves)
