"""Opening a journal: replays every segment, oldest first, into the engine's index.

Rules: a torn tail of the newest segment is cut; anything else that is bad raises Corrupt. Replay is
idempotent: a record copied by cleaning just before a crash is found twice, and the later one counts. While it
lasts, `first` of a log is only what was trimmed: a copy may stand behind the burial of all that precedes it.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from . import segment as fmt
from .log import Corrupt

if TYPE_CHECKING:
    from .file import FileEngine, FileLog, Segment

_NAME = re.compile(r"(\d{8})\.journal")
_FLUSH = re.compile(rb"\x08\0\0\0.{4}\x07\0\0\0", re.S)
"""What every FLUSH entry begins with; not all that begins so is one."""


class Recovery(NamedTuple):
    """What opening found: where the newest segment's good data ended, and how many bytes were cut."""

    path: str
    offset: int
    bytes_cut: int


def recover(engine: FileEngine, progress: Callable[[int, int], object] | None) -> Recovery | None:
    """Fills the engine. Raises Corrupt."""
    paths = segment_paths(engine.path)
    paths = _without_stillborn(paths)
    total = sum(os.path.getsize(path) for path in paths)
    read = 0
    recovery = None
    for path in paths:
        recovery = _replay(engine, path, last=path is paths[-1])
        read += os.path.getsize(path)
        if progress is not None:
            progress(read, total)
    for log in engine.by_id.values():
        # What was buried in segments that are gone never came by.
        following = log.index.next_alive(log.first)
        log.first = log.durable if following is None else following
    return recovery


def segment_paths(folder: str) -> list[str]:
    """The segment files in order."""
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name)]


def _without_stillborn(paths: list[str]) -> list[str]:
    """A newest segment whose head never reached the disk whole held nothing that was acknowledged."""
    if not paths or not _is_stillborn(paths[-1]):
        return paths
    os.unlink(paths[-1])
    return paths[:-1]


def _is_stillborn(path: str) -> bool:
    """Header and LOGS are flushed before the first FLUSH is written, so one without them is damage."""
    if not os.path.getsize(path):
        return True
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if any(data[: fmt.HEADER.size]) and not _lacks_logs(memoryview(data), path):
            return False
        return not any(_is_flush(memoryview(data), mark.start()) for mark in _FLUSH.finditer(data))


def _lacks_logs(data: memoryview, path: str) -> bool:
    with data:
        try:
            fmt.decode_header(data, path)
        except Corrupt:
            return False  # Whatever it is, the replay says so.
        first = fmt.entry_at(data, fmt.HEADER.size)
        return first is None or first.kind != fmt.LOGS


def _is_flush(data: memoryview, offset: int) -> bool:
    with data:
        return fmt.entry_at(data, offset) is not None


def _replay(engine: FileEngine, path: str, last: bool) -> Recovery:
    from .file import Segment

    size = os.path.getsize(path)
    with open(path, "rb") as file:
        number, salt = fmt.decode_header(memoryview(file.read(fmt.HEADER.size)), path)
    descriptor = engine.disk.open(path)
    segment = Segment(number, path, descriptor, salt, size)
    data = memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))
    gap = number - 1 not in engine.segments
    engine.segments[number] = segment
    for found in fmt.flushes(data, path, salt, last, engine.flush_number, gap):
        _apply(engine, segment, data, found)
    torn = len(bytes(data[segment.end : min(size, segment.end + (1 << 24))]).rstrip(b"\0")) if last else 0
    for log in engine.by_id.values():
        log.next = log.durable
    if last:
        _blank_tail(engine, segment, size)
    return Recovery(path, segment.end, torn)


def _blank_tail(engine: FileEngine, segment: Segment, size: int) -> None:
    """Behind the good data only zeros may stand, or a later recovery would take them for damage."""
    os.ftruncate(segment.descriptor, segment.end)
    segment.size = max(engine.segment_bytes, segment.end)
    try:
        os.posix_fallocate(segment.descriptor, 0, segment.size)
    except OSError:
        segment.size = segment.end  # No room: the next append tries a new segment, and says Full.
    os.fsync(segment.descriptor)


def _apply(engine: FileEngine, segment: Segment, data: memoryview, found: list[fmt.Fields]) -> None:
    """What one flush did."""
    base, live = segment.number << 32, 0
    for fields in found:
        kind, flags, number, sequence, _, count, offset, size = fields
        if kind != fmt.PUT:
            _control(engine, segment, fmt.whole(data, fields))
        elif (log := engine.by_id.get(number)) is None:
            continue
        elif sequence >= log.durable:
            log.place(sequence, count, base | offset, size)
            live += size
        elif not flags & fmt.COPY:
            raise Corrupt(f"{segment.path}: offset {offset}: a record of '{log.name}' stands here again")
        elif sequence + count > log.first:
            _copy(log, segment, fmt.whole(data, fields))
    segment.live += live
    segment.end = offset + size


def _control(engine: FileEngine, segment: Segment, entry: fmt.Entry) -> None:
    """All but records."""
    if entry.kind == fmt.FLUSH:
        engine.flush_number = max(engine.flush_number, entry.sequence)
    elif entry.kind == fmt.DEAD:
        for number, sequence, target in fmt.DEAD_ITEM.iter_unpack(entry.payload):
            segment.targets.add(target)
            if number in engine.by_id:
                _bury(engine.by_id[number], sequence)
    elif entry.kind == fmt.OPEN:
        _open(engine, entry.log, bytes(entry.payload).decode(), entry.sequence)
    elif entry.kind == fmt.LOGS:
        _logs(engine, entry)
    elif entry.log in engine.by_id:
        if entry.kind == fmt.TRIM:
            _trim(engine.by_id[entry.log], entry.sequence)
        else:
            engine.drop(engine.by_id[entry.log])


def _bury(log: FileLog, sequence: int) -> None:
    first = log.first
    log.bury(sequence)
    log.first = first


def _trim(log: FileLog, before: int) -> None:
    first = max(log.first, min(before, log.durable))
    log.trim(before)
    log.first = first


def _copy(log: FileLog, segment: Segment, entry: fmt.Entry) -> None:
    """A copy that cleaning made."""
    if any(log.alive(s) for s in range(entry.sequence, entry.sequence + entry.count)):
        # What it was made from still stands in a segment that was to go.
        log.move(entry.sequence, entry.count, segment.number << 32 | entry.offset, entry.size)
        segment.live += entry.size
        return
    log.place(entry.sequence, entry.count, segment.number << 32 | entry.offset, entry.size)
    segment.live += entry.size
    if entry.sequence < log.first:
        for sequence in range(entry.sequence, log.first):
            log.bury(sequence)


def _open(engine: FileEngine, number: int, name: str, first: int) -> None:
    from .file import FileLog

    if number not in engine.by_id:
        engine.by_name[name] = engine.by_id[number] = FileLog(name, number, first, engine)
    engine.id_next = max(engine.id_next, number + 1)


def _logs(engine: FileEngine, entry: fmt.Entry) -> None:
    """The table at a segment's head: what it does not list was dropped; what it lists got at least so far."""
    engine.id_next = max(engine.id_next, entry.sequence)
    listed = set()
    for number, first, following, name in _logs_items(entry.payload):
        _open(engine, number, name, first)
        listed.add(number)
        log = engine.by_id[number]
        log.durable = max(log.durable, following)
        if first > log.first:
            _trim(log, first)
    for log in [log for log in engine.by_id.values() if log.id not in listed]:
        engine.drop(log)


def _logs_items(payload: memoryview) -> Iterator[tuple[int, int, int, str]]:
    offset = 0
    while offset < len(payload):
        number, first, following, length = fmt.LOGS_ITEM.unpack_from(payload, offset)
        offset += fmt.LOGS_ITEM.size
        yield number, first, following, bytes(payload[offset : offset + length]).decode()
        offset += length


def verify(folder: str) -> Iterator[str]:
    """Reads every segment of a folder nobody uses; yields a sentence per problem (none: all is well)."""
    paths = segment_paths(folder)
    for path in paths:
        with open(path, "rb") as file:
            data = memoryview(file.read())
        try:
            _, salt = fmt.decode_header(data, path)
            fmt.used(data, path, salt, last=path is paths[-1])
        except Corrupt as error:
            yield str(error)
