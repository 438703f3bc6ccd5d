"""ATOM management: entities created, shown, changed, listed and deleted over HTTP (REST reference 7)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs

from ...broker.access import Action, Grant, Right
from ...broker.entity import (
    AnyEntity,
    ConsumerGroup,
    EventHub,
    Queue,
    RevokedPublisher,
    Rule,
    Subscription,
    Topic,
)
from ...broker.errors import Invalid, NotFound
from ...broker.namespace import Namespace
from ...clock import Clock
from ..http.request import Request
from . import descriptions
from .atom import ENTRY_TYPE, FEED_TYPE, SB, XSI, description, entry, exact, feed, nothing_here, tag
from .errors import XML, HttpError

Response = tuple[int, tuple[tuple[bytes, bytes], ...], bytes]
PAGE_MAX = 100
TICKS_1970 = 621_355_968_000_000_000
_TOP: dict[str, type[AnyEntity]] = {"queues": Queue, "topics": Topic, "eventhubs": EventHub}
_BELOW: dict[str, tuple[type, str]] = {
    "subscriptions": (Subscription, "Subscriptions"),
    "rules": (Rule, "Rules"),
    "consumergroups": (ConsumerGroup, "ConsumerGroups"),
    "revokedpublishers": (RevokedPublisher, "RevokedPublishers"),
}
_TITLES = {Queue: "Queues", Topic: "Topics", EventHub: "EventHubs"}
_WANTED = {
    "QueueDescription": Queue,
    "TopicDescription": Topic,
    "EventHubDescription": EventHub,
}


class Place(NamedTuple):
    """What a management path points at: a top-level entity, one below another, or a collection."""

    kind: type | None
    path: str
    parent: str = ""
    name: str = ""
    collection: bool = False
    partition: str | None = None


def place_of(segments: Sequence[str]) -> Place:
    """By the shape of the path alone. `kind` None: some top-level entity."""
    lower = [segment.lower() for segment in segments]
    for at in range(len(lower) - 1, 0, -1):
        if lower[at] == "partitions" and "consumergroups" in lower[:at] and len(lower) - at <= 2:
            group = "/".join(segments[:at])
            number = segments[at + 1] if at + 1 < len(segments) else ""
            return Place(
                ConsumerGroup, group, "/".join(segments[: at - 2]), collection=not number, partition=number
            )
        if lower[at] in _BELOW and len(lower) - at <= 2:
            kind = _BELOW[lower[at]][0]
            parent = "/".join(segments[:at])
            if at + 1 == len(segments):
                return Place(kind, "/".join(segments), parent, collection=True)
            return Place(kind, "/".join(segments), parent, segments[at + 1])
    return Place(None, "/".join(segments))


class Management:
    """Answers management requests. Raises BrokerError for the door to shape."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handle(
        self, request: Request, namespace: Namespace, grant: Grant | None, segments: list[str], now: int
    ) -> Response | Awaitable[Response]:
        """`grant` None: an anonymous look at the root, which shows the empty feed."""
        if grant is None:
            return _nothing(now)
        method = request.method
        if method not in (b"GET", b"PUT", b"DELETE", b"HEAD"):
            verb = method.decode("latin-1")
            raise Invalid(f"SubCode=40000. The specified HTTP verb ({verb}) is not valid.")
        action = {b"PUT": Action.WRITE, b"DELETE": Action.DELETE}.get(method, Action.READ)
        grant.require("/".join(segments).lower(), Right.MANAGE, now, action)
        lower = [segment.lower() for segment in segments]
        if lower == ["$namespaceinfo"]:
            return self._info(request, namespace)
        if len(lower) == 2 and lower[0] == "$resources":
            return self._enumerate(request, namespace, lower[1], now)
        place = place_of(segments)
        if method == b"PUT":
            return self._put(request, namespace, place, now)
        if method == b"DELETE":
            return self._delete(request, namespace, place)
        return self._get(request, namespace, place, now)

    # Reading.

    def _get(self, request: Request, namespace: Namespace, place: Place, now: int) -> Response:
        if place.partition is not None:
            return self._partitions(request, namespace, place, now)
        if place.collection:
            return self._collection(request, namespace, place, now)
        entity = self._find(namespace, place)
        if entity is None:
            if place.kind is None:
                return _nothing(now)
            raise NotFound(_missing_text(namespace, place))
        return self._entry(request, namespace, entity, 200)

    def _find(self, namespace: Namespace, place: Place) -> AnyEntity | None:
        entity = namespace.entity(place.path)
        if place.kind is None:
            return entity if isinstance(entity, (Queue, Topic, EventHub)) else None
        return entity if isinstance(entity, place.kind) else None

    def _collection(self, request: Request, namespace: Namespace, place: Place, now: int) -> Response:
        assert place.kind is not None
        parent = namespace.entity(place.parent)
        if parent is None:
            raise NotFound(f"Entity '{place.parent}' was not found.")
        title = next(title for kind, title in _BELOW.values() if kind is place.kind)
        found: list[AnyEntity] = namespace.entities(place.kind, place.parent)
        return self._page(request, namespace, found, title, now)

    def _enumerate(self, request: Request, namespace: Namespace, name: str, now: int) -> Response:
        kind = _TOP.get(name)
        if kind is None:
            raise NotFound(f"Entity '$Resources/{name}' was not found.")
        return self._page(request, namespace, namespace.entities(kind), _TITLES[kind], now)

    def _page(
        self, request: Request, namespace: Namespace, found: Sequence[AnyEntity], title: str, now: int
    ) -> Response:
        skip, top = _paging(request)
        uri = _uri(request)
        base = uri.partition("?")[0]
        entries = [
            entry(
                f"{_root(request)}/{item.path}",
                getattr(item, "name", item.path),
                (item.created, item.updated),
                descriptions.write(namespace, item),
                author=namespace.name if isinstance(item, (Queue, Topic, EventHub)) else None,
                link=_relative(item),
                base=uri,
                published=not isinstance(item, RevokedPublisher),
            )
            for item in found[skip : skip + top]
        ]
        following = None
        if skip + top < len(found):
            version = _query(request).get("api-version")
            prefix = f"api-version={version}&" if version else ""
            following = f"{base}?{prefix}$skip={skip + top}&$top={top}"
        return 200, (FEED_TYPE,), feed(uri, title, now, entries, following)

    def _partitions(self, request: Request, namespace: Namespace, place: Place, now: int) -> Response:
        hub = namespace.entity(place.parent)
        if not isinstance(hub, EventHub) or namespace.entity(place.path) is None:
            raise NotFound(f"Entity '{place.path}' was not found.")
        numbers = range(hub.partition_count) if place.collection else [place.partition]
        uri = _uri(request)
        entries = []
        for number in numbers:
            content = _partition(namespace, hub, str(number))
            where = uri if not place.collection else f"{uri.partition('?')[0]}/{number}"
            base, link = (uri, f"partitions/{number}") if place.collection else (None, None)
            times = (hub.created, hub.updated)
            entries.append(entry(where, str(number), times, content, base=base, link=link))
        if place.collection:
            return 200, (FEED_TYPE,), feed(uri, "Partitions", now, entries, None)
        return 200, (ENTRY_TYPE,), entries[0].encode()

    def _info(self, request: Request, namespace: Namespace) -> Response:
        if request.method not in (b"GET", b"HEAD"):
            raise Invalid("SubCode=40000. The namespace itself cannot be changed here.")
        premium = namespace.limits.message_bytes_max_premium > 0
        sku = "Premium" if premium else "Standard" if namespace.limits.topics_allowed else "Basic"
        content = (
            f'<NamespaceInfo xmlns="{SB}" xmlns:i="{XSI}">{tag("CreatedTime", exact(namespace.created))}'
            f"{tag('MessagingSKU', sku)}{'<MessagingUnits>1</MessagingUnits>' if premium else ''}"
            f"{tag('ModifiedTime', exact(namespace.created))}{tag('Name', namespace.name)}"
            f"{tag('NamespaceType', 'Mixed')}</NamespaceInfo>"
        )
        times = (namespace.created, namespace.created)
        return 200, (ENTRY_TYPE,), entry(_uri(request), namespace.name, times, content).encode()

    def _entry(self, request: Request, namespace: Namespace, entity: AnyEntity, status: int) -> Response:
        headers: list[tuple[bytes, bytes]] = [ENTRY_TYPE]
        author = None
        if isinstance(entity, (Queue, Topic, EventHub)):
            author = namespace.name
            if status == 200:
                headers.append((b"ETag", _etag(entity)))
        text = entry(
            _uri(request),
            getattr(entity, "name", entity.path),
            (entity.created, entity.updated),
            descriptions.write(namespace, entity),
            author=author,
        )
        return status, tuple(headers), text.encode()

    # Changing.

    async def _put(self, request: Request, namespace: Namespace, place: Place, now: int) -> Response:
        if place.collection or place.partition is not None or not place.path:
            raise Invalid("SubCode=40000. There is nothing here that could be created.")
        old = self._find(namespace, place)
        updating = _preconditions(request, old)
        wanted = descriptions.TABLES[place.kind][0] if place.kind else _wanted(request.body, old)
        element = description(request.body, wanted)
        kind = place.kind or _WANTED[wanted]
        parent = namespace.entity(place.parent)
        spelled = parent.path if parent is not None else place.parent
        entity = descriptions.read(kind, element, place.path, spelled, place.name, now)
        if not updating:
            return self._entry(request, namespace, await namespace.create(entity), 201)
        if old is None:
            raise NotFound(_missing_text(namespace, place))
        return self._entry(request, namespace, await namespace.update(entity), 200)

    async def _delete(self, request: Request, namespace: Namespace, place: Place) -> Response:
        entity = None if place.collection or place.partition is not None else self._find(namespace, place)
        if entity is None:
            raise NotFound(
                "No service is hosted at the specified address."
                if place.kind is None
                else _missing_text(namespace, place)
            )
        if isinstance(entity, ConsumerGroup) and entity.name.lower() == "$default":
            raise Invalid("SubCode=40000. The consumer group $Default cannot be deleted.")
        _preconditions(request, entity)
        await namespace.delete(entity.path)
        return 200, (XML,), b""


def _nothing(now: int) -> Response:
    return 200, (FEED_TYPE,), nothing_here(str(uuid.uuid4()), now)


def _wanted(body: bytes, old: AnyEntity | None) -> str:
    """Which top-level description the body holds."""
    for name, kind in _WANTED.items():
        if name.encode() in body and (old is None or isinstance(old, kind)):
            return name
    return descriptions.TABLES[type(old)][0] if old is not None else "QueueDescription"


def _preconditions(request: Request, old: AnyEntity | None) -> bool:
    """Whether this is an update. Raises HttpError 412."""
    match = request.header(b"if-match")
    none_match = request.header(b"if-none-match")
    if none_match is not None and none_match.strip() == b"*" and old is not None:
        raise HttpError(412, "Precondition Failed.")
    if match is None:
        return False
    if match.strip() != b"*" and old is not None and match.strip().strip(b'"') != _etag(old):
        raise HttpError(412, "Precondition Failed.")
    return True


def _etag(entity: AnyEntity) -> bytes:
    """UpdatedAt in ticks of 100 ns since the year 1."""
    return b"%d" % (TICKS_1970 + entity.updated * 10_000)


def _missing_text(namespace: Namespace, place: Place) -> str:
    if place.kind is Subscription:
        return f"Entity '{namespace.name}:Topic:{place.parent}|{place.name}' was not found."
    if place.kind is Rule:
        topic, _, subscription = place.parent.rpartition("/")
        topic = topic.rpartition("/")[0]
        return f"Entity '{namespace.name}:Topic:{topic}|{subscription}|{place.name}' was not found."
    return f"Entity '{place.path}' was not found."


def _query(request: Request) -> dict[str, str]:
    return {name.lower(): values[-1] for name, values in parse_qs(request.query.decode("latin-1")).items()}


def _paging(request: Request) -> tuple[int, int]:
    query = _query(request)
    numbers = []
    for name, default in (("$skip", "0"), ("$top", str(PAGE_MAX))):
        text = query.get(name, default)
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise Invalid(f"SubCode=40000. The value '{text:.40}' of {name} is not a number.")
        numbers.append(int(text))
    return numbers[0], max(1, min(numbers[1], PAGE_MAX))


def _root(request: Request) -> str:
    return f"https://{request.host.decode('latin-1')}"


def _uri(request: Request) -> str:
    query = request.query.decode("latin-1")
    return f"{_root(request)}{request.path.decode('latin-1')}{'?' + query if query else ''}"


def _relative(entity: AnyEntity) -> str:
    if isinstance(entity, (Queue, Topic, EventHub)):
        return f"../{entity.path}"
    name = getattr(entity, "name", "")
    return f"consumergroups/{name}" if isinstance(entity, ConsumerGroup) else name


def _partition(namespace: Namespace, hub: EventHub, number: str) -> str:
    found = namespace.partition(hub.path, number)
    values = (
        ("SizeInBytes", found.size_bytes),
        ("BeginSequenceNumber", found.begin_sequence),
        ("EndSequenceNumber", found.last_sequence),
        ("IncomingBytesPerSecond", 0),
        ("OutgoingBytesPerSecond", 0),
        ("LastEnqueuedOffset", found.last_offset),
    )
    inner = "".join(tag(name, str(value)) for name, value in values)
    last = tag("LastEnqueuedTimeUtc", exact(found.last_enqueued))
    return f'<PartitionDescription xmlns="{SB}" xmlns:i="{XSI}">{inner}{last}</PartitionDescription>'
