"""The JSON batch, `application/vnd.microsoft.servicebus.json` (REST reference 3.4, 3.7).

Everything is validated before anything is stored; one bad element refuses the batch.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from ...broker.errors import Invalid
from ...broker.message import Message
from .properties import broker_properties, compose, json_properties
from .scale import Scale

_MEMBERS = {
    "body": "Body",
    "brokerproperties": "BrokerProperties",
    "userproperties": "UserProperties",
    "isbodybase64": "IsBodyBase64",
}
_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


def parse(body: bytes, stamp: Any, scale: Scale) -> list[Message]:
    """The messages of a batch. `stamp()` gives ids to those without. Raises Invalid; so may `scale`."""
    try:
        elements = _decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(
            f"SubCode=40000. The request body is not a valid JSON message batch: {error}."
        ) from None
    if not elements:
        raise Invalid("SubCode=40000. The request body is an empty message batch: there is nothing to send.")
    return [_message(element, stamp, scale) for element in elements]


def _message(element: dict[str, Any], stamp: Any, scale: Scale) -> Message:
    if not element.keys() <= _EXACT:
        element = _canonical(element)
    broker = element.get("BrokerProperties")
    user = element.get("UserProperties")
    for name, members in (("BrokerProperties", broker), ("UserProperties", user)):
        if members is not None and not isinstance(members, dict):
            raise Invalid(f"SubCode=40000. '{name}' in a message batch must be an object.")
    body = _body(element.get("Body"), element.get("IsBodyBase64"))
    broker = broker_properties(broker) if broker else {}
    user = json_properties(user) if user else {}
    scale.add(body, broker, user)
    return compose(body, None, broker, user, stamp())


_EXACT = frozenset(_MEMBERS.values())


def _canonical(element: dict[str, Any]) -> dict[str, Any]:
    """Unknown members do not count; known ones in another letter case do, behind exact ones."""
    found = {_MEMBERS[name.lower()]: value for name, value in element.items() if name.lower() in _MEMBERS}
    return found | {name: value for name, value in element.items() if name in _EXACT}


def _body(value: Any, is_base64: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, (dict, list)):
        raise Invalid("SubCode=40000. 'Body' in a message batch must be a string.")
    text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else msgspec.json.encode(value)
    if is_base64 is not True:
        return bytes(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("SubCode=40000. A 'Body' with IsBodyBase64 is not valid Base64.") from None
