"""What a client wants done together: sends and settlements that happen all at once, or not at all.

Nothing of a transaction happens before it commits. Until then its steps are only remembered, so what it would
settle stays locked, for as long as the locks last, and a roll-back is to forget them.

Not here: which transaction a step belongs to, and how long it may take (the doors).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from .delivery import Settled
from .errors import BrokerError, QuotaExceeded

STEPS_MAX = 100
"""As many messages as the service takes in one transaction."""

Step = Callable[[Settled], object]
"""Does one thing and calls back once, when it is durable or refused; it may also raise what refuses it."""


class Transaction:
    """Steps in their order. `size_bytes` is what they hold in memory."""

    __slots__ = ("_steps", "size_bytes")

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self.size_bytes = 0

    def add(self, step: Step, size_bytes: int = 0) -> None:
        """Raises QuotaExceeded."""
        if len(self._steps) >= STEPS_MAX:
            raise QuotaExceeded(f"A transaction can have at most {STEPS_MAX} messages. Commit it earlier.")
        self._steps.append(step)
        self.size_bytes += size_bytes

    def commit(self, together: Callable[[], AbstractContextManager[None]], done: Settled) -> None:
        """Takes the steps in one append (`together` is the engine's). `done` gets None when all of them are
        durable, or why none of them happened."""
        commit = _Commit(len(self._steps), done)
        try:
            with together():
                for step in self._steps:
                    step(commit.stepped)
                    if commit.refusal is not None:
                        raise commit.refusal
        except BrokerError as error:
            done(error)
        else:
            commit.submitted()


class _Commit:
    """Waits for all steps, of which some may call back at once."""

    __slots__ = ("_done", "_left", "refusal")

    def __init__(self, steps: int, done: Settled) -> None:
        self._left = steps + 1
        self._done = done
        self.refusal: Exception | None = None

    def stepped(self, error: Exception | None) -> None:
        self.refusal = self.refusal or error
        self._count()

    def submitted(self) -> None:
        self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._done(self.refusal)
