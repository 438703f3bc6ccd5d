"""A message as rules see it: system properties and user properties with plain values.

The broker never opens an encoded message; who can gives `Letter`s to it, and takes changed ones back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from .values import FilterError, Value, converted

_NAMES = (
    *("MessageId", "CorrelationId", "SessionId", "ReplyToSessionId", "To", "ReplyTo", "Label", "ContentType"),
    *("PartitionKey", "ViaPartitionKey", "TimeToLive", "ScheduledEnqueueTimeUtc", "EnqueuedTimeUtc"),
    *("DeliveryCount", "SequenceNumber", "EnqueuedSequenceNumber", "Size", "State", "ForcePersistence"),
    *("ExpiresAtUtc", "LockToken", "LockedUntilUtc", "DeadLetterSource"),
)
_NEWER = {
    "Subject": "Label",
    "TransactionPartitionKey": "ViaPartitionKey",
    "ScheduledEnqueueTime": "ScheduledEnqueueTimeUtc",
    "EnqueuedTime": "EnqueuedTimeUtc",
    "ExpiresAt": "ExpiresAtUtc",
    "LockedUntil": "LockedUntilUtc",
}
"""What the newer client libraries call them; the documents allow both."""
SYSTEM_NAMES = {
    **{name.lower(): name for name in _NAMES},
    **{name.lower(): known for name, known in _NEWER.items()},
}
"""Lower case, in any spelling → as letters have it."""
SETTABLE: dict[str, type] = {
    **dict.fromkeys(_NAMES[:10], str),
    "TimeToLive": timedelta,
    "ScheduledEnqueueTimeUtc": datetime,
}
"""System properties an action may change, and their types."""
KEYS = frozenset(
    ("MessageId", "SessionId", "ReplyToSessionId", "PartitionKey", "ViaPartitionKey"),
)
KEY_CHARS_MAX = 128


class Letter:
    """`system` by the names above, or what makes them once they are looked at; `user` as sent. Changes are
    kept apart: `None` removes."""

    __slots__ = ("_folded", "_make", "_system", "changed_system", "changed_user", "user")

    def __init__(
        self, system: Mapping[str, Value] | Callable[[], Mapping[str, Value]], user: Mapping[str, Value]
    ) -> None:
        self._make = system if callable(system) else None
        self._system = {} if callable(system) else dict(system)
        self.user = dict(user)
        self.changed_system: dict[str, Value] = {}
        self.changed_user: dict[str, Value] = {}
        self._folded: dict[str, str] | None = None

    @property
    def system(self) -> dict[str, Value]:
        if self._make is not None:
            self._system, self._make = dict(self._make()), None
        return self._system

    def system_value(self, name: str) -> Value:
        """Raises FilterError for a property that no message has."""
        return self.system.get(system_name(name))

    def user_value(self, name: str) -> Value:
        value = self.user.get(name)
        return self.user.get(self.spelled(name)) if value is None else value

    def spelled(self, name: str) -> str:
        """The name as the message has it; letter case does not matter unless both spellings are there."""
        if name in self.user:
            return name
        if self._folded is None:
            self._folded = {key.lower(): key for key in reversed(list(self.user))}
        return self._folded.get(name.lower(), name)

    def set_system(self, name: str, value: Value) -> None:
        """Raises FilterError for a property that cannot be changed, or not to that."""
        known = SYSTEM_NAMES.get(name.lower(), "")
        kind = SETTABLE.get(known)
        if kind is None:
            raise FilterError(f"'sys.{name}' cannot be changed")
        value = converted(value, kind)
        if known in KEYS and value is not None and len(value) > KEY_CHARS_MAX:
            raise FilterError(f"'sys.{name}' cannot have more than {KEY_CHARS_MAX} characters")
        if kind is timedelta and value is not None and value <= timedelta():
            raise FilterError(f"'sys.{name}' must be more than nothing")
        self.system[known] = self.changed_system[known] = value

    def set_user(self, name: str, value: Value) -> None:
        """The type of what is there already is kept if the value can be converted to it."""
        name = self.spelled(name)
        self._folded = None
        old = self.user.get(name)
        if old is not None:
            try:
                value = converted(value, type(old))
            except FilterError:
                pass  # Only "if possible"; the property then gets another type.
        self.changed_user[name] = value
        if value is None:
            self.user.pop(name, None)
        else:
            self.user[name] = value

    def copy(self) -> Letter:
        """For another rule's action; what one changes the other does not see."""
        return Letter(self.system, self.user)


def system_name(name: str) -> str:
    """As letters have it. Raises FilterError for a property that no message has."""
    known = SYSTEM_NAMES.get(name.lower())
    if known is None:
        raise FilterError(f"'sys.{name}' is not a system property")
    return known


__all__ = ["SYSTEM_NAMES", "FilterError", "Letter", "Value", "system_name"]
