"""The waist: the verbs every door uses. Finds the entity, asks the rules, moves the bytes.

Not here: rules about delivery (ledger, receiver), partitions (hub), formats (message, the doors).
Verbs that wait for the disk take a callback on the hot path and are coroutines in management.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

import msgspec

from ..chance import guid_bytes
from ..clock import Clock
from ..engine.log import Engine, EngineError, Log, Put
from .access import Authority, Bearer, Gate, SharedKey, rights_of
from .constraints import (
    check_limits,
    check_numbers,
    check_parent,
    check_targets,
    check_unchanged,
    companions,
    exists_text,
    fitted,
)
from .definitions import encode_definition, read_definitions
from .delivery import Delivery, Terms, busy, only_by_session
from .entity import (
    AnyEntity,
    Entity,
    EventHub,
    Queue,
    Rule,
    Subscription,
    Topic,
    revoked_publisher_path,
    subscription_path,
)
from .errors import (
    AlreadyExists,
    Busy,
    Conflict,
    Disabled,
    NotFound,
    PublisherRevoked,
    QuotaExceeded,
    SessionRequired,
)
from .filters import Filter
from .forwarding import Arrival, Passage, bury
from .history import History, forget, remember
from .hub import Event, Hub, Partition
from .idleness import PERIOD, Idleness, last_use_of
from .layout import DEAD_LETTERS, closed_text, log_names, owner_of, terms_of
from .ledger import Counts
from .limits import Limits, Throttle
from .message import Message
from .numbering import number_of
from .partitions import Start, partition_number
from .producers import Producers
from .receiver import Receiver
from .receivers import Receivers
from .selection import purge
from .topic import Fanout, Letters

E = TypeVar("E", bound=Entity)
Done = Callable[[Exception | None], object]

RETENTION_PERIOD = PERIOD
NO_ENTITY = "SubCode=41000. The messaging entity '{path}' could not be found."


class Namespace:
    """One namespace over an engine that may hold others. Paths in any case, without leading slash."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        clock: Clock,
        limits: Limits,
        *,
        hosts: frozenset[str] = frozenset(),
        keys: Sequence[SharedKey] = (),
        swt_issuers: dict[str, str] | None = None,
        jwt: Bearer | None = None,
        open: bool = False,
        letters: Letters | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self._throttle = Throttle(limits.throughput_units, clock.now()) if limits.throughput_units else None
        self.keys = tuple(keys)
        self.created = clock.now()
        self._engine = engine
        self._clock = clock
        self._letters = letters
        self._definitions = engine.open(f"{name}:$entities", 1)
        self._entities: dict[str, AnyEntity] = {}
        self._at: dict[str, int] = {}
        self._changing: dict[str, AnyEntity] = {}
        """What is being created, updated or deleted."""
        self._going: set[str] = set()
        """What is being deleted: a message that came now would be acknowledged and lost."""
        self.hubs: dict[str, Hub] = {}
        self.topics: dict[str, Fanout] = {}
        self.receivers = Receivers(f"{name}:", engine, clock, guid_bytes, self._terms)
        self.histories: dict[str, History] = {}
        self._idleness = Idleness()
        self._leaving: set[asyncio.Task[None]] = set()
        """Entities that go because they are idle."""
        self._passage = Passage(self.send)
        self._moment = 0
        self.version = 0
        """Changes with every entity and key: what a door remembers about an older one is void."""
        self.watchers: list[Callable[[], object]] = []
        """Called after every such change, for doors that hold on to entities."""
        self._terms_version = 0
        self._terms_known: dict[str, Terms] = {}
        # The host names of the namespace, its short name among them.
        self.gate = Gate(Authority(name, hosts), self, swt_issuers, jwt, open)
        self._load()

    # Entities.

    def rules(self, path: str) -> Sequence[SharedKey]:
        """The authorization rules on exactly this path; "" is the namespace. For the gate."""
        if not path:
            return self.keys
        entity = self._entities.get(path)
        rules = entity.authorization_rules if isinstance(entity, (Queue, Topic, EventHub)) else ()
        return [SharedKey(r.name, rights_of(r.rights), r.primary, r.secondary) for r in rules]

    def entity(self, path: str) -> AnyEntity | None:
        return self._entities.get(path.lower())

    def entities(self, kind: type[E], parent: str = "") -> list[E]:
        """All entities of a kind (below a parent, if it has one), sorted by path."""
        above = parent.lower()
        found = [e for e in self._entities.values() if type(e) is kind and e.parent.lower() == above]
        return sorted(found, key=lambda e: e.key)

    def filters(self, topic: str) -> list[Filter]:
        """Of all rules of all subscriptions of a topic."""
        above = subscription_path(topic.lower(), "")
        return [e.filter for key, e in self._entities.items() if type(e) is Rule and key.startswith(above)]

    async def create(self, entity: AnyEntity, rule: Rule | None = None) -> AnyEntity:
        """`rule`: a subscription's first one, if not the one that takes everything.

        Raises AlreadyExists, Invalid, NotFound (its parent), QuotaExceeded, Busy.
        """
        if entity.key in self._entities:
            raise AlreadyExists(exists_text(entity, self.name))
        self._check_idle([entity.key])
        entity = fitted(entity, self.limits)
        self._check(entity)
        check_targets(entity, None, self._entities)
        if rule is not None:
            rule.validate()
            check_numbers(rule, (self._entities | self._changing).values(), self.limits)
        stamp = self._stamp()
        entity = msgspec.structs.replace(entity, created=stamp, updated=stamp)
        await self._write([entity, *companions(entity, rule)])
        return entity

    async def update(self, entity: AnyEntity) -> AnyEntity:
        """Replaces the description. Raises NotFound, Invalid, Busy."""
        old = self._entities.get(entity.key)
        if old is None or type(old) is not type(entity):
            raise NotFound(f"Entity '{entity.path}' was not found.")
        self._check_idle([entity.key])
        entity = fitted(entity, self.limits)
        check_unchanged(old, entity)
        entity.validate()
        check_limits(entity, self.limits, self.name)
        check_targets(entity, old, self._entities)
        if isinstance(entity, Rule) and isinstance(old, Rule) and entity.filter != old.filter:
            check_numbers(entity, (e for e in self._entities.values() if e is not old), self.limits)
        entity = msgspec.structs.replace(
            entity, path=old.path, created=old.created, updated=max(self._stamp(), old.updated + 1)
        )
        await self._write([entity])
        return entity

    async def delete(self, path: str) -> None:
        """The entity and everything below it. Raises NotFound, Busy."""
        key = path.lower()
        if key not in self._entities:
            raise NotFound("No service is hosted at the specified address.")
        keys = [k for k in self._entities if k == key or self._is_below(k, key)]
        self._check_idle(keys)
        self._changing.update((k, self._entities[k]) for k in keys)
        self._going.update(keys)
        try:
            logs = [log for k in keys for log in self._logs_of(k)]
            dead = [(self._definitions, self._at[k]) for k in keys]
            await self._append([], dead=dead, drops=logs)
        finally:
            self._going.difference_update(keys)
            self._unchanging(keys)
        for k in keys:
            self._uninstall(k)
        self.changed()

    def changed(self) -> None:
        """An entity or a key is not what it was."""
        self.version += 1
        self.gate.forget()
        self._passage.resume()
        for watcher in self.watchers:
            watcher()

    def _check_idle(self, keys: list[str]) -> None:
        """Two changes of one entity at a time would leave two definitions of it behind."""
        if not self._changing.keys().isdisjoint(keys):
            raise Conflict("SubCode=40901. Another conflicting operation is in progress.")

    def _unchanging(self, keys: list[str]) -> None:
        for key in keys:
            self._changing.pop(key, None)

    def _is_below(self, key: str, above: str) -> bool:
        entity: AnyEntity | None = self._entities.get(key)
        while entity is not None and entity.parent:
            if entity.parent.lower() == above:
                return True
            entity = self._entities.get(entity.parent.lower())
        return False

    def accessed(self, path: str) -> int:
        entity = self.entity(path)
        return 0 if entity is None else entity.updated

    # Events.

    def publish(
        self, hub: Hub, messages: Sequence[Message], partition: int | None, now: int, done: Done
    ) -> None:
        """Appends events, all or none. `done` gets None when they are durable, or the reason.

        Raises Disabled, PublisherRevoked, and Busy over the throughput units.
        """
        entity = hub.entity
        if entity.status != "Active" and not entity.can_send:
            raise Disabled(f"The event hub '{entity.path}' is disabled for sending.")
        publisher = messages[0].publisher
        if publisher is not None and revoked_publisher_path(entity.key, publisher.lower()) in self._entities:
            raise PublisherRevoked(f"Unauthorized: publisher '{publisher}' is revoked.")
        if self._throttle is not None:
            self._throttled(self._throttle, messages, now)
        hub.publish(messages, partition, now, done)

    def _throttled(self, throttle: Throttle, messages: Sequence[Message], now: int) -> None:
        if not throttle.take(len(messages), sum(len(m.payload) for m in messages), now):
            raise Busy(
                f"SubCode=50002. The request was terminated because the namespace {self.name} is being"
                " throttled. Wait a moment and try again."
            )

    def hub(self, path: str) -> Hub:
        hub = self.hubs.get(path.lower())
        if hub is None:
            raise NotFound(f"The messaging entity '{path}' could not be found.")
        return hub

    def partition(self, hub: str, partition: str) -> Partition:
        found = self.hub(hub)
        return found.describe(partition_number(partition, len(found.partitions)))

    def read_events(
        self, hub: str, partition: str, start: Start, count_max: int, bytes_max: int
    ) -> list[Event]:
        found = self.hub(hub)
        number = partition_number(partition, len(found.partitions))
        return found.read(number, found.locate(number, start), count_max, bytes_max)

    def wait_events(
        self, hub: str, partition: str, sequence: int, callback: Callable[[], object]
    ) -> Callable[[], None]:
        found = self.hub(hub)
        return found.wait(partition_number(partition, len(found.partitions)), sequence, callback)

    # Messages.

    def send(
        self,
        path: str,
        messages: Sequence[Message],
        now: int,
        done: Done,
        numbers: list[int] | None = None,
    ) -> None:
        """Appends messages to a queue or topic, all or none; duplicates are dropped silently. `numbers`, if
        given, gets the sequence number of each message; 0 for a duplicate.

        Raises NotFound, Disabled, QuotaExceeded, SessionRequired.
        """
        key = path.lower()
        entity = self._entities.get(key)
        if not isinstance(entity, (Queue, Topic)) or key in self._going:
            raise NotFound(NO_ENTITY.format(path=path))
        if entity.status != "Active" and not entity.can_send:
            raise Disabled(f"The {entity.noun.lower()} '{entity.path}' is disabled for sending.")
        if self._idleness.used:
            self._idleness.touch(key, now)
        history = self.histories.get(key)
        given = messages
        if history is not None:
            messages = history.unseen(messages, now - entity.duplicate_window)
        if numbers is not None:
            numbers += self._numbers(key, given, messages)
        if not messages:
            # What they repeat may be on its way to the disk still, and may not get there.
            self._engine.append([], now, lambda error: done(busy(error)))
            return
        if self._is_full(entity, now):
            raise QuotaExceeded(f"The maximum entity size of '{entity.path}' has been reached or exceeded.")
        if isinstance(entity, Topic):
            self.topics[key].send(messages, history, now, done)
        else:
            self._send_to_queue(entity, self.receivers[key], messages, history, now, done)

    def _is_full(self, entity: Queue | Topic, now: int) -> bool:
        bytes_max = entity.size_mb_max << 20
        if isinstance(entity, Topic):
            return self.topics[entity.key].full(bytes_max, now)
        return self.receivers[entity.key].size_bytes >= bytes_max

    def send_by_way(self, way: str, path: str, messages: Sequence[Message], now: int, done: Done) -> None:
        """As `send`, by way of another queue or topic. What is refused because the target is disabled
        becomes a transfer dead letter of a queue on the way."""
        between = self._entities.get(way.lower())
        if not isinstance(between, (Queue, Topic)):
            raise NotFound(NO_ENTITY.format(path=way))
        if not between.can_send:
            raise Disabled(f"The {between.noun.lower()} '{between.path}' is disabled for sending.")
        try:
            self.send(path, messages, now, done)
        except Disabled as error:
            if not isinstance(between, Queue):
                raise
            target = self.receivers.transfer_dead_letters(between)
            refused = [(message, error) for message in messages]
            bury(target, between.path, refused, now, lambda error: done(busy(error)))

    def together(self) -> AbstractContextManager[None]:
        """What is done inside is one append, or none of it happens."""
        return self._engine.together()

    def _numbers(self, key: str, given: Sequence[Message], fresh: Sequence[Message]) -> list[int]:
        """The sequence numbers that the given ones get, of which those that are not fresh get none."""
        place = self.topics.get(key) or self.receivers[key]
        number = number_of if place.partitioned else lambda sequence, message: sequence
        found = {id(message): number(n, message) for n, message in enumerate(fresh, place.log.next)}
        return [found.get(id(message), 0) for message in given]

    def _send_to_queue(
        self,
        queue: Queue,
        receiver: Receiver,
        messages: Sequence[Message],
        history: History | None,
        now: int,
        done: Done,
    ) -> None:
        if queue.requires_session and not all(m.session_id for m in messages):
            raise SessionRequired(
                "The SessionId was not set on a message, and it cannot be sent to the entity."
            )
        arrival = Arrival(now)
        arrival.add(receiver, messages)
        remember(history, messages, now, arrival.puts)

        def appended(error: EngineError | None) -> None:
            if error is not None:
                forget(history, messages)
            done(busy(error))

        arrival.append(self._engine, appended)

    def receiver(self, path: str, sessions: bool = False) -> Receiver:
        """The queue, subscription or dead-letter queue of that path. Raises NotFound, Disabled.

        `sessions`: who asks can deal with sessions; otherwise it raises SessionRequired for what has them.
        """
        key = path.lower()
        owner = owner_of(key)
        entity = self._entities.get(owner)
        if not isinstance(entity, (Queue, Subscription)):
            raise NotFound(NO_ENTITY.format(path=path))
        if self._idleness.used:
            self._idleness.touch(owner, self._clock.now())
        receiver = self.receivers.get(key) or self.receivers.transfer_dead_letters(entity)
        if not entity.can_receive:
            raise Disabled(closed_text(entity))
        if receiver.sessions is not None and not sessions:
            raise only_by_session(receiver.path)
        return receiver

    def peek(
        self, receiver: str, from_sequence: int, count_max: int, dead_letter: bool = False
    ) -> list[Delivery]:
        return self._receiver_or_dead(receiver, dead_letter).peek(from_sequence, count_max)

    async def purge(self, receiver: str, dead_letter: bool = False) -> int:
        """Of the messages that are there now. Returns how many went. Raises NotFound, Busy."""
        found = self._receiver_or_dead(receiver, dead_letter)
        total, at, end = 0, found.log.first, found.log.next
        while at < end:
            future: asyncio.Future[EngineError | None] = asyncio.get_running_loop().create_future()
            count, at = purge(found, at, end, future.set_result)
            total += count
            await _raise(future)
        return total

    def _receiver_or_dead(self, path: str, dead_letter: bool) -> Receiver:
        key = path.lower() + (DEAD_LETTERS if dead_letter else "")
        if key not in self.receivers:
            raise NotFound(NO_ENTITY.format(path=path))
        self._idleness.touch(path.lower(), self._clock.now())
        return self.receivers[key]

    def counts(self, path: str) -> Counts:
        """Of a queue, a subscription, or a topic (all of its subscriptions together)."""
        key = path.lower()
        if key in self.receivers:
            return self.receivers[key].counts()
        if key in self.topics:
            return self.topics[key].counts()
        raise NotFound(NO_ENTITY.format(path=path))

    # Time.

    def retain(self) -> int:
        """Trims hubs and duplicate histories by their terms, and lets idle entities go. Call it again in
        RETENTION_PERIOD, or when it says, if that is sooner."""
        now = self._clock.now()
        for key in self._idleness.idle(
            now, lambda key: last_use_of(key, self.receivers, self.topics.get(key), now)
        ):
            task = asyncio.get_running_loop().create_task(self._leave(key))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        trims = [trim for hub in self.hubs.values() for trim in hub.retain(now)]
        for key, history in self.histories.items():
            entity = self._entities[key]
            assert isinstance(entity, (Queue, Topic))
            before = history.log.find(now - entity.duplicate_window)
            if before > history.log.first:
                trims.append((history.log, before))
        if trims:
            self._engine.append([], now, lambda error: None, trims=trims)
        return self._idleness.next(now)

    async def _leave(self, key: str) -> None:
        # What cannot go now is tried again; what is below a topic may have gone with it.
        with suppress(NotFound, Conflict, Busy):
            await self.delete(key)

    # The machinery of definitions.

    def _load(self) -> None:
        for entity, at in read_definitions(self._definitions):
            self._at[entity.key] = at
            self._install(entity)
            self._moment = max(self._moment, entity.updated)
        self._passage.resume()

    async def _write(self, entities: list[AnyEntity]) -> None:
        keys = [entity.key for entity in entities]
        dead = [(self._definitions, self._at[key]) for key in keys if key in self._at]
        at = self._definitions.next
        puts = [Put(self._definitions, encode_definition(entity)) for entity in entities]
        self._changing.update(zip(keys, entities, strict=True))
        try:
            # Opened here, the entity's logs are durable with its definition.
            logs = [log for entity in entities for log in self._logs_of(entity.key, entity)]
            await self._append(puts, dead=dead)
        finally:
            self._unchanging(keys)
        assert logs is not None
        for n, entity in enumerate(entities):
            self._at[entity.key] = at + n
            self._install(entity)
        self.changed()
        for key in keys:
            self.receivers.turn_away(key)

    async def _append(
        self,
        puts: Sequence[Put],
        dead: Sequence[tuple[Log, int]] = (),
        drops: Sequence[Log] = (),
    ) -> None:
        future: asyncio.Future[EngineError | None] = asyncio.get_running_loop().create_future()
        self._engine.append(puts, self._clock.now(), future.set_result, dead=dead, drops=drops)
        await _raise(future)

    def _logs_of(self, key: str, entity: AnyEntity | None = None) -> list[Log]:
        """Every log an entity has; opens them."""
        names = log_names(entity or self._entities[key])
        logs = [self._engine.open(f"{self.name}:{name}", first) for name, first in names]
        return self.receivers.further_logs(key) + logs

    def _install(self, entity: AnyEntity) -> None:
        key = entity.key
        new = key not in self._entities
        self._entities[key] = entity
        self._idleness.watch(entity, self._clock.now())
        logs = self._logs_of(key)
        if isinstance(entity, EventHub):
            if new:
                self.hubs[key] = Hub(entity, self._engine, logs[:-1], Producers(logs[-1]))
            self.hubs[key].entity = entity
        elif isinstance(entity, Topic) and new:
            self.topics[key] = Fanout(logs[0], self._engine, self._letters, entity.partitioning)
        elif isinstance(entity, (Queue, Subscription)):
            if new:
                self._install_receiver(entity)
            self.receivers.aim(entity, self._passage, lambda: self._may_receive(key))
        elif isinstance(entity, Rule):
            self._fanout_of(entity).put_rule(entity.parent.lower(), key, entity.active())
        if isinstance(entity, (Queue, Topic)) and entity.requires_duplicate_detection and new:
            self.histories[key] = History(logs[-1], entity.partitioning)
            self.histories[key].load(self._clock.now() - entity.duplicate_window)

    def _install_receiver(self, entity: Queue | Subscription) -> None:
        receiver = self.receivers.install(entity)
        if isinstance(entity, Subscription):
            self.topics[entity.topic.lower()].put(entity.key, receiver)

    def _may_receive(self, key: str) -> bool:
        entity = self._entities.get(key)
        return isinstance(entity, (Queue, Subscription)) and entity.can_receive

    def _uninstall(self, key: str) -> None:
        entity = self._entities.pop(key)
        del self._at[key]
        self._idleness.forget(key)
        if entity.parent:
            self._idleness.touch(entity.parent.lower(), self._clock.now())
        self.receivers.uninstall(key)
        if isinstance(entity, Rule) and entity.parent.lower() in self._entities:
            self._fanout_of(entity).drop_rule(entity.parent.lower(), key)
        if isinstance(entity, Subscription) and entity.topic.lower() in self.topics:
            self.topics[entity.topic.lower()].drop(key)
        self.hubs.pop(key, None)
        self.topics.pop(key, None)
        self.histories.pop(key, None)

    def _fanout_of(self, rule: Rule) -> Fanout:
        subscription = self._entities[rule.parent.lower()]
        return self.topics[subscription.parent.lower()]

    def _terms(self, key: str) -> Terms:
        """Asked at every step of every delivery, so kept until an entity changes."""
        if self._terms_version != self.version:
            self._terms_version = self.version
            self._terms_known = {}
        found = self._terms_known.get(key)
        if found is None:
            found = self._terms_known[key] = self._terms_of(key)
        return found

    def _terms_of(self, key: str) -> Terms:
        entity = self._entities[key]
        assert isinstance(entity, (Queue, Subscription))
        topic = self._entities.get(entity.parent.lower())
        return terms_of(entity, topic if isinstance(topic, Topic) else None, self.limits)

    def _stamp(self) -> int:
        self._moment = max(self._moment + 1, self._clock.now())
        return self._moment

    # Checks.

    def _check(self, entity: AnyEntity) -> None:
        entity.validate()
        check_parent(entity, self._entities)
        check_limits(entity, self.limits, self.name)
        # Those on their way to the disk count too, or two at a time would both be the last.
        check_numbers(entity, (self._entities | self._changing).values(), self.limits)


async def _raise(future: asyncio.Future[EngineError | None]) -> None:
    error = busy(await future)
    if error is not None:
        raise error
