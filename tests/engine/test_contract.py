"""One suite for every engine: what `hubbub.engine.log` promises."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from hubbub.engine.disk import Disk
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Closed, Engine, EngineError, Full, Put, Undone
from hubbub.engine.memory import MemoryEngine

Make = Callable[[], Engine]


class Switch:
    """Fails every commit while it is on."""

    def __init__(self) -> None:
        self.on = False

    def error(self) -> EngineError | None:
        return Full("no space") if self.on else None


class FullDisk(Disk):
    def __init__(self, switch: Switch) -> None:
        self.switch = switch

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        if self.switch.on and any(data):
            raise OSError(28, "No space left on device")
        super().write(descriptor, data, offset)


@pytest.fixture(params=["memory", "file"])
def make(request, tmp_path):
    """Builds the engine under test; its `switch` makes commits fail."""

    def build() -> Engine:
        switch = Switch()
        if request.param == "memory":
            engine: Engine = MemoryEngine(switch.error)
        else:
            engine = FileEngine(str(tmp_path / "data"), segment_bytes=1 << 16, disk=FullDisk(switch))
        engine.switch = switch
        return engine

    return build


def run(make: Make, story: Callable[[Engine], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = make()
        try:
            await story(engine)
        finally:
            await engine.close()

    asyncio.run(main())


async def commit(engine: Engine, puts=(), now: int = 1000, **burials) -> EngineError | None:
    outcome = asyncio.get_running_loop().create_future()
    engine.append(puts, now, outcome.set_result, **burials)
    return await outcome


def test_records_come_back_in_order_with_sequence_and_time(make):
    async def story(engine):
        log = engine.open("a", 1)
        assert (log.first, log.next, log.durable) == (1, 1, 1)
        await commit(engine, [Put(log, b"one"), Put(log, b"two")], now=5)
        await commit(engine, [Put(log, b"three")], now=7)
        assert [tuple(r) for r in log.read(0, 10, 1000)] == [
            (1, 1, 5, b"one"),
            (2, 1, 5, b"two"),
            (3, 1, 7, b"three"),
        ]
        assert (log.first, log.next, log.count, log.bytes) == (1, 4, 3, 11)
        assert log.get(4) is None
        assert log.get(0) is None

    run(make, story)


def test_nothing_is_readable_before_it_is_durable(make):
    async def story(engine):
        log = engine.open("a")
        waiting = asyncio.create_task(commit(engine, [Put(log, b"x")]))
        await asyncio.sleep(0)
        assert log.next == 1
        assert log.durable == 0 or log.get(0) is not None
        await waiting
        assert log.durable == 1

    run(make, story)


def test_done_is_called_in_the_order_of_the_calls(make):
    async def story(engine):
        logs = [engine.open(f"l{i}") for i in range(3)]
        order: list[int] = []
        last = asyncio.get_running_loop().create_future()
        for i in range(100):
            engine.append([Put(logs[i % 3], b"%d" % i)], 1, lambda e, i=i: order.append(i))
        engine.append([], 1, last.set_result)
        await last
        assert order == list(range(100))

    run(make, story)


def test_a_span_is_one_record(make):
    async def story(engine):
        log = engine.open("a")
        await commit(engine, [Put(log, b"batch", 700), Put(log, b"next")])
        assert log.next == 701
        assert log.get(699) == log.get(0) == (0, 700, 1000, b"batch")
        assert [r.sequence for r in log.read(350, 5, 999)] == [0, 700]
        assert log.count == 701
        assert log.bytes == 9

    run(make, story)


def test_the_dead_are_gone_and_skipped(make):
    async def story(engine):
        log = engine.open("a")
        await commit(engine, [Put(log, b"%d" % i) for i in range(2000)])
        await commit(engine, dead=[(log, s) for s in range(2000) if s not in (3, 1800)])
        assert log.next_alive(0) == 3
        assert log.next_alive(4) == 1800
        assert log.next_alive(1801) is None
        assert log.count == 2
        assert log.bytes == 5
        assert log.first == 3
        assert [r.payload for r in log.read(0, 10, 1000)] == [b"3", b"1800"]

    run(make, story)


def test_trim_and_drop(make):
    async def story(engine):
        a, b = engine.open("a"), engine.open("b")
        await commit(engine, [Put(a, b"x") for _ in range(10)] + [Put(b, b"y")])
        await commit(engine, trims=[(a, 7)], drops=[b])
        assert (a.first, a.next, a.count) == (7, 10, 3)
        assert [log.name for log in engine.logs()] == ["a"]
        await commit(engine, trims=[(a, 99)])
        assert (a.first, a.next, a.count) == (10, 10, 0)

    run(make, story)


def test_a_failed_append_takes_its_sequences_back_and_fails_all_behind_it(make):
    async def story(engine):
        log = engine.open("a")
        await commit(engine, [Put(log, b"kept")])
        engine.switch.on = True
        outcomes = await asyncio.gather(*[commit(engine, [Put(log, b"lost")]) for _ in range(5)])
        assert all(isinstance(outcome, Full) for outcome in outcomes)
        assert (log.next, log.durable, log.count) == (1, 1, 1)
        engine.switch.on = False
        assert await commit(engine, [Put(log, b"after")]) is None
        assert [r.payload for r in log.read(0, 9, 99)] == [b"kept", b"after"]

    run(make, story)


def test_what_belongs_together_is_durable_at_once_or_not_at_all(make):
    async def story(engine):
        a, b = engine.open("a", 1), engine.open("b", 1)
        await commit(engine, [Put(a, b"old")])
        told = []
        with engine.together():
            engine.append([Put(a, b"one")], 5, lambda error: told.append(("first", error)), dead=[(a, 1)])
            with engine.together():
                engine.append(
                    [Put(b, b"two"), Put(a, b"three")], 5, lambda error: told.append(("second", error))
                )
            assert (a.next, b.next, a.durable) == (4, 2, 2)
            assert told == []
        await commit(engine, [Put(b, b"later")])
        assert told == [("first", None), ("second", None)]
        assert [r.payload for r in a.read(0, 10, 1000)] == [b"one", b"three"]
        engine.switch.on = True
        with engine.together():
            engine.append([Put(a, b"x")], 5, lambda error: told.append(type(error)))
            engine.append([Put(b, b"y")], 5, lambda error: told.append(type(error)))
        assert isinstance(await commit(engine, [Put(a, b"z")]), Full)
        assert told[2:] == [Full, Full]
        assert (a.next, b.next) == (4, 3)

    run(make, story)


def test_what_is_taken_back_leaves_nothing_behind(make):
    async def story(engine):
        log = engine.open("a", 1)
        await commit(engine, [Put(log, b"stays")])
        told = []
        with contextlib.suppress(KeyError), engine.together():
            engine.append([Put(log, b"no"), Put(log, b"never", 7)], 5, told.append, dead=[(log, 1)])
            assert log.next == 10
            raise KeyError
        assert [type(error) for error in told] == [Undone]
        assert log.next == 2
        with engine.together():
            engine.append([Put(log, b"yes")], 5, told.append)
            with contextlib.suppress(KeyError), engine.together():
                engine.append([Put(log, b"not this")], 5, told.append)
                raise KeyError
            engine.append([Put(log, b"this too")], 5, told.append)
        await commit(engine)
        assert [type(error) for error in told] == [Undone, Undone, type(None), type(None)]
        assert [(r.sequence, r.payload) for r in log.read(0, 10, 1000)] == [
            (1, b"stays"),
            (2, b"yes"),
            (3, b"this too"),
        ]
        with engine.together():
            pass
        await commit(engine, dead=[(log, 1)])
        assert log.get(1) is None

    run(make, story)


def test_find_and_keep(make):
    async def story(engine):
        log = engine.open("a")
        for time in (10, 20, 20, 30):
            await commit(engine, [Put(log, b"0123456789")], now=time)
        assert [log.find(t) for t in (5, 10, 11, 20, 21, 30, 31)] == [0, 0, 1, 1, 3, 3, 4]
        assert [log.keep(b) for b in (100, 40, 39, 20, 0)] == [0, 0, 1, 2, 4]

    run(make, story)


def test_read_is_bounded(make):
    async def story(engine):
        log = engine.open("a")
        await commit(engine, [Put(log, b"x" * 100) for _ in range(50)])
        assert len(log.read(0, 7, 1 << 20)) == 7
        assert len(log.read(0, 100, 1000)) < 12
        assert len(log.read(0, 100, 1)) == 1

    run(make, story)


def test_a_closed_engine_says_so(make):
    async def story(engine):
        log = engine.open("a")
        await engine.close()
        with pytest.raises(Closed):
            engine.append([Put(log, b"x")], 1, lambda e: None)

    run(make, story)


def test_close_flushes_what_waits(make):
    async def story(engine):
        log = engine.open("a")
        told: list[object] = []
        engine.append([Put(log, b"x")], 1, told.append)
        await engine.close()
        assert told == [None]

    run(make, story)
