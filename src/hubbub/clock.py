"""The only module that asks the machine for the time.

Moments are integer milliseconds since 1970 UTC, as on the wire; lengths are integer milliseconds.
Every timer of the house hangs on one clock, so a test jumps time instead of sleeping.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that will be made later, unless it is cancelled first."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Tells the time and calls back at a moment."""

    def now(self) -> int: ...

    def call_at(self, moment: int, callback: Callable[[], object]) -> Timer: ...


class SystemClock:
    """Real time on the running event loop."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at(self, moment: int, callback: Callable[[], object]) -> Timer:
        # A loop timer may fire up to a millisecond early against the wall clock, hence the one extra.
        delay = max(0, moment - self.now() + 1) / 1000
        return asyncio.get_running_loop().call_later(delay, callback)


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object] | None) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Time that moves only when told to: `advance` fires, in order, every timer it passes."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self._now = now
        self._timers: list[tuple[int, int, _ManualTimer]] = []
        self._order = itertools.count()

    def now(self) -> int:
        return self._now

    def call_at(self, moment: int, callback: Callable[[], object]) -> Timer:
        timer = _ManualTimer(callback)
        heapq.heappush(self._timers, (moment, next(self._order), timer))
        return timer

    def advance(self, milliseconds: int) -> None:
        until = self._now + milliseconds
        while self._timers and self._timers[0][0] <= until:
            moment, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, moment)
            if timer.callback is not None:
                timer.callback()
        self._now = until
