"""Bad input over AMQP: each gets the condition the service would send, and never harms another connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from amqp_house import CONDITIONS, house

from hubbub.wire.amqp.errors import StateError
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    data_section,
    map_section,
    section_map,
    split,
    value_section,
)
from hubbub.wire.amqp.performatives import Attach, Source, Target
from hubbub.wire.amqp.types import Array, Described, Int, Long, Symbol, Ulong

CONSUMER = "hub/ConsumerGroups/$Default/Partitions/0"


def frame(body: bytes, channel: int = 0, kind: int = 0, offset: int = 2) -> bytes:
    return struct.pack(">IBBH", len(body) + 8, offset, kind, channel) + body


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"\0\0\0\7\2\0\0\0", "amqp:connection:framing-error"),
        (struct.pack(">IBBH", 1 << 30, 2, 0, 0), "amqp:connection:framing-error"),
        (frame(b"", offset=1), "amqp:connection:framing-error"),
        (frame(b"", offset=9), "amqp:connection:framing-error"),
        (frame(b"\0\x53\x10\xff"), "amqp:decode-error"),
        (frame(b"\0\x53\x99\x45"), None),
        (frame(b"\xde\xad\xbe\xef"), None),
        (frame(b"\0\x53\x14\xc0\x05\x03\x52\x4d\x43\x40"), None),
        (frame(b"\0\x53\x12\xc0\x07\x03\xa1\x01a\x43\x42", channel=9), None),
        (b"GET / HTTP/1.1\r\n\r\n", "amqp:connection:framing-error"),
        (b"\0" * 64, "amqp:connection:framing-error"),
    ],
)
def test_malformed_frames(data, condition):
    @house
    async def main(house):
        client = await house.client()
        await client.sender("hub")
        await client.raw(data)
        assert client.conditions
        assert set(client.conditions) <= CONDITIONS
        if condition is not None:
            assert client.conditions[-1] == condition

    main()


@house
async def test_too_many_links(house):
    client = await house.client()
    links = []
    with contextlib.suppress(StateError):
        links += (client.session.sender(f"s{n}", Target("hub"), Source("c")) for n in range(1000))
    await client.run()
    # The server has told how many handles there are, and the client's library keeps to it.
    assert sum(link.attached for link in links) <= 256
    beyond = Attach("beyond", 300, False, target=Target("hub"), source=Source("c"))
    client.wire.send(client.session.channel, beyond)
    await client.run()
    assert client.conditions
    assert set(client.conditions) <= CONDITIONS


@house
async def test_attach_and_detach_without_end(house):
    client = await house.client()
    for _ in range(2000):
        link = client.session.receiver("r", Source("queue"), Target("c"))
        await client.run()
        link.detach()
        await client.run()
    assert not client.gone
    assert len(house.namespace.receivers["queue"].waiting) == 0
    assert len(client.protocol.handler._rights) == 0


@house
async def test_readers_of_a_partition_come_and_go(house):
    client = await house.client()
    for _ in range(300):
        link = client.session.receiver("r", Source(CONSUMER), Target("c"))
        await client.run()
        link.detach()
        await client.run()
    assert house.server.readers == {}
    for n in range(7):
        client.session.receiver(f"r{n}", Source(CONSUMER), Target("c"))
    await client.run()
    assert client.conditions == ["amqp:resource-limit-exceeded"] * 2


@house
async def test_credit_without_reading(house):
    """What waits for a client that does not read is bounded; the rest stays where it is."""
    for _ in range(400):
        house.good_link.send(data_section(b"x" * 10_000), b"1")
        await house.good.run()
    client = await house.client()
    client.transport.room = 0
    link = client.session.receiver("r", Source(CONSUMER), Target("c"))
    link.context = None
    client.notes.credit = 1_000_000
    client.protocol.data_received(client.wire.take())
    await asyncio.sleep(0.01)
    answer, client.transport.output = client.transport.output, b""
    client.wire.receive(answer)
    client.protocol.data_received(client.wire.take())
    await asyncio.sleep(0.05)
    kept = len(client.transport.output) + client.protocol.wire.waiting_bytes
    assert kept < 3 << 20
    assert not client.protocol.writable
    client.transport.room = None
    client.transport.backlog = 0
    client.protocol.resume_writing()
    for _ in range(100):
        await client.run()
    assert len(client.notes.deliveries) == 400


@house
async def test_more_than_the_credit(house):
    client = await house.client()
    link = await client.sender("hub")
    link._credit = 1 << 30
    for n in range(12_000):
        link.send(data_section(b"x"), b"%d" % n)
        if not n % 1000:
            await client.run()
    await client.run()
    assert set(client.conditions) <= {"amqp:link:transfer-limit-exceeded", "amqp:session:window-violation"}


@pytest.mark.parametrize(
    ("payload", "form"),
    [
        (b"", 0),
        (b"garbage", 0),
        (b"\0\x53\x75\xa0\xff", 0),
        (data_section(b"not a message"), 0x80013700),
        (b"", 0x80013700),
        (b"\0\x53\x72\xc1\x05\x02\xa3\x01a\x43", 0x80013700),
    ],
)
@pytest.mark.parametrize("address", ["hub", "queue"])
def test_payloads_that_are_no_messages(address, payload, form):
    """Rejected, and the link lives on. (An empty message is one: a client may send nothing.)"""

    @house
    async def main(house):
        client = await house.client()
        link = await client.sender(address)
        link.send(payload, b"1", format=form)
        link.send(data_section(b"fits"), b"2")
        await client.run()
        first, second = (state for _, state in client.notes.outcomes)
        assert type(second).__name__ == "Accepted"
        if payload or form:
            assert first.error.condition in ("amqp:decode-error", "com.microsoft:argument-error")

    main()


@pytest.mark.parametrize("node", ["$management", "queue/$management", "$cbs"])
@pytest.mark.parametrize("payload", [b"", b"garbage", data_section(b"x"), b"\0\x53\x77\x40"])
def test_requests_that_are_none(node, payload):
    @house
    async def main(house):
        client = await house.client()
        await client.receiver(node)
        link = await client.sender(node)
        link.send(payload, b"1")
        await client.run()
        assert client.notes.outcomes or client.conditions
        assert not client.gone

    main()


@pytest.mark.parametrize("name", ["x-opt-sequence-number", "x-opt-enqueued-time", "x-opt-offset"])
@pytest.mark.parametrize("value", ["--5", "\u00b2", "9" * 5000, "", "1e3", "x"])
def test_positions_that_are_no_numbers(name, value):
    @house
    async def main(house):
        client = await house.client()
        selector = Described(Ulong(0x137000000A), f"amqp.annotation.{name} > '{value}'")
        source = Source(CONSUMER, filter={Symbol("apache.org:selector-filter:string"): selector})
        client.session.receiver("r", source, Target("c"))
        await client.run()
        assert client.conditions == ["com.microsoft:argument-error"]

    main()


@pytest.mark.parametrize("position", ["x-opt-sequence-number > '1'", "x-opt-sequence-number > '-9'"])
def test_a_position_whose_events_are_gone(position):
    """A reader that was away longer than events are kept waits for the next one, like a new one."""

    @house
    async def main(house):
        hub = house.namespace.hubs["hub"]
        for _ in range(5):
            house.good_link.send(data_section(b"old"), b"1")
        await house.good.run()
        log = hub.partitions[0]
        house.clock.advance(8 * 86_400_000)
        await house.good.run()
        house.namespace.retain()
        await house.renew()
        assert (log.first, log.durable) == (5, 5)
        client = await house.client()
        selector = Described(Ulong(0x137000000A), f"amqp.annotation.{position}")
        source = Source(CONSUMER, filter={Symbol("apache.org:selector-filter:string"): selector})
        client.session.receiver("r", source, Target("c"))
        await client.run()
        assert (client.conditions, client.notes.deliveries) == ([], [])
        house.good_link.send(data_section(b"new"), b"1")
        await house.good.run()
        await client.run()
        assert len(client.notes.deliveries) == 1

    main()


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("peek-message", {"from-sequence-number": "x", "message-count": Int(1)}),
        ("peek-message", {"from-sequence-number": [], "message-count": Int(1)}),
        ("receive-by-sequence-number", {"receiver-settle-mode": "x", "sequence-numbers": Array([Long(1)])}),
        ("receive-by-sequence-number", {"receiver-settle-mode": {}, "sequence-numbers": Array([Long(1)])}),
    ],
)
def test_requests_with_values_of_wrong_types(verb, body):
    @house
    async def main(house):
        client = await house.client()
        await client.receiver("queue/$management")
        link = await client.sender("queue/$management")
        said = {"operation": f"com.microsoft:{verb}"}
        link.send(map_section(APPLICATION_PROPERTIES, said) + value_section(body), b"1")
        await client.run()
        answer = section_map(split(client.notes.deliveries[0].payload).application_properties)
        assert (answer["statusCode"], answer["errorCondition"]) == (400, "com.microsoft:argument-error")

    main()


RECORDED: list[bytes] = []


def recorded() -> bytes:
    """What a client sends that does a bit of everything."""
    if not RECORDED:

        @house
        async def main(house):
            client = await house.client()
            sent: list[bytes] = []
            receive = client.protocol.data_received
            client.protocol.data_received = lambda data: (sent.append(data), receive(data))  # type: ignore[method-assign]
            link = await client.sender("hub")
            link.send(data_section(b"x"), b"1")
            link.send(data_section(data_section(b"y")), b"2", format=0x80013700)
            queue = await client.sender("queue")
            queue.send(data_section(b"x" * 100_000), b"3")
            await client.receiver("queue")
            await client.receiver(CONSUMER)
            await client.put_token(60)
            link.detach()
            await client.run()
            RECORDED.append(b"".join(sent))

        main()
    return RECORDED[0]


@settings(deadline=None)
@given(st.data())
def test_whatever_comes_nobody_else_suffers(data):
    """Bytes changed, cut out and doubled at random places of a conversation."""
    talk = bytearray(recorded())
    for _ in range(data.draw(st.integers(1, 6))):
        at = (
            data.draw(st.integers(0, len(talk) - 1))
            if data.draw(st.booleans())
            else data.draw(st.integers(0, 900))
        )
        match data.draw(st.sampled_from(("change", "cut", "double"))):
            case "change":
                talk[at] = data.draw(st.integers(0, 255))
            case "cut":
                del talk[at : at + data.draw(st.integers(1, 40))]
            case "double":
                talk[at:at] = talk[at : at + data.draw(st.integers(1, 200))]
    step = data.draw(st.sampled_from((7, 100, 1 << 20)))

    @house
    async def main(house):
        client = await house.client()
        for at in range(0, len(talk), step):
            if client.gone:
                break
            client.protocol.data_received(bytes(talk[at : at + step]))
        await client.run()
        assert set(client.conditions) <= CONDITIONS, client.conditions

    errors: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = errors.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        main()
    finally:
        logging.getLogger().removeHandler(handler)
    assert not errors, errors[0].getMessage()
