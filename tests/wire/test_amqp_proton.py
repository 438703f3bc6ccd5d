"""The library as a small broker on a loopback socket, judged by Qpid Proton's client, an AMQP of other hands."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

import pytest
from proton import ConnectionException, Delivery, Message
from proton.utils import BlockingConnection, LinkDetached, SendException

from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.link import Receiver
from hubbub.wire.amqp.performatives import Error, Rejected


class Broker:
    """Queues in memory by address. The address `refused` is refused, `late` answered a moment later, messages to
    `picky` are rejected."""

    def __init__(self):
        self.queues = defaultdict(deque)
        self.links = defaultdict(list)
        self.tags = 0
        self.seen = []

    def authenticate(self, connection, mechanism, user, password):
        asyncio.get_running_loop().call_later(0.01, connection.authenticated, password == "secret")

    def opened(self, connection):
        self.seen.append((connection.mechanism, connection.user))

    def begun(self, session): ...

    def attach(self, link):
        address = (link.target if link.role else link.source).address
        if address == "refused":
            link.refuse("amqp:not-found", "there is no such queue")
        elif address == "late":
            asyncio.get_running_loop().call_later(0.05, self.accept, link, address)
        else:
            self.accept(link, address)

    def accept(self, link, address):
        link.context = address
        if not link.role:
            self.links[address].append(link)
        link.accept()
        if isinstance(link, Receiver):
            link.grant(10, keep=True)

    def attached(self, link):
        raise AssertionError("this broker asks for no links")

    def flow(self, link):
        if link.context is not None:
            self.serve(link.context)
            link.drained()

    def delivery(self, link, delivery):
        if link.context == "picky":
            link.settle(delivery, Rejected(Error("test:picky", "not this one")))
        else:
            self.queues[link.context].append((delivery.payload, delivery.format))
            link.settle(delivery)
            self.serve(link.context)

    def serve(self, address):
        for link in self.links[address]:
            while self.queues[address] and link.credit:
                payload, code = self.queues[address].popleft()
                self.tags += 1
                link.send(payload, b"\xff%d" % self.tags, format=code, settled=link.snd_settle_mode == 1)

    def disposition(self, link, deliveries, state, settled):
        self.seen.append((type(state).__name__, len(deliveries), settled))
        if not settled:
            link.settle(deliveries, state)

    def detached(self, link, error, closed):
        if link in self.links[link.context]:
            self.links[link.context].remove(link)

    def ended(self, session, error): ...

    def closed(self, connection, error):
        self.seen.append(("closed", error and error.condition))


class Wire(asyncio.Protocol):
    """One socket."""

    def __init__(self, broker):
        self.connection = Connection(broker, container_id="broker", wake=self.wake)

    def connection_made(self, transport):
        self.transport = transport
        self.tick()

    def tick(self):
        now = int(asyncio.get_running_loop().time() * 1000)
        due = self.connection.tick(now)
        self.timer = asyncio.get_running_loop().call_later((due - now) / 1000, self.tick)

    def wake(self):
        asyncio.get_running_loop().call_soon(self.flush)

    def flush(self):
        self.transport.write(self.connection.take())
        if self.connection.finished:
            self.transport.close()

    def data_received(self, data):
        self.connection.receive(data)
        if self.connection.finished:
            self.flush()

    def connection_lost(self, exc):
        self.connection.eof()
        self.timer.cancel()


def against_broker(client, **options):
    """Run `client(connection)` in a thread against a fresh broker; the broker."""

    async def main():
        broker = Broker()
        server = await asyncio.get_running_loop().create_server(lambda: Wire(broker), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        def run():
            connection = BlockingConnection(f"127.0.0.1:{port}", timeout=10, **options)
            try:
                client(connection)
            finally:
                connection.close()

        async with server:
            await asyncio.to_thread(run)
        return broker

    return asyncio.run(main())


ANONYMOUS = {"allowed_mechs": "ANONYMOUS"}
PLAIN = {"allowed_mechs": "PLAIN", "user": "RootKey", "password": "secret"}


@pytest.mark.parametrize(
    "options", [ANONYMOUS, PLAIN, {"sasl_enabled": False}, {**ANONYMOUS, "max_frame_size": 512}]
)
def test_messages_there_and_back(options):
    sizes = [0, 1, 100, 400, 512, 65_400, 65_536, 300_000, 1_048_576]

    def client(connection):
        sender = connection.create_sender("queue")
        for size in sizes:
            assert sender.send(Message(id=str(size), body=b"x" * size)).remote_state == Delivery.ACCEPTED
        receiver = connection.create_receiver("queue", credit=3)
        for size in sizes:
            message = receiver.receive(timeout=5)
            assert (message.id, len(message.body)) == (str(size), size)
            receiver.accept()
        receiver.close()
        sender.close()

    broker = against_broker(client, **options)
    assert (
        broker.seen[0]
        == {
            "ANONYMOUS": ("ANONYMOUS", None),
            "PLAIN": ("PLAIN", "RootKey"),
            None: (None, None),
        }[options.get("allowed_mechs")]
    )
    assert sum(seen[1] for seen in broker.seen if seen[0] == "Accepted") == len(sizes)
    assert broker.seen[-1] == ("closed", None)


def test_many_small_ones_and_every_outcome():
    def client(connection):
        sender = connection.create_sender("queue")
        for i in range(300):
            sender.send(Message(body=i))
        receiver = connection.create_receiver("queue", credit=50)
        for i in range(300):
            assert receiver.receive(timeout=5).body == i
            (receiver.accept, receiver.reject, receiver.release)[i % 3]()
        picky = connection.create_sender("picky")
        with pytest.raises(SendException) as caught:
            picky.send(Message(body="x"))
        assert caught.value.state == Delivery.REJECTED

    broker = against_broker(client, **ANONYMOUS)
    # Proton's `release` says modified when it was delivered.
    kinds = defaultdict(int)
    for kind, count, *_ in broker.seen:
        kinds[kind] += count if isinstance(count, int) else 0
    assert kinds["Accepted"] == kinds["Rejected"] == kinds["Modified"] + kinds["Released"] == 100


def test_refused_and_late_links():
    def client(connection):
        for ask in (connection.create_sender, connection.create_receiver):
            with pytest.raises(LinkDetached, match="there is no such queue"):
                ask("refused")
        connection.create_sender("late").send(Message(body="x"))
        assert connection.create_receiver("late").receive(timeout=5).body == "x"

    against_broker(client, **ANONYMOUS)


@pytest.mark.parametrize(
    "options", [{**PLAIN, "password": "wrong"}, {"allowed_mechs": "EXTERNAL", "user": "x", "password": "y"}]
)
def test_wrong_credentials(options):
    def client(connection):
        raise AssertionError("it was let in")

    with pytest.raises(ConnectionException):
        against_broker(client, **options)
