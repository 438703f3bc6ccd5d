"""The one clock: order, cancelling, early and late loops, slices, failures; real time for some milliseconds."""

from __future__ import annotations

import asyncio

import pytest

from hubbub import clock as module
from hubbub.clock import LOOK, SLICE, STALE_MAX, SystemClock


class Loop:
    """Keeps what is to be called, and when."""

    def __init__(self):
        self.calls = []
        self.failures = []

    def call_later(self, delay, callback):
        handle = Handle(self, delay, callback)
        self.calls.append(handle)
        return handle

    def call_exception_handler(self, context):
        self.failures.append(context["exception"])

    def run(self):
        """One turn; the delay that was asked for, in ms."""
        (handle,) = self.calls
        self.calls.remove(handle)
        handle.callback()
        return round(handle.delay * 1000)


class Handle:
    def __init__(self, loop, delay, callback):
        self.loop, self.delay, self.callback = loop, delay, callback

    def cancel(self):
        self.loop.calls.remove(self)


class World:
    """A clock that is told the time."""

    def __init__(self, monkeypatch):
        self.loop = Loop()
        self.time = 1_000_000
        self.fired = []
        monkeypatch.setattr(module.asyncio, "get_running_loop", lambda: self.loop)
        monkeypatch.setattr(SystemClock, "now", lambda clock: self.time)
        self.clock = SystemClock()

    def at(self, delay, name=None, cost=0):
        def fire():
            self.time += cost
            self.fired.append(delay if name is None else name)

        return self.clock.call_at(1_000_000 + delay, fire)

    @property
    def delay(self):
        """What the loop's timer is set for, ms."""
        (handle,) = self.loop.calls
        return round(handle.delay * 1000)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_the_loop_has_one_timer_for_the_next(world):
    world.at(50)
    assert world.delay == 51
    world.at(70)
    assert world.delay == 51
    world.at(20)
    assert world.delay == 21
    world.time += 21
    world.loop.run()
    assert (world.fired, world.delay) == ([20], 30)
    world.time += 100
    world.loop.run()
    assert (world.fired, world.loop.calls) == ([20, 50, 70], [])


def test_those_of_one_moment_come_in_their_order(world):
    for name in "abc":
        world.at(5, name)
    world.time += 5
    world.loop.run()
    assert world.fired == ["a", "b", "c"]


def test_a_loop_that_calls_early_is_asked_again(world):
    world.at(50)
    world.time += 48
    world.loop.run()
    assert (world.fired, world.delay) == ([], 3)


def test_a_clock_that_is_set_is_noticed(world):
    world.at(3_600_000)
    assert world.delay == LOOK
    world.time += 3_600_000
    world.loop.run()
    assert world.fired == [3_600_000]


def test_cancelled_timers_are_forgotten(world):
    timers = [world.at(n) for n in range(10_000)]
    kept = world.at(20_000)
    for timer in timers:
        timer.cancel()
        timer.cancel()
    assert len(world.clock._moments) <= STALE_MAX + 2
    world.time += 15_000
    world.loop.run()
    assert world.fired == []
    kept.cancel()
    world.time += 15_000
    world.loop.run()
    assert (world.fired, world.loop.calls, world.clock._timers) == ([], [], {})


def test_a_timer_may_cancel_and_set_others(world):
    def fire():
        other.cancel()
        world.at(0, "again")

    world.clock.call_at(1_000_005, fire)
    other = world.at(5, "other")
    world.at(5, "third")
    world.time += 5
    world.loop.run()
    assert world.fired == ["third", "again"]


def test_many_that_are_due_are_called_in_slices(world):
    for n in range(10):
        world.at(5, n, cost=SLICE // 2)
    world.time += 5
    world.loop.run()
    assert (world.fired, world.delay) == ([0, 1], 0)
    world.at(-10, "late")
    world.loop.run()
    assert world.fired == [0, 1, 2, 3]
    world.at(100)
    assert world.delay == 0
    while world.loop.calls[0].delay == 0:
        world.loop.run()
    assert world.fired == [*range(10), "late"]


def test_one_that_fails_keeps_no_others_from_their_turn(world):
    world.clock.call_at(1_000_000, lambda: 1 // 0)
    world.at(0)
    world.loop.run()
    assert world.fired == [0]
    assert [type(error) for error in world.loop.failures] == [ZeroDivisionError]


def test_a_clock_that_is_set_back_ends_the_slice(world):
    world.at(0, "a", cost=-5000)
    world.at(0, "b")
    world.loop.run()
    assert world.fired == ["a"]
    world.time += 5000
    world.loop.run()
    assert world.fired == ["a", "b"]


def test_real_time():
    async def main():
        clock = SystemClock()
        began, fired = clock.now(), []
        for delay in (30, 10, 20, 10):
            clock.call_at(began + delay, lambda delay=delay: fired.append((delay, clock.now() - began)))
        clock.call_at(began + 15, lambda: fired.append(None)).cancel()
        await asyncio.sleep(0.06)
        assert [delay for delay, _ in fired] == [10, 10, 20, 30]
        assert all(passed >= delay for delay, passed in fired)

    asyncio.run(main())
