"""Events between AMQP and the envelope: the short ways say the same as the general ones."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.broker.errors import Invalid
from hubbub.broker.message import Message
from hubbub.front.amqp import events
from hubbub.front.amqp.events import BATCH_FORMAT, ENQUEUED, OFFSET, PARTITION_KEY, SEQUENCE, events_of, stamp
from hubbub.wire.amqp import message
from hubbub.wire.amqp.message import data_section, map_section, properties_section, section_map, split
from hubbub.wire.amqp.types import DecodeError, Int, Long, Symbol, Timestamp, Uint

HEADERS = st.sampled_from([b"", b"\x00SpE", b"\x00Sp\xc0\x02\x01A", message.list_section(0x70, [True, None])])
ANNOTATIONS = st.dictionaries(
    st.sampled_from([PARTITION_KEY, OFFSET, SEQUENCE, Symbol("x-own"), Symbol("y-own")]),
    st.sampled_from(["a", "b", "c"]),
    max_size=3,
).map(lambda found: map_section(0x72, found) if found else b"")
DELIVERY = st.sampled_from([b"", map_section(0x71, {Symbol("d"): Int(5)})])
PROPERTIES = st.sampled_from([b"", properties_section(message_id="m", subject="s" * 300), b"\x00SsE"])
APPLICATION = st.dictionaries(st.text(max_size=5), st.text(max_size=300), max_size=2).map(
    lambda found: map_section(0x74, found) if found else b""
)
BODIES = st.one_of(
    st.lists(st.binary(max_size=400), max_size=3).map(lambda parts: b"".join(map(data_section, parts))),
    st.sampled_from([message.value_section(v) for v in (None, "text" * 90, Uint(7), [1, "a"], {"k": 1})]),
)
FOOTERS = st.sampled_from([b"", map_section(0x78, {Symbol("f"): 1})])
SECTIONS = st.tuples(HEADERS, DELIVERY, ANNOTATIONS, PROPERTIES, APPLICATION, BODIES, FOOTERS)
EVENTS = SECTIONS.map(b"".join) | SECTIONS.flatmap(st.permutations).map(b"".join)


def generally(payload: bytes, key: str | None = None) -> Message:
    return events._with_annotations(split(payload), key)


def outcome(work, *arguments):
    try:
        return work(*arguments)
    except (DecodeError, Invalid) as error:
        return type(error)


@given(EVENTS)
@example(b"")
def test_a_single_event_reads_as_the_general_way_reads_it(payload):
    assert events_of(payload, 0) == [generally(payload)]


@given(EVENTS, st.integers(0, 3000), st.integers(0, 255), st.booleans())
def test_a_damaged_event_too(payload, at, byte, cut):
    at %= len(payload) + 1
    payload = payload[:at] if cut else payload[:at] + bytes([byte]) + payload[at + 1 :]
    found, expected = outcome(events_of, payload, 0), outcome(generally, payload)
    assert (found[0] if isinstance(found, list) else found) == expected


@given(st.lists(EVENTS, min_size=1, max_size=5), st.sampled_from([None, "key"]), st.booleans())
def test_the_events_of_a_batch(parts, key, behind):
    envelope = map_section(0x72, {PARTITION_KEY: key}) if key else b""
    sections = [envelope, *map(data_section, parts)]
    payload = b"".join(reversed(sections) if behind else sections)
    parts = parts[::-1] if behind else parts
    assert events_of(payload, BATCH_FORMAT) == [generally(part, key) for part in parts]


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", Invalid),
        (map_section(0x72, {PARTITION_KEY: "k"}), Invalid),
        (map_section(0x72, {PARTITION_KEY: 5}) + data_section(b""), Invalid),
        (map_section(0x72, {PARTITION_KEY: "k" * 129}) + data_section(b""), Invalid),
        (message.value_section("x"), DecodeError),
        (data_section(b"") + b"\x00Su\xa1\x01a", DecodeError),
        (data_section(data_section(b"x" * 300))[:-1], DecodeError),
        (data_section(b"not a message"), DecodeError),
    ],
)
def test_what_is_no_batch(payload, error):
    with pytest.raises(error):
        events_of(payload, BATCH_FORMAT)


MESSAGES = st.builds(
    Message,
    st.binary(max_size=20),
    partition_key=st.none() | st.text(max_size=5),
    publisher=st.none() | st.text(max_size=5),
    annotations=ANNOTATIONS.filter(lambda section: b"x-opt" not in section),
    header=HEADERS,
)


@given(st.lists(MESSAGES, max_size=5), st.integers(0, 2**62), st.integers(0, 2**42), st.booleans())
@example([Message(b"")] * 5, 8, 0, False)
@example([Message(b"")] * 5, 999_998, 0, True)
def test_every_event_is_stamped(messages, sequence, enqueued, metric):
    section = map_section(0x71, {Symbol("last"): Long(1)}) if metric else b""
    stamped = stamp(messages, sequence, enqueued, section)
    for at, (sent, (head, body)) in enumerate(zip(messages, stamped, strict=True), sequence):
        sections = split(head)
        stamps = section_map(sections.message_annotations)
        assert (stamps[SEQUENCE], stamps[OFFSET], stamps[ENQUEUED]) == (at, str(at), enqueued)
        assert (type(stamps[SEQUENCE]), type(stamps[ENQUEUED])) == (Long, Timestamp)
        assert stamps.get(PARTITION_KEY) == sent.partition_key
        assert stamps.get(events.PUBLISHER) == sent.publisher
        assert section_map(sent.annotations).items() <= stamps.items()
        assert head == sent.header + section + sections.message_annotations
        assert body == sent.payload
