"""A topic at work: a copy of each message goes to every subscription, in the same append.

The topic's own log holds no messages; it only counts, so that sequence numbers go on after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from ..engine.log import Engine, EngineError, Log, Put
from .message import Message
from .receiver import History, Receiver, busy, forget, remember


class Fanout:
    __slots__ = ("_engine", "log", "rules", "subscriptions")

    def __init__(self, log: Log, engine: Engine) -> None:
        self.log = log
        self._engine = engine
        self.subscriptions: dict[str, Receiver] = {}
        self.rules: Counter[str] = Counter()
        """Rules per subscription. Each matches everything yet; without any, nothing is delivered."""

    def send(
        self,
        messages: Sequence[Message],
        history: History | None,
        now: int,
        done: Callable[[Exception | None], object],
    ) -> None:
        """Atomic over all messages and subscriptions. `done` as in Namespace.send."""
        log = self.log
        first = log.next
        puts = [Put(log, b"", len(messages))]
        noted: list[tuple[Receiver, list[int]]] = []
        for key, receiver in self.subscriptions.items():
            if not self.rules[key]:
                continue
            notes: list[int] = []
            for nth, message in enumerate(messages):
                copy = msgspec.structs.replace(message, enqueued_sequence=first + nth)
                receiver.enclose(copy, nth, now, puts, notes)
            noted.append((receiver, notes))
        remember(history, messages, now, puts)

        def appended(error: EngineError | None) -> None:
            for receiver, notes in noted:
                receiver.appended(notes, error)
            if error is not None:
                forget(history, messages)
            done(busy(error))

        trims = ((log, first),) if first > log.first else ()
        self._engine.append(puts, now, appended, trims=trims)
