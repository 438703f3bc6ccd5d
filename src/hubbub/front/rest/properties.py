"""Message properties between HTTP headers, JSON and AMQP sections (REST reference section 4).

User properties: one header each, typed by their text. Broker properties: one JSON object.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import msgspec

from ...broker.delivery import reasons
from ...broker.entity import FOREVER
from ...broker.errors import Invalid
from ...broker.message import MOMENT_MAX, MOMENT_MIN, Message
from ...broker.receiver import Delivery
from ...wire.amqp.message import (
    APPLICATION_PROPERTIES,
    body_bytes,
    changed_map,
    data_section,
    map_section,
    properties_of,
    properties_section,
    split,
)
from ...wire.amqp.types import Array, DecodeError, Described, Timestamp

# Headers that never become user properties (REST reference 4.5).
EXCLUDED = frozenset(
    b"accept accept-charset accept-encoding accept-language allow authorization brokerproperties"
    b" cache-control connection content-disposition content-encoding content-language content-length"
    b" content-location content-md5 content-range content-type cookie date expect expires from host if-match"
    b" if-modified-since if-none-match if-range if-unmodified-since keep-alive last-modified max-forwards"
    b" origin pragma proxy-authorization proxy-connection range referer servicebusauthorization"
    b" servicebussupplementaryauthorization servicebusdlqsupplementaryauthorization te trailer"
    b" transfer-encoding translate upgrade user-agent via warning x-ms-retrypolicy".split()
)
# On the way out also these, so that a property cannot pass for the server's own word.
NOT_EMITTED = EXCLUDED | {b"location", b"etag", b"server", b"set-cookie", b"strict-transport-security"}

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RFC1123 = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{1,2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4})"
    r" (\d{2}):(\d{2}):(\d{2}) GMT",
    re.ASCII,
)
_ISO = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:Z|([+-])([01]\d):([0-5]\d))?",
    re.ASCII,
)
_TIMESPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.(\d{1,7}))?", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_INFINITE = 922337203685.47754
_STRINGS = {
    "CorrelationId": "correlation_id",
    "Label": "subject",
    "MessageId": "message_id",
    "PartitionKey": "partition_key",
    "ReplyTo": "reply_to",
    "ReplyToSessionId": "reply_to_group_id",
    "SessionId": "group_id",
    "To": "to",
    "ViaPartitionKey": "via_partition_key",
}


def header_text(value: bytes) -> str:
    """Header bytes as text: UTF-8, else Latin-1 (4.2.2)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def typed(text: str) -> Any:
    """A header's text as a typed property (4.3). Text that is nothing else is itself."""
    text = text.strip(" \t")
    if len(text) > 1 and text[0] == '"' == text[-1]:
        inner = text[1:-1].replace('\\"', '"')
        moment = rfc1123(inner)
        return inner if moment is None else Timestamp(moment)
    if text == "true" or text == "false":
        return text == "true"
    if text[:1] in "+-.0123456789" and text:
        if len(text) < 64 and _INTEGER.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63:
            return int(text)
        if _REAL.fullmatch(text) and abs(number := float(text)) < float("inf"):
            return number
    moment = rfc1123(text)
    return text if moment is None else Timestamp(moment)


def rfc1123(text: str) -> int | None:
    """An RFC 1123 date as ms since 1970, or None."""
    match = _RFC1123.fullmatch(text)
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    parts = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
    return _moment(*parts)


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    if not (1 <= month <= 12 and hour < 24 and minute < 60 and second <= 60 and year):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    # A leap second may lie behind the last moment there is.
    return min(calendar.timegm((year, month, day, hour, minute, second)) * 1000, MOMENT_MAX)


def user_properties(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The custom headers of a request. Repeated ones are joined, as HTTP lists are."""
    texts: dict[str, str] = {}
    spelled: dict[bytes, str] = {}
    dropped: set[bytes] = set()
    for name, value in headers:
        lower = name.lower()
        if lower == b"connection":
            dropped |= {token.strip().lower() for token in value.split(b",")}
        if lower in EXCLUDED or lower.startswith(b"sec-"):
            continue
        key = spelled.setdefault(lower, name.decode("latin-1"))
        text = header_text(value)
        texts[key] = f"{texts[key]}, {text}" if key in texts else text
    found = {
        name: typed(text) for name, text in texts.items() if name.lower().encode("latin-1") not in dropped
    }
    return _expand(found) if "userproperties" in map(str.lower, found) else found


def _expand(properties: dict[str, Any]) -> dict[str, Any]:
    """A UserProperties header that holds a JSON object stands for its members (conflict C6)."""
    for name in [name for name in properties if name.lower() == "userproperties"]:
        try:
            members = msgspec.json.decode(str(properties[name]))
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(members, dict):
            del properties[name]
            properties |= json_properties(members)
    return properties


def json_properties(members: dict[str, Any]) -> dict[str, Any]:
    """User properties from JSON (3.4). Raises Invalid for objects and arrays."""
    found: dict[str, Any] = {}
    for name, value in members.items():
        if isinstance(value, (dict, list)):
            raise Invalid(f"SubCode=40000. The user property '{name}' is not a string, number or boolean.")
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            value = _double(name, value)
        if value is not None:
            found[name] = value
    return found


def _double(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Invalid(f"SubCode=40000. The user property '{name:.60}' is too large a number.") from None


def header_properties(headers: Iterable[bytes]) -> dict[str, Any]:
    """The BrokerProperties header(s) of a request as JSON. Raises Invalid."""
    values = list(headers)
    if not values:
        return {}
    text = b", ".join(values)
    if len(values) == 1 and not text.strip():
        return {}
    try:
        properties = msgspec.json.decode(header_text(text))
    except (msgspec.DecodeError, RecursionError):
        properties = None
    if not isinstance(properties, dict) or len(values) > 1:
        raise _bad_header(header_text(text))
    try:
        return broker_properties(properties)
    except Invalid:
        raise _bad_header(header_text(text)) from None


def _bad_header(text: str) -> Invalid:
    return Invalid(f"The value '{text}' of the HTTP header 'BrokerProperties' is invalid.")


def broker_properties(members: dict[str, Any]) -> dict[str, Any]:
    """The members that count, by our names, typed. Raises Invalid for an unusable one (4.2.1)."""
    found: dict[str, Any] = {}
    for name, value in members.items():
        if value is None:
            continue
        ours = _STRINGS.get(name)
        if ours is not None:
            found[ours] = _text_of(name, value)
        elif name == "TimeToLive":
            found["ttl"] = _seconds(name, value)
        elif name == "TimeToLiveTimeSpan":
            found["ttl"] = _timespan(name, value)
        elif name == "ScheduledEnqueueTimeUtc":
            found["scheduled"] = _date(name, value)
        elif name == "ForcePersistence":
            found["force_persistence"] = _boolean(name, value)
    return found


def _unusable(name: str, value: Any) -> Invalid:
    return Invalid(f"SubCode=40000. The broker property '{name}' has an unusable value: {value!r:.60}.")


def _text_of(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        raise _unusable(name, value)
    return msgspec.json.encode(value).decode()


def _boolean(name: str, value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise _unusable(name, value)
    return str(value).lower() == "true"


def _seconds(name: str, value: Any) -> int:
    """A number, or one as text; what is longer than for ever is for ever."""
    text = value.strip() if isinstance(value, str) else repr(value)
    # Python would take more for a number than JSON does.
    if not _REAL.fullmatch(text) or not (seconds := float(text)) > 0:
        raise _unusable(name, value)
    return FOREVER if seconds * 1000 >= FOREVER else max(1, round(seconds * 1000))


def _timespan(name: str, value: Any) -> int:
    match = _TIMESPAN.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 40 else None
    if match is None:
        raise _unusable(name, value)
    days, hours, minutes, seconds, fraction = match.groups()
    whole = ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds)
    length = whole * 1000 + int((fraction or "0").ljust(7, "0")) // 10_000
    if length <= 0 or int(hours) > 23 or int(minutes) > 59 or int(seconds) > 59:
        raise _unusable(name, value)
    return min(length, FOREVER)


def _date(name: str, value: Any) -> int:
    text = value.strip() if isinstance(value, str) else ""
    moment = rfc1123(text)
    match = _ISO.fullmatch(text)
    if moment is None and match is not None:
        numbers = [int(group) for group in match.groups()[:6]]
        moment = _moment(*numbers)
        if moment is not None:
            moment += int((match[7] or "0")[:3].ljust(3, "0"))
            east = -1 if match[8] == "-" else 1
            moment -= east * (int(match[9] or 0) * 60 + int(match[10] or 0)) * 60_000
    if moment is None:
        raise _unusable(name, value)
    return moment


_SECTIONS_MAX = 1000
_sections: dict[str, tuple[bytes, bytes]] = {}
"""Content type → the properties section without a message id; what follows a 32-digit one."""


def _plain_properties(content_type: str, message_id: str | None) -> bytes:
    """The properties section of a message that has a content type, perhaps an id of ours, and no more."""
    known = _sections.get(content_type)
    if known is None:
        if len(_sections) >= _SECTIONS_MAX:
            _sections.clear()
        fields = {"content_type": content_type} if content_type else {}
        bare = properties_section(**fields)
        known = _sections[content_type] = (bare, properties_section(message_id="0" * 32, **fields))
    if message_id is None:
        return known[0]
    return known[1].replace(_NO_ID, message_id.encode(), 1)


_NO_ID = b"0" * 32


def compose(
    body: bytes, content_type: str | None, broker: dict[str, Any], user: dict[str, Any], stamp: str | None
) -> Message:
    """One message from what came over HTTP. `stamp`: the message id if the sender gave none."""
    if content_type is None or not content_type.isascii():
        content_type = ""
    if not broker:
        payload = _plain_properties(content_type, stamp)
        if user:
            payload += map_section(APPLICATION_PROPERTIES, user)
        return Message(payload + data_section(body), stamp)
    message_id = broker.get("message_id") or stamp
    fields = {name: broker[name] for name in _FIELDS if broker.get(name)}
    if message_id:
        fields["message_id"] = message_id
    if content_type:
        fields["content_type"] = content_type
    payload = properties_section(**fields)
    if user:
        payload += map_section(APPLICATION_PROPERTIES, user)
    return Message(
        payload + data_section(body),
        message_id,
        broker.get("group_id") or None,
        broker.get("partition_key") or None,
        broker.get("ttl"),
        broker.get("scheduled"),
        via_partition_key=broker.get("via_partition_key") or None,
        force_persistence=broker.get("force_persistence", False),
    )


_FIELDS = ("to", "subject", "reply_to", "correlation_id", "group_id", "reply_to_group_id")


# Receiving.


def http_date(moment: int) -> str:
    """RFC 1123, GMT, of ms since 1970; what no calendar can name is the nearest it can."""
    return _http_date(min(max(moment, MOMENT_MIN), MOMENT_MAX) // 1000)


@lru_cache(1024)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(256)
def guid(token: bytes) -> str:
    """A lock token as the service writes it."""
    h = token.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def emitted(delivery: Delivery, default_ttl: int) -> tuple[str | None, bytes, list[tuple[bytes, bytes]]]:
    """Content type, body and headers (BrokerProperties first) of a received message."""
    sections = split(delivery.message.payload)
    try:
        properties = properties_of(sections.properties)
        user = changed_map(sections.application_properties, delivery.changes)
    except DecodeError:
        properties, user = {}, changed_map(b"", delivery.changes)
    user |= reasons(delivery.message)
    broker = _broker_json(delivery, properties, default_ttl)
    headers = [(b"BrokerProperties", broker)]
    headers += [header for name, value in user.items() if (header := _header(name, value))]
    content_type = properties.get("content_type")
    return content_type, body_bytes(sections.body), headers


class _BrokerProperties(msgspec.Struct, omit_defaults=True, rename="pascal", gc=False, kw_only=True):
    """The members as the service spells them; what is None is left out."""

    correlation_id: str | None = None
    dead_letter_source: str | None = None
    delivery_count: int
    enqueued_sequence_number: int | None = None
    enqueued_time_utc: str
    force_persistence: bool | None = None
    label: str | None = None
    lock_token: str | None = None
    locked_until_utc: str | None = None
    message_id: str | None = None
    partition_key: str | None = None
    reply_to: str | None = None
    reply_to_session_id: str | None = None
    scheduled_enqueue_time_utc: str | None = None
    sequence_number: int
    session_id: str | None = None
    state: str | None = msgspec.field(default_factory=lambda: "Active")
    time_to_live: float | int
    to: str | None = None
    via_partition_key: str | None = None


_encode_members = msgspec.json.Encoder().encode


def _broker_json(delivery: Delivery, properties: dict[str, Any], default_ttl: int) -> bytes:
    message = delivery.message
    ttl = min(message.ttl or FOREVER, default_ttl)
    members = _BrokerProperties(
        correlation_id=_plain(properties.get("correlation_id")),
        dead_letter_source=message.dead_letter_source,
        delivery_count=delivery.deliveries,
        enqueued_sequence_number=message.enqueued_sequence,
        enqueued_time_utc=http_date(delivery.enqueued),
        force_persistence=message.force_persistence or None,
        label=_plain(properties.get("subject")),
        lock_token=guid(delivery.token) if delivery.token else None,
        locked_until_utc=http_date(delivery.locked_until) if delivery.locked_until else None,
        message_id=_plain(properties.get("message_id")),
        partition_key=message.partition_key,
        reply_to=_plain(properties.get("reply_to")),
        reply_to_session_id=_plain(properties.get("reply_to_group_id")),
        scheduled_enqueue_time_utc=http_date(message.scheduled) if message.scheduled else None,
        sequence_number=delivery.sequence,
        session_id=_plain(properties.get("group_id")),
        time_to_live=_seconds_of(ttl),
        to=_plain(properties.get("to")),
        via_partition_key=message.via_partition_key,
    )
    text = _encode_members(members)
    # 4.2.2: escapes are safe whatever the client takes headers for.
    return text if text.isascii() else json.dumps(json.loads(text), separators=(",", ":")).encode()


def _plain(value: Any) -> str | None:
    return None if value is None else value.hex() if isinstance(value, bytes) else str(value)


def _header(name: Any, value: Any) -> tuple[bytes, bytes] | None:
    """A user property as a header (4.4); None for what cannot be one."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name) or name.lower().encode() in NOT_EMITTED:
        return None
    if value is None or isinstance(value, (bytes, list, dict, Array, Described)):
        return None
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, Timestamp):
        text = f'"{http_date(value)}"'
    elif isinstance(value, int):
        text = str(int(value))
    elif isinstance(value, float):
        text = repr(float(value))
    else:
        text = '"' + str(value).replace('"', '\\"') + '"'
    return name.encode(), field_text(text)


def field_text(text: str) -> bytes:
    """As the value of a header field, which has no control characters (RFC 9110 §5.5)."""
    return _CONTROL.sub(" ", text).encode("utf-8", "replace")


def _seconds_of(ttl: int) -> float | int:
    """Whole seconds print without a fraction, as the service prints them."""
    if ttl >= FOREVER:
        return _INFINITE
    return ttl // 1000 if ttl % 1000 == 0 else ttl / 1000
