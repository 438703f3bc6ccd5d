"""What the crash test's Service Bus clients have in common: links, settlements, requests, and the book.

Every change that a client asks for stands in the `Book` before it leaves, and is done there once the server has
acknowledged it: by the answer of a request, by the outcome of a send, or, for an outcome that a receiver says,
by that of a later send on the same connection (the journal has one order).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any
from uuid import UUID

from book import ACTIVE, DEAD, DEFERRED, GONE, Book, Change, Place
from over_amqp import MARKS

from hubbub.cli.amqp import AmqpClient, AmqpError, Inbox, Outbox, opened
from hubbub.wire.amqp.delivery import Delivery, Sent
from hubbub.wire.amqp.link import Receiver
from hubbub.wire.amqp.message import body_bytes, data_section
from hubbub.wire.amqp.performatives import (
    ACCEPTED,
    Error,
    Modified,
    Rejected,
    Released,
    Source,
    State,
    Target,
)
from hubbub.wire.amqp.types import Array, Long, Symbol, Uint

SESSION_FILTER = Symbol("com.microsoft:session-filter")
SESSION_TIMEOUT = Symbol("com.microsoft:timeout")
SESSION_WAIT_MS = 200
SEQUENCE = "x-opt-sequence-number"
DEAD_LETTERS = "/$deadletterqueue"
LOCK, DELETE = Uint(1), Uint(0)  # receiver-settle-mode

_REJECTED = Rejected(Error("com.microsoft:dead-letter", "", {Symbol("DeadLetterReason"): "by the test"}))
VERBS: dict[str, tuple[State, str, str | None]] = {
    "complete": (ACCEPTED, "completed", None),
    "abandon": (Modified(delivery_failed=True), "abandoned", ACTIVE),
    "defer": (Modified(undeliverable_here=True), "defered", DEFERRED),
    "bury": (_REJECTED, "suspended", DEAD),
}
"""Each as the outcome of a delivery, as the status of a request, and the state it leaves a message in."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def key_of(entity: str, body: str) -> str:
    """Copies in subscriptions are messages of their own."""
    return f"{entity}|{body}" if "/subscriptions/" in entity else body


class World:
    """What lasts from one life of the server to the next."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.numbers = itertools.count(1)
        self.sequences: dict[str, int] = {}
        """The number under which each message was last seen, by key."""
        self.away: set[str] = set()
        """Deferred messages that somebody holds, or held when the server went."""


class Mail:
    """What comes on a receiving link, one delivery after the other."""

    def __init__(self, client: AmqpClient) -> None:
        self._client = client
        self._come: deque[Delivery] = deque()
        self._more: asyncio.Future[None] | None = None
        self.link: Receiver

    def got(self, link: Receiver, delivery: Delivery) -> None:
        self._come.append(delivery)
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def next(self) -> Delivery:
        while not self._come:
            self._more = asyncio.get_running_loop().create_future()
            await self._client.wait(self._more)
        return self._come.popleft()

    async def some(self, count: int, seconds: float = 0.05) -> list[Delivery]:
        """Up to so many, as far as they come within the time."""
        found: list[Delivery] = []
        try:
            async with asyncio.timeout(seconds):
                while len(found) < count:
                    found.append(await self.next())
        except TimeoutError:
            """No more there are."""
        return found


class Answers(Outbox):
    """A link whose sends end in whatever state the server says."""

    def settled(self, sent: Sent, state: State | None) -> None:
        if not sent.context.done():
            sent.context.set_result(state)

    async def ask(self, payload: bytes, state: State | None = None) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.link.send(payload, next(self._tags).to_bytes(4, "big"), state=state, context=future)
        return await self.client.wait(future)


class Actor:
    """One client, with a connection of its own."""

    def __init__(self, world: World, client: AmqpClient, chance: random.Random) -> None:
        self.world = world
        self.book = world.book
        self.client = client
        self.chance = chance
        self.marks: Outbox | None = None

    @property
    def lost(self) -> bool:
        """Whether the server is gone, or the connection to it."""
        return self.client._lost is not None

    async def mark(self) -> None:
        """Returns when all that was said before is durable."""
        if self.marks is None:
            self.marks = await self.client.sender(MARKS)
        await self.client.wait(self.marks.send(data_section(b"mark")))

    async def make(self, change: Change, work: Awaitable[Any]) -> tuple[bool, Any]:
        """Does what the change stands for: whether the server has done it, and what it answered."""
        try:
            outcome = await work
        except AmqpError:
            if self.lost:
                raise
            self.book.refused(change)
            return False, None
        self.book.done(change)
        return True, outcome

    async def request(self, entity: str, verb: str, body: dict[str, Any], session: str | None = None) -> Any:
        if session is not None:
            body = body | {"session-id": session}
        application = {"operation": f"com.microsoft:{verb}"}
        return await self.client.request(f"{entity}/$management", application, body)

    # Receiving.

    async def receive(self, address: str, credit: int, session: str | None = "") -> Mail:
        """A link that receives; of a session, if one is named, or None for the next."""
        mail = Mail(self.client)
        mail.link = self.client.session.receiver(
            f"{address}-{next(self.world.numbers)}",
            Source(address, filter=None if session == "" else {SESSION_FILTER: session}),
            Target("crash"),
            properties={SESSION_TIMEOUT: Uint(SESSION_WAIT_MS)},
        )
        mail.link.context = inbox = Inbox(self.client, mail.link, mail.got)
        await self.client.wait(inbox.attached)
        mail.link.grant(credit, keep=True)
        return mail

    def read(self, entity: str, payload: bytes, state: str = ACTIVE) -> str:
        """The key of a message that came from there."""
        _, _, annotations, body = opened(payload)
        key = key_of(entity, body_bytes(body).decode())
        self.book.seen(key, (entity, state), now_ms())
        self.world.sequences[key] = annotations[SEQUENCE]
        return key

    async def settle(
        self,
        mail: Mail,
        delivery: Delivery,
        after: tuple[str, Place],
        verb: str,
        session: str | None = None,
        ask: bool = False,
    ) -> None:
        """In one of the two ways there are. `after`: the key, and where the message is to be then. `ask`: by
        request, because the lock is so short that it may be lost."""
        outcome, status, _ = VERBS[verb]
        change = self.book.begin(dict([after]))
        if ask or self.chance.random() < 0.5:
            address = mail.link.source.address  # type: ignore[union-attr]
            await self.make(change, self.update(address, UUID(bytes_le=delivery.tag), status, session))
            mail.link.settle(delivery, Released())  # It is locked no longer: this only makes room.
        else:
            mail.link.settle(delivery, outcome)
            await self.mark()
            self.book.done(change)

    async def update(self, address: str, token: UUID, status: str, session: str | None = None) -> None:
        body = {"disposition-status": status, "lock-tokens": Array([token])}
        await self.request(address, "update-disposition", body, session)

    async def free(self, address: str, delivery: Delivery) -> None:
        """Gives back what an outcome was said of that did not come to be."""
        await self.update(address, UUID(bytes_le=delivery.tag), "abandoned")

    # Deferred messages.

    def deferred(self, entity: str, keys: list[str]) -> list[str]:
        """Up to three of them that nobody holds."""
        free = [
            key for key in keys if self.book.is_at(key, (entity, DEFERRED)) and key not in self.world.away
        ]
        return self.chance.sample(free, min(len(free), self.chance.randint(1, 3)))

    async def recall(self, entity: str, keys: list[str], session: str | None = None) -> None:
        """Receives them by their numbers: deleted first, or locked and settled."""
        numbers = {"sequence-numbers": Array(Long(self.world.sequences[key]) for key in keys)}
        verb = "receive-by-sequence-number"
        if self.chance.random() < 0.3:
            change = self.book.begin(dict.fromkeys(keys, GONE))
            body = numbers | {"receiver-settle-mode": DELETE}
            done, _ = await self.make(change, self.request(entity, verb, body, session))
            if not done:
                self.book.problems.append(f"{keys} cannot be had by their numbers {numbers}")
            return
        self.world.away.update(keys)
        found = await self.request(entity, verb, numbers | {"receiver-settle-mode": LOCK}, session)
        came = {
            self.read(entity, item["message"], DEFERRED): item["lock-token"] for item in found["messages"]
        }
        if came.keys() != set(keys):
            self.book.problems.append(f"{list(came)} came for {keys}")
        for key, token in came.items():
            await self._settle_deferred(entity, key, token, session)

    async def _settle_deferred(self, entity: str, key: str, token: UUID, session: str | None) -> None:
        _, status, state = VERBS[self.chance.choice([*VERBS])]
        place = GONE if state is None else (entity, DEFERRED if state == ACTIVE else state)
        change = self.book.begin({key: place})
        await self.make(change, self.update(entity, token, status, session))
        self.world.away.discard(key)
