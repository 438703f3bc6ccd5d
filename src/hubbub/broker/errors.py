"""One class per reaction a client must have. Each door owns one table that maps them to its own words.

The text of an error is written for the client: what happened, why, and what to do where that helps.
"""

from __future__ import annotations


class BrokerError(Exception):
    """The broker refuses or cannot do what was asked."""


class NotFound(BrokerError):
    """There is no such entity."""


class AlreadyExists(BrokerError):
    """An entity of that name is there already."""


class Invalid(BrokerError):
    """The request itself is wrong and will stay wrong."""


class Conflict(BrokerError):
    """The state of the entity does not allow this now."""


class TooLarge(BrokerError):
    """A message, batch, session state or answer is over the size limit. `advice`: what to do."""

    def __init__(self, size: int, size_max: int, what: str = "message", advice: str = "") -> None:
        text = f"The {what} size ({size} bytes) exceeds the limit ({size_max} bytes). {advice}"
        super().__init__(text.rstrip())
        self.size = size
        self.size_max = size_max


class QuotaExceeded(BrokerError):
    """The entity or namespace is full."""


class Disabled(BrokerError):
    """The entity is disabled for this operation."""


class PublisherRevoked(BrokerError):
    """The publisher may not send any more."""


class ProducerStolen(BrokerError):
    """Another instance of an idempotent producer has taken over."""

    def __init__(self, id: int, epoch: int, known: int) -> None:
        super().__init__(
            f"The producer {id} with epoch {epoch} was superseded by one with epoch {known}. Make a new"
            " producer, or one with a higher owner level."
        )


class OutOfSequence(BrokerError):
    """An idempotent producer's event does not follow its last one."""

    def __init__(self, given: int, expected: int | None) -> None:
        why = "the producer is not known here" if expected is None else f"{expected} is expected"
        super().__init__(f"The producer sequence number {given} is out of order: {why}.")


class LockLost(BrokerError):
    """The lock expired, was settled before, or never was."""

    def __init__(self) -> None:
        super().__init__(
            "The lock supplied is invalid. Either the lock expired, or the message has already been"
            " removed from the queue."
        )


class MessageNotFound(BrokerError):
    """No message of that sequence number is in the state that was asked for."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"The message with sequence number {sequence} could not be found.")


class SessionLockLost(LockLost):
    """The session is no longer held: its lock expired or was released, and so did all locks under it."""

    def __init__(self) -> None:
        BrokerError.__init__(
            self, "The session lock has expired on the message session. Accept the session anew."
        )


class SessionCannotBeLocked(BrokerError):
    """Somebody else holds the session."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"The requested session '{session_id}' cannot be accepted. It may be locked by another receiver."
        )


class Forwards(BrokerError):
    """Nobody can receive where messages go on by themselves."""

    def __init__(self) -> None:
        super().__init__("Cannot create a message receiver on an entity with auto-forwarding enabled.")


class SessionRequired(BrokerError):
    """A session entity needs a session, or a plain one cannot have any."""


class Busy(BrokerError):
    """The broker cannot take this now (no space, too much waiting); the same request may work later."""
