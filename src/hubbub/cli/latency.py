"""Latencies by the million in a fixed space: counts by length, fine for short ones and coarse for long ones.

A bucket is one microsecond wide up to 256 of them, then at most a 128th of what it counts, so a percentile is
right to within one percent. The longest is kept as it is.
"""

from __future__ import annotations

from array import array
from math import ceil

_FINE_BITS = 7
_FINE = 1 << _FINE_BITS
_MICROSECONDS_MAX = (1 << 42) - 1
_BUCKETS = (42 - _FINE_BITS) * _FINE + _FINE

PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


class Latencies:
    """`count` of them, and the longest in seconds."""

    __slots__ = ("_counts", "count", "longest")

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _BUCKETS))
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        microseconds = min(max(0, int(seconds * 1e6)), _MICROSECONDS_MAX)
        shift = max(0, microseconds.bit_length() - _FINE_BITS - 1)
        self._counts[(shift << _FINE_BITS) + (microseconds >> shift)] += 1
        self.count += 1
        if seconds > self.longest:
            self.longest = seconds

    def percentile(self, share: float) -> float:
        """Seconds that this share of all did not exceed; 0 if there are none."""
        rank, passed = ceil(share * self.count), 0
        for bucket, count in enumerate(self._counts):
            passed += count
            if count and passed >= rank:
                return min(_middle(bucket) / 1e6, self.longest)
        return 0.0

    def figures(self) -> dict[str, float]:
        """Percentiles and the longest, in milliseconds."""
        found = {name: round(self.percentile(share) * 1000, 3) for name, share in PERCENTILES.items()}
        return {**found, "max_ms": round(self.longest * 1000, 3)}


def _middle(bucket: int) -> float:
    """Microseconds in the middle of a bucket."""
    shift = max(0, (bucket >> _FINE_BITS) - 1)
    return ((bucket - (shift << _FINE_BITS)) << shift) + (1 << shift) / 2
