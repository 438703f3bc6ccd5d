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


class Sniffer(asyncio.Protocol):
    """`http` and `amqp` make the protocol that takes over."""

    __slots__ = ("_amqp", "_first", "_http", "_timer", "_transport")

    def __init__(self, http: Callable[[], Attachable], amqp: Callable[[], Attachable]) -> None:
        self._http = http
        self._amqp = amqp
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SILENCE_SECONDS_MAX, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        first = self._first + data if self._first else data
        if len(first) < len(AMQP) and AMQP.startswith(first):
            self._first = first
            return
        self._timer.cancel()
        make = self._amqp if first.startswith(AMQP) else self._http
        make().attach(self._transport, first)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
