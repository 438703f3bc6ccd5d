"""Entities that go when nobody has used them for a while (AutoDeleteOnIdle). Pure.

Rules:
1. A queue is used by sends, receives and looks, by who waits for its messages or holds one, by changes of
   its description, and by scheduled messages. A topic is used by sends, changes, scheduled messages, and the
   use of its subscriptions. A subscription is used by receives, looks, changes and new rules, not by what
   comes.
2. Moments of use are in memory only: after a restart the time begins anew, so nothing goes too early.
3. Whether somebody waits is seen once in PERIOD. Who does has used it up to the next look.

Not here: how the entity goes (the waist).
"""

from __future__ import annotations

from collections.abc import Callable

from .entity import FOREVER, Entity, Queue, Subscription, Topic
from .ledger import SCHEDULED
from .receiver import Receiver
from .receivers import Receivers
from .topic import Fanout

PERIOD = 60_000
"""Milliseconds from one look to the next."""


class Idleness:
    """When what may become idle was last used, by key."""

    __slots__ = ("_lengths", "used")

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        """Moments, by key, of what is watched."""
        self._lengths: dict[str, int] = {}

    def watch(self, entity: Entity, now: int) -> None:
        """The entity is new, or not what it was: that is use of it and of what it belongs to."""
        if isinstance(entity, (Queue, Topic, Subscription)):
            key, length = entity.key, entity.auto_delete_on_idle
            self.forget(key)
            if length < FOREVER:
                self.used[key], self._lengths[key] = now, length
        if entity.parent:
            self.touch(entity.parent.lower(), now)

    def forget(self, key: str) -> None:
        """It is no more."""
        self.used.pop(key, None)
        self._lengths.pop(key, None)

    def touch(self, key: str, now: int) -> None:
        """It is used. Who is often there asks first whether anything is watched."""
        if key in self.used:
            self.used[key] = now
        above = key.rpartition("/subscriptions/")[0]
        if above in self.used:
            self.used[above] = now

    def idle(self, now: int, last_use: Callable[[str], int]) -> list[str]:
        """What has been idle for long enough. `last_use`: as `last_use_of` below."""
        found = []
        for key, length in self._lengths.items():
            self.used[key] = max(self.used[key], last_use(key))
            if now - self.used[key] >= length:
                found.append(key)
        return found

    def next(self, now: int) -> int:
        """When the first of the others will have been idle for long enough, if nobody uses it."""
        ends = (self.used[key] + length for key, length in self._lengths.items())
        return min((end for end in ends if end > now), default=FOREVER)


def last_use_of(key: str, receivers: Receivers, fanout: Fanout | None, now: int) -> int:
    """When something was last received there; ahead of now if it is in use. `fanout`: that of a topic."""
    below = [key] if fanout is None else list(fanout.subscriptions)
    found = [receiver for name in below for receiver in receivers.of(name)]
    waits_for_its_time = "/subscriptions/" not in key and any(map(_has_scheduled, found))
    if waits_for_its_time or any(receiver.in_use for receiver in found):
        return now + PERIOD
    return max((receiver.used for receiver in found), default=0)


def _has_scheduled(receiver: Receiver) -> bool:
    return receiver.ledger.numbers[SCHEDULED] > 0
