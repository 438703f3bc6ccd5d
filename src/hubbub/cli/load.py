"""What all clients of one `bench` share: what is to be done, when it is over, and what came of it.

Each body begins with a mark of this run and the moment of its sending, so that whoever reads it can tell how
long it took. Both moments are told by this process, so no two clocks are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from .client import Failure
from .latency import Latencies

STAMP_BYTES = 24
LOST_SECONDS = 5
"""What does not arrive within that time behind the one before is taken for lost."""


@dataclass(frozen=True, slots=True)
class Load:
    """The options of `bench`. `count` 0: as many messages as there is time for."""

    mode: str
    protocol: str
    entity: str
    clients: int
    size: int
    batch: int
    window: int
    seconds: float
    count: int
    end_to_end: bool
    group: str


@dataclass(slots=True)
class Run:
    """`answers`: seconds of each request. `arrivals`: seconds from the sending of a message to its receipt.
    `sent`: messages the server has accepted."""

    load: Load
    answers: Latencies = field(default_factory=Latencies)
    arrivals: Latencies = field(default_factory=Latencies)
    sent: int = 0
    errors: int = 0
    seconds: float = 0.0
    first_error: Failure | None = None
    note: str = ""
    _mark: bytes = field(default_factory=lambda: secrets.token_hex(4).encode())
    _began: float = 0.0
    _left: float = 0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        self._began = time.perf_counter()
        self._left = self.load.count or float("inf")

    def take(self) -> int:
        """How many messages the next request is to hold; 0 when the run is over."""
        if self._left <= 0 or time.perf_counter() - self._began >= self.load.seconds:
            return 0
        count = int(min(self._left, self.load.batch if self.load.mode == "batch" else 1))
        self._left -= count
        return count

    def body(self) -> bytes:
        """A body of the size wanted, stamped if there is room."""
        size = self.load.size
        if size < STAMP_BYTES:
            return b"x" * size
        moment = int((time.perf_counter() - self._began) * 1e9)
        return b"%b%016d" % (self._mark, moment) + b"x" * (size - STAMP_BYTES)

    def answered(self, start: float, count: int) -> None:
        """The server has accepted a request that was begun at `start`."""
        now = time.perf_counter()
        self.answers.add(now - start)
        self.sent += count
        self.seconds = now - self._began

    def refused(self, error: Failure) -> None:
        """A request failed. Raises the error if no other request will fare better."""
        if error.lost or error.code in (3, 4, 7):
            raise error
        self.errors += 1
        self.first_error = self.first_error or error

    def arrived(self, data: bytes) -> None:
        """Something was read; messages of this run are recognised in it."""
        stamps = re.findall(self._mark + rb"(\d{16})", data)
        if not stamps:
            return
        now = time.perf_counter() - self._began
        for stamp in stamps:
            self.arrivals.add(now - int(stamp) / 1e9)
        self._arrived.set()

    async def until_arrived(self, count: int) -> bool:
        """Whether so many arrived in the end; gives up when none comes for LOST_SECONDS."""
        with contextlib.suppress(TimeoutError):
            while self.arrivals.count < count:
                self._arrived.clear()
                async with asyncio.timeout(LOST_SECONDS):
                    await self._arrived.wait()
        return self.arrivals.count >= count

    def progress(self) -> float:
        """How much of the run is done, from 0 to 1."""
        if not self._began:
            return 0.0
        time_share = (time.perf_counter() - self._began) / self.load.seconds
        return min(1.0, max(time_share, self.sent / self.load.count if self.load.count else 0))

    async def conduct(
        self, senders: Iterable[Coroutine[Any, Any, None]], readers: Iterable[asyncio.Task[None]]
    ) -> None:
        """Lets the senders work to their end, and the readers until they have it all."""
        readers = list(readers)
        self.begin()
        try:
            await asyncio.gather(*senders)
            if readers:
                await self.until_arrived(self.sent)
        finally:
            for reader in readers:
                reader.cancel()
        for ended in await asyncio.gather(*readers, return_exceptions=True):
            if isinstance(ended, Failure):
                self.note = f"a reader ended early: {ended}"
