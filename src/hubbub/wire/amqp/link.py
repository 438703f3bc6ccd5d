"""Links: one direction of messages between two nodes (specification part 2.6).

A `Receiver` grants credit and settles, a `Sender` keeps deliveries until the peer's credit and the session's
window let them go. Both are made by a Session, for the peer's attach or for our own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .delivery import Delivery, Sent
from .errors import INVALID_FIELD, MESSAGE_SIZE, RESOURCE_LIMIT, TRANSFER_LIMIT, SessionError, StateError
from .hot import encode_state, flow_of_link
from .performatives import (
    ACCEPTED,
    Attach,
    Coordinator,
    Detach,
    Error,
    Flow,
    Rejected,
    Source,
    State,
    Target,
    Transfer,
)
from .serial import MASK, behind, in_range
from .types import Described

if TYPE_CHECKING:
    from .session import Session

UNSETTLED, SETTLED, MIXED = range(3)  # snd_settle_mode
FIRST, SECOND = range(2)  # rcv_settle_mode
# ASKED: the peer's attach waits for our answer. ASKING: ours waits for the peer's. DETACHING: we have
# detached, the peer has not.
ASKED, ASKING, ATTACHED, DETACHING, GONE = range(5)
TAG_BYTES_MAX = 32


class Link:
    """What both directions share. Set `context` before `accept`: that may already bring events.

    `attach` is the peer's attach frame as it came (ours until it came, on a link that we asked for);
    properties and the like are read there. `source`, `target` and the settle modes, filled in where null, are
    those that hold. Once we have detached, only the name is left of all that. `max_message_size` is what the
    receiving side announced, 0 for no bound. `refused`: the peer answered our attach with no terminus of its
    own, and detaches next.
    """

    __slots__ = (
        "attach", "context", "handle", "max_message_size", "name", "rcv_settle_mode", "refused", "remote",
        "session", "snd_settle_mode", "source", "state", "target",
    )  # fmt: skip
    role: bool

    def __init__(self, session: Session, attach: Attach, handle: int, state: int) -> None:
        self.session = session
        self.attach = attach
        self.name = attach.name
        self.handle = handle
        self.remote: int | None = attach.handle if state == ASKED else None
        self.state = state
        self.source = attach.source
        self.target = attach.target
        self.snd_settle_mode = MIXED if attach.snd_settle_mode is None else attach.snd_settle_mode
        self.rcv_settle_mode = attach.rcv_settle_mode or FIRST
        self.max_message_size = attach.max_message_size or 0
        self.refused = False
        self.context: Any = None

    @property
    def attached(self) -> bool:
        """Both sides have attached and none has detached."""
        return self.state == ATTACHED

    def accept(
        self,
        *,
        source: Source | Described | None = None,
        target: Target | Coordinator | Described | None = None,
        max_message_size: int | None = None,
        initial_delivery_count: int = 0,
        properties: dict[Any, Any] | None = None,
        offered_capabilities: list[str] | None = None,
        desired_capabilities: list[str] | None = None,
    ) -> bool:
        """Answer the peer's attach. What is left out echoes the peer; the size's default is the limit's.
        False, and nothing sent, if the link is gone meanwhile. For a Sender, credit that the peer gave early
        is reported by `flow` before this returns. Raises StateError if it was answered before."""
        if not self._unanswered():
            return False
        self.source = self.source if source is None else source
        self.target = self.target if target is None else target
        size = max_message_size or self.session.connection.limits.message_bytes_max
        reply = self._reply(self.source, self.target)
        reply.max_message_size = size
        reply.properties = {} if properties is None else properties
        reply.offered_capabilities = offered_capabilities
        reply.desired_capabilities = desired_capabilities
        self.state = ATTACHED
        self._begin(reply, initial_delivery_count)
        self.session.send(reply)
        self._accepted()
        return True

    def refuse(self, condition: str, description: str = "", info: dict[Any, Any] | None = None) -> bool:
        """Answer the peer's attach as the service does: an attach without our terminus and a detach with the
        error behind it. False if the link is gone meanwhile. Raises StateError if it was answered before."""
        if not self._unanswered():
            return False
        self.reject(Error(condition, description, info))
        return True

    def detach(
        self,
        condition: str | None = None,
        description: str = "",
        info: dict[Any, Any] | None = None,
        *,
        closed: bool = True,
    ) -> None:
        """End the link, with an error if there is a condition. Brings no `detached`. Nothing happens if it is
        gone already. What the peer still sends on it is dropped. Raises StateError if the peer's attach was
        not answered."""
        if self.state == ASKED:
            raise StateError(f"link {self.name!r} was not answered yet: accept or refuse it")
        if self.state in (ASKING, ATTACHED):
            self.leave(None if condition is None else Error(condition, description, info), closed)

    # What follows is for the session.

    def reject(self, error: Error | None) -> None:
        """Attach without our terminus, and detach."""
        source, target = (self.source, None) if self.role else (None, self.target)
        reply = self._reply(source, target)
        reply.initial_delivery_count = None if self.role else 0
        reply.max_message_size = self.session.connection.limits.message_bytes_max
        reply.properties = {}
        self.session.send(reply)
        self.leave(error, True)

    def leave(self, error: Error | None, closed: bool) -> None:
        """Detach from our side; what is unsettled is no longer counted. The peer's attach may be large, and
        only the peer says when the link is over for it too: no more of it is kept than the name."""
        self.state = DETACHING
        self.session.send(Detach(self.handle, closed, error))
        self.attach = Attach(self.name, self.attach.handle, self.attach.role)
        self.source = self.target = None
        self.forget()

    def fail(self, condition: str, description: str) -> None:
        """Detach for a fault of the peer and say so to the owner."""
        error = Error(condition, description)
        self.leave(error, True)
        self.session.handler.detached(self, error, True)

    def answered(self, attach: Attach) -> None:
        """The peer's answer to our attach."""
        own = attach.source if self.role else attach.target
        self.refused = own is None
        self.attach = attach
        self.source = attach.source
        self.target = attach.target
        if not self.role:
            self.max_message_size = attach.max_message_size or 0
        self.remote = attach.handle

    def forget(self) -> None:
        raise NotImplementedError

    def on_flow(self, flow: Flow) -> None:
        raise NotImplementedError

    def _begin(self, reply: Attach, initial_delivery_count: int) -> None:
        raise NotImplementedError

    def _accepted(self) -> None:
        """Called once both sides have attached."""

    def _unanswered(self) -> bool:
        if self.state == ASKED:
            return True
        if self.state in (ATTACHED, ASKING):
            raise StateError(f"link {self.name!r} was answered before")
        return False

    def _reply(
        self, source: Source | Described | None, target: Target | Coordinator | Described | None
    ) -> Attach:
        return Attach(
            self.name, self.handle, self.role, self.snd_settle_mode, self.rcv_settle_mode, source, target
        )


class Receiver(Link):
    """A link on which the peer sends. `credit` is what the peer may still send."""

    __slots__ = (
        "_credit_min", "_delivery", "_delivery_bytes", "_delivery_count", "_draining", "_kept", "_parts",
        "_parts_bytes", "_unsettled", "_unsettled_max", "credit",
    )  # fmt: skip
    role = True

    def __init__(self, session: Session, attach: Attach, handle: int, state: int) -> None:
        super().__init__(session, attach, handle, state)
        if state == ASKED or not self.max_message_size:
            self.max_message_size = session.connection.limits.message_bytes_max
        self.credit = 0
        self._credit_min = -session.connection.limits.credit_excess_max
        self._unsettled_max = session.connection.limits.unsettled_max
        self._kept = 0
        self._delivery_count = attach.initial_delivery_count or 0
        self._draining = False
        self._unsettled: dict[int, Delivery] = {}
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._delivery: Delivery | None = None
        self._delivery_bytes = 0

    def grant(self, credit: int, *, keep: bool = False) -> None:
        """Let the peer send `credit` deliveries from now on: a total, not an addition. With `keep`, the
        credit is renewed so that it and the unsettled deliveries together stay at `credit`; a flow goes out
        when half of it is used up. Nothing happens if the link is not attached."""
        if self.state == ATTACHED:
            self._kept = credit if keep else 0
            self.credit = max(0, credit - len(self._unsettled)) if keep else credit
            self._draining = False
            self._flow(drain=False)

    def drain(self) -> None:
        """Ask the peer to use up its credit now or to hand it back; `flow` tells when that is done. Credit is
        no longer renewed. Nothing happens if the link is not attached."""
        if self.state == ATTACHED:
            self._kept = 0
            self._draining = True
            self._flow(drain=True)

    def settle(self, deliveries: Delivery | Iterable[Delivery], state: State = ACCEPTED) -> None:
        """Settle with an outcome. Dispositions wait for `take` and join into ranges. Deliveries that are
        settled already are passed over; nothing happens if the link is gone."""
        if self.state != ATTACHED:
            return
        body = encode_state(state)
        session = self.session
        for delivery in (deliveries,) if isinstance(deliveries, Delivery) else deliveries:
            if self._unsettled.pop(delivery.id, None) is delivery:
                delivery.settled = True
                session.incoming_unsettled -= 1
                session.settle(True, delivery.id, body)
        if self.credit <= self._kept >> 1:
            self._renew()

    # What follows is for the session.

    def forget(self) -> None:
        self.credit = self._kept = 0
        self._drop_parts()
        self.session.incoming_unsettled -= len(self._unsettled)
        self._unsettled = {}

    def on_flow(self, flow: Flow) -> None:
        """A sender's flow: its word on credit is noise (one client assumes credit of its own)."""
        if flow.drain and self._draining and flow.delivery_count is not None:
            self._draining = False
            handed_back = (flow.delivery_count - self._delivery_count) & MASK
            self._delivery_count = flow.delivery_count
            self.credit = max(0, self.credit - handed_back)
            self.session.handler.flow(self)
        if flow.echo and self.state == ATTACHED:
            self._flow(drain=self._draining)

    def on_transfer(self, delivery_id: int | None, tag: bytes | None, head: Transfer, data: bytes) -> None:
        """One frame. Raises SessionError where ids do not fit."""
        if self.state != ATTACHED:
            if self.state == ASKED:
                error = Error(TRANSFER_LIMIT, "a transfer came before the link was attached")
                self.reject(error)
                self.session.handler.detached(self, error, True)
            return
        if self._delivery is None:
            if delivery_id is None:
                raise SessionError(INVALID_FIELD, "the first transfer of a delivery has no delivery-id")
            self._delivery_count = (self._delivery_count + 1) & MASK
            self.credit -= 1
            if self.credit < self._credit_min:
                self.fail(TRANSFER_LIMIT, f"the credit of link {self.name!r} is used up")
                return
            delivery = Delivery(
                delivery_id, tag or b"", data, bool(head.settled), head.state, head.message_format or 0
            )
            if head.more or head.aborted:
                self._part(delivery, head, data)
            elif len(data) > self.max_message_size:
                self._too_large(delivery, len(data))
            else:
                self._arrived(delivery)
            return
        delivery = self._delivery
        if delivery_id is not None and delivery_id != delivery.id:
            raise SessionError(INVALID_FIELD, f"delivery {delivery_id} begins inside delivery {delivery.id}")
        delivery.settled = delivery.settled or bool(head.settled)
        delivery.state = delivery.state or head.state
        self._part(delivery, head, data)

    def on_settled(self, first: int, last: int) -> None:
        """The sender has settled deliveries on its own."""
        for delivery in in_range(self._unsettled, first, last):
            delivery.settled = True
            del self._unsettled[delivery.id]
            self.session.incoming_unsettled -= 1
        self._renew()

    def _begin(self, reply: Attach, initial_delivery_count: int) -> None:
        self.max_message_size = reply.max_message_size or 0

    def _part(self, delivery: Delivery, head: Transfer, data: bytes) -> None:
        """One of several frames of a delivery."""
        if head.aborted:
            self._drop_parts()
            self._renew()
            return
        self._delivery = delivery
        self._delivery_bytes += len(data)
        connection = self.session.connection
        if self._delivery_bytes <= self.max_message_size:
            self._parts.append(data)
            self._parts_bytes += len(data)
            connection.partial_bytes += len(data)
        else:
            self._forget_parts()
        if head.more and not self._parts:
            return
        if not self._parts:
            size = self._delivery_bytes
            self._drop_parts()
            self._too_large(delivery, size)
        elif connection.partial_bytes > connection.limits.partial_bytes_max:
            self.fail(RESOURCE_LIMIT, "incomplete deliveries on this connection take too much memory")
        elif not head.more:
            delivery.payload = b"".join(self._parts)
            self._drop_parts()
            self._arrived(delivery)

    def _drop_parts(self) -> None:
        self._forget_parts()
        self._delivery = None
        self._delivery_bytes = 0

    def _forget_parts(self) -> None:
        self.session.connection.partial_bytes -= self._parts_bytes
        self._parts = []
        self._parts_bytes = 0

    def _too_large(self, delivery: Delivery, size: int) -> None:
        """Rejects it; if its sender wants no answer, only the end of the link can tell."""
        text = (
            f"The received message (delivery-id:{delivery.id}, size:{size} bytes) exceeds the limit"
            f" ({self.max_message_size} bytes) currently allowed on the link."
        )
        if delivery.settled:
            self.fail(MESSAGE_SIZE, text)
        elif self._take(delivery):
            self.settle(delivery, Rejected(Error(MESSAGE_SIZE, text)))

    def _take(self, delivery: Delivery) -> bool:
        """Counts an unsettled delivery. False if the link had to be ended over it."""
        session = self.session
        if session.incoming_unsettled >= self._unsettled_max:
            self.fail(RESOURCE_LIMIT, "too many deliveries of this session are unsettled")
            return False
        if delivery.id in self._unsettled:
            raise SessionError(INVALID_FIELD, f"delivery-id {delivery.id} is in use")
        self._unsettled[delivery.id] = delivery
        session.incoming_unsettled += 1
        return True

    def _arrived(self, delivery: Delivery) -> None:
        if not delivery.settled and not self._take(delivery):
            return
        self.session.handler.delivery(self, delivery)
        if self.credit <= self._kept >> 1:
            self._renew()

    def _renew(self) -> None:
        """Bring credit back once half of what is kept can be given at once."""
        if self._kept and self.state == ATTACHED:
            wanted = self._kept - len(self._unsettled)
            if 2 * (wanted - self.credit) >= self._kept:
                self.credit = wanted
                self._flow(drain=False)

    def _flow(self, drain: bool) -> None:
        credit = max(0, self.credit)
        self.session.send_flow(flow_of_link(self.handle, self._delivery_count, credit, drain))


class Sender(Link):
    """A link on which we send. `draining` is True while the peer waits for `drained`."""

    __slots__ = (
        "_credit",
        "_delivery_count",
        "_drain_due",
        "_initial",
        "_left",
        "_waiting",
        "draining",
        "live",
    )
    role = False

    def __init__(self, session: Session, attach: Attach, handle: int, state: int) -> None:
        super().__init__(session, attach, handle, state)
        self.draining = False
        self.live = 0  # deliveries of this link among the session's unsettled
        self._credit = 0
        self._delivery_count = self._initial = attach.initial_delivery_count or 0
        self._drain_due = False
        self._waiting: deque[Sent] = deque()
        self._left: list[Sent] = []

    @property
    def credit(self) -> int:
        """Deliveries that may be sent now without waiting here; `flow` tells when that grows again."""
        if self.state != ATTACHED:
            return 0
        room = 0 if self._waiting else self.session.room
        if room >= self._credit:
            return self._credit
        self.session.starved = True
        return room

    def send(
        self,
        payload: bytes,
        tag: bytes,
        *,
        format: int = 0,
        settled: bool = False,
        state: State | None = None,
        context: Any = None,
    ) -> Sent:
        """Send a message, or keep it until credit and windows allow: deliveries leave in the order of the
        calls. `tag` has up to 32 bytes. Raises ValueError for a longer tag; StateError if the link is not
        attached or more than `Limits.waiting_bytes_max` wait: `credit` says how many go without waiting."""
        if self.state != ATTACHED:
            raise StateError(f"link {self.name!r} is not attached")
        if len(tag) > TAG_BYTES_MAX:
            raise ValueError(f"a delivery tag of {len(tag)} bytes, {TAG_BYTES_MAX} are allowed")
        sent = Sent(self, payload, tag, format, settled, state, context)
        if self._waiting or self._credit <= 0 or not self.session.emit(self, sent):
            connection = self.session.connection
            if (
                connection.waiting_bytes + len(payload) > connection.limits.waiting_bytes_max
                and sent.id is None
            ):
                raise StateError("too many bytes wait for the peer's credit or window")
            connection.waiting_bytes += len(payload)
            self._waiting.append(sent)
            self.session.stalled[self] = None
        return sent

    def send_settled(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Send many messages that want no answer, each given in two pieces. As `send`, for less: what goes
        at once and fits a frame leaves no trace here. Tags are made here too. Raises StateError."""
        if self.state != ATTACHED:
            raise StateError(f"link {self.name!r} is not attached")
        at = 0
        while at < len(messages):
            if not self._waiting:
                at = self.session.emit_settled(self, messages, at)
            if at < len(messages):
                head, body = messages[at]
                self.send(head + body, self._delivery_count.to_bytes(4, "big"), settled=True)
                at += 1

    def withdraw(self) -> list[Sent]:
        """Take back the deliveries of which nothing was sent yet; oldest first."""
        begun = [sent for sent in self._waiting if sent.id is not None]
        taken = [sent for sent in self._waiting if sent.id is None]
        self._waiting = deque(begun)
        if self.state == ATTACHED:
            self.session.connection.waiting_bytes -= sum(len(sent.payload) for sent in taken)
        if not begun:
            self.session.stalled.pop(self, None)
        return taken

    def drained(self) -> None:
        """All that there was has been sent: hand back the rest of the credit. What `send` still keeps goes
        first. Nothing happens if the peer does not drain."""
        if not self.draining or self.state != ATTACHED:
            return
        self._drain_due = bool(self._waiting) and (self._credit > 0 or self._waiting[0].id is not None)
        if not self._drain_due:
            self._delivery_count = (self._delivery_count + self._credit) & MASK
            self._credit = 0
            self.draining = False
            self._flow(drain=True)

    def settle(self, deliveries: Sent | Iterable[Sent], state: State | None) -> None:
        """Answer the peer's outcome: settled, with the state given (of the same kind as the peer's, or
        rejected with an error). Joins into ranges as a Receiver's. Nothing happens if the link is gone."""
        if self.state != ATTACHED:
            return
        body = encode_state(state)
        session = self.session
        for sent in (deliveries,) if isinstance(deliveries, Sent) else deliveries:
            if sent.id is not None and session.outgoing.get(sent.id) is sent:
                del session.outgoing[sent.id]
                sent.settled = True
                self.live -= 1
                session.settle(False, sent.id, body)
        if session.starved:
            session.reopen()

    def unsettled(self) -> list[Sent]:
        """Deliveries that began to go and have no settlement, oldest first."""
        return self._left + (
            [sent for sent in self.session.outgoing.values() if sent.link is self] if self.live else []
        )

    # What follows is for the session.

    @property
    def waiting(self) -> int:
        """Deliveries that are kept here for want of credit or window."""
        return len(self._waiting)

    @property
    def credit_given(self) -> int:
        """What is left of the peer's credit, whatever the session's window is."""
        return self._credit

    def passed(self, count: int) -> None:
        """So many settled deliveries went out."""
        self._delivery_count = (self._delivery_count + count) & MASK
        self._credit -= count

    def started(self, sent: Sent) -> None:
        """The first frame of a delivery goes out."""
        self._delivery_count = (self._delivery_count + 1) & MASK
        self._credit -= 1
        if not sent.settled:
            self.live += 1

    def pump(self) -> None:
        """Send what waits, as far as it may go."""
        waiting = self._waiting
        while waiting and (self._credit > 0 or waiting[0].id is not None):
            size = len(waiting[0].payload)
            if not self.session.emit(self, waiting[0]):
                return
            waiting.popleft()
            self.session.connection.waiting_bytes -= size
        if not waiting:
            self.session.stalled.pop(self, None)
        if self._drain_due:
            self.drained()

    def forget(self) -> None:
        self._left = self.unsettled()
        for sent in self._left:
            del self.session.outgoing[sent.id]  # type: ignore[arg-type]
        self.live = 0
        self._credit = 0
        self.draining = False
        self.session.dropped(self)
        self.session.connection.waiting_bytes -= sum(len(sent.payload) for sent in self._waiting)

    def on_flow(self, flow: Flow) -> None:
        """Credit is a total as of the peer's delivery-count: what is on its way counts against it."""
        if flow.link_credit is not None:
            seen = self._initial if flow.delivery_count is None else flow.delivery_count
            self._credit = max(0, flow.link_credit - behind(self._delivery_count, seen))
        self.draining = flow.drain
        if self.state != ATTACHED:
            return
        if self._waiting:
            self.pump()
        if flow.echo:
            self._flow(drain=False)
        self.session.handler.flow(self)

    def _begin(self, reply: Attach, initial_delivery_count: int) -> None:
        reply.initial_delivery_count = initial_delivery_count
        self._delivery_count = self._initial = initial_delivery_count

    def _accepted(self) -> None:
        if self._credit or self.draining:
            self.session.handler.flow(self)

    def _flow(self, drain: bool) -> None:
        self.session.send_flow(flow_of_link(self.handle, self._delivery_count, self._credit, drain))
