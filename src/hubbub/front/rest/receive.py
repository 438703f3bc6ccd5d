"""The receive side of Service Bus: peek-lock, receive-and-delete, unlock, complete, renew (3.8–3.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...broker.errors import LockLost, NotFound
from ...broker.receiver import Delivery, Outcome, Receiver
from ..http.request import Request
from .errors import XML, wrong_verb
from .properties import emitted, field_text, guid
from .route import settled_lock

if TYPE_CHECKING:
    from .door import RestDoor, Route


class Receive:
    def __init__(self, door: RestDoor) -> None:
        self._door = door

    def handle(self, request: Request, route: Route) -> None:
        """Raises BrokerError; otherwise the request is answered, perhaps after a long poll."""
        method = request.method
        receiving = route.target.kind == "receive"
        if method not in ((b"POST", b"DELETE") if receiving else (b"POST", b"DELETE", b"PUT")):
            raise wrong_verb(request.method)
        receiver = self._receiver(request, route)
        if receiving:
            self._receive(request, route, receiver)
        else:
            self._settle(request, route, receiver)

    def _receiver(self, request: Request, route: Route) -> Receiver:
        try:
            return route.namespace.receiver(route.target.entity)
        except NotFound:
            hub = route.namespace.entity(route.target.entity) is not None
            raise self._door.missing(request, route.namespace, route.target.spelled, hub) from None

    def _receive(self, request: Request, route: Route, receiver: Receiver) -> None:
        until = request.received + route.timeout
        lock = request.method == b"POST"

        def done(outcome: Outcome) -> None:
            request.on_disconnect = None
            if isinstance(outcome, Delivery):
                if route.counters is not None:
                    route.counters.outgoing_messages += 1
                self._deliver(request, receiver, outcome, lock)
            elif outcome is None:
                request.respond(204, (XML,))
            else:
                self._door.fail(request, outcome)

        waiter = receiver.receive(lock, until, done)
        if waiter is not None:
            waiter.left = lambda: request.disconnected
            request.on_disconnect = waiter.cancel

    def _deliver(self, request: Request, receiver: Receiver, delivery: Delivery, lock: bool) -> None:
        if not lock:
            delivery = delivery._replace(token=b"", locked_until=0)
        content_type, body, headers = emitted(delivery, receiver.terms().default_ttl)
        first = XML if content_type is None else (b"Content-Type", field_text(content_type))
        if lock:
            scheme = b"https" if request.secure else b"http"
            where = f"/{receiver.path}/messages/{delivery.sequence}/{guid(delivery.token)}"
            headers = [(b"Location", scheme + b"://" + request.host + where.encode()), *headers]
        request.respond(201 if lock else 200, (first, *headers), body)

    def _settle(self, request: Request, route: Route, receiver: Receiver) -> None:
        try:
            name, token = settled_lock(request.path)
        except ValueError:
            raise LockLost from None
        entry = receiver.find(name, token)

        def done(error: Exception | None) -> None:
            if error is not None:
                self._door.fail(request, error)
            else:
                request.respond(200, (XML,))

        verb = {b"PUT": receiver.unlock, b"DELETE": receiver.complete, b"POST": receiver.renew}
        verb[request.method](entry, done)
