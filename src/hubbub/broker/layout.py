"""What an entity is made of: its logs, and the terms of what is received from it. Pure.

Not here: who opens the logs and builds the receivers over them (the waist).
"""

from __future__ import annotations

from .delivery import Terms
from .entity import AnyEntity, EventHub, Queue, Subscription, Topic
from .limits import Limits

DEAD_LETTERS = "/$deadletterqueue"
TRANSFER_DEAD_LETTERS = "/$transfer/$deadletterqueue"


def owner_of(key: str) -> str:
    """The queue or subscription whose sub-queue that is, or the key itself."""
    part = TRANSFER_DEAD_LETTERS if key.endswith(TRANSFER_DEAD_LETTERS) else DEAD_LETTERS
    return key.removesuffix(part)


def log_names(entity: AnyEntity) -> list[tuple[str, int]]:
    """Every log an entity has, as (name, first sequence). Message ids come last, if it keeps any."""
    key = entity.key
    names: list[tuple[str, int]] = []
    if isinstance(entity, (Queue, Subscription)):
        names = receiver_logs(key) + receiver_logs(key + DEAD_LETTERS)
    elif isinstance(entity, Topic):
        names = [(key, 1)]
    elif isinstance(entity, EventHub):
        names = [(f"{key}/{n}", 0) for n in range(entity.partition_count)]
        names.append((f"{key}$producers", 0))
    if isinstance(entity, (Queue, Topic)) and entity.requires_duplicate_detection:
        names.append((f"{key}$ids", 0))
    return names


def receiver_logs(key: str) -> list[tuple[str, int]]:
    """Messages, and notes about them."""
    return [(key, 1), (f"{key}$notes", 0)]


def terms_of(entity: Queue | Subscription, topic: Topic | None, limits: Limits) -> Terms:
    """`topic`: that of a subscription."""
    ttl = entity.default_ttl
    if topic is not None:
        ttl = min(ttl, topic.default_ttl)
    on_filter_error = isinstance(entity, Subscription) and entity.dead_letter_on_filter_error
    return Terms(
        entity.lock_duration,
        entity.deliveries_max,
        ttl,
        entity.dead_letter_on_expiration,
        entity.path,
        on_filter_error,
        entity.requires_session,
        limits.session_state_bytes_max,
        entity.partitioning if isinstance(entity, Queue) else topic is not None and topic.partitioning,
        limits.receives_max,
        "" if entity.can_receive else closed_text(entity),
    )


def closed_text(entity: Queue | Subscription) -> str:
    return f"The {entity.noun.lower()} '{entity.path}' is disabled for receiving."


def dead_letter_terms(terms: Terms) -> Terms:
    """Nothing expires there, and nothing is given up there."""
    return terms._replace(
        deliveries_max=1 << 62,
        default_ttl=1 << 62,
        dead_letter_on_expiration=False,
        requires_session=False,
    )
