"""Both engines against a naive model of the contract, over random histories.

The model keeps every record ever put and a set of the dead, and answers each question by looking at all of
them. A step appends several groups without waiting in between, so that one flush holds many; the file
engine is closed and opened, and crashes: a copy of its folder, taken while appends are on their way, must
hold a whole number of them, from the first on.

Segments are a few records long and cleaned at every chance. The disk here does not wait for the platters:
what a real crash leaves is the business of `crash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import shutil
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hubbub.engine import cleaning
from hubbub.engine.disk import Disk
from hubbub.engine.file import FileEngine
from hubbub.engine.log import EngineError, Full, Put, Record, Undone
from hubbub.engine.memory import MemoryEngine
from hubbub.engine.recovery import verify

SEGMENT_BYTES = 2048
NAMES = ("a", "b", "c")
SIZES = st.integers(0, 400) | st.sampled_from([0, 1, SEGMENT_BYTES - 100, 3000])
NUMBERS = st.integers(0, 1 << 16)
PUT = st.tuples(st.just("put"), st.sampled_from(NAMES), SIZES, st.sampled_from([1, 1, 1, 2, 5, 600]))
DEAD = st.tuples(st.just("dead"), st.sampled_from(NAMES), NUMBERS)
TRIM = st.tuples(st.just("trim"), st.sampled_from(NAMES), NUMBERS)
DROP = st.tuples(st.just("drop"), st.sampled_from(NAMES))
ACTIONS = st.one_of(PUT, PUT, PUT, DEAD, DEAD, DEAD, TRIM)
GROUPS = st.lists(st.lists(ACTIONS, max_size=6), min_size=1, max_size=4)


class ModelLog:
    """All records ever put, and which sequences are dead."""

    def __init__(self, name: str, first: int) -> None:
        self.name = name
        self.start = self.next = first
        self.records: list[Record] = []
        self.dead: set[int] = set()

    def put(self, payload: bytes, count: int, now: int) -> None:
        self.records.append(Record(self.next, count, now, payload))
        self.next += count

    def alive(self) -> list[int]:
        return [
            s for r in self.records for s in range(r.sequence, r.sequence + r.count) if s not in self.dead
        ]

    def live_records(self) -> list[tuple[int, Record]]:
        """(lowest live sequence, record) of each record of which something lives."""
        alive = self.alive()
        found = []
        for record in self.records:
            mine = [s for s in alive if record.sequence <= s < record.sequence + record.count]
            if mine:
                found.append((mine[0], record))
        return found


class Group(NamedTuple):
    """What one append is given, in terms of the model."""

    puts: list[tuple[str, bytes, int]]
    dead: list[tuple[str, int]]
    trims: list[tuple[str, int]]
    drops: list[str]


class Model:
    def __init__(self) -> None:
        self.logs: dict[str, ModelLog] = {}
        self.durable: set[str] = set()

    def apply(self, group: Group, now: int) -> None:
        self.durable |= self.logs.keys()
        for name, payload, count in group.puts:
            self.logs[name].put(payload, count, now)
        for name, sequence in group.dead:
            self.logs[name].dead.add(sequence)
        for name, before in group.trims:
            log = self.logs[name]
            log.dead |= set(range(log.start, min(before, log.next)))
        for name in group.drops:
            del self.logs[name]
            self.durable.discard(name)

    def restart(self, found: set[str]) -> None:
        """A log nothing was appended after need not be on the disk."""
        self.logs = {name: log for name, log in self.logs.items() if name in self.durable | found}


def planned(model: Model, actions: list[tuple]) -> Group:
    """Actions of a strategy, whose numbers mean any sequence that was given out, this append's included."""
    group = Group([], [], [], [])
    following = {name: log.next for name, log in model.logs.items()}
    for kind, name, *rest in actions:
        if name not in model.logs or name in group.drops:
            continue
        start = model.logs[name].start
        if kind == "put":
            group.puts.append(
                (name, (b"%s %d " % (name.encode(), following[name]) * rest[0])[: rest[0]], rest[1])
            )
            following[name] += rest[1]
        elif kind == "dead" and following[name] > start:
            # From the end: what was put last is what is most often settled next.
            group.dead.append((name, following[name] - 1 - rest[0] % (following[name] - start)))
        elif kind == "trim":
            group.trims.append((name, start + rest[0] % (following[name] - start + 10)))
    return group


def same_log(log, model: ModelLog) -> None:
    alive = model.alive()
    assert (log.next, log.durable) == (model.next, model.next)
    assert log.count == len(alive)
    live = model.live_records()
    assert log.bytes == sum(len(record.payload) for _, record in live)
    assert log.first == (model.next if not alive else min(log.first, alive[0]))
    assert list(log.read(0, 1 << 20, 1 << 40)) == [record for _, record in live]
    edges = {model.start - 1, model.start, model.next, model.next + 700}
    edges |= {s + d for r in model.records for s in (r.sequence, r.sequence + r.count) for d in (-1, 0, 1)}
    for sequence in edges:
        assert log.next_alive(sequence) == min((s for s in alive if s >= sequence), default=None)
        holder = next((r for _, r in live if r.sequence <= sequence < r.sequence + r.count), None)
        expected = holder if sequence in alive else None
        assert log.get(sequence) == expected
        assert log.alive(sequence) == (expected is not None)
    same_search(log, model, live)


def same_search(log, model: ModelLog, live: list[tuple[int, Record]]) -> None:
    for time in {record.time + d for record in model.records for d in (0, 1)}:
        assert log.find(time) == min((s for s, r in live if r.time >= time), default=model.next)
    sizes = [len(record.payload) for _, record in live]
    for bytes_max in {0, 1, 100, 1000, sum(sizes), max(0, sum(sizes) - 1)}:
        kept = [sequence for n, (sequence, _) in enumerate(live) if sum(sizes[n:]) <= bytes_max]
        assert log.keep(bytes_max) == min(kept, default=model.next)


class EngineMachine(RuleBasedStateMachine):
    """The rules both engines share."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.now = 1000
        self.fault = ""
        self.engine = self.runner.run(self.make())

    async def make(self):
        raise NotImplementedError

    def teardown(self) -> None:
        self.runner.run(self.engine.close())
        self.runner.close()

    def failing(self, *faults: str) -> bool:
        """Whether it is time to fail, which happens once."""
        now = bool(self.fault) and (not faults or self.fault in faults)
        if now:
            self.fault = ""
        return now

    def log(self, name: str):
        return next(log for log in self.engine.logs() if log.name == name)

    def submit(self, group: Group, told: list) -> None:
        self.engine.append(
            [Put(self.log(name), payload, count) for name, payload, count in group.puts],
            self.now,
            told.append,
            dead=[(self.log(name), sequence) for name, sequence in group.dead],
            trims=[(self.log(name), before) for name, before in group.trims],
            drops=[self.log(name) for name in group.drops],
        )

    def submit_all(self, groups: list[list[tuple]], told: list, model: Model | None = None) -> list[Model]:
        """Appends without waiting; the models after none, one, … of the appends."""
        models = [model or self.model]
        for actions in groups:
            group = planned(models[-1], actions)
            self.submit(group, told)
            models.append(copy.deepcopy(models[-1]))
            models[-1].apply(group, self.now)
            for name, log in models[-1].logs.items():
                assert self.log(name).next == log.next
        return models

    async def settled(self, told: list, count: int) -> None:
        for _ in range(100_000):
            if len(told) >= count:
                return
            await asyncio.sleep(0)
        raise AssertionError("an append was never answered")

    @initialize(first=st.sampled_from([0, 1, 511, 10_000]))
    def begin(self, first: int) -> None:
        self.open("a", first)

    @rule(name=st.sampled_from(NAMES), first=st.sampled_from([0, 1, 511, 10_000]))
    def open(self, name: str, first: int) -> None:
        log = self.engine.open(name, first)
        known = self.model.logs.setdefault(name, ModelLog(name, first))
        assert (log.name, log.next) == (name, known.next)

    @rule(groups=GROUPS, pause=st.integers(0, 3))
    def append(self, groups: list[list[tuple]], pause: int) -> None:
        async def work() -> None:
            told: list[EngineError | None] = []
            models = self.submit_all(groups, told)
            await self.settled(told, len(groups))
            assert told == [None] * len(groups)
            self.model = models[-1]

        self.now += pause
        self.runner.run(work())

    @rule(groups=GROUPS, undone=GROUPS, inside=GROUPS)
    def append_together(self, groups: list[list[tuple]], undone: list[list[tuple]], inside) -> None:
        """All as one, and one part of it fails by itself."""

        async def work() -> None:
            told: list[EngineError | None] = []
            failed: list[EngineError | None] = []
            with self.engine.together():
                models = self.submit_all(groups, told)
                with contextlib.suppress(ZeroDivisionError), self.engine.together():
                    self.submit_all(undone, failed, models[-1])
                    _ = 1 // 0
                models = self.submit_all(inside, told, models[-1])
                assert not told
            assert [type(error) for error in failed] == [Undone] * len(undone)
            await self.settled(told, len(groups) + len(inside))
            assert told == [None] * (len(groups) + len(inside))
            self.model = models[-1]

        self.runner.run(work())

    @rule(groups=GROUPS)
    def undo(self, groups: list[list[tuple]]) -> None:
        async def work() -> None:
            told: list[EngineError | None] = []
            with contextlib.suppress(ZeroDivisionError), self.engine.together():
                self.submit_all(groups, told)
                _ = 1 // 0
            assert [type(error) for error in told] == [Undone] * len(groups)

        self.runner.run(work())

    @rule(name=st.sampled_from(NAMES))
    def empty(self, name: str) -> None:
        """A queue that is drained: every record dies alone, in one append."""
        if name in self.model.logs:
            log = self.model.logs[name]
            dead = [("dead", name, log.next - 1 - s) for s in log.alive()]
            self.append([dead], 0)

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name: str) -> None:
        async def work() -> None:
            told: list[EngineError | None] = []
            group = Group([], [], [], [name])
            self.submit(group, told)
            await self.settled(told, 1)
            assert told == [None]
            self.model.apply(group, self.now)

        if name in self.model.logs:
            self.runner.run(work())

    @rule(groups=GROUPS, fault=st.sampled_from(["write", "half", "flush"]))
    def fail(self, groups: list[list[tuple]], fault: str) -> None:
        """A full disk: all that waits is refused, and sequences are taken back."""

        async def work() -> None:
            told: list[EngineError | None] = []
            self.submit_all(groups, told)
            self.fault = fault
            await self.settled(told, len(groups))
            assert not self.fault
            assert all(isinstance(error, Full) for error in told), told

        self.runner.run(work())

    @rule(count=st.integers(1, 20))
    def idle(self, count: int) -> None:
        """Appends of nothing, in which an engine may put its house in order."""
        for _ in range(count):
            self.append([[]], 0)

    @rule(
        name=st.sampled_from(NAMES),
        number=NUMBERS,
        count_max=st.integers(1, 5),
        bytes_max=st.integers(0, 3000),
    )
    def read(self, name: str, number: int, count_max: int, bytes_max: int) -> None:
        if name not in self.model.logs:
            return
        model = self.model.logs[name]
        start = model.start + number % (model.next - model.start + 2)
        reached = {sequence for sequence in model.alive() if sequence >= start}
        wanted = [
            r for _, r in model.live_records() if reached & set(range(r.sequence, r.sequence + r.count))
        ]
        found = self.log(name).read(start, count_max, bytes_max)
        assert found == wanted[: len(found)]
        assert len(found) <= count_max
        assert bool(found) == bool(wanted)
        sizes = [len(r.payload) + 36 for r in wanted]
        if len(found) > 1:
            assert sum(sizes[: len(found)]) - 36 * len(found) <= bytes_max
        if len(found) < min(count_max, len(wanted)):
            assert sum(sizes[: len(found) + 1]) > bytes_max

    @invariant()
    def same(self) -> None:
        assert sorted(log.name for log in self.engine.logs()) == sorted(self.model.logs)
        for name, model in self.model.logs.items():
            same_log(self.log(name), model)


class MemoryMachine(EngineMachine):
    async def make(self):
        return MemoryEngine(lambda: Full("no space") if self.failing() else None)


class Quick(Disk):
    """Flushes nothing; the disk is full on demand: before a write, in its midst, or at the flush."""

    def __init__(self, machine: FileMachine) -> None:
        self.machine = machine

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        half = self.machine.fault == "half"
        if self.machine.failing("write", "half"):
            super().write(descriptor, data[: half * len(data) // 2], offset)
            raise OSError(28, "No space left on device")
        super().write(descriptor, data, offset)

    def flush(self, descriptor: int) -> None:
        if self.machine.failing("flush"):
            raise OSError(28, "No space left on device")

    def flush_folder(self, path: str) -> None:
        pass


class FileMachine(EngineMachine):
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.generation = 0
        super().__init__()

    async def make(self):
        path = str(self.folder / str(self.generation))
        return FileEngine(path, segment_bytes=SEGMENT_BYTES, disk=Quick(self))

    def teardown(self) -> None:
        super().teardown()
        assert list(verify(self.engine.path)) == []
        shutil.rmtree(self.folder)

    def restart(self) -> None:
        async def work() -> None:
            await self.engine.close()
            self.engine = await self.make()

        self.runner.run(work())

    def found(self) -> set[str]:
        return {log.name for log in self.engine.logs()}

    @rule()
    def reopen(self) -> None:
        self.restart()
        self.model.restart(self.found())

    @rule(groups=GROUPS, ticks=st.integers(0, 6), together=st.booleans())
    def crash(self, groups: list[list[tuple]], ticks: int, together: bool) -> None:
        """The folder as it stands `ticks` turns of the loop after the appends were asked for."""

        async def work() -> list[Model]:
            with self.engine.together() if together else contextlib.nullcontext():
                models = self.submit_all(groups, [])
            if together:
                models = [models[0], models[-1]]
            for _ in range(ticks):
                await asyncio.sleep(0)
            # The flush thread is let finish, or the copy would be of no one moment.
            written = threading.Event()
            self.engine._jobs.put(written.set)
            assert written.wait(20)
            self.generation += 1
            shutil.copytree(self.engine.path, self.folder / str(self.generation))
            return models

        models = self.runner.run(work())
        self.restart()
        nexts = {log.name: log.next for log in self.engine.logs()}
        self.adopt(models)
        assert nexts == {name: log.next for name, log in self.model.logs.items()}

    def adopt(self, models: list[Model]) -> None:
        """The number of appends that survived is whichever fits, the later the better."""
        reasons = []
        for model in reversed(models):
            self.model = model
            model.restart(self.found())
            try:
                return self.same()
            except AssertionError as error:
                reasons.append(error)
        raise ExceptionGroup("no number of appends fits", reasons)

    @rule()
    @precondition(lambda self: self.generation < 50)
    def old_segments_go(self) -> None:
        """Space comes back: what is on the disk is in proportion to what lives."""
        self.idle(20)
        live = sum(len(r.payload) + 36 for log in self.model.logs.values() for _, r in log.live_records())
        largest = max((s.size for s in self.engine.segments.values()), default=0)
        assert len(self.engine.segments) <= 6 + 6 * live // SEGMENT_BYTES, largest


@pytest.fixture
def eager(monkeypatch):
    """Cleaning at every flush, a few entries at a time."""
    monkeypatch.setattr(cleaning, "FLUSHES_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(cleaning, "STEP_BYTES", 512)


STEPS = settings(max_examples=settings.default.max_examples // 4, stateful_step_count=30)


def test_memory():
    run(MemoryMachine)


def test_file(eager):
    run(FileMachine)


def run(machine) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=STEPS)
