"""Deliveries that a client sends: each is answered once, when what it holds is durable or refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...broker.errors import Invalid
from ...broker.transaction import Step
from ...wire.amqp.delivery import Delivery
from ...wire.amqp.link import Receiver
from ...wire.amqp.performatives import ACCEPTED, Rejected, State, TransactionalState
from .errors import error_of, is_ours

if TYPE_CHECKING:
    from .peer import Peer

log = logging.getLogger("hubbub.amqp")
Done = Callable[[Exception | None], object]


class Incoming:
    """What the client sends to one node."""

    def take(self, peer: Peer, delivery: Delivery, done: Done) -> int:
        """Stores it and calls `done` once it is durable; returns how many messages it is.

        Raises what there is to say against it; `done` is not called then.
        """
        raise NotImplementedError

    def step(self, peer: Peer, delivery: Delivery) -> Step:
        """The same as part of a transaction: what is to be done when it commits. Raises as `take`."""
        raise Invalid("Events of an event hub cannot be sent in a transaction.")

    def path(self) -> str:
        """The entity under which it is counted."""
        raise NotImplementedError

    def delivery(self, peer: Peer, link: Receiver, delivery: Delivery) -> None:
        if isinstance(delivery.state, TransactionalState):
            self._enlist(peer, link, delivery, delivery.state.txn_id)
            return

        def done(error: Exception | None) -> None:
            peer.release(len(delivery.payload))
            if not delivery.settled:
                if error is None:
                    link.settle(delivery)
                else:
                    link.settle(delivery, Rejected(error_of(error)))

        peer.hold(len(delivery.payload))
        try:
            count = self.take(peer, delivery, done)
        except Exception as error:
            if is_ours(error):
                log.exception("a delivery failed")
            done(error)
        else:
            peer.count(self.path(), "incoming_messages", count)

    def _enlist(self, peer: Peer, link: Receiver, delivery: Delivery, transaction: bytes) -> None:
        """It is answered at once, though nothing has happened yet: the discharge tells how it ended."""
        answer: State = TransactionalState(transaction, ACCEPTED)
        try:
            peer.transactions.add(transaction, self.step(peer, delivery), len(delivery.payload))
        except Exception as error:
            if is_ours(error):
                log.exception("a delivery failed")
            answer = Rejected(error_of(error))
        link.settle(delivery, answer)
