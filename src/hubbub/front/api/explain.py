"""JSON of explanations: a message described by its properties, and what the rules of a topic make of it.

    {"message": {"subject": "a", "properties": {"size": 5, "id": {"type": "guid", "value": "…"}}},
     "subscription": "s"}
    {"from": {"subscription": "s", "sequenceNumber": 7, "deadLetter": false}}

A message is described as the API shows messages; what a sender does not choose is passed over. JSON's own
types are boolean, long, double and string; the others are written as above.
"""

from __future__ import annotations

import base64
import math
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from ...broker.entity import subscription_path
from ...broker.errors import Invalid, NotFound
from ...broker.explain import Explanation, RuleFinding, explain_topic, open_letter
from ...broker.filters import FilterError, Finding, Letter, Value, text_of, values_of
from ...broker.message import Message
from ...broker.namespace import Namespace
from ...broker.topic import Letters
from ...wire.amqp.message import data_section
from .shapes import content, iso_length, json_of, length_of, present

_TEXTS = {
    "messageId": "MessageId",
    "correlationId": "CorrelationId",
    "subject": "Label",
    "label": "Label",
    "to": "To",
    "replyTo": "ReplyTo",
    "replyToSessionId": "ReplyToSessionId",
    "sessionId": "SessionId",
    "contentType": "ContentType",
    "partitionKey": "PartitionKey",
}
_PASSED_OVER = frozenset(
    (
        *("sequenceNumber", "enqueuedTimeUtc", "state", "deliveryCount", "lockedUntilUtc", "offset"),
        *("enqueuedSequenceNumber", "deadLetterSource", "deadLetterReason", "deadLetterErrorDescription"),
        "publisher",
    )
)
_OWN = frozenset(("body", "bodyBase64", "properties", "timeToLive", "scheduledEnqueueTimeUtc"))
_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    datetime: "dateTime",
    timedelta: "duration",
    UUID: "guid",
    bytes: "binary",
}
_OUTCOMES = {True: "true", False: "false", None: "unknown"}


# What is asked.


def message_of(shape: Any, letters: Letters) -> Message:
    """The message that is described. Raises Invalid."""
    if not isinstance(shape, dict):
        raise Invalid("A message must be a JSON object.")
    for name in shape:
        if name not in _TEXTS and name not in _OWN and name not in _PASSED_OVER:
            raise Invalid(f"A message has no '{name}'. It has {', '.join(sorted({*_TEXTS, *_OWN}))}.")
    letter = Letter({}, {})
    try:
        for name, value in shape.items():
            if name in _TEXTS and value is not None:
                letter.set_system(_TEXTS[name], _text(name, value))
        if shape.get("timeToLive") is not None:
            letter.set_system("TimeToLive", timedelta(milliseconds=length_of(shape["timeToLive"])))
    except FilterError as error:
        raise Invalid(f"The message cannot be: {error}.") from None
    for name, value in _properties(shape.get("properties")).items():
        letter.set_user(name, value)
    message = Message(data_section(_body(shape)), scheduled=_moment(shape.get("scheduledEnqueueTimeUtc")))
    return letters.close(message, letter)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"'{name}' must be a text.")
    return value


def _body(shape: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text("bodyBase64", shape["bodyBase64"]), validate=True)
    except KeyError:
        return _text("body", shape.get("body") or "").encode("utf-8", "surrogatepass")
    except ValueError:
        raise Invalid("'bodyBase64' is not Base64.") from None


def _moment(text: Any) -> int | None:
    if text is None:
        return None
    moment = values_of({"scheduledEnqueueTimeUtc": ("dateTime", _text("scheduledEnqueueTimeUtc", text))})
    return int(moment["scheduledEnqueueTimeUtc"].timestamp() * 1000)


def _properties(shape: Any) -> dict[str, Value]:
    if shape is not None and not isinstance(shape, dict):
        raise Invalid("'properties' must be a JSON object.")
    found = {name: _property(name, value) for name, value in (shape or {}).items()}
    return {name: value for name, value in found.items() if value is not None}


def _property(name: str, value: Any) -> Value:
    if isinstance(value, dict):
        kind, text = value.get("type"), value.get("value")
        if len(value) == 2 and isinstance(kind, str) and isinstance(text, str):
            return values_of({name: (kind, text)})[name]
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise Invalid(f"The property '{name:.60}' is out of range: whole numbers have 64 bits.")
    elif value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise Invalid(f"The property '{name:.60}' must be a plain value, or an object with 'type' and 'value'.")


def answer(namespace: Namespace, topic: str, body: bytes, now: int, newid: UUID) -> dict[str, Any]:
    """What the topic would do with the message that the request names. Raises Invalid, NotFound."""
    asked = json_of(body)
    if not isinstance(asked, dict) or ("message" in asked) == ("from" in asked):
        raise Invalid("The body must be a JSON object with either 'message' or 'from'.")
    if unknown := set(asked) - {"message", "from", "subscription"}:
        raise Invalid(f"'{min(unknown)}' is unknown here. Known: message, from, subscription.")
    fanout = namespace.topics.get(topic.lower())
    if fanout is None or fanout.letters is None:
        raise NotFound(f"There is no topic '{topic}'.")
    if "message" in asked:
        message = message_of(asked["message"], fanout.letters)
    else:
        message = _there(namespace, topic, asked["from"])
    name = _text("subscription", asked.get("subscription") or "")
    found = explain_topic(namespace, topic, message, now, newid, name)
    letter = open_letter(fanout, message, now)
    return {
        "topic": topic,
        "message": seen_message(letter),
        "subscriptions": [explanation(one) for one in found],
    }


def _there(namespace: Namespace, topic: str, place: Any) -> Message:
    """A message that a subscription has, as it would be if it were sent again."""
    if not isinstance(place, dict) or not set(place) <= {"subscription", "sequenceNumber", "deadLetter"}:
        raise Invalid(
            "'from' must be an object with 'subscription', 'sequenceNumber' and perhaps 'deadLetter'."
        )
    number, dead = place.get("sequenceNumber"), place.get("deadLetter", False)
    if type(number) is not int or not 0 <= number < 1 << 63 or not isinstance(dead, bool):
        raise Invalid("'sequenceNumber' must be a number, and 'deadLetter' true or false.")
    name = _text("subscription", place.get("subscription"))
    for delivery in namespace.peek(subscription_path(topic, name), number, 1, dead):
        if delivery.sequence == number:
            return msgspec.structs.replace(
                delivery.message,
                deliveries=0,
                enqueued_sequence=0,
                dead_letter_source=None,
                dead_letter_reason=None,
                dead_letter_description=None,
            )
    raise NotFound(f"The subscription '{name}' has no message {number}{' among its dead letters' * dead}.")


# What is told.


def seen_message(letter: Letter) -> dict[str, Any]:
    """The message as filters see it: what is set, with types."""
    return {
        "system": {name: _typed(value) for name, value in letter.system.items() if value is not None},
        "properties": {name: _typed(value) for name, value in letter.user.items()},
    }


def explanation(found: Explanation) -> dict[str, Any]:
    return {
        "name": found.subscription,
        "forwardTo": found.forward_to or None,
        "copies": len(found.copies),
        "messages": [_copy(message) for message in found.copies],
        "deadLetters": [_copy(message) for message in found.dead],
        "rules": [rule(one) for one in found.rules],
    }


def rule(found: RuleFinding) -> dict[str, Any]:
    return {
        "name": found.name,
        "matched": found.filter.outcome is True,
        "error": found.error or None,
        "filter": _term(found.filter),
        "action": found.action or None,
        "changes": [
            {
                "statement": change.statement,
                "property": change.name,
                "before": _typed(change.before),
                "after": _typed(change.after),
                "error": change.error or None,
            }
            for change in found.changes
        ],
    }


def _term(found: Finding) -> dict[str, Any]:
    return {
        "text": found.text,
        "outcome": "error" if found.error else _OUTCOMES[found.outcome],
        "decides": found.decides,
        "reached": found.reached,
        "error": found.error or None,
        "note": found.note or None,
        "saw": {one.name: _typed(one.value) for one in found.seen},
        "terms": [_term(part) for part in found.parts],
    }


def _copy(message: Message) -> dict[str, Any]:
    shape = content(message)
    for name in ("body", "bodyBase64"):
        shape.pop(name, None)
    return present(
        shape
        | {
            "sessionId": message.session_id,
            "partitionKey": message.partition_key,
            "timeToLive": None if message.ttl is None else iso_length(message.ttl),
            "deadLetterReason": message.dead_letter_reason,
            "deadLetterErrorDescription": message.dead_letter_description,
        }
    )


def _typed(value: Value) -> dict[str, Any] | None:
    """None where there is no value."""
    if value is None:
        return None
    shown = value
    if isinstance(value, bytes):
        shown = base64.b64encode(value).decode()
    elif not isinstance(value, (bool, int, str)) and not (isinstance(value, float) and math.isfinite(value)):
        shown = text_of(value)
    return {"type": _TYPES[type(value)], "value": shown}
