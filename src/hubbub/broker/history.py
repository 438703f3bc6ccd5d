"""Duplicate detection: the message ids of the window that an entity looks back.

Not here: what is done with a message that was seen before (the waist), and how long the window is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..engine.log import Log, Put
from .message import Message


class History:
    """Message ids seen within the duplicate-detection window; a log keeps them over restarts."""

    __slots__ = ("_order", "_seen", "log")

    def __init__(self, log: Log) -> None:
        self.log = log
        self._seen: dict[str, int] = {}
        self._order: deque[tuple[int, str]] = deque()

    def load(self, since: int) -> None:
        sequence: int | None = self.log.find(since)
        while sequence is not None:
            records = self.log.read(sequence, 1000, 1 << 20)
            for record in records:
                self.add(record.payload.decode(), record.time)
            sequence = records[-1].sequence + 1 if records else None

    def seen(self, message_id: str, since: int) -> bool:
        order = self._order
        while order and order[0][0] < since:
            moment, old = order.popleft()
            if self._seen.get(old) == moment:
                del self._seen[old]
        return message_id in self._seen

    def add(self, message_id: str, now: int) -> None:
        self._seen[message_id] = now
        self._order.append((now, message_id))

    def remove(self, message_id: str) -> None:
        self._seen.pop(message_id, None)


def remember(history: History | None, messages: Sequence[Message], now: int, puts: list[Put]) -> None:
    """The ids of messages on their way to the disk count at once, or two in one flush would both pass."""
    if history is not None:
        for message in messages:
            history.add(message.message_id or "", now)
            puts.append(Put(history.log, (message.message_id or "").encode()))


def forget(history: History | None, messages: Sequence[Message]) -> None:
    """They did not get there."""
    if history is not None:
        for message in messages:
            history.remove(message.message_id or "")
