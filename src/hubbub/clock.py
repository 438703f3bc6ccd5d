"""The only module that asks the machine for the time.

Moments are integer milliseconds since 1970 UTC, as on the wire; lengths are integer milliseconds.
Every timer of the house hangs on one clock, so a test jumps time instead of sleeping.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Protocol

SLICE = 4
"""Milliseconds of work for timers before everything else has its turn."""
LOOK = 10_000
"""Milliseconds after which the clock is looked at in any case: somebody may have set it."""
AT_ONCE = 1
"""A moment that is over."""
STALE_MAX = 1_000
"""Moments without timers that are kept, besides as many as there are with."""


class Timer(Protocol):
    """A call that will be made later, unless it is cancelled first."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Tells the time and calls back at a moment."""

    def now(self) -> int: ...

    def call_at(self, moment: int, callback: Callable[[], object]) -> Timer: ...


class SystemClock:
    """Real time on the running event loop.

    However many timers there are, the loop has one, for the next of them. Those that are due are called in
    slices, so that a million at one moment keep nobody waiting; those that are cancelled go at once.
    """

    __slots__ = ("_armed", "_firing", "_handle", "_moments", "_stale", "_timers")

    def __init__(self) -> None:
        self._timers: dict[int, dict[_SystemTimer, None]] = {}
        """By moment, and in the order in which they were set."""
        self._moments: list[int] = []
        """A heap of the moments, and of some for which there are no timers any more."""
        self._stale = 0
        self._firing: Iterator[_SystemTimer] = iter(())
        """Those of one moment that is over."""
        self._handle: asyncio.TimerHandle | None = None
        self._armed = 0
        """The moment for which the loop's timer is set; 0: for none."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def call_at(self, moment: int, callback: Callable[[], object]) -> Timer:
        timer = _SystemTimer(self, moment, callback)
        timers = self._timers.get(moment)
        if timers is None:
            self._timers[moment] = {timer: None}
            heapq.heappush(self._moments, moment)
            if not self._armed or moment < self._armed:
                self._arm(moment)
        else:
            timers[timer] = None
        return timer

    def _forget(self, timer: _SystemTimer) -> None:
        timers = self._timers.get(timer.moment)
        if timers is None or timer not in timers:
            return  # It is one of those that are being called.
        del timers[timer]
        if not timers:
            del self._timers[timer.moment]
            self._stale += 1
            if self._stale > len(self._timers) + STALE_MAX:
                self._moments = list(self._timers)
                heapq.heapify(self._moments)
                self._stale = 0

    def _arm(self, moment: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = moment
        # A loop's timer may fire up to a millisecond early against the wall clock, hence the one extra.
        delay = min(max(0, moment - self.now() + 1), LOOK)
        self._handle = asyncio.get_running_loop().call_later(delay / 1000, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._armed = AT_ONCE  # Those that are set meanwhile arm nothing: that is done at the end.
        began = now = self.now()
        while (timer := self._next(now)) is not None:
            timer.fire()
            now = self.now()
            if not 0 <= now - began < SLICE:
                self._arm(AT_ONCE)
                return
        self._armed = 0
        if self._moments:
            self._arm(self._moments[0])

    def _next(self, now: int) -> _SystemTimer | None:
        """The next one that is due."""
        while True:
            for timer in self._firing:
                if timer.callback is not None:
                    return timer
            if not self._moments or self._moments[0] > now:
                return None
            timers = self._timers.pop(heapq.heappop(self._moments), None)
            if timers is None:
                self._stale -= 1
            else:
                self._firing = iter(list(timers))


class _SystemTimer:
    __slots__ = ("callback", "clock", "moment")

    def __init__(self, clock: SystemClock, moment: int, callback: Callable[[], object]) -> None:
        self.clock = clock
        self.moment = moment
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self.clock._forget(self)

    def fire(self) -> None:
        """One that fails is told of, and keeps no others from their turn."""
        callback, self.callback = self.callback, None
        assert callback is not None
        try:
            callback()
        except Exception as error:
            context = {"message": f"a timer failed: {callback!r}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


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
