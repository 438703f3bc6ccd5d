"""Reading records back from the segments of the journal: one, or a range.

Not here: where a record stands (the log's index), and what follows from damage. Every record is checked again
each time it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import segment as fmt
from .disk import Disk
from .log import Corrupt, Record

if TYPE_CHECKING:
    from .file import FileLog, Segment

READ_AHEAD_BYTES = 256 << 10
NEAR_BYTES = 16 << 10
"""Read at once for whoever gets single records in their order."""


class Reading:
    """Reads from `segments`, by number, which come and go."""

    __slots__ = ("_disk", "_near", "_near_base", "_near_number", "_segments")

    def __init__(self, disk: Disk, segments: dict[int, Segment]) -> None:
        self._disk = disk
        self._segments = segments
        self._near_number = 0
        self._near_base = 0
        self._near = b""

    def record(self, log: FileLog, location: int, size: int) -> Record:
        number, offset = location >> 32, location & 0xFFFFFFFF
        segment = self._segments[number]
        near, base = self._near, self._near_base
        begin = offset - base
        if number != self._near_number or not 0 <= begin <= len(near) - size:
            # Who reads one record after the other will want the next ones.
            goes_on = number == self._near_number and 0 <= begin - len(near) <= NEAR_BYTES
            ahead = min(NEAR_BYTES, segment.end - offset) if goes_on else 0
            near = self._disk.read(segment.descriptor, max(size, ahead), offset)
            self._near_number, self._near_base, self._near = number, offset, near
            begin = 0
        return self._decode(log, segment, offset, near, memoryview(near), begin, size)

    def read(self, log: FileLog, start: int, count_max: int, bytes_max: int) -> list[Record]:
        records: list[Record] = []
        left = bytes_max
        number = base = end = -1
        data = b""
        for location, size in log.index.places(max(start, log.first)):
            left -= size
            if records and (left < 0 or len(records) >= count_max):
                break
            offset = location & 0xFFFFFFFF
            if size > READ_AHEAD_BYTES:
                records.append(self._large(log, self._segments[location >> 32], offset, size))
                continue
            if location >> 32 != number or not base <= offset <= end - size:
                number, base = location >> 32, offset
                segment = self._segments[number]
                ahead = max(size, min(READ_AHEAD_BYTES, max(0, left), segment.end - offset))
                data = self._disk.read(segment.descriptor, ahead, offset)
                view = memoryview(data)
                end = base + len(data)
            begin = offset - base
            records.append(self._decode(log, segment, offset, data, view, begin, size))
        return records

    def _large(self, log: FileLog, segment: Segment, offset: int, size: int) -> Record:
        """One that fills a read by itself: its payload is read apart, which saves a copy."""
        head = self._disk.read(segment.descriptor, fmt.ENTRY.size, offset)
        payload = self._disk.read(segment.descriptor, size - fmt.ENTRY.size, offset + fmt.ENTRY.size)
        if len(head) == fmt.ENTRY.size:
            length, crc, kind, _, _, number, sequence, time, count = fmt.ENTRY.unpack(head)
            if (
                crc == fmt.crc32(payload, fmt.crc32(head[8:]))
                and number == log.id
                and kind == fmt.PUT
                and length == len(payload) == size - fmt.ENTRY.size
            ):
                return Record(sequence, count, time, payload)
        raise self._damage(log, segment, offset)

    def _decode(
        self,
        log: FileLog,
        segment: Segment,
        offset: int,
        data: bytes,
        view: memoryview,
        begin: int,
        size: int,
    ) -> Record:
        """The record at `begin` of what was read. `view` is all of `data`."""
        end = begin + size
        if end <= len(data):
            length, crc, kind, _, _, number, sequence, time, count = fmt.ENTRY.unpack_from(data, begin)
            if (
                crc == fmt.crc32(view[begin + 8 : end])
                and number == log.id
                and kind == fmt.PUT
                and length + fmt.ENTRY.size == size
            ):
                return Record(sequence, count, time, data[begin + fmt.ENTRY.size : end])
        raise self._damage(log, segment, offset)

    @staticmethod
    def _damage(log: FileLog, segment: Segment, offset: int) -> Corrupt:
        return Corrupt(f"{segment.path}: offset {offset}: a record of '{log.name}' is damaged on the disk")
