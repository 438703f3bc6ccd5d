"""JSON shapes of entities, events and messages, with the property names of Azure's own tools."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...broker.access.rights import Unauthorized
from ...broker.entity import (
    FOREVER,
    AnyEntity,
    EventHub,
    Queue,
    Subscription,
    Topic,
    checked,
    subscription_path,
)
from ...broker.errors import Invalid
from ...broker.hub import Event
from ...broker.message import MOMENT_MAX, MOMENT_MIN, Message
from ...broker.namespace import Namespace
from ...broker.receiver import Delivery
from ...wire.amqp.message import body_bytes, changed_map, properties_of, split
from ...wire.amqp.types import DecodeError, Described, Timestamp

_FIELDS: dict[type, dict[str, str]] = {}
_QUEUE_LIKE = {
    "lockDuration": "lock_duration",
    "requiresSession": "requires_session",
    "defaultMessageTimeToLive": "default_ttl",
    "deadLetteringOnMessageExpiration": "dead_letter_on_expiration",
    "maxDeliveryCount": "deliveries_max",
    "forwardTo": "forward_to",
    "forwardDeadLetteredMessagesTo": "forward_dead_letters_to",
    "autoDeleteOnIdle": "auto_delete_on_idle",
    "status": "status",
    "userMetadata": "user_metadata",
}
_DUPLICATES = {
    "requiresDuplicateDetection": "requires_duplicate_detection",
    "duplicateDetectionHistoryTimeWindow": "duplicate_window",
    "maxSizeInMegabytes": "size_mb_max",
}
_FIELDS[Queue] = {**_QUEUE_LIKE, **_DUPLICATES, "enablePartitioning": "partitioning"}
_FIELDS[Subscription] = _QUEUE_LIKE
_FIELDS[Topic] = {
    **_DUPLICATES,
    "enablePartitioning": "partitioning",
    "autoDeleteOnIdle": "auto_delete_on_idle",
    "defaultMessageTimeToLive": "default_ttl",
    "status": "status",
    "userMetadata": "user_metadata",
}
_FIELDS[EventHub] = {
    "partitionCount": "partition_count",
    "messageRetention": "retention",
    "retentionSizeInBytes": "retention_bytes_max",
    "status": "status",
    "userMetadata": "user_metadata",
}
_LENGTHS = frozenset(("lock_duration", "default_ttl", "duplicate_window", "retention", "auto_delete_on_idle"))
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_INFINITE = "P10675199DT2H48M5.4775807S"


def iso(moment: int) -> str | None:
    """ISO 8601 of ms since 1970; None for 0."""
    if not moment:
        return None
    moment = min(max(moment, MOMENT_MIN), MOMENT_MAX)
    return (
        datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def iso_length(length: int) -> str:
    if length >= FOREVER:
        return _INFINITE
    days, rest = divmod(length, 86_400_000)
    seconds = f"{rest / 1000:g}" if rest % 1000 else str(rest // 1000)
    return f"P{days}D" if days and not rest else f"P{days}DT{seconds}S" if days else f"PT{seconds}S"


def length_of(text: Any) -> int:
    """Milliseconds of an ISO 8601 duration. Raises Invalid."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or text in ("P", "PT"):
        raise Invalid(f"'{text}' is not a duration like PT30S or P7D.")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return round(min(FOREVER, (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000))


def json_of(body: bytes) -> Any:
    """What a request says; nothing is an empty object. Raises Invalid."""
    try:
        return msgspec.json.decode(body or b"{}")
    except msgspec.DecodeError as error:
        raise Invalid(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise Invalid("The body is nested too deep.") from None


def describe(namespace: Namespace, entity: AnyEntity) -> dict[str, Any]:
    """An entity with its counts."""
    shape: dict[str, Any] = {
        "kind": entity.noun,
        "name": getattr(entity, "name", entity.path),
        "path": entity.path,
        "createdAt": iso(entity.created),
        "updatedAt": iso(entity.updated),
    }
    for name, slot in _FIELDS.get(type(entity), {}).items():
        value = getattr(entity, slot)
        shape[name] = iso_length(value) if slot in _LENGTHS else value
    if isinstance(entity, (Queue, Topic, Subscription)):
        shape |= _counts(namespace, entity)
    if isinstance(entity, Subscription):
        shape["topicName"] = entity.topic
    if isinstance(entity, Topic):
        shape["subscriptionCount"] = len(namespace.entities(Subscription, entity.path))
    if isinstance(entity, EventHub):
        shape["partitions"] = [partition(namespace, entity, n) for n in range(entity.partition_count)]
    return shape


def _counts(namespace: Namespace, entity: Queue | Topic | Subscription) -> dict[str, Any]:
    counts = namespace.counts(entity.path)
    return {
        "messageCount": counts.active
        + counts.scheduled
        + counts.deferred
        + counts.dead_letter
        + counts.transfer
        + counts.transfer_dead_letter,
        "activeMessageCount": counts.active,
        "deadLetterMessageCount": counts.dead_letter,
        "scheduledMessageCount": counts.scheduled,
        "transferMessageCount": counts.transfer,
        "transferDeadLetterMessageCount": counts.transfer_dead_letter,
        "lockedMessageCount": counts.locked,
        "deferredMessageCount": counts.deferred,
        "sizeInBytes": counts.size_bytes,
    }


def partition(namespace: Namespace, hub: EventHub, number: int) -> dict[str, Any]:
    found = namespace.partition(hub.path, str(number))
    return {
        "id": str(number),
        "beginSequenceNumber": found.begin_sequence,
        "lastEnqueuedSequenceNumber": found.last_sequence,
        "lastEnqueuedOffset": found.last_offset,
        "lastEnqueuedTimeUtc": iso(found.last_enqueued),
        "sizeInBytes": found.size_bytes,
        "eventCount": found.count,
    }


def entity_from(kind: str, path: str, body: dict[str, Any], topic: str = "") -> AnyEntity:
    """The entity a PUT describes. Raises Invalid for members nobody knows."""
    kinds: dict[str, type[AnyEntity]] = {
        "queues": Queue,
        "topics": Topic,
        "subscriptions": Subscription,
        "hubs": EventHub,
    }
    fields = _FIELDS[kinds[kind]]
    unknown = [name for name in body if name not in fields]
    if unknown:
        raise Invalid(f"'{unknown[0]}' is unknown here. Known: {', '.join(fields)}.")
    values = {
        fields[name]: length_of(value) if fields[name] in _LENGTHS else value for name, value in body.items()
    }
    if kind == "subscriptions":
        values |= {"path": subscription_path(topic, path), "topic": topic, "name": path}
    else:
        values["path"] = path
    return checked(kinds[kind], values)


def event(found: Event) -> dict[str, Any]:
    shape = {
        "sequenceNumber": found.sequence,
        "offset": found.offset,
        "enqueuedTimeUtc": iso(found.enqueued),
        "partitionKey": found.message.partition_key,
        "publisher": found.message.publisher,
    }
    return present(shape | content(found.message))


def delivery(found: Delivery) -> dict[str, Any]:
    message = found.message
    shape = {
        "sequenceNumber": found.sequence,
        "enqueuedTimeUtc": iso(found.enqueued),
        "state": found.state,
        "deliveryCount": found.deliveries,
        "lockedUntilUtc": iso(found.locked_until),
        "scheduledEnqueueTimeUtc": iso(message.scheduled or 0),
        "timeToLive": iso_length(message.ttl) if message.ttl else None,
        "partitionKey": message.partition_key,
        "sessionId": message.session_id,
        "enqueuedSequenceNumber": message.enqueued_sequence or None,
        "deadLetterSource": message.dead_letter_source,
        "deadLetterReason": message.dead_letter_reason,
        "deadLetterErrorDescription": message.dead_letter_description,
    }
    return present(shape | content(message, found.changes))


_PROPERTIES = {
    "message_id": "messageId",
    "correlation_id": "correlationId",
    "content_type": "contentType",
    "subject": "subject",
    "to": "to",
    "reply_to": "replyTo",
    "reply_to_group_id": "replyToSessionId",
}


def content(message: Message, changes: bytes = b"") -> dict[str, Any]:
    """Its properties, as far as they are set, with what receivers changed of them, and its body."""
    sections = split(message.payload)
    shape: dict[str, Any] = {}
    try:
        properties = properties_of(sections.properties)
        shape = {name: _json(properties.get(slot)) for slot, name in _PROPERTIES.items()}
        user = changed_map(sections.application_properties, changes)
        shape["properties"] = {str(name): _json(value) for name, value in user.items()} or None
    except DecodeError:
        shape["properties"] = None
    body = body_bytes(sections.body)
    try:
        shape["body"] = body.decode()
    except UnicodeDecodeError:
        shape["bodyBase64"] = base64.b64encode(body).decode()
    return shape


def _json(value: Any) -> Any:
    """An AMQP value as JSON: exact where JSON has the type, as text where it has not."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Timestamp):
        return iso(int(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return _json(value.value) if isinstance(value, Described) else str(value)


def present(shape: dict[str, Any]) -> dict[str, Any]:
    """Without what is not set."""
    return {name: value for name, value in shape.items() if value is not None}


def error_code(error: Exception) -> str:
    return "Unauthorized" if isinstance(error, Unauthorized) else type(error).__name__
