"""Many lives of a journal on a disk that is mostly full, by a seed each, against a plain dictionary.

The faults: no room for a new segment, at any time, while several appends are on their way, cleaning is at work, and
between any two lives. What was refused has not happened; what was not refused is there, then and after every restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random

import pytest

from hubbub.engine.disk import Disk
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Full, Put
from hubbub.engine.recovery import verify

SEGMENT = 1 << 14


class Small(Disk):
    """A disk with room for so many bytes of journal; without flushes, as nothing crashes here."""

    def __init__(self, folder, room):
        self.folder, self.room = folder, room

    def create(self, path, size):
        taken = 0
        for file in self.folder.glob("*.journal"):
            with contextlib.suppress(FileNotFoundError):  # Cleaning works meanwhile.
                taken += file.stat().st_size
        if taken + size > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(path, size)

    def flush(self, descriptor):
        pass


class Lives:
    def __init__(self, folder, seed):
        self.folder = folder
        self.chance = random.Random(seed)
        self.disk = Small(folder, int(SEGMENT * self.chance.uniform(1.3, 6)))
        self.model = {name: {} for name in "abc"}
        self.refused = self.done = 0

    async def live(self):
        engine = FileEngine(str(self.folder), segment_bytes=SEGMENT, disk=self.disk)
        try:
            self.compare(engine)
            for _ in range(self.chance.randint(5, 120)):
                await self.round(engine)
                self.compare(engine)
        finally:
            await engine.close()

    async def round(self, engine):
        """A few appends at once, none of which buries what another one does."""
        dying = {name: set() for name in self.model}
        under_way = []
        for _ in range(self.chance.randint(1, 4)):
            under_way.append(self.append(engine, self.chance.choice("abc"), dying))
            if self.chance.random() < 0.5:
                await asyncio.sleep(0)
        for name, first, payloads, dead, before, outcome in under_way:
            error = await outcome
            if error is None:
                self.done += 1
                records = self.model[name]
                records.update(enumerate(payloads, first))
                for sequence in dead:
                    records.pop(sequence, None)
                for sequence in [s for s in records if s < before]:
                    del records[sequence]
            else:
                assert isinstance(error, Full), error
                self.refused += 1

    def append(self, engine, name, dying):
        chance, log = self.chance, engine.open(name)
        first, payloads, dead, before = log.next, [], [], 0
        if chance.random() < 0.55:
            payloads = [
                chance.randbytes(chance.choice([5, 200, 1500, 4000])) for _ in range(chance.randint(1, 3))
            ]
        if chance.random() < 0.6:
            alive = sorted(self.model[name].keys() - dying[name])
            dead = chance.sample(alive, min(len(alive), chance.choice([1, 1, 3, 10])))
            dying[name].update(dead)
        elif chance.random() < 0.02 and self.model[name]:
            before = chance.choice(sorted(self.model[name]))
        outcome = asyncio.get_running_loop().create_future()
        engine.append(
            [Put(log, payload) for payload in payloads],
            1000,
            outcome.set_result,
            dead=[(log, sequence) for sequence in dead],
            trims=[(log, before)] if before else [],
        )
        return name, first, payloads, dead, before, outcome

    def compare(self, engine):
        for name, records in self.model.items():
            found = {r.sequence: r.payload for r in engine.open(name).read(0, 10**6, 10**9)}
            assert found == records, name


@pytest.mark.parametrize("seed", range(12))
def test_a_small_disk(tmp_path, seed):
    folder = tmp_path / "d"
    lives = Lives(folder, seed)
    for _ in range(5):
        asyncio.run(lives.live())
        assert list(verify(str(folder))) == []
    assert lives.done > 10
