"""The programs that the rows of time start: what gives a server very many timers, and what sees how late they are.

    python benchmarks/time_load.py pile | hold | probe | watch  ...

`pile` and `hold` are blocking and lean; `probe` waits for several things at once, so it is on an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from amqp_load import BATCH_FORMAT, Client, Programs, run
from rig import KEY, KEY_NAME

from hubbub.cli.amqp import AmqpClient, AmqpError, Inbox, accept, opened
from hubbub.cli.client import parse
from hubbub.wire.amqp.delivery import Delivery
from hubbub.wire.amqp.link import Receiver
from hubbub.wire.amqp.message import (
    HEADER,
    MESSAGE_ANNOTATIONS,
    data_section,
    list_section,
    map_section,
    properties_section,
)
from hubbub.wire.amqp.performatives import Source, Target
from hubbub.wire.amqp.types import Symbol, Timestamp, Uint

HOUR = 3_600_000
BATCH = 500
HELD_MAX = 50_000
SCHEDULED_TIME, LOCKED_UNTIL = Symbol("x-opt-scheduled-enqueue-time"), Symbol("x-opt-locked-until")
SEQUENCE = Symbol("x-opt-sequence-number")
SESSION_FILTER, SESSION_TIMEOUT = Symbol("com.microsoft:session-filter"), Symbol("com.microsoft:timeout")
SESSION_UNTIL = Symbol("com.microsoft:locked-until-utc")
TICKS_1970 = 621_355_968_000_000_000
SCHEDULED, FLEETING, BRIEF, SEATS = "scheduled", "fleeting", "brief", "seats"
LOCKS = 8
"""Locks, and session locks, that run out again and again."""
PAUSE = 0.05
"""Seconds between messages that are scheduled, or have an end."""


def now_ms() -> float:
    return time.time() * 1000


# Very many timers.


def scheduled(due: int) -> bytes:
    return map_section(MESSAGE_ANNOTATIONS, {SCHEDULED_TIME: Timestamp(due)}) + data_section(b"x" * 64)


def ending(moment: int) -> bytes:
    ttl = max(1, moment - int(now_ms()))
    return list_section(HEADER, [None, None, Uint(ttl)]) + data_section(b"x" * 64)


def pile(port: int, address: str, count: int, kind: str, moment: int) -> float:
    """Messages that are scheduled, end, or neither; all at one moment, or (0) spread over the second hour from
    now. How many a second."""
    client = Client(port, KEY_NAME, KEY)
    link = client.sender(address)
    make: Callable[[int], bytes] = {"scheduled": scheduled, "ending": ending}.get(
        kind, lambda _: data_section(b"x")
    )
    first = int(now_ms()) + HOUR

    def batches() -> Iterator[bytes]:
        for start in range(0, count, BATCH):
            numbers = range(start, min(start + BATCH, count))
            yield b"".join(data_section(make(moment or first + number * HOUR // count)) for number in numbers)

    return BATCH * client.pipeline(link, batches(), 4, BATCH_FORMAT, 3600)


class Holding(Client):
    """Counts what comes, and settles nothing."""

    def disposition(self, *_: Any) -> None: ...


def hold(port: int, address: str, count: int) -> float:
    """Locks so many messages and leaves; how many a second. A session of AMQP can hold only so many."""
    began = time.perf_counter()
    for start in range(0, count, HELD_MAX):
        most = min(HELD_MAX, count - start)
        client = Holding(port, KEY_NAME, KEY)
        link = client.session.receiver("hold", Source(address), snd_settle_mode=0)
        client.until(lambda link=link: link.attached)
        link.grant(most)
        client.until(lambda client=client, most=most: client.received >= most)
        client.socket.close()
    return count / (time.perf_counter() - began)


# How late.


class Probe:
    """Milliseconds from each moment until a client knew, by kind."""

    def __init__(self, client: AmqpClient) -> None:
        self.client = client
        self.late: dict[str, list[float]] = {
            kind: [] for kind in ("schedule", "time to live", "lock", "session lock")
        }
        self._until: dict[int | str, float] = {}
        self._numbers = itertools.count()

    def note(self, kind: str, moment: float) -> None:
        self.late[kind].append(now_ms() - moment)

    def came(self, link: Receiver, delivery: Delivery) -> None:
        """A scheduled message."""
        _, _, annotations, _ = opened(delivery.payload)
        self.note("schedule", annotations[SCHEDULED_TIME])
        accept(link, delivery)

    def ended(self, link: Receiver, delivery: Delivery) -> None:
        """A dead letter that says when its time was over."""
        properties, *_ = opened(delivery.payload)
        self.note("time to live", properties["absolute_expiry"])
        accept(link, delivery)

    def again(self, link: Receiver, delivery: Delivery) -> None:
        """A message whose lock ran out; nobody settles it, so it comes again and again."""
        _, _, annotations, _ = opened(delivery.payload)
        number = annotations[SEQUENCE]
        if number in self._until:
            self.note("lock", self._until[number])
        self._until[number] = annotations[LOCKED_UNTIL]

    async def seat(self) -> None:
        """Accepts whichever session is free next, until its lock runs out; without end."""
        while True:
            properties = {SESSION_TIMEOUT: Uint(60_000)}
            link = self.client.session.receiver(
                f"seat-{next(self._numbers)}",
                Source(SEATS, filter={SESSION_FILTER: None}),
                Target("bench"),
                properties=properties,
            )
            link.context = inbox = Inbox(self.client, link, lambda link, delivery: None)
            await self.client.wait(inbox.attached)
            assert isinstance(link.source, Source)
            session = str((link.source.filter or {})[SESSION_FILTER])
            if session in self._until:
                self.note("session lock", self._until[session])
            ticks = (link.attach.properties or {})[SESSION_UNTIL]
            self._until[session] = (ticks - TICKS_1970) / 10_000
            with contextlib.suppress(AmqpError):  # That the lock is lost. Any other, and too few come.
                await self.client.wait(inbox.done)


async def _probe(port: int, seconds: float) -> str:
    text = f"Endpoint=sb://localhost:{port};SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY};UseDevelopmentEmulator=true"
    async with await AmqpClient.connect(parse(text)) as client:
        probe = Probe(client)
        await client.receiver(SCHEDULED, probe.came)
        await client.receiver(f"{FLEETING}/$deadletterqueue", probe.ended)
        await client.receiver(BRIEF, probe.again)
        outs = {name: await client.sender(name) for name in (SCHEDULED, FLEETING, BRIEF, SEATS)}
        for number in range(LOCKS):
            await client.wait(outs[BRIEF].send(data_section(b"%d" % number)))
            named = properties_section(group_id=f"s{number}") + data_section(b"x")
            await client.wait(outs[SEATS].send(named))
        seats = [asyncio.create_task(probe.seat()) for _ in range(LOCKS + 1)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            moment = int(now_ms()) + random.randrange(100, 900)
            await client.wait(outs[SCHEDULED].send(scheduled(moment)))
            await client.wait(outs[FLEETING].send(ending(moment)))
            await asyncio.sleep(PAUSE)
        await asyncio.sleep(1)
        for seat in seats:
            seat.cancel()
        await asyncio.gather(*seats, return_exceptions=True)
    assert all(len(late) >= seconds for late in probe.late.values()), probe.late
    return ", ".join(f"{kind} {max(late):.0f}" for kind, late in probe.late.items())


def probe(port: int, seconds: float) -> str:
    """The worst of each kind, ms."""
    return asyncio.run(_probe(port, seconds))


def watch(port: int, until: int) -> str:
    """Asks one question after the other until a moment. The slowest answer, and the slowest but one in a
    hundred, ms."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times = []
    while now_ms() < until:
        began = time.perf_counter()
        connection.request("GET", "/_hubbub/livez")
        connection.getresponse().read()
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.002)
    times.sort()
    return f"{times[-1]:.1f} {times[len(times) * 99 // 100]:.1f}"


PROGRAMS: Programs = {
    "pile": (pile, (int, str, int, str, int)),
    "hold": (hold, (int, str, int)),
    "probe": (probe, (int, float)),
    "watch": (watch, (int, int)),
}

if __name__ == "__main__":
    run(PROGRAMS, __doc__)
