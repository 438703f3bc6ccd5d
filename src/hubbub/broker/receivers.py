"""The receivers of a namespace: each queue and subscription has one for its messages, one for its dead
letters, and, once somebody needs it, one for what failed on its way through there to another entity.

Not here: what entities there are (the waist), and what a receiver does.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock
from ..engine.log import Engine, Log
from .delivery import Terms, Tokens
from .entity import Queue, Subscription
from .errors import Disabled
from .forwarding import Passage, aim
from .layout import DEAD_LETTERS, TRANSFER_DEAD_LETTERS, dead_letter_terms, owner_of, receiver_logs
from .receiver import Receiver


class Receivers(dict[str, Receiver]):
    """By path in lower case. `prefix` begins the names of their logs; `terms(key)` is what an entity says."""

    def __init__(
        self, prefix: str, engine: Engine, clock: Clock, tokens: Tokens, terms: Callable[[str], Terms]
    ) -> None:
        super().__init__()
        self._prefix = prefix
        self._engine = engine
        self._clock = clock
        self._tokens = tokens
        self._terms = terms
        self._stored = {log.name for log in engine.logs() if log.name.endswith(TRANSFER_DEAD_LETTERS)}

    def install(self, entity: Queue | Subscription) -> Receiver:
        """Those of a new entity. Returns the one of its messages."""
        key = entity.key
        dead = self._build(entity.path + "/$DeadLetterQueue", key, DEAD_LETTERS, None)
        live = self._build(entity.path, key, "", dead)
        if f"{self._prefix}{key}{TRANSFER_DEAD_LETTERS}" in self._stored:
            self.transfer_dead_letters(entity)
        return live

    def aim(self, entity: Queue | Subscription, passage: Passage, may: Callable[[], bool]) -> None:
        """Messages and dead letters go on as the entity says. `may()`: whether they may leave it."""
        aim(self[entity.key], entity.forward_to, passage, may)
        aim(self[entity.key + DEAD_LETTERS], entity.forward_dead_letters_to, passage, may)

    def transfer_dead_letters(self, entity: Queue | Subscription) -> Receiver:
        """Of messages that failed on their way through the entity to another."""
        found = self.get(entity.key + TRANSFER_DEAD_LETTERS)
        if found is None:
            path = entity.path + "/$Transfer/$DeadLetterQueue"
            found = self._build(path, entity.key, TRANSFER_DEAD_LETTERS, None)
            self[entity.key].transfer_dead_letters = found
        return found

    def of(self, key: str) -> list[Receiver]:
        """All that an entity has."""
        names = (key, key + DEAD_LETTERS, key + TRANSFER_DEAD_LETTERS)
        return [self[name] for name in names if name in self]

    def turn_away(self, key: str) -> None:
        """The entity has changed: if nobody may receive now, those who wait hear it."""
        for receiver in self.of(key):
            if closed := receiver.terms().closed:
                further = [] if receiver.sessions is None else receiver.sessions.all_waiting()
                for waiter in [*receiver.waiting, *further]:
                    waiter.fail(Disabled(closed))

    def knows(self, key: str) -> bool:
        """Whether one is there, or would be if it were needed."""
        return owner_of(key) in self

    def uninstall(self, key: str) -> None:
        """The entity is no more."""
        for name in (key, key + DEAD_LETTERS, key + TRANSFER_DEAD_LETTERS):
            if name in self:
                self.pop(name).stop()

    def further_logs(self, key: str) -> list[Log]:
        """Those that not every entity has."""
        found = self.get(key + TRANSFER_DEAD_LETTERS)
        return [] if found is None else [found.log, found.notes]

    def _build(self, path: str, key: str, part: str, dead: Receiver | None) -> Receiver:
        log, notes = (
            self._engine.open(self._prefix + name, first) for name, first in receiver_logs(key + part)
        )
        terms = self._terms

        def sub_queue() -> Terms:
            return dead_letter_terms(terms(key))

        receiver = self[key + part] = Receiver(
            path,
            self._engine,
            (log, notes),
            self._clock,
            sub_queue if part else lambda: terms(key),
            self._tokens,
            dead,
        )
        receiver.load()
        return receiver
