"""What a client says without waiting for an answer happens before what it asks next."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from amqp_house import AmqpHouse, house

from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    data_section,
    map_section,
    properties_of,
    properties_section,
    section_map,
    section_value,
    split,
    value_section,
)
from hubbub.wire.amqp.performatives import ACCEPTED, Modified, Rejected
from hubbub.wire.amqp.types import Array, Int, Long, Uint

DEFER = Modified(undeliverable_here=True)


class Asker:
    """A client that has taken one message, with links to the management node of its queue."""

    @classmethod
    async def at(cls, house: AmqpHouse) -> Asker:
        self = cls()
        self.client = client = await house.client()
        self.notes = client.notes
        sender = await client.sender("queue")
        sender.send(data_section(b"x"), b"1")
        await client.run()
        self.answers = await client.receiver("queue/$management")
        self.asking = await client.sender("queue/$management")
        self.notes.keep, self.notes.auto = False, False
        self.receiver = await client.receiver("queue")
        await client.run()
        (self.message,) = self.notes.deliveries
        return self

    def settle(self, outcome) -> None:
        """Without an answer, and on its way before anything else is said."""
        self.receiver.settle(self.message, outcome)
        self.said = self.client.wire.take()

    def ask(self, operation: str, body: dict) -> None:
        application = map_section(APPLICATION_PROPERTIES, {"operation": f"com.microsoft:{operation}"})
        properties = properties_section(message_id=operation, reply_to="c")
        self.asking.send(properties + application + value_section(body), operation.encode())

    async def answered(self) -> list[tuple]:
        """Of each request: which, its status, and its body. All that was said comes at once."""
        self.client.protocol.data_received(self.said + self.client.wire.take())
        await self.client.run()
        found = []
        for event in self.notes.events:
            if event[:2] != ("delivery", self.answers):
                continue
            parts = split(event[2].payload)
            status = section_map(parts.application_properties)["statusCode"]
            which = properties_of(parts.properties)["correlation_id"]
            found.append((which, status, section_value(parts.body)))
        return found


DEFERRED = {"sequence-numbers": Array([Long(1)]), "receiver-settle-mode": Uint(1)}
PEEK = {"from-sequence-number": Long(0), "message-count": Int(5)}


@house
async def test_a_message_is_deferred_before_it_is_asked_for(house):
    asker = await Asker.at(house)
    asker.settle(DEFER)
    asker.ask("receive-by-sequence-number", DEFERRED)
    ((_, status, body),) = await asker.answered()
    assert status == 200
    (item,) = body["messages"]
    annotations = section_map(split(item["message"]).delivery_annotations)
    assert annotations == {"x-opt-lock-token": item["lock-token"]}


@pytest.mark.parametrize("outcome", [ACCEPTED, Rejected()])
def test_a_message_is_gone_before_one_looks(outcome):
    @house
    async def test(house):
        asker = await Asker.at(house)
        asker.settle(outcome)
        asker.ask("peek-message", PEEK)
        assert await asker.answered() == [("peek-message", 204, None)]

    test()


@house
async def test_a_settlement_that_fails_holds_nothing_up(house):
    asker = await Asker.at(house)
    house.clock.advance(61_000)
    await house.renew()
    asker.settle(ACCEPTED)
    asker.ask("peek-message", PEEK)
    ((_, status, body),) = await asker.answered()
    assert (status, len(body["messages"])) == (200, 1)
    assert "lock-token" not in body["messages"][0]


@house
async def test_requests_stay_in_order(house):
    asker = await Asker.at(house)
    asker.settle(DEFER)
    for _ in range(2):
        asker.ask("receive-by-sequence-number", DEFERRED)
    asker.ask("peek-message", PEEK)
    found = [(which, status) for which, status, _ in await asker.answered()]
    assert found == [
        ("receive-by-sequence-number", 200),
        # It is locked now.
        ("receive-by-sequence-number", 404),
        ("peek-message", 200),
    ]


@house
async def test_who_leaves_in_between_breaks_nothing(house):
    asker = await Asker.at(house)
    asker.settle(DEFER)
    asker.ask("receive-by-sequence-number", DEFERRED)
    asker.client.protocol.data_received(asker.said + asker.client.wire.take())
    await asker.client.leave()
    await house.works()
    receiver = house.namespace.receiver("queue")
    assert receiver.counts().locked == 1, "as if it had left a moment later"
    house.clock.advance(61_000)
    await house.renew()
    assert (receiver.counts().locked, receiver.counts().deferred) == (0, 1)
