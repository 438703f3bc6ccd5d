"""An AMQP 1.0 connection without I/O: bytes in, events and bytes out (specification part 2.4).

A transport makes a Connection, calls `tick` once and then whenever its deadline has come, passes what it reads to
`receive`, calls `eof` when the peer is gone, and writes what `take` returns whenever `wake` was called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .handler import Handler, Limits
from .performatives import Open
from .session import Session

MECHANISMS = ("MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL")


class Connection:
    """One connection, as the side that answers; `Connection.client` makes the side that asks.

    `mechanism` is the SASL mechanism that succeeded (None without SASL), `user` the user of PLAIN, `peer` the
    peer's open frame (None before), `context` the owner's.
    """

    __slots__ = ("context", "mechanism", "peer", "user")
    context: Any
    mechanism: str | None
    user: str | None
    peer: Open | None

    def __init__(
        self,
        handler: Handler,
        *,
        container_id: str,
        limits: Limits = Limits(),
        wake: Callable[[], None] = lambda: None,
        mechanisms: Sequence[str] = MECHANISMS,
    ) -> None:
        """`wake` is called when there is something to `take` after there was nothing."""

    @classmethod
    def client(
        cls,
        handler: Handler,
        *,
        container_id: str,
        hostname: str | None = None,
        mechanism: str | None = "ANONYMOUS",
        user: str = "",
        password: str = "",
        limits: Limits = Limits(),
        wake: Callable[[], None] = lambda: None,
    ) -> Connection:
        """The side that asks. `mechanism` None leaves SASL out. Everything is pipelined up to `begin`."""
        raise NotImplementedError

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, in any splits. Never raises what the peer could cause: a fault closes the
        connection (or session, or link) with the condition the specification names, and events tell."""
        raise NotImplementedError

    def eof(self) -> None:
        """The peer's end of the transport is gone. Links, sessions and connection report their end."""
        raise NotImplementedError

    def take(self) -> bytes:
        """What is to be written, in one piece; b"" if nothing is."""
        raise NotImplementedError

    @property
    def finished(self) -> bool:
        """Nothing more will come or go: write what `take` has and close the transport."""
        raise NotImplementedError

    def tick(self, now: int) -> int:
        """Send heartbeats and end silent connections. `now` in milliseconds of any steady clock. Returns when to
        call again, latest. The first call starts the handshake's time."""
        raise NotImplementedError

    def authenticated(self, success: bool) -> None:
        """The answer to `Handler.authenticate`. Nothing happens if the connection is gone."""
        raise NotImplementedError

    def begin(self) -> Session:
        """Begin a session; `begun` tells when it stands, but links may be asked for at once."""
        raise NotImplementedError

    def close(self, condition: str | None = None, description: str = "") -> None:
        """Close, with an error if there is a condition. `closed` comes when the peer has answered or after
        `Limits.close_ms`; links and sessions are reported gone at once."""
        raise NotImplementedError
