"""HTTP/1.1 response bytes: heads, whole responses, and a response written piece by piece.

Not here: which headers an operation answers with, error bodies. A header value that would break the
framing (CR, LF, NUL) is refused, so no door can be tricked into splitting a response.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubbub.front.http.connection import HttpConnection
    from hubbub.front.http.request import Request

Headers = Sequence[tuple[bytes, bytes]]

CLOSE = b"Connection: close\r\n"
TE_CHUNKED = b"Transfer-Encoding: chunked\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(second: int) -> bytes:
    """Formats seconds since 1970 UTC as `Sun, 06 Nov 1994 08:49:37 GMT`, whatever the locale."""
    t = time.gmtime(second)
    text = (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d}"
        f" {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )
    return text.encode("ascii")


def standing_headers(second: int, secure: bool) -> bytes:
    """Header lines every response carries (rest.md §1.5), ready to be joined in."""
    lines = b"Date: " + http_date(second) + b"\r\nServer: Microsoft-HTTPAPI/2.0\r\n"
    return lines + b"Strict-Transport-Security: max-age=31536000\r\n" if secure else lines


def has_body(status: int) -> bool:
    """Tells whether a response of this status has a body at all (RFC 9110 §6.4.1)."""
    return status >= 200 and status != 204 and status != 304


def response_head(status: int, standing: bytes, headers: Headers, framing: bytes) -> bytes:
    """Joins a response head. `standing` and `framing` are complete header lines or empty.

    Raises ValueError if a name or value holds CR, LF or NUL.
    """
    lines = [status_line(status), standing]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines += (framing, b"\r\n")
    head = b"".join(lines)
    breaks = 2 + standing.count(b"\n") + len(headers) + framing.count(b"\n")
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise ValueError("a response header holds CR, LF or NUL")
    return head


def status_line(status: int) -> bytes:
    """`HTTP/1.1 200 OK` and its line end; a status without a registered phrase has an empty one."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def whole_response(
    status: int, standing: bytes, headers: Headers, body: bytes, *, head_only: bool = False
) -> bytes:
    """Builds a complete response; `head_only` keeps the length and drops the body (HEAD)."""
    if not has_body(status):
        return response_head(status, standing, headers, b"")
    head = response_head(status, standing, headers, b"Content-Length: %d\r\n" % len(body))
    return head if head_only else head + body


def with_header(response: bytes, line: bytes) -> bytes:
    """Puts a header line right behind the status line of a complete response."""
    start = response.index(b"\r\n") + 2
    return response[:start] + line + response[start:]


class ResponseStream:
    """A response whose body is written in pieces, chunked (or up to the close for an HTTP/1.0 client).

    `write` never blocks: look at `paused`, or await `drain`, and hold back while the client is slow; one
    that stays slow for `write_timeout` is dropped. After the client is gone everything is silently ignored.
    One task at a time may await `drain`.
    """

    __slots__ = ("_chunked", "_connection", "_silent", "bytes_out", "request", "status")

    def __init__(self, request: Request, status: int, *, chunked: bool, silent: bool) -> None:
        self.request = request
        self.status = status
        self.bytes_out = 0
        self._connection: HttpConnection | None = request.connection
        self._chunked = chunked
        self._silent = silent

    @property
    def paused(self) -> bool:
        """True while the client has left too much unread."""
        return self._connection is not None and self._connection.write_paused

    @property
    def open(self) -> bool:
        """False once the response ended or the client went away."""
        return self._connection is not None and not self._connection.lost

    def write(self, data: bytes) -> None:
        """Sends one piece; an empty one is nothing, since an empty chunk would end the body."""
        if data and not self._silent:
            self._send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def drain(self) -> None:
        """Returns when the client has caught up, or is gone."""
        if self._connection is not None:
            await self._connection.until_writable()

    def end(self) -> None:
        """Ends the response; further calls do nothing."""
        if self._connection is None:
            return
        if self._chunked and not self._silent:
            self._send(b"0\r\n\r\n")
        connection, self._connection = self._connection, None
        connection.end_stream(self)

    def _send(self, data: bytes) -> None:
        if self._connection is not None and not self._connection.lost:
            self.bytes_out += len(data)
            self._connection.transport.write(data)
