"""A namespace over an engine, with a clock that is jumped: for tests of what happens by itself."""

from __future__ import annotations

import asyncio

import msgspec

from hubbub.broker.entity import Queue, Subscription
from hubbub.broker.errors import NotFound
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message, decode_message
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine


class Piecemeal(MemoryEngine):
    """Commits one append after the other, so that what is not one append can be torn apart. `fault` is asked
    about each; when one fails, so do all behind it."""

    def __init__(self, fault):
        super().__init__(fault)
        self._waiting = []

    def _submit(self, appends):
        self._waiting.append(appends)
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self):
        if not self._waiting:
            return
        self._pending = self._waiting.pop(0)
        ask, error = self._fault, self._fault()
        if error is not None:
            self._pending += [append for appends in self._waiting for append in appends]
            self._waiting.clear()
        self._fault = lambda: error
        try:
            self._commit()
        finally:
            self._fault = ask


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
        if entity is None:
            raise NotFound(path)
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

    def stored(self, path):
        """Bodies in the log, those included that time has taken and the disk not yet."""
        log = self.ns.receivers[path].log
        return [decode_message(r.payload).payload.decode() for r in log.read(0, 10_000, 1 << 30)]

    def only(self, path):
        (found,) = self.ns.receivers[path].peek(0, 10)
        return found

    async def later(self, milliseconds):
        self.clock.advance(milliseconds)
        await self.quiet()

    async def quiet(self):
        """All that follows by itself has happened."""
        for _ in range(30):
            await asyncio.sleep(0)
            while getattr(self.engine, "_flushing", False):
                await asyncio.sleep(0.0002)  # The disk is real.
