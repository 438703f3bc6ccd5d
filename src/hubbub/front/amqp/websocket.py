"""AMQP over WebSocket (AMQP reference 1.1): the bytes of binary messages are one stream.

The handshake is HTTP's and done here by hand, since the HTTP layer has read the request already; frames are
wsproto's. Message boundaries mean nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any, cast

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from ..http.request import Request
from .server import AmqpTransport

PATH = b"/$servicebus/websocket"
SUBPROTOCOLS = ("AMQPWSB10", "amqp")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def is_websocket(request: Request) -> bool:
    return request.upgrade and request.path.rstrip(b"/").lower() == PATH


def accept(request: Request, amqp: Callable[[], AmqpTransport]) -> bool:
    """Answers the handshake and hands the connection over; False if it offers no protocol of ours."""
    offered = b",".join(request.header_all(b"sec-websocket-protocol")).decode("latin-1")
    names = [name.strip() for name in offered.split(",")]
    chosen = next((name for name in names if name in SUBPROTOCOLS), None)
    key = request.header(b"sec-websocket-key") or b""
    if chosen is None or request.header(b"sec-websocket-version") != b"13" or not _is_key(key):
        return False
    proof = base64.b64encode(hashlib.sha1(key.strip() + _GUID, usedforsecurity=False).digest())
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\nSec-WebSocket-Protocol: " + chosen.encode() + b"\r\n\r\n"
    )
    request.take_over(lambda: WebSocket(amqp()), head)
    return True


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except ValueError:
        return False


class WebSocket(asyncio.Protocol):
    """Between the socket and one AMQP connection, to which it looks like a transport."""

    def __init__(self, amqp: AmqpTransport) -> None:
        self._amqp = amqp
        self._frames = Connection(ConnectionType.SERVER)
        self._transport: asyncio.Transport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._amqp.connection_made(_Wrapped(self, self._transport))

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                if self._transport.is_closing():
                    return
                self._on_event(event)
        except RemoteProtocolError as error:
            self._leave(error.event_hint)

    def _on_event(self, event: Any) -> None:
        assert self._transport is not None
        if isinstance(event, BytesMessage):
            self._amqp.data_received(bytes(event.data))
        elif isinstance(event, Ping):
            self._send(event.response())
        elif isinstance(event, CloseConnection):
            self._leave(event.response())
        elif isinstance(event, TextMessage):
            self._leave(CloseConnection(1003, "AMQP is binary"))

    def _leave(self, event: Any) -> None:
        """The last word, and the end of the AMQP connection with it."""
        if event is not None:
            self._send(event)
        self._amqp.end()

    def eof_received(self) -> bool:
        return self._amqp.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._amqp.connection_lost(exc)

    def pause_writing(self) -> None:
        self._amqp.pause_writing()

    def resume_writing(self) -> None:
        self._amqp.resume_writing()

    # What the AMQP connection asks.

    def write(self, data: bytes) -> None:
        self._send(BytesMessage(data))

    def end(self) -> None:
        self._send(CloseConnection(1000))

    def _send(self, event: Any) -> None:
        assert self._transport is not None
        try:
            self._transport.write(self._frames.send(event))
            self._amqp.weigh()
        except LocalProtocolError:
            pass  # The client has closed; what we still had to say interests nobody.


class _Wrapped(asyncio.Transport):
    """A transport whose bytes travel in binary messages."""

    def __init__(self, socket: WebSocket, transport: asyncio.Transport) -> None:
        super().__init__()
        self._socket = socket
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._socket.write(bytes(data))

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._socket.end()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
