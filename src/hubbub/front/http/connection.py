"""One HTTP/1.1 connection (RFC 9112): requests handled in order, answers written, deadlines kept.

Not here: reading requests (`reader`), sockets, what a request means, how an error looks (`HttpServer`).

Rules:
- one request is handled at a time; those read ahead wait, and reading stops before too many wait;
- while a client leaves answers unread, no further request is handled and nothing more is read;
- every wait for the client has a deadline, looked at by the server's sweep: nothing is armed per request;
- a refusal that leaves input unread ends the connection gently: the response is written, the sending side
  closed, and what still arrives is thrown away for a short while. Closing at once would reset the
  connection and could destroy the response on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from hubbub.front.http.reader import BODY, ENDED, HEAD, IDLE, PIECE_BYTES, UPGRADE, RequestReader
from hubbub.front.http.request import Request
from hubbub.front.http.response import CLOSE, ResponseStream, with_header

if TYPE_CHECKING:
    from hubbub.front.http.server import HttpServer

logger = logging.getLogger(__name__)

NEVER: Final = 1 << 62

# How far the end of a connection is.
_OPEN: Final = 0
_LINGERING: Final = 1  # refused; waits for the client to notice
_CLOSED: Final = 2  # the transport flushes and closes, or has another protocol

# An idle connection keeps its reader this long; without one it is small.
READER_IDLE: Final = 5_000
# Connections over the limit that are told so, and not just dropped.
_REFUSED_OPEN_MAX: Final = 128
# The status under which a client that left before its answer is reported.
_CLIENT_LEFT: Final = 499


class HttpConnection(asyncio.Protocol):
    """Speaks HTTP/1.1 on one transport; made by `HttpServer.protocol`."""

    __slots__ = (
        "_advancing",
        "_lingered_bytes",
        "_peer",
        "_phase",
        "_reader",
        "_reading_paused",
        "_since",
        "_unread",
        "_writable",
        "_write_backlog",
        "client_ended",
        "current",
        "deadline",
        "lost",
        "secure",
        "server",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, server: HttpServer, secure: bool) -> None:
        self.server = server
        self.secure = secure
        self.deadline = NEVER
        # The request whose answer is awaited, or the stream that is being its answer.
        self.current: Request | ResponseStream | None = None
        self.client_ended = False
        self.lost = False
        self.write_paused = False
        self._reader: RequestReader | None = None
        self._phase = _OPEN
        self._advancing = False
        self._reading_paused = False
        self._unread = b""
        self._since = 0
        self._lingered_bytes = 0
        self._write_backlog = 0
        self._writable: asyncio.Future[None] | None = None
        self._peer: str | None = None

    @property
    def peer(self) -> str:
        """Address of the client, `ip:port`."""
        if self._peer is None:
            self._peer = _address(self.transport.get_extra_info("peername"))
        return self._peer

    def attach(self, transport: asyncio.Transport, first_bytes: bytes) -> None:
        """Takes over a connected transport of which `first_bytes` were read already."""
        transport.set_protocol(self)
        self.connection_made(transport)
        if first_bytes:
            self.data_received(first_bytes)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self.server
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=server.limits.write_buffer_bytes_max)
        if server.draining or len(server.connections) >= server.limits.connections_max:
            self._refuse_connection()
        else:
            server.register(self)
            self.deadline = server.moment + server.limits.idle_timeout

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None or self._reading_paused or self._phase or len(data) > PIECE_BYTES:
            return self._receive(data)
        reader.feed(data)
        if reader.stage:
            self._after_partial(reader, data, len(data))
        if reader.ready:
            self._advance(reader)
        return None

    def eof_received(self) -> bool:
        """Keeps the transport open for answers that are due at once; see `Request.on_disconnect`."""
        reader = self._reader
        self.client_ended = True
        if reader is None or self._phase:
            return False
        current = self.current
        if not self.secure:
            reader.end()
            if isinstance(current, Request) and current.on_disconnect is None:
                return True
        # At once: what is answered before the loop gets round to `connection_lost` would be lost.
        if current is not None:
            (current.request if isinstance(current, ResponseStream) else current).tell_disconnect()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        current, self.current = self.current, None
        if current is None:
            return
        request = current.request if isinstance(current, ResponseStream) else current
        self._report(request, _CLIENT_LEFT, 0)
        request.tell_disconnect()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._write_backlog = self.transport.get_write_buffer_size()
        self.deadline = self.server.moment + self.server.limits.write_timeout
        self._regulate()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake_writer()
        if self._phase:
            return
        self._rearm()
        if self._reader is not None:
            self._advance(self._reader)

    # What the server asks

    def expire(self, moment: int) -> None:
        """Acts on a deadline that has passed."""
        if self._phase == _CLOSED:
            self.abort()
        elif self._phase == _LINGERING:
            self._finish()
        elif self.write_paused:
            self._expire_write(moment)
        else:
            self._expire_read(moment)

    def drain(self) -> None:
        """Closes the connection if it is idle; otherwise its current answer will be the last."""
        reader = self._reader
        idle = reader is None or (reader.stage == IDLE and not reader.ready)
        if idle and self.current is None and self._phase == _OPEN:
            self._finish()

    def abort(self) -> None:
        """Drops the connection, whatever is unsent."""
        self.transport.abort()

    # What a request asks

    def answer(self, request: Request, data: bytes) -> None:
        """Writes a complete response as the answer to `request`, and goes on with the next."""
        server = self.server
        server.requests_total += 1
        if request.announce or server.draining:
            data = self._announced(request, data)
        self.current = None
        self.transport.write(data)
        if server.on_complete is not None:
            self._report(request, int(data[9:12]), len(data))
        reader = self._reader
        if self._advancing or reader is None:
            return
        if reader.ready or reader.stage or self.write_paused or self._reading_paused or self._phase:
            self._advance(reader)
        else:
            self.deadline = server.reader_idle_until

    def answer_error(self, request: Request, status: int, detail: str) -> None:
        """Answers with an error of this layer."""
        request.refusal = self.server.refusal_response(request, status, detail)
        self._answer_refused(request)

    def begin_stream(self, request: Request, stream: ResponseStream, head: bytes) -> None:
        """Writes the head of a streamed answer, which lasts until `end_stream`."""
        self.server.requests_total += 1
        if request.http10:  # Without chunks, only the close can end the body.
            request.announce = CLOSE
            self._take_no_more()
        if request.announce or self.server.draining:
            head = self._announced(request, head)
        self.current = stream
        stream.bytes_out += len(head)
        self.transport.write(head)

    def end_stream(self, stream: ResponseStream) -> None:
        """Goes on with the next request after a streamed answer."""
        if self.current is not stream:
            return
        self.current = None
        self._report(stream.request, stream.status, stream.bytes_out)
        if self.server.draining:
            self._take_no_more()
        if not self._advancing and self._reader is not None:
            self._advance(self._reader)

    async def until_writable(self) -> None:
        """Returns when the client has read enough, or is gone."""
        while self.write_paused and not self.lost:
            if self._writable is None or self._writable.done():
                self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def hand_over(
        self, request: Request, protocol_factory: Callable[[], asyncio.Protocol], head: bytes
    ) -> asyncio.Protocol:
        """Gives the transport to another protocol, with the bytes that followed the request."""
        protocol = protocol_factory()
        if head:
            self.transport.write(head)
        self.server.requests_total += 1
        self.current = None
        paused, unread = self._reading_paused, self._unread
        self._forget()
        self._report(request, 101, len(head))
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if unread:
            protocol.data_received(unread)
        if paused and not self.transport.is_closing():
            self.transport.resume_reading()
        return protocol

    # Reading

    def _receive(self, data: bytes) -> None:
        """Takes input that is not an ordinary small read on an ordinary open connection."""
        if self._phase:
            self._linger_on(len(data))
            return
        self._unread = self._unread + data if self._unread else data
        # A transport may have had one more read under way when it was told to pause.
        if not self._reading_paused:
            self._read_on()

    def _read_on(self) -> None:
        """Feeds the reader piece by piece while there is room for more requests."""
        data, self._unread = self._unread, b""
        reader = self._reader
        if reader is None:
            # Empty lines before a request are no reason to end the life of an idle connection later.
            data = data.lstrip(b"\r\n")
            if not data:
                return
            self._reader = reader = RequestReader(self)
        start = 0
        while start < len(data) and not self._phase and not self._reading_paused and reader.stage < UPGRADE:
            reader.feed(data[start : start + PIECE_BYTES])
            start += PIECE_BYTES
            if reader.stage:
                self._after_partial(reader, data, start)
            if reader.ready:
                self._advance(reader)
        if reader.stage == ENDED:
            reader.cut = reader.cut or start < len(data)
        elif reader.stage != UPGRADE:
            self._unread = data[start:] + self._unread

    def _after_partial(self, reader: RequestReader, data: bytes, end: int) -> None:
        """Starts the time limit of a header or body, lets the client go on, keeps what follows an upgrade."""
        if reader.stage == UPGRADE:
            self._unread = reader.leftover + data[end:]
        elif reader.began:
            reader.began = False
            self._rearm()
        if reader.expecting:
            self._settle(reader)

    def _take_no_more(self) -> None:
        """Makes the current answer the last one; the client must ask again what it had pipelined."""
        if self._reader is not None:
            self._reader.end()
            self._reader.ready.clear()

    # Answering

    def _advance(self, reader: RequestReader) -> None:
        """Handles the requests that are ready, one at a time; handlers may answer at once or later."""
        if self._advancing:
            return
        self._advancing = True
        ready = reader.ready
        while ready and self.current is None and not self.write_paused and not self._phase:
            request = ready.pop(0)
            if request.refusal is not None:
                self._answer_refused(request)
                continue
            self.current = request
            try:
                self.server.handler(request)
            except Exception:
                self._after_failure(request)
        self._advancing = False
        self._settle(reader)

    def _settle(self, reader: RequestReader) -> None:
        """Decides what the connection waits for now: deadline, reading, or its end."""
        if self._phase:
            return None
        stage = reader.stage
        if self.current is None and not reader.ready:
            if stage == ENDED:
                return self._close(reader)
            if stage == IDLE and not self.write_paused:
                self.deadline = self.server.reader_idle_until
            elif stage == BODY and reader.expecting:
                self._continue(reader)
            elif stage == UPGRADE:  # The handler preferred to answer: HTTP goes on.
                self._reader = reader = RequestReader(self)
        elif (stage == IDLE or stage >= UPGRADE) and not self.write_paused:
            self.deadline = NEVER
        if stage == UPGRADE or self._reading_paused or reader.ready:
            self._regulate()
        return None

    def _continue(self, reader: RequestReader) -> None:
        """RFC 9110 §10.1.1: `100 Continue`, unless the client did not wait for it."""
        reader.expecting = False
        if not reader.body_bytes:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer_refused(self, request: Request) -> None:
        data = request.refusal or b""
        if request.method == b"HEAD":
            data = data[: data.index(b"\r\n\r\n") + 4]
        self.server.requests_refused += 1
        self.answer(request, data)

    def _after_failure(self, request: Request) -> None:
        logger.exception("the handler of a request failed")
        current = self.current
        if current is request:
            self.answer_error(request, 500, "The server failed to handle the request.")
        elif isinstance(current, ResponseStream) and current.request is request:
            self.abort()  # Only a broken connection tells the client that the body is not whole.

    def _announced(self, request: Request, data: bytes) -> bytes:
        if not self.server.draining:
            return with_header(data, request.announce)
        self._take_no_more()
        return with_header(data, CLOSE)

    def _report(self, request: Request, status: int, bytes_out: int) -> None:
        on_complete = self.server.on_complete
        if on_complete is None:
            return
        seconds = (self.server.clock.now() - request.received) / 1000 if request.received else 0.0
        try:
            on_complete(request, status, len(request.body), bytes_out, seconds)
        except Exception:
            logger.exception("reporting a request failed")

    # Waiting

    def _regulate(self) -> None:
        """Reads on or stops reading, by whether more requests could be held."""
        reader = self._reader
        full = self.write_paused or (reader is not None and self._is_full(reader))
        if full == self._reading_paused or self._phase:
            return
        self._reading_paused = full
        if full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        self._rearm()
        if not full and self._unread:
            self._read_on()

    def _is_full(self, reader: RequestReader) -> bool:
        limits = self.server.limits
        if reader.stage == UPGRADE or len(reader.ready) >= limits.pipeline_depth_max:
            return True
        return sum(len(request.body) for request in reader.ready) > limits.pipeline_bytes_max

    def _rearm(self) -> None:
        """Sets the deadline of what the connection waits for, from now on."""
        limits = self.server.limits
        stage = IDLE if self._reader is None else self._reader.stage
        self._since = moment = self.server.moment
        if self.write_paused:
            self.deadline = moment + limits.write_timeout
        elif self._reading_paused:
            self.deadline = NEVER
        elif stage == HEAD:
            self.deadline = moment + limits.header_timeout
        elif stage == BODY:
            self.deadline = moment + limits.body_timeout
        else:
            self.deadline = NEVER if self.current is not None else self.server.reader_idle_until

    def _expire_write(self, moment: int) -> None:
        """Drops a client that reads nothing; one that reads slowly is given more time."""
        backlog = self.transport.get_write_buffer_size()
        if backlog >= self._write_backlog:
            return self.abort()
        self._write_backlog = backlog
        self.deadline = moment + self.server.limits.write_timeout
        return None

    def _expire_read(self, moment: int) -> None:
        reader = self._reader
        if reader is None:
            self._finish()
        elif reader.stage == HEAD:
            self._refuse(reader, 408, "The request header did not arrive in time.")
        elif reader.stage == BODY:
            self._expire_body(reader, moment)
        elif self.current is None and not reader.ready:
            self._reader = None
            self.deadline += max(0, self.server.limits.idle_timeout - READER_IDLE)
        else:
            self.deadline = NEVER

    def _expire_body(self, reader: RequestReader, moment: int) -> None:
        """Each byte that arrived has bought its share of a second."""
        limits = self.server.limits
        self.deadline = self._since + limits.body_timeout + reader.body_bytes * 1000 // limits.body_rate_min
        if self.deadline <= moment:
            self._refuse(reader, 408, "The request body did not arrive in time.")

    def _refuse(self, reader: RequestReader, status: int, detail: str) -> None:
        reader.refuse(status, detail)
        self._advance(reader)

    # Ending

    def _close(self, reader: RequestReader) -> None:
        """Closes after the last answer: gently if the client may still be sending."""
        linger = reader.cut and not self.client_ended
        reader.release()
        self._reader = None
        if linger:
            self._linger()
        else:
            self._finish()

    def _linger(self) -> None:
        self._phase = _LINGERING
        self.deadline = self.server.moment + self.server.limits.linger_timeout
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def _linger_on(self, received_bytes: int) -> None:
        if self._phase == _LINGERING:
            self._lingered_bytes += received_bytes
            if self._lingered_bytes > self.server.limits.linger_bytes_max:
                self._finish()

    def _finish(self) -> None:
        """Closes the transport once it has flushed, for which it has as long as any write."""
        self._phase = _CLOSED
        self.deadline = self.server.moment + self.server.limits.write_timeout
        self.transport.close()

    def _refuse_connection(self) -> None:
        """Tells a client that there is no room; too many of those are not even told."""
        server = self.server
        server.connections_refused += 1
        if server.draining or len(server.connections) >= server.limits.connections_max + _REFUSED_OPEN_MAX:
            self._phase = _CLOSED
            self.abort()
            return
        server.register(self)
        response = server.refusal_response(
            Request(self, b"", b"", []), 503, "The server has too many open connections."
        )
        self.transport.write(with_header(response, CLOSE))
        self._linger()

    def _forget(self) -> None:
        self._phase = _CLOSED
        self.lost = self.client_ended = True
        self.deadline = NEVER
        self._unread = b""
        self.server.unregister(self)
        if self._reader is not None:
            self._reader.release()
            self._reader = None
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)


def _address(peername: object) -> str:
    """`ip:port` of a socket's peer; empty where there is none (a Unix socket)."""
    if not isinstance(peername, tuple):
        return ""
    host = f"[{peername[0]}]" if ":" in peername[0] else peername[0]
    return f"{host}:{peername[1]}"
