"""The clients that the rows of Service Bus start.

    python benchmarks/servicebus_load.py send | fill | receive | sessions  ...

Each prints how many messages a second it sent or received. They are lean and blocking, as those of `amqp_load`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from amqp_load import BATCH_FORMAT, DURABLE, IN_FLIGHT, Client, Programs, run

from hubbub.wire.amqp.delivery import Delivery
from hubbub.wire.amqp.link import Link, Receiver
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    data_section,
    map_section,
    properties_section,
)
from hubbub.wire.amqp.performatives import Error, Source
from hubbub.wire.amqp.types import Int, Symbol

BODY_BYTES = 256
PREFETCH = 500
BATCH_MESSAGES = 200
REGIONS = 10
SESSION_FILTER = Symbol("com.microsoft:session-filter")


def message(number: int, session: str | None = None, properties: bytes = b"") -> bytes:
    """A durable message of 256 bytes with an id."""
    named = {"message_id": f"m-{number:012}"} | ({} if session is None else {"group_id": session})
    return DURABLE + properties_section(**named) + properties + data_section(b"x" * BODY_BYTES)


def regional(number: int) -> bytes:
    """One with the properties that rules look at."""
    seen = {"region": f"r{number % REGIONS}", "amount": Int(1000)}
    return message(number, None, map_section(APPLICATION_PROPERTIES, seen))


class Getting(Client):
    """Counts what comes, and accepts it: everything of one read at once."""

    def __init__(self, port: int, user: str, password: str) -> None:
        super().__init__(port, user, password)
        self.taken: dict[Receiver, list[Delivery]] = {}

    def delivery(self, link: Receiver, delivery: Delivery) -> None:
        self.received += 1
        self.taken.setdefault(link, []).append(delivery)

    def accept(self) -> None:
        taken, self.taken = self.taken, {}
        for link, deliveries in taken.items():
            link.settle(deliveries)

    def turn(self) -> None:
        super().turn()
        self.accept()

    def finish(self, address: str) -> None:
        """Until the server has seen all that was accepted: it answers in order."""
        self.sender(address)


class Roaming(Getting):
    """Receivers that each take the next available session, receive what it has, and go on to the next."""

    read_bytes_max = 1 << 13
    """Little at a time, or all would go on together, and the server and its client wait for each other."""

    def __init__(self, port: int, user: str, password: str) -> None:
        super().__init__(port, user, password)
        self.address = ""
        self.number = 0
        self.over: list[Receiver] = []

    def next(self) -> None:
        self.number += 1
        source = Source(self.address, filter={SESSION_FILTER: None})
        self.session.receiver(f"bench-{self.number}", source, snd_settle_mode=0)

    def attached(self, link: Link) -> None:
        if isinstance(link, Receiver):
            link.grant(PREFETCH)
            link.drain()

    def flow(self, link: Link) -> None:
        if isinstance(link, Receiver):
            self.over.append(link)

    def turn(self) -> None:
        super().turn()
        over, self.over = self.over, []
        for link in over:
            link.detach()
            self.next()

    def detached(self, link: Link, error: Error | None, closed: bool) -> None:
        raise AssertionError(error)


def send(port: int, address: str, count: int, kind: str, user: str, password: str) -> float:
    """Single durable messages, pipelined."""
    client = Client(port, user, password)
    made = [regional(number) if kind == "regional" else message(number) for number in range(REGIONS)]
    payloads = itertools.islice(itertools.cycle(made), count)
    return client.pipeline(client.sender(address), payloads, IN_FLIGHT, 0, 3600)


def fill(port: int, addresses: list[str], count: int, sessions: int, user: str, password: str) -> float:
    """So many messages to each address, in batches that go round; of so many sessions, in turn, if any."""
    client = Client(port, user, password)
    began = time.perf_counter()

    def batch(first: int, size: int) -> Iterator[bytes]:
        for number in range(first, first + size):
            yield data_section(message(number, f"s{number % sessions}" if sessions else None))

    at = 0
    while at < count:
        size = min(count - at, BATCH_MESSAGES if len(addresses) > 1 else 20 * BATCH_MESSAGES)
        batches = [
            b"".join(batch(first, min(BATCH_MESSAGES, at + size - first)))
            for first in range(at, at + size, BATCH_MESSAGES)
        ]
        for address in addresses:
            link = client.sender(address)
            client.pipeline(link, batches, 20, BATCH_FORMAT, 3600)
            link.detach()
        at += size
    return count * len(addresses) / (time.perf_counter() - began)


def receive(port: int, address: str, count: int, user: str, password: str) -> float:
    """Receives and accepts, with a prefetch of 500; until the server knows of all."""
    client = Getting(port, user, password)
    link = client.session.receiver("bench", Source(address, 2), snd_settle_mode=0)
    client.until(lambda: link.attached)
    began = time.perf_counter()
    while client.received < count:
        left = min(PREFETCH, count - client.received)
        if link.credit <= PREFETCH // 2 and link.credit < left:
            link.grant(left)
        client.turn()
    client.finish(address)
    return client.received / (time.perf_counter() - began)


def sessions(port: int, address: str, count: int, receivers: int, user: str, password: str) -> float:
    """As many messages of sessions, whoever has them, with so many receivers at a time."""
    client = Roaming(port, user, password)
    client.address = address
    began = time.perf_counter()
    for _ in range(receivers):
        client.next()
    client.until(lambda: client.received >= count)
    client.finish(address)
    return client.received / (time.perf_counter() - began)


PROGRAMS: Programs = {
    "send": (send, (int, str, int, str, str, str)),
    "fill": (fill, (int, lambda text: text.split(","), int, int, str, str)),
    "receive": (receive, (int, str, int, str, str)),
    "sessions": (sessions, (int, str, int, int, str, str)),
}

if __name__ == "__main__":
    run(PROGRAMS, __doc__)
