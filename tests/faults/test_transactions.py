"""Transactions over AMQP in a house whose clock is jumped: their ends, their limits, and what they may not be
used for."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.broker.entity import Queue
from hubbub.broker.transaction import STEPS_MAX
from hubbub.front.amqp import transactions
from hubbub.wire.amqp.message import data_section, properties_section, value_section
from hubbub.wire.amqp.performatives import (
    ACCEPTED,
    Coordinator,
    Declare,
    Declared,
    Discharge,
    Modified,
    Rejected,
    Released,
    Source,
    Target,
    TransactionalState,
)
from hubbub.wire.amqp.types import Described, Symbol, Ulong

from .amqp_house import AmqpHouse

BODY = data_section(b"hello")


def value(composite):
    return value_section(Described(Ulong(composite.CODE), composite._values()))


class Actor:
    """A client with a coordinator."""

    def __init__(self, client):
        self.client = client
        self.house = client.house

    @classmethod
    async def at(cls, house):
        self = cls(await house.client())
        self.control = self.client.session.sender(
            "control", Coordinator(["amqp:local-transactions"]), Source("c")
        )
        await self.client.run()
        assert isinstance(self.control.target, Coordinator)
        return self

    async def tell(self, payload):
        """The coordinator's answer."""
        sent = self.control.send(payload, b"%d" % len(self.client.notes.outcomes))
        await self.client.run()
        return sent.outcome

    async def declare(self):
        outcome = await self.tell(value(Declare()))
        assert isinstance(outcome, Declared)
        return outcome.txn_id

    async def discharge(self, id, fail=False):
        return await self.tell(value(Discharge(id, fail)))

    async def send(self, link, id, payload=BODY):
        sent = link.send(payload, b"t", state=TransactionalState(id))
        await self.client.run()
        return sent.outcome

    async def take(self, address, count):
        """A receiving link and the deliveries that came on it, unsettled."""
        notes = self.client.notes
        notes.credit, notes.keep, notes.auto, notes.deliveries = count, False, False, []
        link = await self.client.receiver(address)
        await self.client.run()
        notes.credit, notes.keep, notes.auto = 100, True, True
        return link, list(notes.deliveries)


def run(story, **queues):
    async def main():
        house = await AmqpHouse().open()
        for name, options in queues.items():
            await house.namespace.create(Queue(path=name, **options))
        await story(house, await Actor.at(house))

    asyncio.run(main())


def condition(outcome):
    assert isinstance(outcome, Rejected)
    return outcome.error.condition


def active(house, path="queue"):
    return house.namespace.counts(path).active


def test_nothing_happens_before_the_commit():
    async def story(house, actor):
        link = await actor.client.sender("queue")
        id = await actor.declare()
        assert await actor.send(link, id) == TransactionalState(id, ACCEPTED)
        assert await actor.send(link, id) == TransactionalState(id, ACCEPTED)
        assert active(house) == 0
        assert await actor.discharge(id) == ACCEPTED
        assert active(house) == 2
        assert condition(await actor.discharge(id)) == "amqp:transaction:unknown-id"
        assert condition(await actor.send(link, id)) == "amqp:transaction:unknown-id"
        assert active(house) == 2

    run(story)


def test_a_roll_back_leaves_the_locks():
    async def story(house, actor):
        link = await actor.client.sender("queue")
        link.send(BODY, b"1")
        await actor.client.run()
        receiver, [delivery] = await actor.take("queue", 1)
        id = await actor.declare()
        receiver.settle(delivery, TransactionalState(id, ACCEPTED))
        assert await actor.discharge(id, fail=True) == ACCEPTED
        assert (active(house), house.namespace.counts("queue").locked) == (1, 1)
        house.clock.advance(60_001)
        await actor.client.run()
        assert house.namespace.counts("queue").locked == 0

    run(story)


def test_a_lock_that_was_lost_rolls_back_all_of_it():
    async def story(house, actor):
        link, other = await actor.client.sender("queue"), await actor.client.sender("other")
        link.send(BODY, b"1")
        await actor.client.run()
        receiver, [delivery] = await actor.take("queue", 1)
        id = await actor.declare()
        await actor.send(other, id)
        receiver.settle(delivery, TransactionalState(id, ACCEPTED))
        await actor.client.run()
        house.clock.advance(60_001)
        assert condition(await actor.discharge(id)) == "amqp:transaction:rollback"
        assert (active(house), active(house, "other")) == (1, 0)
        # Its sequence number is another's now.
        other.send(BODY, b"2")
        await actor.client.run()
        assert [d.sequence for d in house.namespace.peek("other", 0, 10)] == [1]

    run(story, other={})


def test_each_outcome_counts_when_it_is_committed():
    async def story(house, actor):
        link = await actor.client.sender("queue")
        for n in range(4):
            link.send(properties_section(message_id=f"m{n}") + BODY, b"%d" % n)
        await actor.client.run()
        receiver, deliveries = await actor.take("queue", 4)
        id = await actor.declare()
        outcomes = [ACCEPTED, Rejected(), Modified(undeliverable_here=True), Released()]
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            receiver.settle(delivery, TransactionalState(id, outcome))
        await actor.client.run()
        assert house.namespace.counts("queue").locked == 4
        assert await actor.discharge(id) == ACCEPTED
        counts = house.namespace.counts("queue")
        assert (counts.locked, counts.dead_letter, counts.deferred) == (0, 1, 1)
        assert counts.active + counts.deferred == 2

    run(story)


def test_a_connection_that_goes_takes_its_transactions_along():
    async def story(house, actor):
        link = await actor.client.sender("queue")
        id = await actor.declare()
        await actor.send(link, id)
        assert house.server.held_bytes > 0
        stranger = await Actor.at(house)
        assert condition(await stranger.discharge(id)) == "amqp:transaction:unknown-id"
        await actor.client.leave()
        assert house.server.held_bytes == 0
        assert active(house) == 0

    run(story)


def test_a_transaction_that_is_open_for_too_long_is_rolled_back():
    async def story(house, actor):
        link = await actor.client.sender("queue")
        id = await actor.declare()
        await actor.send(link, id)
        house.clock.advance(transactions.TIME_MAX + 1)
        assert condition(await actor.send(link, id)) == "amqp:transaction:timeout"
        assert condition(await actor.discharge(id)) == "amqp:transaction:timeout"
        assert condition(await actor.discharge(id)) == "amqp:transaction:unknown-id"
        assert (active(house), house.server.held_bytes) == (0, 0)

    run(story)


def test_limits(monkeypatch):
    monkeypatch.setattr(transactions, "BYTES_MAX", 300_000)

    async def story(house, actor):
        link = await actor.client.sender("queue")
        ids = [await actor.declare() for _ in range(transactions.TRANSACTIONS_MAX)]
        assert condition(await actor.tell(value(Declare()))) == "amqp:resource-limit-exceeded"
        for _ in range(STEPS_MAX):
            await actor.send(link, ids[0])
        assert condition(await actor.send(link, ids[0])) == "amqp:resource-limit-exceeded"
        assert await actor.discharge(ids[0]) == ACCEPTED
        assert active(house) == STEPS_MAX
        large = data_section(bytes(200_000))
        assert isinstance(await actor.send(link, ids[1], large), TransactionalState)
        assert condition(await actor.send(link, ids[2], large)) == "amqp:resource-limit-exceeded"
        assert await actor.discharge(ids[1], fail=True) == ACCEPTED
        assert isinstance(await actor.send(link, ids[2], large), TransactionalState)

    run(story)


@pytest.mark.parametrize(
    "payload", [b"", b"\0", BODY, value_section("declare"), value(Source("a")), value_section(None)]
)
def test_a_coordinator_refuses_what_it_does_not_know(payload):
    async def story(house, actor):
        assert condition(await actor.tell(payload)) == "amqp:decode-error"
        id = await actor.declare()
        assert await actor.discharge(id) == ACCEPTED

    run(story)


def test_events_and_requests_cannot_be_part_of_a_transaction():
    async def story(house, actor):
        hub = await actor.client.sender("hub/Partitions/0")
        id = await actor.declare()
        assert condition(await actor.send(hub, id)) == "com.microsoft:argument-error"
        requests = await actor.client.sender("queue/$management")
        assert condition(await actor.send(requests, id)) == "com.microsoft:argument-error"

    run(story)


def test_by_way_of_another_entity():
    """The link's target is the way, a property of its attach the destination."""

    async def story(house, actor):
        properties = {Symbol("com.microsoft:transfer-destination-address"): "queue"}
        link = actor.client.session.sender("via", Target("other"), Source("c"), properties=properties)
        await actor.client.run()
        id = await actor.declare()
        await actor.send(link, id)
        assert await actor.discharge(id) == ACCEPTED
        assert (active(house), active(house, "other")) == (1, 0)
        properties = {Symbol("com.microsoft:transfer-destination-address"): "nowhere"}
        actor.client.session.sender("via2", Target("other"), Source("c"), properties=properties)
        await actor.client.run()
        assert actor.client.conditions[-1] == "amqp:not-found"

    run(story, other={})
