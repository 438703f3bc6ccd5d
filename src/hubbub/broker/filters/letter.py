"""A message as rules see it: system properties and user properties with plain values.

The broker never opens an encoded message; who can gives `Letter`s to it, and takes changed ones back.
Values are None (unknown), bool, int, float, str, bytes, datetime, timedelta and UUID.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Value = Any

SYSTEM_NAMES = {
    name.lower(): name
    for name in (
        *(
            "MessageId",
            "CorrelationId",
            "SessionId",
            "ReplyToSessionId",
            "To",
            "ReplyTo",
            "Label",
            "ContentType",
        ),
        *("PartitionKey", "ViaPartitionKey", "TimeToLive", "ScheduledEnqueueTimeUtc", "EnqueuedTimeUtc"),
        *("DeliveryCount", "SequenceNumber", "EnqueuedSequenceNumber", "Size", "State", "ForcePersistence"),
        *("ExpiresAtUtc", "LockToken", "LockedUntilUtc", "DeadLetterSource", "Subject"),
    )
}
"""Lower case → as the service spells them. Subject is the newer name of Label."""

SETTABLE = frozenset(
    (
        *(
            "MessageId",
            "CorrelationId",
            "SessionId",
            "ReplyToSessionId",
            "To",
            "ReplyTo",
            "Label",
            "ContentType",
        ),
        *("PartitionKey", "ViaPartitionKey", "TimeToLive", "ScheduledEnqueueTimeUtc"),
    )
)
"""System properties an action may change."""


class FilterError(Exception):
    """A rule could not be evaluated on a message; the message may be dead-lettered for it."""


class Letter:
    """`system` by the service's spelling, `user` as sent. Changes are kept apart: `None` removes."""

    __slots__ = ("_folded", "changed_system", "changed_user", "system", "user")

    def __init__(self, system: Mapping[str, Value], user: Mapping[str, Value]) -> None:
        self.system = dict(system)
        self.user = dict(user)
        self.changed_system: dict[str, Value] = {}
        self.changed_user: dict[str, Value] = {}
        self._folded: dict[str, str] | None = None

    def system_value(self, name: str) -> Value:
        """Raises FilterError for a property that no message has."""
        known = SYSTEM_NAMES.get(name.lower())
        if known is None:
            raise FilterError(f"'sys.{name}' is not a system property")
        return self.system.get("Label" if known == "Subject" else known)

    def user_value(self, name: str) -> Value:
        return self.user.get(self.spelled(name))

    def spelled(self, name: str) -> str:
        """The name as the message has it; letter case does not matter unless both spellings are there."""
        if name in self.user:
            return name
        if self._folded is None:
            self._folded = {key.lower(): key for key in reversed(list(self.user))}
        return self._folded.get(name.lower(), name)

    def set_system(self, name: str, value: Value) -> None:
        known = SYSTEM_NAMES.get(name.lower(), "")
        known = "Label" if known == "Subject" else known
        if known not in SETTABLE:
            raise FilterError(f"'sys.{name}' cannot be changed")
        self.system[known] = self.changed_system[known] = value

    def set_user(self, name: str, value: Value) -> None:
        name = self.spelled(name)
        self._folded = None
        self.changed_user[name] = value
        if value is None:
            self.user.pop(name, None)
        else:
            self.user[name] = value

    def copy(self) -> Letter:
        """For another rule's action; what one changes the other does not see."""
        return Letter(self.system, self.user)
