"""One HTTP/1.1 connection (RFC 9112): bytes to requests, answers to bytes, in order.

llhttp (through httptools) reads the grammar and is left in its strict mode; this module adds what it lets
through and what it cannot know:

- framing that two readers could understand differently: a transfer coding other than exactly `chunked`,
  one in HTTP/1.0, several or bad `Host`, versions other than 1.0 and 1.1, CONNECT;
- bounds on everything a client may make us hold, and deadlines on everything it may make us wait for;
- order: one request is handled at a time, the others wait, and reading stops before too many wait;
- bodies are refused before they are read, and `100 Continue` is said only for a body that will be.

Not here: sockets, what a request means, how an error looks (`HttpServer.error_response`).

A refusal that leaves unread bytes behind ends the connection: the response is written, the sending side is
closed, and what still arrives is thrown away for a short while, since closing at once would reset the
connection and could destroy the response on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import httptools

from hubbub.front.http.head import BadRequest, read_head
from hubbub.front.http.limits import Refusal
from hubbub.front.http.request import Request
from hubbub.front.http.response import CLOSE, ResponseStream, has_body, with_header

if TYPE_CHECKING:
    from hubbub.front.http.server import HttpServer

logger = logging.getLogger(__name__)

NEVER: Final = 1 << 62

# What the reading side waits for. Below DONE it takes requests; above it, bytes are not looked at.
IDLE: Final = 0  # the first byte of a request
HEAD: Final = 1  # the rest of a header
BODY: Final = 2  # the rest of a body
UPGRADE: Final = 3  # the handler's decision whether the connection changes hands
DONE: Final = 4  # the answers to the requests read so far; no more requests are taken
CLOSING: Final = 5  # the transport, to flush and close
LINGERING: Final = 6  # a refused client, to notice and close

# Input is parsed in pieces of this size, so that the bounds hold to this much whatever a read returns.
_PIECE_BYTES: Final = 16 * 1024
# An idle connection keeps its parser this long; then it is dropped, and an idle connection is small.
_PARSER_IDLE: Final = 5_000
# A chunk costs this much framing without any padding: 16 digits and two line ends.
_CHUNK_FRAMING_BYTES: Final = 20


class _StopReading(Exception):
    """Ends the parser's run from within a callback: the rest of the input is not wanted."""


class HttpConnection(asyncio.Protocol):
    """Speaks HTTP/1.1 on one transport; made by `HttpServer.protocol`."""

    __slots__ = (
        "_advancing",
        "_body",
        "_body_bytes",
        "_body_bytes_max",
        "_body_since",
        "_chunks",
        "_expecting",
        "_framing_bytes",
        "_head_bytes",
        "_headers",
        "_idle_until",
        "_linger",
        "_parser",
        "_peer",
        "_queue",
        "_reading",
        "_refeed",
        "_request",
        "_stage",
        "_stream",
        "_target",
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
