"""A whole REST house in memory: engine, namespace, doors and HTTP connections, without a socket."""

from __future__ import annotations

import asyncio
import re

from front.http_peer import MemoryTransport
from hubbub import __version__
from hubbub.broker.access import SharedKey, rights_of, sas_token
from hubbub.broker.entity import EventHub, Queue, Subscription, Topic
from hubbub.broker.limits import PROFILES, Limits
from hubbub.broker.namespace import Namespace
from hubbub.broker.node import Broker
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine
from hubbub.front.api.api import Api
from hubbub.front.api.health import Probe
from hubbub.front.http.limits import HttpLimits
from hubbub.front.http.server import HttpServer
from hubbub.front.letters import Letters
from hubbub.front.rest.door import RestDoor, RestOptions
from hubbub.front.rest.management import Management
from hubbub.telemetry import Meter

HOST = "contoso.servicebus.windows.net"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ROOT = "RootManageSharedAccessKey"
TOKEN = sas_token(f"https://{HOST}/", ROOT, KEY, 4_102_444_800)

# Every status that REST reference 5 or RFC 9110 gives a reason for here. 500 is not among them.
DOCUMENTED = {
    *(100, 200, 201, 204),
    *(400, 401, 403, 404, 405, 408, 409, 410, 411, 412, 413, 414, 415, 417, 431),
    *(501, 503, 505),
}
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")


class House:
    """Namespace `contoso` with a hub, a queue and a topic, and any number of connections to it."""

    def __init__(self, limits: Limits = PROFILES["standard"]) -> None:
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.runner.run(self._build(limits))

    async def _build(self, limits: Limits) -> None:
        engine = MemoryEngine()
        root = SharedKey(ROOT, rights_of(["Listen", "Send", "Manage"]), KEY)
        hosts = frozenset({"contoso", HOST})
        self.namespace = Namespace(
            "contoso", engine, self.clock, limits, hosts=hosts, keys=(root,), letters=Letters()
        )
        await self._restore()
        broker = Broker(engine, self.clock, [self.namespace])
        meter = Meter(broker)
        api = Api(broker, meter, Probe(engine, self.clock), self.clock, __version__)
        door = RestDoor(broker, self.clock, Management(self.clock), api, RestOptions(), meter)
        self.http = HttpServer(
            door.handle, door.admit, door.error_response, HttpLimits(), self.clock, lambda *_: None
        )
        meter.http = self.http

    async def _restore(self) -> None:
        for entity in (
            EventHub(path="hub", partition_count=2),
            Queue(path="queue"),
            Topic(path="topic"),
            Subscription(path="topic/subscriptions/s", topic="topic", name="s"),
        ):
            allowed = self.namespace.limits.topics_allowed or isinstance(entity, (EventHub, Queue))
            if allowed and self.namespace.entity(entity.path) is None:
                await self.namespace.create(entity)

    def restore(self) -> None:
        """Brings back what a request was allowed to delete."""
        self.runner.run(self._restore())

    def close(self) -> None:
        self.runner.close()

    def talk(self, *chunks: bytes) -> bytes:
        """Everything one new connection is answered to these reads, up to its last timeout."""
        return self.runner.run(self._talk(chunks))

    async def _talk(self, chunks: tuple[bytes, ...]) -> bytes:
        connection = self.http.protocol(False)()
        transport = MemoryTransport(connection)
        connection.connection_made(transport)
        for chunk in chunks:
            if chunk and not transport.closing and not transport.eof_written:
                transport.protocol.data_received(chunk)
                await self._settle()
        # Long polls and half requests come to their end.
        for _ in range(4):
            self.clock.advance(130_000)
            await self._settle()
            if transport.closing:
                break
        if not connection.lost:
            connection.connection_lost(None)
        return transport.output

    async def _settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def stored(self) -> tuple[int, ...]:
        """How much was ever stored in each log of messages."""
        ns = self.namespace
        hubs = [log.durable for hub in ns.hubs.values() for log in hub.partitions]
        return (*hubs, *(receiver.log.durable for receiver in ns.receivers.values()))


def request(
    method: bytes = b"POST",
    target: bytes = b"/hub/messages",
    body: bytes = b"",
    *lines: bytes,
    auth: bytes = TOKEN.encode(),
) -> bytes:
    head = [method + b" " + target + b" HTTP/1.1", b"Host: " + HOST.encode(), b"Authorization: " + auth]
    head += [*lines, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def statuses(output: bytes, *, heads: bool = False) -> list[int]:
    """The statuses of a stream of responses; fails if the stream is not well formed.

    `heads`: some of them may answer HEAD, and have a length but no body.
    """
    found = []
    while output:
        match = _STATUS.match(output)
        assert match, f"not a response: {output[:80]!r}"
        status = int(match[1])
        head, separator, output = output.partition(b"\r\n\r\n")
        assert separator, "a response head is not complete"
        found.append(status)
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        if heads and (not output or _STATUS.match(output)):
            size = 0
        assert len(output) >= size, "a response body is cut"
        body, output = output[:size], output[size:]
        if status >= 400 and body and b"application/xml" in head:
            assert b"<Error><Code>" in body, body
            assert b"TrackingId:" in body, body
    return found
