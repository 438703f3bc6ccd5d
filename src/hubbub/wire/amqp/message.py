"""AMQP message sections as byte ranges (specification part 3.2).

A user's sections are copied, never re-encoded: `split` finds where they stand, the builders make new ones
for messages that did not come as AMQP. Section bytes always include their descriptor.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from .types import Buffer, DecodeError, Symbol, Timestamp, Uint, decode, encode, skip

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES = range(0x70, 0x75)
DATA, SEQUENCE, VALUE, FOOTER = range(0x75, 0x79)

_U32, _U32_U32 = struct.Struct(">I"), struct.Struct(">II")
_FOUR_U32 = struct.Struct(">IIII")
_WIDE_DATA = 0x005375B0  # descriptor and constructor of a data section of more than 255 bytes

_NAMES = {
    "amqp:header:list": HEADER,
    "amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
    "amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
    "amqp:properties:list": PROPERTIES,
    "amqp:application-properties:map": APPLICATION_PROPERTIES,
    "amqp:data:binary": DATA,
    "amqp:amqp-sequence:list": SEQUENCE,
    "amqp:amqp-value:*": VALUE,
    "amqp:footer:map": FOOTER,
}
PROPERTY_NAMES = (
    "message_id",
    "user_id",
    "to",
    "subject",
    "reply_to",
    "correlation_id",
    "content_type",
    "content_encoding",
    "absolute_expiry",
    "creation",
    "group_id",
    "group_sequence",
    "reply_to_group_id",
)


class Sections:
    """The encoded sections of one message; b"" where there is none."""

    __slots__ = (
        "application_properties",
        "body",
        "delivery_annotations",
        "footer",
        "header",
        "message_annotations",
        "properties",
    )

    def __init__(self) -> None:
        self.header = self.delivery_annotations = self.message_annotations = b""
        self.properties = self.application_properties = self.body = self.footer = b""

    def bare(self) -> bytes:
        """What a broker keeps unchanged."""
        return self.properties + self.application_properties + self.body + self.footer


_SLOTS = {
    HEADER: "header",
    DELIVERY_ANNOTATIONS: "delivery_annotations",
    MESSAGE_ANNOTATIONS: "message_annotations",
    PROPERTIES: "properties",
    APPLICATION_PROPERTIES: "application_properties",
    FOOTER: "footer",
}


def split(payload: bytes) -> Sections:
    """The sections of a message, in whatever order they stand. Raises DecodeError, also for a body that is
    not data sections, or sequences, or one value."""
    sections = Sections()
    offset, size = 0, len(payload)
    body: list[bytes] = []
    kind = 0
    while offset < size:
        start = offset
        code, offset = _descriptor(payload, offset)
        offset = skip(payload, offset)
        if DATA <= code <= VALUE:
            if body and (code != kind or code == VALUE):
                raise DecodeError("a body is data sections, or sequences, or one value")
            kind = code
            body.append(payload[start:offset])
        else:
            setattr(sections, _SLOTS[code], payload[start:offset])
    sections.body = body[0] if len(body) == 1 else b"".join(body)
    return sections


def is_bare(payload: bytes) -> bool:
    """Whether a message has only the sections that `Sections.bare` keeps, in that order and encoded as most
    senders do it: then its bytes are its bare bytes. False does not say that anything is wrong."""
    size = len(payload)
    try:
        if size > 7 and _U32_U32.unpack_from(payload) == (_WIDE_DATA, size - 8):
            return True
        offset, last = 0, MESSAGE_ANNOTATIONS
        while offset < size:
            descriptor, code, kind = payload[offset : offset + 2], payload[offset + 2], payload[offset + 3]
            if descriptor != b"\x00\x53" or code < last or (code == last and not DATA <= code < VALUE):
                return False
            if DATA <= last < code <= VALUE:
                return False
            last = code
            width = kind >> 4
            if width in (0xB, 0xD):
                offset += 8 + _U32.unpack_from(payload, offset + 4)[0]
            elif width in (0xA, 0xC):
                offset += 5 + payload[offset + 4]
            elif kind == 0x45:
                offset += 4
            else:
                return False
    except (IndexError, struct.error):
        return False
    return offset == size and last <= FOOTER


def split_batch(payload: bytes) -> tuple[bytes, list[bytes], bool]:
    """The message-annotations section of a batch's envelope, the contents of its data sections, each a
    message of its own, and whether it was seen in passing that `is_bare` holds for all of them. Raises
    DecodeError."""
    annotations, bare = b"", True
    parts: list[bytes] = []
    offset, size = 0, len(payload)
    while offset < size:
        if size - offset >= 16:
            head, length, inner, inner_length = _FOUR_U32.unpack_from(payload, offset)
            start = offset + 8
            if head == _WIDE_DATA and length <= size - start:
                offset = start + length
                parts.append(payload[start:offset])
                if inner != _WIDE_DATA or inner_length != length - 8:
                    bare = False
                continue
        start = offset
        code, value = _descriptor(payload, offset)
        offset = skip(payload, value)
        if code == DATA:
            bare = False
            parts.append(_binary(payload, value))
        elif code in (SEQUENCE, VALUE):
            raise DecodeError("a batch holds data sections only")
        elif code == MESSAGE_ANNOTATIONS:
            annotations = payload[start:offset]
    return annotations, parts, bare


def _binary(payload: bytes, offset: int) -> bytes:
    value, _ = decode(payload, offset)
    if not isinstance(value, bytes):
        raise DecodeError("a data section is not binary")
    return value


def _descriptor(payload: Buffer, offset: int) -> tuple[int, int]:
    """The section code at `offset` and where its value begins."""
    if payload[offset : offset + 2] == b"\x00\x53" and offset + 2 < len(payload):
        code: Any = payload[offset + 2]
        offset += 3
    elif payload[offset] == 0:
        code, offset = decode(payload, offset + 1)
        code = _NAMES.get(code, 0) if isinstance(code, str) else code
    else:
        raise DecodeError(f"no section begins at {offset}")
    if not isinstance(code, int) or not HEADER <= code <= FOOTER:
        raise DecodeError(f"the section at {offset} has an unknown descriptor")
    return code, offset


def section_value(section: bytes) -> Any:
    """The decoded value of one section; None for b"". Raises DecodeError."""
    if not section:
        return None
    _, offset = _descriptor(section, 0)
    return decode(section, offset)[0]


def section_map(section: bytes) -> dict[Any, Any]:
    """The decoded map of an annotations or application-properties section."""
    value = section_value(section)
    if value is not None and not isinstance(value, dict):
        raise DecodeError("the section is not a map")
    return value or {}


def changed_map(section: bytes, changes: bytes) -> dict[Any, Any]:
    """The pairs of a section, and over them those of an encoded map, or b"". Raises DecodeError."""
    pairs = section_map(section)
    return pairs | decode(changes)[0] if changes else pairs


def section_list(section: bytes, length: int) -> list[Any]:
    """The decoded list of a header or properties section, filled up with None to `length`."""
    value = section_value(section) or []
    if not isinstance(value, list):
        raise DecodeError("the section is not a list")
    return value + [None] * (length - len(value))


def properties_of(section: bytes) -> dict[str, Any]:
    """The properties that are set, by the names of PROPERTY_NAMES."""
    known = _plain_properties(section)
    if known is not None:
        return known
    values = section_list(section, 0)
    return {name: value for name, value in zip(PROPERTY_NAMES, values, strict=False) if value is not None}


def _plain_properties(section: bytes) -> dict[str, Any] | None:
    """The same for a short list of short strings and symbols, which is what most messages have."""
    if section[:4] != b"\x00Ss\xc0" or len(section) < 6:
        return None
    found: dict[str, Any] = {}
    at, end = 6, len(section)
    for name in PROPERTY_NAMES[: section[5]]:
        code = section[at : at + 1]
        if code == _NULL:
            at += 1
            continue
        if code == _STRING:
            wrap: type[str] = str
        elif code == _SYMBOL:
            wrap = Symbol
        else:
            return None
        start = at + 2
        at = start + section[at + 1] if start <= end else end + 1
        text = section[start:at]
        if at > end or not text.isascii():
            return None
        found[name] = wrap(text, "ascii")
    return found if at == end == 5 + section[4] else None


_NULL, _STRING, _SYMBOL = b"\x40", b"\xa1", b"\xa3"


def data_sections(body: bytes) -> list[bytes]:
    """The contents of a body made of data sections, as the parts of a batch. Raises DecodeError."""
    return split_batch(body)[1]


def body_bytes(body: bytes) -> bytes:
    """What a reader without AMQP sees: data joined, text as UTF-8, any other value as it is encoded, and what
    cannot be read as it is. Never raises."""
    if body[:4] == b"\x00Su\xa0" and len(body) == 5 + body[4]:
        return body[5:]
    try:
        return _readable(body) if body else b""
    except DecodeError:
        return body


def _readable(body: bytes) -> bytes:
    code, offset = _descriptor(body, 0)
    if code == DATA:
        return b"".join(data_sections(body))
    value, _ = decode(body, offset)
    if isinstance(value, bytes):
        return bytes(value)
    return value.encode() if isinstance(value, str) else body[offset:]


def data_section(body: bytes) -> bytes:
    size = len(body)
    if size < 256:
        return b"\x00Su\xa0" + size.to_bytes(1, "big") + body
    return b"\x00Su\xb0" + _U32.pack(size) + body


def value_section(value: Any) -> bytes:
    return b"\x00Sw" + encode(value)


def list_section(code: int, values: list[Any]) -> bytes:
    """A header or properties section; trailing nulls are left out."""
    while values and values[-1] is None:
        values = values[:-1]
    return b"\x00S" + bytes((code,)) + encode(values)


def map_section(code: int, values: Mapping[Any, Any]) -> bytes:
    return b"\x00S" + bytes((code,)) + encode(dict(values))


def properties_section(**properties: Any) -> bytes:
    """Named as in PROPERTY_NAMES; b"" if none is set. Content type and encoding become symbols."""
    if not properties:
        return b""
    for name in ("content_type", "content_encoding"):
        if properties.get(name) is not None:
            properties[name] = Symbol(properties[name])
    for name in ("absolute_expiry", "creation"):
        if properties.get(name) is not None:
            properties[name] = Timestamp(properties[name])
    if properties.get("group_sequence") is not None:
        properties["group_sequence"] = Uint(properties["group_sequence"])
    return list_section(PROPERTIES, [properties.get(name) for name in PROPERTY_NAMES])
