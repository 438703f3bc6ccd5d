"""AMQP connections on transports of an event loop, and what they share.

A transport writes once per turn of the loop, so that what many links send goes out in one piece.

Rules:
- links send only while less than a bounded piece waits to be written;
- a client that asks and asks without reading the answers is not read either;
- what all clients have sent and is not yet durable is bounded, by not reading those on that sent it;
- a client that does not read the end is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from ...broker.namespace import Namespace
from ...broker.node import Broker
from ...clock import Clock, Timer
from ...telemetry import Meter
from ...wire.amqp.connection import Connection
from ...wire.amqp.handler import Limits
from .hubs import Consumer, Readers
from .peer import Peer

CONTAINER = "hubbub"
WRITE_BUFFER_BYTES_MAX = 1 << 20
UNREAD_BYTES_MAX = 4 << 20
"""Far above what links send unasked: a client that is busy writing must still be read, or both would wait."""
HELD_BYTES_MAX = 256 << 20
"""Deliveries of all connections that are not durable yet."""
REFUSALS_MAX = 64
"""Connections beyond `connections_max` that are told so; those beyond these too are just closed."""
LINGER = 10_000
"""How long a client may take to read what is left when its connection ends, ms."""
HELD, UNREAD = 1, 2  # why a connection is not read on


class AmqpServer:
    """`limits` of each connection; `connections_max` of all together."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        meter: Meter,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        connections_max: int = 16_384,
    ) -> None:
        self.broker = broker
        self.clock = clock
        self.meter = meter
        self.limits = limits
        self.connections_max = connections_max
        self.connections: set[AmqpTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.readers: dict[tuple[str, str, int], Readers] = {}
        self.kept_bytes = 0
        self.held_bytes = 0
        for namespace in broker.namespaces.values():
            namespace.watchers.append(partial(self._changed, namespace))

    def protocol(self) -> AmqpTransport:
        return AmqpTransport(self)

    def spawn(self, work: Coroutine[Any, Any, object], done: Callable[[Exception | None], object]) -> None:
        """Does what takes a while; `done` gets None, or what it raised."""

        async def run() -> None:
            try:
                await work
            except Exception as error:
                done(error)
            else:
                done(None)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def leave(self, consumer: Consumer) -> None:
        """A consumer is gone."""
        readers = self.readers.get(consumer.key)
        if readers is not None:
            readers.leave(consumer)
            if not readers.consumers:
                del self.readers[consumer.key]

    @property
    def crowded(self) -> bool:
        """Whether clients send faster than the disk takes it."""
        return self.held_bytes > HELD_BYTES_MAX

    @property
    def full(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self.connections) > self.connections_max

    def _changed(self, namespace: Namespace) -> None:
        """An entity came, changed or went."""
        for connection in list(self.connections):
            if connection.handler.namespace is namespace:
                connection.handler.revisit()

    def rotated(self, namespace: Namespace) -> None:
        """Keys have changed: clients must show their tokens again."""
        for connection in list(self.connections):
            if connection.handler.namespace is namespace:
                connection.handler.forget_tokens()

    async def drain(self) -> None:
        """Tells all clients to go, and gives them a moment to answer."""
        for connection in list(self.connections):
            connection.wire.close("amqp:connection:forced", "The server is going down; connect again.")
            connection.flush()
        for _ in range(20):
            if not self.connections:
                return
            await asyncio.sleep(0.05)
        for connection in list(self.connections):
            connection.abort()


class AmqpTransport(asyncio.Protocol):
    """One connection: bytes of a transport to the wire library and back."""

    transport: asyncio.Transport

    def __init__(self, server: AmqpServer) -> None:
        self.server = server
        self.handler = Peer(server, self)
        self.wire = Connection(self.handler, container_id=CONTAINER, limits=server.limits, wake=self._wake)
        self.peer = ""
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._flowing = True
        self._stopped = 0
        self._stalled: dict[Callable[[], None], None] = {}
        self._timer: Timer | None = None
        self._done = False

    def attach(self, transport: asyncio.Transport, first_bytes: bytes) -> None:
        """Takes over a connected transport of which `first_bytes` were read already."""
        transport.set_protocol(self)
        self.connection_made(transport)
        self.data_received(first_bytes)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        name = self.transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
        if len(self.server.connections) >= self.server.connections_max + REFUSALS_MAX:
            self._done = True
            self.transport.abort()
            return
        self.server.connections.add(self)
        self._tick()

    def data_received(self, data: bytes) -> None:
        if self._done:
            return
        self.wire.receive(data)
        if self.wire.finished:
            self.flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._done = True
        self.wire.eof()
        self.server.connections.discard(self)
        self._stalled = {}
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._flowing = False

    def resume_writing(self) -> None:
        self._flowing = True
        self.resume(UNREAD)
        self._go_on()

    # What the peer asks.

    @property
    def writable(self) -> bool:
        """Whether links may send: what they write goes out at the end of the turn, and counts before."""
        return self._flowing and self.wire.output_bytes < WRITE_BUFFER_BYTES_MAX

    def when_writable(self, callback: Callable[[], None]) -> None:
        self._stalled[callback] = None

    def soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def pause(self, why: int = HELD) -> None:
        if not self._stopped and not self._done:
            self.transport.pause_reading()
        self._stopped |= why

    def resume(self, why: int = HELD) -> None:
        if self._stopped == why and not self._done:
            self.transport.resume_reading()
        self._stopped &= ~why

    def weigh(self) -> None:
        """Stops reading from a client that does not read."""
        if self.transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self.pause(UNREAD)

    # Writing.

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._scheduled = False
        if self._done:
            return
        data = self.wire.take()
        if data:
            self.transport.write(data)
            self.weigh()
        if self.wire.finished:
            self.end()
        elif self._stalled:
            self._go_on()

    def _go_on(self) -> None:
        """Who could not send takes up again, the longest waiting first."""
        while self._stalled and self.writable:
            callback = next(iter(self._stalled))
            del self._stalled[callback]
            callback()

    def end(self) -> None:
        """What was written may still be read, for a while."""
        if self._done:
            return
        self._done = True
        self.transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.server.clock.call_at(self.server.clock.now() + LINGER, self.transport.abort)

    def abort(self) -> None:
        self.transport.abort()

    def _tick(self) -> None:
        now = self.server.clock.now()
        due = self.wire.tick(now)
        self.flush()
        if not self._done:
            self._timer = self.server.clock.call_at(max(due, now + 1), self._tick)
