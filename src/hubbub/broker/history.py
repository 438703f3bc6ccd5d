"""Duplicate detection: the message ids of the window that an entity looks back.

Not here: what is done with a message that was seen before (the waist), and how long the window is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..engine.log import Log, Put
from .message import Message
from .numbering import key_of

FORGOTTEN_PER_MESSAGE = 8
"""Ids whose time is over that one look forgets: a million of one moment keep nobody waiting."""


class History:
    """Message ids seen within the duplicate-detection window; a log keeps them over restarts."""

    __slots__ = ("_order", "_partitioned", "_seen", "log")

    def __init__(self, log: Log, partitioned: bool) -> None:
        self.log = log
        self._partitioned = partitioned
        self._seen: dict[str, int] = {}
        self._order: deque[tuple[int, str]] = deque()

    def load(self, since: int) -> None:
        sequence: int | None = self.log.find(since)
        while sequence is not None:
            records = self.log.read(sequence, 1000, 1 << 20)
            for record in records:
                self.add(record.payload.decode(), record.time)
            sequence = records[-1].sequence + 1 if records else None

    def unseen(self, messages: Sequence[Message], since: int) -> Sequence[Message]:
        """Those that did not come before; of several that are the same, the first."""
        fresh: dict[str, Message] = {}
        for message in messages:
            identity = self.identity(message)
            if not self._knows(identity, since):
                fresh.setdefault(identity, message)
        return list(fresh.values())

    def identity(self, message: Message) -> str:
        """What makes two messages the same: their ids, and where it is partitioned their keys too."""
        key = key_of(message) if self._partitioned else ""
        return f"{message.message_id or ''}\0{key}" if key else message.message_id or ""

    def _knows(self, identity: str, since: int) -> bool:
        order = self._order
        for _ in range(FORGOTTEN_PER_MESSAGE):
            if not order or order[0][0] >= since:
                break
            moment, old = order.popleft()
            if self._seen.get(old) == moment:
                del self._seen[old]
        last = self._seen.get(identity)
        return last is not None and last >= since

    def add(self, identity: str, now: int) -> None:
        self._seen[identity] = now
        self._order.append((now, identity))

    def remove(self, identity: str) -> None:
        self._seen.pop(identity, None)


def remember(history: History | None, messages: Sequence[Message], now: int, puts: list[Put]) -> None:
    """The ids of messages on their way to the disk count at once, or two in one flush would both pass."""
    if history is not None:
        for message in messages:
            identity = history.identity(message)
            history.add(identity, now)
            puts.append(Put(history.log, identity.encode()))


def forget(history: History | None, messages: Sequence[Message]) -> None:
    """They did not get there."""
    if history is not None:
        for message in messages:
            history.remove(history.identity(message))
