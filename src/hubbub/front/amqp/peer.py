"""One AMQP client: its connection, what its tokens allow, and its links. The handler of the wire library.

Rules:
- a link is attached only if a token of the connection covers its address and right, and is detached when no
  token does any more;
- a connection without any token is closed after a while;
- what is taken from a client and not yet durable is bounded by not reading on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...broker.access import OPEN, Grant, Right, Unauthorized, missing_right
from ...broker.constraints import message_bytes_max
from ...broker.entity import EventHub, Queue, Topic
from ...broker.errors import BrokerError, Forwards, Invalid, NotFound, QuotaExceeded
from ...broker.namespace import Namespace
from ...broker.partitions import partition_number
from ...chance import guid_bytes
from ...clock import Timer
from ...wire.amqp.connection import Connection
from ...wire.amqp.delivery import Delivery, Sent
from ...wire.amqp.link import Link, Receiver, Sender
from ...wire.amqp.performatives import Coordinator as Controlled
from ...wire.amqp.performatives import Error, Open, Source, State, Target
from ...wire.amqp.session import Session
from . import cbs, management, operations, sessions
from .address import Node, node_of
from .errors import OUT_OF_RANGE, condition_of, text_of
from .hubs import CREDIT, EPOCH, IDEMPOTENT, Consumer, Producer, Readers, entered, start_of
from .queues import CREDIT as SEND_CREDIT
from .queues import Receiving, Sending
from .requests import CREDIT as REQUEST_CREDIT
from .requests import Node as RequestNode
from .requests import RequestLink
from .transactions import CREDIT as TRANSACTION_CREDIT
from .transactions import Coordinator, Transactions

if TYPE_CHECKING:
    from .server import AmqpServer

log = logging.getLogger("hubbub.amqp")

TOKENS_MAX = 1000
TOKEN_WAIT = 20_000
"""How long a connection may live without any token, ms."""
PEER_BYTES_MAX = 16 << 20
"""Deliveries of one connection that are not durable yet; beyond it is not read on."""
DELIVERY_BYTES = 1024
"""What a delivery takes besides its payload, or a flood of tiny ones would seem to be nothing."""
CBS_LINKS_MAX = 32
REQUEST_BYTES_MAX = 65536
"""Of a request that needs no token: one that puts one, or asks after a hub."""
HOST_CHARS_MAX = 255
DESTINATION = "com.microsoft:transfer-destination-address"


class Peer:
    """See `wire.amqp.handler.Handler`."""

    def __init__(self, server: AmqpServer, transport: Any) -> None:
        self.server = server
        self.namespace: Namespace = server.broker.namespace_for("")
        self._transport = transport
        self._grants: dict[str, Grant] = {}
        self._credentials: tuple[str, str] | None = None
        self._rights: dict[Link, tuple[str, Right]] = {}
        self._cbs: set[Link] = set()
        self._held = 0
        self._settling = 0
        """Settlements under way whose client does not wait for an answer."""
        self._after: list[Callable[[], object]] = []
        self.transactions = Transactions(self)
        self._timer: Timer | None = None
        self._ours = ""

    # What the nodes ask.

    def now(self) -> int:
        return self.server.clock.now()

    @property
    def writable(self) -> bool:
        return bool(self._transport.writable)

    def when_writable(self, callback: Callable[[], None]) -> None:
        self._transport.when_writable(callback)

    def soon(self, callback: Callable[[], None]) -> None:
        self._transport.soon(callback)

    def count(self, entity: str, slot: str, number: int) -> None:
        counters = self.server.meter.of(self.namespace.name, entity)
        setattr(counters, slot, getattr(counters, slot) + number)

    def hold(self, size: int) -> None:
        """Something came that is not done with yet. Each is released once, whatever becomes of the client."""
        self._held += size + DELIVERY_BYTES
        self.server.held_bytes += size + DELIVERY_BYTES
        if self._held > PEER_BYTES_MAX or self.server.crowded:
            self._transport.pause()

    def release(self, size: int) -> None:
        self._held -= size + DELIVERY_BYTES
        self.server.held_bytes -= size + DELIVERY_BYTES
        # Who has nothing under way is read in any case.
        if self._held <= (0 if self.server.crowded else PEER_BYTES_MAX // 2):
            self._transport.resume()

    def settling(self) -> None:
        """The client settled and goes on without an answer. Each is followed by one `settled`."""
        self._settling += 1

    def settled(self) -> None:
        self._settling -= 1
        if self._settling == 0 and self._after:
            after, self._after = self._after, []
            for act in after:
                act()

    def after_settlements(self, act: Callable[[], object]) -> None:
        """Now, or once those are done that came before: whoever defers a message without waiting, and then
        asks for it by its number, is to find it deferred."""
        if self._settling:
            self._after.append(act)
        else:
            act()

    # Tokens.

    def put_token(self, audience: str, token: str) -> None:
        """Raises Unauthorized."""
        if len(self._grants) >= TOKENS_MAX and audience not in self._grants:
            raise Unauthorized(40103, "The connection has too many tokens.")
        self._grants[audience] = self.namespace.gate.cbs(token, self._host(), self.now())
        self._watch()

    def require(self, path: str, right: Right) -> None:
        """Raises Unauthorized unless a token of the connection covers the path and has the right."""
        now = self.now()
        reason: Unauthorized | None = None
        for grant in self._all_grants():
            try:
                grant.require(path, right, now)
                return
            except Unauthorized as error:
                reason = error
        raise reason or _no_token(path)

    def require_any(self, path: str, token: str | None) -> None:
        """Any right on a hub, by a token of the connection or one that came with the request."""
        grants = list(self._all_grants())
        if token is not None and not any(g.covers(path) for g in grants):
            grants.append(self.namespace.gate.cbs(token, self._host(), self.now()))
        node = f"{path}/$management"
        now = self.now()
        if not any(
            (g.covers(path) or g.covers(node) or g.scope.startswith(path + "/")) and now < g.expires
            for g in grants
        ):
            raise _no_token(path)

    def _all_grants(self) -> Iterable[Grant]:
        return (OPEN,) if self.namespace.gate.open else self._grants.values()

    def _host(self) -> bytes:
        return self._ours.encode("utf-8", "replace")

    def _watch(self) -> None:
        """Looks again when the next token ends."""
        if self._timer is not None:
            self._timer.cancel()
        ends = min((grant.expires for grant in self._grants.values()), default=self.now() + TOKEN_WAIT)
        # Far ends are looked at in steps: an event loop cannot sleep for a hundred years.
        moment = min(ends, self.now() + 3_600_000)
        self._timer = self.server.clock.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self.now()
        if not self._grants and not self.namespace.gate.open:
            self._transport.wire.close("amqp:unauthorized-access", "No token was put in time.")
            return
        self._grants = {name: grant for name, grant in self._grants.items() if now < grant.expires}
        self.recheck("The token has expired.")
        if not self.namespace.gate.open:
            self._watch()

    def forget_tokens(self) -> None:
        """Keys have changed."""
        self._grants = {}
        self._watch()
        self.recheck("The keys have changed.")

    def recheck(self, text: str) -> None:
        """Detaches links that no token allows any more."""
        for link, (path, right) in list(self._rights.items()):
            try:
                self.require(path, right)
            except Unauthorized:
                link.detach("amqp:unauthorized-access", f"Unauthorized access. {text}")
                self.drop(link)

    def revisit(self) -> None:
        """Detaches links to entities that are no more, or that changed so that the link cannot go on."""
        for link in list(self._rights):
            error = self._end_of(link.context)
            if error is not None:
                link.detach(condition_of(error), text_of(error))
                self.drop(link)

    def _end_of(self, context: Any) -> BrokerError | None:
        """Why a link of that context ends. An entity of the same name is another one."""
        if isinstance(context, (Producer, Consumer)):
            path = context.hub.entity.path
            alive = self.namespace.hubs.get(path.lower()) is context.hub
            if alive and isinstance(context, Consumer):
                return context.hub.closed()
        elif isinstance(context, (Receiving, sessions.Accepting)):
            path = context.source.path
            alive = self.namespace.receivers.get(path.lower()) is context.source
            if alive and context.source.forwarder is not None:
                return Forwards()
        else:
            path = context.entity.path
            alive = context.renewed(self.namespace.entity(path))
        return None if alive else NotFound(_missing(path))

    # Connection and sessions.

    def authenticate(self, connection: Connection, mechanism: str, user: str, password: str) -> None:
        """PLAIN: the key of a rule of any namespace; which one counts is known when it is opened."""
        self._credentials = (user, password)
        found = any(self._plain(ns) is not None for ns in self.server.broker.namespaces.values())
        if not found:
            self.refused("PLAIN", "no rule has that name and that key")
        connection.authenticated(found)

    def refused(self, what: str, why: str) -> None:
        """For the log: clients hide from their users why their tokens and links are refused."""
        log.warning("%s %s refused: %s", self._transport.peer, what, why)

    def _plain(self, namespace: Namespace) -> Grant | None:
        assert self._credentials is not None
        paths = [e.key for kind in (EventHub, Queue, Topic) for e in namespace.entities(kind)]
        try:
            return namespace.gate.plain(*self._credentials, ("", *paths))
        except Unauthorized:
            return None

    def opened(self, connection: Connection) -> None:
        peer = connection.peer
        assert peer is not None
        self._ours = (peer.hostname or "")[:HOST_CHARS_MAX]
        # Nothing else of it is needed, and it may be large.
        connection.peer = Open("", None, peer.max_frame_size, peer.channel_max, peer.idle_time_out)
        if self.server.full:
            connection.close(
                "amqp:resource-limit-exceeded", "The server has all the connections it may have."
            )
            return
        self.namespace = self.server.broker.namespace_for(self._ours.partition(":")[0])
        if self._credentials is not None:
            grant = self._plain(self.namespace)
            if grant is None:
                connection.close("amqp:unauthorized-access", "The credentials are of another namespace.")
                return
            self._grants["$plain"] = grant
        self._watch()

    def begun(self, session: Session) -> None:
        session.context = {"$cbs": RequestNode(cbs.answer), "$management": RequestNode(management.answer)}

    def ended(self, session: Session, error: Error | None) -> None:
        """Its links were reported before."""

    def closed(self, connection: Connection, error: Error | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.transactions.forget()
        if error is not None:
            log.info("%s closed: %s %s", self._transport.peer, error.condition, error.description)

    # Links.

    def attach(self, link: Link) -> None:
        try:
            if isinstance(link, Receiver) and isinstance(link.target, Controlled):
                self._attach_coordinator(link)
                return
            terminus = link.target if isinstance(link, Receiver) else link.source
            address = terminus.address if isinstance(terminus, (Source, Target)) else None
            node = node_of(address)
            if not node.path:
                raise NotFound("The link names no entity. Dynamic and anonymous nodes are not to be had.")
            if node.kind in ("cbs", "management", "operations"):
                self._attach_requests(link, node)
            elif isinstance(link, Receiver):
                self._attach_incoming(link, node)
            elif isinstance(link, Sender):
                self._attach_outgoing(link, node)
        except Exception as error:
            condition = condition_of(error)
            if condition == "amqp:internal-error":
                log.exception("attach failed")
            if isinstance(error, Invalid) and "partition" in str(error).lower():
                condition = OUT_OF_RANGE
            if condition in ("amqp:not-found", "amqp:unauthorized-access"):
                self.refused("link", text_of(error))
            else:
                log.info("%s attach refused: %s %s", self._transport.peer, condition, error)
            self._rights.pop(link, None)
            self._cbs.discard(link)
            link.refuse(condition, text_of(error))

    def _attach_coordinator(self, link: Receiver) -> None:
        if not list(self._all_grants()):
            raise _no_token("$coordinator")
        link.context = Coordinator()
        link.accept(max_message_size=REQUEST_BYTES_MAX)
        link.grant(TRANSACTION_CREDIT, keep=True)

    def _attach_requests(self, link: Link, node: Node) -> None:
        if node.kind == "management" and not list(self._all_grants()):
            raise _no_token(node.path)
        nodes: dict[str, RequestNode] = link.session.context
        if node.kind == "operations":
            self._check_operations(node)
            nodes.setdefault(node.path, RequestNode(partial(operations.answer, node.entity)))
        requests = nodes[node.path]
        size: int | None = None
        if node.kind == "cbs" and len(self._cbs) >= CBS_LINKS_MAX:
            raise QuotaExceeded(f"The connection has {CBS_LINKS_MAX} links to $cbs; it cannot have more.")
        if node.kind == "cbs":
            self._cbs.add(link)
        if node.kind != "operations":
            size = REQUEST_BYTES_MAX
        if isinstance(link, Sender):
            link.context = None
            link.accept()
            requests.add(link)
        elif isinstance(link, Receiver):
            link.context = RequestLink(requests)
            link.accept(max_message_size=size)
            link.grant(REQUEST_CREDIT, keep=True)

    def _check_operations(self, node: Node) -> None:
        self.require_any(node.entity, None)
        namespace = self.namespace
        if namespace.entity(node.entity) is None and not namespace.receivers.knows(node.entity):
            raise NotFound(_missing(node.spelled.rpartition("/")[0]))

    def _attach_incoming(self, link: Receiver, node: Node) -> None:
        self.require(node.path, Right.SEND)
        via = (link.attach.properties or {}).get(DESTINATION)
        way = ""
        if isinstance(via, str):
            way, node = node.path, self._by_way(node, via)
        entity = self.namespace.entity(node.path)
        if isinstance(entity, (Queue, Topic)):
            link.context = sending = Sending(entity, way)
            self._rights[link] = (node.path, Right.SEND)
            link.accept(max_message_size=sending.size_max(self) or None)
            link.grant(SEND_CREDIT, keep=True)
        else:
            self._attach_producer(link, node)

    def _by_way(self, node: Node, destination: str) -> Node:
        """Messages that go by way of one entity to another (AMQP reference 4.10): both must let them. Since
        a transaction may span entities here, they need not stay there on their way."""
        if not isinstance(self.namespace.entity(node.path), (Queue, Topic)):
            raise NotFound(_missing(node.spelled))
        node = node_of(destination)
        self.require(node.path, Right.SEND)
        if not isinstance(self.namespace.entity(node.path), (Queue, Topic)):
            raise NotFound(_missing(node.spelled))
        return node

    def _attach_producer(self, link: Receiver, node: Node) -> None:
        hub = self._hub(node)
        partition = publisher = None
        if node.kind == "partition":
            partition = partition_number(node.part, len(hub.partitions))
        elif node.kind == "publisher":
            if len(node.part) > 128:
                raise Invalid("A publisher name is limited to 128 characters.")
            publisher = node.part
        elif node.kind != "entity":
            raise NotFound(_missing(node.spelled))
        properties, offered = None, None
        if IDEMPOTENT in (link.attach.desired_capabilities or ()):
            # Small enough for clients whose numbers are floating-point.
            fresh = int.from_bytes(guid_bytes()[:4], "big") & 0x7FFFFFFF
            properties, offered = entered(hub, partition, link.attach.properties or {}, fresh), [IDEMPOTENT]
        link.context = Producer(hub, partition, publisher)
        self._rights[link] = (node.path, Right.SEND)
        link.accept(
            max_message_size=message_bytes_max(hub.entity, self.namespace.limits) or None,
            properties=properties,
            offered_capabilities=offered,
        )
        link.grant(CREDIT, keep=True)

    def _attach_outgoing(self, link: Sender, node: Node) -> None:
        self.require(node.path, Right.LISTEN)
        if node.kind == "entity" and node.entity not in self.namespace.hubs:
            self._attach_receiving(link, node)
        else:
            self._attach_consumer(link, node)

    def _attach_receiving(self, link: Sender, node: Node) -> None:
        if not self.namespace.receivers.knows(node.path):
            raise NotFound(_missing(node.spelled))
        asked, session = sessions.wanted(link)
        source = self.namespace.receiver(node.path, sessions=asked)
        if source.forwarder is not None:
            raise Forwards
        self._rights[link] = (node.path, Right.LISTEN)
        if asked:
            waiting = sessions.Accepting(self, link, source, session)
            link.context = link.context or waiting
            return
        link.context = receiving = Receiving(self, link, source)
        link.accept()
        receiving.pump()

    def _attach_consumer(self, link: Sender, node: Node) -> None:
        hub = self._hub(node)
        if node.kind != "consumer":
            raise NotFound(_missing(node.spelled))
        if (closed := hub.closed()) is not None:
            raise closed
        partition = partition_number(node.part, len(hub.partitions))
        group = f"{node.entity}/consumergroups/{node.group}"
        if self.namespace.entity(group) is None:
            raise NotFound(_missing(f"{hub.entity.path}/ConsumerGroups/{node.group}"))
        sequence = hub.locate(partition, start_of(link.source))
        epoch = (link.attach.properties or {}).get(EPOCH)
        level = int(epoch) if isinstance(epoch, int) else None
        key = (self.namespace.name, group.lower(), partition)
        readers = self.server.readers.setdefault(key, Readers())
        refusal = readers.refusal(level)
        if refusal is not None:
            link.refuse(*refusal)
            return
        consumer = Consumer(self, link, hub, key, sequence, level)
        readers.enter(consumer)
        link.context = consumer
        self._rights[link] = (node.path, Right.LISTEN)
        link.accept()
        consumer.pump()

    def _hub(self, node: Node) -> Any:
        hub = self.namespace.hubs.get(node.entity)
        if hub is None:
            raise NotFound(_missing(node.spelled))
        return hub

    def attached(self, link: Link) -> None:
        """We ask for no links."""

    def flow(self, link: Link) -> None:
        if isinstance(link.context, (Consumer, Receiving)):
            link.context.flow()
        elif isinstance(link, Sender) and link.draining:
            link.drained()

    def delivery(self, link: Receiver, delivery: Delivery) -> None:
        link.context.delivery(self, link, delivery)

    def disposition(self, link: Link, deliveries: Sequence[Sent], state: State | None, settled: bool) -> None:
        if isinstance(link.context, Receiving):
            link.context.disposition(deliveries, state, settled)
        # Everything else is sent settled; a client that answers anyway needs no answer.

    def detached(self, link: Link, error: Error | None, closed: bool) -> None:
        self.drop(link)

    def drop(self, link: Link) -> None:
        """The link is gone, whoever ended it."""
        self._rights.pop(link, None)
        self._cbs.discard(link)
        if isinstance(link, Sender) and isinstance(link.session.context, dict):
            for node in link.session.context.values():
                node.remove(link)
        context = link.context
        if isinstance(context, (Consumer, Receiving, sessions.Accepting)):
            context.gone()
        if isinstance(context, Consumer):
            self.server.leave(context)


def _missing(path: str) -> str:
    return f"The messaging entity '{path}' could not be found."


def _no_token(path: str) -> Unauthorized:
    return missing_right(f"Unauthorized access. No token of this connection is for '{path:.200}'.")
