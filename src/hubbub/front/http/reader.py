"""Bytes in, requests out: the reading half of a connection, without transport or deadlines.

llhttp (through httptools) reads the grammar in its strict mode: bare CR or LF, obs-fold, blanks before a
colon, NUL, bad or doubled lengths and length beside a coding never come through it. `head` adds what it
lets pass. This module adds the bounds, and decides before a body is read whether it shall be.

Not here: writing, order of answers, time limits (`connection`).

Rules:
- requests leave in order through `ready`; a refused one among them carries its response (`refusal`);
- after a refusal that leaves input unread, or a last request, `stage` is ENDED and input is not looked at;
- what a client can make us hold is bounded: input must be fed in pieces of `PIECE_BYTES` at most, and every
  bound holds to one such piece.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NoReturn

import httptools

from hubbub.front.http.head import BadRequest, read_head
from hubbub.front.http.limits import Refusal
from hubbub.front.http.request import Request
from hubbub.front.http.response import CLOSE

if TYPE_CHECKING:
    from hubbub.front.http.connection import HttpConnection

logger = logging.getLogger(__name__)

PIECE_BYTES: Final = 16 * 1024

# What the reader waits for.
IDLE: Final = 0  # the first byte of a request
HEAD: Final = 1  # the rest of a header
BODY: Final = 2  # the rest of a body
UPGRADE: Final = 3  # nothing, until the handler has decided whether the connection changes hands
ENDED: Final = 4  # nothing: no more requests are taken

# A chunk costs at most this much framing without padding: sixteen digits and two line ends.
_CHUNK_FRAMING_BYTES: Final = 20


class _StopReading(Exception):
    """Ends the parser's run from within a callback: the rest of the input is not wanted."""


class RequestReader:
    """Reads the requests of one connection; also the object llhttp calls back."""

    __slots__ = (
        "_admit",
        "_body",
        "_body_bytes_max",
        "_carried",
        "_chunks",
        "_connection",
        "_fed_bytes",
        "_head_bytes",
        "_headers",
        "_limits",
        "_now",
        "_parser",
        "_request",
        "_target",
        "began",
        "body_bytes",
        "cut",
        "expecting",
        "leftover",
        "ready",
        "stage",
    )

    def __init__(self, connection: HttpConnection) -> None:
        server = connection.server
        self._connection = connection
        self._limits = server.limits
        self._admit = server.admit
        self._now = server.clock.now
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._request: Request | None = None
        self._carried: Request | None = None
        self._body: bytes | bytearray = b""
        self._body_bytes_max = 0
        self._chunks = 0
        self._fed_bytes = -1
        self.ready: list[Request] = []
        self.stage = IDLE
        # A header or a body began and did not end in the same piece: its time limit starts.
        self.began = False
        # The client waits for `100 Continue`, and may have it.
        self.expecting = False
        self.body_bytes = 0
        # Input was left unread when `stage` became ENDED.
        self.cut = False
        # What followed an upgrade request.
        self.leftover = b""
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Takes the next `PIECE_BYTES` or less; what it completes is in `ready`."""
        if self.stage == ENDED:
            self.cut = True
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            self._after_upgrade(data[pause.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._after_error(error)
        if self.stage == HEAD:
            self._bound_head(len(data))
        elif self.stage == BODY:
            self._bound_body(len(data))

    def refuse(self, status: int, detail: str) -> None:
        """Puts an error response behind the requests read so far, and reads no more."""
        request = self._request if self.stage == BODY else None
        request = request or Request(self._connection, b"", b"", [])
        self.turn_away(request, self._error_response(request, status, detail))

    def turn_away(self, request: Request, response: bytes) -> None:
        """Puts a refused request, whose body stays unread, behind those read so far; reads no more."""
        request.refusal = response
        request.keep_alive = False
        request.announce = CLOSE
        request.received = self._now()
        self.ready.append(request)
        self.cut = True
        self.end()

    def end(self) -> None:
        """Takes no more requests."""
        self.stage = ENDED
        self.expecting = False

    def release(self) -> None:
        """Lets go of the parser, whose callbacks hold this object, so that memory is freed at once."""
        self.end()
        del self._parser

    # Called by llhttp. An exception ends its run and comes out of `feed` as HttpParserCallbackError.

    def on_message_begin(self) -> None:
        if self.stage == ENDED:
            raise _StopReading
        self.stage = HEAD
        self._target = b""
        self._headers = []
        self._head_bytes = 0

    def on_url(self, piece: bytes) -> None:
        self._target = target = self._target + piece if self._target else piece
        if len(target) > self._limits.request_line_bytes_max:
            self._stop(None, 414, "The request target is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        if self._carried is not None:
            self._resume_carried()
            return
        self._request = request = Request(self._connection, parser.get_method(), self._target, self._headers)
        try:
            read_head(request, parser.should_keep_alive(), parser.get_http_version)
        except BadRequest as error:
            self._stop(request, error.status, error.detail)
        limits = self._limits
        # A header within one piece is as large as the piece at most; its fields need no adding up.
        count = len(self._headers)
        if count > limits.headers_max or self._head_bytes + PIECE_BYTES > limits.header_bytes_max:
            self._bound_whole_head(request)
        self.stage = BODY
        self.body_bytes = 0
        self._body_bytes_max = limits.body_bytes_max
        if request.expect and request.expect.lower() != b"100-continue":
            self._refuse_request(request, 417, "The only supported expectation is 100-continue.")
        elif self._admit is not None:
            self._apply_verdict(request, self._admit(request))
        if request.content_length is not None or request.chunked:
            self._prepare_body(request, request.content_length)
        if parser.should_upgrade():
            self._prepare_upgrade(request)

    def on_body(self, piece: bytes) -> None:
        self.body_bytes += len(piece)
        if self.body_bytes > self._body_bytes_max:
            self._stop(self._request, 413, self._too_large())
        if not self._body:
            self._body = piece
            return
        # A byte array, not a list of pieces: a client chooses how small the pieces are.
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += piece

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_message_complete(self) -> None:
        if self._carried is not None:
            return
        request = self._request
        assert request is not None
        request.body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        request.received = self._now()
        self._request = None  # An idle connection must not keep the last body.
        self._body = b""
        self.ready.append(request)
        self.stage = IDLE if request.keep_alive else ENDED

    # Bodies: whether one is read, and how much of it.

    def _prepare_body(self, request: Request, length: int | None) -> None:
        if length is not None and length > self._body_bytes_max and request.refusal is None:
            self._refuse_request(request, 413, self._too_large())
        if request.refusal is not None and length != 0:
            self.turn_away(request, request.refusal)
            raise _StopReading
        if request.chunked:
            self._headers = []  # Trailer fields go where nobody looks (RFC 9112 §7.1.2).
            self._chunks = 0
        self._fed_bytes = -1
        self.expecting = request.expect != b"" and length != 0 and request.refusal is None

    def _apply_verdict(self, request: Request, verdict: Refusal | int | None) -> None:
        if isinstance(verdict, Refusal):
            request.refusal = verdict.response
        elif verdict is not None:
            self._body_bytes_max = verdict

    def _too_large(self) -> str:
        return f"The request body exceeds the limit ({self._body_bytes_max} bytes)."

    # Bounds on what is not complete after a piece.

    def _bound_whole_head(self, request: Request) -> None:
        bytes_ = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if bytes_ > self._limits.header_bytes_max:
            self._stop(request, 431, "The request header is too large.")
        if len(self._headers) > self._limits.headers_max:
            self._stop(request, 431, "The request has too many header fields.")

    def _bound_head(self, fed_bytes: int) -> None:
        limits = self._limits
        self.began = self.began or not self._head_bytes
        self._head_bytes += fed_bytes
        if self._head_bytes > limits.header_bytes_max + limits.request_line_bytes_max:
            self.refuse(431, "The request header is too large.")
        elif len(self._headers) > limits.headers_max:
            self.refuse(431, "The request has too many header fields.")

    def _bound_body(self, fed_bytes: int) -> None:
        if self._fed_bytes < 0:
            self.began = True
            self._fed_bytes = self.body_bytes
            return
        self._fed_bytes += fed_bytes
        framing = self._fed_bytes - self.body_bytes - self._chunks * _CHUNK_FRAMING_BYTES
        if framing > self._limits.body_framing_bytes_max or len(self._headers) > self._limits.headers_max:
            self.refuse(400, "The chunks of the request body carry too much besides data.")

    # Upgrades. llhttp takes any `Upgrade` for the end of HTTP and skips the body. Clients offer h2c with
    # ordinary requests, bodies included; those are read on as if the offer had not been made.

    def _prepare_upgrade(self, request: Request) -> None:
        wanted = b",".join(request.header_all(b"upgrade")).lower()
        bodiless = not request.content_length and not request.chunked
        if request.method == b"GET" and bodiless and request.refusal is None and wanted == b"websocket":
            request.upgrade = True
        else:
            self._carried = request

    def _after_upgrade(self, rest: bytes) -> None:
        if self._carried is None:
            self.stage = UPGRADE
            self.leftover = rest
            return
        # A fresh parser is brought to where the old one gave up: behind a header with the same framing.
        request = self._carried
        framing = (
            b"Transfer-Encoding: chunked"
            if request.chunked
            else b"Content-Length: %d" % (request.content_length or 0)
        )
        self._parser = httptools.HttpRequestParser(self)
        self.feed(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        self.feed(rest)

    def _resume_carried(self) -> None:
        self._request, self._carried = self._carried, None
        self._headers = []
        self.stage = BODY

    # Refusals.

    def _after_error(self, error: httptools.HttpParserError) -> None:
        if self.stage == ENDED:
            self.cut = True
        elif isinstance(error, httptools.HttpParserCallbackError):
            logger.error("reading a request failed", exc_info=error)
            self.refuse(500, "The server failed to read the request.")
        else:
            self.refuse(400, f"The request is malformed: {error}.")

    def _stop(self, request: Request | None, status: int, detail: str) -> NoReturn:
        request = request or Request(self._connection, b"", self._target[:256], [])
        self.turn_away(request, self._error_response(request, status, detail))
        raise _StopReading

    def _refuse_request(self, request: Request, status: int, detail: str) -> None:
        request.refusal = self._error_response(request, status, detail)

    def _error_response(self, request: Request, status: int, detail: str) -> bytes:
        return self._connection.server.refusal_response(request, status, detail)
