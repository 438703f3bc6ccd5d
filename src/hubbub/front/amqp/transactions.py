"""Transactions over AMQP: the coordinator, and the transactions of one connection (AMQP reference 4.10).

A transaction is known on the connection that declared it, on all of its sessions, and goes with it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from ...broker.errors import Busy, QuotaExceeded
from ...broker.transaction import Step, Transaction
from ...chance import guid_bytes
from ...clock import Timer
from ...wire.amqp.delivery import Delivery
from ...wire.amqp.link import Receiver
from ...wire.amqp.message import section_value, split
from ...wire.amqp.performatives import (
    ACCEPTED,
    Composite,
    Declare,
    Declared,
    Discharge,
    Rejected,
    composite,
)
from ...wire.amqp.types import DecodeError, Described
from .errors import RolledBack, TransactionTimeout, UnknownTransaction, error_of, is_ours

if TYPE_CHECKING:
    from .peer import Peer

log = logging.getLogger("hubbub.amqp")

CREDIT = 100
TRANSACTIONS_MAX = 100
"""Open ones of one connection."""
BYTES_MAX = 64 << 20
"""What the open transactions of one connection may hold."""
TIME_MAX = 120_000
"""How long a transaction may stay open, ms."""


class Transactions:
    """The open transactions of one connection, by id."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._open: dict[bytes, tuple[Transaction, Timer]] = {}
        self._late: set[bytes] = set()
        """Those whose time was over before they were discharged."""
        self._size_bytes = 0

    def declare(self) -> bytes:
        """Raises QuotaExceeded."""
        if len(self._open) + len(self._late) >= TRANSACTIONS_MAX:
            raise QuotaExceeded(
                f"The connection has {TRANSACTIONS_MAX} open transactions; it cannot have more."
            )
        id = guid_bytes()
        clock = self._peer.server.clock
        timer = clock.call_at(clock.now() + TIME_MAX, partial(self._expire, id))
        self._open[id] = Transaction(), timer
        return id

    def add(self, id: bytes, step: Step, size_bytes: int = 0) -> None:
        """Raises UnknownTransaction, TransactionTimeout, QuotaExceeded, Busy."""
        if id not in self._open:
            raise self._missing(id)
        if size_bytes and self._size_bytes + size_bytes > BYTES_MAX:
            raise QuotaExceeded(f"Open transactions of one connection can hold at most {BYTES_MAX} bytes.")
        if size_bytes and self._peer.server.crowded:
            raise Busy("The server holds as many bytes for its clients as it may; try again later")
        self._open[id][0].add(step, size_bytes)
        self._hold(size_bytes)

    def discharge(self, id: bytes) -> Transaction:
        """It is open no longer. Raises UnknownTransaction, TransactionTimeout."""
        if id not in self._open:
            error = self._missing(id)
            self._late.discard(id)
            raise error
        transaction, timer = self._open.pop(id)
        timer.cancel()
        self._hold(-transaction.size_bytes)
        return transaction

    def forget(self) -> None:
        """The connection is gone: all of them are rolled back."""
        for id in list(self._open):
            self.discharge(id)
        self._late.clear()

    def _expire(self, id: bytes) -> None:
        self.discharge(id)
        self._late.add(id)

    def _missing(self, id: bytes) -> UnknownTransaction | TransactionTimeout:
        return TransactionTimeout(TIME_MAX // 1000) if id in self._late else UnknownTransaction()

    def _hold(self, size_bytes: int) -> None:
        # Nothing is paused for it: the discharge would not be read.
        self._size_bytes += size_bytes
        self._peer.server.held_bytes += size_bytes


class Coordinator:
    """Context of a link on which transactions are declared and discharged."""

    def delivery(self, peer: Peer, link: Receiver, delivery: Delivery) -> None:
        def done(error: Exception | None) -> None:
            link.settle(delivery, ACCEPTED if error is None else Rejected(error_of(error)))

        try:
            asked = _asked(delivery.payload)
            if isinstance(asked, Declare):
                link.settle(delivery, Declared(peer.transactions.declare()))
            elif isinstance(asked, Discharge):
                transaction = peer.transactions.discharge(asked.txn_id)
                if asked.fail:
                    done(None)
                else:
                    transaction.commit(peer.namespace.together, lambda error: done(_rolled_back(error)))
            else:
                raise DecodeError("a coordinator takes declare and discharge")
        except Exception as error:
            if is_ours(error):
                log.exception("a transaction failed")
            done(error)


def _rolled_back(error: Exception | None) -> Exception | None:
    return None if error is None else RolledBack(str(error))


def _asked(payload: bytes) -> Composite:
    value = section_value(split(payload).body)
    if not isinstance(value, Described):
        raise DecodeError("the message to a coordinator has no described value")
    return composite(value)
