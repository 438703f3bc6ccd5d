"""Opens encoded messages for the rules of subscriptions, and closes what an action changed.

Properties that no action touched keep their bytes and exact types; those that one changed keep their type
if the new value fits into it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from ..broker.filters import Letter
from ..broker.message import Message
from ..wire.amqp.message import (
    APPLICATION_PROPERTIES,
    PROPERTIES,
    PROPERTY_NAMES,
    list_section,
    map_section,
    properties_of,
    section_list,
    section_map,
    split,
)
from ..wire.amqp.types import (
    Byte,
    DecodeError,
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

_PLACES = {
    "MessageId": "message_id",
    "CorrelationId": "correlation_id",
    "SessionId": "group_id",
    "ReplyToSessionId": "reply_to_group_id",
    "To": "to",
    "ReplyTo": "reply_to",
    "Label": "subject",
    "ContentType": "content_type",
}
"""System properties that travel in the properties section."""
_TIMESPAN = "com.microsoft:timespan"
"""Descriptor of a length of time, in units of 100 ns."""
_RANGES = {
    **{kind: (0, (1 << bits) - 1) for kind, bits in ((Ubyte, 8), (Ushort, 16), (Uint, 32), (Ulong, 64))},
    **{kind: (-(1 << bits), (1 << bits) - 1) for kind, bits in ((Byte, 7), (Short, 15), (Int, 31))},
}
"""Whole numbers that are not long."""
_TICKS_1970 = 621_355_968_000_000_000
"""Units of 100 ns since the year 1."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN = frozenset((str, bool, float, bytes, UUID))


class Letters:
    """See `broker.topic.Letters`."""

    def open(self, message: Message, now: int) -> Letter:
        sections = split(message.payload)
        try:
            user = section_map(sections.application_properties)
        except DecodeError:
            user = {}
        properties = partial(self._system, message, sections.properties, now)
        return Letter(properties, {str(name): plain(value) for name, value in user.items()})

    @staticmethod
    def _system(message: Message, section: bytes, now: int) -> dict[str, Any]:
        """Few rules ask for these, so they are made when one does."""
        try:
            properties = properties_of(section)
        except DecodeError:
            properties = {}
        system = {name: plain(properties.get(place)) for name, place in _PLACES.items()}
        return system | {
            "MessageId": message.message_id or system["MessageId"],
            "SessionId": message.session_id or system["SessionId"],
            "PartitionKey": message.partition_key,
            "ViaPartitionKey": message.via_partition_key,
            "TimeToLive": None if message.ttl is None else timedelta(milliseconds=message.ttl),
            "ScheduledEnqueueTimeUtc": _moment(message.scheduled),
            "EnqueuedTimeUtc": _moment(now),
            "EnqueuedSequenceNumber": message.enqueued_sequence,
            "ForcePersistence": message.force_persistence,
            "Size": len(message.payload),
            "State": "Active",
            "DeliveryCount": message.deliveries,
            "ExpiresAtUtc": None if message.ttl is None else _moment(now + message.ttl),
        }

    def close(self, message: Message, letter: Letter) -> Message:
        sections = split(message.payload)
        if letter.changed_system:
            sections.properties = _changed_properties(sections.properties, letter.changed_system)
        if letter.changed_user:
            user = section_map(sections.application_properties)
            user |= {name: encodable(value, user.get(name)) for name, value in letter.changed_user.items()}
            kept = {name: value for name, value in user.items() if value is not None}
            sections.application_properties = map_section(APPLICATION_PROPERTIES, kept) if kept else b""
        return msgspec.structs.replace(message, payload=sections.bare(), **_fields(letter.changed_system))


def plain(value: Any) -> Any:
    """An AMQP value as rules know it; None for what they do not."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Timestamp):
        return _moment(value)
    # Out of the exact types of the wire.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Described):
        return _described(value)
    return bytes(value) if isinstance(value, bytes) else None


def encodable(value: Any, old: Any = None) -> Any:
    """A rule's value as an AMQP value: of the type of the old one if it fits, else of the widest."""
    if isinstance(value, datetime):
        return Timestamp((value - _EPOCH) // timedelta(milliseconds=1))
    if isinstance(value, timedelta):
        return Described(Symbol(_TIMESPAN), Long(value // timedelta(microseconds=1) * 10))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(value, float):
        return Float(value) if isinstance(old, Float) else value
    least, most = _RANGES.get(type(old), (0, -1))
    return type(old)(value) if least <= value <= most else Long(value)


def _described(value: Described) -> Any:
    """The types of .NET that AMQP does not have."""
    if value.descriptor == "com.microsoft:uri" and isinstance(value.value, str):
        return str(value.value)
    if not isinstance(value.value, int):
        return None
    if value.descriptor == _TIMESPAN:
        return timedelta(microseconds=value.value // 10)
    if value.descriptor == "com.microsoft:datetime-offset":
        return _moment((value.value - _TICKS_1970) // 10_000)
    return None


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def _changed_properties(section: bytes, changes: dict[str, Any]) -> bytes:
    values = section_list(section, len(PROPERTY_NAMES))
    for name, value in changes.items():
        if name in _PLACES:
            text = None if value is None else str(value)
            symbol = name == "ContentType" and text is not None
            values[PROPERTY_NAMES.index(_PLACES[name])] = Symbol(text) if symbol else text
    return list_section(PROPERTIES, values) if any(value is not None for value in values) else b""


def _fields(changes: dict[str, Any]) -> dict[str, Any]:
    """The fields of the envelope that follow from changed system properties."""
    names = {
        "MessageId": "message_id",
        "SessionId": "session_id",
        "PartitionKey": "partition_key",
        "ViaPartitionKey": "via_partition_key",
    }
    fields: dict[str, Any] = {
        names[name]: None if value is None else str(value) for name, value in changes.items() if name in names
    }
    # The moment of enqueueing is not looked at again in a subscription (topic filters page, "Actions").
    if "TimeToLive" in changes:
        ttl = changes["TimeToLive"]
        fields["ttl"] = None if ttl is None else max(1, ttl // timedelta(milliseconds=1))
    return fields
