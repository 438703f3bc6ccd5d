"""Encoded messages opened for rules and closed again: what was not touched stays, what was keeps its type."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from hubbub.broker.filters import parse_action, parse_filter
from hubbub.broker.message import Message
from hubbub.front.letters import Letters
from hubbub.wire.amqp.message import APPLICATION_PROPERTIES, map_section, properties_of, section_map, split
from hubbub.wire.amqp.types import (
    Described,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Ulong,
)

NOW = 1_700_000_000_000
USER = {
    "int": Int(5),
    "long": Long(5),
    "short": Short(5),
    "tiny": Ubyte(5),
    "huge": Ulong(1 << 63),
    "half": Float(2.5),
    "double": 2.5,
    "when": Timestamp(NOW),
    "span": Described(Symbol("com.microsoft:timespan"), Long(300_000_000)),
    "offset": Described(
        Symbol("com.microsoft:datetime-offset"), Long(621_355_968_000_000_000 + NOW * 10_000)
    ),
    "uri": Described(Symbol("com.microsoft:uri"), "http://a/b"),
    "odd": Described(Symbol("other"), Long(1)),
    "id": uuid.UUID(int=7),
}


def message(**fields):
    return Message(map_section(APPLICATION_PROPERTIES, USER), **fields)


def changed(action, **fields):
    letters = Letters()
    subject = message(**fields)
    letter = letters.open(subject, NOW)
    parse_action(action)(letter)
    return letters.close(subject, letter)


def user(found):
    return section_map(split(found.payload).application_properties)


@pytest.mark.parametrize(
    "text",
    [
        "int = 5", "huge > 9223372036854775807", "half = 2.5", "offset = when", "uri = 'http://a/b'", "odd IS NULL", "span > @none",
        "sys.DeliveryCount = 2", "sys.ExpiresAtUtc - sys.EnqueuedTimeUtc = sys.TimeToLive", "sys.Size > 10",
    ],
)  # fmt: skip
def test_what_rules_see(text):
    letter = Letters().open(message(ttl=5_000, deliveries=2), NOW)
    assert parse_filter(text, {"@none": timedelta()}).evaluate(letter) is True
    assert letter.user["when"] == datetime.fromtimestamp(NOW / 1000, UTC)


@pytest.mark.parametrize(
    ("action", "name", "expected"),
    [
        ("SET int = int + 1", "int", Int(6)), ("SET short = short * 2", "short", Short(10)), ("SET tiny = 255", "tiny", Ubyte(255)),
        ("SET tiny = 256", "tiny", Long(256)), ("SET int = 2147483648", "int", Long(1 << 31)), ("SET half = 1.5", "half", Float(1.5)),
        ("SET long = '7'", "long", Long(7)), ("SET new = 7", "new", Long(7)), ("SET new = 7.0", "new", 7.0), ("SET new = TRUE", "new", True),
        ("SET when = when + span", "when", Timestamp(NOW + 30_000)), ("SET new = 'a'", "new", "a"), ("SET new = id", "new", uuid.UUID(int=7)),
        ("SET span = span + span", "span", Described(Symbol("com.microsoft:timespan"), Long(600_000_000))),
    ],
)  # fmt: skip
def test_changed_properties_keep_their_type(action, name, expected):
    found = user(changed(action))
    assert (found[name], type(found[name])) == (expected, type(expected))
    assert {k: v for k, v in found.items() if k != name} == {k: v for k, v in USER.items() if k != name}


def test_system_properties_reach_the_envelope():
    found = changed(
        "SET sys.SessionId = int; SET sys.Label = 'new'; SET sys.TimeToLive = span; REMOVE sys.MessageId"
    )
    assert (found.session_id, found.ttl, found.message_id) == ("5", 30_000, None)
    assert properties_of(split(found.payload).properties)["subject"] == "new"
    assert changed("REMOVE sys.TimeToLive", ttl=5).ttl is None


def test_the_moment_of_enqueueing_is_not_looked_at_again():
    assert changed("SET sys.ScheduledEnqueueTimeUtc = when").scheduled is None
    assert changed("REMOVE sys.ScheduledEnqueueTimeUtc", scheduled=NOW + 5).scheduled == NOW + 5
