"""Event Hubs over AMQP: producers, consumers, and who may read beside whom (AMQP reference 3.2 to 3.8)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...broker.errors import Invalid
from ...broker.hub import Hub, Page
from ...broker.message import Message
from ...broker.partitions import Start
from ...wire.amqp.delivery import Delivery
from ...wire.amqp.link import Sender
from ...wire.amqp.message import DELIVERY_ANNOTATIONS, map_section
from ...wire.amqp.performatives import Source
from ...wire.amqp.types import Described, Int, Long, Short, Symbol, Timestamp
from .events import PRODUCER, PRODUCER_EPOCH, PRODUCER_SEQUENCE, events_of, producer_of, stamp
from .incoming import Done, Incoming

if TYPE_CHECKING:
    from .peer import Peer

CREDIT = 500
READ_EVENTS_MAX = 512
READ_BYTES_MAX = 512 * 1024
KEPT_BYTES_MAX = 64 << 20
"""Batches that consumers have sent in part, of all connections together."""
READERS_MAX = 5
METRIC = "com.microsoft:enable-receiver-runtime-metric"
EPOCH = "com.microsoft:epoch"

IDEMPOTENT = "com.microsoft:idempotent-producer"
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_SELECTOR = re.compile(r"\s*amqp\.annotation\.(x-opt-[a-z-]+)\s*(>=|>)\s*'?([^']*)'?\s*", re.ASCII)


class Producer(Incoming):
    """Events that come on one link."""

    def __init__(self, hub: Hub, partition: int | None, publisher: str | None) -> None:
        self.hub = hub
        self.partition = partition
        self.publisher = publisher

    def path(self) -> str:
        return self.hub.entity.path

    def take(self, peer: Peer, delivery: Delivery, done: Done) -> int:
        messages = events_of(delivery.payload, delivery.format)
        self._check(messages)
        peer.namespace.publish(self.hub, messages, self.partition, peer.now(), done)
        return len(messages)

    def _check(self, messages: Sequence[Message]) -> None:
        if self.publisher is not None:
            for message in messages:
                if message.partition_key not in (None, self.publisher):
                    raise Invalid("The partition key must be the publisher's name.")
                message.partition_key = message.publisher = self.publisher
        elif self.partition is not None:
            for message in messages:
                if message.partition_key is not None:
                    raise Invalid("An event for a given partition cannot have a partition key.")


def entered(hub: Hub, partition: int | None, properties: dict[Any, Any], fresh: int) -> dict[Any, Any]:
    """The properties that answer an idempotent producer's attach (AMQP reference 3.5).

    Raises Invalid without a partition, ProducerStolen.
    """
    if partition is None:
        raise Invalid("An idempotent producer must name the partition it sends to.")
    producer = hub.producers.enter(partition, *producer_of(properties), fresh)
    return {
        PRODUCER: Long(producer.id),
        PRODUCER_EPOCH: Short(producer.epoch),
        PRODUCER_SEQUENCE: Int(producer.last),
    }


def start_of(source: Any) -> Start:
    """Where a consumer wants to begin, by the filter of its source. Raises Invalid."""
    filters = source.filter if isinstance(source, Source) else None
    found = next((value for name, value in (filters or {}).items() if "selector-filter" in str(name)), None)
    if found is None:
        return Start(earliest=True)
    text = found.value if isinstance(found, Described) else found
    match = _SELECTOR.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Invalid(f"The filter '{text!s:.200}' cannot be understood.")
    name, operator, value = match.groups()
    inclusive = operator == ">="
    if name == "x-opt-offset":
        return Start(offset=value, inclusive=inclusive)
    if name not in ("x-opt-sequence-number", "x-opt-enqueued-time") or not _NUMBER.fullmatch(value):
        raise Invalid(f"The filter '{text!s:.200}' cannot be understood.")
    if name == "x-opt-sequence-number":
        return Start(sequence=int(value), inclusive=inclusive)
    return Start(enqueued=int(value), inclusive=inclusive)


class Consumer:
    """One reader of one partition. It reads when there is credit, and waits without cost otherwise."""

    def __init__(
        self,
        peer: Peer,
        link: Sender,
        hub: Hub,
        key: tuple[str, str, int],
        sequence: int,
        epoch: int | None,
    ) -> None:
        """`key`: namespace, consumer group and partition, which the readers beside it share."""
        self.peer = peer
        self.link = link
        self.hub = hub
        self.key = key
        self.partition = key[2]
        self.sequence = sequence
        self.epoch = epoch
        self.metric = METRIC in (link.attach.desired_capabilities or ())
        self._stop_waiting: Any = None
        self._due = False
        self._page: Page | None = None

    def flow(self) -> None:
        self.pump()

    def gone(self) -> None:
        self._kept()
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None

    def steal(self, description: str) -> None:
        """A reader with a higher owner level has come."""
        self.gone()
        self.link.detach("amqp:link:stolen", description)
        self.peer.drop(self.link)

    def pump(self) -> None:
        """Sends a bounded piece and comes again, so that no reader keeps the others from their turn."""
        link = self.link
        if self._due or not link.attached:
            return
        credit = link.credit
        if credit > 0 and self.peer.writable:
            if self._send(min(credit, READ_EVENTS_MAX)):
                self._due = True
                self.peer.soon(self._again)
                return
            if self._stop_waiting is None:
                self._stop_waiting = self.hub.wait(self.partition, self.sequence, self._woken)
        elif credit > 0:
            self.peer.when_writable(self.pump)
            return
        if link.draining:
            link.drained()

    def _again(self) -> None:
        self._due = False
        self.pump()

    def _woken(self) -> None:
        self._stop_waiting = None
        self.pump()

    def _send(self, count_max: int) -> int:
        """Sends up to so many events; returns how many there were."""
        kept = self._kept()
        read = self.hub.pages
        pages = read(self.partition, self.sequence, count_max, READ_BYTES_MAX) if kept is None else [kept]
        metric = self._metric() if self.metric else b""
        stamped: list[tuple[bytes, bytes]] = []
        for page in pages:
            begin = max(0, self.sequence - page.sequence)
            end = min(len(page.messages), begin + count_max - len(stamped))
            stamped += stamp(page.messages[begin:end], page.sequence + begin, page.enqueued, metric)
            self.sequence = page.sequence + end
            if end < len(page.messages):
                self._keep(page)
                break
        if stamped:
            self.link.send_settled(stamped)
            self.peer.count(self.hub.entity.path, "outgoing_messages", len(stamped))
        return len(stamped)

    def _keep(self, page: Page) -> None:
        """Of a large batch only a piece goes at a time; to read and check all of it again for the next piece
        would cost more than that piece. What all consumers keep is bounded."""
        server = self.peer.server
        if server.kept_bytes + page.size_bytes <= KEPT_BYTES_MAX:
            server.kept_bytes += page.size_bytes
            self._page = page

    def _kept(self) -> Page | None:
        page, self._page = self._page, None
        if page is not None:
            self.peer.server.kept_bytes -= page.size_bytes
        return page

    def _metric(self) -> bytes:
        last = self.hub.describe(self.partition)
        return map_section(
            DELIVERY_ANNOTATIONS,
            {
                Symbol("last_enqueued_sequence_number"): Long(last.last_sequence),
                Symbol("last_enqueued_offset"): last.last_offset,
                Symbol("last_enqueued_time_utc"): Timestamp(last.last_enqueued),
                Symbol("runtime_info_retrieval_time_utc"): Timestamp(self.peer.now()),
            },
        )


class Readers:
    """Who reads one partition for one consumer group (AMQP reference 3.8)."""

    def __init__(self) -> None:
        self.consumers: list[Consumer] = []

    def refusal(self, epoch: int | None) -> tuple[str, str] | None:
        """Condition and text if a reader of this owner level may not come in."""
        highest = max((c.epoch for c in self.consumers if c.epoch is not None), default=None)
        if highest is not None and (epoch is None or epoch < highest):
            return "amqp:link:stolen", (
                f"At least one receiver for the endpoint is created with epoch of '{highest}', and so a"
                f" receiver with epoch '{epoch if epoch is not None else 'none'}' is not allowed."
            )
        if epoch is None and len(self.consumers) >= READERS_MAX:
            return "amqp:resource-limit-exceeded", (
                f"Exceeded the maximum number of allowed receivers per partition in a consumer group which"
                f" is {READERS_MAX}."
            )
        return None

    def enter(self, consumer: Consumer) -> None:
        if consumer.epoch is None:
            self.consumers.append(consumer)
            return
        # In its place before the others go, or nobody would be known to read here for a moment.
        others, self.consumers = self.consumers, [consumer]
        for other in others:
            other.steal(
                f"New receiver with higher epoch of '{consumer.epoch}' is created hence current receiver"
                f" with epoch '{other.epoch if other.epoch is not None else 'none'}' is getting"
                " disconnected."
            )

    def leave(self, consumer: Consumer) -> None:
        if consumer in self.consumers:
            self.consumers.remove(consumer)
