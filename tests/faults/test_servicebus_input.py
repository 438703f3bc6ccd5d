"""Bad input on Service Bus links: each gets an answer that says so, and a client beside it notices nothing.

The neighbour sends to, receives from and asks about the same queue, and holds a session of another.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from pathlib import Path
from uuid import UUID

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from amqp_house import CONDITIONS, AmqpHouse

from hubbub.broker.entity import Queue, Subscription, Topic
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    HEADER,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    body_bytes,
    data_section,
    list_section,
    map_section,
    properties_of,
    properties_section,
    section_map,
    section_value,
    split,
    value_section,
)
from hubbub.wire.amqp.performatives import (
    ACCEPTED,
    Declared,
    Disposition,
    Error,
    Modified,
    Received,
    Rejected,
    Released,
    Source,
    Target,
    TransactionalState,
)
from hubbub.wire.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
)

SESSION = Symbol("com.microsoft:session-filter")
TIMEOUT = Symbol("com.microsoft:timeout")
TOKEN = UUID(int=7)
SUBSCRIPTION = "topic/subscriptions/all"
LETTER = map_section(
    MESSAGE_ANNOTATIONS, {Symbol("x-opt-scheduled-enqueue-time"): Timestamp(4_000_000_000_000)}
) + data_section(b"later")

ODD = (
    *(None, True, -1, 0, 2**63 - 1, -(2**63), Ulong(2**64 - 1), Int(-(2**31)), Ubyte(0), Timestamp(-(2**63))),
    *(Timestamp(2**63 - 1), math.nan, math.inf, Float(1.5), "", "x", "x" * 20_000, "\0", b"", b"\xff" * 300),
    *(Symbol("x"), TOKEN, [], [None], [[]], {}, {None: None}, {"x": {}}, Described(Symbol("x"), 1)),
    *(Array([Long(2**63 - 1)] * 5000), Array([TOKEN, TOKEN]), Array([Long(-1), Long(0)]), Array([{}])),
    *([{"message": b""}], [{"message": b"\0\x53\x75"}], [{"message": None}], [{"message": LETTER}] * 3),
    Described(Described(1, 2), [None]),
)
"""Values that no member of a request is meant to have, or that are at the edge of what it may."""

FILTER = {"rule-name": "r", "rule-description": {"sql-filter": {"expression": "a = 1"}}}
REQUESTS = (
    ("queue", "renew-lock", {"lock-tokens": Array([TOKEN])}),
    (
        "queue",
        "update-disposition",
        {"disposition-status": "suspended", "lock-tokens": Array([TOKEN]), "deadletter-reason": "r",
         "deadletter-description": "d", "properties-to-modify": {"a": 1}, "session-id": None},
    ),
    ("queue", "peek-message", {"from-sequence-number": Long(0), "message-count": Int(5), "session-id": None}),
    (
        "queue",
        "receive-by-sequence-number",
        {"sequence-numbers": Array([Long(9)]), "receiver-settle-mode": Uint(1), "session-id": None},
    ),
    ("queue", "batch-delete-messages", {"message-count": Int(1), "enqueued-time-utc": Timestamp(0)}),
    ("queue", "schedule-message", {"messages": [{"message-id": "m", "message": LETTER}]}),
    ("queue", "cancel-scheduled-message", {"sequence-numbers": Array([Long(9)])}),
    ("seats", "update-disposition",
     {"disposition-status": "completed", "lock-tokens": Array([TOKEN]), "session-id": "theirs"}),
    ("seats", "peek-message", {"from-sequence-number": Long(0), "message-count": Int(5), "session-id": "s"}),
    ("seats", "renew-session-lock", {"session-id": "theirs"}),
    ("seats", "get-session-state", {"session-id": "theirs"}),
    ("seats", "set-session-state", {"session-id": "theirs", "session-state": b"x"}),
    ("seats", "get-message-sessions",
     {"last-updated-time": Timestamp(253_402_300_800_000), "skip": Int(0), "top": Int(9)}),
    (SUBSCRIPTION, "add-rule", FILTER),
    (SUBSCRIPTION, "add-rule", {"rule-name": "r", "rule-description": {"correlation-filter": {"label": "x"}}}),
    (SUBSCRIPTION, "remove-rule", {"rule-name": "r"}),
    (SUBSCRIPTION, "enumerate-rules", {"skip": Int(0), "top": Int(9)}),
)  # fmt: skip
"""Every operation, as it is meant."""


class Neighbour:
    """A client that does no wrong, and wants to be served."""

    @classmethod
    async def at(cls, house: AmqpHouse) -> Neighbour:
        self = cls()
        self.house, self.number = house, 0
        self.client = client = await house.client()
        self.out = await client.sender("queue")
        await client.receiver("queue")
        self.seat = client.session.receiver("seat", Source("seats", filter={SESSION: "mine"}), Target("c"))
        await client.run()
        self.in_seat = await client.sender("seats")
        return self

    async def works(self) -> None:
        """All that it sends comes back to it, and its session is its own."""
        self.number += 1
        bodies = {b"%d by %d" % (self.number, n) for n in (0, 1)}
        notes, answered = self.client.notes, len(self.client.notes.outcomes)
        notes.deliveries.clear()
        queued, seated = bodies
        self.out.send(data_section(queued), queued)
        self.in_seat.send(properties_section(group_id="mine") + data_section(seated), seated)
        await self.client.run()
        outcomes = [outcome for _, outcome in notes.outcomes[answered:]]
        assert outcomes == [ACCEPTED, ACCEPTED]
        assert bodies <= {body_bytes(split(d.payload).body) for d in notes.deliveries if plain(d.payload)}
        assert (self.client.gone, self.client.conditions, self.seat.attached) == (False, [], True)


def plain(payload: bytes) -> bool:
    """Whether the body is data: others are sent here as well."""
    return split(payload).body[2:3] == b"\x75"


class Asker:
    """A client that sends requests to one node, whatever they are."""

    @classmethod
    async def at(cls, house: AmqpHouse, entity: str) -> Asker:
        self = cls()
        self.client = await house.client()
        await self.client.receiver(f"{entity}/$management")
        self.link = await self.client.sender(f"{entity}/$management")
        return self

    async def ask(self, operation: object, body: object) -> tuple[int, str]:
        """Status and condition of the one answer."""
        self.client.notes.deliveries.clear()
        application = map_section(APPLICATION_PROPERTIES, {"operation": operation})
        properties = properties_section(message_id="m", reply_to="c")
        self.link.send(properties + application + value_section(body), b"t")
        await self.client.run()
        (answer,) = self.client.notes.deliveries
        sections = split(answer.payload)
        assert properties_of(sections.properties)["correlation_id"] == "m"
        said = section_map(sections.application_properties)
        section_value(sections.body)
        return said["statusCode"], said.get("errorCondition", "")


def beside(story) -> None:
    """Runs a story beside the neighbour. Nothing of it may be a mistake of ours."""

    async def main():
        house = await AmqpHouse().open()
        await house.namespace.create(Queue(path="seats", requires_session=True, lock_duration=300_000))
        await house.namespace.create(Topic(path="topic"))
        await house.namespace.create(Subscription(path=SUBSCRIPTION, topic="topic", name="all"))
        neighbour = await Neighbour.at(house)
        await neighbour.works()
        await story(house, neighbour)
        await neighbour.works()

    errors: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = errors.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        asyncio.run(main())
    finally:
        logging.getLogger().removeHandler(handler)
    assert not errors, (errors[0].getMessage(), errors[0].exc_info)


# Requests.


@pytest.mark.parametrize(("entity", "operation", "body"), REQUESTS)
def test_requests_with_odd_members(entity, operation, body):
    async def story(house, neighbour):
        asker = await Asker.at(house, entity)
        for member in body:
            for odd in ODD:
                status, condition = await asker.ask(f"com.microsoft:{operation}", body | {member: odd})
                assert status not in (500, 501), (member, odd, condition)
                assert (status < 300) == (not condition)
            status, _ = await asker.ask(
                f"com.microsoft:{operation}", {k: v for k, v in body.items() if k != member}
            )
            assert status != 500
        assert not asker.client.gone

    beside(story)


@pytest.mark.parametrize(
    "changed",
    [
        *(
            "rule-description",
            "sql-filter",
            "expression",
            "correlation-filter",
            "properties",
            "sql-rule-action",
        ),
        *("label", "correlation-id"),
    ],
)
def test_rules_with_odd_members(changed):
    async def story(house, neighbour):
        asker = await Asker.at(house, SUBSCRIPTION)
        for odd in ODD:
            inner = {
                "rule-description": odd,
                "sql-filter": {"sql-filter": odd},
                "expression": {"sql-filter": {"expression": odd}},
                "correlation-filter": {"correlation-filter": odd},
                "properties": {"correlation-filter": {"properties": odd}},
                "sql-rule-action": {
                    "sql-filter": {"expression": "1=1"},
                    "sql-rule-action": {"expression": odd},
                },
                "label": {"correlation-filter": {"label": odd, "properties": {"x": odd}}},
                "correlation-id": {"correlation-filter": {"properties": {"x": odd, odd_key(odd): 1}}},
            }[changed]
            description = odd if changed == "rule-description" else inner
            body = {"rule-name": "r", "rule-description": description}
            status, condition = await asker.ask("com.microsoft:add-rule", body)
            assert status in (200, 400, 403), (odd, condition)
            assert (await asker.ask("com.microsoft:enumerate-rules", {"skip": Int(0), "top": Int(9)}))[
                0
            ] == 200
            if status == 200:
                assert (await asker.ask("com.microsoft:remove-rule", {"rule-name": "r"}))[0] == 200
        sender = await asker.client.sender("topic")
        sender.send(data_section(b"x"), b"1")
        await asker.client.run()
        assert house.namespace.counts(SUBSCRIPTION).active == 1

    beside(story)


def odd_key(odd):
    return odd if isinstance(odd, (int, float, str, bytes)) else "y"


@pytest.mark.parametrize(
    "body", [None, 1, "x", b"x", [], [1], {1: 2}, {}, Described(Symbol("x"), {}), math.nan]
)
def test_requests_whose_body_is_no_map(body):
    async def story(house, neighbour):
        for entity in ("queue", "seats", SUBSCRIPTION):
            asker = await Asker.at(house, entity)
            for _, operation, _ in REQUESTS:
                status, condition = await asker.ask(f"com.microsoft:{operation}", body)
                assert status in (200, 204, 400, 404, 410), (operation, condition)

    beside(story)


@pytest.mark.parametrize("operation", [None, 1, "", b"\xff", [], {}, "com.microsoft:", "x" * 60_000, TOKEN])
def test_operations_that_are_none(operation):
    async def story(house, neighbour):
        asker = await Asker.at(house, "queue")
        if isinstance(operation, (list, dict)):
            # Application properties hold simple values only.
            asker.link.send(map_section(APPLICATION_PROPERTIES, {"operation": operation}), b"t")
            await asker.client.run()
        else:
            assert (await asker.ask(operation, {}))[0] == 501
        assert set(asker.client.conditions) <= CONDITIONS

    beside(story)


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\0", b"garbage", b"\0\x53\x77", b"\0\x53\x74\xd1\xff\xff\xff\xff", data_section(b"x")),
        map_section(APPLICATION_PROPERTIES, {"operation": "com.microsoft:peek-message"}),
        properties_section(message_id="m"),
        list_section(PROPERTIES, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_requests_that_are_no_messages(payload):
    async def story(house, neighbour):
        for entity in ("queue", "seats", SUBSCRIPTION):
            asker = await Asker.at(house, entity)
            for _ in range(3):
                asker.link.send(payload, b"t")
                await asker.client.run()
            assert set(asker.client.conditions) <= CONDITIONS
            assert (await asker.ask("com.microsoft:nothing", {}))[0] == 501

    beside(story)


# Outcomes.


STATES = (
    *(
        None,
        ACCEPTED,
        Released(),
        Rejected(),
        Modified(),
        Modified(True, True, {}),
        Received(1, 2),
        Declared(b"x"),
    ),
    *(
        TransactionalState(b"none", ACCEPTED),
        TransactionalState(b"", None),
        TransactionalState(b"x", Received()),
    ),
    *(
        Rejected(Error("com.microsoft:dead-letter", "x" * 20_000, info))
        for info in (None, {}, {Symbol("DeadLetterReason"): "x" * 20_000}, {Symbol("DeadLetterReason"): 5})
    ),
    Rejected(Error("no condition of ours", None, {Symbol(f"s{n}"): [] for n in range(500)})),
    *(Modified(True, False, {Symbol(f"p{n}"): value for n, value in enumerate(ODD)}),),
    Modified(True, True, {Symbol(f"x-{n}"): "y" * 10 for n in range(2000)}),
)


@pytest.mark.parametrize("session", [None, "theirs"])
@pytest.mark.parametrize("state", STATES)
def test_outcomes_of_what_was_never_delivered(state, session):
    async def story(house, neighbour):
        client = await house.client()
        for settled in (False, True):
            for first, last in ((0, None), (5, 9), (2**32 - 1, 3), (9, 5), (0, 2**31 - 2)):
                client.wire.send(client.session.channel, Disposition(True, first, last, settled, state))
                client.wire.send(client.session.channel, Disposition(False, first, last, settled, state))
                await client.run()
        assert set(client.conditions) <= CONDITIONS

    beside(story)


@pytest.mark.parametrize("address", ["queue", "seats"])
@pytest.mark.parametrize("state", STATES)
def test_odd_outcomes_of_what_was_delivered(state, address):
    """The message is wherever the outcome leaves it, and can be had there by everybody."""

    async def story(house, neighbour):
        client = await house.client()
        named = properties_section(group_id="theirs", message_id="odd")
        out = await client.sender(address)
        client.notes.auto = client.notes.keep = neighbour.client.notes.auto = False
        filters = {SESSION: "theirs"} if address == "seats" else None
        if address == "queue":
            await neighbour.client.leave()  # Or it would have what is for the client.
        link = client.session.receiver("r", Source(address, filter=filters), Target("c"))
        await client.run()
        out.send(named + data_section(b"odd"), b"1")
        await client.run()
        (delivery,) = client.notes.deliveries
        if state is None or isinstance(state, Declared):
            client.wire.send(client.session.channel, Disposition(True, delivery.id, None, True, state))
        else:
            link.settle(delivery, state)
        await client.run()
        assert set(client.conditions) <= CONDITIONS
        await client.leave()
        house.clock.advance(60_001)
        again = await house.client()
        for place in (address, f"{address}/$deadletterqueue"):
            wanted = filters if place == "seats" else None
            again.session.receiver(place, Source(place, filter=wanted), Target("c"))
        await again.run()
        counts = house.namespace.counts(address)
        assert len(again.notes.deliveries) + counts.deferred == (0 if state == ACCEPTED else 1)
        asker = await Asker.at(house, address)
        status, _ = await asker.ask("com.microsoft:peek-message", {"message-count": Int(5)})
        assert status in (200, 204)
        await Neighbour.at(house)

    async def alone():
        house = await AmqpHouse().open()
        await house.namespace.create(Queue(path="seats", requires_session=True, lock_duration=300_000))
        await story(house, await Neighbour.at(house))

    asyncio.run(alone())


@pytest.mark.parametrize("odd", ODD)
def test_properties_that_requests_change_oddly(odd):
    """A message that was abandoned with them is delivered as before, to whoever comes."""

    async def story(house, neighbour):
        neighbour.client.notes.auto = False
        neighbour.out.send(data_section(b"changed"), b"1")
        await neighbour.client.run()
        delivery = neighbour.client.notes.deliveries[-1]
        asker = await Asker.at(house, "queue")
        body = {
            "disposition-status": "abandoned",
            "lock-tokens": Array([UUID(bytes_le=delivery.tag)]),
            "properties-to-modify": {odd_key(odd): odd, "y": odd},
        }
        neighbour.client.notes.auto = True
        status, condition = await asker.ask("com.microsoft:update-disposition", body)
        assert status in (200, 400), condition
        house.clock.advance(60_001)
        await neighbour.client.run()
        assert house.namespace.counts("queue").active == 0

    beside(story)


# Sessions.


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("address", ["queue", "seats", SUBSCRIPTION])
def test_odd_session_filters(odd, address):
    async def story(house, neighbour):
        client = await house.client()
        client.session.receiver("a", Source(address, filter={SESSION: odd}), Target("c"))
        described = Described(SESSION, odd)
        client.session.receiver("b", Source(address, filter={SESSION: described}), Target("c"))
        client.session.receiver(
            "c", Source(address, filter={Symbol("other"): odd, SESSION: None}), Target("c")
        )
        client.session.receiver(
            "d", Source(address, filter={SESSION: "d"}), Target("c"), properties={TIMEOUT: odd}
        )
        client.session.receiver(
            "e", Source(address, filter={SESSION: None}), Target("c"), properties={TIMEOUT: odd}
        )
        await client.run()
        house.clock.advance(3_700_000)
        await client.run()
        assert set(client.conditions) <= CONDITIONS
        # An hour is longer than the neighbour's session, too.
        await neighbour.client.leave()
        fresh = await Neighbour.at(house)
        await fresh.works()
        neighbour.__dict__.update(fresh.__dict__)

    beside(story)


def test_names_of_sessions_that_no_message_can_have():
    async def story(house, neighbour):
        client = await house.client()
        for length in (128, 129, 10_000):
            client.session.receiver(
                f"r{length}", Source("seats", filter={SESSION: "x" * length}), Target("c")
            )
        client.session.receiver("n", Source("seats", filter={SESSION: Int(5)}), Target("c"))
        await client.run()
        assert client.conditions == ["com.microsoft:argument-error"] * 3

    beside(story)


# Messages.


NAMES = ("x-opt-scheduled-enqueue-time", "x-opt-partition-key", "x-opt-via-partition-key", "x-opt-sequence-number",
         "x-opt-locked-until", "x-opt-deadletter-source", "x-opt-message-state", "x-opt-enqueued-time",
         "x-opt-lock-token")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_odd_annotations(name):
    """What is taken can be delivered; what is not is refused; the link lives on."""

    async def story(house, neighbour):
        client = await house.client()
        link = await client.sender("queue")
        for odd in ODD:
            section = map_section(MESSAGE_ANNOTATIONS, {Symbol(name): odd, Symbol("x-own"): odd})
            link.send(section + data_section(b"odd"), b"t")
            await client.run()
            assert link.attached
        assert len(client.notes.outcomes) == len(ODD)
        assert set(client.conditions) <= CONDITIONS
        await neighbour.works()
        assert house.namespace.counts("queue").active == 0

    beside(story)


VALUES = (
    *(
        Byte(-1),
        Short(-1),
        Ushort(1),
        Uint(1),
        Char("x"),
        Decimal(b"\0" * 8),
        Ulong(2**64 - 1),
        Float(math.nan),
    ),
    *ODD,
)


@pytest.mark.parametrize("field", range(14))
def test_odd_properties(field):
    async def story(house, neighbour):
        client = await house.client()
        link = await client.sender("queue")
        for odd in VALUES:
            fields = [None] * field + [odd]
            link.send(list_section(PROPERTIES, fields) + data_section(b"odd"), b"t")
            await client.run()
            assert link.attached, odd
        assert len(client.notes.outcomes) == len(VALUES)
        await neighbour.works()
        assert house.namespace.counts("queue").active == 0

    beside(story)


@pytest.mark.parametrize("field", range(6))
def test_odd_headers(field):
    async def story(house, neighbour):
        client = await house.client()
        link = await client.sender("queue")
        for odd in VALUES:
            link.send(list_section(HEADER, [None] * field + [odd]) + data_section(b"odd"), b"t")
            await client.run()
            assert link.attached, odd
        assert len(client.notes.outcomes) == len(VALUES)
        house.clock.advance(1)
        await neighbour.works()
        assert house.namespace.counts("queue").active == 0

    beside(story)


NESTED = 1
for _ in range(80):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "user",
    [
        {f"p{n}": n for n in range(20_000)},
        {"p" * 60_000: "v" * 60_000},
        {f"p{n}": odd for n, odd in enumerate(VALUES)},
        {n: n for n in range(300)},
        {None: None, b"x": b"x", 1.5: [1], TOKEN: {}},
        {"nested": NESTED},
    ],
)
@pytest.mark.parametrize("address", ["queue", "topic"])
def test_odd_and_huge_property_maps(address, user):
    async def story(house, neighbour):
        client = await house.client()
        asker = await Asker.at(house, SUBSCRIPTION)
        body = {
            "rule-name": "r",
            "rule-description": {"sql-filter": {"expression": "p5 > 4 OR p1 LIKE '%v%'"}},
        }
        assert (await asker.ask("com.microsoft:add-rule", body))[0] == 200
        link = await client.sender(address)
        for _ in range(3):
            link.send(map_section(APPLICATION_PROPERTIES, user) + data_section(b"odd"), b"t")
            await client.run()
        assert link.attached
        assert len(client.notes.outcomes) == 3
        assert set(client.conditions) <= CONDITIONS
        taken = sum(outcome == ACCEPTED for _, outcome in client.notes.outcomes)
        await neighbour.works()
        if address == "topic":
            again = await house.client()
            await again.receiver(SUBSCRIPTION)
            await again.run()
            counts = house.namespace.counts(SUBSCRIPTION)
            assert len(again.notes.deliveries) + counts.dead_letter == taken
        else:
            assert house.namespace.counts("queue").active == 0

    beside(story)
