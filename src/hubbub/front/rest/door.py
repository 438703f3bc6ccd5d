"""The REST door: routes a request, asks who may, and answers in the service's own shape.

`admit` runs when a request's head is there: it authenticates, routes, and bounds the body. `handle` gets
the whole request. What a target means and what its token allows are remembered together, so that a
client that sends again costs one look-up; an entity or key that changes empties that memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from ...broker.access import Action, Grant, Right
from ...broker.access.resource import host_name
from ...broker.constraints import message_bytes_max
from ...broker.entity import EventHub, Queue, Topic
from ...broker.errors import BrokerError, Invalid, NotFound
from ...broker.hub import Hub
from ...broker.layout import owner_of
from ...broker.namespace import NO_ENTITY, Namespace
from ...broker.node import Broker
from ...broker.partitions import partition_number
from ...clock import Clock
from ...telemetry import Counters, Meter
from ..http.limits import Refusal
from ..http.request import Request
from ..http.response import whole_response
from .errors import HTTP_SUBCODES, XML, HttpError, error_body, status_of, text_of, tracking_id, wrong_verb
from .receive import Receive
from .route import Target, segments_of, settled_prefix, target_of
from .send import Send

log = logging.getLogger("hubbub.rest")

ROUTES_MAX = 20_000
DEFAULT_TIMEOUT = 60_000
MANAGEMENT_BYTES_MAX = 1024 * 1024
API_BYTES_MAX = 1024 * 1024
WRAP_BYTES_MAX = 64 * 1024

Response = tuple[int, tuple[tuple[bytes, bytes], ...], bytes]


class ManagementDoor(Protocol):
    def handle(
        self, request: Request, namespace: Namespace, grant: Grant | None, segments: list[str], now: int
    ) -> Response | Awaitable[Response]: ...


class ApiDoor(Protocol):
    def handle(self, request: Request, namespace: Namespace, segments: list[str], now: int) -> None: ...


class Route:
    """What a target means, and the grant that reached it."""

    __slots__ = (
        "body_max",
        "counters",
        "entity",
        "expires",
        "grant",
        "hub",
        "namespace",
        "partition",
        "segments",
        "sent",
        "size_max",
        "target",
        "timeout",
        "version",
    )

    def __init__(self, namespace: Namespace, target: Target, segments: list[str]) -> None:
        self.namespace = namespace
        self.target = target
        self.segments = segments
        self.version = namespace.version
        self.grant: Grant | None = None
        self.hub: Hub | None = None
        self.entity: Queue | Topic | EventHub | None = None
        self.partition: int | None = None
        self.body_max = 0
        self.size_max = 0
        self.timeout = DEFAULT_TIMEOUT
        self.expires = 0
        self.counters: Counters | None = None
        self.sent: tuple[list[tuple[bytes, bytes]], dict[str, Any], dict[str, Any]] | None = None
        """The last headers sent here, and the properties in them."""


@dataclass(frozen=True, slots=True)
class RestOptions:
    """`missing_status`: what a Service Bus namespace answers for an entity that is not there (C13).
    `cors`: answer browsers' preflights. `wrap`: the token endpoint, given a form body and a host.
    `upgrade`: takes over a WebSocket handshake, or returns False."""

    missing_status: int = 410
    cors: bool = False
    wrap: Callable[[Namespace, bytes, bytes, int], tuple[int, tuple[tuple[str, str], ...], bytes]] | None = (
        None
    )
    upgrade: Callable[[Request], bool] | None = None


class RestDoor:
    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        management: ManagementDoor,
        api: ApiDoor,
        options: RestOptions,
        meter: Meter,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._management = management
        self._api = api
        self._options = options
        self._meter = meter
        self._routes: dict[tuple[bytes, bytes, bytes, bytes], Route] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._send = Send(self)
        self._receive = Receive(self)

    # The HTTP server's hooks.

    def admit(self, request: Request) -> Refusal | int | None:
        """Whether the body may come, and how large. Every refusal here is complete."""
        try:
            route = self._remembered(request)
            if route is None:
                special = self._special_limit(request)
                if special is not None:
                    return special
                route = self._route(request)
        except (BrokerError, ValueError) as error:
            return Refusal(self._error_response(request, error))
        request.context = route
        return route.body_max if route.entity is None else self._send.body_max(request, route)

    def handle(self, request: Request) -> None:
        """Answers a whole request, now or later."""
        try:
            route: Route | None = request.context
            if route is not None:
                # A large body may have taken its time: what it was meant for may have changed.
                if route.version != route.namespace.version:
                    request.context = route = self._route(request)
                self._dispatch(request, route)
            elif not self._handle_special(request):
                request.context = route = self._route(request)
                self._dispatch(request, route)
        except Exception as error:
            self.fail(request, error)

    def error_response(self, request: Request, status: int, text: str) -> bytes:
        """For what HTTP itself refuses."""
        route: Route | None = request.context
        if status == 413 and route is not None and route.entity is not None:
            # Of a chunked body no more is known than that it goes on.
            size = request.content_length or self._send.body_max(request, route) + 1
            return self._error_response(request, self._send.too_large(route.namespace, route.entity, size))
        return self._whole(request, status, f"{HTTP_SUBCODES.get(status, '')}{text}")

    def fail(self, request: Request, error: BaseException) -> None:
        """Answers with the error in the service's shape; the tracking id also stands in the log."""
        request.respond_raw(self._error_response(request, error))

    def _error_response(self, request: Request, error: BaseException) -> bytes:
        status = status_of(error)
        if isinstance(error, ValueError) and not isinstance(error, BrokerError):
            status = 400
        return self._whole(request, status, text_of(error, status), error)

    def _whole(self, request: Request, status: int, text: str, error: BaseException | None = None) -> bytes:
        tracking = tracking_id()
        path = request.path.decode("latin-1").strip("/")
        tracker = f"{request.host.decode('latin-1')}:{path}" if request.host else "NoSystemTracker"
        body = error_body(status, text, tracking, tracker, self._clock.now())
        if status == 500:
            log.error("%s %s TrackingId:%s", status, path, tracking, exc_info=error)
        else:
            log.info("%s %s %s TrackingId:%s", status, path, text, tracking)
        request.note = f"{text} TrackingId:{tracking}"
        head_only = request.method == b"HEAD"
        standing = self.standing(request)
        return whole_response(status, standing, (XML,), body, head_only=head_only)

    def standing(self, request: Request) -> bytes:
        connection = request.connection
        return connection.server.standing_headers(connection.secure)

    # Routing.

    def _special_limit(self, request: Request) -> int | None:
        first = request.path[:11].lower()
        if first.startswith(b"/_hubbub") or first in (b"/health", b"/metrics"):
            return API_BYTES_MAX
        if request.path[:12].lower() == b"/$servicebus":
            return 0
        if first.startswith(b"/wrapv0.9") and self._options.wrap is not None:
            return WRAP_BYTES_MAX
        if request.method == b"OPTIONS" and self._options.cors:
            return 0
        anonymous = request.path in (b"/", b"") and request.method in (b"GET", b"HEAD")
        return 0 if anonymous and not request.authorization else None

    def _handle_special(self, request: Request) -> bool:
        if self._special_limit(request) is None:
            return False
        namespace = self.namespace(request)
        segments = segments_of(request.path)
        now = request.received
        first = request.path[:11].lower()
        if request.path[:12].lower() == b"/$servicebus":
            if self._options.upgrade is None or not self._options.upgrade(request):
                raise Invalid("SubCode=40000. AMQP over WebSocket is at /$servicebus/websocket (AMQPWSB10).")
        elif first.startswith(b"/wrapv0.9") and self._options.wrap is not None:
            self._answer_wrap(request, namespace, now)
        elif request.method == b"OPTIONS" and self._options.cors:
            request.respond(204, CORS)
        elif segments:
            self._api.handle(request, namespace, segments, now)
        else:
            # The documented connectivity probe asks for "/" without credentials.
            self._answer(request, self._management.handle(request, namespace, None, [], now))
        return True

    def _answer_wrap(self, request: Request, namespace: Namespace, now: int) -> None:
        if request.method != b"POST":
            raise wrong_verb(request.method)
        assert self._options.wrap is not None
        status, headers, body = self._options.wrap(namespace, request.body, request.host, now)
        request.respond(status, [(k.encode(), v.encode()) for k, v in headers], body)

    def namespace(self, request: Request) -> Namespace:
        return self._broker.namespace_for(host_name(request.host.decode("latin-1")))

    def _remembered(self, request: Request) -> Route | None:
        prefix = settled_prefix(request.target)
        key = (request.method, prefix or request.target, request.host, request.authorization)
        route = self._routes.get(key)
        if route is None or route.version != route.namespace.version or self._clock.now() >= route.expires:
            return None
        return route

    def _route(self, request: Request) -> Route:
        prefix = settled_prefix(request.target)
        key = (request.method, prefix or request.target, request.host, request.authorization)
        route = self._find(request, self._clock.now())
        assert route.grant is not None
        route.counters = self._meter.of(route.namespace.name, self._series(route))
        route.expires = route.grant.expires
        if route.grant.scheme != "bearer" and (not prefix or _covers_all(route)):
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            self._routes[key] = route
        return route

    def _find(self, request: Request, now: int) -> Route:
        namespace = self.namespace(request)
        segments = segments_of(request.path)
        target = target_of(segments)
        route = Route(namespace, target, segments)
        # Nobody learns what exists before we know who asks (REST reference 2.4).
        route.grant = namespace.gate.grant(request.authorization, request.host, now)
        if target.kind == "manage":
            route.body_max = MANAGEMENT_BYTES_MAX
            return route
        if target.kind == "send":
            self._find_sender(request, route, now)
        else:
            route.grant.require(target.scope, Right.LISTEN, now, Action.LISTEN)
            route.body_max = 64 * 1024
        route.timeout = timeout_of(request.query, namespace.limits.timeout_max)
        return route

    def _find_sender(self, request: Request, route: Route, now: int) -> None:
        target, namespace = route.target, route.namespace
        assert route.grant is not None
        route.grant.require(target.scope, Right.SEND, now, Action.SEND)
        if request.method != b"POST":
            raise wrong_verb(request.method)
        entity = namespace.entity(target.entity)
        of_hub = target.partition is not None or target.publisher is not None
        if isinstance(entity, EventHub):
            route.hub = namespace.hub(target.entity)
            if target.partition is not None:
                route.partition = partition_number(target.partition, len(route.hub.partitions))
        elif of_hub or not isinstance(entity, (Queue, Topic)):
            raise self.missing(request, namespace, target.spelled, of_hub)
        route.entity = entity
        route.size_max = message_bytes_max(entity, namespace.limits)

    def counters_of(self, request: Request) -> Counters:
        """Where a request is counted, when it is answered; those of no entity count together."""
        route: Route | None = request.context
        if route is not None and route.counters is not None:
            return route.counters
        return self._meter.of("", "")

    def _series(self, route: Route) -> str:
        """Only entities that exist get a series, or strangers could make any number of them."""
        entity = route.namespace.entity(owner_of(route.target.entity))
        return "" if entity is None else entity.path

    def missing(self, request: Request, namespace: Namespace, path: str, hub: bool = False) -> BrokerError:
        """What an absent entity answers: 404 on Event Hubs, 410 on Service Bus (conflict C13)."""
        text = f"SubCode=40400. 40400: Endpoint not found., Resource:sb://{request.host.decode('latin-1')}/{path}."
        if hub or namespace.hubs:
            return NotFound(text)
        if self._options.missing_status == 410:
            return HttpError(410, NO_ENTITY.format(path=path))
        return NotFound(text)

    # Dispatching.

    def _dispatch(self, request: Request, route: Route) -> None:
        kind = route.target.kind
        if kind == "send":
            self._send.handle(request, route)
        elif kind == "manage":
            found = self._management.handle(
                request, route.namespace, route.grant, route.segments, request.received
            )
            self._answer(request, found)
        else:
            self._receive.handle(request, route)

    def _answer(self, request: Request, found: Response | Awaitable[Response]) -> None:
        if isinstance(found, tuple):
            request.respond(*found)
            return
        task = asyncio.ensure_future(self._answer_later(request, found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_later(self, request: Request, found: Awaitable[Response]) -> None:
        try:
            request.respond(*await found)
        except Exception as error:
            self.fail(request, error)


def _covers_all(route: Route) -> bool:
    """Whether the grant of one settlement would do for every other on this receiver."""
    assert route.grant is not None
    return route.target.kind == "settle" and route.grant.covers(f"{route.target.entity}/messages")


def timeout_of(query: bytes, timeout_max: int) -> int:
    """The request's `timeout` in ms, bounded. Raises Invalid."""
    default = min(DEFAULT_TIMEOUT, timeout_max)
    if not query:
        return default
    for name, values in parse_qs(query.decode("latin-1"), keep_blank_values=True).items():
        if name.lower() == "timeout":
            value = values[0]
            if not value.isascii() or not value.isdigit() or len(value) > 9:
                raise Invalid(f"SubCode=40000. The timeout '{value:.40}' is not a number of seconds.")
            return min(int(value) * 1000, timeout_max)
    return default


CORS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Methods", b"GET, POST, PUT, DELETE, OPTIONS"),
    (b"Access-Control-Allow-Headers", b"*, Authorization, BrokerProperties, Content-Type"),
    (b"Access-Control-Expose-Headers", b"BrokerProperties, Location"),
)
