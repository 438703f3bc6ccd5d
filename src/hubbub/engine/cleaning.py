"""Gives space back: removes segments with nothing alive, and copies out the mostly dead ones first.

Rules:
1. Records are copied verbatim; the copy counts once durable, and only for what is still alive then.
2. A burial on its way is not copied, or replay would find the copy behind it.
3. Before a segment goes, its DEAD entries whose targets still stand in other segments are written again.
4. One segment at a time, a bounded step at a time: appends go first.
5. Where there was no room for copies, only what needs none is removed until there is a new segment.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from . import segment as fmt
from .flush import Group
from .log import EngineError

if TYPE_CHECKING:
    from .file import FileEngine, FileLog, Segment

STEP_BYTES, STEP_ENTRIES = 1 << 20, 400
"""What one step goes through at most: while it does, nobody else has a turn."""
LIVE_SHARE_MAX = 0.5
SMALL_SHARE = 8
FLUSHES_BETWEEN_LOOKS = 16


class Cleaner:
    """Looks after each flush whether a segment is worth the work; at most one is in work."""

    __slots__ = ("_at", "_base", "_current", "_data", "_engine", "_looked", "_roomless", "_stopped")

    def __init__(self, engine: FileEngine) -> None:
        self._engine = engine
        self._current: Segment | None = None
        self._data = memoryview(b"")
        """A part of its bytes, from `_base` on."""
        self._base = 0
        self._at = 0
        self._looked = 0
        self._roomless = 0
        """The segment that was active when there was no room for copies."""
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def look(self) -> None:
        """Cheap when there is nothing to do: the segments are weighed once every so many flushes."""
        if self._current is not None or self._stopped:
            return
        self._looked += 1
        if self._looked % FLUSHES_BETWEEN_LOOKS:
            return
        self._next()

    def _next(self) -> None:
        segment = None if self._stopped else self._choose()
        if segment is not None and self._current is None:
            self._current = segment
            asyncio.get_running_loop().call_soon(self._begin, segment)

    def _choose(self) -> Segment | None:
        active = self._engine.active.number
        sealed = [s for s in self._engine.segments.values() if s.number != active]
        share = 0 if active == self._roomless else LIVE_SHARE_MAX
        worth = [s for s in sealed if s.live <= share * s.end and not self._stays(s)]
        return min(worth, key=lambda s: (s.live > 0, s.number), default=None)

    def _stays(self, segment: Segment) -> bool:
        """Small and only burials of what still stands elsewhere: written again, they would take as much."""
        small = segment.end * SMALL_SHARE < self._engine.segment_bytes
        return small and not segment.live and bool(self._carried(segment))

    def _carried(self, segment: Segment) -> set[int]:
        return {n for n in segment.targets if n in self._engine.segments and n != segment.number}

    def _begin(self, segment: Segment) -> None:
        if self._stopped:
            # The engine was closed meanwhile, its files with it.
            self._rest()
            return
        if not segment.live and not self._carried(segment):
            self._remove(segment)
            return
        self._base = self._at = fmt.HEADER.size
        self._step(None)

    def _step(self, error: EngineError | None) -> None:
        segment = self._current
        assert segment is not None
        if error is not None or self._stopped:
            self._roomless = self._engine.active.number
            self._rest()
        elif self._at >= segment.end:
            self._end(segment)
        else:
            group = self._gather(segment)
            if group.entries or group.carried:
                self._engine.submit(group)
            else:
                asyncio.get_running_loop().call_soon(self._step, None)

    def _gather(self, segment: Segment) -> Group:
        group = Group(self._step)
        group.moved = True
        until = min(segment.end, self._at + STEP_BYTES)
        for _ in range(STEP_ENTRIES):
            if self._at >= until:
                break
            entry = self._entry(segment)
            if entry is None:
                # Damage shows here as on any read: leave the file alone, it may be worth a rescue.
                self._at = segment.end
                segment.live += segment.end
                break
            self._at += entry.size
            if entry.kind == fmt.PUT:
                self._copy(group, segment, entry)
            elif entry.kind == fmt.DEAD:
                self._carry(group, segment, entry)
        return group

    def _entry(self, segment: Segment) -> fmt.Entry | None:
        """What stands at `_at`; None if it is not what was written."""
        entry = fmt.entry_at(self._data, self._at - self._base)
        if entry is None:  # For the most part because it has not been read yet.
            read, descriptor = self._engine.disk.read, segment.descriptor
            head = read(descriptor, fmt.ENTRY.size, self._at)
            length = fmt.ENTRY.unpack(head)[0] if len(head) == fmt.ENTRY.size else 0
            size = min(max(fmt.ENTRY.size + length, STEP_BYTES), segment.end - self._at)
            self._data, self._base = memoryview(read(descriptor, size, self._at)), self._at
            entry = fmt.entry_at(self._data, 0)
        return None if entry is None else entry._replace(offset=self._at)

    def _copy(self, group: Group, segment: Segment, entry: fmt.Entry) -> None:
        log: FileLog | None = self._engine.by_id.get(entry.log)
        if log is None:
            return
        here = segment.number << 32 | entry.offset
        alive = [
            s
            for s in range(entry.sequence, entry.sequence + entry.count)
            if log.index.get(s)[0] == here and (log, s) not in self._engine.dying
        ]
        if not alive:
            return
        begin = entry.offset - self._base
        raw = bytes(self._data[begin : begin + entry.size])
        # A copy stands alone: the append it came with is long complete.
        tail = bytes((fmt.PUT, fmt.COPY)) + raw[10 : fmt.ENTRY.size]
        payload = raw[fmt.ENTRY.size :]
        crc = fmt.crc32(payload, fmt.crc32(tail))
        head = fmt.LENGTH_CRC.pack(len(payload), crc) + tail
        group.entries.append((log, entry.sequence, entry.count, head, payload))
        group.size += entry.size
        if len(alive) < entry.count:
            # What buried a part of the record stands before the copy, where replay would not find it.
            lost = set(range(max(entry.sequence, log.first), entry.sequence + entry.count)).difference(alive)
            group.carried += [(log.id, s, 0) for s in sorted(lost)]
            group.size += fmt.DEAD_ITEM.size * len(lost)

    def _carry(self, group: Group, segment: Segment, entry: fmt.Entry) -> None:
        engine = self._engine
        for number, sequence, target in fmt.DEAD_ITEM.iter_unpack(entry.payload):
            log = engine.by_id.get(number)
            if log is not None and target in engine.segments and target != segment.number:
                group.carried.append((number, sequence, target))
                group.size += fmt.DEAD_ITEM.size

    def _end(self, segment: Segment) -> None:
        if segment.live <= 0:
            self._remove(segment)
        else:
            self._rest()  # Something in it was on its way to die; the next look finds it dead.

    def _remove(self, segment: Segment) -> None:
        engine = self._engine
        del engine.segments[segment.number]
        os.close(segment.descriptor)

        def remove() -> None:
            try:
                os.unlink(segment.path)
                # Before anything it buried may be forgotten: the two must not come back in the wrong order.
                engine.disk.flush_folder(engine.path)
            except OSError:
                pass  # Found again at the next start, with nothing alive in it.

        engine.aside(remove, self._removed)

    def _removed(self) -> None:
        self._rest()
        self._next()

    def _rest(self) -> None:
        self._current = None
        self._data = memoryview(b"")
