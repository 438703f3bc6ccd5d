"""Sequence numbers of partitioned entities, as clients see them. Pure.

The service keeps a partitioned queue or topic in 16 pieces, and says in the upper 16 of the 64 bits of a
sequence number in which one a message is. Here all of them share one log: the lower 48 bits are its sequence,
and the piece follows from the message. Messages of one session or partition key are in one piece.

    number = partition << 48 | sequence
"""

from __future__ import annotations

from functools import lru_cache

from .message import Message
from .partitions import choose

PARTITIONS = 16
_SHIFT = 48
_SEQUENCE = (1 << _SHIFT) - 1


def key_of(message: Message) -> str:
    """What keeps messages together; empty if nothing does."""
    return message.session_id or message.partition_key or ""


def partition_of(message: Message) -> int:
    """A message without a key may be anywhere: its id spreads it evenly."""
    return _partition(key_of(message) or message.message_id or "")


def number_of(sequence: int, message: Message) -> int:
    """The number of the message of a partitioned entity that has this sequence there."""
    return partition_of(message) << _SHIFT | sequence


def sequence_of(number: int) -> int:
    """Where the log has what clients call by this number."""
    return number & _SEQUENCE


@lru_cache(1024)
def _partition(key: str) -> int:
    return choose(key, PARTITIONS)
