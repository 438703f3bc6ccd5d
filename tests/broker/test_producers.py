"""Idempotent producers: every event once, in order, whatever is sent again, lost or restarted."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.broker.entity import EventHub
from hubbub.broker.errors import Busy, Invalid, OutOfSequence, ProducerStolen
from hubbub.broker.hub import Hub
from hubbub.broker.message import Message
from hubbub.broker.producers import PRODUCERS_MAX, Producers
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine

LAST = 2**31 - 1


class Moody(MemoryEngine):
    """Fails appends on demand."""

    failing = False

    def append(self, puts, now, done, **rest):
        if not self.failing:
            return super().append(puts, now, done, **rest)
        return asyncio.get_running_loop().call_soon(done, Full("no space"))


class World:
    def __init__(self) -> None:
        self.engine = Moody()
        self.open()

    def open(self) -> None:
        """Also: again, after a restart."""
        logs = [self.engine.open(f"h/{n}") for n in range(2)]
        producers = Producers(self.engine.open("h$producers"))
        self.hub = Hub(EventHub(path="h", partition_count=2), self.engine, logs, producers)

    def events(self, first: int, count: int = 1, id: int = 7, epoch: int = 0) -> list[Message]:
        return [Message(b"%d" % (first + n), producer=(id, epoch, (first + n) % 2**31)) for n in range(count)]

    async def send(self, first: int, count: int = 1, **who: int) -> None:
        future = asyncio.get_running_loop().create_future()
        self.hub.publish(self.events(first, count, **who), 0, 1, future.set_result)
        error = await future
        if error is not None:
            raise error

    def stored(self) -> list[int]:
        return [event.message.producer[2] for event in self.hub.read(0, 0, 1000, 1 << 20)]


def test_what_comes_twice_is_stored_once():
    async def main():
        world = World()
        world.hub.producers.enter(0, 7, 0, None, 1)
        await world.send(1, 3)
        await world.send(1, 3)
        await world.send(2, 2)
        await world.send(4)
        assert world.stored() == [1, 2, 3, 4]
        for first, count in ((6, 1), (4, 2)):
            with pytest.raises(OutOfSequence):
                await world.send(first, count)
        world.open()
        await world.send(4)
        await world.send(5)
        assert world.stored() == [1, 2, 3, 4, 5]

    asyncio.run(main())


def test_who_attaches():
    world = World()
    producers = world.hub.producers
    fresh = producers.enter(0, None, None, None, 99)
    assert (fresh.id, fresh.epoch, fresh.last) == (99, 0, 0)
    assert producers.enter(0, 99, None, None, 1).epoch == 1
    assert producers.enter(0, 99, 1, 5, 1).last == 0, "what is known here counts"
    assert producers.enter(0, 99, 3, 5, 1).last == 5, "a new owner may say where it begins"
    with pytest.raises(ProducerStolen):
        producers.enter(0, 99, 2, None, 1)
    with pytest.raises(ProducerStolen):
        producers.admit(0, world.events(6, id=99, epoch=2))
    with pytest.raises(OutOfSequence):
        producers.admit(1, world.events(6, id=99, epoch=3))
    with pytest.raises(Invalid):
        producers.admit(0, [*world.events(6, id=99, epoch=3), *world.events(8, id=99, epoch=3)])


def test_numbers_go_round():
    async def main():
        world = World()
        world.hub.producers.enter(0, 7, 0, LAST - 1, 1)
        await world.send(LAST, 3)
        await world.send(LAST, 3)
        await world.send(2)
        assert world.stored() == [LAST, 0, 1, 2]

    asyncio.run(main())


def test_a_failed_append_forgets_what_it_promised():
    async def main():
        world = World()
        world.hub.producers.enter(0, 7, 0, None, 1)
        await world.send(1)
        world.engine.failing = True
        failed = await asyncio.gather(world.send(2), world.send(3), world.send(2), return_exceptions=True)
        assert [type(error) for error in failed] == [Busy] * 3
        world.engine.failing = False
        with pytest.raises(OutOfSequence):
            await world.send(3)
        await world.send(2)
        await world.send(3)
        assert world.stored() == [1, 2, 3]

    asyncio.run(main())


def test_few_are_remembered():
    async def main():
        world = World()
        for id in range(PRODUCERS_MAX + 1):
            world.hub.producers.enter(0, id, 0, None, 1)
            await world.send(1, id=id)
        assert world.hub.producers.log.count == PRODUCERS_MAX
        with pytest.raises(OutOfSequence):
            await world.send(2, id=0)

    asyncio.run(main())


def test_those_who_only_attach_are_few():
    async def main():
        world = World()
        world.hub.producers.enter(0, 7, 0, None, 1)
        await world.send(1)
        for id in range(10, 3 * PRODUCERS_MAX):
            world.hub.producers.enter(0, id, 0, None, 1)
        assert len(world.hub.producers._known) <= PRODUCERS_MAX
        await world.send(2)
        assert world.stored() == [1, 2]

    asyncio.run(main())


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4), st.booleans()), max_size=40))
def test_any_mixture_leaves_each_event_once_and_in_order(steps):
    async def main():
        world = World()
        world.hub.producers.enter(0, 7, 0, None, 1)
        for first, count, restart in steps:
            if restart:
                world.open()
                if not world.hub.producers.log.count:
                    world.hub.producers.enter(0, 7, 0, None, 1)
            try:
                await world.send(first, count)
            except OutOfSequence:
                last = len(world.stored())
                assert first > last + 1 or first <= last < first + count - 1
        assert world.stored() == list(range(1, len(world.stored()) + 1))

    asyncio.run(main())
