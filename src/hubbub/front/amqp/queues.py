"""Service Bus over AMQP: links that send to queues and topics, and links that receive (reference 4.2 to 4.5).

A receiving link asks the broker for as many messages as it has credit, one waiter at a time; what comes is
locked, or deleted first if the client settles first. Locks outlive the link; only time ends them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...broker.constraints import message_bytes_max
from ...broker.delivery import Settled
from ...broker.entity import FOREVER, Queue, Topic
from ...broker.errors import BrokerError, Invalid, LockLost, SessionLockLost, TooLarge
from ...broker.ledger import Entry
from ...broker.message import Message
from ...broker.receiver import Delivery, Outcome, Waiter
from ...broker.receiver import Receiver as Source
from ...broker.sessions import SessionLock
from ...broker.transaction import Step
from ...wire.amqp.delivery import Delivery as Arrived
from ...wire.amqp.delivery import Sent
from ...wire.amqp.link import Sender
from ...wire.amqp.performatives import Accepted, Modified, Rejected, Released, State, TransactionalState
from .errors import error_of
from .incoming import Done, Incoming
from .messages import encode_delivery, merged, messages_of, tag_of

if TYPE_CHECKING:
    from .peer import Peer

CREDIT = 1000
TURN_MAX = 256
"""Deliveries to one link before the others have their turn."""
DEAD_LETTER = "com.microsoft:dead-letter"
TEXT_CHARS_MAX = 4096


class Sending(Incoming):
    """Messages that come on one link, for a queue or topic; perhaps by way of another."""

    def __init__(self, entity: Queue | Topic, way: str = "") -> None:
        self.entity = entity
        self._way = way

    def path(self) -> str:
        return self.entity.path

    def take(self, peer: Peer, delivery: Arrived, done: Done) -> int:
        now = peer.now()
        messages = self._messages(peer, delivery, now)
        self._send(peer, messages, now, done)
        return len(messages)

    def _send(self, peer: Peer, messages: list[Message], now: int, done: Done) -> None:
        if self._way:
            peer.namespace.send_by_way(self._way, self.entity.path, messages, now, done)
        else:
            peer.namespace.send(self.entity.path, messages, now, done)

    def step(self, peer: Peer, delivery: Arrived) -> Step:
        messages = self._messages(peer, delivery, peer.now())

        def send(done: Settled) -> None:
            self._send(peer, messages, peer.now(), done)
            peer.count(self.entity.path, "incoming_messages", len(messages))

        return send

    def _messages(self, peer: Peer, delivery: Arrived, now: int) -> list[Message]:
        messages = messages_of(delivery.payload, delivery.format, now, peer.namespace.limits)
        check(messages, self.size_max(peer))
        return messages

    def renewed(self, entity: object) -> bool:
        """Takes over a changed description. False if the entity is gone, or another of the same name."""
        same = isinstance(entity, (Queue, Topic)) and entity.created == self.entity.created
        if same:
            self.entity = entity  # type: ignore[assignment]
        return same

    def size_max(self, peer: Peer) -> int:
        """Bytes a message may have; 0: any."""
        return message_bytes_max(self.entity, peer.namespace.limits)


def check(messages: Sequence[Message], size_max: int) -> None:
    """Raises Invalid, TooLarge."""
    size = sum(len(message.payload) for message in messages)
    if size > size_max > 0:
        raise TooLarge(size, size_max)
    for message in messages:
        if message.session_id and message.partition_key not in (None, message.session_id):
            raise Invalid("The partition key and the session id of a message must be the same.")


class Receiving:
    """One client that receives from a queue, a subscription or a dead-letter queue, or a session of one.

    `giver` is where its messages come from: the source itself, or the lock of a session.
    """

    def __init__(
        self, peer: Peer, link: Sender, source: Source, giver: Source | SessionLock | None = None
    ) -> None:
        self.peer = peer
        self.link = link
        self.source = source
        self.giver = giver or source
        self.locks = link.snd_settle_mode != 1
        self._waiter: Waiter | None = None
        self._asked = 0
        """Messages that were asked for and have not come: awaited, or being deleted first."""
        self._due = False
        self._pumping = False
        self._gone = False

    # What the client asks for.

    def flow(self) -> None:
        if self.link.credit < self._asked:
            self._stop_waiting()
        self.pump()

    def gone(self) -> None:
        """What was locked and has not left yet is free again; other locks live on."""
        self._gone = True
        self._stop_waiting()
        for sent in self.link.withdraw():
            self._return(sent.context)

    def pump(self) -> None:
        """Sends what there is, a bounded piece at a time."""
        if self._due or self._pumping or self._gone:
            return
        self._pumping = True
        for _ in range(TURN_MAX):
            if not self._ask():
                break
        else:
            self._due = True
            self.peer.soon(self._again)
        self._pumping = False
        if self.link.draining and not self._due:
            self._stop_waiting()
            if not self._asked:
                self.link.drained()

    def _again(self) -> None:
        self._due = False
        self.pump()

    def _ask(self) -> bool:
        """Asks for one message. False if nothing more is to be had now."""
        if self._waits() or self.link.credit <= self._asked:
            return False
        if not self.peer.writable:
            self.peer.when_writable(self.pump)
            return False
        self._asked += 1
        self._waiter = self.giver.receive(self.locks, FOREVER, self._got)
        if self._waiter is None:
            return True
        self._waiter.left = self._has_left
        return False

    def _has_left(self) -> bool:
        return self._gone or not self.link.attached

    def _waits(self) -> bool:
        return self._waiter is not None and self._waiter in self.giver.waiting

    def _stop_waiting(self) -> None:
        if self._waiter is not None and self._waits():
            self._waiter.cancel()
            self._asked -= 1
        self._waiter = None

    # What the broker gives.

    def _got(self, outcome: Outcome) -> None:
        self._asked -= 1
        if isinstance(outcome, Delivery):
            self._send(outcome)
            if not self._pumping:
                self.pump()
        elif outcome is not None:
            error = error_of(outcome)
            self.link.detach(error.condition, error.description or "")
            self.peer.drop(self.link)
        # None: the entity is going, and whoever deletes it detaches the link.

    def _send(self, delivery: Delivery) -> None:
        link = self.link
        if not link.attached:
            self._return(delivery.token)
            return
        payload = encode_delivery(delivery, self.source.terms().default_ttl, delivery.deliveries - 1)
        if self.locks:
            link.send(payload, tag_of(delivery.token), context=delivery.token)
        else:
            link.send(payload, b"%x" % delivery.sequence, settled=True)
        self.peer.count(self.source.path, "outgoing_messages", 1)

    # What the client says of what it got.

    def disposition(self, deliveries: Sequence[Sent], state: State | None, settled: bool) -> None:
        for sent in deliveries:
            self._settle(sent, state, settled)

    def _settle(self, sent: Sent, state: State | None, settled: bool) -> None:
        if isinstance(state, TransactionalState):
            self._enlist(sent, state, settled)
            return

        def done(error: Exception | None) -> None:
            if settled:
                self.peer.settled()
                return
            answer = _answer(state) if error is None else Rejected(error_of(error))
            self.link.settle(sent, answer)

        if settled:
            self.peer.settling()
        try:
            entry = self.giver.holder(sent.context)
            _apply(self.source, entry, state, done)
        except BrokerError as error:
            done(error)

    def _enlist(self, sent: Sent, state: TransactionalState, settled: bool) -> None:
        """The outcome becomes part of a transaction; until then the lock must hold."""

        def settle(done: Settled) -> None:
            _apply(self.source, self.giver.holder(sent.context), state.outcome, done)

        answer: State = TransactionalState(state.txn_id, _answer(state.outcome))
        try:
            self.giver.holder(sent.context)
            self.peer.transactions.add(state.txn_id, settle)
        except BrokerError as error:
            answer = Rejected(error_of(error))
        if not settled:
            self.link.settle(sent, answer)

    def _return(self, token: bytes | None) -> None:
        if token:
            with contextlib.suppress(LockLost, SessionLockLost):
                self.source.give_back(self.giver.holder(token), _ignore)


def _apply(source: Source, entry: Entry, state: State | None, done: Settled) -> None:
    """What each outcome means (AMQP reference 4.5). Raises Invalid for one that has no meaning here."""
    if isinstance(state, Accepted):
        source.complete(entry, done)
    elif isinstance(state, Released):
        source.give_back(entry, done)
    elif isinstance(state, Modified):
        settle = source.defer if state.undeliverable_here else source.unlock
        settle(entry, done, merged(entry, state.message_annotations))
    elif isinstance(state, Rejected):
        reason, description, properties = _reason(state)
        source.dead_letter(entry, reason, description, done, merged(entry, properties))
    else:
        raise Invalid("The outcome must be accepted, released, modified or rejected.")


def _reason(state: Rejected) -> tuple[str, str, dict[Any, Any]]:
    """Reason, description, and what else is to stand in the properties of the dead letter."""
    error = state.error
    if error is None:
        return "", "", {}
    info = {str(name): value for name, value in (error.info or {}).items()}
    reason = info.pop("DeadLetterReason", None)
    description = info.pop("DeadLetterErrorDescription", error.description)
    if error.condition != DEAD_LETTER and reason is None:
        reason = error.condition
    return str(reason or "")[:TEXT_CHARS_MAX], str(description or "")[:TEXT_CHARS_MAX], info


def _answer(state: State | None) -> State | None:
    """The same kind of outcome; a rejection without its error, or it would mean that this failed."""
    return Rejected() if isinstance(state, Rejected) else state


def _ignore(error: Exception | None) -> None:
    """The lock ends by itself."""
