"""What one write of the journal holds: the appends that wait for it, and where each record will stand.

Not here: when it is written, and what follows from it (the engine); what an entry looks like (`segment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from . import segment as fmt
from .log import Done, EngineError, Log

if TYPE_CHECKING:
    from .file import FileLog, Segment


class Group:
    """One append on its way to the disk."""

    __slots__ = ("carried", "dead", "done", "drops", "entries", "moved", "size", "trims")

    def __init__(self, done: Done) -> None:
        self.entries: list[tuple[FileLog, int, int, bytes, bytes]] = []
        """(log, sequence, count, header, payload) of each record; the header is sealed at the flush."""
        self.dead: list[tuple[FileLog, int]] = []
        self.trims: Sequence[tuple[Log, int]] = ()
        self.drops: Sequence[Log] = ()
        self.moved = False
        """The entries are copies of live records, made by cleaning, and complete with their headers."""
        self.carried: list[tuple[int, int, int]] = []
        """Burials to write again, made by cleaning: (log id, sequence, segment; 0: that of this write)."""
        self.size = 0
        self.done = done


class Flush:
    """What one write holds, and where each of its records will stand."""

    __slots__ = (
        "data",
        "error",
        "groups",
        "moves",
        "offset",
        "places",
        "roll",
        "seconds",
        "segment",
        "targets",
    )

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups
        self.data = b""
        self.places: list[tuple[FileLog, int, int, int, int]] = []
        """(log, sequence, count, offset, size) of each new record."""
        self.moves: dict[tuple[FileLog, int], tuple[int, int, int]] = {}
        """(log, sequence) → (count, offset, size) of each copied record."""
        self.targets: set[int] = set()
        self.segment: Segment | None = None
        self.roll: bytes | None = None
        self.offset = 0
        self.error: OSError | None = None
        self.seconds = 0.0


def merged(groups: list[Group]) -> Group:
    """Several appends as one."""
    if len(groups) == 1:
        return groups[0]

    def done(error: EngineError | None) -> None:
        for group in groups:
            group.done(error)

    whole = Group(done)
    for group in groups:
        whole.entries += group.entries
        whole.dead += group.dead
        whole.trims = [*whole.trims, *group.trims]
        whole.drops = [*whole.drops, *group.drops]
        whole.size += group.size
    return whole


def gathered(groups: list[Group]) -> Iterator[Group]:
    """The same, with appends in a row that only bury as one: most are settlements of single messages."""
    for lone, run in groupby(groups, _only_buries):
        if not lone:
            yield from run
            continue
        whole = Group(lambda error: None)
        for group in run:
            whole.dead += group.dead
        yield whole


def _only_buries(group: Group) -> bool:
    return not (group.entries or group.trims or group.drops or group.carried)


def lay_out(flush: Flush, group: Group, parts: list[bytes], position: int, number: int) -> int:
    """Adds one group's entries to the write; returns the position behind them."""
    entries = group.entries
    last = len(entries) - 1
    more_follows = bool(group.dead or group.trims or group.drops or group.carried)
    places = flush.places
    for n, (log, sequence, count, tail, payload) in enumerate(entries):
        size = 36 + len(payload)
        if group.moved:
            parts += (tail, payload)
            flush.moves[(log, sequence)] = (count, position, size)
        else:
            more = n != last or more_follows
            if tail[1] != more:  # As it was when the append was asked for; it may belong to others by now.
                tail = tail[:1] + (b"\x01" if more else b"\x00") + tail[2:]
            parts += (fmt.length_crc(len(payload), fmt.crc32(payload, fmt.crc32(tail))), tail, payload)
            places.append((log, sequence, count, position, size))
        position += size
    return _lay_out_burials(flush, group, parts, position, number) if more_follows else position


def _lay_out_burials(flush: Flush, group: Group, parts: list[bytes], position: int, number: int) -> int:
    controls: list[tuple[int, int, int, bytes]] = []
    items = []
    for log, sequence in group.dead:
        target = log.index.get(sequence)[0] >> 32
        if not target or (log, sequence) in flush.moves:
            target = number
        flush.targets.add(target)
        items.append(fmt.DEAD_ITEM.pack(log.id, sequence, target))
    for log_id, sequence, target in group.carried:
        target = target or number
        flush.targets.add(target)
        items.append(fmt.DEAD_ITEM.pack(log_id, sequence, target))
    if items:
        controls.append((fmt.DEAD, 0, 0, b"".join(items)))
    controls += [(fmt.TRIM, log.id, before, b"") for log, before in group.trims]  # type: ignore[attr-defined]
    controls += [(fmt.DROP, log.id, 0, b"") for log in group.drops]  # type: ignore[attr-defined]
    for n, (kind, log_id, sequence, payload) in enumerate(controls):
        flags = fmt.MORE if n < len(controls) - 1 else 0
        head, body = fmt.encode(kind, log_id, sequence, 0, 0, payload, flags)
        parts += (head, body)
        position += len(head) + len(body)
    return position
