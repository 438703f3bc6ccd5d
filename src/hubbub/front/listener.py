"""One port for everything: looks at a connection's first bytes and hands it to the protocol they belong to.

Where there is a certificate, TLS is recognised on every port too; behind it the same happens once more with
what comes out of it. A client that says nothing is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

log = logging.getLogger("hubbub")

AMQP = b"AMQP"
TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS client; neither HTTP nor AMQP begins with it."""
SILENCE_SECONDS_MAX = 60.0
LISTEN_BACKLOG = 1024
ACCEPT_PAUSE_SECONDS = 1.0
"""Rest of a port on which no connection could be accepted, because no more files may be open."""

Factory = Callable[[], asyncio.BaseProtocol]


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


class Listener:
    """One port. `plain` and `secure` make the protocol for what comes without TLS and with it; without a
    certificate (`context`) nobody is `secure`, and with `tls_only` nobody is plain."""

    def __init__(
        self,
        plain: Factory,
        secure: Factory,
        silence: Silence,
        context: ssl.SSLContext | None,
        *,
        tls_only: bool = False,
    ) -> None:
        self._plain = plain
        self._secure = secure
        self._silence = silence
        self._context = context
        self._tls_only = tls_only
        self._server: asyncio.Server | None = None
        self._detectors: list[_Detector] = []
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._context is None or self._tls_only:
            factory = self._secure if self._tls_only else self._plain
            context = self._context if self._tls_only else None
            self._server = await loop.create_server(factory, host, port, ssl=context, backlog=LISTEN_BACKLOG)
            self.port = self._server.sockets[0].getsockname()[1]
            return
        for family, kind, number, _, address in await loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listening = _bind(family, kind, number, (address[0], self.port or address[1], *address[2:]))
            self.port = listening.getsockname()[1]
            detector = _Detector(listening, self._plain, self._secure, self._context, self._silence)
            self._detectors.append(detector)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for detector in self._detectors:
            detector.close()


def _bind(family: int, kind: int, number: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, kind, number)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)
        listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _Detector:
    """Accepts the connections of a port itself, to look at their first byte without taking it: a TLS layer
    must get every byte there is."""

    def __init__(
        self,
        listening: socket.socket,
        plain: Factory,
        secure: Factory,
        context: ssl.SSLContext,
        silence: Silence,
    ) -> None:
        self._listening = listening
        self._plain = plain
        self._secure = secure
        self._context = context
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        self._loop.remove_reader(self._listening.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._listening.close()
        for connection in list(self._silent):
            self._drop(connection)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(LISTEN_BACKLOG):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("no connection can be accepted for a moment: %s", error.strerror)
                self._loop.remove_reader(self._listening.fileno())
                self._pause = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._listen)
                return
            connection.setblocking(False)
            if self._silence.count >= self._silence.connections_max:
                connection.close()
                continue
            self._silence.count += 1
            self._silent[connection] = self._loop.call_later(SILENCE_SECONDS_MAX, self._drop, connection)
            self._loop.add_reader(connection.fileno(), self._look, connection)

    def _look(self, connection: socket.socket) -> None:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:
            self._drop(connection)
            return
        self._release(connection)
        task = self._loop.create_task(self._hand_over(connection, first == TLS_HANDSHAKE))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, connection: socket.socket, secure: bool) -> None:
        factory, context = (self._secure, self._context) if secure else (self._plain, None)
        # A handshake that fails is the client's affair; the loop has closed the socket then.
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._loop.connect_accepted_socket(factory, connection, ssl=context)

    def _drop(self, connection: socket.socket) -> None:
        self._release(connection)
        connection.close()

    def _release(self, connection: socket.socket) -> None:
        self._silent.pop(connection).cancel()
        self._silence.count -= 1
        self._loop.remove_reader(connection.fileno())
