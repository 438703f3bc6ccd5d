"""The engine contract: logs of records, and nothing else.

An engine stores bytes in named logs. It does not know what a message is. All logs of an engine share
one journal, so one `append` may touch many logs and is still all or nothing.

Rules every engine keeps (one contract suite runs against each):

1. `append` takes effect in the order of the calls. Sequences are given out at the call; `done` is
   called, in the same order, on the event loop's thread, when the whole append is durable, or with the
   reason why none of it is.
2. When an append fails, every append called after it that is not yet durable fails too, and the
   sequences given out to them are taken back (`Log.next` returns to `Log.durable`).
3. Nothing is readable before it is durable: reads see sequences below `Log.durable` only.
4. A record spans `count` consecutive sequences (a batch is one record). Reads return whole records.
5. Records die one by one (`dead`), from the front (`trim`), or with their log (`drops`); the space of
   the dead comes back, whatever single old records stay alive.
6. A log's sequence never goes back, not even when all its records are gone.
7. What is read is checked: bytes that are not those that were appended raise `Corrupt`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class EngineError(Exception):
    """The engine could not do what was asked."""


class Full(EngineError):
    """No space is left for more records; try again when there is some."""


class Closed(EngineError):
    """The engine has been closed."""


class Owned(EngineError):
    """Another process owns this data."""


class Undone(EngineError):
    """It was part of a whole that did not come to be."""


class Corrupt(EngineError):
    """Stored bytes are not what was written; the text names the file and the offset."""


class Record(NamedTuple):
    """What a log returns: `count` sequences from `sequence` on, appended at `time` (ms since 1970)."""

    sequence: int
    count: int  # type: ignore[assignment]
    time: int
    payload: bytes


Done = Callable[[EngineError | None], object]


class Log(Protocol):
    """An append-only sequence of records with one writer. Reading is synchronous and comes from memory
    or the page cache."""

    @property
    def name(self) -> str: ...

    @property
    def first(self) -> int:
        """The lowest sequence that may still be alive; equals `durable` when the log is empty."""

    @property
    def durable(self) -> int:
        """One past the last durable sequence."""

    @property
    def next(self) -> int:
        """The sequence the next append will get."""

    @property
    def count(self) -> int:
        """How many durable sequences are alive."""

    @property
    def bytes(self) -> int:
        """Payload bytes of the live records (a record counts whole while one of its sequences lives)."""

    def get(self, sequence: int) -> Record | None:
        """The record that holds `sequence`; None if dead, trimmed or not durable yet. Raises Corrupt."""

    def alive(self, sequence: int) -> bool:
        """Whether `get` would find it."""

    def next_alive(self, sequence: int) -> int | None:
        """The lowest live durable sequence at or after `sequence`. Cheap over long dead stretches."""

    def read(self, start: int, count_max: int, bytes_max: int) -> list[Record]:
        """Live records in order, the first being the one that holds or follows `start`. At least one if
        there is any, then no more than `count_max` records and about `bytes_max` bytes."""

    def find(self, time: int) -> int:
        """The first live sequence appended at or after `time`; `durable` if there is none."""

    def keep(self, bytes_max: int) -> int:
        """The lowest sequence from which on the log holds no more than about `bytes_max` bytes."""


class Put(NamedTuple):
    """One record to append: `count` sequences share `payload`."""

    log: Log
    payload: bytes
    count: int = 1  # type: ignore[assignment]


class Engine(Protocol):
    """A set of logs with one owner. Opening the engine takes ownership (raises Owned)."""

    def open(self, name: str, first: int = 0) -> Log:
        """The log of that name. A new one starts at sequence `first` and becomes durable with the next
        append. Never waits."""

    def logs(self) -> Iterator[Log]:
        """All logs that exist."""

    def append(
        self,
        puts: Sequence[Put],
        now: int,
        done: Done,
        *,
        dead: Sequence[tuple[Log, int]] = (),
        trims: Sequence[tuple[Log, int]] = (),
        drops: Sequence[Log] = (),
    ) -> None:
        """Append records, bury single sequences, trim logs (below a sequence) and drop logs, all or none.

        Dead sequences, trims and drops take effect when durable. Raises Closed at once; every other
        failure goes to `done`.
        """

    def together(self) -> AbstractContextManager[None]:
        """What is appended inside is one append: durable at once, or not at all. Nothing may be awaited
        inside. Sequences are given out as ever; when an exception leaves, they are taken back, and every
        `done` gets Undone before the exception goes on. Inside another, it can fail by itself, and
        otherwise belongs to the other."""

    async def close(self) -> None:
        """Flush what waits, then give up ownership. Idempotent."""
