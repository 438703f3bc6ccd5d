"""An event hub at work: its partitions are logs; readers come and go without leaving a trace.

A record holds all events of one request that go to the same partition. An event's offset is its sequence
number as text: opaque to clients, who give back what they got.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..engine.log import Engine, EngineError, Log, Put
from .entity import EventHub
from .errors import Disabled, Invalid
from .message import Message, decode_events, encode_events
from .partitions import Start, choose
from .producers import Producers, last_of
from .receiver import busy


class Event(NamedTuple):
    """An event as a reader sees it; `enqueued` in ms."""

    sequence: int
    offset: str
    enqueued: int
    message: Message


class Page:
    """Neighbours that were stored at one moment: `messages` stand at `sequence` and behind; `enqueued` in
    ms."""

    __slots__ = ("enqueued", "messages", "sequence", "size_bytes")

    def __init__(self, sequence: int, enqueued: int, messages: list[Message], size_bytes: int) -> None:
        self.sequence = sequence
        self.enqueued = enqueued
        self.messages = messages
        self.size_bytes = size_bytes


class Partition(NamedTuple):
    """What a partition holds. An empty one has last_sequence -1, last_offset "-1", last_enqueued 0."""

    begin_sequence: int
    last_sequence: int
    last_offset: str
    last_enqueued: int
    size_bytes: int
    count: int  # type: ignore[assignment]


class Hub:
    """The partitions of one event hub."""

    __slots__ = ("_engine", "_turn", "_waiting", "entity", "partitions", "producers")

    def __init__(self, entity: EventHub, engine: Engine, partitions: list[Log], producers: Producers) -> None:
        self.entity = entity
        self.partitions = partitions
        self.producers = producers
        self._engine = engine
        self._turn = 0
        self._waiting: list[dict[Callable[[], object], int]] = [{} for _ in partitions]

    def closed(self) -> Disabled | None:
        """Why nobody may receive now, if that is so."""
        if self.entity.can_receive:
            return None
        return Disabled(f"The event hub '{self.entity.path}' is disabled for receiving.")

    def publish(
        self,
        messages: Sequence[Message],
        partition: int | None,
        now: int,
        done: Callable[[Exception | None], object],
    ) -> None:
        """All messages or none; in order per partition. Keyless ones of one call stay together.

        Those of an idempotent producer are stored once, however often they come. Raises OutOfSequence and
        ProducerStolen for theirs.
        """
        if messages[0].producer is not None and partition is not None:
            self._publish_once(messages, partition, now, done)
            return
        groups = self._by_partition(messages, partition)
        puts = [
            Put(self.partitions[number], encode_events(group), len(group)) for number, group in groups.items()
        ]

        def appended(error: EngineError | None) -> None:
            if error is None:
                for number in groups:
                    if self._waiting[number]:
                        self._wake(number)
            done(busy(error))

        self._engine.append(puts, now, appended)

    def _publish_once(
        self,
        messages: Sequence[Message],
        partition: int,
        now: int,
        done: Callable[[Exception | None], object],
    ) -> None:
        producer, new = self.producers.admit(partition, messages)
        log = self.partitions[partition]
        puts = [Put(log, encode_events(messages), len(messages))] if new else []
        # What came before is answered like what is new: not before the first of its kind is durable.
        dead = self.producers.record(producer, last_of(messages) if new else producer.last, puts)
        last, at = producer.last, producer.at

        def appended(error: EngineError | None) -> None:
            producer.written(last, at, error is None)
            if error is None:
                self._wake(partition)
            done(busy(error))

        self._engine.append(puts, now, appended, dead=dead)

    def _by_partition(
        self, messages: Sequence[Message], partition: int | None
    ) -> dict[int, Sequence[Message]]:
        if partition is not None:
            return {partition: messages}
        if len(messages) == 1 or not any(m.partition_key for m in messages):
            key = messages[0].partition_key
            return {choose(key, len(self.partitions)) if key else self._next(): messages}
        keyless: int | None = None
        groups: dict[int, list[Message]] = {}
        for message in messages:
            if message.partition_key:
                number = choose(message.partition_key, len(self.partitions))
            else:
                keyless = number = self._next() if keyless is None else keyless
            groups.setdefault(number, []).append(message)
        return dict(groups)

    def _next(self) -> int:
        self._turn = (self._turn + 1) % len(self.partitions)
        return self._turn

    # Reading.

    def locate(self, partition: int, start: Start) -> int:
        """The sequence of the first event to read. Raises Invalid for an offset nobody gave out."""
        log = self.partitions[partition]
        if start.sequence is not None:
            return start.sequence + (not start.inclusive)
        if start.enqueued is not None:
            return log.find(start.enqueued + (not start.inclusive))
        if start.latest or start.offset == "@latest":
            return log.durable
        if start.earliest or start.offset in (None, "-1"):
            return log.first
        try:
            return int(start.offset or "") + (not start.inclusive)
        except ValueError:
            raise Invalid(f"The supplied offset '{start.offset}' is invalid.") from None

    def read(self, partition: int, sequence: int, count_max: int, bytes_max: int) -> list[Event]:
        """Events from a sequence on, in order, from the page cache."""
        events: list[Event] = []
        for page in self.pages(partition, sequence, count_max, bytes_max):
            for at, message in enumerate(page.messages, page.sequence):
                if at >= sequence:
                    events.append(Event(at, str(at), page.enqueued, message))
            if len(events) >= count_max:
                break
        return events[:count_max]

    def pages(self, partition: int, sequence: int, count_max: int, bytes_max: int) -> list[Page]:
        """The same as they were stored: the first page may begin before `sequence`."""
        pages: list[Page] = []
        enqueued, behind = -1, -1
        for at, count, time, payload in self.partitions[partition].read(sequence, count_max, bytes_max):
            messages = decode_events(payload)
            if time == enqueued and at == behind:
                pages[-1].messages += messages
                pages[-1].size_bytes += len(payload)
            else:
                pages.append(Page(at, time, messages, len(payload)))
                enqueued = time
            behind = at + count
        return pages

    def wait(self, partition: int, sequence: int, callback: Callable[[], object]) -> Callable[[], None]:
        """Calls back once there is an event at or after `sequence`. Returns how to stop waiting."""
        waiting = self._waiting[partition]
        log = self.partitions[partition]
        # What stood there may have been trimmed: then only what comes is worth a call.
        waiting[callback] = sequence = max(sequence, log.first)
        if log.durable > sequence:
            self._wake(partition)
        return lambda: void(waiting.pop(callback, None))

    def _wake(self, partition: int) -> None:
        waiting = self._waiting[partition]
        durable = self.partitions[partition].durable
        for callback in [c for c, sequence in waiting.items() if sequence < durable]:
            del waiting[callback]
            callback()

    def describe(self, partition: int) -> Partition:
        log = self.partitions[partition]
        last = log.get(log.durable - 1) if log.count else None
        if last is None:
            return Partition(log.first, log.durable - 1 if log.durable else -1, _offset(log), 0, 0, 0)
        return Partition(log.first, log.durable - 1, _offset(log), last.time, log.bytes, log.count)

    # Retention.

    def retain(self, now: int) -> list[tuple[Log, int]]:
        """What may be trimmed by age and by size."""
        trims = []
        for log in self.partitions:
            before = log.find(now - self.entity.retention) if log.count else log.first
            if self.entity.retention_bytes_max:
                before = max(before, log.keep(self.entity.retention_bytes_max))
            if before > log.first:
                trims.append((log, before))
        return trims


def _offset(log: Log) -> str:
    return str(log.durable - 1) if log.durable else "-1"


def void(_: object) -> None:
    """Drops a result."""
