"""A journal on the disk, broken in any way, and opened.

A journal is made whose state after each append is known. A copy is bent: bytes flipped, cut, inserted,
zeroed, blocks repeated elsewhere, files swapped. Opening it gives a state the journal once had, as after a
crash (a torn tail), or `Corrupt` with the file and the offset. Never anything else, and never a record that
was not appended.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.engine import cleaning
from hubbub.engine import segment as fmt
from hubbub.engine.disk import Disk
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Corrupt, Put
from hubbub.engine.recovery import verify

SEGMENT_BYTES = 4096
State = dict[str, list[tuple[int, int, bytes]]]


class Lazy(Disk):
    def flush(self, descriptor: int) -> None:
        pass

    def flush_folder(self, path: str) -> None:
        pass


def state_of(engine: FileEngine) -> State:
    found = {}
    for log in engine.logs():
        alive = [s for s in range(log.first, log.durable) if log.alive(s)]
        found[log.name] = [(s, log.durable, log.get(s).payload) for s in alive] or [(-1, log.durable, b"")]
    return found


async def grow(engine: FileEngine, groups: int) -> list[State]:
    """A busy queue and its notes, a hub that is trimmed, a log that is dropped; all states it went through."""
    chance = random.Random(7)
    states = [{}]
    queue, notes, hub, gone = (engine.open(name) for name in ("queue", "notes", "hub", "gone"))
    for n in range(groups):
        puts = [Put(queue, b"q%d " % n * chance.randrange(1, 30)), Put(notes, b"n%d" % n)]
        if n % 3 == 0:
            puts.append(Put(hub, b"h%d" % n * 9, chance.randrange(1, 5)))
        alive = [s for s in range(queue.first, queue.durable) if queue.alive(s)]
        dead = [(queue, s) for s in alive if chance.random() < 0.3] + [(notes, n - 2)] * (n > 2)
        drops = [gone] if n == groups // 2 else []
        if n < groups // 2:
            puts.append(Put(gone, b"g"))
        told: list[object] = []
        engine.append(
            puts,
            1000 + n,
            told.append,
            dead=dead,
            trims=[(hub, max(0, hub.next - 3))] * (n % 5 == 0),
            drops=drops,
        )
        while not told:
            await asyncio.sleep(0)
        assert told == [None]
        states.append(state_of(engine))
    return states


class Journal:
    """A folder, and every state it had. `cleaned`: segments have been copied out and removed."""

    def __init__(self, groups: int, cleaned: bool) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="journal-"))
        period = cleaning.FLUSHES_BETWEEN_LOOKS
        cleaning.FLUSHES_BETWEEN_LOOKS = 1 if cleaned else 1 << 30
        try:
            self.states = asyncio.run(self._make(groups))
        finally:
            cleaning.FLUSHES_BETWEEN_LOOKS = period
        self.files = {file.name: file.read_bytes() for file in sorted(self.path.glob("*.journal"))}
        self.records = {
            (name, sequence, payload)
            for state in self.states
            for name, records in state.items()
            for sequence, _, payload in records
        }
        shutil.rmtree(self.path)

    async def _make(self, groups: int) -> list[State]:
        engine = FileEngine(str(self.path), segment_bytes=SEGMENT_BYTES, disk=Lazy())
        states = await grow(engine, groups)
        await engine.close()
        return states


def open_files(files: dict[str, bytes]) -> tuple[State, int]:
    """What the engine finds in these files, and that it can go on from there. Raises Corrupt."""
    folder = Path(tempfile.mkdtemp(prefix="broken-"))
    try:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        problems = list(verify(str(folder)))
        return asyncio.run(_visit(folder)), len(problems)
    finally:
        shutil.rmtree(folder)


async def _visit(folder: Path) -> State:
    engine = FileEngine(str(folder), segment_bytes=SEGMENT_BYTES, disk=Lazy())
    found = state_of(engine)
    told: list[object] = []
    engine.append([Put(engine.open("queue"), b"after")], 5000, told.append)
    while not told:
        await asyncio.sleep(0)
    assert told == [None]
    after = state_of(engine)
    await engine.close()
    again = FileEngine(str(folder), segment_bytes=SEGMENT_BYTES, disk=Lazy())
    assert state_of(again) == after
    await again.close()
    return found


def named(state: State) -> State:
    """A log that is known and has nothing says no more than one that is not."""
    return {name: records for name, records in state.items() if records[0][1]}


@pytest.fixture(scope="module")
def plain() -> Journal:
    return Journal(60, cleaned=False)


@pytest.fixture(scope="module")
def cleaned() -> Journal:
    return Journal(150, cleaned=True)


FILE = st.integers(0, 100)
PLACE = st.integers(0, 1 << 16) | st.integers(-200, -1)
LENGTH = st.integers(1, 40) | st.integers(1, 3000)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), FILE, PLACE, st.integers(0, 7)),
        st.tuples(st.just("cut"), FILE, PLACE, st.just(0)),
        st.tuples(st.just("zero"), FILE, PLACE, LENGTH),
        st.tuples(st.just("blank"), FILE, PLACE, st.just(0)),
        st.tuples(st.just("insert"), FILE, PLACE, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("remove"), FILE, PLACE, LENGTH),
        st.tuples(st.just("repeat"), FILE, PLACE, LENGTH, FILE, PLACE),
        st.tuples(st.just("append"), FILE, PLACE, st.integers(1, 6), FILE),
        st.tuples(st.just("splice"), FILE, PLACE, st.integers(1, 6), FILE, PLACE),
        st.tuples(st.just("swap"), FILE, FILE),
    ),
    min_size=1,
    max_size=3,
)


def used_of(data: bytes) -> int:
    return max(fmt.HEADER.size, len(data.rstrip(b"\0")))


def starts(data: bytes) -> list[int]:
    """Where the entries of a segment begin, the end included."""
    found = [fmt.HEADER.size]
    while (entry := fmt.entry_at(memoryview(data), found[-1])) is not None:
        found.append(found[-1] + entry.size)
    return found


def changed(files: dict[str, bytes], changes: list[tuple]) -> dict[str, bytes]:
    files = dict(files)
    names = list(files)
    for kind, nth, *rest in changes:
        name = names[nth % len(names)]
        data = files[name]
        if kind == "swap":
            other = names[rest[0] % len(names)]
            files[name], files[other] = files[other], data
            continue
        at = rest[0] % max(1, min(used_of(data), len(data)))
        files[name] = bent(kind, data, at, rest)
        if kind in ("repeat", "append", "splice"):
            other = names[rest[2] % len(names)]
            files[name] = data
            files[other] = with_block(kind, data, files[other], at, rest)
    return files


def bent(kind: str, data: bytes, at: int, rest: list) -> bytes:
    if kind == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << rest[1]]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "zero":
        return data[:at] + bytes(min(rest[1], len(data) - at)) + data[at + rest[1] :]
    if kind == "blank":
        return data[:at] + bytes(len(data) - at)
    if kind == "insert":
        return data[:at] + rest[1] + data[at:]
    if kind == "remove":
        return data[:at] + data[at + rest[1] :]
    return data


def with_block(kind: str, source: bytes, target: bytes, at: int, rest: list) -> bytes:
    """A block of bytes over others, or whole entries behind the last one or in between."""
    if kind == "repeat":
        to = rest[3] % used_of(target)
        block = source[at : at + rest[1]]
        return target[:to] + block + target[to + len(block) :]
    edges, ends = starts(source), starts(target)
    first = at % len(edges)
    block = source[edges[first] : edges[min(first + rest[1], len(edges) - 1)]]
    if kind == "append":
        return target[: ends[-1]] + block + target[ends[-1] + len(block) :]
    to = ends[rest[3] % len(ends)]
    return target[:to] + block + target[to:]


def opened(journal: Journal, changes: list[tuple]) -> State | None:
    """The state found, or None if the damage was told as it should be."""
    try:
        found, problems = open_files(changed(journal.files, changes))
    except Corrupt as error:
        told = str(error)
        found = None
    if found is None:
        assert re.search(r"/\d{8}\.journal: offset \d+: ", told), told
        return None
    invented = {(name, s, p) for name, records in found.items() for s, _, p in records} - journal.records
    assert {i for i in invented if i[1] >= 0} == set()
    return found


@given(changes=CHANGES)
@settings(max_examples=settings.default.max_examples * 3)
def test_a_broken_journal_is_an_older_one_or_none(plain: Journal, changes: list[tuple]) -> None:
    found = opened(plain, changes)
    if found is not None:
        assert named(found) in [named(state) for state in plain.states]


@given(changes=CHANGES)
@settings(max_examples=settings.default.max_examples * 2)
def test_a_broken_journal_that_was_cleaned_invents_nothing(cleaned: Journal, changes: list[tuple]) -> None:
    opened(cleaned, changes)


def test_the_journals_are_worth_breaking(plain: Journal, cleaned: Journal) -> None:
    assert len(plain.files) > 2
    assert min(plain.files) == "00000001.journal"
    assert min(cleaned.files) > "00000003.journal"
    for journal in (plain, cleaned):
        assert open_files(journal.files) == (journal.states[-1], 0)


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_any_bytes_as_a_segment(data: bytes, salt: bytes) -> None:
    head = fmt.encode_header(1, salt[:8].ljust(8, b"\0"))
    for content in (data, head + data, head + b"".join(fmt.encode(fmt.LOGS, 0, 1, 0, 0, b"")) + data):
        try:
            found, _ = open_files({"00000001.journal": content})
        except Corrupt as error:
            told = str(error)
        else:
            told = "00000001.journal: offset 0: " if found == {} else ""
        assert re.search(r"00000001\.journal: offset \d+: ", told)
