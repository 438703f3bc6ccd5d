"""What the messages of one request weigh, and the bounds on their properties (REST reference 6).

A message weighs its body, and name and value of every property its sender gave. Its content type, an id it
is given here and the framing it is stored in weigh nothing, so that a body may be as large as the limit.

Not here: the bound on the whole, which depends on the entity (`send`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...broker.errors import Invalid
from ...broker.limits import Limits
from .errors import HttpError

FURTHER_BYTES = 32
"""Each message after the first weighs this much besides. Empty ones must cost something, or one request
could hold hundreds of thousands."""

_NAMES = {
    "correlation_id": "CorrelationId",
    "force_persistence": "ForcePersistence",
    "group_id": "SessionId",
    "message_id": "MessageId",
    "partition_key": "PartitionKey",
    "reply_to": "ReplyTo",
    "reply_to_group_id": "ReplyToSessionId",
    "scheduled": "ScheduledEnqueueTimeUtc",
    "subject": "Label",
    "to": "To",
    "ttl": "TimeToLive",
    "via_partition_key": "ViaPartitionKey",
}
_KEYS = ("message_id", "group_id", "partition_key")


class Scale:
    """Adds up the messages of one request. `events`: Event Hubs bounds the whole but no property."""

    __slots__ = ("_events", "_limits", "count", "size")

    def __init__(self, limits: Limits, events: bool) -> None:
        self._limits = limits
        self._events = events
        self.count = 0
        self.size = 0
        """Bytes of all messages so far."""

    def add(self, body: bytes, broker: Mapping[str, Any], user: Mapping[str, Any]) -> None:
        """One message. Raises Invalid for a key that is too long, HttpError 403 for too large properties."""
        self.size += len(body) + (FURTHER_BYTES if self.count else 0)
        self.count += 1
        if broker:
            self._check_keys(broker)
        if broker or user:
            self.size += self._weigh(broker, user)

    def _check_keys(self, broker: Mapping[str, Any]) -> None:
        most = self._limits.key_chars_max
        for key in _KEYS:
            if len(broker.get(key, "")) > most > 0:
                raise Invalid(f"SubCode=40000. The property '{_NAMES[key]}' is over {most} characters.")

    def _weigh(self, broker: Mapping[str, Any], user: Mapping[str, Any]) -> int:
        total = 0
        one_max, all_max = self._limits.property_bytes_max, self._limits.properties_bytes_max
        for named, properties in ((_NAMES, broker), (None, user)):
            for key, value in properties.items():
                name = named[key] if named else key
                weight = bytes_of(name) + bytes_of(value)
                total += weight
                if weight > one_max > 0 and not self._events:
                    raise _too_much(f"The property '{name:.60}' is {weight} bytes long", one_max)
        if total > all_max > 0 and not self._events:
            raise _too_much(f"The properties of a message are {total} bytes long together", all_max)
        return total


def bytes_of(value: object) -> int:
    """Bytes of a property's value: text as UTF-8, a boolean one, every number and moment eight."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    return 1 if isinstance(value, bool) else 8


def _too_much(what: str, most: int) -> HttpError:
    return HttpError(403, f"SubCode=40300. {what}; the limit is {most} bytes.")
