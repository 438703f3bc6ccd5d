"""An HTTP/1.1 connection for asyncio: what `bench` and the live `tail` need, and no more.

Requests go one after the other. It reads answers with a length or in chunks, as our server and the service
send them, and follows nothing. The other commands use `client.Client`, which blocks.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from .client import EXIT_BY_STATUS, HINTS, Client, Failure, said, tls, unreachable

OPEN_SECONDS_MAX = 10


class Web:
    """One kept connection. Everything here raises Failure: `lost` if the connection is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Client) -> None:
        self._reader = reader
        self._writer = writer
        self._where = f"{client.target.host}:{client.target.port}"
        self._head = f"Host: {client.target.host}\r\nAuthorization: {client.token()}\r\n".encode()

    @classmethod
    async def open(cls, client: Client) -> Web:
        target = client.target
        context = tls(target, client.ca)
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context)
        except OSError as error:  # TimeoutError is one.
            raise Failure(unreachable(target, target.port, error), 7) from None
        # A stream may be silent for long; this finds out that the other end is gone.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(reader, writer, client)

    def close(self) -> None:
        self._writer.close()

    async def request(
        self, method: str, path: str, body: bytes = b"", kind: bytes = b"text/plain"
    ) -> tuple[int, bytes, bytes]:
        """Status, head and body."""
        try:
            status, head = await self._ask(method, path, body, kind)
            return status, head, await self._body(head)
        except (OSError, EOFError) as error:
            raise self._gone(error) from None

    async def json(self, path: str) -> Any:
        """What a GET of the JSON API answers; a refusal is a Failure too."""
        status, _, content = await self.request("GET", f"/_hubbub/api/v1/{path}")
        if status != 200:
            raise refused(status, content)
        return json.loads(content)

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a GET that streams, as many whole ones at a time as there are. Ends in a Failure."""
        try:
            status, head = await self._ask("GET", f"/_hubbub/api/v1/{path}", b"", b"text/plain")
            if status != 200:
                raise refused(status, await self._body(head))
            rest = b""
            while chunk := await self._chunk():
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield whole
        except (OSError, EOFError) as error:
            raise self._gone(error) from None
        raise Failure(f"{self._where} has ended the stream", 7, lost=True)

    async def _ask(self, method: str, path: str, body: bytes, kind: bytes) -> tuple[int, bytes]:
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\n".encode()
            + self._head
            + b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
            + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise Failure(f"{self._where} does not speak HTTP. Does the connection string name its port?", 7)
        return int(head[9:12]), head

    async def _body(self, head: bytes) -> bytes:
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        if at >= 0:
            return await self._reader.readexactly(int(head[at + 17 : head.index(b"\r\n", at + 2)]))
        parts = []
        if b"\r\ntransfer-encoding: chunked\r\n" in lower:
            while chunk := await self._chunk():
                parts.append(chunk)
        return b"".join(parts)

    async def _chunk(self) -> bytes:
        """The next chunk; b"" at the end."""
        size = int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    def _gone(self, error: Exception) -> Failure:
        why = getattr(error, "strerror", None) or "it was closed"
        return Failure(f"the connection to {self._where} was lost ({why})", 7, lost=True)


def refused(status: int, content: bytes) -> Failure:
    """A refusal in the server's words, with the exit code for it."""
    code = EXIT_BY_STATUS.get(status, 7 if status >= 500 else 1)
    return Failure(f"{status} {said(content)}", code, hint=HINTS.get(code, ""))
