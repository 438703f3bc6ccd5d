"""The official emulators' Config.json, of Event Hubs and of Service Bus, as a configuration.

Not here: a configuration of our own (`config`). Comments and trailing commas are allowed, as they are there;
members nobody knows are ignored, and those that would change what happens to a message are refused.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .broker.entity import AnyEntity, ConsumerGroup, EventHub, Queue, Subscription, Topic, subscription_path
from .config import DURATIONS, Config, ConfigError, NamespaceConfig, build, distinct, duration, group_place

_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.S)
_TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')
_QUEUE_KEYS = {
    "LockDuration": "lock_duration",
    "DefaultMessageTimeToLive": "default_ttl",
    "DuplicateDetectionHistoryTimeWindow": "duplicate_window",
    "DeadLetteringOnMessageExpiration": "dead_letter_on_expiration",
    "MaxDeliveryCount": "deliveries_max",
    "RequiresDuplicateDetection": "requires_duplicate_detection",
    "RequiresSession": "requires_session",
    "ForwardTo": "forward_to",
    "ForwardDeadLetteredMessagesTo": "forward_dead_letters_to",
}


class _SqlFilter(msgspec.Struct):
    expression: str = msgspec.field(name="SqlExpression", default="")


class _RuleProperties(msgspec.Struct):
    kind: str = msgspec.field(name="FilterType", default="")
    filter: _SqlFilter | None = msgspec.field(name="SqlFilter", default=None)


class _Rule(msgspec.Struct):
    name: str = msgspec.field(name="Name", default="")
    properties: _RuleProperties | None = msgspec.field(name="Properties", default=None)


class _Item(msgspec.Struct):
    """A queue, topic, subscription or consumer group."""

    name: str = msgspec.field(name="Name")
    properties: dict[str, Any] | None = msgspec.field(name="Properties", default=None)
    subscriptions: list[_Item] | None = msgspec.field(name="Subscriptions", default=None)
    rules: list[_Rule] | None = msgspec.field(name="Rules", default=None)


class _HubItem(msgspec.Struct):
    name: str = msgspec.field(name="Name")
    partitions: int | str = msgspec.field(name="PartitionCount")
    groups: list[_Item] | None = msgspec.field(name="ConsumerGroups", default=None)


class _HubSpace(msgspec.Struct):
    name: str = msgspec.field(name="Name")
    entities: list[_HubItem] | None = msgspec.field(name="Entities", default=None)


class _BusSpace(msgspec.Struct):
    name: str = msgspec.field(name="Name")
    queues: list[_Item] | None = msgspec.field(name="Queues", default=None)
    topics: list[_Item] | None = msgspec.field(name="Topics", default=None)


class _User(msgspec.Struct):
    hubs: list[_HubSpace] | None = msgspec.field(name="NamespaceConfig", default=None)
    buses: list[_BusSpace] | None = msgspec.field(name="Namespaces", default=None)


class _Emulator(msgspec.Struct):
    user: _User = msgspec.field(name="UserConfig")


def emulated(path: str, text: str) -> Config:
    """The namespaces that the text of such a file describes. Raises ConfigError."""
    plain = _COMMENT.sub(lambda m: m[1] or "", text)
    plain = _TRAILING.sub(lambda m: m[1] or "", plain)
    try:
        user = msgspec.json.decode(plain, type=_Emulator).user
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a Config.json of an Azure emulator: {error}.") from None
    if not user.hubs and not user.buses:
        raise ConfigError(f"{path}: UserConfig has neither Namespaces nor NamespaceConfig.")
    found = [_emulator_hubs(path, item) for item in user.hubs or ()]
    return Config(namespaces=(*found, *(_emulator_bus(path, item) for item in user.buses or ())))


def _emulator_hubs(path: str, item: _HubSpace) -> NamespaceConfig:
    entities: list[AnyEntity] = []
    for hub in item.entities or ():
        count = hub.partitions
        if isinstance(count, str) and not (count.isascii() and count.isdigit() and len(count) < 9):
            raise ConfigError(f"{path}: the PartitionCount of '{hub.name}' is no number.")
        values = {"path": hub.name, "partition_count": int(count)}
        entities.append(build(path, "event hub", EventHub, values))
        for group in hub.groups or ():
            if group.name.lower() != "$default":
                entities.append(
                    build(path, "consumer group", ConsumerGroup, group_place(hub.name, group.name))
                )
    return NamespaceConfig(name=item.name.lower(), entities=distinct(path, item.name, entities))


def _emulator_bus(path: str, item: _BusSpace) -> NamespaceConfig:
    entities: list[AnyEntity] = []
    for queue in item.queues or ():
        values = {"path": queue.name, **_emulator_properties(path, queue)}
        entities.append(build(path, "queue", Queue, values))
    for topic in item.topics or ():
        values = {"path": topic.name, **_emulator_properties(path, topic)}
        entities.append(build(path, "topic", Topic, values))
        for sub in topic.subscriptions or ():
            _refuse_rules(path, topic.name, sub)
            values = {"path": subscription_path(topic.name, sub.name), "topic": topic.name, "name": sub.name}
            values |= _emulator_properties(path, sub)
            entities.append(build(path, "subscription", Subscription, values))
    return NamespaceConfig(name=item.name.lower(), entities=distinct(path, item.name, entities))


def _emulator_properties(path: str, item: _Item) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in (item.properties or {}).items():
        ours = _QUEUE_KEYS.get(name)
        if ours is None or value in ("", None):
            continue
        values[ours] = duration(str(value), f"{path}: {name}") if ours in DURATIONS else value
    return values


def _refuse_rules(path: str, topic: str, subscription: _Item) -> None:
    """Rejected, not ignored: a subscription that gets everything would look as if it worked."""
    for rule in subscription.rules or ():
        properties = rule.properties or _RuleProperties()
        expression = (properties.filter or _SqlFilter()).expression.replace(" ", "")
        if properties.kind.lower() != "sql" or expression != "1=1":
            raise ConfigError(
                f"{path}: rule '{rule.name}' of {topic}/{subscription.name}: only the filter"
                " 1=1 is supported by this version. Remove the rule to go on without it."
            )
