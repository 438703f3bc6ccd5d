"""What all HTTP connections of one listener share: the handler, the limits, the clock, the counts.

Not here: sockets and TLS contexts (the composition root opens them), routing (the handler does it).

Timeouts cost nothing per request: one sweep a second looks at the deadline of each connection, and the
sweep stops while there are none. `moment` is the time of the last sweep; deadlines count from it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hubbub.clock import Clock, Timer
from hubbub.front.http.connection import READER_IDLE, HttpConnection
from hubbub.front.http.limits import HttpLimits, Refusal
from hubbub.front.http.request import Request
from hubbub.front.http.response import Headers, standing_headers, whole_response

logger = logging.getLogger(__name__)

Handler = Callable[[Request], None]
Admit = Callable[[Request], "Refusal | int | None"]
ErrorResponse = Callable[[Request, int, str], bytes]
OnComplete = Callable[[Request, int, int, int, float], None]


class HttpServer:
    """Shared state of HTTP connections, and the factory that makes them.

    handler: called with each complete request, on the loop's thread; must answer it, now or later.
    admit: called when the header is complete, before the body is read. Returns None to go on, a bound in
        bytes for this request's body, or a Refusal.
    error_response: builds the complete response for a refusal of this layer from the request (an empty
        one if it could not be understood), the status and a text.
    on_complete: called after each answered or refused request with (request, status, bytes of its body,
        bytes out, seconds since it was complete). A client that left first counts as status 499; the
        request of a malformed header is empty.
    """

    __slots__ = (
        "_emptied",
        "_second",
        "_standing",
        "_standing_secure",
        "_sweep_timer",
        "admit",
        "clock",
        "connections",
        "connections_refused",
        "connections_total",
        "draining",
        "error_response",
        "handler",
        "limits",
        "moment",
        "on_complete",
        "reader_idle_until",
        "requests_refused",
        "requests_total",
    )

    def __init__(
        self,
        handler: Handler,
        admit: Admit | None,
        error_response: ErrorResponse,
        limits: HttpLimits,
        clock: Clock,
        on_complete: OnComplete | None = None,
    ) -> None:
        self.handler = handler
        self.admit = admit
        self.error_response = error_response
        self.limits = limits
        self.clock = clock
        self.on_complete = on_complete
        self.moment = clock.now()
        self.reader_idle_until = 0
        self.draining = False
        self.connections: set[HttpConnection] = set()
        self.connections_total = 0
        self.connections_refused = 0
        self.requests_total = 0
        self.requests_refused = 0
        self._second = -1
        self._standing = b""
        self._standing_secure = b""
        self._sweep_timer: Timer | None = None
        self._emptied: asyncio.Event | None = None

    def protocol(self, secure: bool) -> Callable[[], HttpConnection]:
        """Returns a protocol factory for `loop.create_server`; `secure` if the listener speaks TLS."""
        return lambda: HttpConnection(self, secure)

    @property
    def connections_open(self) -> int:
        """Connections open now, those that are being closed included."""
        return len(self.connections)

    def standing_headers(self, secure: bool) -> bytes:
        """Header lines every response carries (Date, Server, HSTS over TLS), complete with line ends.

        The same object is returned until the second changes, so it may key a cache of whole responses.
        """
        second = self.clock.now() // 1000
        if second != self._second:
            self._second = second
            self._standing = standing_headers(second, secure=False)
            self._standing_secure = standing_headers(second, secure=True)
        return self._standing_secure if secure else self._standing

    def response(self, status: int, headers: Headers = (), body: bytes = b"", *, secure: bool) -> bytes:
        """Builds a complete response with the standing headers, for a Refusal or an error response.

        Raises ValueError if a header holds CR, LF or NUL.
        """
        return whole_response(status, self.standing_headers(secure), headers, body)

    def refusal_response(self, request: Request, status: int, detail: str) -> bytes:
        """Asks the door for an error response; a door that fails must not leave a client without one."""
        try:
            return self.error_response(request, status, detail)
        except Exception:
            logger.exception("building an error response failed")
            return whole_response(status, self.standing_headers(request.connection.secure), (), b"")

    async def drain(self, patience: int) -> None:
        """Lets the connections end: idle ones now, the others with their current answer.

        Those that are still open after `patience` ms are dropped. The listener must be closed already. A
        connection that was taken over is no longer ours and is left alone.
        """
        self.draining = True
        if not self.connections:
            return
        self._emptied = asyncio.Event()
        for connection in list(self.connections):
            connection.drain()
        timer = self.clock.call_at(self.clock.now() + patience, self._drop_all)
        try:
            await self._emptied.wait()
        finally:
            timer.cancel()

    def register(self, connection: HttpConnection) -> None:
        """Counts a new connection and keeps the sweep going."""
        self.connections_total += 1
        self.connections.add(connection)
        if self._sweep_timer is None:
            self._plan_sweep()

    def unregister(self, connection: HttpConnection) -> None:
        """Forgets a connection that is closed or was handed over."""
        self.connections.discard(connection)
        if not self.connections and self._emptied is not None:
            self._emptied.set()

    def _plan_sweep(self) -> None:
        self.moment = self.clock.now()
        self.reader_idle_until = self.moment + min(READER_IDLE, self.limits.idle_timeout)
        self._sweep_timer = self.clock.call_at(self.moment + self.limits.sweep_interval, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        if not self.connections:
            return
        self._plan_sweep()
        moment = self.moment
        for connection in [c for c in self.connections if c.deadline <= moment]:
            connection.expire(moment)

    def _drop_all(self) -> None:
        for connection in list(self.connections):
            connection.abort()
