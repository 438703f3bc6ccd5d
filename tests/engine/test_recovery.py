"""What the file engine finds after a crash, and what it says of damage."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hubbub.engine import segment as fmt
from hubbub.engine.cleaning import Cleaner
from hubbub.engine.disk import Disk
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Corrupt, EngineError, Full, Owned, Put
from hubbub.engine.recovery import verify

SEGMENT = 1 << 14


async def commit(engine, puts=(), **burials):
    outcome = asyncio.get_running_loop().create_future()
    engine.append(puts, 1000, outcome.set_result, **burials)
    return await outcome


def with_engine(path, work, **options):
    """Opens, works, closes; returns what the work returns."""

    async def main():
        engine = FileEngine(str(path), segment_bytes=options.pop("segment_bytes", SEGMENT), **options)
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


def contents(path, **options):
    """Every log's live records."""

    async def read(engine):
        return {log.name: [r.payload for r in log.read(0, 10**6, 10**9)] for log in engine.logs()}

    return with_engine(path, read, **options)


@pytest.fixture
def two_appends(tmp_path):
    """A journal with a first append and a second one of three records; where the second begins."""
    places = {}

    async def work(engine):
        a, b = engine.open("a"), engine.open("b")
        await commit(engine, [Put(a, b"first")])
        places["second"] = engine.active.end
        await commit(engine, [Put(a, b"x" * 20), Put(b, b"y" * 20), Put(b, b"z")], dead=[(a, 0)])
        places["end"] = engine.active.end

    path = tmp_path / "data"
    with_engine(path, work)
    return path, places["second"], places["end"]


def torn(path, tmp_path, change):
    """A copy of the folder whose journal is changed."""
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    file = copy / "00000001.journal"
    data = bytearray(file.read_bytes())
    file.write_bytes(change(data))
    return copy


def test_truncated_at_every_byte_of_the_last_append(two_appends, tmp_path):
    path, second, end = two_appends
    whole = (path / "00000001.journal").read_bytes()
    for cut in range(second, len(whole[:end].rstrip(b"\0"))):
        found = contents(torn(path, tmp_path, lambda data, cut=cut: data[:cut] + bytes(len(data) - cut)))
        assert found["a"] == [b"first"], cut
        assert found.get("b", []) == [], cut


def test_every_byte_of_the_last_append_flipped(two_appends, tmp_path):
    path, second, end = two_appends

    def flip(at):
        def change(data):
            data[at] ^= 0xFF
            return data

        return change

    for at in range(second, end):
        found = contents(torn(path, tmp_path, flip(at)))
        assert found["a"] == [b"first"], at
        assert found.get("b", []) == [], at


def test_what_is_cut_is_told_and_stays_cut(two_appends, tmp_path):
    path, second, end = two_appends
    copy = torn(path, tmp_path, lambda data: data[: end - 9] + bytes(len(data) - end + 9))

    async def look(engine):
        recovery = engine.recovery
        await commit(engine, [Put(engine.open("a"), b"after")])
        return recovery

    recovery = with_engine(copy, look)
    assert recovery.bytes_cut > 0
    assert recovery.path.endswith("00000001.journal")
    assert contents(copy)["a"] == [b"first", b"after"]
    assert list(verify(str(copy))) == []


@pytest.mark.parametrize("where", ["entry", "header"])
def test_damage_to_acknowledged_data_is_reported(two_appends, tmp_path, where):
    path, second, _ = two_appends
    at = second - 3 if where == "entry" else 3

    def flip(data):
        data[at] ^= 1
        return data

    copy = torn(path, tmp_path, flip)
    with pytest.raises(Corrupt, match=r"00000001\.journal: offset \d+"):
        contents(copy)
    assert len(list(verify(str(copy)))) == 1


def test_damage_is_found_on_reading(tmp_path):
    async def work(engine):
        log = engine.open("a")
        await commit(engine, [Put(log, b"payload")])
        (file,) = Path(engine.path).glob("*.journal")
        data = file.read_bytes()
        with open(file, "r+b") as handle:
            handle.seek(data.index(b"payload"))
            handle.write(b"PAYLOAD")
        with pytest.raises(Corrupt, match=r"offset \d+.*'a'"):
            log.get(0)
        with pytest.raises(Corrupt):
            log.read(0, 1, 100)

    with_engine(tmp_path / "d", work)


def test_payloads_cannot_forge_a_flush_mark(tmp_path):
    """A torn tail that holds what looks like a later flush is still a torn tail."""

    async def work(engine):
        log = engine.open("a")
        forged = b"".join(fmt.encode(fmt.FLUSH, 0, 10**6, 0, 0, b"\0" * 8))
        await commit(engine, [Put(log, b"kept")])
        begin = engine.active.end
        await commit(engine, [Put(log, forged)])
        return begin

    path = tmp_path / "d"
    begin = with_engine(path, work)

    def break_it(data):
        data[begin] ^= 1
        return data

    assert contents(torn(path, tmp_path, break_it))["a"] == [b"kept"]


def test_everything_survives_a_restart(tmp_path):
    path = tmp_path / "d"

    async def work(engine):
        a, b, gone = engine.open("a", 1), engine.open("b"), engine.open("gone")
        for n in range(2000):
            await commit(engine, [Put(a, b"%d" % n), Put(b, b"span" * 5, 3), Put(gone, b"x")])
        await commit(engine, dead=[(a, s) for s in range(1, 1900)], trims=[(b, 3000)], drops=[gone])
        return a.next, b.next

    nexts = with_engine(path, work)

    async def look(engine):
        logs = {log.name: log for log in engine.logs()}
        a, b = logs["a"], logs["b"]
        assert sorted(logs) == ["a", "b"]
        assert (a.next, b.next) == nexts
        assert [r.payload for r in a.read(0, 999, 9999)] == [b"%d" % n for n in range(1899, 2000)]
        assert (a.first, a.count) == (1900, 101)
        assert (b.first, b.count) == (3000, 3000)

    with_engine(path, look)
    with_engine(path, look)


def test_a_sequence_never_goes_back(tmp_path):
    path = tmp_path / "d"

    async def work(engine):
        log, other = engine.open("a"), engine.open("other")
        for n in range(500):
            sequence = log.next
            await commit(engine, [Put(log, b"x" * 100)])
            await commit(
                engine, [Put(other, b"y")], dead=[(log, sequence), (other, n - 1)] if n else [(log, 0)]
            )
        await asyncio.sleep(0.05)
        return log.next

    following = with_engine(path, work, segment_bytes=4096)

    async def look(engine):
        assert engine.open("a").next == following

    with_engine(path, look)


def segments(path):
    return sorted(path.glob("*.journal"))


def test_one_old_message_does_not_keep_the_space_of_thousands(tmp_path):
    """A queue through which very many messages passed, with their notes, while one stays."""
    path = tmp_path / "d"

    async def work(engine):
        queue, notes = engine.open("queue", 1), engine.open("notes")
        await commit(engine, [Put(queue, b"the old one")])
        await commit(engine, [Put(notes, b"deferred")])
        for _ in range(300):
            first, note = queue.next, notes.next
            await commit(engine, [Put(queue, b"m" * 60) for _ in range(20)])
            await commit(engine, [Put(notes, b"locked") for _ in range(20)])
            dead = [(queue, first + n) for n in range(20)] + [(notes, note + n) for n in range(20)]
            await commit(engine, dead=dead)
        for _ in range(40):
            await commit(engine, [])
        await asyncio.sleep(0.1)

    with_engine(path, work)
    assert len(segments(path)) <= 4
    found = contents(path)
    assert found == {"queue": [b"the old one"], "notes": [b"deferred"]}


def test_burials_outlive_the_segment_they_stand_in(tmp_path):
    """The first segment stays because much in it lives; those that bury its dead are cleaned away."""
    path = tmp_path / "d"

    async def work(engine):
        keep, passing = engine.open("keep"), engine.open("passing")
        while len(engine.segments) == 1:
            await commit(engine, [Put(keep, b"k" * 100)])
        victims = list(range(0, keep.durable, 5))
        for victim in victims:
            at = passing.next
            await commit(engine, [Put(passing, b"p" * 200)], dead=[(keep, victim)])
            await commit(engine, dead=[(passing, at)])
        for _ in range(200):
            at = passing.next
            await commit(engine, [Put(passing, b"p" * 300)])
            await commit(engine, dead=[(passing, at)])
        for _ in range(80):
            await commit(engine)
            await asyncio.sleep(0)
        return keep.count

    count = with_engine(path, work)
    numbers = [int(s.stem) for s in segments(path)]
    assert numbers[0] == 1
    assert len(numbers) < numbers[-1]
    assert len(contents(path)["keep"]) == count


def test_a_crash_between_copy_and_removal_changes_nothing(tmp_path, monkeypatch):
    """The folder as it is just before each of the first removals holds what it should."""
    remove = Cleaner._remove
    snapshots = []

    def snapshot_first(cleaner, segment):
        engine = cleaner._engine
        if len(snapshots) < 6:
            copy = tmp_path / f"copy{len(snapshots)}"
            shutil.copytree(engine.path, copy)
            alive = {log.name: [r.payload for r in log.read(0, 10**6, 10**9)] for log in engine.logs()}
            snapshots.append((copy, alive))
        remove(cleaner, segment)

    monkeypatch.setattr(Cleaner, "_remove", snapshot_first)

    async def work(engine):
        log, other = engine.open("a"), engine.open("b")
        for n in range(400):
            await commit(engine, [Put(log, b"%d" % n), Put(other, b"o" * 50)])
            if n % 3:
                await commit(engine, dead=[(other, n), (log, n)])
        for _ in range(100):
            await commit(engine)
            await asyncio.sleep(0)

    with_engine(tmp_path / "d", work, segment_bytes=8192)
    monkeypatch.undo()
    assert len(snapshots) == 6
    for copy, alive in snapshots:
        assert contents(copy) == alive


class Failing(Disk):
    """Fails the calls it is told to."""

    def __init__(self):
        self.errors = {}

    def _maybe(self, name):
        if name in self.errors:
            raise OSError(self.errors[name], os.strerror(self.errors[name]))

    def create(self, path, size):
        self._maybe("create")
        return super().create(path, size)

    def flush(self, descriptor):
        self._maybe("flush")
        super().flush(descriptor)


def test_a_full_disk_refuses_and_recovers(tmp_path):
    disk = Failing()
    path = tmp_path / "d"

    async def work(engine):
        log = engine.open("a")
        kept = 0
        disk.errors["create"] = 28
        for _ in range(300):
            outcome = await commit(engine, [Put(log, b"x" * 100)])
            if outcome is not None:
                assert isinstance(outcome, Full)
                break
            kept += 1
        assert log.next == log.durable == kept
        del disk.errors["create"]
        assert await commit(engine, [Put(log, b"again")]) is None
        return kept

    kept = with_engine(path, work, disk=disk)
    assert contents(path)["a"] == [b"x" * 100] * kept + [b"again"]


def test_what_cleaning_copied_later_than_what_died_before_it(tmp_path):
    """The copy of a record stands behind the burial of an older one, whose death leaves the log empty so far."""
    path = tmp_path / "d"

    async def work(engine):
        slow, busy = engine.open("slow"), engine.open("busy")
        ends = []
        for number in (1, 2):
            await commit(engine, [Put(slow, b"%d" % number)])
            while engine.active.number == number:
                await commit(engine, [Put(busy, b"x" * 500)])
            ends.append(busy.next - 1)
        for oldest, end in enumerate(ends):
            await commit(engine, trims=[(busy, end)])
            while oldest + 1 in engine.segments:
                await commit(engine)
            if oldest == 0:
                await commit(engine, dead=[(slow, 0)])
        assert [r.payload for r in slow.read(0, 9, 999)] == [b"2"]

    with_engine(path, work)
    assert contents(path)["slow"] == [b"2"]


class Small(Disk):
    """A disk with room for so many bytes of journal."""

    def __init__(self, path, room):
        self.path, self.room = path, room

    def create(self, path, size):
        taken = 0
        for file in self.path.glob("*.journal"):
            with contextlib.suppress(FileNotFoundError):  # Cleaning works meanwhile.
                taken += file.stat().st_size
        if taken + size > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(path, size)


async def fill(engine, log, size):
    while await commit(engine, [Put(log, b"x" * size)]) is None:
        pass
    return log.next


def test_a_full_disk_can_be_emptied(tmp_path):
    path = tmp_path / "d"
    large = 16 * SEGMENT
    disk = Small(path, 7 * large // 2)

    async def work(engine):
        log = engine.open("a")
        count = await fill(engine, log, 1000)
        assert count * 1000 > 2 * large
        for start in range(0, count, 3):
            dead = [(log, sequence) for sequence in range(start, min(count, start + 3))]
            assert await commit(engine, dead=dead) is None
        assert log.count == 0
        for _ in range(100):
            assert await commit(engine) is None
            await asyncio.sleep(0)
        assert await commit(engine, [Put(log, b"again")]) is None

    with_engine(path, work, disk=disk, segment_bytes=large)
    assert contents(path)["a"] == [b"again"]


def test_a_full_disk_can_be_emptied_after_a_restart(tmp_path):
    path = tmp_path / "d"
    disk = Small(path, SEGMENT * 7 // 2)

    async def first(engine):
        return await fill(engine, engine.open("a"), 200)

    async def second(engine):
        log = engine.open("a")
        for start in range(0, count, 5):
            dead = [(log, sequence) for sequence in range(start, min(count, start + 5))]
            assert await commit(engine, dead=dead) is None

    count = with_engine(path, first, disk=disk)
    with_engine(path, second, disk=disk)
    assert contents(path, disk=disk)["a"] == []


def test_cleaning_without_room_for_copies_harms_nobody(tmp_path):
    path = tmp_path / "d"

    async def work(engine):
        log = engine.open("a")
        large = await fill(engine, log, 4000)
        assert await commit(engine, dead=[(log, 0), (log, 1)]) is None
        # One record keeps the first segment, and there is no room for its copy; small ones have some.
        for _ in range(40):
            assert await commit(engine, [Put(log, b"small")]) is None
        assert engine._cleaner._roomless == engine.active.number
        assert log.get(2).payload == b"x" * 4000
        return large

    large = with_engine(path, work, disk=Small(path, SEGMENT * 5 // 2))
    assert contents(path)["a"] == [b"x" * 4000] * (large - 2) + [b"small"] * 40


def test_after_a_failed_flush_nothing_is_promised_any_more(tmp_path):
    disk = Failing()

    async def work(engine):
        log = engine.open("a")
        assert await commit(engine, [Put(log, b"kept")]) is None
        disk.errors["flush"] = 5
        assert isinstance(await commit(engine, [Put(log, b"x")]), EngineError)
        del disk.errors["flush"]
        assert isinstance(await commit(engine, [Put(log, b"y")]), EngineError)
        assert log.durable == 1

    with_engine(tmp_path / "d", work, disk=disk)


def test_one_owner(tmp_path):
    path = tmp_path / "d"

    async def work(engine):
        code = (
            "import sys; from hubbub.engine.file import FileEngine; from hubbub.engine.log import Owned\n"
            "try: FileEngine(sys.argv[1])\nexcept Owned as e: print(e); sys.exit(7)"
        )
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 7
        assert f"pid {os.getpid()}" in done.stdout

    with_engine(path, work)
    assert Owned


def test_unknown_versions_are_not_guessed(tmp_path):
    path = tmp_path / "d"

    async def nothing(engine):
        return None

    with_engine(path, nothing)
    (file,) = segments(path)
    data = bytearray(file.read_bytes())
    body = fmt.HEADER.pack(fmt.MAGIC, 99, 1, data[16:24], 0)[:-4]
    data[: fmt.HEADER.size] = body + fmt.crc32(body).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(Corrupt, match="version 99"):
        contents(path)
