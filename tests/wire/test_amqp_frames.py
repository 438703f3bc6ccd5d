"""Frames and performatives: every split, every short form, and the quick ways against the plain one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.wire.amqp import hot
from hubbub.wire.amqp import performatives as p
from hubbub.wire.amqp.errors import FrameError
from hubbub.wire.amqp.frames import AMQP_HEADER, HEADER, HEARTBEAT, SASL, FrameReader, frame
from hubbub.wire.amqp.types import DecodeError, Described, Symbol, Ulong, decode, encode

U32 = st.integers(0, 2**32 - 1)


def read_all(reader):
    found = []
    while (got := reader.next()) is not None:
        kind, channel, data, start, end = got
        found.append((kind, channel, data[start:end]))
    return found


STREAM = (
    AMQP_HEADER
    + frame(0, 7, b"abc")
    + HEARTBEAT
    + frame(SASL, 0, b"d" * 300)
    + b"\0\0\0\x0e\x03\0\0\x09extnyz"
)
WHOLE = [(HEADER, 0, AMQP_HEADER), (0, 7, b"abc"), (0, 0, b""), (SASL, 0, b"d" * 300), (0, 9, b"yz")]


@pytest.mark.parametrize("first", range(len(STREAM) + 1))
def test_frames_at_every_split(first):
    reader = FrameReader(512)
    reader.feed(STREAM[:first])
    found = read_all(reader)
    reader.feed(STREAM[first:])
    assert found + read_all(reader) == WHOLE
    assert reader.held_bytes == 0


def test_frames_byte_by_byte():
    reader, found = FrameReader(512), []
    for i in range(len(STREAM)):
        reader.feed(STREAM[i : i + 1])
        found += read_all(reader)
    assert found == WHOLE


@given(st.lists(st.integers(1, 40)), st.integers(0, 5))
@settings(deadline=None)
def test_frames_left_unread_for_a_while(cuts, patience):
    """While credentials are judged nothing is read; nothing is lost by that."""
    reader, data, found = FrameReader(512), STREAM, []
    for i, cut in enumerate([*cuts, len(STREAM)]):
        reader.feed(data[:cut])
        data = data[cut:]
        if i >= patience and (got := reader.next()) is not None:
            kind, channel, body, start, end = got
            found.append((kind, channel, body[start:end]))
    assert found + read_all(reader) == WHOLE


def test_a_large_frame_does_not_hold_up_small_ones_behind_it():
    reader = FrameReader(512)
    reader.header_due = False
    reader.feed(frame(0, 0, b"d" * 300)[:100])
    assert reader.next() is None
    reader.feed(frame(0, 0, b"d" * 300)[100:] + HEARTBEAT)
    assert reader.next()[4] == 308
    reader.feed(b"\x00")
    assert read_all(reader) == [(0, 0, b"")]


@pytest.mark.parametrize(
    "data",
    [struct.pack(">IBBH", 7, 2, 0, 0), struct.pack(">IBBH", 513, 2, 0, 0), struct.pack(">IBBH", 8, 1, 0, 0),
     struct.pack(">IBBH", 8, 3, 0, 0), b"\xff" * 8, b"GET / HT"],
)  # fmt: skip
def test_what_is_no_frame(data):
    reader = FrameReader(512)
    reader.header_due = False
    reader.feed(data)
    with pytest.raises(FrameError) as caught:
        reader.next()
    assert caught.value.condition == "amqp:connection:framing-error"


# --- performatives

FULL = [
    p.Open("me", "host", 65536, 4999, 120000, ["en"], None, ["a", "b"], None, {Symbol("k"): "v"}),
    p.Begin(3, 1, 2, 3, 255, None, None, None),
    p.Attach("l", 2, True, 0, 1, p.Source("q", filter={Symbol("f"): Described(Ulong(5), "x")}), p.Target("t"),
             None, None, 0, 1048576, None, ["x"], {Symbol("a"): 1}),
    p.Attach("c", 2, False, target=p.Coordinator(["amqp:local-transactions"]), source=p.Source()),
    p.Flow(1, 2, 3, 4, 5, 6, 7, 8, True, True, {Symbol("x"): 1}),
    p.Transfer(1, 2, b"tag", 0x80013700, True, True, 1, p.TransactionalState(b"tx", p.ACCEPTED), True, True, True),
    p.Disposition(True, 1, 9, True, p.Rejected(p.Error("a:b", "why", {Symbol("k"): "v"})), True),
    p.Detach(1, True, p.Error("amqp:link:stolen", "gone")), p.End(p.Error("a:b")), p.Close(), p.Received(1, 2),
    p.Modified(True, False, {Symbol("x"): 1}), p.Released(), p.Declared(b"t"), p.Declare(), p.Discharge(b"t", True),
    p.SaslMechanisms(["PLAIN"]), p.SaslInit("PLAIN", b"\0u\0p", "h"), p.SaslChallenge(b"c"), p.SaslResponse(b"r"),
    p.SaslOutcome(1, b"x"),
]  # fmt: skip


def plain(data):
    value, end = decode(data)
    assert end == len(data)
    return p.composite(value)


@pytest.mark.parametrize("performative", FULL, ids=lambda f: type(f).__name__)
def test_performatives_come_back(performative):
    data = performative.encode()
    assert data[:3] == b"\x00\x53" + bytes((performative.CODE,))
    assert plain(data) == performative
    if performative.FIELDS:
        assert len(decode(data)[0].value) == len(performative.FIELDS), (
            "every field is written, nulls included"
        )


@pytest.mark.parametrize("performative", FULL, ids=lambda f: type(f).__name__)
def test_short_and_symbolic_forms_mean_the_same(performative):
    values = decode(performative.encode())[0].value
    while values and values[-1] is None:
        values.pop()
    for descriptor in (performative.NAME, performative.CODE):
        kind = Symbol if isinstance(descriptor, str) else Ulong
        assert plain(encode(Described(kind(descriptor), values))) == performative


@pytest.mark.parametrize("performative", FULL, ids=lambda f: type(f).__name__)
def test_wrong_types_and_missing_fields_are_decode_errors(performative):
    values = decode(performative.encode())[0].value
    required = [i for i, field in enumerate(performative.FIELDS) if field.required]
    wrong = [[*values, None], "no list", {}]
    wrong += [[*values[:i], None, *values[i + 1 :]] for i in required]
    wrong += [values[:i] for i in required]
    wrong += [
        [*values[:i], p.Array([1.5]), *values[i + 1 :]]
        for i in range(len(values))
        if performative.CODE != 0x31
    ]
    for bad in wrong:
        with pytest.raises(DecodeError):
            p.composite(Described(Ulong(performative.CODE), bad))


@pytest.mark.parametrize("descriptor", [Ulong(0x99), Symbol("amqp:nothing:list"), [], None, {}])
def test_unknown_descriptors(descriptor):
    with pytest.raises(DecodeError):
        p.composite(Described(descriptor, []))
    with pytest.raises(DecodeError):
        p.Detach.from_list(
            [1, True, Described(descriptor, []) if descriptor != 0x99 else Described(Ulong(0x24), [])]
        )


def test_an_empty_array_is_never_sent():
    assert p.Open("x", offered_capabilities=[]).encode() == p.Open("x").encode()


# --- the quick ways

STATES = st.sampled_from(
    [None, p.ACCEPTED, p.RELEASED, p.Rejected(), p.Rejected(p.Error("a:b", "c" * 300)), p.Modified(True, True),
     p.Modified(True, False, {Symbol("a"): "b" * 10}), p.TransactionalState(b"t" * 9, p.ACCEPTED), p.Received(1, 2)]
)  # fmt: skip
FLAGS = st.sampled_from([None, True, False])
TRANSFERS = st.builds(
    p.Transfer, U32, st.none() | U32, st.none() | st.binary(max_size=32), st.none() | U32, FLAGS, st.booleans(),
    st.sampled_from([None, 0, 1]), STATES, st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
TAILS = hot.Tails()  # shared by all examples, so that what one leaves behind meets the next


def forms(performative, trim, wide):
    """Encodings that mean the same: in full or without what ends it, list8 or list32, booleans of one byte or two."""
    long = wide == trim
    values = decode(performative.encode())[0].value
    while trim and values and (values[-1] is None or values[-1] is False):
        values.pop()
    items = b"".join(
        {True: b"\x56\x01", False: b"\x56\x00"}[v] if long and type(v) is bool else encode(v) for v in values
    )
    code = b"\x00\x53" + bytes((performative.CODE,))
    if wide or len(items) > 254:
        return code + b"\xd0" + struct.pack(">II", len(items) + 4, len(values)) + items
    return code + (b"\xc0" + bytes((len(items) + 1, len(values))) + items if values else b"\x45")


@given(TRANSFERS, st.booleans(), st.booleans(), st.binary(max_size=20))
@settings(max_examples=400, deadline=None)
def test_transfers_read_quickly_are_the_same(transfer, trim, wide, payload):
    data = b"junk" + forms(transfer, trim, wide)
    for _ in range(2):  # the second time it is remembered
        handle, delivery_id, tag, head, stop = hot.decode_transfer(
            data + payload, 4, len(data + payload), TAILS
        )
        assert (handle, delivery_id, tag) == (transfer.handle, transfer.delivery_id, transfer.delivery_tag)
        assert stop == len(data)
        for name in ("message_format", "more", "state", "aborted", "rcv_settle_mode"):
            assert getattr(head, name) == getattr(transfer, name)
        assert bool(head.settled) is bool(transfer.settled)


@given(U32, U32, st.binary(max_size=32), U32, st.booleans(), st.booleans(), st.binary(max_size=50))
@settings(deadline=None)
def test_transfers_written_quickly_are_the_same(handle, delivery_id, tag, code, settled, more, payload):
    tail = hot.transfer_tail(code, settled, more)
    data = hot.encode_transfer(9, handle, delivery_id, tag, tail, len(payload)) + payload
    assert len(data) - len(payload) == hot.transfer_overhead(tag)
    reader = FrameReader(1 << 20)
    reader.header_due = False
    reader.feed(data)
    (kind, channel, body) = read_all(reader)[0]
    assert (kind, channel) == (0, 9)
    value, stop = decode(body)
    assert len(value.value) == 11
    assert p.composite(value) == p.Transfer(handle, delivery_id, tag, code, settled, more)
    assert body[stop:] == payload


@given(
    st.booleans(), U32, st.none() | U32, st.booleans(), STATES, st.booleans(), st.booleans(), st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_dispositions_read_quickly_are_the_same(role, first, last, settled, state, batchable, trim, wide):
    disposition = p.Disposition(role, first, last, settled, state, batchable)
    data = forms(disposition, trim, wide)
    for _ in range(2):
        got = hot.decode_disposition(data, 0, len(data), TAILS)
        assert got[:3] == (role, first, first if last is None else last)
        assert (got[3].settled, got[3].state) == (settled, state)
    with pytest.raises(DecodeError):
        hot.decode_disposition(data + b"\x40", 0, len(data) + 1, TAILS)


@given(st.booleans(), U32, U32, STATES)
def test_dispositions_written_quickly_are_the_same(role, first, last, state):
    data = hot.encode_disposition(5, role, first, last, hot.encode_state(state))
    assert struct.unpack(">IBBH", data[:8]) == (len(data), 2, 0, 5)
    assert plain(data[8:]) == p.Disposition(role, first, last, True, state)
    assert len(decode(data[8:])[0].value) == 6


@given(
    st.none() | U32, U32, U32, U32, st.none() | U32, st.none() | U32, st.none() | U32, st.none() | U32,
    st.booleans(), st.booleans(), st.sampled_from([None, {Symbol("a"): 1}]), st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_flows_are_the_same(
    a, b, c, d, handle, count, credit, available, drain, echo, properties, trim, wide
):
    flow = p.Flow(a, b, c, d, handle, count, credit, available, drain, echo, properties)
    data = forms(flow, trim, wide)
    assert hot.decode_flow(data, 0, len(data)) == flow
    if None not in (a, handle, count, credit):
        data = hot.encode_flow(1, (a, b, c, d), hot.flow_of_link(handle, count, credit, drain))
        assert plain(data[8:]) == p.Flow(a, b, c, d, handle, count, credit, None, drain, False)
        assert plain(hot.encode_flow(1, (a, b, c, d))[8:]) == p.Flow(a, b, c, d)


@given(st.sampled_from([hot.TRANSFER, hot.DISPOSITION, hot.FLOW]), st.binary(max_size=60), st.data())
@settings(max_examples=400, deadline=None)
def test_bytes_that_are_none_of_them(code, rest, draw):
    if draw.draw(st.booleans()):
        rest = forms(draw.draw(TRANSFERS), True, draw.draw(st.booleans()))[3:]
        at = draw.draw(st.integers(0, len(rest) - 1))
        rest = rest[:at] + draw.draw(st.binary(max_size=2)) + rest[at + 1 :]
    data = code + rest
    read = {
        hot.TRANSFER: lambda: hot.decode_transfer(data, 0, len(data), TAILS),
        hot.DISPOSITION: lambda: hot.decode_disposition(data, 0, len(data), TAILS),
        hot.FLOW: lambda: hot.decode_flow(data, 0, len(data)),
    }
    try:
        read[code]()
    except DecodeError:
        pass


def test_what_is_remembered_is_not_believed_of_another_count():
    tails = hot.Tails()
    data = p.Transfer(1, 1, b"t", 0).encode()
    wrong = data[:5] + bytes((data[5] - 1,)) + data[6:]
    for good in (True, False, True):
        if good:
            hot.decode_transfer(data, 0, len(data), tails)
        else:
            with pytest.raises(DecodeError):
                hot.decode_transfer(wrong, 0, len(wrong), tails)


def test_what_is_remembered_is_bounded():
    tails = hot.Tails()
    for code in range(1000):
        data = p.Transfer(1, 1, b"t", code).encode()
        assert hot.decode_transfer(data, 0, len(data), tails)[3].message_format == code
    assert len(tails.transfers) <= 64
