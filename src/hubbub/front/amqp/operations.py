"""The `$management` node of a queue, topic or subscription (AMQP reference 4.7 to 4.9).

Each operation takes the request's map and answers once, when what it did is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ...broker.access import Right
from ...broker.constraints import message_bytes_max
from ...broker.delivery import Delivery, Settled
from ...broker.entity import Queue, Subscription, Topic
from ...broker.errors import BrokerError, Invalid, NotFound, SessionRequired
from ...broker.ledger import Entry
from ...broker.message import Message
from ...broker.receiver import Receiver
from ...broker.sessions import SessionLock, Sessions
from ...wire.amqp.types import Array, DecodeError, Int, Long, Timestamp
from . import rules
from .errors import condition_of, is_ours, text_of
from .messages import encode_delivery, lock_annotation, merged, messages_of, uuid_of, without_body
from .queues import check
from .requests import Request, Respond, Response

if TYPE_CHECKING:
    from .peer import Peer

log = logging.getLogger("hubbub.amqp")

PEEK_BYTES_MAX = 1 << 20
ITEMS_MAX = 4000
"""Sequence numbers, tokens or messages in one request."""
WITH_MESSAGES = 253_402_300_800_000
"""The moment that means: sessions that have messages, whenever their state changed."""
OK = Response(200, "OK")
NOTHING = Response(204, "No Content")
_STATUS = {
    400: (
        "com.microsoft:argument-error",
        "com.microsoft:argument-out-of-range",
        "com.microsoft:entity-disabled",
        "amqp:not-allowed",
        "amqp:invalid-field",
        "amqp:illegal-state",
        "amqp:decode-error",
    ),
    401: ("amqp:unauthorized-access", "com.microsoft:publisher-revoked"),
    403: ("amqp:link:message-size-exceeded", "amqp:resource-limit-exceeded"),
    404: ("amqp:not-found", "com.microsoft:message-not-found"),
    408: ("com.microsoft:timeout",),
    409: ("com.microsoft:entity-already-exists",),
    410: (
        "com.microsoft:message-lock-lost",
        "com.microsoft:session-lock-lost",
        "com.microsoft:session-cannot-be-locked",
    ),
    501: ("amqp:not-implemented",),
    503: ("com.microsoft:server-busy",),
}
_STATUS_OF = {condition: status for status, conditions in _STATUS.items() for condition in conditions}


class Call:
    """One request on its way. `entity`: the path of the node, without its last segment, lower case."""

    def __init__(self, peer: Peer, entity: str, request: Request, respond: Respond) -> None:
        self.peer = peer
        self.entity = entity
        self.body: dict[Any, Any] = request.body if isinstance(request.body, dict) else {}
        self.respond = respond

    def fail(self, error: Exception) -> None:
        condition = condition_of(error)
        if is_ours(error):
            log.error("a request failed", exc_info=error)
        self.respond(Response(_STATUS_OF.get(condition, 500), text_of(error), None, condition))

    def done(self, error: Exception | None) -> None:
        """What most settlements end with."""
        if error is not None:
            self.fail(error)
        else:
            self.respond(OK)

    def receiver(self) -> Receiver:
        self.peer.require(self.entity, Right.LISTEN)
        return self.peer.namespace.receiver(self.entity, sessions=True)

    def holder(self, receiver: Receiver) -> Receiver | SessionLock:
        """Who holds the locks that the request names: the receiver itself, or a session of it."""
        session = self.body.get("session-id")
        if receiver.sessions is None or session is None:
            return receiver
        return receiver.sessions.lock_of(str(session))

    def session(self) -> SessionLock:
        """The session the request names, which somebody holds. Raises SessionLockLost, SessionRequired."""
        return self.sessions().lock_of(self.text("session-id"))

    def sessions(self) -> Sessions:
        found = self.receiver().sessions
        if found is None:
            raise SessionRequired(f"'{self.entity}' has no sessions.")
        return found

    # Members of the map. Each raises Invalid.

    def number(self, name: str, least: int = 0, default: int | None = None) -> int:
        value = self.body.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise Invalid(f"'{name}' must be a number, and at least {least}.")
        return int(value)

    def text(self, name: str) -> str:
        value = self.body.get(name)
        if not isinstance(value, str):
            raise Invalid(f"'{name}' must be a text.")
        return str(value)

    def items(self, name: str, kind: type) -> list[Any]:
        value = self.body.get(name)
        if not isinstance(value, list) or not value or len(value) > ITEMS_MAX:
            raise Invalid(f"'{name}' must be a list of 1 to {ITEMS_MAX} values.")
        if not all(isinstance(item, kind) for item in value):
            raise Invalid(f"'{name}' must hold values of type {kind.__name__.lower()}.")
        return value


def answer(entity: str, peer: Peer, request: Request, respond: Respond) -> None:
    call = Call(peer, entity, request, respond)
    name = request.application.get("operation")
    # One client sends it as binary.
    text = bytes(name).decode("latin-1") if isinstance(name, bytes) else str(name)
    verb = _VERBS.get(text.removeprefix("com.microsoft:"))
    if verb is None:
        respond(Response(501, f"The operation '{text:.100}' is not known.", None, "amqp:not-implemented"))
        return
    try:
        verb(call)
    except (BrokerError, DecodeError) as error:
        call.fail(error)


# Locks.


def _renew_lock(call: Call) -> None:
    receiver = call.receiver()
    entries = [receiver.holder(token.bytes) for token in call.items("lock-tokens", UUID)]

    def renewed(error: Exception | None) -> None:
        if error is not None:
            call.fail(error)
        else:
            moments = Array(Timestamp(entry.until) for entry in entries)
            call.respond(OK._replace(body={"expirations": moments}))

    _each(entries, receiver.renew, renewed)


def _update_disposition(call: Call) -> None:
    receiver = call.receiver()
    status = call.text("disposition-status")
    holder = call.holder(receiver)
    # Each once: a message that is settled twice at a time would become two.
    tokens = dict.fromkeys(call.items("lock-tokens", UUID))
    modify = call.body.get("properties-to-modify")
    properties = modify if isinstance(modify, dict) else None
    entries = [holder.holder(token.bytes) for token in tokens]
    changes = {entry.sequence: merged(entry, properties) for entry in entries}

    def settle(entry: Entry, done: Settled) -> None:
        if status == "completed":
            receiver.complete(entry, done)
        elif status == "abandoned":
            receiver.unlock(entry, done, changes[entry.sequence])
        elif status in ("defered", "deferred"):
            receiver.defer(entry, done, changes[entry.sequence])
        else:
            reason, text = (str(call.body.get(f"deadletter-{n}") or "") for n in ("reason", "description"))
            receiver.dead_letter(entry, reason, text, done, changes[entry.sequence])

    if status not in ("completed", "abandoned", "defered", "deferred", "suspended"):
        raise Invalid(f"The disposition status '{status:.60}' is not known.")
    _each(entries, settle, call.done)


def _each(entries: list[Any], act: Callable[..., object], done: Callable[[Exception | None], object]) -> None:
    """Does one thing to all; `done` once, with the first error if there is any."""
    left = len(entries)
    first: Exception | None = None

    def one(error: Exception | None) -> None:
        nonlocal left, first
        left -= 1
        first = first or error
        if left == 0:
            done(first)

    for entry in entries:
        act(entry, one)


# Looking and receiving.


def _peek(call: Call) -> None:
    receiver = call.receiver()
    start = max(0, call.number("from-sequence-number", least=-(2**63), default=0))
    count = min(call.number("message-count", 1), ITEMS_MAX)
    session = call.body.get("session-id")
    found = receiver.peek(start, count, PEEK_BYTES_MAX, None if session is None else str(session))
    if call.body.get("omit-message-body") is True:
        found = [without_body(delivery) for delivery in found]
    _respond_with(call, receiver, found, own=False)


def _receive_by_sequence(call: Call) -> None:
    receiver = call.receiver()
    lock = call.number("receiver-settle-mode", default=0) == 1

    def received(outcome: list[Delivery] | Exception) -> None:
        if isinstance(outcome, Exception):
            call.fail(outcome)
        else:
            _respond_with(call, receiver, outcome, own=True)

    call.holder(receiver).receive_deferred(call.items("sequence-numbers", int), lock, received)


def _respond_with(call: Call, receiver: Receiver, deliveries: list[Delivery], own: bool) -> None:
    """No messages are no list: clients take an empty array for a fault. `own`: the locks are the client's;
    those of others are not told, or it could settle with them."""
    if not deliveries:
        call.respond(NOTHING)
        return
    ttl = receiver.terms().default_ttl
    messages = []
    for delivery in deliveries:
        earlier = delivery.deliveries - (1 if delivery.token else 0)
        lock = lock_annotation(delivery.token) if own else b""
        item: dict[str, Any] = {"message": encode_delivery(delivery, ttl, max(0, earlier), lock)}
        if own and delivery.token:
            item["lock-token"] = uuid_of(delivery.token)
        messages.append(item)
    call.respond(OK._replace(body={"messages": messages}))


def _delete_batch(call: Call) -> None:
    receiver = call.receiver()
    count = min(call.number("message-count", 1), ITEMS_MAX)

    def deleted(outcome: int | Exception) -> None:
        if isinstance(outcome, Exception):
            call.fail(outcome)
        else:
            call.respond(OK._replace(body={"message-count": Int(outcome)}) if outcome else NOTHING)

    session = call.body.get("session-id")
    moment = call.number("enqueued-time-utc")
    receiver.delete_before(moment, count, deleted, None if session is None else str(session))


# Scheduling.


def _schedule(call: Call) -> None:
    peer = call.peer
    peer.require(call.entity, Right.SEND)
    entity = peer.namespace.entity(call.entity)
    if not isinstance(entity, (Queue, Topic)):
        raise NotFound(f"The messaging entity '{call.entity}' could not be found.")
    now = peer.now()
    messages = list(_scheduled(call, now))
    check(messages, message_bytes_max(entity, peer.namespace.limits))
    numbers: list[int] = []

    def scheduled(error: Exception | None) -> None:
        if error is not None:
            call.fail(error)
        else:
            call.respond(OK._replace(body={"sequence-numbers": Array(map(Long, numbers))}))

    peer.namespace.send(entity.path, messages, now, scheduled, numbers)
    peer.count(entity.path, "incoming_messages", len(messages))


def _scheduled(call: Call, now: int) -> Iterable[Message]:
    for item in call.items("messages", dict):
        payload = item.get("message")
        if not isinstance(payload, bytes):
            raise Invalid("Each of 'messages' needs an encoded 'message'.")
        for message in messages_of(payload, 0, now, call.peer.namespace.limits):
            if message.scheduled is None:
                raise Invalid("A message to be scheduled needs the time at which it is to be enqueued.")
            yield message


def _cancel(call: Call) -> None:
    call.peer.require(call.entity, Right.SEND)
    sequences = call.items("sequence-numbers", int)
    fanout = call.peer.namespace.topics.get(call.entity)
    if fanout is not None:
        fanout.cancel(sequences, call.peer.now(), call.done)
    else:
        call.peer.namespace.receiver(call.entity, sessions=True).cancel(sequences, call.done)


# Sessions.


def _renew_session_lock(call: Call) -> None:
    lock = call.session()

    def renewed(error: Exception | None) -> None:
        if error is not None:
            call.fail(error)
        else:
            call.respond(OK._replace(body={"expiration": Timestamp(lock.until)}))

    lock.renew(renewed)


def _get_session_state(call: Call) -> None:
    call.respond(OK._replace(body={"session-state": call.session().state()}))


def _set_session_state(call: Call) -> None:
    state = call.body.get("session-state")
    if state is not None and not isinstance(state, bytes):
        raise Invalid("'session-state' must be binary or null.")
    call.session().set_state(state, call.done)


def _get_message_sessions(call: Call) -> None:
    since = call.number("last-updated-time")
    skip, top = call.number("skip"), min(call.number("top"), ITEMS_MAX)
    found = call.sessions().list(None if since >= WITH_MESSAGES else since, skip, top)
    if not found:
        call.respond(NOTHING)
    else:
        call.respond(OK._replace(body={"skip": Int(skip + len(found)), "sessions-ids": Array(found)}))


# Rules.


def _subscription(call: Call) -> Subscription:
    call.peer.require(call.entity, Right.MANAGE)
    entity = call.peer.namespace.entity(call.entity)
    if not isinstance(entity, Subscription):
        raise NotFound(f"The messaging entity '{call.entity}' could not be found.")
    return entity


def _add_rule(call: Call) -> None:
    rule = rules.read(_subscription(call), call.text("rule-name"), call.body.get("rule-description"))
    call.peer.server.spawn(call.peer.namespace.create(rule), call.done)


def _remove_rule(call: Call) -> None:
    path = rules.path_of(_subscription(call), call.text("rule-name"))
    if call.peer.namespace.entity(path) is None:
        raise NotFound(f"The messaging entity '{path}' could not be found.")
    call.peer.server.spawn(call.peer.namespace.delete(path), call.done)


def _enumerate_rules(call: Call) -> None:
    found = rules.all_of(call.peer.namespace, _subscription(call))
    skip, top = call.number("skip"), call.number("top")
    page = [{"rule-description": rules.written(rule)} for rule in found[skip : skip + min(top, ITEMS_MAX)]]
    call.respond(OK._replace(body={"rules": page}) if page else NOTHING)


_VERBS: dict[str, Callable[[Call], None]] = {
    "renew-lock": _renew_lock,
    "update-disposition": _update_disposition,
    "peek-message": _peek,
    "receive-by-sequence-number": _receive_by_sequence,
    "batch-delete-messages": _delete_batch,
    "renew-session-lock": _renew_session_lock,
    "get-session-state": _get_session_state,
    "set-session-state": _set_session_state,
    "get-message-sessions": _get_message_sessions,
    "schedule-message": _schedule,
    "cancel-scheduled-message": _cancel,
    "add-rule": _add_rule,
    "remove-rule": _remove_rule,
    "enumerate-rules": _enumerate_rules,
}
