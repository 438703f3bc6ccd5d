"""The messages of one session, in the order of their sequences: eight bytes for each.

Pure, and only an index: whether a message can be delivered is the ledger's to say, and asked anew each time.

    sequences   every message that lives, and dead ones until they are most of it
    at          how many of these have been passed; what is behind and came back stands in `returned`
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sessions import SessionLock

DEAD_MIN = 32
"""Fewer dead ones are not worth the copy."""


class Line:
    """One session. `lock` is who holds it; `after`, `order` and `ticket` are its place among the sessions."""

    __slots__ = ("after", "at", "dead", "id", "lock", "order", "returned", "sequences", "ticket")

    def __init__(self, id: str) -> None:
        self.id = id
        self.sequences = array("Q")
        self.at = 0
        self.returned: list[int] = []
        self.dead = 0
        self.lock: SessionLock | None = None
        self.after = 0
        """It stands behind the messages that had come when it was last held."""
        self.order = 0
        self.ticket = 0
        """That of its newest entry among those that are ready; 0: none."""

    @property
    def empty(self) -> bool:
        return self.dead >= len(self.sequences)

    def add(self, sequence: int) -> None:
        """The newest message."""
        self.sequences.append(sequence)

    def give_back(self, sequence: int) -> None:
        """A message that may have been passed can be delivered again."""
        if self.at == len(self.sequences) or sequence < self.sequences[self.at]:
            heapq.heappush(self.returned, sequence)

    def first(self, deliverable: Callable[[int, int], bool], now: int) -> int | None:
        """The lowest sequence that can be delivered. What cannot is passed, and given back once it can."""
        returned, sequences, at = self.returned, self.sequences, self.at
        while returned and not deliverable(returned[0], now):
            heapq.heappop(returned)
        while at < len(sequences) and not deliverable(sequences[at], now):
            at += 1
        self.at = at
        if returned:
            return returned[0]  # Lower than all that has not been passed.
        return sequences[at] if at < len(sequences) else None

    def take(self, sequence: int) -> None:
        """What `first` named is delivered."""
        if self.at < len(self.sequences) and self.sequences[self.at] == sequence:
            self.at += 1
        while self.returned and self.returned[0] == sequence:
            heapq.heappop(self.returned)

    def bury(self, alive: Callable[[int], bool]) -> None:
        """One of its messages died."""
        self.dead += 1
        if self.dead > DEAD_MIN and 2 * self.dead > len(self.sequences):
            self.sweep(alive)

    def sweep(self, alive: Callable[[int], bool]) -> None:
        """Forgets all that died."""
        passed = sum(1 for sequence in self.sequences[: self.at] if alive(sequence))
        self.sequences = array("Q", filter(alive, self.sequences))
        self.at, self.dead = passed, 0

    def since(self, start: int) -> array[int]:
        """Its messages from a sequence on; dead ones may be among them."""
        return self.sequences[bisect_left(self.sequences, start) :]
