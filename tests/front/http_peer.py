"""The client's end of an HTTP connection, joined to the server's in memory: no sockets, no waiting.

Bytes go in with `send`, what the server wrote is in `output`, time moves with `clock.advance`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hubbub.clock import ManualClock
from hubbub.front.http.limits import HttpLimits, Refusal
from hubbub.front.http.request import Request
from hubbub.front.http.server import HttpServer

HOST = b"Host: contoso.servicebus.windows.net\r\n"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class MemoryTransport(asyncio.Transport):
    """What an event loop's transport does, at once; `room` says how much the client leaves unread."""

    def __init__(self, protocol: asyncio.Protocol, *, room: int | None = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.output = b""
        self.room = room
        self.backlog = 0
        self.high = 64 * 1024
        self.reading = True
        self.eof_written = False
        self.closing = False
        self.aborted = False

    def get_extra_info(self, name, default=None):
        return ("192.0.2.7", 4711) if name == "peername" else default

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def get_write_buffer_size(self):
        return self.backlog

    def write(self, data):
        assert not self.eof_written
        if self.closing:
            return
        self.output += data
        if self.room is not None:
            paused = self.backlog > self.high
            self.backlog += len(data)
            if not paused and self.backlog > self.high:
                self.protocol.pause_writing()

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.eof_written = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True

    def set_protocol(self, protocol):
        self.protocol = protocol


def created(request: Request) -> None:
    request.respond(201)


def error_response(server: HttpServer) -> Callable[[Request, int, str], bytes]:
    return lambda request, status, detail: server.response(
        status, ((b"Content-Type", b"text/plain"),), detail.encode(), secure=False
    )


class Peer:
    """One client and the server it talks to. Requests the handler saw are in `requests`."""

    def __init__(
        self,
        handler: Callable[[Request], None] = created,
        *,
        admit: Callable[[Request], Refusal | int | None] | None = None,
        limits: HttpLimits | None = None,
        secure: bool = False,
        slow: bool = False,
        on_complete=None,
    ) -> None:
        self.clock = ManualClock()
        self.requests: list[Request] = []

        def handle(request: Request) -> None:
            self.requests.append(request)
            handler(request)

        def refuse(request: Request, status: int, detail: str) -> bytes:
            return error_response(self.server)(request, status, detail)

        self.server = HttpServer(handle, admit, refuse, limits or HttpLimits(), self.clock, on_complete)
        self.secure = secure
        self.connect(slow=slow)

    def connect(self, *, slow: bool = False) -> None:
        """Opens another connection to the same server."""
        self.connection = self.server.protocol(self.secure)()
        self.transport = MemoryTransport(self.connection, room=0 if slow else None)
        self.connection.connection_made(self.transport)

    def send(self, data: bytes, *, step: int = 0) -> None:
        """Sends bytes, in reads of `step` bytes if given, as long as the server reads."""
        for start in range(0, len(data), step or len(data) or 1):
            if self.transport.closing:
                break
            self.transport.protocol.data_received(data[start : start + step] if step else data)
        self.pump()

    def pump(self) -> None:
        """Lets the loop notice that the transport was closed."""
        if self.transport.closing and not self.connection.lost:
            self.connection.connection_lost(None)

    def advance(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds)
        self.pump()

    def leave(self) -> None:
        """The client is gone."""
        self.transport.closing = True
        self.pump()

    def shut(self) -> None:
        """The client closes its sending side."""
        if not self.connection.eof_received():
            self.transport.close()
        self.pump()

    def catch_up(self) -> None:
        """The client reads everything there is."""
        self.transport.backlog = 0
        self.connection.resume_writing()
        self.pump()

    @property
    def ended(self) -> bool:
        """The client sees the end of the connection."""
        return self.transport.eof_written or self.transport.closing

    @property
    def answers(self) -> list[Answer]:
        return parse_answers(self.transport.output)


def parse_answers(data: bytes) -> list[Answer]:
    """Splits responses that are framed by Content-Length or have no body."""
    answers = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, "a response head is not complete"
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert len(headers) == len(lines), "a header appears twice"
        length = int(headers.get("Content-Length", "0"))
        answers.append(Answer(int(first.split()[1]), headers, data[:length]))
        assert len(data) >= length
        data = data[length:]
    return answers


def post(body: bytes = b"", *, target: bytes = b"/hub/messages", lines: bytes = b"") -> bytes:
    return (
        b"POST " + target + b" HTTP/1.1\r\n" + HOST + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def chunked(*chunks: bytes, lines: bytes = b"", trailers: bytes = b"") -> bytes:
    head = b"POST /hub/messages HTTP/1.1\r\n" + HOST + lines + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n" + trailers + b"\r\n"
