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
        return self._decode(log, segment, offset, near[begin : begin + size])

    def read(self, log: FileLog, start: int, count_max: int, bytes_max: int) -> list[Record]:
        records: list[Record] = []
        left = bytes_max
        segment: Segment | None = None
        base = 0
        data = memoryview(b"")
        index = log.index
        sequence = index.next_alive(max(start, log.first))
        while sequence is not None and len(records) < count_max:
            location, size = index.get(sequence)
            left -= size
            if records and left < 0:
                break
            number, offset = location >> 32, location & 0xFFFFFFFF
            if segment is None or segment.number != number or not base <= offset <= base + len(data) - size:
                segment, base = self._segments[number], offset
                ahead = max(size, min(READ_AHEAD_BYTES, max(0, left), segment.end - offset))
                data = memoryview(self._disk.read(segment.descriptor, ahead, offset))
            begin = offset - base
            record = self._decode(log, segment, offset, data[begin : begin + size])
            records.append(record)
            sequence = index.next_alive(record.sequence + record.count)
        return records

    def _decode(self, log: FileLog, segment: Segment, offset: int, data: bytes | memoryview) -> Record:
        if len(data) >= fmt.ENTRY.size:
            length, crc, kind, _, _, number, sequence, time, count = fmt.ENTRY.unpack_from(data)
            view = memoryview(data)
            if (
                number == log.id
                and kind == fmt.PUT
                and length + fmt.ENTRY.size == len(data)
                and crc == fmt.crc32(view[8:])
            ):
                return Record(sequence, count, time, bytes(view[fmt.ENTRY.size :]))
        raise Corrupt(f"{segment.path}: offset {offset}: a record of '{log.name}' is damaged on the disk")
