"""Where the records of a log stand: compact arrays of locations, in chunks of 512 sequences.

A location is `segment << 32 | offset`; 0 means dead. A chunk without a live record is dropped, so memory
and scans are proportional to what lives. A record of several sequences fills all its slots; once one of
them died, how many still live is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

CHUNK = 512
_ZEROS_Q = array("Q", bytes(8 * CHUNK))
_ZEROS_I = array("I", bytes(4 * CHUNK))


class Chunk:
    __slots__ = ("alive", "locations", "sizes")

    def __init__(self) -> None:
        self.locations = _ZEROS_Q[:]
        self.sizes = _ZEROS_I[:]
        self.alive = 0


class Index:
    """sequence → (location, entry size)."""

    __slots__ = ("_chunks", "_number", "_spans", "_tail")

    def __init__(self) -> None:
        self._chunks: dict[int, Chunk] = {}
        self._spans: dict[int, int] = {}
        """Location of a record that died in part → how many of its sequences live."""
        self._number = -1
        self._tail: Chunk | None = None

    def get(self, sequence: int) -> tuple[int, int]:
        """(0, 0) if there is nothing."""
        chunk = self._chunks.get(sequence >> 9)
        if chunk is None:
            return 0, 0
        slot = sequence & 511
        return chunk.locations[slot], chunk.sizes[slot]

    def set(self, sequence: int, count: int, location: int, size: int) -> None:
        while count > 0:
            number, slot = sequence >> 9, sequence & 511
            chunk = self._tail if number == self._number else self._chunks.get(number)
            if chunk is None:
                chunk = self._chunks[number] = Chunk()
            self._number, self._tail = number, chunk
            if count == 1:
                if not chunk.locations[slot]:
                    chunk.alive += 1
                chunk.locations[slot] = location
                chunk.sizes[slot] = size
                return
            n = min(count, CHUNK - slot)
            chunk.alive += chunk.locations[slot : slot + n].count(0)
            chunk.locations[slot : slot + n] = array("Q", [location]) * n
            chunk.sizes[slot : slot + n] = array("I", [size]) * n
            sequence += n
            count -= n

    def move(self, sequence: int, count: int, location: int, size: int) -> int:
        """What lives of a record now stands at `location`; returns where it stood, 0 if nothing lives."""
        old = 0
        for s in range(sequence, sequence + count):
            here = self.get(s)[0]
            if here:
                old = here
                self.set(s, 1, location, size)
        if old in self._spans:
            self._spans[location] = self._spans.pop(old)
        return old

    def clear(self, sequence: int) -> int:
        """Forgets one sequence; returns how many others of its record live."""
        number, slot = sequence >> 9, sequence & 511
        chunk = self._chunks.get(number)
        if chunk is None or not chunk.locations[slot]:
            return 0
        location = chunk.locations[slot]
        chunk.locations[slot] = 0
        chunk.alive -= 1
        if not chunk.alive:
            del self._chunks[number]
            if number == self._number:
                self._number, self._tail = -1, None
        return self._left(sequence, location)

    def _left(self, sequence: int, location: int) -> int:
        if self._spans and location in self._spans:
            left = self._spans.pop(location) - 1
        else:
            # The first to die: the others stand around it without a gap.
            low = high = sequence
            while self.get(low - 1)[0] == location:
                low -= 1
            while self.get(high + 1)[0] == location:
                high += 1
            left = high - low
        if left:
            self._spans[location] = left
        return left

    def next_alive(self, sequence: int) -> int | None:
        number, slot = sequence >> 9, sequence & 511
        chunk = self._chunks.get(number)
        while True:
            if chunk is not None:
                locations = chunk.locations
                for i in range(slot, CHUNK):
                    if locations[i]:
                        return (number << 9) + i
            number, slot = number + 1, 0
            chunk = self._chunks.get(number)
            if chunk is None:
                following = min((k for k in self._chunks if k >= number), default=None)
                if following is None:
                    return None
                number, chunk = following, self._chunks[following]

    def places(self, sequence: int) -> Iterator[tuple[int, int]]:
        """Where the live records from `sequence` on stand, in order, each once. The index must not change
        meanwhile."""
        number, slot, last = sequence >> 9, sequence & 511, 0
        chunk = self._chunks.get(number)
        while True:
            if chunk is not None:
                for location, size in zip(chunk.locations[slot:], chunk.sizes[slot:], strict=True):
                    if location and location != last:
                        last = location
                        yield location, size
            slot = 0
            chunk = self._chunks.get(number := number + 1)
            if chunk is None:
                following = min((k for k in self._chunks if k > number), default=None)
                if following is None:
                    return
                number, chunk = following, self._chunks[following]

    def below(self, before: int) -> list[int]:
        """Live sequences below `before`, in order."""
        found: list[int] = []
        for number in sorted(k for k in self._chunks if k << 9 < before):
            locations = self._chunks[number].locations
            start = number << 9
            found += [start + i for i in range(min(CHUNK, before - start)) if locations[i]]
        return found
