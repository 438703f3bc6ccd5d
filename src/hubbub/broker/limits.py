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
    session_state_bytes_max: int = 256 * KB
    key_chars_max: int = 128
    """MessageId, SessionId, PartitionKey, and a publisher's name."""
    partitions_max: int = 32
    consumer_groups_max: int = 20
    retention_days_max: int = 7
    hubs_max: int = 10
    queues_and_topics_max: int = 10_000
    subscriptions_max: int = 2_000
    """Per topic, as the two that follow. Rules that take everything do not count as filters."""
    sql_filters_max: int = 2_000
    correlation_filters_max: int = 100_000
    throughput_units: int = 0
    """What event hubs of the namespace take together: 1 MB and 1000 events a second for each; 0: any."""
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
        session_state_bytes_max=MB,
        message_bytes_max_premium=100 * MB,
        partitions_max=100,
        consumer_groups_max=100,
        retention_days_max=90,
        hubs_max=0,
    ),
    "none": Limits(
        event_bytes_max=100 * MB,
        message_bytes_max=100 * MB,
        session_state_bytes_max=100 * MB,
        message_bytes_max_premium=100 * MB,
        property_bytes_max=0,
        properties_bytes_max=0,
        partitions_max=1024,
        consumer_groups_max=0,
        retention_days_max=0,
        hubs_max=0,
        queues_and_topics_max=0,
        subscriptions_max=0,
        sql_filters_max=0,
        correlation_filters_max=0,
        receives_max=0,
    ),
}


UNIT_EVENTS, UNIT_BYTES = 1_000, MB
"""What one throughput unit takes in a second."""


class Throttle:
    """Throughput units at work. An idle second is saved up and no more; who overdraws pays it off by waiting,
    so that a batch larger than a second's worth can pass at all. Moments in ms."""

    __slots__ = ("_bytes", "_events", "_since", "_units")

    def __init__(self, units: int, now: int) -> None:
        self._units = units
        self._since = now
        self._events = units * UNIT_EVENTS * 1000
        self._bytes = units * UNIT_BYTES * 1000

    def take(self, events: int, size: int, now: int) -> bool:
        """Whether so many events of `size` bytes together may come now."""
        passed = max(0, now - self._since) * self._units
        self._since = max(self._since, now)
        # In thousandths, or many calls within a millisecond would gain what is rounded away.
        self._events = min(self._events + passed * UNIT_EVENTS, self._units * UNIT_EVENTS * 1000)
        self._bytes = min(self._bytes + passed * UNIT_BYTES, self._units * UNIT_BYTES * 1000)
        if self._events <= 0 or self._bytes <= 0:
            return False
        self._events -= events * 1000
        self._bytes -= size * 1000
        return True
