"""Idempotent producers of one hub: who they are, and which event of each came last (AMQP reference 3.5).

Each state is one record of a log of its own, written in the same append as the events it speaks of, so that
neither a lost answer nor a restart stores an event twice. Numbers go round after 2^31 - 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..engine.log import Log, Put
from .errors import Invalid, OutOfSequence, ProducerStolen
from .message import Message

PRODUCERS_MAX = 1000
"""Remembered per hub; the one that was silent longest is forgotten."""
EPOCH_MAX = (1 << 15) - 1
_ROUND = 1 << 31


class Producer:
    """What is known of one producer on one partition. `last`: the sequence number of its last event; `at`:
    where its record stands, -1 for nowhere. Both run ahead of the disk; `durable` is what they are there."""

    __slots__ = ("at", "durable", "epoch", "id", "last", "partition")

    def __init__(self, partition: int, id: int, epoch: int, last: int, at: int = -1) -> None:
        self.partition = partition
        self.id = id
        self.epoch = epoch
        self.last = last
        self.at = at
        self.durable = (last, at)

    def written(self, last: int, at: int, ok: bool) -> None:
        """An append ended. If one fails, those behind it fail as well."""
        if ok:
            self.durable = (last, at)
        else:
            self.last, self.at = self.durable


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, int, int]).decode


class Producers:
    __slots__ = ("_known", "log")

    def __init__(self, log: Log) -> None:
        self.log = log
        self._known: dict[tuple[int, int], Producer] = {}
        """By partition and id; who sent last stands last."""
        self._load()

    def _load(self) -> None:
        sequence = self.log.next_alive(self.log.first)
        while sequence is not None:
            records = self.log.read(sequence, 1000, 1 << 20)
            for record in records:
                producer = Producer(*_decode(record.payload), record.sequence)
                self._known[producer.partition, producer.id] = producer
            sequence = self.log.next_alive(records[-1].sequence + 1) if records else None

    def enter(
        self, partition: int, id: int | None, epoch: int | None, last: int | None, fresh: int
    ) -> Producer:
        """A producer attaches, with what it knows of itself; the answer holds. `fresh`: an id for a new one.

        Raises ProducerStolen if one of the same id and a higher epoch came before.
        """
        known = self._known.get((partition, id)) if id is not None else None
        if known is None:
            known = Producer(partition, fresh if id is None else id, epoch or 0, last or 0)
            self._known[partition, known.id] = known
            self._forget_silent(known)
            return known
        if epoch is not None and epoch < known.epoch:
            raise ProducerStolen(known.id, epoch, known.epoch)
        newer = epoch is None or epoch > known.epoch
        known.epoch = min(known.epoch + 1, EPOCH_MAX) if epoch is None else epoch
        if newer and last is not None:
            known.last = last
            known.durable = (last, known.at)
        return known

    def _forget_silent(self, newest: Producer) -> None:
        """Of too many, the first of those that have never sent anything goes."""
        if len(self._known) > PRODUCERS_MAX:
            for key, producer in self._known.items():
                if producer.at < 0 and producer is not newest:
                    del self._known[key]
                    return

    def admit(self, partition: int, messages: Sequence[Message]) -> tuple[Producer, bool]:
        """The producer of the messages, and whether they are new. Raises OutOfSequence, ProducerStolen."""
        assert messages[0].producer is not None
        id, epoch, first = messages[0].producer
        if any(m.producer != (id, epoch, (first + n) % _ROUND) for n, m in enumerate(messages)):
            raise Invalid("The events of a batch must be of one producer and numbered one after the other.")
        producer = self._known.get((partition, id))
        if producer is None:
            raise OutOfSequence(first, None)
        if epoch < producer.epoch:
            raise ProducerStolen(id, epoch, producer.epoch)
        expected = (producer.last + 1) % _ROUND
        if first == expected:
            return producer, True
        behind = (producer.last - (first + len(messages) - 1)) % _ROUND
        if behind < _ROUND // 2 and len(messages) <= _ROUND // 2:
            return producer, False
        raise OutOfSequence(first, expected)

    def record(self, producer: Producer, last: int, puts: list[Put]) -> list[tuple[Log, int]]:
        """Adds what makes the producer's new state durable to an append; returns what it supersedes."""
        dead = [(self.log, producer.at)] if producer.at >= 0 else []
        key = (producer.partition, producer.id)
        self._known[key] = self._known.pop(key)
        while len(self._known) > PRODUCERS_MAX:
            oldest = self._known.pop(next(iter(self._known)))
            if oldest.at >= 0:
                dead.append((self.log, oldest.at))
        producer.last = last
        producer.at = self.log.next
        puts.append(Put(self.log, _encode((*key, producer.epoch, last))))
        return dead


def last_of(messages: Sequence[Message]) -> int:
    """The number of the last event of a batch."""
    assert messages[-1].producer is not None
    return messages[-1].producer[2]
