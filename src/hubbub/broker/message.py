"""The message: an envelope the broker reads and a letter it never opens.

What a decision depends on is a field of `Message`; the payload stays the encoded bare AMQP message
(properties, application properties, body, footer), opaque to the broker.

Record format, version 1 (the payload of one engine record):

    event-hub partition:  byte 0x01, then a MessagePack array of `count` messages
    queue, subscription:  byte 0x02, then one message

A message is a MessagePack array of the fields of `Message` in their order below. To change the format,
append fields with defaults (older records stay readable, shorter arrays get the defaults); anything else
needs a new leading byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MOMENT_MIN, MOMENT_MAX = -62_135_596_800_000, 253_402_300_799_999
"""What a calendar can name, the years 1 to 9999, in ms since 1970. An AMQP timestamp may be anything."""

_BATCH = b"\x01"
_SINGLE = b"\x02"


class Message(msgspec.Struct, array_like=True, gc=False):
    """One message or event. Lengths and moments in milliseconds; None means "not set"."""

    payload: bytes
    """The bare AMQP message as it came or as the door made it."""
    message_id: str | None = None
    session_id: str | None = None
    partition_key: str | None = None
    ttl: int | None = None
    scheduled: int | None = None
    """Not visible before this moment."""
    publisher: str | None = None
    annotations: bytes = b""
    """The sender's message-annotations section without what the broker stamps; may be empty."""
    header: bytes = b""
    """The sender's header section, for durable and priority; may be empty."""
    enqueued_sequence: int = 0
    """The sequence number of its first enqueueing; 0 on the entity it was sent to."""
    deliveries: int = 0
    """Deliveries counted before it came here (it may have been moved)."""
    dead_letter_source: str | None = None
    dead_letter_reason: str | None = None
    dead_letter_description: str | None = None
    enqueued: int | None = None
    """When it was first enqueued, if it has been moved; else the record's own time."""
    via_partition_key: str | None = None
    force_persistence: bool = False
    producer: tuple[int, int, int] | None = None
    """Event hubs: (producer id, epoch, sequence number) of an idempotent producer."""
    changes: bytes = b""
    """What receivers changed of its properties before it was moved here; opaque here, merged by the door."""
    hops: int = 0
    """How often it has been forwarded."""


class _Envelope(msgspec.Struct, array_like=True, gc=False):
    """The front of a message, without copying the payload."""

    payload: msgspec.Raw
    message_id: str | None = None
    session_id: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_one = msgspec.msgpack.Decoder(Message).decode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_many = msgspec.msgpack.Decoder(list[Message]).decode


def encode_message(message: Message) -> bytes:
    """One queue record."""
    return _SINGLE + _encode(message)


def encode_events(messages: Sequence[Message]) -> bytes:
    """One partition record that holds all `messages`."""
    return _BATCH + _encode(messages)


def decode_message(record: bytes) -> Message:
    """Raises ValueError if the record has another format."""
    if record[:1] != _SINGLE:
        raise ValueError(f"not a queue record of version 1 (leading byte {record[:1].hex()})")
    return _decode_one(memoryview(record)[1:])


def session_of(record: bytes) -> str:
    """The session a queue record belongs to; empty if it names none."""
    return _decode_envelope(memoryview(record)[1:]).session_id or ""


def decode_events(record: bytes) -> list[Message]:
    """Raises ValueError if the record has another format."""
    if record[:1] != _BATCH:
        raise ValueError(f"not a partition record of version 1 (leading byte {record[:1].hex()})")
    return _decode_many(memoryview(record)[1:])
