"""Errors of the broker in the words of AMQP (AMQP reference 3.10, 4.9)."""

from __future__ import annotations

import re

from ...broker.access import Unauthorized
from ...broker.errors import (
    AlreadyExists,
    BrokerError,
    Busy,
    Disabled,
    Invalid,
    LockLost,
    MessageNotFound,
    NotFound,
    OutOfSequence,
    ProducerStolen,
    PublisherRevoked,
    QuotaExceeded,
    SessionCannotBeLocked,
    SessionLockLost,
    SessionRequired,
    TooLarge,
)
from ...wire.amqp import errors as wire
from ...wire.amqp.performatives import Error
from ...wire.amqp.types import DecodeError

ARGUMENT_ERROR = "com.microsoft:argument-error"
OUT_OF_RANGE = "com.microsoft:argument-out-of-range"
SERVER_BUSY = "com.microsoft:server-busy"
ENTITY_DISABLED = "com.microsoft:entity-disabled"
MESSAGE_LOCK_LOST = "com.microsoft:message-lock-lost"
SESSION_LOCK_LOST = "com.microsoft:session-lock-lost"
SESSION_CANNOT_BE_LOCKED = "com.microsoft:session-cannot-be-locked"
MESSAGE_NOT_FOUND = "com.microsoft:message-not-found"
ENTITY_ALREADY_EXISTS = "com.microsoft:entity-already-exists"
OUT_OF_SEQUENCE = "com.microsoft:out-of-order-sequence"
PRODUCER_STOLEN = "com.microsoft:producer-epoch-stolen"
PUBLISHER_REVOKED = "com.microsoft:publisher-revoked"


class UnknownTransaction(BrokerError):
    """No transaction of that id is open on the connection."""

    def __init__(self) -> None:
        super().__init__("The transaction is not known: it has ended, or another connection declared it.")


class TransactionTimeout(BrokerError):
    """The transaction was open for too long, and was rolled back."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The transaction was rolled back: it was open for more than {seconds} seconds.")


class RolledBack(BrokerError):
    """The transaction could not be committed; nothing of it has happened."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The transaction was rolled back: {why}")


_CONDITIONS: tuple[tuple[type[Exception], str], ...] = (
    (Unauthorized, wire.UNAUTHORIZED),
    (MessageNotFound, MESSAGE_NOT_FOUND),
    (SessionLockLost, SESSION_LOCK_LOST),
    (LockLost, MESSAGE_LOCK_LOST),
    (OutOfSequence, OUT_OF_SEQUENCE),
    (ProducerStolen, PRODUCER_STOLEN),
    (SessionCannotBeLocked, SESSION_CANNOT_BE_LOCKED),
    (AlreadyExists, ENTITY_ALREADY_EXISTS),
    (SessionRequired, wire.NOT_ALLOWED),
    (NotFound, wire.NOT_FOUND),
    (TooLarge, wire.MESSAGE_SIZE),
    (QuotaExceeded, wire.RESOURCE_LIMIT),
    (Disabled, ENTITY_DISABLED),
    (PublisherRevoked, PUBLISHER_REVOKED),
    (Busy, SERVER_BUSY),
    (UnknownTransaction, wire.UNKNOWN_TRANSACTION),
    (TransactionTimeout, wire.TRANSACTION_TIMEOUT),
    (RolledBack, wire.ROLLED_BACK),
    (Invalid, ARGUMENT_ERROR),
    (DecodeError, wire.DECODE_ERROR),
    (BrokerError, wire.NOT_ALLOWED),
)


_SUBCODE = re.compile(r"SubCode=[0-9]+\. ")
"""How texts begin that HTTP clients know."""


def condition_of(error: Exception) -> str:
    return next((text for kind, text in _CONDITIONS if isinstance(error, kind)), wire.INTERNAL_ERROR)


def text_of(error: Exception) -> str:
    """What the client reads; what is a mistake of ours says no more than that."""
    if isinstance(error, BrokerError):
        return _SUBCODE.sub("", str(error))
    if isinstance(error, DecodeError):
        return f"What was sent cannot be decoded: {error}."
    return "The server failed to handle the request."


def is_ours(error: Exception) -> bool:
    """Whether it is a mistake of ours, which belongs in the log."""
    return condition_of(error) == wire.INTERNAL_ERROR


def error_of(error: Exception) -> Error:
    return Error(condition_of(error), text_of(error))
