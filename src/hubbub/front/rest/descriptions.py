"""Descriptions of entities as XML, both ways (REST reference 7.3, 7.6, 7.8).

One table per kind, in the documented order; a row is the element's name, our field and how to read and
write it. Elements nobody knows are ignored, absent ones mean the default.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NamedTuple

from ...broker.entity import (
    DAY,
    FOREVER,
    AnyEntity,
    AuthorizationRule,
    ConsumerGroup,
    EventHub,
    Queue,
    RevokedPublisher,
    Rule,
    Subscription,
    Topic,
    consumer_group_path,
    revoked_publisher_path,
    rule_path,
    subscription_path,
)
from ...broker.errors import Invalid
from ...broker.ledger import Counts
from ...broker.namespace import Namespace
from .atom import SB, XSI, Element, exact, tag

COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
INFINITE = "P10675199DT2H48M5.4775807S"
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def length_of(text: str) -> int:
    """An ISO 8601 duration in ms. Raises Invalid."""
    match = _DURATION.fullmatch(text)
    if match is None or text in ("P", "PT") or len(text) > 60:
        raise Invalid(f"SubCode=40000. The value '{text:.60}' is not a valid duration.")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    if days >= 10675199:
        return FOREVER  # Clients send the infinite back with small losses.
    return min(FOREVER, round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000))


def length_text(length: int) -> str:
    if length >= FOREVER:
        return INFINITE
    days, rest = divmod(length, DAY)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds = f"{rest // 1000}" + (f".{rest % 1000:03}".rstrip("0") if rest % 1000 else "")
    clock = "".join(
        f"{number}{unit}"
        for number, unit in ((hours, "H"), (minutes, "M"), (seconds, "S"))
        if number not in (0, "0")
    )
    text = (f"{days}D" if days else "") + (f"T{clock}" if clock else "")
    return f"P{text}" if text else "PT0S"


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise Invalid(f"SubCode=40000. The value '{text:.60}' is not true or false.")
    return text.lower() in ("true", "1")


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise Invalid(f"SubCode=40000. The value '{text:.60}' is not a number.")
    return int(text)


def _days(text: str) -> int:
    return _integer(text) * DAY


class Row(NamedTuple):
    """An element and the field it stands for. `fixed` rows are only ever written."""

    name: str
    field: str
    read: Callable[[str], Any] = str
    write: Callable[[Any], str] = str


def _bool_text(value: Any) -> str:
    return "true" if value else "false"


def _length(name: str, field: str) -> Row:
    return Row(name, field, length_of, length_text)


def _bool(name: str, field: str) -> Row:
    return Row(name, field, _boolean, _bool_text)


def _int(name: str, field: str) -> Row:
    return Row(name, field, _integer, str)


# A plain string is a constant or a part written by name (see `_part`).
_Rows = tuple[Row | tuple[str, str], ...]
_ANONYMOUS = ("IsAnonymousAccessible", "false")
_AVAILABLE = ("EntityAvailabilityStatus", "Available")
_TIMES = (("CreatedAt", "*"), ("UpdatedAt", "*"), ("AccessedAt", "*"))

QUEUE: _Rows = (
    _length("LockDuration", "lock_duration"),
    _int("MaxSizeInMegabytes", "size_mb_max"),
    _bool("RequiresDuplicateDetection", "requires_duplicate_detection"),
    _bool("RequiresSession", "requires_session"),
    _length("DefaultMessageTimeToLive", "default_ttl"),
    _bool("DeadLetteringOnMessageExpiration", "dead_letter_on_expiration"),
    _length("DuplicateDetectionHistoryTimeWindow", "duplicate_window"),
    _int("MaxDeliveryCount", "deliveries_max"),
    _bool("EnableBatchedOperations", "batched_operations"),
    ("SizeInBytes", "*"),
    ("MessageCount", "*"),
    _ANONYMOUS,
    ("AuthorizationRules", "*"),
    Row("Status", "status"),
    *_TIMES,
    _bool("SupportOrdering", "support_ordering"),
    ("CountDetails", "*"),
    _length("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _bool("EnablePartitioning", "partitioning"),
    _AVAILABLE,
    _bool("EnableExpress", "express"),
    Row("ForwardTo", "forward_to"),
    Row("UserMetadata", "user_metadata"),
    Row("ForwardDeadLetteredMessagesTo", "forward_dead_letters_to"),
    _int("MaxMessageSizeInKilobytes", "message_kb_max"),
)
TOPIC: _Rows = (
    _length("DefaultMessageTimeToLive", "default_ttl"),
    _int("MaxSizeInMegabytes", "size_mb_max"),
    _bool("RequiresDuplicateDetection", "requires_duplicate_detection"),
    _length("DuplicateDetectionHistoryTimeWindow", "duplicate_window"),
    _bool("EnableBatchedOperations", "batched_operations"),
    ("SizeInBytes", "*"),
    ("FilteringMessagesBeforePublishing", "false"),
    _ANONYMOUS,
    ("AuthorizationRules", "*"),
    Row("Status", "status"),
    *_TIMES,
    _bool("SupportOrdering", "support_ordering"),
    ("CountDetails", "*"),
    ("SubscriptionCount", "*"),
    _length("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _bool("EnablePartitioning", "partitioning"),
    _AVAILABLE,
    ("EnableSubscriptionPartitioning", "false"),
    _bool("EnableExpress", "express"),
    Row("UserMetadata", "user_metadata"),
    _int("MaxMessageSizeInKilobytes", "message_kb_max"),
)
SUBSCRIPTION: _Rows = (
    _length("LockDuration", "lock_duration"),
    _bool("RequiresSession", "requires_session"),
    _length("DefaultMessageTimeToLive", "default_ttl"),
    _bool("DeadLetteringOnMessageExpiration", "dead_letter_on_expiration"),
    _bool("DeadLetteringOnFilterEvaluationExceptions", "dead_letter_on_filter_error"),
    ("MessageCount", "*"),
    _int("MaxDeliveryCount", "deliveries_max"),
    _bool("EnableBatchedOperations", "batched_operations"),
    Row("Status", "status"),
    Row("ForwardTo", "forward_to"),
    *_TIMES,
    ("CountDetails", "*"),
    Row("UserMetadata", "user_metadata"),
    Row("ForwardDeadLetteredMessagesTo", "forward_dead_letters_to"),
    _length("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _AVAILABLE,
)
HUB: _Rows = (
    Row("MessageRetentionInDays", "retention", _days, lambda ms: str(max(1, ms // DAY))),
    ("AuthorizationRules", "*"),
    Row("Status", "status"),
    ("CreatedAt", "*"),
    ("UpdatedAt", "*"),
    _int("PartitionCount", "partition_count"),
    ("PartitionIds", "*"),
    Row("UserMetadata", "user_metadata"),
)
GROUP: _Rows = (("CreatedAt", "*"), ("UpdatedAt", "*"), Row("UserMetadata", "user_metadata"))
RULE: _Rows = (("Filter", "*"), ("Action", "*"), ("CreatedAt", "*"), ("Name", "*"))
REVOKED: _Rows = (("Name", "*"),)

TABLES: dict[type, tuple[str, _Rows]] = {
    Queue: ("QueueDescription", QUEUE),
    Topic: ("TopicDescription", TOPIC),
    Subscription: ("SubscriptionDescription", SUBSCRIPTION),
    Rule: ("RuleDescription", RULE),
    EventHub: ("EventHubDescription", HUB),
    ConsumerGroup: ("ConsumerGroupDescription", GROUP),
    RevokedPublisher: ("RevokedPublisherDescription", REVOKED),
}


def write(namespace: Namespace, entity: AnyEntity) -> str:
    """The description of an entity with its counts."""
    name, rows = TABLES[type(entity)]
    parts = [f'<{name} xmlns="{SB}" xmlns:i="{XSI}">']
    for row in rows:
        if isinstance(row, Row):
            value = getattr(entity, row.field)
            if value != "" and not (row.field == "message_kb_max" and not value):
                parts.append(tag(row.name, row.write(value)))
        else:
            parts.append(_part(namespace, entity, row[0]) if row[1] == "*" else tag(*row))
    return "".join(parts) + f"</{name}>"


def _part(namespace: Namespace, entity: AnyEntity, name: str) -> str:
    """The elements that are more than a field."""
    if name in ("CreatedAt", "UpdatedAt", "AccessedAt"):
        moment = entity.created if name == "CreatedAt" else entity.updated
        return tag(name, exact(moment))
    if name == "AuthorizationRules":
        return _rules_text(getattr(entity, "authorization_rules", ()))
    if name == "PartitionIds":
        assert isinstance(entity, EventHub)
        ids = "".join(f"<d2p1:string>{n}</d2p1:string>" for n in range(entity.partition_count))
        return f'<PartitionIds xmlns:d2p1="{ARRAYS}">{ids}</PartitionIds>'
    if name == "Filter":
        # The only filter there is yet.
        return (
            '<Filter i:type="TrueFilter"><SqlExpression>1=1</SqlExpression>'
            "<CompatibilityLevel>20</CompatibilityLevel></Filter>"
        )
    if name == "Action":
        return '<Action i:type="EmptyRuleAction"/>'
    if name == "Name":
        return tag(name, getattr(entity, "name", entity.path))
    if name == "SubscriptionCount":
        return tag(name, str(len(namespace.entities(Subscription, entity.path))))
    return _count_part(namespace.counts(entity.path), name)


def _count_part(counts: Counts, name: str) -> str:
    if name == "SizeInBytes":
        return tag(name, str(counts.size_bytes))
    if name == "MessageCount":
        return tag(name, str(counts.active + counts.scheduled + counts.deferred + counts.dead_letter))
    values = (
        ("ActiveMessageCount", counts.active),
        ("DeadLetterMessageCount", counts.dead_letter),
        ("ScheduledMessageCount", counts.scheduled),
        ("TransferMessageCount", counts.transfer),
        ("TransferDeadLetterMessageCount", counts.transfer_dead_letter),
    )
    inner = "".join(f"<d2p1:{key}>{value}</d2p1:{key}>" for key, value in values)
    return f'<CountDetails xmlns:d2p1="{COUNTS}">{inner}</CountDetails>'


def _rules_text(rules: tuple[AuthorizationRule, ...]) -> str:
    if not rules:
        return "<AuthorizationRules/>"
    return "<AuthorizationRules>" + "".join(map(_rule_text, rules)) + "</AuthorizationRules>"


def _rule_text(rule: AuthorizationRule) -> str:
    rights = "".join(tag("AccessRights", right) for right in rule.rights)
    return (
        '<AuthorizationRule i:type="SharedAccessAuthorizationRule"><ClaimType>SharedAccessKey</ClaimType>'
        f"<ClaimValue>None</ClaimValue><Rights>{rights}</Rights>{tag('CreatedTime', exact(rule.created))}"
        f"{tag('ModifiedTime', exact(rule.modified))}{tag('KeyName', rule.name)}"
        f"{tag('PrimaryKey', rule.primary)}{tag('SecondaryKey', rule.secondary)}</AuthorizationRule>"
    )


def read(kind: type, element: Element, path: str, parent: str, name: str, now: int) -> AnyEntity:
    """The entity a description asks for. Raises Invalid."""
    values: dict[str, Any] = _place(kind, path, parent, name)
    for row in TABLES[kind][1]:
        if isinstance(row, Row) and (child := element.child(row.name)) is not None and child.text.strip():
            values[row.field] = row.read(child.text.strip())
    rules = element.child("AuthorizationRules")
    if rules is not None and kind in (Queue, Topic, EventHub):
        values["authorization_rules"] = tuple(_read_rule(rule, now) for rule in rules.children)
    if kind is Rule:
        _check_rule(element)
    if kind is Subscription and (rule_element := element.child("DefaultRuleDescription")) is not None:
        _check_rule(rule_element)
    entity: AnyEntity = kind(**values)
    return entity


def _place(kind: type, path: str, parent: str, name: str) -> dict[str, Any]:
    if kind is Subscription:
        return {"path": subscription_path(parent, name), "topic": parent, "name": name}
    if kind is Rule:
        return {"path": rule_path(parent, name), "subscription": parent, "name": name}
    if kind is ConsumerGroup:
        return {"path": consumer_group_path(parent, name), "hub": parent, "name": name}
    if kind is RevokedPublisher:
        return {"path": revoked_publisher_path(parent, name.lower()), "hub": parent, "name": name}
    return {"path": path}


def _read_rule(element: Element, now: int) -> AuthorizationRule:
    rights = element.child("Rights")
    return AuthorizationRule(
        name=element.get("KeyName"),
        rights=tuple(child.text.strip() for child in rights.children) if rights else (),
        primary=element.get("PrimaryKey") or _fresh_key(),
        secondary=element.get("SecondaryKey") or _fresh_key(),
        created=now,
        modified=now,
    )


def _fresh_key() -> str:
    return b64encode(secrets.token_bytes(32)).decode()


def _check_rule(element: Element) -> None:
    """True filters without an action are all there is yet; others are refused, not ignored."""
    found = element.child("Filter")
    if found is not None:
        kind = found.attributes.get("type", "TrueFilter").rpartition(":")[2]
        expression = found.get("SqlExpression").replace(" ", "")
        if kind != "TrueFilter" and not (kind == "SqlFilter" and expression == "1=1"):
            raise Invalid(f"SubCode=40000. Filters of type {kind} are not supported by this version.")
    action = element.child("Action")
    if action is not None and action.attributes.get("type", "EmptyRuleAction") != "EmptyRuleAction":
        raise Invalid("SubCode=40000. Rule actions are not supported by this version.")
