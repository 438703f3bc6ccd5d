"""Request and response over a pair of links: the shape that `$cbs` and `$management` share.

A reply goes to the link of the same session and node on which the client receives; if there are several,
to the one whose target the request's `reply-to` names (AMQP reference 2.1).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ...broker.errors import Invalid
from ...wire.amqp.delivery import Delivery
from ...wire.amqp.errors import INTERNAL_ERROR, RESOURCE_LIMIT, StateError
from ...wire.amqp.link import Receiver, Sender
from ...wire.amqp.message import (
    APPLICATION_PROPERTIES,
    map_section,
    properties_of,
    properties_section,
    section_map,
    section_value,
    split,
    value_section,
)
from ...wire.amqp.performatives import Rejected, Target, TransactionalState
from ...wire.amqp.types import DecodeError, Int, Symbol
from .errors import error_of, text_of

if TYPE_CHECKING:
    from .peer import Peer

log = logging.getLogger("hubbub.amqp")

CREDIT = 100
WAITING_MAX = 100
"""Responses of one node that nobody has fetched."""


class Request(NamedTuple):
    properties: dict[str, Any]
    application: dict[str, Any]
    body: Any


class Response(NamedTuple):
    """`condition`: of an error; "" for none."""

    status: int
    description: str
    body: Any = None
    condition: str = ""


Respond = Callable[[Response], object]


class Node:
    """The requests of one session to one node. `answer` gives each its response, now or later."""

    def __init__(self, answer: Callable[[Peer, Request, Respond], object]) -> None:
        self.answer = answer
        self.replies: list[Sender] = []
        self._waiting: list[tuple[Any, bytes]] = []

    def add(self, link: Sender) -> None:
        """The client has come to receive; what was answered before goes now."""
        self.replies.append(link)
        waiting, self._waiting = self._waiting, []
        for reply_to, payload in waiting:
            self._send(reply_to, payload)

    def remove(self, link: Sender) -> None:
        if link in self.replies:
            self.replies.remove(link)

    def delivery(self, peer: Peer, link: Receiver, delivery: Delivery) -> None:
        if len(self._waiting) + sum(reply.waiting for reply in self.replies) >= WAITING_MAX:
            self._overrun(peer, link)
            return
        try:
            if isinstance(delivery.state, TransactionalState):
                raise Invalid("Requests cannot be part of a transaction.")
            request = read_request(delivery.payload)
        except (DecodeError, Invalid) as error:
            link.settle(delivery, Rejected(error_of(error)))
            return
        link.settle(delivery)
        size = len(delivery.payload)

        def respond(response: Response) -> None:
            payload = write_response(request, response)
            peer.release(size)
            try:
                self._send(request.properties.get("reply_to"), payload)
            except StateError:
                self._overrun(peer, link)

        def act() -> None:
            try:
                self.answer(peer, request, respond)
            except Exception as error:
                log.exception("a request failed")
                respond(Response(500, text_of(error), None, INTERNAL_ERROR))

        peer.hold(size)
        peer.after_settlements(act)

    def _overrun(self, peer: Peer, link: Receiver) -> None:
        """An answer can be neither sent nor dropped: who does not fetch those there are may ask no more."""
        link.detach(RESOURCE_LIMIT, "Too many responses wait for credit on the link that receives them.")
        peer.drop(link)

    def _send(self, reply_to: Any, payload: bytes) -> None:
        links = [link for link in self.replies if link.attached]
        named = [link for link in links if _address(link) == reply_to or link.name == reply_to]
        if named or links:
            (named or links)[0].send(payload, b"\0", settled=True)
        else:
            self._waiting.append((reply_to, payload))


class RequestLink:
    """Context of the link on which requests come."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def delivery(self, peer: Peer, link: Receiver, delivery: Delivery) -> None:
        self.node.delivery(peer, link, delivery)


def _address(link: Sender) -> Any:
    return link.target.address if isinstance(link.target, Target) else None


def read_request(payload: bytes) -> Request:
    """Raises DecodeError."""
    sections = split(payload)
    application = {str(k): v for k, v in section_map(sections.application_properties).items()}
    return Request(properties_of(sections.properties), application, section_value(sections.body))


def write_response(request: Request, response: Response) -> bytes:
    # Event Hubs clients and Service Bus clients read different spellings.
    application: dict[str, Any] = {
        "status-code": Int(response.status),
        "status-description": response.description,
        "statusCode": Int(response.status),
        "statusDescription": response.description,
    }
    if response.condition:
        application |= dict.fromkeys(("error-condition", "errorCondition"), Symbol(response.condition))
    # The id goes back in the type it came in: clients compare both.
    properties = properties_section(correlation_id=request.properties.get("message_id"))
    return properties + map_section(APPLICATION_PROPERTIES, application) + value_section(response.body)
