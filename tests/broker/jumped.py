"""A namespace over an engine, with a clock that is jumped: for tests of what happens by itself."""

from __future__ import annotations

import asyncio

import msgspec

from hubbub.broker.entity import Queue, Subscription
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock


class World:
    def __init__(self, engine, clock=None):
        self.engine = engine
        self.clock = clock or ManualClock()
        self.ns = Namespace("ns", engine, self.clock, PROFILES["standard"])

    async def queue(self, path, forward_to="", **fields):
        return await self.ns.create(Queue(path=path, forward_to=forward_to, **fields))

    async def subscription(self, topic, name, forward_to="", **fields):
        path = f"{topic}/subscriptions/{name}"
        return await self.ns.create(
            Subscription(path=path, topic=topic, name=name, forward_to=forward_to, **fields)
        )

    async def change(self, path, **fields):
        entity = self.ns.entity(path)
        return await self.ns.update(msgspec.structs.replace(entity, **fields))

    async def _call(self, verb, *arguments):
        future = asyncio.get_running_loop().create_future()
        verb(*arguments, future.set_result)
        outcome = await asyncio.wait_for(future, 5)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def send(self, path, *bodies, **fields):
        messages = [Message(body.encode(), **fields) for body in bodies]
        await self._call(self.ns.send, path, messages, self.clock.now())

    async def receive(self, path, lock=True):
        return await self._call(self.ns.receiver(path).receive, lock, self.clock.now())

    async def settle(self, path, verb, delivery, *arguments):
        receiver = self.ns.receiver(path)
        entry = receiver.find(str(delivery.sequence), delivery.token)
        await self._call(getattr(receiver, verb), entry, *arguments)

    def bodies(self, path):
        return [d.message.payload.decode() for d in self.ns.receivers[path].peek(0, 10_000)]

    def only(self, path):
        (found,) = self.ns.receivers[path].peek(0, 10)
        return found

    async def later(self, milliseconds):
        self.clock.advance(milliseconds)
        await self.quiet()

    async def quiet(self):
        for _ in range(30):
            await asyncio.sleep(0)
