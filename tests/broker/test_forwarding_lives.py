"""Random lives of entities that forward: every message that was acknowledged is in exactly one place.

Queues and a topic with one subscription send on to each other, to themselves in rings, and to what is not
there; they are disabled, deleted and made anew; messages are scheduled, received, dead-lettered and expire; the
disk fails, the server is restarted, or killed in the middle of what it does (its files are copied, and the copy
is opened). A message may only go where it is meant to: with what is deleted, or to who took it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.jumped import Piecemeal, World
from hubbub.broker.entity import Topic
from hubbub.broker.errors import BrokerError
from hubbub.broker.forwarding import RETRY
from hubbub.broker.message import Message
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Full

QUEUES = ("a", "b", "c", "d")
SUBSCRIPTION = "t/subscriptions/s"
SOURCES = (*QUEUES, SUBSCRIPTION)
TARGETS = (*QUEUES, "t", "")
DEAD = "/$deadletterqueue"
STATUSES = ("Active", "Active", "Disabled", "SendDisabled", "ReceiveDisabled")

source, target = st.sampled_from(SOURCES), st.sampled_from(TARGETS)
step = st.one_of(
    st.tuples(st.just("send"), st.sampled_from((*QUEUES, "t")), st.integers(1, 3)),
    st.tuples(st.just("schedule"), st.sampled_from((*QUEUES, "t")), st.integers(1, 3)),
    st.tuples(st.just("forward"), source, target),
    st.tuples(st.just("forward"), source, target),
    st.tuples(st.just("forward_dead"), source, target),
    st.tuples(st.just("status"), st.sampled_from((*QUEUES, "t")), st.sampled_from(STATUSES)),
    st.tuples(st.just("renew"), st.sampled_from(QUEUES), st.booleans()),
    st.tuples(st.just("take"), source, st.booleans()),
    st.tuples(st.just("bury"), source, st.booleans()),
    st.tuples(st.just("later"), st.just(""), st.sampled_from((1, 1000, RETRY, 60_000))),
    st.tuples(st.just("fail"), st.just(""), st.integers(0, 5)),
    st.tuples(st.just("restart"), st.just(""), st.booleans()),
)


class Life:
    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.generation = 0
        self.clock = ManualClock()
        self.expected: Counter[str] = Counter()
        self.doubtful: set[str] = set()
        """Nobody heard what became of them: they are in one place or in none."""
        self.number = 0
        self.failing = 0
        """Which appends fail: 2 is every second one, 0 none."""
        self.appends = 0
        self.open()

    def open(self) -> None:
        if self.folder is None:
            self.world = World(Piecemeal(self.fault), self.clock)
        else:
            self.world = World(FileEngine(str(self.folder / str(self.generation))), self.clock)

    def fault(self) -> Full | None:
        self.appends += 1
        return Full("full") if self.failing and self.appends % self.failing == 0 else None

    async def begin(self) -> None:
        for path in QUEUES:
            await self.world.queue(path, lock_duration=5000, dead_letter_on_expiration=True)
        await self.world.ns.create(Topic(path="t"))
        await self.world.subscription("t", "s", lock_duration=5000, dead_letter_on_expiration=True)

    async def act(self, verb: str, path: str, detail) -> None:
        try:
            await getattr(self, verb)(path, detail)
        except BrokerError:
            pass  # Refused, or the disk is full.
        await self.world.quiet()
        self.look()

    def places(self) -> Counter[str]:
        return Counter(body for path in self.world.ns.receivers for body in self.world.stored(path))

    def look(self) -> None:
        found = self.places()
        for body in self.doubtful & found.keys():
            self.expected[body] = 1
        self.doubtful.clear()
        assert found == self.expected

    # What may happen.

    async def send(self, path: str, count: int, **fields: int) -> None:
        bodies = [f"{path}{self.number + n}" for n in range(count)]
        self.number += count
        await self.world.send(path, *bodies, **fields)
        self.expected.update(bodies)

    async def schedule(self, path: str, count: int) -> None:
        await self.send(path, count, scheduled=self.clock.now() + 2000, ttl=50_000)

    async def forward(self, path: str, target: str) -> None:
        await self.world.change(path, forward_to=target)

    async def forward_dead(self, path: str, target: str) -> None:
        await self.world.change(path, forward_dead_letters_to=target)

    async def status(self, path: str, status: str) -> None:
        await self.world.change(path, status=status)

    async def renew(self, path: str, anew: bool) -> None:
        """It goes with all that is in it, and perhaps another comes."""
        if self.world.ns.entity(path) is not None:
            inside = Counter(self.world.stored(path) + self.world.stored(path + DEAD))
            await self.world.ns.delete(path)
            self.expected -= inside
        if anew:
            await self.world.queue(path, lock_duration=5000, dead_letter_on_expiration=True)

    async def take(self, path: str, dead: bool) -> None:
        delivery = await self.world.receive(path + DEAD * dead, lock=False)
        if delivery is not None:
            self.expected -= Counter([delivery.message.payload.decode()])

    async def bury(self, path: str, lapse: bool) -> None:
        delivery = await self.world.receive(path)
        if delivery is not None and not lapse:
            await self.world.settle(path, "dead_letter", delivery, "why", "because")

    async def later(self, _: str, length: int) -> None:
        await self.world.later(length)

    async def fail(self, _: str, failing: int) -> None:
        self.failing = failing

    async def restart(self, _: str, killed: bool) -> None:
        if self.folder is None:
            return
        if killed:
            await self._kill()
        else:
            for receiver in self.world.ns.receivers.values():
                receiver.close()
            await self.world.engine.close()
        self.open()

    async def _kill(self) -> None:
        """In the middle of a send, and of what waits being sent on."""
        path, body = QUEUES[self.number % len(QUEUES)], f"k{self.number}"
        self.number += 1
        try:
            self.world.ns.send(path, [Message(body.encode())], self.clock.now(), lambda error: None)
            self.doubtful.add(body)
        except BrokerError:
            pass
        self.clock.advance(RETRY)
        for _ in range(self.number % 3):
            await asyncio.sleep(0)
        old = self.folder / str(self.generation)
        self.generation += 1
        shutil.copytree(old, self.folder / str(self.generation))
        for receiver in self.world.ns.receivers.values():
            receiver.stop()
        await self.world.engine.close()

    async def heal(self) -> None:
        """When all is well again, nothing waits."""
        self.failing = 0
        for path in QUEUES:
            if self.world.ns.entity(path) is None:
                await self.renew(path, True)
        for path in (*QUEUES, "t"):
            await self.world.change(path, status="Active")
        for _ in range(10):
            await self.world.later(RETRY)
        self.look()
        assert all(self.world.ns.counts(path).transfer == 0 for path in SOURCES)
        await self.world.engine.close()


async def live(folder: Path | None, steps) -> None:
    life = Life(folder)
    await life.begin()
    for verb, path, detail in steps:
        await life.act(verb, path, detail)
    await life.heal()


quiet = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@quiet
@given(st.lists(step, max_size=40))
def test_in_memory(steps):
    asyncio.run(live(None, steps))


@settings(quiet, max_examples=40)
@given(st.lists(step, max_size=30))
def test_on_disk(steps):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder), steps))
