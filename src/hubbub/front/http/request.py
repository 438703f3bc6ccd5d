"""One HTTP request, as a door sees it, and the way to answer it.

Not here: reading it (`connection`), what it means (a door). Every request is answered exactly once, with
one of `respond`, `respond_raw`, `start_stream`, `take_over`. An answer after the client went away is
silently dropped; a second answer is a mistake of ours and raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.front.http.response import (
    TE_CHUNKED,
    Headers,
    ResponseStream,
    has_body,
    response_head,
    whole_response,
)

if TYPE_CHECKING:
    from hubbub.front.http.connection import HttpConnection


class Request(msgspec.Struct, eq=False):
    """A request; complete, body included, when a handler sees it. In `admit` the body is still empty.

    method, target: as received.
    headers: (name as sent, value) in the order of the request.
    host: from an absolute target, else from `Host`; b"" if there is none (HTTP/1.0).
    path, query: raw, still percent-encoded, the query without its question mark.
    authorization, content_type: values of these headers, or b"". The first, if there are several.
    content_length: of the header; None without one (chunked, or no body).
    chunked, expect: the framing of the body, and the expectation, for this layer's own use.
    received: moment at which the request was complete, ms; 0 before.
    http10: the client speaks HTTP/1.0.
    keep_alive: the connection stays open for another request.
    upgrade: a WebSocket handshake that may `take_over` the connection.
    announce: the `Connection` line an unusual client must be told; b"" for most.
    refusal: the whole response of a request that no handler shall see.
    context: what the door keeps with the request from `admit` to the answer.
    note: what the access log shall say of it besides; "" for most.

    A msgspec structure only because it is built in C, in a third of the time of a slotted class.
    """

    connection: HttpConnection
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    host: bytes = b""
    path: bytes = b""
    query: bytes = b""
    authorization: bytes = b""
    content_type: bytes = b""
    content_length: int | None = None
    chunked: bool = False
    expect: bytes = b""
    http10: bool = False
    keep_alive: bool = True
    upgrade: bool = False
    body: bytes = b""
    received: int = 0
    announce: bytes = b""
    refusal: bytes | None = None
    context: Any = None
    note: str = ""
    _on_disconnect: Callable[[], None] | None = None

    @property
    def peer(self) -> str:
        """Address of the client, `ip:port`."""
        return self.connection.peer

    @property
    def secure(self) -> bool:
        """True if the request came over TLS."""
        return self.connection.secure

    @property
    def disconnected(self) -> bool:
        """True once nobody waits for the answer any more; an answer would not be written."""
        connection = self.connection
        return connection.lost or connection.transport.is_closing()

    @property
    def on_disconnect(self) -> Callable[[], None] | None:
        """Called once if the client goes away before the response was given.

        A client that closes only its sending side counts as gone if this is set, and still gets its answer
        if it is not: whoever waits long wants to know, whoever answers at once does not care.
        """
        return self._on_disconnect

    @on_disconnect.setter
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        self._on_disconnect = callback
        if callback is not None and self.connection.client_ended:
            asyncio.get_running_loop().call_soon(self.tell_disconnect)

    def tell_disconnect(self) -> None:
        """Calls `on_disconnect`, at most once."""
        callback, self._on_disconnect = self._on_disconnect, None
        if callback is not None:
            callback()

    def header(self, name: bytes) -> bytes | None:
        """Value of the first header called `name` (lower case), or None."""
        for key, value in self.headers:
            if len(key) == len(name) and key.lower() == name:
                return value
        return None

    def header_all(self, name: bytes) -> list[bytes]:
        """Values of all headers called `name` (lower case), in order."""
        return [value for key, value in self.headers if len(key) == len(name) and key.lower() == name]

    def respond_raw(self, head_and_body: bytes) -> None:
        """Answers with a complete response, built beforehand, head and all.

        `Connection` is added if this client needs it; nothing else is, and nothing is checked.
        """
        connection = self.connection
        if connection.current is self:
            connection.answer(self, head_and_body)
        else:
            self._refuse_second_answer()

    def respond(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        """Answers with a status, header lines and a body.

        Date, Server, Strict-Transport-Security (over TLS), Content-Length and Connection are added.
        Raises ValueError if a header holds CR, LF or NUL; the client then gets a 500.
        """
        connection = self.connection
        if connection.current is not self:
            return self._refuse_second_answer()
        standing = connection.server.standing_headers(connection.secure)
        try:
            data = whole_response(status, standing, headers, body, head_only=self.method == b"HEAD")
        except ValueError:
            connection.answer_error(self, 500, "The response could not be written.")
            raise
        return connection.answer(self, data)

    def start_stream(self, status: int, headers: Headers = ()) -> ResponseStream:
        """Answers with a body that is written piece by piece; the returned stream must be ended.

        Raises ValueError if a header holds CR, LF or NUL; the client then gets a 500.
        """
        connection = self.connection
        silent = self.method == b"HEAD" or not has_body(status)
        chunked = has_body(status) and not self.http10
        stream = ResponseStream(self, status, chunked=chunked, silent=silent)
        if connection.current is not self:
            self._refuse_second_answer()
            return stream
        standing = connection.server.standing_headers(connection.secure)
        try:
            head = response_head(status, standing, headers, TE_CHUNKED if chunked else b"")
        except ValueError:
            connection.answer_error(self, 500, "The response could not be written.")
            raise
        connection.begin_stream(self, stream, head)
        return stream

    def take_over(
        self, protocol_factory: Callable[[], asyncio.Protocol], head: bytes = b""
    ) -> asyncio.Protocol:
        """Hands the connection to another protocol, after writing `head` (a 101 response).

        The new protocol gets `connection_made`, then the bytes that followed the request. Raises
        RuntimeError if this is not an upgrade or the client is gone.
        """
        if not self.upgrade or self.connection.current is not self or self.connection.lost:
            raise RuntimeError("this request cannot take over its connection")
        return self.connection.hand_over(self, protocol_factory, head)

    def _refuse_second_answer(self) -> None:
        if not self.connection.lost:
            raise RuntimeError("a request was answered twice")
