"""Transactions against a naive model: all steps or none, whatever they are and wherever one of them fails."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hubbub.broker.entity import Queue, Subscription, Topic
from hubbub.broker.errors import BrokerError
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.broker.transaction import Transaction
from hubbub.clock import ManualClock
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine

NAMES = ("a", "b")
STEPS = st.sampled_from(
    [
        *(
            ("send", "a"),
            ("send", "b"),
            ("send", "topic"),
            ("send", "onward"),
            ("complete", "a"),
            ("complete", "b"),
        ),
        *(("bury", "a"), ("free", "b"), ("defer", "a"), ("fail", ""), ("twice", "a")),
    ]
)
TRANSACTIONS = st.lists(st.tuples(st.lists(STEPS, max_size=6), st.sampled_from(["", "", "full"])), max_size=6)


class House:
    def __init__(self) -> None:
        self.full = False
        self.engine = MemoryEngine(lambda: Full("no space left") if self.full else None)
        self.namespace = Namespace("n", self.engine, ManualClock(), PROFILES["standard"])
        self.said = 0

    async def open(self) -> House:
        for name in NAMES:
            await self.namespace.create(Queue(path=name, requires_duplicate_detection=name == "b"))
        await self.namespace.create(Queue(path="onward", forward_to="a"))
        await self.namespace.create(Topic(path="topic"))
        for name in ("x", "y"):
            path = f"topic/subscriptions/{name}"
            await self.namespace.create(Subscription(path=path, topic="topic", name=name))
        for name in NAMES * 3:
            self.send(name)(lambda error: None)
        await asyncio.sleep(0)
        return self

    def send(self, path):
        self.said += 1
        message = Message(b"payload", message_id=str(self.said))
        return lambda done: self.namespace.send(path, [message], 0, done)

    def lock(self, path):
        """The next message, or None."""
        found = []
        self.namespace.receiver(path).receive(True, 0, found.append)
        return found[0]

    def settle(self, path, token, verb):
        receiver = self.namespace.receiver(path)
        dead = ("why", "how") if verb == "dead_letter" else ()
        return lambda done: getattr(receiver, verb)(receiver.holder(token), *dead, done)

    def state(self):
        """How many messages are where and in which state."""
        found = Counter()
        for path, receiver in self.namespace.receivers.items():
            for delivery in receiver.peek(0, 100):
                found[path, delivery.state] += 1
            counts = receiver.counts()
            assert counts.active + counts.deferred + counts.scheduled == receiver.log.count
        return found


def enlist(house, transaction, kind, path, expected):
    """Adds a step, and to `expected` what it does. Whether it can be done."""
    if kind == "fail":
        transaction.add(lambda done: house.namespace.send("nowhere", [Message(b"")], 0, done))
        return False
    if kind == "send":
        transaction.add(house.send(path))
        places = {"topic": ["topic/subscriptions/x", "topic/subscriptions/y"], "onward": ["a"]}.get(
            path, [path]
        )
        expected.update((place, "Active") for place in places)
        return True
    delivery = house.lock(path)
    if delivery is None:
        return True
    verb = {"bury": "dead_letter", "free": "give_back", "defer": "defer"}.get(kind, "complete")
    transaction.add(house.settle(path, delivery.token, verb))
    expected[path, "Locked"] -= 1
    if verb == "dead_letter":
        expected[f"{path}/$deadletterqueue", "Active"] += 1
    elif verb == "give_back":
        expected[path, "Active"] += 1
    elif verb == "defer":
        expected[path, "Deferred"] += 1
    if kind == "twice":
        transaction.add(house.settle(path, delivery.token, "complete"))
    return kind != "twice"


@given(TRANSACTIONS)
def test_all_steps_or_none(transactions):
    async def main() -> None:
        house = await House().open()
        for steps, fault in transactions:
            transaction, expected, good = Transaction(), Counter(), True
            for kind, path in steps:
                good &= enlist(house, transaction, kind, path, expected)
            before, outcome = house.state(), []
            nexts = {log.name: log.next for log in house.engine.logs()}
            house.full = fault == "full"
            transaction.commit(house.namespace.together, outcome.append)
            for _ in range(3):
                await asyncio.sleep(0)
            house.full = False
            assert len(outcome) == 1
            assert good or outcome != [None]
            assert outcome == [None] or fault or not good
            if outcome == [None]:
                before.update(expected)
                assert +house.state() == +before
            else:
                assert isinstance(outcome[0], BrokerError)
                assert house.state() == before
                assert {log.name: log.next for log in house.engine.logs()} == nexts

    asyncio.run(main())
