"""The file engine: all logs of a node in one journal of segment files, with group commit.

Theory of operation. `append` queues a group. One flush at a time takes what has gathered, writes it behind
a FLUSH mark in one write, and makes it durable with one fdatasync; meanwhile the next groups gather.
Flushes run in a thread, except small ones on a fast disk: then handing it to a thread costs more than
the flush itself, and while the loop stands still the next requests gather in their sockets. Records are
readable once their flush is done.

Space comes back by segments: one with nothing alive is removed, a mostly dead one is copied out first
(`cleaning`). What a segment file looks like, and how damage is told from a torn tail: `segment`.

Not here: what the bytes mean.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from time import perf_counter

from . import segment as fmt
from .cleaning import Cleaner
from .disk import FULL_ERRNOS, Disk, create, own
from .flush import Flush, Group, gathered, lay_out, merged
from .index import Index
from .joint import Joint
from .log import Closed, Done, EngineError, Full, Log, Put, Record
from .memory import find_time, keep_bytes
from .reading import Reading

SEGMENT_BYTES = 64 << 20
SMALL_SHARE = 64
"""What a small segment is smaller."""
FLUSH_BYTES_MAX = 8 << 20
INLINE_SECONDS_MAX = 0.001
"""A flush slower than this (running average) is never done on the event loop's thread."""
INLINE_BYTES_MAX = 64 << 10


class Segment:
    """A journal file that exists. `end` is where its data ends, `live` how many bytes of it matter."""

    __slots__ = ("descriptor", "end", "live", "number", "path", "salt", "size", "targets")

    def __init__(self, number: int, path: str, descriptor: int, salt: bytes, size: int) -> None:
        self.number = number
        self.path = path
        self.descriptor = descriptor
        self.salt = salt
        self.size = size
        self.end = fmt.HEADER.size
        self.live = 0
        self.targets: set[int] = set()
        """Segments in which the entries lived that this segment's DEAD entries bury."""


class FileLog:
    __slots__ = ("bytes", "count", "durable", "engine", "first", "id", "index", "name", "next")

    def __init__(self, name: str, number: int, first: int, engine: FileEngine) -> None:
        self.name = name
        self.id = number
        self.engine = engine
        self.index = Index()
        self.first = self.durable = self.next = first
        self.count = 0
        self.bytes = 0

    def get(self, sequence: int) -> Record | None:
        location, size = self.index.get(sequence)
        return self.engine.reading.record(self, location, size) if location else None

    def alive(self, sequence: int) -> bool:
        return self.index.get(sequence)[0] != 0

    def next_alive(self, sequence: int) -> int | None:
        return self.index.next_alive(max(sequence, self.first))

    def read(self, start: int, count_max: int, bytes_max: int) -> list[Record]:
        return self.engine.reading.read(self, start, count_max, bytes_max)

    def find(self, time: int) -> int:
        return find_time(self, time)

    def keep(self, bytes_max: int) -> int:
        return keep_bytes(self, bytes_max)

    def place(self, sequence: int, count: int, location: int, size: int) -> None:
        """A record is durable."""
        self.index.set(sequence, count, location, size)
        self.count += count
        self.bytes += size - fmt.ENTRY.size
        if sequence + count > self.durable:
            self.durable = sequence + count

    def move(self, sequence: int, count: int, location: int, size: int) -> None:
        """What is still alive of a record now stands elsewhere."""
        old = self.index.move(sequence, count, location, size)
        self.engine.release(old or location, size)

    def bury(self, sequence: int) -> None:
        location, size = self.index.get(sequence)
        if not location:
            return
        self.count -= 1
        if not self.index.clear(sequence):
            self.bytes -= size - fmt.ENTRY.size
            self.engine.release(location, size)
        if sequence == self.first:
            following = self.index.next_alive(sequence + 1)
            self.first = self.durable if following is None else following

    def trim(self, before: int) -> None:
        before = min(before, self.durable)
        for sequence in self.index.below(before):
            self.bury(sequence)
        self.first = max(self.first, before)


class FileEngine:
    """Opens the journal in `path` and takes ownership. Raises Owned, Corrupt, Full, EngineError.

    `progress(done, total)` is told the bytes read while the journal is replayed.
    """

    def __init__(
        self,
        path: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        from .recovery import recover

        self.path = path
        self.segment_bytes = segment_bytes
        self.disk = disk or Disk()
        self.segments: dict[int, Segment] = {}
        self.reading = Reading(self.disk, self.segments)
        self.by_name: dict[str, FileLog] = {}
        self.by_id: dict[int, FileLog] = {}
        self.id_next = 1
        self.flush_number = 0
        self.dying: set[tuple[FileLog, int]] = set()
        """Burials on their way: cleaning must not copy these."""
        self._unopened: list[FileLog] = []
        self._pending: list[Group] = []
        self._joint: Joint[Group] = Joint(lambda groups: self.submit(merged(groups)), self._undo)
        self.together = self._joint.together
        self._flushing = False
        self._scheduled = False
        self._failed: EngineError | None = None
        self._closed = False
        self._flush_seconds = 0.0
        self._idle = asyncio.Event()
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="hubbub-flush", daemon=True)
        os.makedirs(path, mode=0o700, exist_ok=True)
        self._lock = own(path)
        try:
            self.recovery = recover(self, progress)
            self.active = self.segments[max(self.segments)] if self.segments else self._first_segment()
        except BaseException:
            self._let_go()
            raise
        self._cleaner = Cleaner(self)
        self._thread.start()

    # The contract.

    def open(self, name: str, first: int = 0) -> Log:
        log = self.by_name.get(name)
        if log is None:
            log = FileLog(name, self.id_next, first, self)
            self.id_next += 1
            self.by_name[name] = self.by_id[log.id] = log
            self._unopened.append(log)
        return log

    def logs(self) -> Iterator[Log]:
        return iter(list(self.by_name.values()))

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
        group = Group(done)
        entries = group.entries
        size, flags = 0, fmt.MORE if len(puts) > 1 else 0
        for log, payload, count in puts:
            sequence = log.next
            log.next = sequence + count  # type: ignore[misc]
            tail = fmt.tail_of(fmt.PUT, flags, 0, log.id, sequence, now, count)  # type: ignore[attr-defined]
            entries.append((log, sequence, count, tail, payload))  # type: ignore[arg-type]
            size += len(payload) + 36
        if dead:
            group.dead = list(dead)  # type: ignore[arg-type]
            self.dying.update(group.dead)
            size += 16 * len(dead) + 36
        if trims or drops:
            # Never what is appended after this: it may be in the same flush.
            group.trims = [(log, min(before, log.next)) for log, before in trims]
            group.drops = drops
            size += 36 * (len(trims) + len(drops))
        group.size = size
        if self._joint.parts is not None:
            self._joint.parts.append(group)
        else:
            self.submit(group)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._cleaner.stop()
        while self._flushing or self._pending:
            self._idle.clear()
            await self._idle.wait()
        self._jobs.put(None)
        self._thread.join()
        self._let_go()

    def _let_go(self) -> None:
        for segment in self.segments.values():
            os.close(segment.descriptor)
        os.close(self._lock)

    # Writing.

    def submit(self, group: Group) -> None:
        self._pending.append(group)
        if not self._flushing and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        if self._flushing or not self._pending:
            return
        if self._failed is not None:
            self._fail(self._take_all(), self._failed)
            return
        flush = self._assemble(self._take())
        self._flushing = True
        small = flush.roll is None and len(flush.data) < INLINE_BYTES_MAX
        if small and self._flush_seconds < INLINE_SECONDS_MAX:
            self._write(flush)
            self._finish(flush)
        else:
            self._jobs.put(partial(self._write_then, flush, asyncio.get_running_loop()))

    def _take(self) -> list[Group]:
        """The groups of the next flush: what waits, up to a bound."""
        pending, size = self._pending, 0
        for n, group in enumerate(pending):
            size += group.size
            # Copies made by cleaning go alone: where they find no room, others may.
            if n and (size > FLUSH_BYTES_MAX or group.moved or pending[0].moved):
                self._pending = pending[n:]
                return pending[:n]
        self._pending = []
        return pending

    def _take_all(self) -> list[Group]:
        pending, self._pending = self._pending, []
        return pending

    def _assemble(self, groups: list[Group]) -> Flush:
        """Lays out one write. Burials are encoded here, because only now is it known where things live."""
        flush = Flush(groups)
        estimate = (
            sum(group.size for group in groups) + sum(4 * len(log.name) + 64 for log in self._unopened) + 256
        )
        segment: Segment | None = self.active
        assert segment is not None
        number = segment.number
        if segment.end + estimate > segment.size:
            number += 1
            flush.roll = self._logs_entry(number)
            flush.offset = fmt.HEADER.size + len(flush.roll)
            segment = None
        else:
            flush.offset = segment.end
        flush.segment = segment
        salt = os.urandom(8) if segment is None else segment.salt
        parts: list[bytes] = [b""]
        for log in self._unopened:
            parts += fmt.encode(fmt.OPEN, log.id, log.first, 0, 0, log.name.encode())
        begin = flush.offset + fmt.FLUSH_BYTES
        position = begin + sum(map(len, parts))
        for group in gathered(groups):
            position = lay_out(flush, group, parts, position, number)
        parts[0] = b"".join(fmt.encode(fmt.FLUSH, 0, self.flush_number + 1, position - begin, 0, salt))
        flush.data = b"".join(parts)
        if segment is None:
            self._salt = salt
        return flush

    def _logs_entry(self, number: int) -> bytes:
        items = []
        for log in self.by_name.values():
            name = log.name.encode()
            items.append(fmt.LOGS_ITEM.pack(log.id, log.first, log.durable, len(name)) + name)
        return b"".join(fmt.encode(fmt.LOGS, 0, self.id_next, 0, 0, b"".join(items)))

    def aside(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """Has the flush thread do what takes long, and calls back."""
        loop = asyncio.get_running_loop()

        def job() -> None:
            work()
            loop.call_soon_threadsafe(then)

        self._jobs.put(job)

    def _work(self) -> None:
        """The flush thread: one job after the other, until there is None."""
        while (job := self._jobs.get()) is not None:
            job()

    def _write_then(self, flush: Flush, loop: asyncio.AbstractEventLoop) -> None:
        self._write(flush)
        loop.call_soon_threadsafe(self._finish, flush)

    def _write(self, flush: Flush) -> None:
        """Everything slow. Runs in the flush thread, or inline for a lone append."""
        began = perf_counter()
        try:
            if flush.roll is not None:
                flush.segment = self._create(self.active.number + 1, self._salt, flush)
            assert flush.segment is not None
            self.disk.write(flush.segment.descriptor, flush.data, flush.offset)
            self.disk.flush(flush.segment.descriptor)
        except OSError as error:
            flush.error = error
            if flush.roll is not None and flush.segment is not None:
                # It must not be found later, and its number is needed again.
                os.close(flush.segment.descriptor)
                os.unlink(flush.segment.path)
        flush.seconds = perf_counter() - began

    def _create(self, number: int, salt: bytes, flush: Flush | None) -> Segment:
        head = flush.roll if flush is not None and flush.roll is not None else self._logs_entry(number)
        needed = fmt.HEADER.size + len(head) + (len(flush.data) if flush else 0)
        path = os.path.join(self.path, f"{number:08}.journal")
        usual = least = max(self.segment_bytes, needed)
        if flush is not None and not flush.places and not flush.moves:
            # Burials give space back: a disk too full for one more segment could never be emptied else.
            least = needed + self.segment_bytes // SMALL_SHARE
        descriptor, size = create(self.disk, path, usual, least)
        try:
            self.disk.write(descriptor, fmt.encode_header(number, salt) + head, 0)
            self.disk.flush(descriptor)
            self.disk.flush_folder(self.path)
        except OSError:
            os.close(descriptor)
            os.unlink(path)
            raise
        segment = Segment(number, path, descriptor, salt, size)
        segment.end = fmt.HEADER.size + len(head)
        return segment

    def _first_segment(self) -> Segment:
        try:
            segment = self._create(1, os.urandom(8), None)
        except OSError as error:
            size = f"{self.segment_bytes / (1 << 20):.0f} MiB"
            raise EngineError(f"no journal of {size} in {self.path}: {error.strerror}") from error
        self.segments[1] = segment
        return segment

    def _finish(self, flush: Flush) -> None:
        self._flushing = False
        self._flush_seconds += (flush.seconds - self._flush_seconds) / 8
        if flush.error is not None:
            self._failed_flush(flush, flush.error)
        else:
            self._apply(flush)
            for group in flush.groups:
                group.done(None)
            self._cleaner.look()
        if self._pending and not self._flushing and not self._scheduled:
            self._start()
        elif not self._pending:
            self._idle.set()

    def _apply(self, flush: Flush) -> None:
        segment = flush.segment
        assert segment is not None
        if flush.roll is not None:
            self._seal(self.active)
            self.segments[segment.number] = self.active = segment
        self.flush_number += 1
        segment.end = flush.offset + len(flush.data)
        segment.targets |= flush.targets
        self._unopened = []
        base = segment.number << 32
        for log, sequence, count, offset, size in flush.places:
            log.place(sequence, count, base | offset, size)
            segment.live += size
        for (log, sequence), (count, offset, size) in flush.moves.items():
            log.move(sequence, count, base | offset, size)
            segment.live += size
        for group in flush.groups:
            if group.dead or group.trims or group.drops:
                self._bury(group)

    def _bury(self, group: Group) -> None:
        for log, sequence in group.dead:
            log.bury(sequence)
            self.dying.discard((log, sequence))
        for log, before in group.trims:  # type: ignore[assignment]
            log.trim(before)
        for log in group.drops:  # type: ignore[assignment]
            self.drop(log)

    def drop(self, log: FileLog) -> None:
        log.trim(log.durable)
        self.by_id.pop(log.id, None)
        if self.by_name.get(log.name) is log:
            del self.by_name[log.name]

    def release(self, location: int, size: int) -> None:
        self.segments[location >> 32].live -= size

    def _seal(self, segment: Segment) -> None:
        """No more is written to it: give back the space it did not use."""
        try:
            os.ftruncate(segment.descriptor, segment.end)
            segment.size = segment.end
        except OSError:
            pass  # Space that could not be given back is only space.

    # Failure.

    def _failed_flush(self, flush: Flush, cause: OSError) -> None:
        if cause.errno in FULL_ERRNOS and self._erase(flush):
            error: EngineError = Full(f"no space is left in {self.path}: free some, then try again")
            if flush.groups[0].moved:
                # Copies, alone in their flush, got no sequences: what waits behind can still be done.
                flush.groups[0].done(error)
                return
        else:
            # After a failed fdatasync nobody knows what is on the disk; going on would be a lie.
            error = self._failed = EngineError(f"the disk of {self.path} failed: {cause}. Restart hubbub")
        self._fail(flush.groups + self._take_all(), error)

    def _erase(self, flush: Flush) -> bool:
        """Takes care that the refused write cannot be found by a later recovery."""
        segment = flush.segment
        if flush.roll is not None or segment is None:
            return True
        try:
            # All of it: a shorter write over it later would lead into what is left.
            self.disk.write(segment.descriptor, bytes(len(flush.data)), flush.offset)
            self.disk.flush(segment.descriptor)
        except OSError:
            return False
        return True

    def _undo(self, groups: list[Group], error: EngineError) -> None:
        """The newest appends, of which nothing has been written."""
        for group in reversed(groups):
            for log, sequence, *_ in reversed(group.entries):
                log.next = sequence
            self.dying.difference_update(group.dead)
        for group in groups:
            group.done(error)

    def _fail(self, groups: list[Group], error: EngineError) -> None:
        for group in groups:
            for log, *_ in group.entries:
                log.next = log.durable
            self.dying.difference_update(group.dead)
        for group in groups:
            group.done(error)
