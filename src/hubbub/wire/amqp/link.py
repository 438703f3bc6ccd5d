"""Links: one direction of messages between two nodes (specification part 2.6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .performatives import ACCEPTED, Attach, Coordinator, Source, State, Target
from .types import Described

if TYPE_CHECKING:
    from .session import Session

UNSETTLED, SETTLED, MIXED = range(3)  # snd_settle_mode
FIRST, SECOND = range(2)  # rcv_settle_mode


class Delivery:
    """A message that came in. `payload` is the encoded message, all sections; `state` is not None inside a
    transaction; `format` is 0 or the code of a batch."""

    __slots__ = ("format", "id", "payload", "settled", "state", "tag")


class Sent:
    """A message that goes out. `id` is None until its first frame is sent; `state` is the peer's outcome.
    `context` is the owner's."""

    __slots__ = ("context", "format", "id", "payload", "settled", "state", "tag")


class Link:
    """What both directions share. Set `context` before `accept`: that may already bring events.

    `attach` is the peer's attach frame as it came, `properties` and the like are read there. `source`,
    `target`, the settle modes (filled in where the peer left them null) and `max_message_size` (the lower of
    both sides' words, 0 for none) hold for the link.
    """

    __slots__ = ("attach", "context", "max_message_size", "name", "rcv_settle_mode", "refused", "session",
                 "snd_settle_mode", "source", "target")  # fmt: skip
    session: Session
    name: str
    attach: Attach
    source: Source | Described | None
    target: Target | Coordinator | Described | None
    context: Any

    @property
    def attached(self) -> bool:
        """Both sides have attached and none has detached."""
        raise NotImplementedError

    def accept(
        self,
        *,
        source: Source | Described | None = None,
        target: Target | Coordinator | Described | None = None,
        max_message_size: int | None = None,
        properties: dict[Any, Any] | None = None,
        offered_capabilities: list[str] | None = None,
        desired_capabilities: list[str] | None = None,
    ) -> bool:
        """Answer the peer's attach. What is left out echoes the peer. False, and nothing sent, if the link is gone
        meanwhile. For a Sender credit that the peer gave early is reported by `flow` before this returns.
        Raises StateError if it was answered before."""
        raise NotImplementedError

    def refuse(self, condition: str, description: str = "", info: dict[Any, Any] | None = None) -> bool:
        """Answer the peer's attach as the service does: an attach without our terminus and a detach with the error
        behind it. False if the link is gone meanwhile. Raises StateError if it was answered before."""
        raise NotImplementedError

    def detach(
        self,
        condition: str | None = None,
        description: str = "",
        info: dict[Any, Any] | None = None,
        *,
        closed: bool = True,
    ) -> None:
        """End the link, with an error if there is a condition. Brings no `detached`. Nothing happens if it is
        gone already. What the peer still sends on it is dropped."""
        raise NotImplementedError


class Receiver(Link):
    """A link on which the peer sends."""

    __slots__ = ("credit",)
    credit: int  # deliveries that the peer may still send

    def grant(self, credit: int, *, keep: bool = False) -> None:
        """Let the peer send `credit` deliveries from now on: a total, not an addition. With `keep`, the credit is
        renewed so that it and the unsettled deliveries together stay at `credit`; a flow goes out when half of it
        is used up. Nothing happens if the link is gone."""
        raise NotImplementedError

    def drain(self) -> None:
        """Ask the peer to use up its credit now or to hand it back; `flow` tells when that is done."""
        raise NotImplementedError

    def settle(self, deliveries: Delivery | Iterable[Delivery], state: State = ACCEPTED) -> None:
        """Settle with an outcome. Dispositions wait for `take` and join into ranges. Deliveries that are settled
        already are passed over; nothing happens if the link is gone."""
        raise NotImplementedError


class Sender(Link):
    """A link on which we send. `draining` is True while the peer waits for `drained`."""

    __slots__ = ("draining",)
    draining: bool

    @property
    def credit(self) -> int:
        """Deliveries that the peer still wants beyond those that wait here; never negative."""
        raise NotImplementedError

    def send(
        self,
        payload: bytes,
        tag: bytes,
        *,
        format: int = 0,  # noqa: A002 - the specification's word
        settled: bool = False,
        state: State | None = None,
        context: Any = None,
    ) -> Sent:
        """Send a message, or keep it until credit and windows allow: deliveries leave in the order of the calls.
        `tag` has up to 32 bytes. Raises StateError if the link is not attached, ValueError for a long tag."""
        raise NotImplementedError

    def withdraw(self) -> list[Sent]:
        """Take back the deliveries of which nothing was sent yet; oldest first."""
        raise NotImplementedError

    def drained(self) -> None:
        """All that there was has been sent: hand back the rest of the credit. What `send` still keeps goes first.
        Nothing happens if the peer does not drain."""
        raise NotImplementedError

    def settle(self, deliveries: Sent | Iterable[Sent], state: State | None) -> None:
        """Answer the peer's outcome: settled, with the state given (of the same kind as the peer's, or rejected with
        an error). Joins into ranges as a Receiver's. Nothing happens if the link is gone."""
        raise NotImplementedError

    def unsettled(self) -> list[Sent]:
        """Deliveries on their way or without a settlement, oldest first."""
        raise NotImplementedError
