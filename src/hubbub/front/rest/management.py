"""ATOM management: entities created, shown, changed, listed and deleted over HTTP (REST reference 7).

/{entity}                                                  GET, PUT, DELETE
/{topic}/subscriptions[/{name}[/rules[/{name}]]]           GET; PUT, DELETE of one
/{hub}/consumergroups[/{name}[/partitions[/{number}]]]     GET; PUT, DELETE of a group
/{hub}/revokedpublishers[/{name}]                          GET; PUT, DELETE of one
/$Resources/{queues,topics,eventhubs}, /$namespaceinfo     GET

Not here: the XML (`atom`, `descriptions`), what an entity may be (the broker), the shape of errors (the
door). A PUT creates; with `If-Match` it replaces instead.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote

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
    forward_path,
    rule_path,
    subscription_path,
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
"""1970 in units of 100 ns since the year 1."""

_TOP: dict[str, type[Queue] | type[Topic] | type[EventHub]] = {
    "queues": Queue,
    "topics": Topic,
    "eventhubs": EventHub,
}
_BELOW: dict[str, type] = {
    "subscriptions": Subscription,
    "consumergroups": ConsumerGroup,
    "revokedpublishers": RevokedPublisher,
}
_PARENTS: dict[type | None, type] = {
    Subscription: Topic,
    Rule: Subscription,
    ConsumerGroup: EventHub,
    RevokedPublisher: EventHub,
}
_TITLES: dict[type, str] = {
    Queue: "Queues",
    Topic: "Topics",
    EventHub: "EventHubs",
    Subscription: "Subscriptions",
    Rule: "Rules",
    ConsumerGroup: "ConsumerGroups",
    RevokedPublisher: "RevokedPublishers",
}
_ACTIONS = {b"PUT": Action.WRITE, b"DELETE": Action.DELETE}


class Place(NamedTuple):
    """What a management path means.

    kind: of the entity, or of the members of a collection; None for a top-level entity of any kind.
    path: of the entity; of a collection, that of its parent.
    parent, name: of an entity that lives below another.
    partition: of a consumer group (`path`): its number as the client wrote it, "" for all.
    """

    kind: type | None
    path: str
    parent: str = ""
    name: str = ""
    collection: bool = False
    partition: str | None = None


def place_of(segments: Sequence[str]) -> Place:
    """By the shape of the path alone, for no part of a top-level name may be a reserved word.

    The first reserved word counts: a subscription may well be called "rules". Raises NotFound.
    """
    for at, segment in enumerate(segments):
        if at and segment.lower() in _BELOW:
            return _place_below("/".join(segments[:at]), segments[at:])
    return Place(None, "/".join(segments))


def _place_below(top: str, rest: Sequence[str]) -> Place:
    kind = _BELOW[rest[0].lower()]
    if len(rest) == 1:
        return Place(kind, top, collection=True)
    path = f"{top}/{rest[0].lower()}/{rest[1]}"
    if len(rest) == 2:
        return Place(kind, path, top, rest[1])
    name = rest[3] if len(rest) == 4 else ""
    word = rest[2].lower() if len(rest) <= 4 else ""
    if kind is Subscription and word == "rules":
        subscription = subscription_path(top, rest[1])
        if not name:
            return Place(Rule, subscription, collection=True)
        return Place(Rule, rule_path(subscription, name), subscription, name)
    if kind is ConsumerGroup and word == "partitions":
        return Place(ConsumerGroup, path, top, rest[1], partition=name)
    raise NotFound(f"The messaging entity '{'/'.join((top, *rest))}' could not be found.")


class Management:
    """Answers management requests. Raises BrokerError, for the door to shape."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def handle(
        self, request: Request, namespace: Namespace, grant: Grant | None, segments: list[str], now: int
    ) -> Response | Awaitable[Response]:
        """`grant` None: an anonymous look at the root, which shows the empty feed.

        `segments` are percent-decoded. Raises Unauthorized, NotFound, Invalid; so may the awaitable, which
        also raises AlreadyExists, Conflict, QuotaExceeded, Busy and HttpError (412).
        """
        if grant is None:
            return _nothing(now)
        method = request.method
        path = "/".join(segments).lower()
        grant.require(path, Right.MANAGE, now, _ACTIONS.get(method, Action.READ))
        reading = method in (b"GET", b"HEAD")
        if path == "$namespaceinfo" and reading:
            return _info(request, namespace)
        if path.startswith("$resources/") and len(segments) == 2 and reading:
            return _enumerate(request, namespace, segments[1], now)
        place = place_of(segments)
        single = not place.collection and place.partition is None and not path.startswith("$")
        if reading:
            return _get(request, namespace, place, now)
        if method == b"PUT" and single and segments:
            return self._put(request, namespace, place, grant)
        if method == b"DELETE" and single:
            return self._delete(request, namespace, place)
        verb = method.decode("latin-1")
        raise Invalid(f"SubCode=40000. The specified HTTP verb ({verb}) is not valid.")

    async def _put(self, request: Request, namespace: Namespace, place: Place, grant: Grant) -> Response:
        old = _find(namespace, place)
        updating = _preconditions(request, old)
        if updating and old is None:
            raise NotFound(_missing_text(namespace, place))
        kinds = [type(old)] if updating else [place.kind] if place.kind else list(_TOP.values())
        wanted = {descriptions.TABLES[kind][0]: kind for kind in kinds}
        element = description(request.body, wanted)
        kind = wanted[element.name]
        given = _given(namespace, kind, place)
        moment = self._clock.now()
        if updating:
            changed = descriptions.read(kind, element, given, old, moment)
            _require_targets(request, namespace, grant, changed, old, moment)
            return _entry(request, namespace, await namespace.update(changed), 200)
        created = descriptions.read(kind, element, given, None, moment)
        _require_targets(request, namespace, grant, created, None, moment)
        first = descriptions.first_rule(element, created)
        return _entry(request, namespace, await namespace.create(created, first), 201)

    async def _delete(self, request: Request, namespace: Namespace, place: Place) -> Response:
        entity = _find(namespace, place)
        if entity is None:
            raise NotFound(_missing_text(namespace, place))
        if isinstance(entity, ConsumerGroup) and entity.name.lower() == "$default":
            raise Invalid("SubCode=40000. The consumer group $Default cannot be deleted.")
        _preconditions(request, entity)
        await namespace.delete(entity.path)
        return 200, (XML,), b""


# Reading.


def _nothing(now: int) -> Response:
    return 200, (FEED_TYPE,), nothing_here(str(uuid.uuid4()), now)


def _get(request: Request, namespace: Namespace, place: Place, now: int) -> Response:
    if place.collection:
        return _collection(request, namespace, place, now)
    entity = _find(namespace, place)
    if entity is None:
        if place.kind is None:
            return _nothing(now)  # The rule of conflict C17.
        raise NotFound(_missing_text(namespace, place))
    if place.partition is not None:
        return _partitions(request, namespace, place, now)
    return _entry(request, namespace, entity, 200)


def _find(namespace: Namespace, place: Place) -> AnyEntity | None:
    """The entity of the place, if it is of the kind the path says."""
    entity = namespace.entity(place.path)
    if place.kind is None:
        return entity if isinstance(entity, (Queue, Topic, EventHub)) else None
    return entity if isinstance(entity, place.kind) else None


def _collection(request: Request, namespace: Namespace, place: Place, now: int) -> Response:
    assert place.kind is not None
    if not isinstance(namespace.entity(place.path), _PARENTS[place.kind]):
        raise NotFound(f"The messaging entity '{place.path}' could not be found.")
    return _page(request, namespace, namespace.entities(place.kind, place.path), _TITLES[place.kind], now)


def _enumerate(request: Request, namespace: Namespace, name: str, now: int) -> Response:
    kind = _TOP.get(name.lower())
    if kind is None:
        raise NotFound(f"The messaging entity '$Resources/{name}' could not be found.")
    return _page(request, namespace, namespace.entities(kind), _TITLES[kind], now)


def _page(
    request: Request, namespace: Namespace, found: Sequence[AnyEntity], title: str, now: int
) -> Response:
    skip, top = _paging(request)
    uri = _uri(request)
    version = _version(request)
    query = f"?{_repeated(version)}" if version else ""
    entries = [
        entry(
            f"{_root(request)}/{quote(item.path, safe='/$')}{query}",
            _title(item),
            (item.created, item.updated),
            descriptions.write(namespace, item, version),
            author=_author(namespace, item),
            link=_relative(item),
            base=uri,
            published=not isinstance(item, RevokedPublisher),
        )
        for item in found[skip : skip + top]
    ]
    following = _following(request, skip + top, top) if skip + top < len(found) else None
    return 200, (FEED_TYPE,), feed(uri, title, now, entries, following)


def _partitions(request: Request, namespace: Namespace, place: Place, now: int) -> Response:
    hub = namespace.entity(place.parent)
    assert isinstance(hub, EventHub)
    uri = _uri(request)
    times = (hub.created, hub.updated)
    if place.partition:
        content = _partition(namespace, hub, place.partition)
        return 200, (ENTRY_TYPE,), entry(uri, place.partition, times, content).encode()
    skip, top = _paging(request)
    numbers = [str(number) for number in range(hub.partition_count)]
    entries = [
        entry(
            f"{uri.partition('?')[0]}/{number}",
            number,
            times,
            _partition(namespace, hub, number),
            link=f"partitions/{number}",
            base=uri,
        )
        for number in numbers[skip : skip + top]
    ]
    following = _following(request, skip + top, top) if skip + top < len(numbers) else None
    return 200, (FEED_TYPE,), feed(uri, "Partitions", now, entries, following)


def _partition(namespace: Namespace, hub: EventHub, number: str) -> str:
    found = namespace.partition(hub.path, number)
    # IncomingBytesPerSecond and OutgoingBytesPerSecond are left out: nobody measures them by partition.
    values = (
        ("SizeInBytes", str(found.size_bytes)),
        ("BeginSequenceNumber", str(found.begin_sequence)),
        ("EndSequenceNumber", str(found.last_sequence)),
        ("LastEnqueuedOffset", found.last_offset),
        ("LastEnqueuedTimeUtc", exact(found.last_enqueued)),
    )
    inner = "".join(tag(name, value) for name, value in values)
    return f'<PartitionDescription xmlns="{SB}" xmlns:i="{XSI}">{inner}</PartitionDescription>'


def _info(request: Request, namespace: Namespace) -> Response:
    limits = namespace.limits
    premium = limits.message_bytes_max_premium > 0
    values = (
        ("CreatedTime", exact(namespace.created)),
        ("MessagingSKU", "Premium" if premium else "Standard" if limits.topics_allowed else "Basic"),
        ("MessagingUnits", "1" if premium else ""),
        ("ModifiedTime", exact(namespace.created)),
        ("Name", namespace.name),
        ("NamespaceType", "Mixed"),
    )
    inner = "".join(tag(name, value) for name, value in values if value)
    content = f'<NamespaceInfo xmlns="{SB}" xmlns:i="{XSI}">{inner}</NamespaceInfo>'
    times = (namespace.created, namespace.created)
    return 200, (ENTRY_TYPE,), entry(_uri(request), namespace.name, times, content).encode()


def _entry(request: Request, namespace: Namespace, entity: AnyEntity, status: int) -> Response:
    text = entry(
        _uri(request),
        _title(entity),
        (entity.created, entity.updated),
        descriptions.write(namespace, entity, _version(request)),
        author=_author(namespace, entity),
        # Recorded: the answer to an event hub's update leaves it out.
        published=not (request.method == b"PUT" and status == 200 and isinstance(entity, EventHub)),
    )
    # The service gives no ETag for what did not exist before.
    headers = (ENTRY_TYPE,) if status == 201 else (ENTRY_TYPE, (b"ETag", _etag(entity)))
    return status, headers, text.encode()


# Changing.


def _given(namespace: Namespace, kind: type, place: Place) -> dict[str, Any]:
    """What a description does not say: where the entity is."""
    parent = namespace.entity(place.parent)
    spelled = parent.path if parent is not None else place.parent
    return descriptions.identity(kind, place.path, spelled, place.name)


_SUPPLEMENTS = (
    ("forward_to", b"servicebussupplementaryauthorization"),
    ("forward_dead_letters_to", b"servicebusdlqsupplementaryauthorization"),
)
"""Whose tokens may stand beside the request's own (REST reference 7.1)."""


def _require_targets(
    request: Request, namespace: Namespace, grant: Grant, entity: AnyEntity, old: AnyEntity | None, now: int
) -> None:
    """Who lets messages go on to another entity must have Manage there too, by the token of the request or by
    one for the target. Raises Unauthorized."""
    for field, header in _SUPPLEMENTS:
        address: str = getattr(entity, field, "")
        if not address or address == getattr(old, field, ""):
            continue
        target = forward_path(address).lower()
        supplement = request.header(header)
        if supplement is None or grant.covers(target):
            grant.require(target, Right.MANAGE, now, Action.WRITE)
        else:
            namespace.gate.grant(supplement, request.host, now).require(
                target, Right.MANAGE, now, Action.WRITE
            )


def _preconditions(request: Request, old: AnyEntity | None) -> bool:
    """Whether the request is for what is there already. Raises HttpError 412."""
    none_match = request.header(b"if-none-match")
    if none_match is not None and none_match.strip() == b"*" and old is not None:
        raise HttpError(412, "Precondition Failed.")
    match = request.header(b"if-match")
    if match is None:
        return False
    wanted = [part.strip().removeprefix(b"W/").strip(b'"') for part in match.split(b",")]
    if old is not None and b"*" not in wanted and _etag(old) not in wanted:
        raise HttpError(412, "Precondition Failed.")
    return True


def _etag(entity: AnyEntity) -> bytes:
    """UpdatedAt in ticks; no two descriptions of an entity have the same."""
    return b"%d" % (TICKS_1970 + entity.updated * 10_000)


def _missing_text(namespace: Namespace, place: Place) -> str:
    if place.kind is None:
        return "No service is hosted at the specified address."
    if place.kind is Subscription:
        return f"Entity '{namespace.name}:Topic:{place.parent}|{place.name}' was not found."
    if place.kind is Rule:
        topic, _, subscription = place.parent.rpartition("/subscriptions/")
        return f"Entity '{namespace.name}:Topic:{topic}|{subscription}|{place.name}' was not found."
    return f"Entity '{place.path}' was not found."


# Addresses.


def _title(entity: AnyEntity) -> str:
    return entity.path if isinstance(entity, (Queue, Topic, EventHub)) else entity.name


def _author(namespace: Namespace, entity: AnyEntity) -> str | None:
    return namespace.name if isinstance(entity, (Queue, Topic, EventHub)) else None


def _relative(entity: AnyEntity) -> str:
    """An entity's address as its feed has it."""
    if isinstance(entity, (Queue, Topic, EventHub)):
        return f"../{entity.path}"
    name = quote(entity.name, safe="$")
    return f"consumergroups/{name}" if isinstance(entity, ConsumerGroup) else name


def _root(request: Request) -> str:
    return f"https://{request.host.decode('latin-1')}"


def _uri(request: Request) -> str:
    query = request.query.decode("latin-1")
    return f"{_root(request)}{request.path.decode('latin-1')}{'?' + query if query else ''}"


def _following(request: Request, skip: int, top: int) -> str:
    """Where the next page of a collection is."""
    version = _version(request)
    address = _uri(request).partition("?")[0]
    return f"{address}?{_repeated(version) + '&' if version else ''}$skip={skip}&$top={top}"


def _query(request: Request) -> dict[str, str]:
    return {name.lower(): values[0] for name, values in parse_qs(request.query.decode("latin-1")).items()}


def _version(request: Request) -> str:
    """The request's api-version, or nothing."""
    return _query(request).get("api-version", "")


def _repeated(version: str) -> str:
    """An api-version in an address that repeats it."""
    return f"api-version={quote(version)}"


def _paging(request: Request) -> tuple[int, int]:
    """How many to leave out, and how many to show, at most PAGE_MAX. Raises Invalid."""
    query = _query(request)
    skip = _number("$skip", query.get("$skip", "0"), 0)
    return skip, min(_number("$top", query.get("$top", str(PAGE_MAX)), 1), PAGE_MAX)


def _number(name: str, text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least:
        raise Invalid(f"SubCode=40000. The value '{text:.40}' of {name} is not a number of at least {least}.")
    return int(text)
