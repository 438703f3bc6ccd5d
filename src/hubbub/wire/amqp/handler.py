"""What a connection tells its owner, and the bounds it keeps.

Events arrive inside `Connection.receive`, `tick` or `eof`, in the order of the wire. A handler may call
anything of the library from inside an event. It must not raise: nothing here can mend the owner's faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .connection import Connection
    from .delivery import Delivery, Sent
    from .link import Link, Receiver
    from .performatives import Error, State
    from .session import Session


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take. Times are milliseconds, sizes bytes."""

    frame_bytes_max: int = 65536  # announced in open; outgoing frames are no larger either
    channel_max: int = 4999
    handle_max: int = 255
    links_max: int = 5000  # on one connection, over all sessions
    incoming_window: int = 65536  # transfer frames, per session
    unsettled_max: int = 65536  # deliveries per session and direction
    credit_excess_max: int = 10000  # deliveries beyond credit; one client counts its own and ignores ours
    message_bytes_max: int = 104_857_600  # where a link names no lower one
    partial_bytes_max: int = 134_217_728  # of deliveries not yet complete, on one connection
    waiting_bytes_max: int = 134_217_728  # of deliveries not yet sent, on one connection
    idle_ms: int = 120_000  # announced in open; the connection ends after twice that without a byte
    beat_ms: int = 30_000  # some byte is sent at least that often, and after half the peer's idle time
    handshake_ms: int = 60_000  # from the first tick until open was exchanged
    close_ms: int = 10_000  # how long an answer to our close is waited for


class Handler(Protocol):
    """The owner of a connection. `link.context`, `session.context` and `connection.context` are its own."""

    def authenticate(self, connection: Connection, mechanism: str, user: str, password: str) -> None:
        """A server's client offers credentials by PLAIN. Answer now or later with
        `connection.authenticated(bool)`. ANONYMOUS and MSSBCBS come through without being asked, with
        `connection.mechanism` set; EXTERNAL is refused."""

    def opened(self, connection: Connection) -> None:
        """The peer's open is `connection.peer`; ours is already on its way."""

    def begun(self, session: Session) -> None:
        """A session is open in both directions, whoever began it."""

    def attach(self, link: Link) -> None:
        """The peer wants a link; `link` is a Sender or Receiver as seen from here. Answer now or later with
        `link.accept(...)` or `link.refuse(...)`; until then nothing else happens on it. If the peer
        goes away first, `detached` tells."""

    def attached(self, link: Link) -> None:
        """A link that we asked for (`session.sender`, `session.receiver`) stands. If the peer refused,
        `detached` follows at once and `link.refused` is True."""

    def flow(self, link: Link) -> None:
        """The peer's flow for an attached link. For a Sender: `credit` or `draining` may have changed; if
        `draining`, send what there is and then call `link.drained()`. For a Receiver: a drain that we asked
        for is done."""

    def delivery(self, link: Receiver, delivery: Delivery) -> None:
        """A whole message came. Unless `delivery.settled`, answer now or later with `link.settle`."""

    def disposition(self, link: Link, deliveries: Sequence[Sent], state: State | None, settled: bool) -> None:
        """The peer gave deliveries of a Sender an outcome (one event per link and frame, in the order of
        ids). If `settled` they are forgotten already and want no answer; else answer with `link.settle`. An
        outcome for a delivery is reported once, repeats are dropped."""

    def detached(self, link: Link, error: Error | None, closed: bool) -> None:
        """The link is gone: by the peer, by a fault, or because its session or connection ended. Exactly once
        for each link that `attach` or `attached` was called for, or that we asked for, unless we refused or
        detached it ourselves. `link.unsettled()` and `link.withdraw()` still work."""

    def ended(self, session: Session, error: Error | None) -> None:
        """The session is gone; its links were reported before. Not after our own `session.end`."""

    def closed(self, connection: Connection, error: Error | None) -> None:
        """The last event, exactly once, however the connection ended; sessions and links were reported
        before. `error` is the peer's, or what we told the peer, or None. Write out what `take` still has,
        then close the transport."""
