"""The memory engine: the contract without a disk. For tests and for `--memory`; nothing survives.

The verified twin of the file engine: one contract suite runs against both.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from .joint import Joint
from .log import Closed, Done, EngineError, Log, Put, Record

_CHUNK = 512


class MemoryLog:
    """Records by sequence, in chunks so that long dead stretches cost nothing."""

    __slots__ = ("_chunks", "bytes", "count", "durable", "engine", "first", "name", "next")

    def __init__(self, name: str, first: int, engine: MemoryEngine) -> None:
        self.name = name
        self.engine = engine
        self.first = self.durable = self.next = first
        self.count = 0
        self.bytes = 0
        self._chunks: dict[int, list[Record | None]] = {}

    def get(self, sequence: int) -> Record | None:
        chunk = self._chunks.get(sequence // _CHUNK)
        return chunk[sequence % _CHUNK] if chunk is not None and sequence >= 0 else None

    def alive(self, sequence: int) -> bool:
        return self.get(sequence) is not None

    def next_alive(self, sequence: int) -> int | None:
        number = max(sequence, self.first) // _CHUNK
        slot = max(sequence, self.first) % _CHUNK
        last = self.durable // _CHUNK
        while number <= last:
            chunk = self._chunks.get(number)
            if chunk is None:
                number = min((k for k in self._chunks if k > number), default=last + 1)
            else:
                for i in range(slot, _CHUNK):
                    if chunk[i] is not None:
                        return number * _CHUNK + i
                number += 1
            slot = 0
        return None

    def read(self, start: int, count_max: int, bytes_max: int) -> list[Record]:
        records: list[Record] = []
        size = 0
        sequence = self.next_alive(start)
        while sequence is not None and len(records) < count_max:
            record = self.get(sequence)
            assert record is not None
            size += len(record.payload)
            if records and size > bytes_max:
                break
            records.append(record)
            sequence = self.next_alive(record.sequence + record.count)
        return records

    def find(self, time: int) -> int:
        return find_time(self, time)

    def keep(self, bytes_max: int) -> int:
        return keep_bytes(self, bytes_max)

    def put(self, record: Record) -> None:
        for sequence in range(record.sequence, record.sequence + record.count):
            chunk = self._chunks.setdefault(sequence // _CHUNK, [None] * _CHUNK)
            chunk[sequence % _CHUNK] = record
        self.durable = record.sequence + record.count
        self.count += record.count
        self.bytes += len(record.payload)

    def bury(self, sequence: int) -> None:
        record = self.get(sequence)
        if record is None:
            return
        chunk = self._chunks[sequence // _CHUNK]
        chunk[sequence % _CHUNK] = None
        self.count -= 1
        if not any(self.get(s) is record for s in range(record.sequence, record.sequence + record.count)):
            self.bytes -= len(record.payload)
        if chunk.count(None) == _CHUNK and sequence // _CHUNK != self.durable // _CHUNK:
            del self._chunks[sequence // _CHUNK]
        if sequence == self.first:
            following = self.next_alive(sequence + 1)
            self.first = self.durable if following is None else following

    def trim(self, before: int) -> None:
        sequence = self.next_alive(self.first)
        while sequence is not None and sequence < before:
            self.bury(sequence)
            sequence = self.next_alive(sequence + 1)
        self.first = min(max(self.first, before), self.durable)


class MemoryEngine:
    """All logs in memory. `fault` is asked once a commit and may return the reason to fail it."""

    def __init__(self, fault: Callable[[], EngineError | None] | None = None) -> None:
        self._logs: dict[str, MemoryLog] = {}
        self._pending: list[_Append] = []
        self._joint: Joint[_Append] = Joint(self._submit, self._undo)
        self.together = self._joint.together
        self._fault = fault
        self._closed = False

    def open(self, name: str, first: int = 0) -> Log:
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = MemoryLog(name, first, self)
        return log

    def logs(self) -> Iterator[Log]:
        return iter(list(self._logs.values()))

    def append(
        self,
        puts: Sequence[Put],
        now: int,
        done: Done,
        *,
        dead: Sequence[tuple[Log, int]] = (),
        trims: Sequence[tuple[Log, int]] = (),
        drops: Sequence[Log] = (),
    ) -> None:
        if self._closed:
            raise Closed("the engine is closed")
        records: list[tuple[MemoryLog, Record]] = []
        for log, payload, count in puts:
            assert isinstance(log, MemoryLog)
            records.append((log, Record(log.next, count, now, payload)))
            log.next += count
        append = (records, (dead, trims, drops), done)
        if self._joint.parts is not None:
            self._joint.parts.append(append)
        else:
            self._submit([append])

    def _submit(self, appends: list[_Append]) -> None:
        """A commit holds all that wait, so those that belong together are never parted."""
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._commit)
        self._pending += appends

    def _undo(self, appends: list[_Append], error: EngineError) -> None:
        for records, _, _ in reversed(appends):
            for log, record in reversed(records):
                log.next = record.sequence
        for _, _, done in appends:
            done(error)

    def _commit(self) -> None:
        pending, self._pending = self._pending, []
        error: EngineError | None = self._fault() if self._fault else None
        for records, burials, _ in pending:
            if error is None:
                for log, record in records:
                    log.put(record)
                self._bury(*burials)
            else:
                for log, _record in records:
                    log.next = log.durable
        for _, _, done in pending:
            done(error)

    def _bury(
        self,
        dead: Sequence[tuple[Log, int]],
        trims: Sequence[tuple[Log, int]],
        drops: Sequence[Log],
    ) -> None:
        for log, sequence in dead:
            assert isinstance(log, MemoryLog)
            log.bury(sequence)
        for log, before in trims:
            assert isinstance(log, MemoryLog)
            log.trim(before)
        for log in drops:
            self._logs.pop(log.name, None)

    async def close(self) -> None:
        if not self._closed and self._pending:
            self._commit()
        self._closed = True


_Burials = tuple[Sequence[tuple[Log, int]], Sequence[tuple[Log, int]], Sequence[Log]]
_Append = tuple[list[tuple[MemoryLog, Record]], _Burials, Done]


class _Times(Sequence[int]):
    """The times of a log's sequences, as bisect wants to see them. Dead ones count as the next alive."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def __len__(self) -> int:
        return self._log.durable - self._log.first

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        sequence = self._log.next_alive(self._log.first + index)
        record = None if sequence is None else self._log.get(sequence)
        return 1 << 62 if record is None else record.time


def find_time(log: Log, time: int) -> int:
    """Binary search by record time (times never decrease within a log)."""
    found = log.next_alive(log.first + bisect_left(_Times(log), time))
    return log.durable if found is None else found


def keep_bytes(log: Log, bytes_max: int) -> int:
    """Walks from the front until what follows fits."""
    excess = log.bytes - bytes_max
    sequence = log.next_alive(log.first)
    while excess > 0 and sequence is not None:
        record = log.get(sequence)
        assert record is not None
        excess -= len(record.payload)
        sequence = log.next_alive(record.sequence + record.count)
    return log.durable if sequence is None else sequence
