"""One file of journal entries: the format, and how a damaged file is read.

Format, version 1 (little endian). A segment file `NNNNNNNN.journal` is

    header   magic "HUBBUBJ1" (8) | version u32 | segment number u32 | salt (8) | crc32 of these u32
    entries  back to back, then zeros to the end of the file

    entry    length u32 | crc32 u32 | kind u8 | flags u8 | 0 u16 | log u32 | sequence u64 | time u64 |
             count u32 | payload (length bytes)

The checksum covers everything after itself. Entries describe themselves, so cleaning may copy them
verbatim to another segment. Kinds:

    PUT    a record: `count` sequences of `log` from `sequence` on, appended at `time` (ms)
    DEAD   payload: (log u32, sequence u64, segment u32)*: these are gone; `segment` is where they lived
    TRIM   everything of `log` below `sequence` is gone
    OPEN   log id `log` is named by the payload (UTF-8) and starts at `sequence`
    DROP   `log` is gone, whole; ids are never used again
    LOGS   payload: (id u32, first u64, next u64, name length u16, name)*: every log there is. Stands at
           the head of every segment, so older segments may go; `sequence` is the next free log id
    FLUSH  payload: the salt: start of group commit number `sequence`, whose entries are the `time`
           bytes behind this one. All that a segment holds behind its LOGS are such commits

Entries with the MORE flag belong to the same append as the next one; an append counts only whole. The COPY
flag marks a PUT that cleaning moved here; any other continues its log, or the file is damaged.

To change the format raise VERSION and keep a reader for the old number; unknown kinds are an error.

Damage. A flush counts only whole, and starts only after the one before it is on the disk. So bad bytes
with no later FLUSH mark behind them are a torn tail nobody was promised, and are cut; with one behind them
they are damage to acknowledged data, and raise Corrupt. The salt keeps payloads from forging marks. Flushes
are counted without a gap, also from one segment to the next, so what is missing shows too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from .log import Corrupt

MAGIC = b"HUBBUBJ1"
VERSION = 1
HEADER = struct.Struct("<8sII8sI")
ENTRY = struct.Struct("<IIBBHIQQI")
ENTRY_TAIL = struct.Struct("<BBHIQQI")
LENGTH_CRC = struct.Struct("<II")
DEAD_ITEM = struct.Struct("<IQI")
LOGS_ITEM = struct.Struct("<IQQH")

PUT, DEAD, TRIM, OPEN, DROP, LOGS, FLUSH = range(1, 8)
MORE, COPY = 0x01, 0x02
FLUSH_BYTES = ENTRY.size + 8

crc32 = zlib.crc32
tail_of = ENTRY_TAIL.pack
length_crc = LENGTH_CRC.pack


class Entry(NamedTuple):
    """One entry as it stands in a segment; `offset` is where its header begins, `size` is all of it."""

    kind: int
    flags: int
    log: int
    sequence: int
    time: int
    count: int  # type: ignore[assignment]
    offset: int
    size: int
    payload: memoryview


def encode(
    kind: int, log: int, sequence: int, time: int, count: int, payload: bytes, flags: int = 0
) -> tuple[bytes, bytes]:
    """The header and the payload of one entry, to be written one after the other."""
    tail = tail_of(kind, flags, 0, log, sequence, time, count)
    return length_crc(len(payload), crc32(payload, crc32(tail))) + tail, payload


def encode_header(number: int, salt: bytes) -> bytes:
    body = HEADER.pack(MAGIC, VERSION, number, salt, 0)[:-4]
    return body + struct.pack("<I", crc32(body))


def decode_header(data: memoryview, path: str) -> tuple[int, bytes]:
    """Segment number and salt. Raises Corrupt."""
    if len(data) < HEADER.size:
        raise Corrupt(f"{path}: offset 0: the segment header is cut short")
    magic, version, number, salt, crc = HEADER.unpack_from(data)
    if magic != MAGIC or crc != crc32(data[: HEADER.size - 4]):
        raise Corrupt(f"{path}: offset 0: this is not the header of a journal segment")
    if version != VERSION:
        raise Corrupt(f"{path}: offset 8: format version {version} is unknown to this hubbub")
    if not path.endswith(f"{number:08}.journal"):
        raise Corrupt(
            f"{path}: offset 12: this is segment {number}; the file has been renamed or overwritten"
        )
    return number, salt


def entry_at(data: memoryview, offset: int) -> Entry | None:
    """The valid entry at `offset`, or None."""
    if offset + ENTRY.size > len(data):
        return None
    length, crc, kind, flags, _, log, sequence, time, count = ENTRY.unpack_from(data, offset)
    end = offset + ENTRY.size + length
    if not PUT <= kind <= FLUSH or end > len(data) or crc != crc32(data[offset + 8 : end]):
        return None
    payload = data[offset + ENTRY.size : end]
    return Entry(kind, flags, log, sequence, time, count, offset, end - offset, payload)


Fields = tuple[int, int, int, int, int, int, int, int]
"""An Entry without its payload, and without a name: there may be millions to go through."""


def whole(data: memoryview, fields: Fields) -> Entry:
    offset, size = fields[6:]
    return Entry(*fields, data[offset + ENTRY.size : offset + size])


def flushes(
    data: memoryview, path: str, salt: bytes, last: bool, flush: int = 0, gap: bool = True
) -> Iterator[list[Fields]]:
    """The entries of a segment in order, those of each flush together: every append in it is whole. `last`: a
    torn tail is allowed and ends it.

    `flush`: the number of the last one before this segment; `gap`: segments in between are gone.
    Raises Corrupt, naming the file and the offset, where acknowledged data is damaged.
    """
    start = offset = HEADER.size
    head = entry_at(data, offset)
    if head is not None and head.kind == LOGS:
        yield [head[:8]]
        start = offset = offset + head.size
    while True:
        mark = entry_at(data, start)
        if mark is None or mark.kind != FLUSH or mark.payload != salt or mark.sequence <= flush:
            break  # The end, or what was written long ago, wherever it came from.
        if not gap and mark.sequence != flush + 1:
            raise Corrupt(f"{path}: offset {start}: flush {mark.sequence} does not follow flush {flush}")
        found, offset = _flushed(data, start + mark.size, mark.time)
        flush, gap = mark.sequence, False
        if offset != start + mark.size + mark.time:
            break
        yield [mark[:8], *found]
        start = offset
    _check_tail(data, path, start, offset, salt, flush, last)


def _flushed(data: memoryview, offset: int, length: int) -> tuple[list[Fields], int]:
    """The entries of one flush, and where its whole appends end: at its end, or something is bad there."""
    fields_at, head = ENTRY.unpack_from, ENTRY.size
    found: list[Fields] = []
    good, end = offset, min(offset + length, len(data))
    while offset + head <= end:
        size, crc, kind, flags, _, log, sequence, time, count = fields_at(data, offset)
        following = offset + head + size
        if following > end or not PUT <= kind <= DROP or crc != crc32(data[offset + 8 : following]):
            break
        found.append((kind, flags, log, sequence, time, count, offset, head + size))
        offset = following
        if not flags & MORE:
            good = offset
    return found, good


def _check_tail(
    data: memoryview, path: str, start: int, offset: int, salt: bytes, flush: int, last: bool
) -> None:
    """Nothing from `start` on counts; what stands at `offset` is the end, a torn tail, or damage."""
    mark = _later_mark(data, offset, salt, flush)
    if mark is not None:
        raise Corrupt(
            f"{path}: offset {offset}: the entry is damaged, and flush {mark.sequence} behind it (offset"
            f" {mark.offset}) says it had been acknowledged. Restore the file from a copy, or move the"
            " data folder away to start empty"
        )
    if not last and (start != offset or any(data[offset : offset + ENTRY.size])):
        raise Corrupt(f"{path}: offset {offset}: damage in a finished segment")


def _later_mark(data: memoryview, offset: int, salt: bytes, flush: int) -> Entry | None:
    whole = data.obj
    offset = max(offset, HEADER.size + ENTRY.size)
    while True:
        found = whole.find(salt, offset)  # type: ignore[attr-defined]
        if found < 0:
            return None
        entry = entry_at(data, found - ENTRY.size)
        if entry is not None and entry.kind == FLUSH and entry.sequence > flush:
            return entry
        offset = found + 1


def used(data: memoryview, path: str, salt: bytes, last: bool) -> int:
    """Where the good data of a segment ends."""
    end = HEADER.size
    for found in flushes(data, path, salt, last):
        end = found[-1][6] + found[-1][7]
    return end
