"""What can go wrong on an AMQP connection: conditions and the exceptions that carry them.

A condition is the symbol that a peer sees in `close`, `end`, `detach` or a rejected outcome
(specification part 2.8.15 to 2.8.18). `ProtocolError` and its kinds travel inside this package only:
`Connection.receive` turns each into the frame its scope asks for.
"""

from __future__ import annotations

INTERNAL_ERROR = "amqp:internal-error"
NOT_FOUND = "amqp:not-found"
UNAUTHORIZED = "amqp:unauthorized-access"
DECODE_ERROR = "amqp:decode-error"
RESOURCE_LIMIT = "amqp:resource-limit-exceeded"
NOT_ALLOWED = "amqp:not-allowed"
INVALID_FIELD = "amqp:invalid-field"
NOT_IMPLEMENTED = "amqp:not-implemented"
ILLEGAL_STATE = "amqp:illegal-state"
FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small"

CONNECTION_FORCED = "amqp:connection:forced"
FRAMING_ERROR = "amqp:connection:framing-error"

WINDOW_VIOLATION = "amqp:session:window-violation"
ERRANT_LINK = "amqp:session:errant-link"
HANDLE_IN_USE = "amqp:session:handle-in-use"
UNATTACHED_HANDLE = "amqp:session:unattached-handle"

DETACH_FORCED = "amqp:link:detach-forced"
TRANSFER_LIMIT = "amqp:link:transfer-limit-exceeded"
MESSAGE_SIZE = "amqp:link:message-size-exceeded"
STOLEN = "amqp:link:stolen"

UNKNOWN_TRANSACTION = "amqp:transaction:unknown-id"
ROLLED_BACK = "amqp:transaction:rollback"
TRANSACTION_TIMEOUT = "amqp:transaction:timeout"


class StateError(RuntimeError):
    """The caller asked for what the state does not allow, such as to send on a link that is gone."""


class ProtocolError(Exception):
    """The peer broke the protocol; the connection ends with `condition`."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description


class FrameError(ProtocolError):
    """The bytes are no frame: nothing behind them can be read."""

    def __init__(self, description: str) -> None:
        super().__init__(FRAMING_ERROR, description)


class SessionError(ProtocolError):
    """The fault of one session; the others of its connection live on."""
