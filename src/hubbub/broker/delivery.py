"""What passes between a receiver and who receives from it: deliveries, waiters, and the terms of both.

Not here: which message is next (ledger, sessions), and what is written when (receiver).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, overload

from ..clock import Clock, Timer
from ..engine.log import EngineError, Record
from .entity import FOREVER
from .errors import Busy, SessionRequired
from .ledger import LOCKED, STATE_NAMES, Entry
from .message import Message, decode_message
from .numbering import number_of, partition_of


class Delivery(NamedTuple):
    """A message as a receiver sees it. Moments in ms."""

    sequence: int
    enqueued: int
    deliveries: int
    state: str
    locked_until: int
    token: bytes
    message: Message
    changes: bytes = b""
    """What receivers changed of its properties, as the door encoded it; to be merged into the message."""
    partition: int | None = None
    """Where a partitioned entity has it."""


Outcome = Delivery | Exception | None
Tokens = Callable[[], bytes]
Settled = Callable[[Exception | None], object]


class Terms(NamedTuple):
    """What the entity says about delivery; read anew at each use, because entities change."""

    lock_duration: int
    deliveries_max: int
    default_ttl: int
    dead_letter_on_expiration: bool
    source: str
    """The entity's path, as it stands in dead-lettered messages."""
    dead_letter_on_filter_error: bool = False
    requires_session: bool = False
    """Never changes."""
    session_state_bytes_max: int = 0
    """0: any."""
    partitioned: bool = False
    """Never changes either."""
    receives_max: int = 0
    """Who may wait at a time; 0: any number."""
    closed: str = ""
    """Why nobody may receive now; empty: they may."""


class Waiter:
    """One who waits, for a message or for a session. `cancel` when the client has gone: it will then get and
    lock nothing.

    `left` is asked before it gets anything: a client may be gone a moment before one hears of it.
    """

    __slots__ = ("_queue", "done", "left", "lock", "timer")

    def __init__(self, queue: OrderedDict[Waiter, None], lock: bool, done: Callable[[Any], object]) -> None:
        self._queue = queue
        self.lock = lock
        self.done = done
        self.left: Callable[[], bool] | None = None
        self.timer: Timer | None = None

    def wait(self, clock: Clock, until: int) -> Waiter:
        """Stands in the queue, up to a moment (FOREVER: for ever)."""
        if until < FOREVER:
            self.timer = clock.call_at(until, self.expire)
        self._queue[self] = None
        return self

    def cancel(self) -> None:
        self._queue.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()

    def expire(self) -> None:
        self.cancel()
        self.done(None)

    def fail(self, error: Exception) -> None:
        self.cancel()
        self.done(error)


def first_present(queue: OrderedDict[Waiter, None]) -> Waiter | None:
    """Who is next, after those who left."""
    while queue:
        waiter = next(iter(queue))
        if waiter.left is None or not waiter.left():
            return waiter
        waiter.cancel()
    return None


def only_by_session(path: str) -> SessionRequired:
    return SessionRequired(
        "It is not possible for an entity that requires sessions to create a non-sessionful message receiver:"
        f" '{path}'."
    )


def delivery_of(record: Record, entry: Entry, partitioned: bool) -> Delivery:
    """The message as it stands, with the number that clients know it by."""
    message = decode_message(record.payload)
    return Delivery(
        number_of(record.sequence, message) if partitioned else record.sequence,
        message.enqueued or record.time,
        entry.deliveries + message.deliveries,
        "Deferred" if entry.is_deferred else STATE_NAMES[entry.state],
        entry.until if entry.state == LOCKED else 0,
        entry.token,
        message,
        entry.changes or message.changes,
        partition_of(message) if partitioned else None,
    )


def reasons(message: Message) -> dict[str, str]:
    """What a dead letter says of itself among its user properties, in every protocol; {} for others."""
    if message.dead_letter_reason is None:
        return {}
    return {
        "DeadLetterReason": message.dead_letter_reason,
        "DeadLetterErrorDescription": message.dead_letter_description or "",
    }


def as_it_stands(record: Record, entry: Entry, partitioned: bool) -> Message:
    """The message with what its place knows of it: ready to be moved to another."""
    message = decode_message(record.payload)
    own = number_of(record.sequence, message) if partitioned else record.sequence
    message.enqueued_sequence = message.enqueued_sequence or own
    message.enqueued = message.enqueued or record.time
    message.deliveries += entry.deliveries
    message.changes = entry.changes or message.changes
    return message


@overload
def busy(error: EngineError) -> Busy: ...
@overload
def busy(error: EngineError | None) -> Busy | None: ...
def busy(error: EngineError | None) -> Busy | None:
    """An engine's failure in the words of the broker."""
    return None if error is None else Busy(f"{error}. Nothing has been changed; try again later")
