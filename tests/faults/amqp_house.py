"""A whole AMQP house in memory, with clients on the project's own wire library, and time that is jumped."""

from __future__ import annotations

import asyncio
from typing import Any

from front.http_peer import MemoryTransport
from hubbub.broker.access import SharedKey, rights_of, sas_token
from hubbub.broker.entity import ConsumerGroup, EventHub, Queue
from hubbub.broker.limits import PROFILES
from hubbub.broker.namespace import Namespace
from hubbub.broker.node import Broker
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine
from hubbub.front.amqp.server import AmqpServer
from hubbub.front.letters import Letters
from hubbub.telemetry import Meter
from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    data_section,
    map_section,
    properties_section,
    value_section,
)
from hubbub.wire.amqp.performatives import Source, Target
from wire.amqp_kit import Notes, frames

HOST, ROOT, KEY = "contoso.servicebus.windows.net", "RootManageSharedAccessKey", "c2VjcmV0"

# What the service documents for a client's faults (AMQP reference 3.10, 4.9) or the protocol names for them.
# `amqp:internal-error` is a mistake of ours and not among them.
CONDITIONS = {
    *("amqp:decode-error", "amqp:not-found", "amqp:not-allowed", "amqp:invalid-field", "amqp:not-implemented"),
    *("amqp:unauthorized-access", "amqp:resource-limit-exceeded", "amqp:illegal-state", "amqp:frame-size-too-small"),
    *("amqp:connection:framing-error", "amqp:connection:forced", "amqp:session:window-violation"),
    *("amqp:session:errant-link", "amqp:session:handle-in-use", "amqp:session:unattached-handle"),
    *("amqp:link:transfer-limit-exceeded", "amqp:link:message-size-exceeded", "amqp:link:detach-forced"),
    *("amqp:link:stolen", "com.microsoft:argument-error", "com.microsoft:argument-out-of-range"),
    *("com.microsoft:message-lock-lost", "com.microsoft:server-busy", "com.microsoft:timeout"),
    *("com.microsoft:session-lock-lost", "com.microsoft:session-cannot-be-locked"),
    *("com.microsoft:out-of-order-sequence", "com.microsoft:producer-epoch-stolen"),
    *("amqp:transaction:unknown-id", "amqp:transaction:timeout", "amqp:transaction:rollback"),
    *("com.microsoft:message-not-found", "com.microsoft:entity-already-exists"),
}  # fmt: skip


class Client:
    """`notes` has what happened; `good` says whether it still works."""

    def __init__(
        self, house: AmqpHouse, mechanism: str = "PLAIN", user: str = ROOT, password: str = KEY
    ) -> None:
        self.house = house
        self.notes = Notes()
        self.wire = Connection.client(
            self.notes, container_id="c", hostname=HOST, mechanism=mechanism, user=user, password=password
        )
        self.protocol = house.server.protocol()
        self.transport = MemoryTransport(self.protocol)
        self.protocol.connection_made(self.transport)
        self.session = self.wire.begin()

    async def run(self) -> None:
        """Until nothing more goes either way."""
        for _ in range(100):
            data = self.wire.take()
            if data and not self.transport.closing:
                self.protocol.data_received(data)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            answer, self.transport.output = self.transport.output, b""
            if answer:
                self.wire.receive(answer)
            elif not data:
                break
        if self.transport.closing:
            self.protocol.connection_lost(None)

    async def leave(self) -> None:
        """The socket is closed."""
        self.protocol.connection_lost(None)
        await asyncio.sleep(0)

    async def raw(self, data: bytes) -> None:
        self.protocol.data_received(data)
        await self.run()

    async def sender(self, address: str):
        link = self.session.sender(f"s-{address}-{len(self.notes.events)}", Target(address), Source("c"))
        await self.run()
        return link

    async def receiver(self, address: str):
        link = self.session.receiver(f"r-{address}-{len(self.notes.events)}", Source(address), Target("c"))
        await self.run()
        return link

    async def put_token(self, seconds: int, audience: str = f"sb://{HOST}/") -> None:
        """Over `$cbs`; the answer is the last delivery of the notes."""
        if not hasattr(self, "cbs"):
            self.replies = await self.receiver("$cbs")
            self.cbs = await self.sender("$cbs")
        token = sas_token(audience, ROOT, KEY, self.house.clock.now() // 1000 + seconds)
        application = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": audience}
        self.cbs.send(
            properties_section(message_id="m", reply_to="c")
            + map_section(APPLICATION_PROPERTIES, application)
            + value_section(token),
            b"t",
        )
        await self.run()

    @property
    def conditions(self) -> list[str]:
        """Of every error the server told, in order."""
        errors = [part for event in self.notes.events for part in event if hasattr(part, "condition")]
        return [error.condition for error in errors]

    @property
    def gone(self) -> bool:
        return self.transport.closing


class Raw:
    """A client without a library: bytes go in as they are. `output` is all that came back."""

    def __init__(self, house: AmqpHouse) -> None:
        self.protocol = house.server.protocol()
        self.transport = MemoryTransport(self.protocol)
        self.protocol.connection_made(self.transport)

    async def send(self, data: bytes) -> None:
        if not self.gone:
            self.protocol.data_received(data)
        for _ in range(12):
            await asyncio.sleep(0)

    async def leave(self) -> None:
        """The socket is closed."""
        self.protocol.connection_lost(None)
        for _ in range(4):
            await asyncio.sleep(0)

    @property
    def gone(self) -> bool:
        return self.transport.closing

    @property
    def output(self) -> bytes:
        return self.transport.output

    @property
    def performatives(self) -> list[Any]:
        """All that the server said after the headers, in order. Fails for what is not well formed."""
        data, found = self.output, []
        while data[:4] == b"AMQP":
            data, size = data[8:], 0
            while data[size : size + 4] not in (b"", b"AMQP"):
                size += int.from_bytes(data[size : size + 4], "big")
            found += [performative for _, performative, _ in frames(data[:size])]
            data = data[size:]
        assert not data, data[:40]
        return found

    @property
    def conditions(self) -> list[str]:
        """Of every error that was told: of connection, session or link, or in an outcome."""
        found = (getattr(p, "error", None) or getattr(getattr(p, "state", None), "error", None)
                 for p in self.performatives)  # fmt: skip
        return [error.condition for error in found if error is not None]


class AmqpHouse:
    def __init__(self) -> None:
        self.clock = ManualClock()

    async def open(self) -> AmqpHouse:
        engine = MemoryEngine()
        keys = (SharedKey(ROOT, rights_of(["Listen", "Send", "Manage"]), KEY),)
        namespace = Namespace(
            "contoso", engine, self.clock, PROFILES["standard"], hosts=frozenset({"contoso", HOST}), keys=keys,
            letters=Letters(),
        )  # fmt: skip
        await namespace.create(EventHub(path="hub", partition_count=1))
        await namespace.create(Queue(path="queue"))
        if namespace.entity("hub/consumergroups/$default") is None:
            await namespace.create(
                ConsumerGroup(path="hub/consumergroups/$Default", hub="hub", name="$Default")
            )
        self.namespace = namespace
        self.broker = Broker(engine, self.clock, [namespace])
        self.server = AmqpServer(self.broker, self.clock, Meter(self.broker))
        await self.renew()
        return self

    async def renew(self) -> None:
        """The good client comes anew, when time or keys have ended its connection rightly."""
        self.good = await self.client()
        self.good_link = await self.good.sender("hub/Partitions/0")

    async def client(self, *how: str) -> Client:
        client = Client(self, *how)
        await client.run()
        return client

    async def works(self) -> None:
        """A client that has done no wrong is served as before."""
        before = len(self.good.notes.outcomes)
        self.good_link.send(data_section(b"good"), b"%d" % before)
        await self.good.run()
        assert len(self.good.notes.outcomes) == before + 1
        assert type(self.good.notes.outcomes[-1][1]).__name__ == "Accepted"


def house(test):
    """Runs a coroutine test with a house, and checks at its end that the house still works."""

    def run(**rest):
        async def main():
            house = await AmqpHouse().open()
            await test(house, **rest)
            await house.works()

        asyncio.run(main())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
