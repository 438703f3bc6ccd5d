"""Entities: what users configure. Immutable values with the service's defaults, and their validation.

Not here: what is in an entity (ledger, partitions) and how an entity travels (the doors).
Lengths are milliseconds; FOREVER stands for the service's infinite time span.
Defaults and bounds: the management reference (QueueDescription, TopicDescription, …) and the quota pages.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, TypeAlias, TypeVar

import msgspec

from .errors import Invalid
from .filters import ActiveRule, Filter, SqlFilter, Typed, activate

FOREVER = 922337203685477
"""TimeSpan.MaxValue in whole milliseconds: no limit."""

MINUTE = 60_000
DAY = 24 * 60 * MINUTE

STATUSES = ("Active", "Disabled", "SendDisabled", "ReceiveDisabled")
RULES_MAX = 12
NAME_TEXT = (
    "SubCode=40000. '{uri}' contains character(s) that is not allowed by Service Bus. Entity segments can"
    " contain only letters, numbers, periods (.), hyphens (-), and underscores (_). To know more visit"
    " https://aka.ms/sbResourceMgrExceptions."
)

FORMAT_TEXT = "BR0012The specified value is in an invalid format.\r\nParameter name: {name}"

_SEGMENT = re.compile(r"[A-Za-z0-9$](?:[\w.\-~]*[A-Za-z0-9_])?", re.ASCII)
_RESERVED = frozenset(
    (
        *("messages", "partitions", "publishers", "publisher", "subscriptions", "consumergroups", "rules"),
        *("revokedpublishers", "$resources", "$namespaceinfo", "$cbs", "$management", "$deadletterqueue"),
        "$transfer",
    )
)


class AuthorizationRule(msgspec.Struct, frozen=True, kw_only=True):
    """A shared-access rule. Rights are of Listen, Send, Manage; Manage needs the other two."""

    name: str
    rights: tuple[str, ...]
    primary: str
    secondary: str = ""
    created: int = 0
    modified: int = 0


class Entity(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """What all entities have. `path` keeps the case it was created with; `key` is how it is found."""

    noun: ClassVar[str] = "Entity"

    path: str
    created: int = 0
    updated: int = 0
    user_metadata: str = ""

    @property
    def key(self) -> str:
        return self.path.lower()

    @property
    def parent(self) -> str:
        """The path this entity lives under; empty for a top-level one."""
        return ""

    def validate(self) -> None:
        """Raises Invalid with the service's words if a field is out of bounds."""
        if len(self.user_metadata) > 1024:
            raise Invalid("SubCode=40000. The user metadata is over 1024 characters.")


class _Securable(Entity, frozen=True, kw_only=True):
    authorization_rules: tuple[AuthorizationRule, ...] = ()
    status: str = "Active"

    def validate(self) -> None:
        super().validate()
        check_path(self.path, 260)
        check_status(self.status)
        check_rules(self.authorization_rules)

    @property
    def can_send(self) -> bool:
        return self.status in ("Active", "ReceiveDisabled")

    @property
    def can_receive(self) -> bool:
        return self.status in ("Active", "SendDisabled")


class Queue(_Securable, frozen=True, kw_only=True):
    """A Service Bus queue (QueueDescription)."""

    noun: ClassVar[str] = "Queue"

    lock_duration: int = MINUTE
    size_mb_max: int = 1024
    requires_duplicate_detection: bool = False
    requires_session: bool = False
    default_ttl: int = FOREVER
    dead_letter_on_expiration: bool = False
    duplicate_window: int = 10 * MINUTE
    deliveries_max: int = 10
    batched_operations: bool = True
    auto_delete_on_idle: int = FOREVER
    partitioning: bool = False
    express: bool = False
    forward_to: str = ""
    forward_dead_letters_to: str = ""
    message_kb_max: int = 0
    """0: the namespace's own limit."""
    support_ordering: bool = True

    def validate(self) -> None:
        super().validate()
        check_delivery(self.lock_duration, self.deliveries_max)
        check_lifetimes(self.default_ttl, self.auto_delete_on_idle)
        check_duplicates(self.duplicate_window)
        check_sizes(self.size_mb_max, self.message_kb_max)
        check_forwarding(self, self.path)


class Topic(_Securable, frozen=True, kw_only=True):
    """A Service Bus topic (TopicDescription)."""

    noun: ClassVar[str] = "Topic"

    default_ttl: int = FOREVER
    size_mb_max: int = 1024
    requires_duplicate_detection: bool = False
    duplicate_window: int = 10 * MINUTE
    batched_operations: bool = True
    auto_delete_on_idle: int = FOREVER
    partitioning: bool = False
    express: bool = False
    message_kb_max: int = 0
    support_ordering: bool = True

    def validate(self) -> None:
        super().validate()
        check_lifetimes(self.default_ttl, self.auto_delete_on_idle)
        check_duplicates(self.duplicate_window)
        check_sizes(self.size_mb_max, self.message_kb_max)


class Subscription(Entity, frozen=True, kw_only=True):
    """A subscription of a topic (SubscriptionDescription). `path` is `{topic}/subscriptions/{name}`."""

    noun: ClassVar[str] = "Subscription"

    topic: str
    name: str
    lock_duration: int = MINUTE
    requires_session: bool = False
    default_ttl: int = FOREVER
    dead_letter_on_expiration: bool = False
    dead_letter_on_filter_error: bool = True
    deliveries_max: int = 10
    batched_operations: bool = True
    status: str = "Active"
    forward_to: str = ""
    forward_dead_letters_to: str = ""
    auto_delete_on_idle: int = FOREVER

    @property
    def parent(self) -> str:
        return self.topic

    @property
    def can_receive(self) -> bool:
        return self.status in ("Active", "SendDisabled")

    def validate(self) -> None:
        super().validate()
        check_segment(self.name, 50)
        check_status(self.status)
        check_delivery(self.lock_duration, self.deliveries_max)
        check_lifetimes(self.default_ttl, self.auto_delete_on_idle)
        check_forwarding(self, self.topic)


class Rule(Entity, frozen=True, kw_only=True):
    """A subscription's rule. `path` is `{topic}/subscriptions/{subscription}/rules/{name}`."""

    noun: ClassVar[str] = "Rule"

    subscription: str
    """The path of its subscription."""
    name: str
    filter: Filter = SqlFilter()
    action: str = ""
    """Statements that change the copy; empty: no action."""
    action_parameters: dict[str, Typed] = {}

    @property
    def parent(self) -> str:
        return self.subscription

    def active(self) -> ActiveRule:
        """The rule as functions. Raises Invalid."""
        return activate(self.name, self.filter, self.action, self.action_parameters)

    def validate(self) -> None:
        super().validate()
        self.active()
        check_segment(self.name, 50)


class EventHub(_Securable, frozen=True, kw_only=True):
    """An event hub (EventHubDescription)."""

    noun: ClassVar[str] = "EventHub"

    retention: int = 0
    """0 when it is made: as long as is usual in its tier."""
    retention_bytes_max: int = 0
    """Per partition; 0: no limit by size."""
    partition_count: int = 4

    def validate(self) -> None:
        super().validate()
        check_path(self.path, 256)
        if self.partition_count < 1:
            raise Invalid("SubCode=40000. The property 'PartitionCount' must be at least 1.")
        if self.retention < 0:
            raise Invalid("SubCode=40000. The property 'MessageRetentionInDays' must be positive.")
        if not 0 <= self.retention_bytes_max < 1 << 63:
            raise Invalid("SubCode=40000. The retention size must not be negative, and be below 2**63.")


class ConsumerGroup(Entity, frozen=True, kw_only=True):
    """A consumer group of an event hub. `path` is `{hub}/consumergroups/{name}`."""

    noun: ClassVar[str] = "ConsumerGroup"

    hub: str
    name: str

    @property
    def parent(self) -> str:
        return self.hub

    def validate(self) -> None:
        super().validate()
        check_segment(self.name, 50)


class RevokedPublisher(Entity, frozen=True, kw_only=True):
    """A publisher that may not send. `path` is `{hub}/revokedpublishers/{name}`."""

    noun: ClassVar[str] = "RevokedPublisher"

    hub: str
    name: str

    @property
    def parent(self) -> str:
        return self.hub


AnyEntity: TypeAlias = Queue | Topic | Subscription | Rule | EventHub | ConsumerGroup | RevokedPublisher
Receiver: TypeAlias = Queue | Subscription
"""What has a ledger."""


K = TypeVar("K", bound=Entity)


def checked(kind: type[K], values: dict[str, Any]) -> K:
    """A valid entity from values as a client or a file gave them. Raises Invalid.

    What is stored with a value of the wrong type could not be read again at the next start.
    """
    try:
        entity = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"SubCode=40000. The {kind.noun.lower()} cannot be as described: {error}.") from None
    entity.validate()
    return entity


def subscription_path(topic: str, name: str) -> str:
    return f"{topic}/subscriptions/{name}"


def rule_path(subscription: str, name: str) -> str:
    return f"{subscription}/rules/{name}"


def consumer_group_path(hub: str, name: str) -> str:
    return f"{hub}/consumergroups/{name}"


def revoked_publisher_path(hub: str, name: str) -> str:
    return f"{hub}/revokedpublishers/{name}"


def check_path(path: str, length_max: int) -> None:
    """A queue, topic or hub path: segments joined by slashes. Raises Invalid."""
    if len(path) > length_max:
        raise Invalid(f"SubCode=40000. The entity path is over {length_max} characters.")
    for segment in path.split("/"):
        check_segment(segment, length_max)
        if segment.lower() in _RESERVED:
            raise Invalid(f"SubCode=40000. '{segment}' is a reserved word and cannot be part of a name.")


def check_segment(segment: str, length_max: int) -> None:
    if len(segment) > length_max:
        raise Invalid(f"SubCode=40000. The name '{segment}' is over {length_max} characters.")
    if not _SEGMENT.fullmatch(segment):
        raise Invalid(NAME_TEXT.format(uri=segment))


def check_status(status: str) -> None:
    if status not in STATUSES:
        raise Invalid(f"SubCode=40000. The status '{status}' is not one of {', '.join(STATUSES)}.")


def check_rules(rules: tuple[AuthorizationRule, ...]) -> None:
    if len(rules) > RULES_MAX:
        raise Invalid(f"SubCode=40000. There may be no more than {RULES_MAX} authorization rules.")
    if len({rule.name for rule in rules}) != len(rules):
        raise Invalid("SubCode=40000. Two authorization rules have the same name.")
    for rule in rules:
        rights = set(rule.rights)
        if not rights or not rights <= {"Listen", "Send", "Manage"}:
            raise Invalid(f"SubCode=40000. The rights of rule '{rule.name}' must be of Listen, Send, Manage.")
        if "Manage" in rights and len(rights) < 3:
            raise Invalid(f"SubCode=40000. Rule '{rule.name}': Manage must come with Send and Listen.")


def check_delivery(lock_duration: int, deliveries_max: int) -> None:
    if lock_duration > 5 * MINUTE:
        raise Invalid("SubCode=40000. The supplied lock time exceeds the allowed maximum of '5' minutes.")
    if lock_duration < 1:
        raise Invalid("SubCode=40000. The property 'LockDuration' must be positive.")
    if not 1 <= deliveries_max <= 2**31 - 1:
        raise Invalid("SubCode=40000. The property 'MaxDeliveryCount' must be at least 1.")


def check_lifetimes(default_ttl: int, auto_delete_on_idle: int) -> None:
    if default_ttl < 1:
        raise Invalid("SubCode=40000. The property 'DefaultMessageTimeToLive' must be positive.")
    if auto_delete_on_idle < 5 * MINUTE:
        raise Invalid("SubCode=40000. The property 'AutoDeleteOnIdle' must be at least PT5M.")


def check_duplicates(window: int) -> None:
    if not 1 <= window <= 7 * DAY:
        raise Invalid(
            "SubCode=40000. The property 'DuplicateDetectionHistoryTimeWindow' must be positive and at most"
            " P7D."
        )


def check_sizes(size_mb_max: int, message_kb_max: int) -> None:
    if size_mb_max not in (1024, 2048, 3072, 4096, 5120, 10240, 20480, 40960, 81920):
        raise Invalid(
            f"SubCode=40000. The specified value {size_mb_max} is invalid. The property 'MaxSizeInMegabytes',"
            " must be one of the following values: 1024;2048;3072;4096;5120."
        )
    if message_kb_max and not 1024 <= message_kb_max <= 102400:
        raise Invalid("SubCode=40000. The property 'MaxMessageSizeInKilobytes' must be in 1024..102400.")


def forward_path(address: str) -> str:
    """The path that ForwardTo names: as it is, or in an address of any scheme and host."""
    _, scheme, rest = address.rpartition("://")
    return (rest.partition("/")[2] if scheme else address).strip("/")


def targets_of(entity: Entity) -> list[str]:
    """The keys of the entities that its messages or dead letters go on to."""
    if not isinstance(entity, (Queue, Subscription)):
        return []
    addresses = (entity.forward_to, entity.forward_dead_letters_to)
    return [forward_path(address).lower() for address in addresses if address]


def check_forwarding(entity: Queue | Subscription, itself: str) -> None:
    """`itself`: the path that messages of it are sent to. Raises Invalid."""
    for name, address in (
        ("ForwardTo", entity.forward_to),
        ("ForwardDeadLetteredMessagesTo", entity.forward_dead_letters_to),
    ):
        if not address:
            continue
        try:
            check_path(forward_path(address), 260)
        except Invalid:
            raise Invalid(FORMAT_TEXT.format(name=name)) from None
        if forward_path(address).lower() == itself.lower():
            raise Invalid(f"SubCode=40000. The entity {itself} has an auto-forwarding policy to itself.")
    if entity.forward_to and entity.requires_session:
        raise Invalid(
            "SubCode=40000. Both RequiresSession and ForwardTo property cannot be enabled together."
        )
