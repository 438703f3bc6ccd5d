"""How messages come among the dead letters: because somebody says so, they came back too often, or in time.

Functions over a `Receiver`, which has some of them as its verbs. A message moves in one append: it is never
in both places, and never in none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..engine.log import Done, EngineError, Put
from .delivery import as_it_stands
from .ledger import Entry
from .message import Message, encode_message

if TYPE_CHECKING:
    from .receiver import Receiver


def dead_letter(message: Message, source: str, reason: str | None, description: str | None) -> Message:
    """The message as it lies among the dead letters of `source`."""
    return msgspec.structs.replace(
        message,
        scheduled=None,
        ttl=None,
        dead_letter_source=source,
        dead_letter_reason=reason,
        dead_letter_description=description,
    )


def give_up(receiver: Receiver, entry: Entry, now: int, done: Done, changes: bytes | None = None) -> None:
    """It was delivered as often as it may be."""
    most = receiver.terms().deliveries_max
    text = f"Message could not be consumed after {most} delivery attempts."
    move(receiver, entry, "MaxDeliveryCountExceeded", text, now, done, changes)


def expire(receiver: Receiver, entry: Entry, now: int, done: Done) -> None:
    """Its time to live is over."""
    if receiver.terms().dead_letter_on_expiration and receiver.dead_letters is not None:
        text = "The message expired and was dead lettered."
        move(receiver, entry, "TTLExpiredException", text, now, done)
    else:
        receiver.ledger.claim(entry)
        receiver.bury(entry, now, done)


def move(
    receiver: Receiver,
    entry: Entry,
    reason: str | None,
    description: str | None,
    now: int,
    done: Done,
    changes: bytes | None = None,
) -> None:
    """To the dead-letter queue, in one append with its end here."""
    target = receiver.dead_letters
    assert target is not None
    try:
        record = receiver.log.get(entry.sequence)
    except EngineError as error:
        done(error)
        return
    if record is None:  # Purged a moment ago.
        receiver.ledger.forget(entry)
        done(None)
        return
    message = as_it_stands(record, entry, receiver.partitioned)
    message = dead_letter(message, receiver.terms().source, reason, description)
    if changes is not None:
        message.changes = changes
    puts: list[Put] = []
    target.enclose(message, encode_message(message), 0, now, puts, [])
    receiver.ledger.claim(entry)
    note = entry.note

    def moved(error: EngineError | None) -> None:
        if error is None:
            receiver.forget(entry, note)
            target.pump()
        else:
            receiver.unclaim(entry)
        done(error)

    receiver.engine.append(puts, now, moved, dead=receiver.graves(entry))
