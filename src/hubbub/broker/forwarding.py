"""Auto-forwarding: what comes to a queue or subscription goes on by itself, and so do its dead letters.

Rules:
1. A message is in one place: its end here and all that becomes of it there are one append. One that has just
   come leaves nothing behind but the sequence number it got.
2. It goes on as if it were sent there: duplicate detection, rules, copies and times to live are the target's;
   sequence number, moment and deliveries are new. Only `enqueued_sequence` keeps the first number.
3. Each forward is a hop. After HOPS_MAX of them a message goes no further, which ends every loop.
4. A message that cannot go on becomes a dead letter of where it is. A dead letter that cannot go on stays,
   and is tried again when an entity changes, or after RETRY.
5. What is scheduled, locked or deferred goes once it is available. Nobody else can receive there.

Not here: what entities may name as targets (constraints), and whether a target takes a message (the waist).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..clock import Timer
from ..engine.log import Done as Appended
from ..engine.log import Engine, EngineError, Log, Put
from .deadletters import dead_letter
from .delivery import as_it_stands
from .entity import FOREVER, forward_path
from .errors import BrokerError, Disabled, NotFound, QuotaExceeded, SessionRequired
from .ledger import Entry
from .message import Message, encode_message
from .numbering import number_of

if TYPE_CHECKING:
    from .receiver import Receiver

HOPS_MAX = 4
BATCH, BATCH_BYTES_MAX = 64, 1 << 20
"""Messages that go on in one append, at most."""
DIRECT_MAX = 100
"""Messages that go on in the append they came with, all hops together. Subscriptions that forward to topics
multiply them: the rest goes on by and by, so that others have their turn."""
RETRY = 2000
"""Milliseconds until what could not go on is tried again."""

Send = Callable[[str, Sequence[Message], int, Callable[[Exception | None], object]], object]


class TooManyHops(BrokerError):
    """The message has been forwarded too often."""

    def __init__(self) -> None:
        super().__init__("Maximum transfer hop count is exceeded.")


_REASONS: tuple[tuple[type[BrokerError], str], ...] = (
    (TooManyHops, "MaxTransferHopCountExceeded"),
    (SessionRequired, "Session ID is null."),
    (NotFound, "MessagingEntityNotFoundException"),
    (Disabled, "MessagingEntityDisabledException"),
    (QuotaExceeded, "QuotaExceededException"),
)
_OF_ONE_MESSAGE = (TooManyHops, SessionRequired)
"""Refusals that say nothing about other messages."""


class Passage:
    """What the forwarders of a namespace share. `send` is how its clients send."""

    __slots__ = ("_depth", "_left", "_send", "blocked", "stuck")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._depth = 0
        self._left = DIRECT_MAX
        self.blocked: dict[Forwarder, None] = {}
        """Those that wait for something to change."""
        self.stuck: dict[Forwarder, None] = {}
        """Those with dead letters that another target of the same name may take."""

    @property
    def direct(self) -> bool:
        """Whether what comes may go on at once."""
        return self._left > 0

    def resume(self) -> None:
        """An entity is not what it was: what waits may be able to go on."""
        for forwarder in list(self.stuck):
            forwarder.release()
        for forwarder in list(self.blocked):
            forwarder.resume()

    def go(self, forwarder: Forwarder, messages: Sequence[Message], now: int) -> None:
        """Messages go on in the append they came with."""
        self._left -= len(messages)
        self._depth += 1
        try:
            forwarder.bury(self.reach(forwarder.target, messages, now), now)
        finally:
            self._depth -= 1
            if not self._depth:
                self._left = DIRECT_MAX

    def reach(self, target: str, messages: Sequence[Message], now: int) -> list[tuple[Message, BrokerError]]:
        """Sends them on as they are given here. Returns those that cannot go, and why."""
        refused: list[tuple[Message, BrokerError]] = [
            (message, TooManyHops()) for message in messages if message.hops >= HOPS_MAX
        ]
        fresh = [message for message in messages if message.hops < HOPS_MAX]
        if not fresh:
            return refused
        try:
            self._send(target, [_onward(message) for message in fresh], now, _ignore)
        except SessionRequired as error:
            if len(fresh) > 1:
                return refused + [found for message in fresh for found in self.reach(target, [message], now)]
            refused.append((fresh[0], error))
        except BrokerError as error:
            refused += [(message, error) for message in fresh]
        return refused


class Forwarder:
    """Sends on what is in one receiver. `may()`: whether messages may leave it now."""

    __slots__ = (
        "_count",
        "_going",
        "_may",
        "_passage",
        "_receiver",
        "_stopped",
        "_stuck",
        "_timer",
        "target",
    )

    def __init__(self, receiver: Receiver, passage: Passage, may: Callable[[], bool], target: str) -> None:
        self._receiver = receiver
        self._passage = passage
        self._may = may
        self.target = target
        self._going = False
        self._count = BATCH
        """How many go together; one, to find out whether they can."""
        self._stopped = False
        self._stuck: list[Entry] = []
        """Dead letters that will never go; reserved, so that they are not looked at again and again."""
        self._timer: Timer | None = None
        passage.blocked[self] = None

    def stop(self) -> None:
        """Messages stay from now on."""
        self._stopped = True
        self._passage.blocked.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        self.release()

    def release(self) -> None:
        """What is stuck may be looked at again."""
        self._passage.stuck.pop(self, None)
        stuck, self._stuck = self._stuck, []
        for entry in stuck:
            self._receiver.unclaim(entry)
        self.pump()

    def takes(self, message: Message, now: int) -> bool:
        """Whether a message that comes now goes on in the same append. Dead letters follow a moment later."""
        return (
            self._receiver.dead_letters is not None
            and (message.scheduled is None or message.scheduled <= now)
            and self._passage.direct
            and self._may()
            and self._receiver.ledger.next_available(now) is None
        )

    def go(self, messages: Sequence[Message], now: int) -> None:
        """What `takes` said yes to, inside `together`."""
        default_ttl = self._receiver.terms().default_ttl
        self._passage.go(self, [_limited(message, default_ttl) for message in messages], now)

    def bury(self, refused: Sequence[tuple[Message, BrokerError]], now: int) -> None:
        """They become dead letters, as a part of what is being appended."""
        if refused and self._receiver.dead_letters is not None:
            bury(self._receiver.dead_letters, self._receiver.terms().source, refused, now, _ignore)

    # What lies there already.

    def resume(self) -> None:
        """Tries again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._going:
            self._passage.blocked.pop(self, None)
            self.pump()

    def pump(self) -> None:
        """Something may have become available."""
        if self._going or self._stopped or self in self._passage.blocked:
            return
        if not self._may():
            self._passage.blocked[self] = None
            return
        now = self._receiver.clock.now()
        try:
            taken = self._take(now)
            if taken:
                self._go(taken, now)
        except EngineError:
            self._wait()

    def _take(self, now: int) -> list[tuple[Entry, Message]]:
        """The next ones, reserved. Raises Corrupt if the first cannot be read."""
        receiver = self._receiver
        default_ttl = receiver.terms().default_ttl
        taken: list[tuple[Entry, Message]] = []
        size = 0
        while len(taken) < self._count and size < BATCH_BYTES_MAX:
            sequence = receiver.ledger.next_available(now)
            if sequence is None:
                break
            try:
                record = receiver.log.get(sequence)
            except EngineError:
                if taken:
                    break
                raise
            assert record is not None
            entry = receiver.ledger.take(sequence)
            message = as_it_stands(record, entry, receiver.partitioned)
            taken.append((entry, _limited(message, default_ttl)))
            size += len(record.payload)
        return taken

    def _go(self, taken: Sequence[tuple[Entry, Message]], now: int) -> None:
        """Raises EngineError, and then nothing has changed."""
        receiver = self._receiver
        going = [entry for entry, _ in taken]
        notes = [entry.note for entry in going]

        def gone(error: EngineError | None) -> None:
            self._going = False
            self._count = BATCH if error is None else 1
            for entry, note in zip(going, notes, strict=True):
                if error is None:
                    receiver.forget(entry, note)
                else:
                    receiver.unclaim(entry)
            if error is not None:
                self._wait()
            receiver.pump()  # Which may not forward any more.

        try:
            with receiver.engine.together():
                refused = self._passage.reach(self.target, [message for _, message in taken], now)
                if receiver.dead_letters is not None:
                    self.bury(refused, now)
                elif refused:
                    going = self._keep(taken, refused)
                    notes = [entry.note for entry in going]
                graves = [grave for entry in going for grave in receiver.graves(entry)]
                self._going = bool(graves)
                if graves:
                    receiver.engine.append([], now, gone, dead=graves)
        except EngineError:
            self._going = False
            for entry, _ in taken:
                receiver.unclaim(entry)
            raise

    def _keep(
        self, taken: Sequence[tuple[Entry, Message]], refused: Sequence[tuple[Message, BrokerError]]
    ) -> list[Entry]:
        """Dead letters that cannot go on stay. Returns the others."""
        reasons = {id(message): error for message, error in refused}
        going = []
        for entry, message in taken:
            error = reasons.get(id(message))
            if error is None:
                going.append(entry)
            elif isinstance(error, _OF_ONE_MESSAGE):
                self._stuck.append(entry)
                if isinstance(error, SessionRequired):
                    self._passage.stuck[self] = None
            else:
                self._receiver.unclaim(entry)
                self._wait()
        return going

    def _wait(self) -> None:
        if self._timer is None and not self._stopped:
            self._passage.blocked[self] = None
            self._count = 1
            clock = self._receiver.clock
            self._timer = clock.call_at(clock.now() + RETRY, self.resume)


class Arrival:
    """Messages that come to receivers in one append; those that go on from there do so in the same."""

    __slots__ = ("_dead", "_encoded", "_going", "_noted", "now", "puts")

    def __init__(self, now: int) -> None:
        self.now = now
        self.puts: list[Put] = []
        self._noted: list[tuple[Receiver, list[int]]] = []
        self._going: list[tuple[Forwarder, list[Message]]] | None = None
        self._dead: list[tuple[Log, int]] = []
        self._encoded: dict[int, tuple[Message, bytes]] = {}
        """By identity, so that a message is encoded once, wherever it comes to. It is kept, or another could
        take over its identity."""

    def add(self, receiver: Receiver, messages: Sequence[Message]) -> None:
        """Once for each receiver."""
        notes: list[int] = []
        self._noted.append((receiver, notes))
        if receiver.forwarder is not None:
            self._pass(receiver, receiver.forwarder, messages, notes)
            return
        for nth, message in enumerate(messages):
            receiver.enclose(message, self._record(message), nth, self.now, self.puts, notes)

    def _pass(
        self, receiver: Receiver, forwarder: Forwarder, messages: Sequence[Message], notes: list[int]
    ) -> None:
        going: list[Message] = []
        for nth, message in enumerate(messages):
            if not forwarder.takes(message, self.now):
                receiver.enclose(message, self._record(message), nth, self.now, self.puts, notes)
                continue
            sequence = receiver.log.next + nth
            self.puts.append(Put(receiver.log, b""))
            self._dead.append((receiver.log, sequence))
            own = number_of(sequence, message) if receiver.partitioned else sequence
            first = message.enqueued_sequence or own
            going.append(msgspec.structs.replace(message, enqueued_sequence=first))
        if going:
            self._going = [*(self._going or ()), (forwarder, going)]

    def _record(self, message: Message) -> bytes:
        known = self._encoded.get(id(message))
        if known is None:
            known = self._encoded[id(message)] = message, encode_message(message)
        return known[1]

    def append(self, engine: Engine, done: Appended, trims: Sequence[tuple[Log, int]] = ()) -> None:
        """`done` hears of it when receivers have."""
        noted, now = self._noted, self.now

        def appended(error: EngineError | None) -> None:
            for receiver, notes in noted:
                receiver.appended(notes, error)
            done(error)

        if self._going is None:
            engine.append(self.puts, now, appended, trims=trims)
            return
        with engine.together():
            engine.append(self.puts, now, appended, dead=self._dead, trims=trims)
            for forwarder, messages in self._going:
                forwarder.go(messages, now)


def bury(
    target: Receiver,
    source: str,
    refused: Sequence[tuple[Message, BrokerError]],
    now: int,
    done: Callable[[EngineError | None], object],
) -> None:
    """Messages that cannot go on from `source` become dead letters, with the reason."""
    arrival = Arrival(now)
    arrival.add(target, [dead_letter(message, source, *_reason(error)) for message, error in refused])
    arrival.append(target.engine, done)


def aim(receiver: Receiver, address: str, passage: Passage, may: Callable[[], bool]) -> None:
    """From now on what is in the receiver goes to that address; "": it stays. Who waits there hears None."""
    target = forward_path(address).lower()
    old = receiver.forwarder
    if old is not None and old.target == target:
        return
    if old is not None:
        old.stop()
    receiver.forwarder = Forwarder(receiver, passage, may, target) if target else None
    if target:
        for waiter in list(receiver.waiting):
            waiter.expire()
    else:
        receiver.pump()


def _limited(message: Message, default_ttl: int) -> Message:
    """A time to live over the entity's default becomes that when the message is enqueued there."""
    ttl = min(message.ttl or FOREVER, default_ttl)
    if ttl < FOREVER:
        message.ttl = ttl
    return message


def _onward(message: Message) -> Message:
    """As it comes to the target."""
    return msgspec.structs.replace(message, hops=message.hops + 1, deliveries=0, enqueued=None)


def _reason(error: BrokerError) -> tuple[str, str]:
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), type(error).__name__)
    return reason, str(error).removeprefix("SubCode=41000. ")


def _ignore(error: Exception | None) -> None:
    """Whoever appended the whole hears of it."""
