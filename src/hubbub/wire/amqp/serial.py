"""32-bit serial numbers (RFC 1982): they wrap around, and "before" means less than half of the circle
back."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
MASK = 0xFFFFFFFF
HALF = MASK >> 1


def behind(count: int, seen: int) -> int:
    """How far `seen` is behind `count`; 0 if it is ahead."""
    distance = (count - seen) & MASK
    return distance if distance <= HALF else 0


def in_range(live: dict[int, T], first: int, last: int) -> list[T]:
    """Those of `live`, by id, that lie in first..last of 32-bit serial numbers; the cost is the smaller of
    both."""
    span = (last - first) & MASK
    if span > HALF:
        return []
    if span <= 2 * len(live):
        ids = ((first + step) & MASK for step in range(span + 1))
        return [live[i] for i in ids if i in live]
    return [item for i, item in live.items() if (i - first) & MASK <= span]
