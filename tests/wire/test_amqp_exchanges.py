"""What two SDKs really sent, byte by byte and in one piece, and the answers written out to be read.

The recordings are in `transcripts`: the clients' bytes only. The server here is the library with the least of a
service on top: it answers tokens on `$cbs` and sends the two messages it has to whoever receives.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub.wire.amqp import message
from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.frames import AMQP_HEADER, SASL, SASL_HEADER, frame
from hubbub.wire.amqp.link import Receiver
from hubbub.wire.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Described,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    SaslInit,
    Source,
    Target,
    Transfer,
)
from hubbub.wire.amqp.types import Int, Symbol, Ulong, encode
from wire.amqp_kit import Notes, frames

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def recorded(name):
    lines = (TRANSCRIPTS / f"{name}.hex").read_text().splitlines()
    return b"".join(bytes.fromhex(line) for line in lines if not line.startswith("#"))


class Service(Notes):
    def __init__(self):
        super().__init__(credit=100)
        self.messages = [message.value_section(text) for text in ("one", "two")]
        self.replies = {}

    def attach(self, link):
        super().attach(link)
        if not link.role and link.source.address == "$cbs":
            self.replies[link.session] = link

    def delivery(self, link, delivery):
        super().delivery(link, delivery)
        if link.target.address == "$cbs":
            request = message.split(delivery.payload)
            answer = message.properties_section(
                correlation_id=message.properties_of(request.properties)["message_id"]
            )
            answer += message.map_section(message.APPLICATION_PROPERTIES, {"status-code": Int(200)})
            self.replies[link.session].send(answer + message.value_section(None), b"reply", settled=True)

    def flow(self, link):
        if link.role is False and link.source.address != "$cbs":
            while self.messages and link.credit:
                link.send(self.messages.pop(0), b"tag%d" % len(self.messages))
            link.drained()

    def disposition(self, link, deliveries, state, settled):
        super().disposition(link, deliveries, state, settled)
        if not settled:
            link.settle(deliveries, state)


def replay(data, size):
    """The answer to `data` in pieces of `size`, taken after each, and the notes."""
    notes = Service()
    connection = Connection(notes, container_id="service")
    answer = b""
    for at in range(0, len(data), size):
        connection.receive(data[at : at + size])
        answer += connection.take()
    return answer, notes, connection


def readable(answer):
    lines = []
    while answer[:4] == b"AMQP":
        lines.append("sasl header" if answer[4] else "amqp header")
        head = answer[8:]
        answer = head
        cut = head.find(b"AMQP\x00\x01\x00\x00")
        if cut > 0:
            lines += [performative.NAME for _, performative, _ in frames(head[:cut])]
            answer = head[cut:]
    for channel, f, _ in frames(answer):
        name = type(f).__name__.lower()
        match f:
            case Attach():
                lines.append(f"{name} {channel}/{f.handle} {'receiver' if f.role else 'sender'} {f.name[:4]}")
            case Flow():
                lines.append(
                    f"{name} {channel}/{f.handle} count {f.delivery_count} credit {f.link_credit}"
                    f"{' drain' if f.drain else ''} next {f.next_incoming_id}"
                )
            case Transfer():
                lines.append(
                    f"{name} {channel}/{f.handle} id {f.delivery_id} {'settled' if f.settled else 'unsettled'}"
                )
            case Disposition():
                side = "receiver" if f.role else "sender"
                lines.append(
                    f"{name} {channel} {side} {f.first}..{f.last} {type(f.state).__name__} {f.settled}"
                )
            case Detach():
                lines.append(f"{name} {channel}/{f.handle} closed {f.closed}")
            case _:
                lines.append(f"{name} {channel}")
    return lines


EVENTHUB = """
sasl header
amqp:sasl-mechanisms:list
amqp:sasl-outcome:list
amqp header
open 0
begin 1
attach 1/2 sender c919
attach 1/1 receiver 53d7
flow 1/1 count 0 credit 100 next 0
transfer 1/2 id 0 settled
disposition 1 receiver 0..0 Accepted True
attach 1/3 receiver 6e3c
flow 1/3 count 0 credit 100 next 1
disposition 1 receiver 1..1 Accepted True
detach 1/3 closed True
detach 1/2 closed True
detach 1/1 closed True
end 1
close 0
"""
SERVICEBUS = """
sasl header
amqp:sasl-mechanisms:list
amqp:sasl-outcome:list
amqp header
open 0
begin 1
attach 1/2 sender 1ee0
attach 1/1 receiver 636f
flow 1/1 count 0 credit 100 next 0
transfer 1/2 id 0 settled
disposition 1 receiver 0..0 Accepted True
attach 1/3 sender 51ff
transfer 1/3 id 1 unsettled
transfer 1/3 id 2 unsettled
disposition 1 sender 1..1 Accepted True
disposition 1 sender 2..2 Modified True
flow 1/3 count 2 credit 0 drain next 1
detach 1/3 closed True
detach 1/2 closed True
detach 1/1 closed True
end 1
close 0
"""


@pytest.mark.parametrize(
    ("name", "expected"), [("eventhub_send", EVENTHUB), ("servicebus_receive", SERVICEBUS)]
)
def test_recorded(name, expected):
    answer, notes, connection = replay(recorded(name), 1)
    assert readable(answer) == expected.strip().splitlines()
    assert connection.finished
    assert notes.names()[-1] == "closed"
    assert notes.open_links == 0
    for size in (
        2,
        7,
        8,
        61,
        1000,
        100_000,
    ):  # settlements wait for the end of each piece, nothing else changes
        assert sorted(readable(replay(recorded(name), size)[0])) == sorted(readable(answer)), (
            f"pieces of {size}"
        )
    for f in frames(answer[answer.rindex(AMQP_HEADER) + 8 :]):
        assert_complete(f[1])


def assert_complete(performative):
    """One client reads fields by position and needs these."""
    if isinstance(performative, Open):
        assert performative.container_id
        assert performative.max_frame_size >= 512
    if isinstance(performative, Begin):
        assert performative.remote_channel is not None
        assert performative.handle_max is not None
    if isinstance(performative, Attach):
        assert performative.max_message_size > 0
        assert performative.source is not None
        assert performative.target is not None
        assert performative.properties is not None
        assert (performative.initial_delivery_count is None) is performative.role


def test_event_batch_arrives_as_it_was_sent():
    """The batch's format and its bytes are untouched."""
    _, notes, _ = replay(recorded("eventhub_send"), 100_000)
    batch = notes.deliveries[1]
    assert batch.format == 0x80013700
    assert batch.payload in recorded("eventhub_send")
    assert len(message.data_sections(message.split(batch.payload).body)) == 2


def short(performative, channel=0, payload=b""):
    """As the JavaScript SDKs encode: trailing fields left out, list32 or list0, arrays and maps wide."""
    values = performative._values()
    while values and values[-1] in (None, False):
        values.pop()
    body = encode(Described(Ulong(performative.CODE), values))
    return frame(0, channel, body + payload)


def test_the_javascript_way():
    """No SASL at all, list0 and short lists, an empty terminus, a session per link, and end before close."""
    notes = Service()
    connection = Connection(notes, container_id="service")
    attach = Attach("q-1", 0, True, source=Source("q"), target=Target())
    connection.receive(AMQP_HEADER + short(Open("js", "host", idle_time_out=60000)))
    connection.receive(short(Begin(None, 0, 2048, 4294967295)) + short(attach))
    connection.receive(short(Flow(0, 2048, 0, 4294967295, 0, 0, 30)))
    connection.receive(frame(0, 0, b"\x00\x53\x15\xc0\x0a\x05\x41\x43\x52\x01\x41\x00\x53\x24\x45"))
    connection.receive(short(Flow(2, 2048, 0, 4294967295, 0, 2, 28, None, True)))
    connection.receive(short(Detach(0, True)) + short(End()) + short(Close()))
    assert short(End()).endswith(b"\x45")
    answer = connection.take()
    assert readable(answer) == [
        "amqp header", "open 0", "begin 0", "attach 0/0 sender q-1", "transfer 0/0 id 0 unsettled",
        "transfer 0/0 id 1 unsettled", "flow 0/0 count 30 credit 0 drain next 0", "detach 0/0 closed True", "end 0",
        "close 0",
    ]  # fmt: skip
    sent = frames(answer, header=True)
    assert sent[3][1].target == Target(), "an empty terminus comes back as one of nulls"
    assert [f.message_format for _, f, _ in sent if isinstance(f, Transfer)] == [0, 0]
    outcomes = notes.of("disposition")
    assert [(len(event[2]), event[4]) for event in outcomes] == [(2, True)]


def test_refusal_as_the_service_does_it():
    """Attach with our terminus null, and the detach right behind; the client's own detach is swallowed."""
    notes = Notes(answer=False)
    connection = Connection(notes, container_id="service")
    connection.receive(AMQP_HEADER + short(Open("c")) + short(Begin(None, 0, 10, 10)))
    source = Source("hub", filter={Symbol("f:sel"): Described(Symbol("f:sel"), "x > 1")})
    connection.receive(short(Attach("r", 0, True, source=source, target=Target())))
    connection.receive(short(Attach("s", 1, False, source=Source(), target=Target("hub"))))
    connection.take()
    receiver, sender = notes.links[1], notes.links[0]
    sender.refuse("amqp:not-found", "The messaging entity could not be found.")
    receiver.refuse("com.microsoft:timeout", info={"k": 1})
    (_, a, _), (_, b, _), (_, c, _), (_, d, _) = frames(connection.take())
    assert (a.source, a.target, a.handle, a.initial_delivery_count) == (None, Target(), 0, 0)
    assert (b.handle, b.closed, b.error.condition) == (0, True, "amqp:not-found")
    assert (c.source, c.target, c.initial_delivery_count) == (Source(), None, None)
    assert d.error.info == {"k": 1}
    connection.receive(short(Detach(0, True)) + short(Detach(1, True)))
    assert connection.take() == b""
    assert notes.of("detached") == []
    assert connection.links == 0


def test_a_filter_is_echoed_as_it_came():
    notes = Notes()
    connection = Connection(notes, container_id="service")
    filters = {
        Symbol("a"): Described(Ulong(0x0000468C00000004), "x"), Symbol("com.microsoft:session-filter"): None, "s": Int(1),
    }  # fmt: skip
    attach = Attach("r", 5, True, 0, 1, source=Source("q", filter=filters), target=Target("x"))
    connection.receive(AMQP_HEADER + short(Open("c")) + short(Begin(None, 0, 10, 10)) + short(attach))
    reply = frames(connection.take(), header=True)[-1][1]
    assert reply.source == attach.source
    assert reply.encode()[:3] == b"\x00\x53\x12"
    assert (reply.handle, reply.snd_settle_mode, reply.rcv_settle_mode) == (5, 0, 1)


def test_plain_may_be_judged_later():
    notes = Notes(password=None)
    connection = Connection(notes, container_id="service")
    connection.receive(SASL_HEADER + frame(SASL, 0, SaslInit("PLAIN", b"\0key\0secret").encode()))
    connection.receive(AMQP_HEADER + short(Open("c")))
    assert readable(connection.take()) == ["sasl header", "saslmechanisms 0"]
    assert notes.events == [("authenticate", "PLAIN", "key", "secret")]
    connection.authenticated(True)
    assert readable(b"AMQP\x00\x01\x00\x00" + connection.take()) == [
        "amqp header",
        "amqp:sasl-outcome:list",
        "amqp header",
        "open 0",
    ]
    assert connection.mechanism == "PLAIN"
    assert isinstance(notes, Notes)
    assert notes.names()[-1] == "opened"
    assert Receiver.role is True
