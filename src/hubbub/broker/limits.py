"""The limits of a namespace by profile (REST reference section 6). Every one can be overridden.

Sizes in bytes; 0 means no limit. A message's size is its body plus names and values of its properties;
a batch counts as one message.
"""

from __future__ import annotations

from dataclasses import dataclass

KB, MB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    event_bytes_max: int = MB
    message_bytes_max: int = 256 * KB
    message_bytes_max_premium: int = 0
    """What MaxMessageSizeInKilobytes may raise a queue's limit to; 0: the property is refused."""
    property_bytes_max: int = 32 * KB
    properties_bytes_max: int = 64 * KB
    key_chars_max: int = 128
    """MessageId, SessionId, PartitionKey."""
    partitions_max: int = 32
    consumer_groups_max: int = 20
    retention_days_max: int = 7
    hubs_max: int = 10
    queues_and_topics_max: int = 10_000
    subscriptions_max: int = 2_000
    receives_max: int = 5_000
    """Waiting receives per entity."""
    topics_allowed: bool = True
    timeout_max: int = 240_000
    """Longest long poll, milliseconds."""


PROFILES = {
    "basic": Limits(
        event_bytes_max=256 * KB, consumer_groups_max=1, retention_days_max=1, topics_allowed=False
    ),
    "standard": Limits(),
    "premium": Limits(
        message_bytes_max=MB,
        message_bytes_max_premium=100 * MB,
        partitions_max=100,
        consumer_groups_max=100,
        retention_days_max=90,
        hubs_max=0,
    ),
    "none": Limits(
        event_bytes_max=100 * MB,
        message_bytes_max=100 * MB,
        message_bytes_max_premium=100 * MB,
        property_bytes_max=0,
        properties_bytes_max=0,
        partitions_max=1024,
        consumer_groups_max=0,
        retention_days_max=0,
        hubs_max=0,
        queues_and_topics_max=0,
        subscriptions_max=0,
        receives_max=0,
    ),
}
