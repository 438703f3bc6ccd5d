"""Sessions: windows, delivery ids, and the links in them (specification part 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .link import Receiver, Sender
from .performatives import Coordinator, Source, Target

if TYPE_CHECKING:
    from .connection import Connection


class Session:
    """One session. `channel` is the number on which we send."""

    __slots__ = ("channel", "connection", "context")
    connection: Connection
    channel: int
    context: Any

    def sender(
        self,
        name: str,
        target: Target | Coordinator,
        source: Source | None = None,
        *,
        snd_settle_mode: int = 2,
        properties: dict[Any, Any] | None = None,
    ) -> Sender:
        """Ask the peer for a link on which we send; `attached` tells when it stands."""
        raise NotImplementedError

    def receiver(
        self,
        name: str,
        source: Source,
        target: Target | None = None,
        *,
        snd_settle_mode: int = 2,
        rcv_settle_mode: int = 0,
        max_message_size: int = 0,
        properties: dict[Any, Any] | None = None,
    ) -> Receiver:
        """Ask the peer for a link on which we receive."""
        raise NotImplementedError

    def end(self, condition: str | None = None, description: str = "") -> None:
        """End the session and its links. Brings no `ended` but `detached` for each link."""
        raise NotImplementedError
