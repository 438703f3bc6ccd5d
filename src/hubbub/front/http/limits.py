"""What the HTTP layer allows: every bound of a connection in one place.

Sizes are bytes, lengths of time are milliseconds. None is a protocol constant; each may be configured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one HTTP server; passing one has a status of its own, named beside it."""

    request_line_bytes_max: int = 16 * 1024
    """Length of the request target; 414."""

    header_bytes_max: int = 96 * 1024
    """Names, values and separators of all header fields of a request; 431. Service Bus allows 64 KiB of
    message properties, which are header fields here (rest.md §6), so the bound lies above that."""

    headers_max: int = 200
    """Header fields of a request; 431. The same bound holds for trailer fields."""

    body_bytes_max: int = 2 * 1024 * 1024
    """Body of a request for which `admit` named no bound of its own; 413."""

    body_framing_bytes_max: int = 16 * 1024
    """Chunk extensions, padded chunk sizes and trailers of one chunked body; 400."""

    header_timeout: int = 20_000
    """From the first byte of a request to the end of its header; 408."""

    body_timeout: int = 20_000
    """Grace for a body, whatever its size; 408."""

    body_rate_min: int = 2_000
    """Bytes a second: each byte that arrived prolongs the grace by its share; 408."""

    idle_timeout: int = 120_000
    """Between two requests; the connection is closed without a word."""

    write_timeout: int = 60_000
    """How long a client may leave a full write buffer untouched; the connection is dropped."""

    linger_timeout: int = 2_000
    """How long a refused client may go on sending before the connection is closed under it."""

    linger_bytes_max: int = 1024 * 1024
    """How much a refused client may go on sending; it is thrown away unread."""

    connections_max: int = 16_384
    """Open connections; one more is answered 503 and closed."""

    pipeline_depth_max: int = 16
    """Requests that wait behind the one being handled before reading stops."""

    pipeline_bytes_max: int = 256 * 1024
    """Their bodies together before reading stops."""

    write_buffer_bytes_max: int = 256 * 1024
    """Unsent response bytes before the next request has to wait and reading stops."""

    sweep_interval: int = 1_000
    """How often deadlines are looked at; timeouts are exact to this much."""


class Refusal:
    """What `admit` returns to turn a request away: one complete response, written as it is.

    The body of a refused request is never read; if there is one, the connection is closed after the response.
    """

    __slots__ = ("response",)

    def __init__(self, response: bytes) -> None:
        self.response = response
