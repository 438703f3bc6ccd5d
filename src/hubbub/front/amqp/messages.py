"""Service Bus messages between AMQP and the broker's envelope (AMQP reference 4.6).

What the sender wrote is kept as bytes. Made anew at each delivery are the header and the annotations, which
are the service's to say; the properties are written again only where the service adds to them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from ...broker.delivery import reasons
from ...broker.entity import FOREVER
from ...broker.errors import Invalid, TooLarge
from ...broker.ledger import Entry
from ...broker.limits import Limits
from ...broker.message import MOMENT_MAX, MOMENT_MIN, Message
from ...broker.receiver import Delivery
from ...chance import guid_bytes
from ...wire.amqp.message import (
    APPLICATION_PROPERTIES,
    DELIVERY_ANNOTATIONS,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    PROPERTY_NAMES,
    Sections,
    changed_map,
    data_section,
    data_sections,
    list_section,
    map_section,
    section_list,
    section_map,
    split,
)
from ...wire.amqp.types import DecodeError, Int, Short, Symbol, Timestamp, decode, encode

BATCH_FORMAT = 0x80013700
KEY_CHARS_MAX = 128
CHANGES_BYTES_MAX = 64 << 10
"""Of properties that receivers changed."""
_UINT_MAX = 0xFFFFFFFF

SEQUENCE, ENQUEUED = Symbol("x-opt-sequence-number"), Symbol("x-opt-enqueued-time")
FIRST_SEQUENCE = Symbol("x-opt-enqueue-sequence-number")
LOCKED_UNTIL, STATE = Symbol("x-opt-locked-until"), Symbol("x-opt-message-state")
LOCK_TOKEN = Symbol("x-opt-lock-token")
SCHEDULED = Symbol("x-opt-scheduled-enqueue-time")
PARTITION_KEY, VIA_KEY = Symbol("x-opt-partition-key"), Symbol("x-opt-via-partition-key")
DEAD_LETTER_SOURCE, PARTITION_ID = Symbol("x-opt-deadletter-source"), Symbol("x-opt-partition-id")
_OURS = frozenset(
    (SEQUENCE, ENQUEUED, FIRST_SEQUENCE, LOCKED_UNTIL, STATE, SCHEDULED, PARTITION_KEY, VIA_KEY)
) | {DEAD_LETTER_SOURCE, PARTITION_ID}
_STATES = {"Deferred": 1, "Scheduled": 2}

# Name, types and, for small numbers, the highest value, as the protocol has them (part 3.2.1 and 3.2.4).
_HEADER = (
    *(("durable", bool, 0), ("priority", int, 255), ("ttl", int, _UINT_MAX)),
    *(("first-acquirer", bool, 0), ("delivery-count", int, _UINT_MAX)),
)
_ID = (str, bytes, int, UUID)
_KINDS: dict[str, tuple[Any, int]] = {
    "message_id": (_ID, 0),
    "user_id": (bytes, 0),
    "correlation_id": (_ID, 0),
    "absolute_expiry": (Timestamp, 0),
    "creation": (Timestamp, 0),
    "group_sequence": (int, _UINT_MAX),
}
_PROPERTIES = tuple((name, *_KINDS.get(name, (str, 0))) for name in PROPERTY_NAMES)
_MESSAGE_ID, _EXPIRY, _CREATION = (
    PROPERTY_NAMES.index(name) for name in ("message_id", "absolute_expiry", "creation")
)
_GROUP = PROPERTY_NAMES.index("group_id")


def messages_of(payload: bytes, form: int, now: int, limits: Limits) -> list[Message]:
    """The messages of one transfer, a single one or a batch. Raises DecodeError, Invalid, TooLarge."""
    envelope = split(payload)
    if form != BATCH_FORMAT:
        return [message_of(envelope, now, limits)]
    messages = [message_of(split(part), now, limits) for part in data_sections(envelope.body)]
    if not messages:
        raise Invalid("The batch holds no message.")
    return messages


def message_of(sections: Sections, now: int, limits: Limits) -> Message:
    """One message as its sender encoded it. Raises DecodeError, Invalid, TooLarge."""
    size = len(sections.properties) + len(sections.application_properties)
    if size > limits.property_bytes_max or size > limits.properties_bytes_max:
        _check_weight(sections, size, limits)
    annotations = section_map(sections.message_annotations)
    properties = _typed("properties", section_list(sections.properties, 0), _PROPERTIES)
    ttl = _ttl(_header_ttl(sections.header), properties)
    message_id = _stamped(sections, properties, ttl, now)
    return Message(
        sections.bare(),
        message_id,
        _key("session id", properties[_GROUP]),
        _key("partition key", annotations.get(PARTITION_KEY)),
        ttl,
        _scheduled(annotations.get(SCHEDULED)),
        via_partition_key=_key("via-partition key", annotations.get(VIA_KEY)),
        annotations=_others(sections.message_annotations, annotations),
        header=sections.header,
    )


def _check_weight(sections: Sections, size: int, limits: Limits) -> None:
    """The bounds on properties, as they are encoded (REST reference 6)."""
    one_max, all_max = limits.property_bytes_max, limits.properties_bytes_max
    if size > all_max > 0:
        raise TooLarge(size, all_max, "properties'")
    for name, value in section_map(sections.application_properties).items() if one_max else ():
        size = len(encode(name)) + len(encode(value))
        if size > one_max:
            raise TooLarge(size, one_max, f"property '{name!s:.60}'")


@lru_cache(256)
def _header_ttl(section: bytes) -> Any:
    """Of a valid header. Raises DecodeError."""
    return _typed("header", section_list(section, 0), _HEADER)[2]


def _typed(section: str, values: list[Any], fields: tuple[tuple[str, Any, int], ...]) -> list[Any]:
    """All fields of a section, of types that are right: what is delivered is built of them, and one message
    that could not be would stop all its receivers. Raises DecodeError."""
    if len(values) > len(fields):
        raise DecodeError(f"the {section} section has {len(values)} fields")
    for (name, kinds, highest), value in zip(fields, values, strict=False):
        if value is None:
            continue
        right = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
        if not right or (highest and not 0 <= value <= highest):
            raise DecodeError(f"the field {name} of the {section} section has a wrong value")
    return values + [None] * (len(fields) - len(values))


def _scheduled(moment: Any) -> int | None:
    if not isinstance(moment, int):
        return None
    if not MOMENT_MIN <= moment <= MOMENT_MAX:
        raise Invalid("The time at which the message is to be enqueued is out of range.")
    return int(moment)


def _others(section: bytes, annotations: dict[Any, Any]) -> bytes:
    """The sender's own annotations; what the service stamps itself a sender cannot say."""
    if not annotations:
        return b""
    if _OURS.isdisjoint(annotations):
        return section
    rest = {name: value for name, value in annotations.items() if name not in _OURS}
    return map_section(MESSAGE_ANNOTATIONS, rest) if rest else b""


def _ttl(header_ttl: Any, properties: list[Any]) -> int | None:
    """Milliseconds. Over 49 days a header cannot say it: then the two moments do."""
    expiry, creation = properties[_EXPIRY], properties[_CREATION]
    if isinstance(expiry, int) and isinstance(creation, int) and expiry > creation:
        return min(expiry - creation, FOREVER)
    return int(header_ttl) if isinstance(header_ttl, int) else None


def _stamped(sections: Sections, properties: list[Any], ttl: int | None, now: int) -> str:
    """The message id as text. A message without one gets it here; one with an end says when."""
    message_id = properties[_MESSAGE_ID]
    if message_id is None:
        properties[_MESSAGE_ID] = message_id = guid_bytes().hex()
    elif ttl is None:
        return _text(message_id)
    if ttl is not None and ttl < FOREVER:
        properties[_CREATION], properties[_EXPIRY] = Timestamp(now), Timestamp(now + ttl)
    sections.properties = list_section(PROPERTIES, properties)
    return _text(message_id)


def _text(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    if len(text) > KEY_CHARS_MAX:
        raise Invalid(f"The message id must have at most {KEY_CHARS_MAX} characters.")
    return text


def _key(what: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > KEY_CHARS_MAX:
        raise Invalid(f"The {what} must be a text of at most {KEY_CHARS_MAX} characters.")
    return str(value) or None


def merged(entry: Entry, properties: dict[Any, Any] | None) -> bytes | None:
    """Changes of properties as they are kept: those made before, and those that come. None: no new ones.
    Raises TooLarge: with each delivery they could be more."""
    if not properties:
        return None
    before: dict[Any, Any] = decode(entry.changes)[0] if entry.changes else {}
    changes = encode(before | {str(name): value for name, value in properties.items()})
    if len(changes) > CHANGES_BYTES_MAX:
        raise TooLarge(len(changes), CHANGES_BYTES_MAX, "changed properties'")
    return changes


# Delivering.


def tag_of(token: bytes) -> bytes:
    """The delivery tag of a lock: the same GUID in the byte order of .NET."""
    return token[3::-1] + token[5:3:-1] + token[7:5:-1] + token[8:]


def uuid_of(token: bytes) -> UUID:
    return UUID(bytes=token)


def encode_delivery(
    delivery: Delivery, default_ttl: int, earlier: int, delivery_annotations: bytes = b""
) -> bytes:
    """The message as receivers get it. `earlier`: how often it was delivered before."""
    message = delivery.message
    ttl = min(message.ttl or FOREVER, default_ttl)
    durable, priority = _kept(message.header)
    return (
        _header(durable, priority, min(ttl, _UINT_MAX) if ttl < FOREVER else None, earlier)
        + delivery_annotations
        + _annotations(delivery)
        + _payload(delivery)
    )


def without_body(delivery: Delivery) -> Delivery:
    """The same with a body of nothing, since a message without any body is none."""
    sections = split(delivery.message.payload)
    sections.body = data_section(b"")
    return delivery._replace(message=msgspec.structs.replace(delivery.message, payload=sections.bare()))


def lock_annotation(token: bytes) -> bytes:
    """The section that names the lock of a message that has no delivery tag, or nothing without a lock.

    Older clients look for the lock of a deferred message nowhere else.
    """
    return map_section(DELIVERY_ANNOTATIONS, {LOCK_TOKEN: uuid_of(token)}) if token else b""


@lru_cache(256)
def _kept(header: bytes) -> tuple[bytes, bytes]:
    """Durable and priority, encoded, of a sender's header."""
    values = section_list(header, 2)
    return encode(values[0]), encode(values[1])


@lru_cache(1024)
def _header(durable: bytes, priority: bytes, ttl: int | None, earlier: int) -> bytes:
    """The count is always there, also 0: one client cannot do without."""
    items = durable + priority + (b"\x40" if ttl is None else b"\x70" + _U32.pack(ttl))
    items += (b"\x42" if earlier else b"\x41") + b"\x70" + _U32.pack(earlier)
    return b"\x00Sp\xc0" + bytes((len(items) + 1, 5)) + items


_U32, _I64 = struct.Struct(">I"), struct.Struct(">q")
_SEQUENCE_HEAD, _ENQUEUED_HEAD = encode(SEQUENCE) + b"\x81", encode(ENQUEUED) + b"\x83"
_FIRST_HEAD, _LOCKED_HEAD = encode(FIRST_SEQUENCE) + b"\x81", encode(LOCKED_UNTIL) + b"\x83"


def _annotations(delivery: Delivery) -> bytes:
    message = delivery.message
    pack = _I64.pack
    first = message.enqueued_sequence or delivery.sequence
    items = [
        _SEQUENCE_HEAD,
        pack(delivery.sequence),
        _ENQUEUED_HEAD,
        pack(delivery.enqueued),
        _FIRST_HEAD,
        pack(first),
    ]
    count = 6
    if delivery.locked_until:
        items += (_LOCKED_HEAD, pack(delivery.locked_until))
        count += 2
    rest = _rarer(delivery)
    if rest:
        items += [encode(part) for pair in rest.items() for part in pair]
        count += 2 * len(rest)
    body = b"".join(items)
    if len(body) < 255 and count < 256:
        return b"\x00Sr\xc1" + bytes((len(body) + 1, count)) + body
    return b"\x00Sr\xd1" + _U32.pack(len(body) + 4) + _U32.pack(count) + body


def _rarer(delivery: Delivery) -> dict[Any, Any]:
    message = delivery.message
    found: dict[Any, Any] = section_map(message.annotations) if message.annotations else {}
    if delivery.state in _STATES:
        found[STATE] = Int(_STATES[delivery.state])
    if message.scheduled is not None:
        found[SCHEDULED] = Timestamp(message.scheduled)
    if message.partition_key is not None:
        found[PARTITION_KEY] = message.partition_key
    if message.via_partition_key is not None:
        found[VIA_KEY] = message.via_partition_key
    if delivery.partition is not None:
        found[PARTITION_ID] = Short(delivery.partition)
    if message.dead_letter_source is not None:
        found[DEAD_LETTER_SOURCE] = message.dead_letter_source
    return found


def _payload(delivery: Delivery) -> bytes:
    message = delivery.message
    if message.dead_letter_reason is None and not delivery.changes:
        return message.payload
    sections = split(message.payload)
    try:
        user = changed_map(sections.application_properties, delivery.changes)
    except DecodeError:
        user = changed_map(b"", delivery.changes)
    sections.application_properties = map_section(APPLICATION_PROPERTIES, user | reasons(message))
    return sections.bare()
