"""The sends: events and messages, single, batched, and the one that answers with an Atom entry.

How one POST is told apart (REST reference 3, before 3.1): the batch media type; then topic + WRAP + Atom;
everything else is one opaque message.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from ...broker.constraints import message_bytes_max
from ...broker.entity import EventHub, Queue, Topic
from ...broker.errors import Disabled, Invalid, TooLarge
from ...broker.message import Message
from ...broker.namespace import Namespace
from ...chance import guid_bytes
from ..http.request import Request
from . import batch
from .errors import HttpError
from .properties import compose, header_properties, header_text, user_properties
from .scale import Scale

if TYPE_CHECKING:
    from .door import RestDoor, Route

BATCH_TYPE = b"application/vnd.microsoft.servicebus.json"
ATOM_TYPE = b"application/atom+xml"
ATOM = "http://www.w3.org/2005/Atom"
UNBOUNDED = 1 << 62
REMEMBERED_BYTES_MAX = 2048
_EMPTY = b"Content-Type: application/xml; charset=utf-8\r\nContent-Length: 0\r\n\r\n"


class Send:
    def __init__(self, door: RestDoor) -> None:
        self._door = door
        self._standing = b""
        self._created = b""

    def too_large(self, namespace: Namespace, entity: EventHub | Queue | Topic, size: int) -> HttpError:
        text = str(TooLarge(size, message_bytes_max(entity, namespace.limits)))
        # Conflict C14: 413 on Event Hubs, 403 on Service Bus.
        if isinstance(entity, EventHub):
            return HttpError(413, text)
        return HttpError(403, f"SubCode=40300. {text}")

    def body_max(self, request: Request, route: Route) -> int:
        """How much body may be read: as much as a message may have; of a batch, for its JSON, twice that."""
        size_max = route.size_max
        if size_max == 0:
            return UNBOUNDED
        return 2 * size_max if media_type(request) == BATCH_TYPE else size_max

    def handle(self, request: Request, route: Route) -> None:
        """Raises BrokerError; otherwise the request is answered when its messages are durable."""
        media = media_type(request)
        scale = Scale(route.namespace.limits, route.hub is not None)
        if media == BATCH_TYPE:
            messages = batch.parse(request.body, _nothing if route.hub is not None else stamp, scale)
        else:
            messages = [self._single(request, route, scale)]
        if scale.size > route.size_max > 0:
            raise self.too_large(route.namespace, route.entity, scale.size)  # type: ignore[arg-type]
        self._check(route, messages)
        done = self._created_when_durable(request, route, len(messages))
        now = request.received
        if route.hub is not None:
            route.namespace.publish(route.hub, messages, route.partition, now, done)
        elif media == ATOM_TYPE and self._is_entry(request, route):
            self._send_entry(request, route, messages, now)
        else:
            route.namespace.send(route.target.entity, messages, now, done)

    def _single(self, request: Request, route: Route, scale: Scale) -> Message:
        content_type = header_text(request.content_type) if request.content_type else None
        mark = None if route.hub is not None else stamp()
        broker, user = _properties(request.headers, route)
        scale.add(request.body, broker, user)
        return compose(request.body, content_type, broker, user, mark)

    def _check(self, route: Route, messages: list[Message]) -> None:
        publisher = route.target.publisher
        for message in messages:
            key = message.partition_key
            if publisher is not None:
                _check_publisher(message, publisher, route.namespace.limits.key_chars_max)
            elif route.partition is not None and key is not None:
                raise Invalid("SubCode=40000. A message for a given partition cannot have a PartitionKey.")
            elif message.session_id and key and key != message.session_id:
                raise Invalid("SubCode=40000. The PartitionKey and the SessionId must be the same.")

    def _created_when_durable(
        self, request: Request, route: Route, count: int
    ) -> Callable[[Exception | None], None]:
        counters = route.counters

        def done(error: Exception | None) -> None:
            if error is not None:
                self._door.fail(request, error)
                return
            if counters is not None:
                counters.incoming_messages += count
            standing = self._door.standing(request)
            if standing is not self._standing:
                self._standing = standing
                self._created = b"HTTP/1.1 201 Created\r\n" + standing + _EMPTY
            request.respond_raw(self._created)

        return done

    # Send Message with a WRAP token and an Atom entry (3.6, conflict C2).

    def _is_entry(self, request: Request, route: Route) -> bool:
        if not isinstance(route.entity, Topic) or route.grant is None or route.grant.scheme != "wrap":
            return False
        body = request.body.removeprefix(b"\xef\xbb\xbf").lstrip()
        return body[:1] == b"<" and _content_of(body) is not None

    def _send_entry(self, request: Request, route: Route, messages: list[Message], now: int) -> None:
        content = _content_of(request.body.removeprefix(b"\xef\xbb\xbf").lstrip())
        assert content is not None
        assert isinstance(route.entity, Topic)
        host = header_text(request.host)
        body = _entry(f"https://{host}/{route.entity.path}", content, now)

        def done(error: Exception | None) -> None:
            if error is not None:
                self._door.fail(request, error)
                return
            kind = (b"Content-Type", b"application/atom+xml; type=entry; charset=utf-8")
            request.respond(200, (kind,), body)

        try:
            route.namespace.send(route.target.entity, messages, now, done)
        except Disabled:
            raise HttpError(409, "SubCode=40900. Conflict.") from None


def _properties(headers: list[tuple[bytes, bytes]], route: Route) -> tuple[dict[str, Any], dict[str, Any]]:
    """BrokerProperties and custom properties; remembered, as a device sends the same headers each time."""
    known = route.sent
    if known is not None and known[0] == headers:
        return known[1], known[2]
    broker = header_properties(
        [value for name, value in headers if len(name) == 16 and name.lower() == b"brokerproperties"]
    )
    user = user_properties(headers)
    if sum(len(name) + len(value) for name, value in headers) <= REMEMBERED_BYTES_MAX:
        route.sent = headers, broker, user
    return broker, user


def stamp() -> str:
    """A message id for a message that has none: 32 hex digits, as the service gives."""
    return guid_bytes().hex()


def _nothing() -> None:
    """Event Hubs gives no message ids."""


def media_type(request: Request) -> bytes:
    """The content type without parameters, in lower case."""
    return _media_type(request.content_type)


@lru_cache(256)
def _media_type(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


def _check_publisher(message: Message, publisher: str, chars_max: int) -> None:
    if len(publisher) > chars_max > 0:
        raise Invalid(f"SubCode=40000. A publisher name is limited to {chars_max} characters.")
    if message.partition_key not in (None, publisher):
        raise Invalid("SubCode=40000. The PartitionKey must be the publisher's name.")
    message.partition_key = message.publisher = publisher


class _Content(NamedTuple):
    """What an entry's content element holds, literally, and the namespace prefixes that this may use."""

    inner: bytes
    prefixes: dict[str, str]


def _entry(uri: str, content: _Content, now: int) -> bytes:
    moment = datetime.fromtimestamp(now // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # Conflict C34: the address both as attribute and as text.
    head = (
        f'<?xml version="1.0" encoding="utf-8"?><entry xmlns="{ATOM}"><id>{escape(uri)}</id>'
        f"<published>{moment}</published><updated>{moment}</updated>"
        f'<link rel="self" href={quoteattr(uri)}>{escape(uri)}</link><content type="application/xml"'
    )
    bound = "".join(f" xmlns:{prefix}={quoteattr(name)}" for prefix, name in content.prefixes.items())
    return (head + bound + ">").encode() + content.inner + b"</content></entry>"


def _content_of(body: bytes) -> _Content | None:
    """The inner XML of an Atom entry's content; None if this is other XML.

    Raises Invalid for XML that does not parse or an entry without content. No DTD, no entities, and no
    encoding but UTF-8, whatever it declares: a part of it goes into the answer, which is UTF-8.
    """
    reader = _EntryReader()
    try:
        return reader.read(body)
    except (expat.ExpatError, LookupError, ValueError):
        raise Invalid("SubCode=40000. The request body is not a well-formed Atom entry.") from None


class _EntryReader:
    """Finds where the content of an entry begins and ends, by byte offsets."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.StartNamespaceDeclHandler = self._bind
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._depth = 0
        self._root = ""
        self._from: int | None = None
        self._to: int | None = None
        self._bound: dict[str, str] = {}
        self._prefixes: dict[str, str] = {}

    def read(self, body: bytes) -> _Content | None:
        if b"\0" in body:
            raise ValueError("not UTF-8")
        self._parser.Parse(body, True)
        if self._root != f"{ATOM} entry":
            return None
        if self._from is None or self._to is None:
            raise ValueError("no content")
        inner = body[self._from : self._to]
        # The handler tells where the start tag begins; the content begins behind it.
        end_of_tag = _tag_end(inner)
        empty = inner[end_of_tag - 2 : end_of_tag] == b"/>"
        return _Content(b"" if empty else inner[end_of_tag:], self._prefixes)

    def _bind(self, prefix: str | None, name: str) -> None:
        if prefix:
            self._bound[prefix] = name

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0:
            self._root = name
            self._prefixes = self._bound
        elif self._depth == 1 and name == f"{ATOM} content" and self._from is None:
            self._from = self._parser.CurrentByteIndex
            self._prefixes = self._prefixes | self._bound
        self._bound = {}
        self._depth += 1
        if self._depth > 256:
            raise ValueError("nested too deep")

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth == 1 and name == f"{ATOM} content" and self._to is None:
            self._to = self._parser.CurrentByteIndex

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type is not allowed")


def _tag_end(text: bytes) -> int:
    """The offset behind the first tag, whose attribute values may hold '>'."""
    quote = b""
    for at in range(len(text)):
        char = text[at : at + 1]
        if quote:
            quote = b"" if char == quote else quote
        elif char in (b'"', b"'"):
            quote = char
        elif char == b">":
            return at + 1
    return len(text)
