"""The programs that the AMQP rows start: a server that only acknowledges, and clients.

    python benchmarks/amqp_load.py sink | azure | send | fill | replay | copy | idle | codec  ...

Each prints one number or line when it is done. The clients are blocking and lean: what they cost must not be
what is measured. Only `azure` is the official one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rig import KEY, KEY_NAME

from hubbub.broker.access import sas_token
from hubbub.front.amqp.requests import Response, read_request, write_response
from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.delivery import Delivery, Sent
from hubbub.wire.amqp.frames import FrameReader
from hubbub.wire.amqp.handler import Limits
from hubbub.wire.amqp.hot import Tails, decode_transfer, encode_transfer, transfer_tail
from hubbub.wire.amqp.link import Link, Receiver, Sender
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    data_section,
    map_section,
    properties_section,
    value_section,
)
from hubbub.wire.amqp.performatives import ACCEPTED, Error, Source, State, Target, composite
from hubbub.wire.amqp.session import Session
from hubbub.wire.amqp.types import Array, Int, decode

BATCH_FORMAT = 0x80013700
BODY_BYTES = 1024
BATCH_EVENTS = 1000
IN_FLIGHT = 1000
"""Single transfers that wait for their outcome."""
ENDLESS = (1 << 31) - 1
LIMITS = Limits(incoming_window=ENDLESS, idle_ms=120_000)
DURABLE = b"\x00Sp\xc0\x02\x01\x41"
TOKEN_TYPE = "servicebus.windows.net:sastoken"
CHECK_EVERY = 64
"""Of how many replayed events one is looked into."""
CODEC_FRAMES = 200


def event(number: int) -> bytes:
    """A message of one data section that names its number."""
    return data_section(b"%012d" % number + b"x" * (BODY_BYTES - 12))


class Events:
    """A handler that does nothing of its own."""

    def authenticate(self, connection: Connection, mechanism: str, user: str, password: str) -> None: ...
    def opened(self, connection: Connection) -> None: ...
    def begun(self, session: Session) -> None: ...
    def attach(self, link: Link) -> None: ...
    def attached(self, link: Link) -> None: ...
    def flow(self, link: Link) -> None: ...
    def delivery(self, link: Receiver, delivery: Delivery) -> None: ...
    def disposition(
        self, link: Link, deliveries: Sequence[Sent], state: State | None, settled: bool
    ) -> None: ...
    def detached(self, link: Link, error: Error | None, closed: bool) -> None: ...
    def ended(self, session: Session, error: Error | None) -> None: ...
    def closed(self, connection: Connection, error: Error | None) -> None: ...


# The server that only acknowledges.


class Sink(asyncio.Protocol, Events):
    """Accepts every link and every delivery; says yes to `$cbs` and describes a hub of one partition."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        loop = asyncio.get_running_loop()
        self.wire = Connection(self, container_id="sink", wake=lambda: void(loop.call_soon(self.flush)))
        self.replies: dict[Session, Sender] = {}

    def data_received(self, data: bytes) -> None:
        self.wire.receive(data)

    def flush(self) -> None:
        self.transport.write(self.wire.take())

    def authenticate(self, connection: Connection, mechanism: str, user: str, password: str) -> None:
        connection.authenticated(True)

    def attach(self, link: Link) -> None:
        link.accept(max_message_size=1 << 20)
        if isinstance(link, Receiver):
            link.grant(1000, keep=True)
        elif isinstance(link, Sender):
            self.replies[link.session] = link

    def delivery(self, link: Receiver, delivery: Delivery) -> None:
        link.settle(delivery)
        if isinstance(link.target, Target) and str(link.target.address).rpartition("/")[2][:1] == "$":
            request = read_request(delivery.payload)
            body = {
                "name": "events",
                "created_at": 0,
                "partition_count": Int(1),
                "partition_ids": Array(["0"]),
            }
            answer = write_response(request, Response(200, "OK", body))
            self.replies[link.session].send(answer, b"\0", settled=True)


def void(_: object) -> None:
    """Drops a result."""


def sink() -> None:
    import uvloop

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(serve())


# The official client.


def azure(port: int, batch_events: int, anew: bool, seconds: float) -> float:
    """Events a second. One batch is sent again and again, so that of the client's own work only its encoding is
    left; or, `anew`, each is built of new events, as an application does it."""
    from azure.eventhub import EventData, EventHubProducerClient

    text = (
        f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY};"
        "UseDevelopmentEmulator=true"
    )
    with EventHubProducerClient.from_connection_string(text, eventhub_name="events") as client:

        def build() -> Any:
            batch = client.create_batch()
            for _ in range(batch_events):
                batch.add(EventData(b"x" * BODY_BYTES))
            return batch

        batch = build()
        for _ in range(5):
            client.send_batch(batch)
        sent, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            client.send_batch(build() if anew else batch)
            sent += batch_events
        return sent / (time.perf_counter() - began)


# Lean clients.


class Client(Events):
    """A blocking connection with one session and one link."""

    read_bytes_max = 1 << 18

    def __init__(self, port: int, user: str, password: str) -> None:
        """Without a user there is no SASL exchange of a name: the token comes later."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wire = Connection.client(
            self, container_id="bench", hostname="localhost", mechanism="PLAIN" if user else "ANONYMOUS",
            user=user, password=password, limits=LIMITS,
        )  # fmt: skip
        self.session = self.wire.begin()
        self.answered = self.received = 0

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.turn()

    def turn(self) -> None:
        """Send what there is, and take what comes."""
        data = self.wire.take()
        if data:
            self.socket.sendall(data)
        data = self.socket.recv(self.read_bytes_max)
        assert data, "the server hung up"
        self.wire.receive(data)

    def disposition(self, link: Link, deliveries: Sequence[Sent], state: State | None, settled: bool) -> None:
        assert state == ACCEPTED, state
        self.answered += len(deliveries)
        if not settled and isinstance(link, Sender):
            link.settle(deliveries, state)

    def detached(self, link: Link, error: Error | None, closed: bool) -> None:
        raise AssertionError(error)

    def closed(self, connection: Connection, error: Error | None) -> None:
        raise AssertionError(error)

    def put_token(self) -> None:
        """Over `$cbs`, as the official clients do it and keep the links for its renewal."""
        up = self.session.sender("cbs-up", Target("$cbs"))
        down = self.session.receiver("cbs-down", Source("$cbs"), Target("cbs-down"))
        self.until(lambda: up.attached and up.credit > 0 and down.attached)
        down.grant(100)
        application = {"operation": "put-token", "type": TOKEN_TYPE, "name": "sb://localhost/"}
        token = sas_token("sb://localhost/", KEY_NAME, KEY, 4_102_444_800)
        payload = properties_section(message_id="1", reply_to="cbs-down")
        payload += map_section(APPLICATION_PROPERTIES, application) + value_section(token)
        up.send(payload, b"\0")
        self.until(lambda: self.received == 1)

    def delivery(self, link: Receiver, delivery: Delivery) -> None:
        self.received += 1

    def sender(self, address: str) -> Sender:
        link = self.session.sender("bench", Target(address, 2), snd_settle_mode=0)
        self.until(lambda: link.attached and link.credit > 0)
        return link

    def pipeline(self, link: Sender, payloads: Any, in_flight: int, form: int, seconds: float) -> float:
        """Send, with so many unanswered at a time, until the payloads or the time end. Deliveries a second."""
        self.answered = 0
        sent, began = 0, time.perf_counter()
        for payload in payloads:
            link.send(payload, struct.pack(">I", sent), format=form)
            sent += 1
            if sent - self.answered >= in_flight or link.credit == 0:
                if time.perf_counter() > began + seconds:
                    break
                target = sent - in_flight // 2
                self.until(lambda target=target: self.answered >= target and link.credit > 0)
        self.until(lambda: self.answered == sent)
        return sent / (time.perf_counter() - began)


def send(port: int, address: str, seconds: float, user: str, password: str) -> float:
    """Single durable messages of 1 KB, pipelined; how many a second."""
    client = Client(port, user, password)
    payload = DURABLE + event(0)
    link = client.sender(address)
    client.pipeline(link, itertools.repeat(payload, 4 * IN_FLIGHT), IN_FLIGHT, 0, 60)
    return client.pipeline(link, itertools.repeat(payload), IN_FLIGHT, 0, seconds)


def fill(port: int, address: str, count: int, batch_events: int, user: str, password: str) -> float:
    """Numbered events in batches; how many a second."""
    batches = (
        b"".join(data_section(event(number)) for number in range(first, first + batch_events))
        for first in range(0, count, batch_events)
    )
    form = BATCH_FORMAT if batch_events > 1 else 0
    if batch_events == 1:
        batches = map(event, range(count))  # type: ignore[assignment]
    in_flight = max(4, 1000 // batch_events)
    client = Client(port, user, password)
    return batch_events * client.pipeline(client.sender(address), batches, in_flight, form, 3600)


def replay(port: int, address: str, count: int, user: str, password: str) -> float:
    """Receive so many numbered events from the first on; payload bytes a second."""
    client = Client(port, user, password)
    link = client.session.receiver("bench", Source(address), snd_settle_mode=1)
    client.until(lambda: link.attached)
    link.grant(ENDLESS)
    client.socket.sendall(client.wire.take())
    began = time.perf_counter()
    _walk(client.socket, count)
    return count * BODY_BYTES / (time.perf_counter() - began)


def _walk(connection: socket.socket, count: int) -> None:
    """Reads frames and looks no further than their sizes, but into some."""
    size_at = struct.Struct(">I").unpack_from
    buffer = memoryview(bytearray(1 << 20))
    filled = seen = 0
    while seen < count:
        got = connection.recv_into(buffer[filled:])
        assert got, "the server hung up"
        filled += got
        offset = 0
        while offset + 4 <= filled:
            end = offset + size_at(buffer, offset)[0]
            if end > filled:
                break
            if end - offset > BODY_BYTES:
                if not seen % CHECK_EVERY:
                    assert int(buffer[end - BODY_BYTES : end - BODY_BYTES + 12]) == seen, "out of order"
                seen += 1
            offset = end
        buffer[: filled - offset] = buffer[offset:filled]
        filled -= offset


def copy(folder: Path) -> None:
    """Serves one client the bytes of all journal files, as plainly as Python can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
        for path in sorted(folder.glob("**/*.journal")):
            with open(path, "rb", buffering=0) as file:
                while data := file.read(256 << 10):
                    connection.sendall(data)
        connection.close()


def drink(port: int) -> float:
    """Takes all that comes; bytes a second."""
    buffer = bytearray(256 << 10)
    count, began = 0, time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while got := connection.recv_into(buffer):
            count += got
    return count / (time.perf_counter() - began)


def idle(port: int, count: int, addresses: list[str]) -> None:
    """Opens connections with a token and one receiver each, prints a line, and keeps them alive until standard
    input ends."""
    clients = []
    for number in range(count):
        client = Client(port, "", "")
        client.put_token()
        link = client.session.receiver(f"idle-{number}", Source(addresses[number % len(addresses)]))
        client.until(lambda link=link: link.attached)
        link.grant(300)
        client.socket.sendall(client.wire.take())
        clients.append(client)
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    while True:
        for key, _ in selector.select(1):
            if key.data is None:
                os._exit(0)
            key.data.wire.receive(key.data.socket.recv(1 << 16))
        now = time.monotonic_ns() // 1_000_000
        for client in clients:
            client.wire.tick(now)
            data = client.wire.take()
            if data:
                client.socket.sendall(data)


# The codec alone.


class Codec:
    """One transfer frame of 1 KB, read and written as a connection does it."""

    def __init__(self) -> None:
        self.payload = event(0)
        tail = transfer_tail(0, False, False)
        self.frame = encode_transfer(1, 1, 70_000, b"\0\0\0\7", tail, len(self.payload)) + self.payload
        self.frames = self.frame * CODEC_FRAMES

    def read(self) -> None:
        """`CODEC_FRAMES` frames that came in one piece, each to its fields and its payload."""
        reader, tails = FrameReader(65_536), Tails()
        reader.header_due = False
        reader.feed(self.frames)
        while (found := reader.next()) is not None:
            _, _, data, start, end = found
            _, _, _, _, stop = decode_transfer(data, start, end, tails)
            data[stop:end]

    def read_generally(self) -> None:
        """The same frames by the decoder that takes any performative."""
        reader = FrameReader(65_536)
        reader.header_due = False
        reader.feed(self.frames)
        while (found := reader.next()) is not None:
            _, _, data, start, end = found
            value, stop = decode(data, start)
            composite(value)
            data[stop:end]

    def write(self) -> None:
        tail, size = transfer_tail(0, False, False), len(self.payload)
        for number in range(CODEC_FRAMES):
            b"".join((encode_transfer(1, 1, number, b"\0\0\0\7", tail, size), self.payload))


def codec() -> str:
    """Microseconds to read a transfer, to read it generally, and to write it: the best of many."""
    made = Codec()

    def best(work: Callable[[], None]) -> float:
        times = []
        for _ in range(200):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return min(times) / CODEC_FRAMES * 1e6

    return f"{best(made.read)} {best(made.read_generally)} {best(made.write)}"


def codec_loop(rounds: int) -> None:
    """Something to count the instructions of."""
    made = Codec()
    for _ in range(rounds):
        made.read()
        made.write()


Programs = dict[str, tuple[Callable[..., Any], tuple[Callable[[str], Any], ...]]]
PROGRAMS: Programs = {
    "sink": (sink, ()),
    "azure": (azure, (int, int, lambda text: text == "True", float)),
    "send": (send, (int, str, float, str, str)),
    "fill": (fill, (int, str, int, int, str, str)),
    "replay": (replay, (int, str, int, str, str)),
    "copy": (copy, (Path,)),
    "drink": (drink, (int,)),
    "codec": (codec, ()),
    "codec-loop": (codec_loop, (int,)),
    "idle": (idle, (int, int, lambda text: text.split(","))),
}


def run(programs: Programs, about: str) -> None:
    """The command line: a program and its arguments; prints what it returns."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("program", choices=programs)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    program, kinds = programs[options.program]
    result = program(*(kind(text) for kind, text in zip(kinds, options.arguments, strict=True)))
    if result is not None:
        print(result, flush=True)


if __name__ == "__main__":
    run(PROGRAMS, __doc__)
