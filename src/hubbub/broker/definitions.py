"""Definitions of entities as records of a log: the newest of each is alive there, older ones are dead.

Record format: one entity as a MessagePack map of its fields, with its kind in the field `kind`. Fields may be
added with defaults.
"""

from __future__ import annotations

import msgspec

from ..engine.log import Log
from .entity import AnyEntity, ConsumerGroup, EventHub, Queue, Subscription, Topic

encode_definition = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AnyEntity).decode

_ORDER: dict[type, int] = {Queue: 0, EventHub: 0, Topic: 0, Subscription: 1, ConsumerGroup: 1}


def read_definitions(log: Log) -> list[tuple[AnyEntity, int]]:
    """What is stored, as (entity, sequence of its record), parents before what lives under them."""
    found: list[tuple[AnyEntity, int]] = []
    sequence = log.next_alive(log.first)
    while sequence is not None:
        for record in log.read(sequence, 1000, 4 << 20):
            found.append((_decode(record.payload), record.sequence))
            sequence = record.sequence
        sequence = log.next_alive(sequence + 1)
    return sorted(found, key=lambda item: _ORDER.get(type(item[0]), 2))
