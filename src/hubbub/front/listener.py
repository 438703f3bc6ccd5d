"""One port for everything: looks at a connection's first bytes and hands it to the protocol they belong to.

Behind TLS the same happens once more with what comes out of it. A client that says nothing is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

AMQP = b"AMQP"
SILENCE_SECONDS_MAX = 60.0


class Attachable(Protocol):
    def attach(self, transport: asyncio.Transport, first_bytes: bytes) -> None: ...


class Silence:
    """How many connections have said nothing yet, on all ports together. The protocols count the others."""

    __slots__ = ("connections_max", "count")

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self.count = 0


class Sniffer(asyncio.Protocol):
    """`http` and `amqp` make the protocol that takes over."""

    __slots__ = ("_amqp", "_first", "_http", "_silence", "_timer", "_transport")

    def __init__(
        self, http: Callable[[], Attachable], amqp: Callable[[], Attachable], silence: Silence
    ) -> None:
        self._http = http
        self._amqp = amqp
        self._silence = silence
        self._timer: asyncio.TimerHandle | None = None
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._silence.count >= self._silence.connections_max:
            # Nobody knows yet in which protocol to tell it.
            self._transport.abort()
            return
        self._silence.count += 1
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SILENCE_SECONDS_MAX, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._timer is None:
            return
        first = self._first + data if self._first else data
        if len(first) < len(AMQP) and AMQP.startswith(first):
            self._first = first
            return
        self._speak()
        make = self._amqp if first.startswith(AMQP) else self._http
        make().attach(self._transport, first)

    def connection_lost(self, exc: Exception | None) -> None:
        self._speak()

    def _speak(self) -> None:
        """It is silent no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._silence.count -= 1
