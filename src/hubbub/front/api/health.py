"""Health: a server whose sends hang is not healthy, so it is asked by a real write and read."""

from __future__ import annotations

import asyncio

from ...broker.receiver import busy
from ...clock import Clock
from ...engine.log import Engine, EngineError, Put

PROBE_SECONDS_MAX = 5.0
FRESH = 200
"""Milliseconds for which one probe's answer serves all who ask."""


class Probe:
    """Appends a record to a log of its own and reads it back; the record before it dies."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._log = engine.open("$health")
        self._task: asyncio.Task[bool] | None = None
        self._asked = 0
        self._healthy = False

    async def __call__(self) -> bool:
        """Whether a record can be made durable and read within the time."""
        now = self._clock.now()
        if self._task is None and now - self._asked < FRESH:
            return self._healthy
        if self._task is None:
            self._task = asyncio.create_task(self._probe())
        try:
            return await asyncio.wait_for(asyncio.shield(self._task), PROBE_SECONDS_MAX)
        except TimeoutError:
            return False

    async def _probe(self) -> bool:
        now = self._clock.now()
        try:
            self._healthy = await self._round_trip(now)
        except EngineError:
            self._healthy = False
        finally:
            self._task = None
            self._asked = self._clock.now()
        return self._healthy

    async def _round_trip(self, now: int) -> bool:
        log, future = self._log, asyncio.get_running_loop().create_future()
        sequence = log.next
        dead = ((log, sequence - 1),) if log.alive(sequence - 1) else ()
        mark = b"%d" % now
        self._engine.append((Put(log, mark),), now, future.set_result, dead=dead)
        if busy(await future) is not None:
            return False
        record = log.get(sequence)
        return record is not None and record.payload == mark
