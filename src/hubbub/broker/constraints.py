"""What an entity must satisfy to be created or changed, and what is born with it. Pure.

Not here: the bounds of single fields (`entity`), and what depends on which other entities exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from .entity import (
    DAY,
    FOREVER,
    AnyEntity,
    ConsumerGroup,
    EventHub,
    Queue,
    RevokedPublisher,
    Rule,
    Subscription,
    Topic,
    consumer_group_path,
    forward_path,
    rule_path,
)
from .errors import Invalid, NotFound, QuotaExceeded
from .filters import CorrelationFilter, SqlFilter
from .limits import Limits

RETENTION_DAYS = 7
CONFLICT = (
    "SubCode=40900. Conflict. You're requesting an operation that isn't allowed in the resource's current"
    " state. To know more visit https://aka.ms/sbResourceMgrExceptions."
)


def companions(entity: AnyEntity, rule: Rule | None) -> list[AnyEntity]:
    """What is born with an entity; `rule` instead of the one that takes everything."""
    created, updated = entity.created, entity.updated
    if isinstance(entity, Subscription):
        if rule is not None:
            return [msgspec.structs.replace(rule, created=created, updated=updated)]
        path = rule_path(entity.path, "$Default")
        return [Rule(path=path, subscription=entity.path, name="$Default", created=created, updated=updated)]
    if isinstance(entity, EventHub):
        path = consumer_group_path(entity.path, "$Default")
        return [ConsumerGroup(path=path, hub=entity.path, name="$Default", created=created, updated=updated)]
    return []


def fitted(entity: AnyEntity, limits: Limits) -> AnyEntity:
    """The entity with what depends on the tier, or on other fields of it."""
    if isinstance(entity, EventHub) and not entity.retention:
        days = min(RETENTION_DAYS, limits.retention_days_max or RETENTION_DAYS)
        return msgspec.structs.replace(entity, retention=days * DAY)
    if isinstance(entity, (Queue, Subscription)) and entity.forward_to:
        # Who forwards is never idle: that counts as receiving.
        return msgspec.structs.replace(entity, auto_delete_on_idle=FOREVER)
    return entity


def check_limits(entity: AnyEntity, limits: Limits, namespace: str) -> None:
    """Raises Invalid for what the tier does not allow (REST reference 6)."""
    if isinstance(entity, EventHub):
        if entity.partition_count > limits.partitions_max:
            raise Invalid(
                f"SubCode=40000. The property 'PartitionCount' must be in 1..{limits.partitions_max}."
            )
        days = limits.retention_days_max
        if days and entity.retention > days * DAY:
            raise Invalid(f"SubCode=40000. The property 'MessageRetentionInDays' must be in 1..{days}.")
    elif isinstance(entity, Topic) and not limits.topics_allowed:
        raise Invalid(
            f"SubCode=40000. Cannot operate on type Topic because the namespace '{namespace}' is using"
            " 'Basic' tier."
        )
    if (
        isinstance(entity, Queue)
        and not limits.topics_allowed
        and (entity.forward_to or entity.forward_dead_letters_to)
    ):
        raise Invalid(
            f"SubCode=40000. Auto-forwarding is not available because the namespace '{namespace}' is using"
            " 'Basic' tier."
        )
    if isinstance(entity, (Queue, Topic)) and entity.message_kb_max * 1024 > max(
        limits.message_bytes_max_premium, limits.message_bytes_max
    ):
        raise Invalid("SubCode=40000. The property 'MaxMessageSizeInKilobytes' needs the Premium tier.")


def check_numbers(entity: AnyEntity, others: Iterable[AnyEntity], limits: Limits) -> None:
    """Raises QuotaExceeded if there are as many already as the tier allows. `others` are all there are."""
    most, what, same = _bound(entity, limits)
    if most and sum(map(same, others)) >= most:
        raise QuotaExceeded(f"The maximum of {most} {what} has been reached. Delete one first.")


def _bound(entity: AnyEntity, limits: Limits) -> tuple[int, str, Callable[[AnyEntity], bool]]:
    """How many such entities there may be, what they are called, and which ones count."""
    kind = type(entity)
    parent = entity.parent.lower()
    if isinstance(entity, (Queue, Topic)):
        return limits.queues_and_topics_max, "queues and topics", lambda e: isinstance(e, (Queue, Topic))
    if isinstance(entity, Rule):
        return _filter_bound(entity, limits)
    bounds: dict[type, tuple[int, str]] = {
        EventHub: (limits.hubs_max, "event hubs in a namespace"),
        Subscription: (limits.subscriptions_max, "subscriptions of a topic"),
        ConsumerGroup: (limits.consumer_groups_max, "consumer groups of an event hub"),
    }
    most, what = bounds.get(kind, (0, ""))
    return most, what, lambda e: type(e) is kind and e.parent.lower() == parent


def _filter_bound(rule: Rule, limits: Limits) -> tuple[int, str, Callable[[AnyEntity], bool]]:
    topic = _topic_of(rule)

    def correlated(e: AnyEntity) -> bool:
        return isinstance(e, Rule) and isinstance(e.filter, CorrelationFilter) and _topic_of(e) == topic

    def sql(e: AnyEntity) -> bool:
        return isinstance(e, Rule) and _is_sql(e) and _topic_of(e) == topic

    if isinstance(rule.filter, CorrelationFilter):
        return limits.correlation_filters_max, "correlation filters of a topic", correlated
    return limits.sql_filters_max if _is_sql(rule) else 0, "SQL filters of a topic", sql


def _topic_of(rule: Rule) -> str:
    return rule.subscription.lower().rpartition("/subscriptions/")[0]


def _is_sql(rule: Rule) -> bool:
    """A filter that has something to evaluate."""
    return isinstance(rule.filter, SqlFilter) and not rule.filter.always()


def message_bytes_max(entity: EventHub | Queue | Topic, limits: Limits) -> int:
    """Bytes that a message or batch sent there may have; 0: any."""
    if isinstance(entity, EventHub):
        return limits.event_bytes_max
    return entity.message_kb_max * 1024 or limits.message_bytes_max


def check_unchanged(old: AnyEntity, new: AnyEntity) -> None:
    """Raises Invalid for what may not change after creation."""
    fixed = {
        "requires_session": "requiresSession",
        "requires_duplicate_detection": "requiresDuplicateDetection",
        "partitioning": "enablePartitioning",
        "partition_count": "partitionCount",
    }
    for name, text in fixed.items():
        if getattr(old, name, None) != getattr(new, name, None):
            raise Invalid(
                f"SubCode=40000. The value for the '{text}' property of an existing Queue(or Topic) cannot be"
                " changed."
            )


_PARENTS: dict[type, type] = {
    Subscription: Topic,
    Rule: Subscription,
    ConsumerGroup: EventHub,
    RevokedPublisher: EventHub,
}


def check_parent(entity: AnyEntity, found: Mapping[str, AnyEntity]) -> None:
    """Raises NotFound if there is nothing for it to live under."""
    wanted = _PARENTS.get(type(entity))
    if wanted is not None and type(found.get(entity.parent.lower())) is not wanted:
        raise NotFound(f"Entity '{entity.parent}' was not found.")


def check_targets(entity: AnyEntity, old: AnyEntity | None, found: Mapping[str, AnyEntity]) -> None:
    """Raises Invalid if messages are to go on to what is not there; one that went later is no hindrance to
    other changes."""
    for name in ("forward_to", "forward_dead_letters_to"):
        address: str = getattr(entity, name, "")
        changed = address and address != getattr(old, name, "")
        if changed and not isinstance(found.get(forward_path(address).lower()), (Queue, Topic)):
            raise Invalid("SubCode=40400. The auto forwarding destination entity does not exist.")


def exists_text(entity: AnyEntity, namespace: str) -> str:
    """How the service says that it is there already."""
    if isinstance(entity, Subscription):
        return f"The messaging entity '{namespace}:Topic:{entity.topic}|{entity.name}' already exists."
    if isinstance(entity, Rule):
        topic, _, subscription = entity.subscription.rpartition("/subscriptions/")
        path = f"{namespace}:Topic:{topic}|{subscription}|{entity.name}"
        return f"The messaging entity '{path}' already exists."
    return CONFLICT
