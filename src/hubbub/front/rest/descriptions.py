"""Descriptions of entities as XML, both ways (REST reference 7.3, 7.6, 7.8, 7.9).

Not here: the Atom entry around a description (`atom`), which entity a path means (`management`).
One table per kind, in the documented order. A `Row` is a field of ours; a `Part` is only ever written, for
clients cannot set it or it needs more than a field; a `Fixed` never changes, and a request that wants it
otherwise is refused. Elements nobody knows are ignored; absent ones mean the default, in an update too,
except that an event hub keeps what its update leaves out.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

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
from ...broker.filters import CorrelationFilter
from ...broker.ledger import Counts
from ...broker.namespace import Namespace
from .atom import SB, XSI, Element, exact, tag
from .rules import read_rule, write_action, write_filter

COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
INFINITE = "P10675199DT2H48M5.4775807S"
KEY_CHARS_MAX = 256
PUBLISHER_CHARS_MAX = 128

_DURATION = re.compile(
    r"P(?:(\d{1,10})D)?(?:T(?=\d)(?:(\d{1,10})H)?(?:(\d{1,12})M)?(?:(\d{1,15}(?:\.\d{1,9})?)S)?)?", re.ASCII
)


# Single values.


def length_of(text: str) -> int:
    """An ISO 8601 duration of days and less, in ms. Raises Invalid."""
    match = _DURATION.fullmatch(text)
    if match is None or text == "P":
        raise Invalid(f"SubCode=40000. The value '{text:.60}' is not a valid duration.")
    days, hours, minutes = (int(group or 0) for group in match.groups()[:3])
    seconds = float(match[4] or 0)
    # Clients send the infinite back with small losses, or in hours.
    return min(FOREVER, ((days * 24 + hours) * 60 + minutes) * 60_000 + round(seconds * 1000))


def length_text(length: int) -> str:
    """A length in ms as an ISO 8601 duration."""
    if length >= FOREVER:
        return INFINITE
    days, rest = divmod(length, DAY)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    date = f"{days}D" if days else ""
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    clock += f"{rest / 1000:g}S" if rest else ""
    return f"P{date}{'T' + clock if clock else ''}" if date or clock else "PT0S"


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise Invalid(f"SubCode=40000. The value '{text:.60}' is not true or false.")
    return text.lower() in ("true", "1")


def _integer(text: str) -> int:
    # Ten digits: more than any property may be, and as days still below 2**63 ms.
    if not re.fullmatch(r"-?\d{1,10}", text, re.ASCII):
        raise Invalid(f"SubCode=40000. The value '{text:.60}' is not a number of at most ten digits.")
    return int(text)


def _days(text: str) -> int:
    days = _integer(text)
    if days < 1:
        raise Invalid("SubCode=40000. The property 'MessageRetentionInDays' must be positive.")
    return days * DAY


def _days_text(length: int) -> str:
    # Hubs may be configured to keep less than a day, which this element cannot say.
    return str(max(1, length // DAY))


def _boolean_text(value: bool) -> str:
    return "true" if value else "false"


# The tables.


class Row(NamedTuple):
    """An element and the field it stands for. The value `omitted` is not written."""

    name: str
    field: str
    read: Callable[[str], Any] = str
    write: Callable[[Any], str] = str
    omitted: object = ""


class Part(NamedTuple):
    """An element that only answers have, and of them only those by the api-version `since` or a newer one."""

    name: str
    write: Callable[[Namespace, AnyEntity], str]
    since: str = ""


class Fixed(NamedTuple):
    """An element that is always the same."""

    name: str
    text: str


_Rows = tuple[Row | Part | Fixed, ...]


def _length(name: str, field: str) -> Row:
    return Row(name, field, length_of, length_text)


def _bool(name: str, field: str) -> Row:
    return Row(name, field, _boolean, _boolean_text)


def _int(name: str, field: str) -> Row:
    return Row(name, field, _integer, str)


def _created(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("CreatedAt", exact(entity.created))


def _updated(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("UpdatedAt", exact(entity.updated))


def _accessed(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("AccessedAt", exact(namespace.accessed(entity.path)))


def _counts(namespace: Namespace, entity: AnyEntity) -> Counts:
    """As the service counts: what is deferred is active; what is scheduled is in no subscription yet."""
    counts = namespace.counts(entity.path)
    scheduled = 0 if isinstance(entity, Subscription) else counts.scheduled
    return counts._replace(active=counts.active + counts.deferred, scheduled=scheduled)


def _size(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("SizeInBytes", str(namespace.counts(entity.path).size_bytes))


def _messages(namespace: Namespace, entity: AnyEntity) -> str:
    counts = _counts(namespace, entity)
    total = counts.active + counts.scheduled + counts.dead_letter
    return tag("MessageCount", str(total + counts.transfer + counts.transfer_dead_letter))


def _count_details(namespace: Namespace, entity: AnyEntity) -> str:
    counts = _counts(namespace, entity)
    values = (
        ("ActiveMessageCount", counts.active),
        ("DeadLetterMessageCount", counts.dead_letter),
        ("ScheduledMessageCount", counts.scheduled),
        ("TransferMessageCount", counts.transfer),
        ("TransferDeadLetterMessageCount", counts.transfer_dead_letter),
    )
    inner = "".join(f"<d2p1:{key}>{value}</d2p1:{key}>" for key, value in values)
    return f'<CountDetails xmlns:d2p1="{COUNTS}">{inner}</CountDetails>'


def _subscription_count(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("SubscriptionCount", str(len(namespace.entities(Subscription, entity.path))))


def _filters(namespace: Namespace, topic: AnyEntity) -> list[bool]:
    """Of each rule below a topic, whether it correlates. All others count as SQL, also the one that a
    subscription is born with."""
    return [isinstance(wanted, CorrelationFilter) for wanted in namespace.filters(topic.path)]


def _sql_filter_count(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("SqlFilterCount", str(_filters(namespace, entity).count(False)))


def _correlation_filter_count(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("CorrelationFilterCount", str(_filters(namespace, entity).count(True)))


def _partition_ids(namespace: Namespace, entity: AnyEntity) -> str:
    assert isinstance(entity, EventHub)
    ids = "".join(f"<d2p1:string>{n}</d2p1:string>" for n in range(entity.partition_count))
    return f'<PartitionIds xmlns:d2p1="{ARRAYS}">{ids}</PartitionIds>'


def _authorization_rules(namespace: Namespace, entity: AnyEntity) -> str:
    assert isinstance(entity, (Queue, Topic, EventHub))
    rules = "".join(map(_authorization_rule, entity.authorization_rules))
    return f"<AuthorizationRules>{rules}</AuthorizationRules>" if rules else "<AuthorizationRules/>"


def _authorization_rule(rule: AuthorizationRule) -> str:
    rights = "".join(tag("AccessRights", right) for right in rule.rights)
    return (
        '<AuthorizationRule i:type="SharedAccessAuthorizationRule"><ClaimType>SharedAccessKey</ClaimType>'
        f"<ClaimValue>None</ClaimValue><Rights>{rights}</Rights>{tag('CreatedTime', exact(rule.created))}"
        f"{tag('ModifiedTime', exact(rule.modified))}{tag('KeyName', rule.name)}"
        f"{tag('PrimaryKey', rule.primary)}{tag('SecondaryKey', rule.secondary)}</AuthorizationRule>"
    )


def _filter(namespace: Namespace, entity: AnyEntity) -> str:
    assert isinstance(entity, Rule)
    return write_filter(entity)


def _action(namespace: Namespace, entity: AnyEntity) -> str:
    assert isinstance(entity, Rule)
    return write_action(entity)


def _name(namespace: Namespace, entity: AnyEntity) -> str:
    assert isinstance(entity, (Rule, RevokedPublisher))
    return tag("Name", entity.name)


_CREATED, _UPDATED = Part("CreatedAt", _created), Part("UpdatedAt", _updated)
_TIMES = (_CREATED, _UPDATED, Part("AccessedAt", _accessed))
_RULES = Part("AuthorizationRules", _authorization_rules)
_DETAILS = Part("CountDetails", _count_details)
_ANONYMOUS = Fixed("IsAnonymousAccessible", "false")
_STATUS = Row("Status", "status")
_METADATA = Row("UserMetadata", "user_metadata")
_MESSAGE_KB = _int("MaxMessageSizeInKilobytes", "message_kb_max")._replace(omitted=0)


def _available(namespace: Namespace, entity: AnyEntity) -> str:
    return tag("EntityAvailabilityStatus", "Available")


_AVAILABLE = Part("EntityAvailabilityStatus", _available)

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
    Part("SizeInBytes", _size),
    Part("MessageCount", _messages),
    _ANONYMOUS,
    _RULES,
    _STATUS,
    *_TIMES,
    _bool("SupportOrdering", "support_ordering"),
    _DETAILS,
    _length("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _bool("EnablePartitioning", "partitioning"),
    _AVAILABLE,
    _bool("EnableExpress", "express"),
    Row("ForwardTo", "forward_to"),
    _METADATA,
    Row("ForwardDeadLetteredMessagesTo", "forward_dead_letters_to"),
    _MESSAGE_KB,
)
TOPIC: _Rows = (
    _length("DefaultMessageTimeToLive", "default_ttl"),
    _int("MaxSizeInMegabytes", "size_mb_max"),
    _bool("RequiresDuplicateDetection", "requires_duplicate_detection"),
    _length("DuplicateDetectionHistoryTimeWindow", "duplicate_window"),
    _bool("EnableBatchedOperations", "batched_operations"),
    Part("SizeInBytes", _size),
    Fixed("FilteringMessagesBeforePublishing", "false"),
    _ANONYMOUS,
    _RULES,
    _STATUS,
    *_TIMES,
    _bool("SupportOrdering", "support_ordering"),
    _DETAILS,
    Part("SubscriptionCount", _subscription_count),
    Part("SqlFilterCount", _sql_filter_count, "2024-05"),
    Part("CorrelationFilterCount", _correlation_filter_count, "2024-05"),
    _length("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _bool("EnablePartitioning", "partitioning"),
    _AVAILABLE,
    Fixed("EnableSubscriptionPartitioning", "false"),
    _bool("EnableExpress", "express"),
    _METADATA,
    _MESSAGE_KB,
)
SUBSCRIPTION: _Rows = (
    _length("LockDuration", "lock_duration"),
    _bool("RequiresSession", "requires_session"),
    _length("DefaultMessageTimeToLive", "default_ttl"),
    _bool("DeadLetteringOnMessageExpiration", "dead_letter_on_expiration"),
    _bool("DeadLetteringOnFilterEvaluationExceptions", "dead_letter_on_filter_error"),
    Part("MessageCount", _messages),
    _int("MaxDeliveryCount", "deliveries_max"),
    _bool("EnableBatchedOperations", "batched_operations"),
    _STATUS,
    Row("ForwardTo", "forward_to"),
    *_TIMES,
    _DETAILS,
    _METADATA,
    Row("ForwardDeadLetteredMessagesTo", "forward_dead_letters_to"),
    _length("AutoDeleteOnIdle", "auto_delete_on_idle"),
    _AVAILABLE,
)
HUB: _Rows = (
    Row("MessageRetentionInDays", "retention", _days, _days_text),
    _RULES,
    _STATUS,
    _CREATED,
    _UPDATED,
    _int("PartitionCount", "partition_count"),
    Part("PartitionIds", _partition_ids),
    _METADATA,
)
GROUP: _Rows = (_CREATED, _UPDATED, _METADATA)
RULE: _Rows = (Part("Filter", _filter), Part("Action", _action), _CREATED, Part("Name", _name))
REVOKED: _Rows = (Part("Name", _name),)

TABLES: dict[type, tuple[str, _Rows]] = {
    Queue: ("QueueDescription", QUEUE),
    Topic: ("TopicDescription", TOPIC),
    Subscription: ("SubscriptionDescription", SUBSCRIPTION),
    Rule: ("RuleDescription", RULE),
    EventHub: ("EventHubDescription", HUB),
    ConsumerGroup: ("ConsumerGroupDescription", GROUP),
    RevokedPublisher: ("RevokedPublisherDescription", REVOKED),
}
IDENTITY = ("path", "topic", "subscription", "hub", "name")
"""The fields that come from the request's path."""


# Writing.


def write(namespace: Namespace, entity: AnyEntity, version: str = "") -> str:
    """The description of an entity with its counts. `version`: the api-version, "" for the newest."""
    name, rows = TABLES[type(entity)]
    inner = "".join(
        _written(namespace, entity, row)
        for row in rows
        if not version or not isinstance(row, Part) or version >= row.since
    )
    return f'<{name} xmlns="{SB}" xmlns:i="{XSI}">{inner}</{name}>'


def _written(namespace: Namespace, entity: AnyEntity, row: Row | Part | Fixed) -> str:
    if isinstance(row, Part):
        return row.write(namespace, entity)
    if isinstance(row, Fixed):
        return tag(row.name, row.text)
    value = getattr(entity, row.field)
    return (
        "" if value == row.omitted and type(value) is type(row.omitted) else tag(row.name, row.write(value))
    )


# Reading.


def identity(kind: type, path: str, parent: str, name: str) -> dict[str, Any]:
    """The fields of a new entity that its description does not hold."""
    if kind is Subscription:
        return {"path": subscription_path(parent, name), "topic": parent, "name": name}
    if kind is Rule:
        return {"path": rule_path(parent, name), "subscription": parent, "name": name}
    if kind is ConsumerGroup:
        return {"path": consumer_group_path(parent, name), "hub": parent, "name": name}
    if kind is RevokedPublisher:
        return {"path": revoked_publisher_path(parent, name.lower()), "hub": parent, "name": name}
    return {"path": path}


def read(
    kind: type, element: Element, given: Mapping[str, Any], old: AnyEntity | None, now: int
) -> AnyEntity:
    """The entity a description asks for. Raises Invalid; `entity.validate` is left to the namespace.

    `given`: identity, and defaults other than the entity's own. `old`: what is updated, if it is an update.
    """
    values = dict(given)
    if old is not None:
        kept = kind.__struct_fields__ if kind is EventHub else IDENTITY
        values = {field: getattr(old, field) for field in kept if hasattr(old, field)}
    for row in TABLES[kind][1]:
        child = element.child(row.name)
        if child is not None and not isinstance(row, Part) and child.text.strip():
            _take(row, child.text, values)
    rules = element.child("AuthorizationRules")
    if rules is not None and kind in (Queue, Topic, EventHub):
        values["authorization_rules"] = _read_rules(rules, getattr(old, "authorization_rules", ()), now)
    if kind is Rule:
        values |= read_rule(element)
    _check_rest(kind, element, values.get("name", ""))
    entity: AnyEntity = kind(**values)
    return entity


def _take(row: Row | Fixed, text: str, values: dict[str, Any]) -> None:
    if isinstance(row, Fixed):
        if text.strip().lower() != row.text:
            raise Invalid(f"SubCode=40000. The property '{row.name}' can only be {row.text}.")
    else:
        # Metadata is the client's own text, blanks included.
        values[row.field] = row.read(text if row is _METADATA else text.strip())


def _read_rules(
    element: Element, old: tuple[AuthorizationRule, ...], now: int
) -> tuple[AuthorizationRule, ...]:
    before = {rule.name: rule for rule in old}
    return tuple(_read_rule(child, before, now) for child in element.children)


def _read_rule(element: Element, before: Mapping[str, AuthorizationRule], now: int) -> AuthorizationRule:
    """Keys that are left out stay as they are, or are made."""
    if element.name != "AuthorizationRule" or element.type not in ("", "SharedAccessAuthorizationRule"):
        raise Invalid("SubCode=40000. Authorization rules must be of type SharedAccessAuthorizationRule.")
    name, primary, secondary = (element.get(key) for key in ("KeyName", "PrimaryKey", "SecondaryKey"))
    if not name:
        raise Invalid("SubCode=40000. An authorization rule must have a KeyName.")
    if max(len(name), len(primary), len(secondary)) > KEY_CHARS_MAX:
        raise Invalid(f"SubCode=40000. A key or its name is over {KEY_CHARS_MAX} characters.")
    rights = element.child("Rights")
    names = (child.text.strip() for child in rights.children) if rights is not None else ()
    old = before.get(name)
    rule = AuthorizationRule(
        name=name,
        rights=tuple(dict.fromkeys(names)),
        primary=primary or (old.primary if old else "") or fresh_key(),
        secondary=secondary or (old.secondary if old else "") or fresh_key(),
        created=old.created if old else now,
        modified=old.modified if old else now,
    )
    return rule if old is None or rule == old else msgspec.structs.replace(rule, modified=now)


def fresh_key() -> str:
    return b64encode(secrets.token_bytes(32)).decode()


def _check_rest(kind: type, element: Element, name: str) -> None:
    """What has no field, and must not be ignored."""
    if kind is Rule:
        _check_name(element, name)
    elif kind is RevokedPublisher:
        _check_name(element, name)
        if len(name) > PUBLISHER_CHARS_MAX or not name.isprintable():
            raise Invalid(
                f"SubCode=40000. A publisher is at most {PUBLISHER_CHARS_MAX} printable characters."
            )


def first_rule(element: Element, subscription: AnyEntity) -> Rule | None:
    """The rule that a new subscription's description wants instead of the true filter. Raises Invalid."""
    found = element.child("DefaultRuleDescription")
    if found is None or not isinstance(subscription, Subscription):
        return None
    name = found.get("Name") or "$Default"
    path = rule_path(subscription.path, name)
    return Rule(path=path, subscription=subscription.path, name=name, **read_rule(found))


def _check_name(element: Element, name: str) -> None:
    named = element.get("Name")
    if named and named.lower() != name.lower():
        raise Invalid(f"SubCode=40000. The Name '{named:.80}' must be '{name:.80}' here.")
