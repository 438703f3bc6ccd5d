"""Hubbub's own JSON API, under /_hubbub/api/v1, and the addresses of those who watch over it.

    GET    hubs | queues | topics                     all of a kind, with counts
    GET    subscriptions?topic=PATH                   of one topic
    GET, PUT, DELETE   {kind}/PATH                     one; PUT creates (201) or replaces (200)
    GET, PUT, DELETE   subscriptions/TOPIC/NAME
    POST   queues/PATH/purge, subscriptions/TOPIC/NAME/purge   (?deadLetter=1)
    POST   topics/PATH/explain                         what its rules make of a message
    GET    hubs/PATH/partitions/ID/events             ?from=&inclusive=&count=&wait=&stream=
    GET    queues/PATH/messages, subscriptions/TOPIC/NAME/messages   ?from=&count=&deadLetter=

A PATH of several segments is percent-encoded (%2F). Reading needs Listen, everything else Manage. The
whole contract is `openapi.json` beside this file. /health, /metrics and the probes need no token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote
from uuid import UUID

import msgspec

from ...broker.access import Action, Right, Unauthorized
from ...broker.entity import AnyEntity, EventHub, Queue, Subscription, Topic, subscription_path
from ...broker.errors import AlreadyExists, BrokerError, Invalid, NotFound
from ...broker.hub import Hub, void
from ...broker.namespace import Namespace
from ...broker.node import Broker
from ...broker.partitions import Start, partition_number
from ...chance import guid_bytes
from ...clock import Clock
from ..http.request import Request
from ..http.response import ResponseStream
from . import explain
from .shapes import delivery, describe, entity_from, error_code, event, json_of

JSON = (b"Content-Type", b"application/json; charset=utf-8")
TEXT = (b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")
COUNT_MAX = 1_000
BYTES_MAX = 4 << 20
WAIT_MAX = 60_000
KINDS: dict[str, type[AnyEntity]] = {
    "queues": Queue,
    "topics": Topic,
    "subscriptions": Subscription,
    "hubs": EventHub,
}
STATUSES = {
    "Unauthorized": 401,
    "NotFound": 404,
    "AlreadyExists": 409,
    "Conflict": 409,
    "QuotaExceeded": 403,
    "Disabled": 403,
    "Busy": 503,
}
_HEALTHY = b'{"status":"healthy","message":"Service is healthy."}'
_SICK = b'{"status":"unhealthy","message":"Service not available. Please try after some time."}'

_encode = msgspec.json.Encoder().encode


class Metrics(Protocol):
    def text(self) -> str: ...


class Api:
    """Answers everything below /_hubbub, and /health and /metrics."""

    def __init__(
        self,
        broker: Broker,
        meter: Metrics,
        probe: Callable[[], Awaitable[bool]],
        clock: Clock,
        version: str,
    ) -> None:
        self._broker = broker
        self._meter = meter
        self._probe = probe
        self._clock = clock
        self._version = version
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers: set[_Reader] = set()

    def stop(self) -> None:
        """Who waits for events is answered with none: nobody should keep a server from ending."""
        for reader in list(self._readers):
            reader.end()

    def handle(self, request: Request, namespace: Namespace, segments: list[str], now: int) -> None:
        """Answers, now or later. Raises nothing."""
        try:
            self._route(request, namespace, segments, now)
        except Exception as error:
            fail(request, error)

    def _route(self, request: Request, namespace: Namespace, segments: list[str], now: int) -> None:
        name = "/".join(segments).lower()
        if name in ("health", "_hubbub/readyz"):
            self._later(request, self._health(request))
        elif name == "_hubbub/livez":
            request.respond(200, (JSON,), _HEALTHY)
        elif name in ("metrics", "_hubbub/metrics"):
            request.respond(200, (TEXT,), self._meter.text().encode())
        elif name == "_hubbub/openapi.json":
            text = resources.files(__package__).joinpath("openapi.json").read_bytes()
            request.respond(200, (JSON,), text)
        elif name == "_hubbub/info":
            request.respond(200, (JSON,), _encode(self._info()))
        elif name.startswith("_hubbub/api/v1/"):
            self._api(request, namespace, _segments(request.path)[3:], now)
        else:
            raise NotFound(f"There is nothing at /{name}. See /_hubbub/openapi.json.")

    def _info(self) -> dict[str, Any]:
        return {"version": self._version, "namespaces": sorted(self._broker.namespaces)}

    async def _health(self, request: Request) -> None:
        healthy = await self._probe()
        request.respond(200 if healthy else 503, (JSON,), _HEALTHY if healthy else _SICK)

    def _api(self, request: Request, namespace: Namespace, path: list[str], now: int) -> None:
        query = _query(request)
        grant = namespace.gate.grant(request.authorization, request.host, now)
        if not path or path[0] not in KINDS:
            raise NotFound(f"The API has no '{'/'.join(path)}'. See /_hubbub/openapi.json.")
        kind, place, rest = _place(path)
        reading = bool(rest) and rest[-1] in ("events", "messages")
        action = Action.READ if rest == ["explain"] else _ACTIONS.get(request.method, Action.READ)
        if reading:
            grant.require(place.lower(), Right.LISTEN, now, Action.LISTEN)
        else:
            grant.require(place.lower(), Right.MANAGE, now, action)
        if request.method == b"GET" and not place:
            self._list(request, namespace, kind, query)
        elif request.method == b"GET" and rest[-1:] == ["messages"] and len(rest) == 1:
            self._messages(request, namespace, place, query)
        elif request.method == b"GET" and rest[:1] == ["partitions"] and rest[2:] == ["events"]:
            self._events(request, namespace, place, rest[1], query, now)
        elif request.method == b"POST" and rest == ["purge"]:
            self._later(request, self._purge(request, namespace, place, query))
        elif request.method == b"POST" and kind == "topics" and rest == ["explain"]:
            found = explain.answer(namespace, place, request.body, now, UUID(bytes=guid_bytes(), version=4))
            request.respond(200, (JSON,), _encode(found))
        elif rest or not place:
            verb = request.method.decode("latin-1")
            raise Invalid(
                f"{verb} is not possible on {'/'.join(path)}. A slash that is part of a name is written %2F."
            )
        else:
            self._one(request, namespace, kind, place)

    def _list(self, request: Request, namespace: Namespace, kind: str, query: dict[str, str]) -> None:
        parent = query.get("topic", "") if kind == "subscriptions" else ""
        if kind == "subscriptions" and namespace.entity(parent) is None:
            raise NotFound(f"There is no topic '{parent}'; name one with ?topic=.")
        found = namespace.entities(KINDS[kind], parent)
        request.respond(200, (JSON,), _encode([describe(namespace, entity) for entity in found]))

    def _one(self, request: Request, namespace: Namespace, kind: str, path: str) -> None:
        entity = namespace.entity(path)
        if request.method == b"PUT":
            self._later(request, self._put(request, namespace, kind, path, entity))
        elif type(entity) is not KINDS[kind]:
            raise NotFound(f"There is no {KINDS[kind].noun.lower()} '{path}'.")
        elif request.method == b"GET":
            request.respond(200, (JSON,), _encode(describe(namespace, entity)))
        elif request.method == b"DELETE":
            self._later(request, self._delete(request, namespace, path))
        else:
            raise Invalid(f"{request.method.decode('latin-1')} is not possible on an entity.")

    async def _put(
        self, request: Request, namespace: Namespace, kind: str, path: str, old: AnyEntity | None
    ) -> None:
        if old is not None and type(old) is not KINDS[kind]:
            raise AlreadyExists(f"'{old.path}' is there already, as a {old.noun.lower()}.")
        body = json_of(request.body)
        if not isinstance(body, dict):
            raise Invalid("The body must be a JSON object.")
        topic, _, name = path.rpartition("/subscriptions/")
        entity = entity_from(kind, name if kind == "subscriptions" else path, body, topic)
        if old is None:
            entity = await namespace.create(entity)
        else:
            entity = await namespace.update(entity)
        request.respond(201 if old is None else 200, (JSON,), _encode(describe(namespace, entity)))

    async def _delete(self, request: Request, namespace: Namespace, path: str) -> None:
        await namespace.delete(path)
        request.respond(200, (JSON,), b"{}")

    async def _purge(self, request: Request, namespace: Namespace, path: str, query: dict[str, str]) -> None:
        count = await namespace.purge(path, _flag(query, "deadLetter"))
        request.respond(200, (JSON,), _encode({"deleted": count}))

    def _messages(self, request: Request, namespace: Namespace, path: str, query: dict[str, str]) -> None:
        count = _number(query, "count", 100, COUNT_MAX)
        found = namespace.peek(path, _number(query, "from", 0, 1 << 62), count, _flag(query, "deadLetter"))
        request.respond(200, (JSON,), _encode([delivery(item) for item in found]))

    # Events.

    def _events(
        self,
        request: Request,
        namespace: Namespace,
        hub: str,
        partition: str,
        query: dict[str, str],
        now: int,
    ) -> None:
        found = namespace.hub(hub)
        number = partition_number(partition, len(found.partitions))
        start = _start(query.get("from", "start"), _flag(query, "inclusive"))
        sequence = found.locate(number, start)
        count = _number(query, "count", 100, COUNT_MAX)
        reader = _Reader(self._clock, self._readers, found, number, sequence, count)
        if _flag(query, "stream"):
            reader.stream(request)
        else:
            reader.poll(request, now + _number(query, "wait", 0, WAIT_MAX // 1000) * 1000)

    def _later(self, request: Request, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(_guarded(request, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Reader:
    """One reader of a partition: a long poll that answers once, or a stream of JSON lines."""

    def __init__(
        self, clock: Clock, waiting: set[_Reader], hub: Hub, partition: int, sequence: int, count: int
    ) -> None:
        self._clock = clock
        self._waiting = waiting
        self._hub = hub
        self._number = partition
        self._sequence = sequence
        self._count = count
        self._stop: Callable[[], None] = _nothing
        self.end: Callable[[], object] = _nothing
        """Makes it stop waiting, while it is in `waiting`."""

    def poll(self, request: Request, until: int) -> None:
        events = self._hub.read(self._number, self._sequence, self._count, BYTES_MAX)
        if events or until <= self._clock.now():
            request.respond(200, (JSON,), _encode([event(found) for found in events]))
            return
        timer = self._clock.call_at(until, lambda: again(self._clock.now()))

        def again(limit: int) -> None:
            request.on_disconnect = None
            gone()
            self.poll(request, limit)

        def gone() -> None:
            self._stop()
            timer.cancel()
            self._waiting.discard(self)

        self._waiting.add(self)
        self.end = lambda: again(0)
        request.on_disconnect = gone
        # The last step: it may call back at once.
        self._stop = self._hub.wait(self._number, self._sequence, lambda: again(until))

    def stream(self, request: Request) -> None:
        out = request.start_stream(200, ((b"Content-Type", b"application/jsonl; charset=utf-8"),))
        task = asyncio.ensure_future(self._pump(request, out))
        self._waiting.add(self)
        self.end = task.cancel
        request.on_disconnect = lambda: void(task.cancel())

    async def _pump(self, request: Request, out: ResponseStream) -> None:
        """At the client's pace: nothing is read while the client does not take what it has."""
        try:
            while not request.disconnected:
                events = self._hub.read(self._number, self._sequence, COUNT_MAX, 256 << 10)
                if events:
                    self._sequence = events[-1].sequence + 1
                    out.write(b"".join(_encode(event(found)) + b"\n" for found in events))
                    await out.drain()
                    continue
                await self._more()
        except (ConnectionError, asyncio.CancelledError):
            pass  # The client has what it wanted, or has gone, or the server ends.
        finally:
            self._stop()
            self._waiting.discard(self)
            out.end()

    async def _more(self) -> None:
        there = asyncio.Event()
        self._stop = self._hub.wait(self._number, self._sequence, there.set)
        await there.wait()


_ACTIONS = {b"DELETE": Action.DELETE, b"PUT": Action.WRITE, b"POST": Action.WRITE}


def _nothing() -> None:
    """There is no wait to end."""


async def _guarded(request: Request, work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:
        fail(request, error)


def fail(request: Request, error: Exception) -> None:
    """The error as JSON; of our own mistakes the client learns no more than that there was one."""
    code = error_code(error)
    known = isinstance(error, BrokerError)
    status = STATUSES.get(code, 400) if known else 500
    text = str(error) if known else "Something went wrong inside the server; its log says what."
    if not known:
        import logging

        logging.getLogger("hubbub.api").error("%s", request.path.decode("latin-1"), exc_info=error)
    if isinstance(error, Unauthorized):
        text = error.text
    request.respond(status, (JSON,), _encode({"error": {"code": code, "message": text}}))


def _segments(path: bytes) -> list[str]:
    """Split before decoding, so that a path of several segments can travel as one."""
    return [unquote(segment) for segment in path.decode("latin-1").split("/") if segment]


def _place(path: list[str]) -> tuple[str, str, list[str]]:
    """Kind, entity path and what follows it."""
    kind, rest = path[0], path[1:]
    if kind == "subscriptions" and len(rest) >= 2:
        return kind, subscription_path(rest[0], rest[1]), rest[2:]
    return (kind, rest[0], rest[1:]) if rest else (kind, "", [])


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(request.query.decode("latin-1")).items()}


def _flag(query: dict[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true", "yes")


def _number(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Invalid(f"'{name}' must be a number, not '{text}'.")
    return min(int(text), most)


def _start(text: str, inclusive: bool) -> Start:
    """start, end, seq:N, offset:N or time:ISO 8601. Raises Invalid."""
    from datetime import UTC, datetime

    word, _, value = text.partition(":")
    if word in ("start", "end") and not value:
        return Start(earliest=word == "start", latest=word == "end")
    if word == "seq" and value.isascii() and value.isdigit() and len(value) < 20:
        return Start(sequence=int(value), inclusive=inclusive)
    if word == "offset" and value:
        return Start(offset=value, inclusive=inclusive)
    if word == "time":
        try:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            enqueued = int(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            raise Invalid(f"'{value:.40}' is not an ISO 8601 time.") from None
        return Start(enqueued=enqueued, inclusive=True)
    raise Invalid(f"'{text}' must be start, end, seq:N, offset:N or time:ISO 8601.")
