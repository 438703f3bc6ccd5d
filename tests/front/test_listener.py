"""One port for everything: who gets a connection, and what happens to those that say nothing."""

from __future__ import annotations

import asyncio

import pytest

from front.http_peer import MemoryTransport
from hubbub.front.listener import Silence, Sniffer


class Taker:
    """Stands for a protocol: remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def attach(self, transport: asyncio.Transport, first_bytes: bytes) -> None:
        self.taken.append(first_bytes)


class Port:
    def __init__(self, connections_max: int = 2) -> None:
        self.http, self.amqp = Taker(), Taker()
        self.silence = Silence(connections_max)

    def connect(self) -> tuple[Sniffer, MemoryTransport]:
        sniffer = Sniffer(lambda: self.http, lambda: self.amqp, self.silence)
        transport = MemoryTransport(sniffer)
        sniffer.connection_made(transport)
        return sniffer, transport


@pytest.mark.parametrize(
    ("pieces", "to_http", "to_amqp"),
    [
        ([b"POST / HTTP/1.1\r\n"], [b"POST / HTTP/1.1\r\n"], []),
        ([b"AMQP\0\1\0\0"], [], [b"AMQP\0\1\0\0"]),
        ([b"A", b"M", b"QP\3"], [], [b"AMQP\3"]),
        ([b"AM", b"IGA"], [b"AMIGA"], []),
        ([b"AMQ"], [], []),
    ],
)
def test_the_first_bytes_choose(pieces, to_http, to_amqp):
    async def main():
        port = Port()
        sniffer, _ = port.connect()
        for piece in pieces:
            sniffer.data_received(piece)
        assert (port.http.taken, port.amqp.taken) == (to_http, to_amqp)
        assert port.silence.count == (not to_http and not to_amqp)

    asyncio.run(main())


def test_silent_connections_are_capped():
    async def main():
        port = Port(connections_max=2)
        speaker, leaver = port.connect(), port.connect()
        refused, transport = port.connect()
        assert transport.aborted
        refused.data_received(b"POST / HTTP/1.1\r\n")
        refused.connection_lost(None)
        assert (port.http.taken, port.silence.count) == ([], 2)
        speaker[0].data_received(b"GET /")
        leaver[0].connection_lost(None)
        assert port.silence.count == 0
        assert not port.connect()[1].aborted

    asyncio.run(main())
