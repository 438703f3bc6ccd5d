"""Events of event hubs between AMQP and the broker's envelope (AMQP reference 3.3, 3.7).

What the sender wrote is kept as bytes; what the service knows of an event is written into its message
annotations when a consumer gets it. Events come and go by the hundred thousand, and most have nothing in them
that must be looked at: those take short ways, which say the same as the general ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from ...broker.errors import Invalid
from ...broker.message import Message
from ...wire.amqp.message import (
    MESSAGE_ANNOTATIONS,
    Sections,
    is_bare,
    map_section,
    section_map,
    split,
    split_batch,
)
from ...wire.amqp.types import DecodeError, Long, Symbol, Timestamp, encode, skip

BATCH_FORMAT = 0x80013700
KEY_CHARS_MAX = 128

PRODUCER = Symbol("com.microsoft:producer-id")
PRODUCER_EPOCH = Symbol("com.microsoft:producer-epoch")
PRODUCER_SEQUENCE = Symbol("com.microsoft:producer-sequence-number")

PARTITION_KEY = Symbol("x-opt-partition-key")
PUBLISHER = Symbol("x-opt-publisher-name")
SEQUENCE = Symbol("x-opt-sequence-number")
OFFSET = Symbol("x-opt-offset")
ENQUEUED = Symbol("x-opt-enqueued-time")
_OURS = frozenset((PARTITION_KEY, PUBLISHER, SEQUENCE, OFFSET, ENQUEUED))


def events_of(payload: bytes, form: int) -> list[Message]:
    """The events of one delivery, a single one or a batch. Raises DecodeError, Invalid."""
    if form != BATCH_FORMAT:
        return [_event(payload, None)]
    annotations, parts, bare = split_batch(payload)
    if not parts:
        raise Invalid("The batch holds no event.")
    key = _key(section_map(annotations)) if annotations else None
    if bare:
        return [Message(part, None, None, key) for part in parts]
    return [_event(part, key) for part in parts]


def _event(part: bytes, key: str | None) -> Message:
    """One event as its sender encoded it. `key` is that of the batch, which goes before its own."""
    end = skip(part, 3) if part[:3] == b"\x00Sp" else 0
    rest = part[end:] if end else part
    if is_bare(rest):
        return Message(rest, None, None, key, header=part[:end])
    return _with_annotations(split(part), key)


def _with_annotations(sections: Sections, key: str | None) -> Message:
    annotations = section_map(sections.message_annotations)
    own = key or _key(annotations)
    producer = _producer(annotations) if PRODUCER in annotations else None
    kept = sections.message_annotations
    if not _OURS.isdisjoint(annotations):
        # What the service stamps itself a sender cannot say.
        rest = {name: value for name, value in annotations.items() if name not in _OURS}
        kept = map_section(MESSAGE_ANNOTATIONS, rest) if rest else b""
    return Message(
        sections.bare(), partition_key=own, annotations=kept, header=sections.header, producer=producer
    )


def _producer(annotations: dict[Any, Any]) -> tuple[int, int, int]:
    """Id, epoch and sequence number of an event of an idempotent producer."""
    id, epoch, sequence = producer_of(annotations)
    if id is None or epoch is None or sequence is None:
        raise Invalid("An event of an idempotent producer needs its id, epoch and sequence number.")
    return id, epoch, sequence


def producer_of(values: dict[Any, Any]) -> tuple[int | None, int | None, int | None]:
    """Id, epoch and sequence number as far as they are said: a long, a short and an int. Raises Invalid."""
    return (
        _number(values, PRODUCER, 63),
        _number(values, PRODUCER_EPOCH, 15),
        _number(values, PRODUCER_SEQUENCE, 31),
    )


def _number(values: dict[Any, Any], name: str, bits: int) -> int | None:
    number = values.get(name)
    if number is None:
        return None
    if not isinstance(number, int) or not 0 <= number < 1 << bits:
        raise Invalid(f"'{name}' must be a number from 0 to {(1 << bits) - 1}.")
    return int(number)


def _key(annotations: dict[Any, Any]) -> str | None:
    key = annotations.get(PARTITION_KEY)
    if key is None:
        return None
    if not isinstance(key, str) or len(key) > KEY_CHARS_MAX:
        raise Invalid(f"The partition key must be a text of at most {KEY_CHARS_MAX} characters.")
    return str(key)


# Delivering.

_I64 = struct.Struct(">q")
_ENQUEUED_HEAD, _OFFSET_HEAD = encode(ENQUEUED) + b"\x83", encode(OFFSET) + b"\xa1"
_SEQUENCE_HEAD = encode(SEQUENCE) + b"\x81"
_MIDDLE_BYTES = len(_ENQUEUED_HEAD) + 8 + len(_OFFSET_HEAD) + 1


@lru_cache(32)
def _stamps(digits: int) -> tuple[Callable[[bytes, int, bytes, bytes], bytes], bytes]:
    """For the annotations of an event without its sender's, whose offset has so many digits: how to make them
    of their head, the sequence, what stands between, and the offset; and the head."""
    size = len(_SEQUENCE_HEAD) + 8 + _MIDDLE_BYTES + digits
    head = b"\x00Sr\xc1" + bytes((size + 1, 6)) + _SEQUENCE_HEAD
    return struct.Struct(f">{len(head)}sq{_MIDDLE_BYTES}s{digits}s").pack, head


def stamp(
    messages: Sequence[Message], sequence: int, enqueued: int, metric: bytes = b""
) -> list[tuple[bytes, bytes]]:
    """Events that stand one behind the other, the first at `sequence`, as consumers get them: what goes
    before the sender's bare message, and that message. `metric`: a section of delivery annotations."""
    stamped: list[tuple[bytes, bytes]] = []
    append = stamped.append
    longer = sequence  # the first sequence of more digits
    for at, message in enumerate(messages, sequence):
        if at >= longer:
            digits = len(str(at))
            longer = 10**digits
            pack, head = _stamps(digits)
            middle = _ENQUEUED_HEAD + _I64.pack(enqueued) + _OFFSET_HEAD + bytes((digits,))
        if message.partition_key is None and not message.annotations and message.publisher is None:
            stamps = pack(head, at, middle, b"%d" % at)
        else:
            stamps = _all_stamps(message, at, enqueued)
        lead = message.header + metric if metric else message.header
        append((lead + stamps if lead else stamps, message.payload))
    return stamped


def _all_stamps(message: Message, sequence: int, enqueued: int) -> bytes:
    annotations: dict[Any, Any] = {
        SEQUENCE: Long(sequence),
        ENQUEUED: Timestamp(enqueued),
        OFFSET: str(sequence),
    }
    if message.partition_key is not None:
        annotations[PARTITION_KEY] = message.partition_key
    if message.publisher is not None:
        annotations[PUBLISHER] = message.publisher
    if message.annotations:
        try:
            annotations = section_map(message.annotations) | annotations
        except DecodeError:
            pass  # Checked when it came; damage would have been found by its checksum.
    return map_section(MESSAGE_ANNOTATIONS, annotations)
