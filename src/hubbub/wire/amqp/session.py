"""Sessions: windows, delivery ids, and the links in them (specification part 2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .delivery import Sent
from .errors import (
    FRAMING_ERROR,
    HANDLE_IN_USE,
    INVALID_FIELD,
    RESOURCE_LIMIT,
    UNATTACHED_HANDLE,
    WINDOW_VIOLATION,
    ProtocolError,
    SessionError,
    StateError,
)
from .frames import AMQP, frame
from .hot import (
    SETTLED_OVERHEAD,
    decode_disposition,
    decode_flow,
    decode_transfer,
    encode_disposition,
    encode_flow,
    encode_transfer,
    settled_transfers,
    transfer_overhead,
    transfer_tail,
)
from .link import ASKED, ASKING, ATTACHED, DETACHING, GONE, Link, Receiver, Sender
from .performatives import (
    Attach,
    Begin,
    Composite,
    Coordinator,
    Detach,
    End,
    Error,
    Received,
    Source,
    State,
    Target,
    Transfer,
)
from .serial import HALF, MASK, behind, in_range

if TYPE_CHECKING:
    from .connection import Connection
    from .handler import Handler

BEGINNING, BEGUN, ENDING, ENDED = range(4)
NAME_CHARS_MAX = 4096  # of a link: the peer decides how long it must be kept
_tail = lru_cache(64)(transfer_tail)


class Session:
    """One session. `channel` is the number on which we send, `context` the owner's."""

    __slots__ = (
        "_asking", "_by_handle", "_by_remote", "_first_id", "_incoming_left", "_incoming_low",
        "_next_delivery_id", "_next_incoming_id", "_next_outgoing_id", "_oldest", "_partial", "_past",
        "_runs", "_tails", "_window", "channel", "connection", "context", "handle_max", "handler",
        "incoming_unsettled", "outgoing", "remote_channel", "stalled", "starved", "state",
    )  # fmt: skip

    def __init__(self, connection: Connection, channel: int, first_id: int) -> None:
        self.connection = connection
        self.handler: Handler = connection.handler
        self.channel = channel
        self.remote_channel: int | None = None
        self.state = BEGINNING
        self.handle_max = MASK
        self.context: Any = None
        self.incoming_unsettled = 0
        self.outgoing: dict[int, Sent] = {}  # unsettled, by delivery id
        self.stalled: dict[Sender, None] = {}  # links with waiting deliveries, in turn
        self.starved = False  # a sender was told of less credit than the peer gave
        self._by_remote: dict[int, Link] = {}
        self._by_handle: dict[int, Link] = {}
        self._asking: dict[tuple[str, bool], Link] = {}
        self._past: set[int] = set()  # the peer's handles that were attached once
        self._first_id = self._next_outgoing_id = self._next_delivery_id = self._oldest = first_id
        self._window = 0  # transfer frames the peer still takes
        self._next_incoming_id = 0
        self._incoming_left = connection.limits.incoming_window
        self._incoming_low = connection.limits.incoming_window >> 1
        self._tails = connection.tails
        self._partial: Sender | None = None
        self._runs: list[tuple[bool, int, int, bytes]] = []

    def sender(
        self,
        name: str,
        target: Target | Coordinator,
        source: Source | None = None,
        *,
        snd_settle_mode: int = 2,
        rcv_settle_mode: int = 0,
        initial_delivery_count: int = 0,
        properties: dict[Any, Any] | None = None,
    ) -> Sender:
        """Ask the peer for a link on which we send; `attached` tells when it stands. Raises StateError if the
        session is gone or no handle is free."""
        attach = Attach(
            name, 0, False, snd_settle_mode, rcv_settle_mode, source or Source(), target,
            initial_delivery_count=initial_delivery_count, properties=properties,
        )  # fmt: skip
        link = Sender(self, attach, self._handle_for_us(), ASKING)
        self._ask(link, attach)
        return link

    def receiver(
        self,
        name: str,
        source: Source,
        target: Target | None = None,
        *,
        snd_settle_mode: int = 2,
        rcv_settle_mode: int = 0,
        max_message_size: int = 0,
        properties: dict[Any, Any] | None = None,
    ) -> Receiver:
        """Ask the peer for a link on which we receive. Raises StateError as `sender`."""
        attach = Attach(
            name, 0, True, snd_settle_mode, rcv_settle_mode, source, target or Target(),
            max_message_size=max_message_size or None, properties=properties,
        )  # fmt: skip
        link = Receiver(self, attach, self._handle_for_us(), ASKING)
        self._ask(link, attach)
        return link

    def end(self, condition: str | None = None, description: str = "") -> None:
        """End the session and its links. Brings no `ended` but `detached` for each link."""
        if self.state in (BEGINNING, BEGUN):
            error = None if condition is None else Error(condition, description)
            self.send(End(error))
            self.state = ENDING
            self._drop_links(error)

    @property
    def links(self) -> list[Link]:
        """All that are attached or about to be."""
        return [link for link in self._by_handle.values() if link.state in (ASKED, ASKING, ATTACHED)]

    @property
    def room(self) -> int:
        """Transfer frames that may go now; never negative."""
        room = min(self._window, self.connection.limits.unsettled_max - len(self.outgoing))
        return max(0, room)

    # What follows is for the connection and the links.

    def send(self, performative: Composite) -> None:
        """Dispositions that wait go first: what they settle may end with this frame."""
        self.flush()
        self.connection.send(self.channel, performative)

    def begun(self, begin: Begin, remote_channel: int) -> None:
        self.remote_channel = remote_channel
        self._next_incoming_id = begin.next_outgoing_id
        self._window = begin.incoming_window
        self.handle_max = MASK if begin.handle_max is None else begin.handle_max

    def begin_frame(self) -> Begin:
        limits = self.connection.limits
        return Begin(
            self.remote_channel,
            self._first_id,
            limits.incoming_window,
            limits.incoming_window,
            limits.handle_max,
        )

    def on_transfer(self, data: bytes, start: int, end: int) -> None:
        handle, delivery_id, tag, head, stop = decode_transfer(data, start, end, self._tails)
        self._next_incoming_id = (self._next_incoming_id + 1) & MASK
        self._incoming_left -= 1
        if self._incoming_left < 0:
            raise SessionError(WINDOW_VIOLATION, "more transfers than the incoming window allows")
        link = self._by_remote.get(handle)
        if link is None or link.role is False:
            raise SessionError(
                UNATTACHED_HANDLE, f"a transfer on handle {handle}, where no sender is attached"
            )
        link.on_transfer(delivery_id, tag, head, data[stop:end])  # type: ignore[attr-defined]
        if self._incoming_left <= self._incoming_low and self.state == BEGUN:
            self.connection.write(encode_flow(self.channel, self._windows()))

    def on_disposition(self, data: bytes, start: int, end: int) -> None:
        role, first, last, tail = decode_disposition(data, start, end, self._tails)
        if role:
            self._outcomes(self._live(first, last), tail.state, tail.settled)
        elif tail.settled:
            for link in list(self._by_remote.values()):
                if isinstance(link, Receiver):
                    link.on_settled(first, last)

    def on_flow(self, data: bytes, start: int, end: int) -> None:
        flow = decode_flow(data, start, end)
        seen = self._first_id if flow.next_incoming_id is None else flow.next_incoming_id
        self._window = max(0, flow.incoming_window - behind(self._next_outgoing_id, seen))
        self.reopen()
        if flow.handle is not None:
            link = self._by_remote.get(flow.handle)
            if link is not None:
                link.on_flow(flow)
            elif flow.handle not in self._past:
                raise SessionError(
                    UNATTACHED_HANDLE, f"a flow on handle {flow.handle}, which is not attached"
                )
        elif flow.echo and self.state == BEGUN:
            self.send_flow()

    def on_attach(self, attach: Attach) -> None:
        limits = self.connection.limits
        if attach.handle > limits.handle_max:
            raise ProtocolError(FRAMING_ERROR, f"handle {attach.handle}, the highest is {limits.handle_max}")
        if len(attach.name) > NAME_CHARS_MAX:
            raise SessionError(INVALID_FIELD, f"a link name of {len(attach.name)} characters")
        if attach.handle in self._by_remote:
            raise SessionError(HANDLE_IN_USE, f"handle {attach.handle} is attached already")
        asked = self._asking.pop((attach.name, not attach.role), None)
        if asked is not None:
            self._answered(asked, attach)
            return
        kind: type[Link] = Sender if attach.role else Receiver
        link = kind(self, attach, self._handle_for(attach.handle), ASKED)
        self._enter(link)
        self._by_remote[attach.handle] = link
        self.handler.attach(link)

    def on_detach(self, detach: Detach) -> None:
        link = self._by_remote.pop(detach.handle, None)
        if link is None:
            if detach.handle in self._past:
                return
            raise SessionError(
                UNATTACHED_HANDLE, f"a detach of handle {detach.handle}, which is not attached"
            )
        self._past.add(detach.handle)
        state = link.state
        if state == ASKED:
            link.reject(None)
        elif state == ATTACHED:
            link.leave(None, detach.closed)
        link.state = GONE
        del self._by_handle[link.handle]
        self.connection.links -= 1
        if state != DETACHING:
            self.handler.detached(link, detach.error, detach.closed)

    def fail(self, error: ProtocolError) -> None:
        """End the session for a fault of the peer."""
        if self.state in (BEGINNING, BEGUN):
            told = Error(error.condition, error.description)
            self.send(End(told))
            self.state = ENDING
            self.drop(told)

    def drop(self, error: Error | None) -> None:
        """Report the end of the links and of the session."""
        self._drop_links(error)
        self.handler.ended(self, error)

    def settle(self, role: bool, delivery_id: int, state: bytes) -> None:
        """Note a settlement; the frame is made at `flush`, one for all neighbours of equal state."""
        runs = self._runs
        if runs:
            last_role, first, last, last_state = runs[-1]
            if delivery_id == (last + 1) & MASK and state == last_state and role is last_role:
                runs[-1] = (role, first, delivery_id, state)
                return
        else:
            self.connection.settling(self)
        runs.append((role, delivery_id, delivery_id, state))

    def flush(self) -> None:
        """Write the dispositions that were noted."""
        runs, self._runs = self._runs, []
        for role, first, last, state in runs:
            self.connection.write(encode_disposition(self.channel, role, first, last, state))

    def send_flow(self, link: bytes | None = None) -> None:
        """A flow, of a link if its part is given."""
        window = self._windows()
        self.connection.write(
            encode_flow(self.channel, window) if link is None else encode_flow(self.channel, window, link)
        )

    def emit(self, link: Sender, sent: Sent) -> bool:
        """Send a delivery or the rest of it as far as the window allows; whether it is complete. A delivery
        that has begun stops only for want of window and is the first to go on, so that none begins in the
        midst of another: one client cannot sort them. What has gone is not kept for its settlement."""
        if self._partial is not link and self.room <= 0:
            self.starved = True
            return False
        if sent.id is None:
            sent.id = self._next_delivery_id
            self._next_delivery_id = (sent.id + 1) & MASK
            link.started(sent)
            if not sent.settled:
                self.outgoing[sent.id] = sent
        size = len(sent.payload)
        space = self.connection.send_frame_bytes - transfer_overhead(sent.tag)
        if size <= space and sent.state is None:
            self._window -= 1
            self._next_outgoing_id = (self._next_outgoing_id + 1) & MASK
            tail = _tail(sent.format, sent.settled, False)
            self.connection.write(
                encode_transfer(self.channel, link.handle, sent.id, sent.tag, tail, size), sent.payload
            )
            sent.payload = b""
            return True
        if self._emit_parts(link, sent):
            self._partial = link
            return False
        self._partial = None
        sent.payload = b""
        return True

    def emit_settled(self, link: Sender, messages: Sequence[tuple[bytes, bytes]], at: int) -> int:
        """Send settled deliveries, one frame each, from `messages[at]` on: as far as credit and window allow
        and they fit a frame. Returns the place of the first that did not go."""
        end = min(len(messages), at + link.credit_given, at + self.room)
        space = self.connection.send_frame_bytes - SETTLED_OVERHEAD
        frames: list[bytes] = []
        pack, fore, middle, tail = settled_transfers(self.channel, link.handle)
        first = delivery_id = self._next_delivery_id
        for head, body in messages[at:end] if at or end < len(messages) else messages:
            size = len(head) + len(body)
            if size > space:
                break
            tag = delivery_id & MASK
            frames += (pack(size + SETTLED_OVERHEAD, fore, tag, middle, tag, tail), head, body)
            delivery_id += 1
        count = delivery_id - first
        if count:
            self._next_delivery_id = delivery_id & MASK
            self._window -= count
            self._next_outgoing_id = (self._next_outgoing_id + count) & MASK
            link.passed(count)
            self.connection.write(*frames)
        return at + count

    def reopen(self) -> None:
        """There may be room again: send what waits, tell senders that were told of too little credit."""
        if self.state != BEGUN or self._window <= 0:
            return
        if self._partial is not None:
            self._partial.pump()
        for link in list(self.stalled):
            if self.room <= 0:
                break
            link.pump()
            if link in self.stalled:
                self.stalled[link] = self.stalled.pop(link)
        if self.starved and self.room > 0:
            self.starved = False
            for told in self.links:
                if isinstance(told, Sender) and told.credit:
                    self.handler.flow(told)

    def dropped(self, link: Sender) -> None:
        """A sender is gone; nothing more of it goes out."""
        self.stalled.pop(link, None)
        if self._partial is link:
            self._partial = None
        if self.stalled:
            self.reopen()

    def _emit_parts(self, link: Sender, sent: Sent) -> bool:
        """Send frames of a delivery while the window lasts; whether something is left."""
        payload, size = memoryview(sent.payload), len(sent.payload)
        connection = self.connection
        while self._window > 0:
            head = b""
            space = connection.send_frame_bytes - transfer_overhead(sent.tag)
            if sent.state is not None:
                head = _unusual(link.handle, sent, False)
                space = connection.send_frame_bytes - 8 - len(head)
            chunk = payload[sent.sent_bytes : sent.sent_bytes + space]
            sent.sent_bytes += len(chunk)
            more = sent.sent_bytes < size
            self._window -= 1
            self._next_outgoing_id = (self._next_outgoing_id + 1) & MASK
            if head:
                connection.write(
                    frame(AMQP, self.channel, _unusual(link.handle, sent, more), len(chunk)), chunk
                )
            else:
                tail = _tail(sent.format, sent.settled, more)
                head = encode_transfer(self.channel, link.handle, sent.id or 0, sent.tag, tail, len(chunk))
                connection.write(head, chunk)
            if not more:
                return False
        return True

    def _windows(self) -> tuple[int, int, int, int]:
        window = self.connection.limits.incoming_window
        self._incoming_left = window
        return self._next_incoming_id, window, self._next_outgoing_id, window

    def _live(self, first: int, last: int) -> list[Sent]:
        """Unsettled deliveries of the range, oldest first. Cut to what may live, so that a range over
        everything costs no more than there is."""
        outgoing = self.outgoing
        if not outgoing:
            self._oldest = self._next_delivery_id
            return []
        while self._oldest not in outgoing:
            self._oldest = (self._oldest + 1) & MASK
        newest = (self._next_delivery_id - 1) & MASK
        if (last - first) & MASK > HALF:
            return []
        if (first - self._oldest) & MASK > HALF:
            first = self._oldest
        if (newest - last) & MASK > HALF:
            last = newest
        return in_range(outgoing, first, last)

    def _outcomes(self, live: list[Sent], state: State | None, settled: bool) -> None:
        """The peer's word on deliveries of ours."""
        told: dict[Sender, list[Sent]] = {}
        final = state is not None and not isinstance(state, Received)
        for sent in live:
            if settled:
                del self.outgoing[sent.id]  # type: ignore[arg-type]
                sent.link.live -= 1
                sent.settled = True
            if sent.outcome is None and (final or settled):
                sent.outcome = state
                told.setdefault(sent.link, []).append(sent)
        for link, deliveries in told.items():
            self.handler.disposition(link, deliveries, state, settled)
        if settled and (self.starved or self.stalled):
            self.reopen()

    def _ask(self, link: Link, attach: Attach) -> None:
        if (link.name, link.role) in self._asking:
            raise StateError(f"a link named {link.name!r} is being attached already")
        attach.handle = link.handle
        self._enter(link)
        self._asking[link.name, link.role] = link
        self.send(attach)

    def _answered(self, link: Link, attach: Attach) -> None:
        self._by_remote[attach.handle] = link
        link.answered(attach)
        if link.state == ASKING:
            link.state = ATTACHED
            self.handler.attached(link)

    def _enter(self, link: Link) -> None:
        limit = self.connection.limits.links_max
        if self.connection.links >= limit:
            raise ProtocolError(RESOURCE_LIMIT, f"more than {limit} links on one connection")
        self._by_handle[link.handle] = link
        self.connection.links += 1

    def _handle_for(self, wanted: int) -> int:
        """The peer's own number where it can be had: one client finds links by it."""
        if wanted not in self._by_handle and wanted <= self.handle_max:
            return wanted
        for handle in range(min(self.handle_max, len(self._by_handle)) + 1):
            if handle not in self._by_handle:
                return handle
        raise SessionError(RESOURCE_LIMIT, "no handle is free")

    def _handle_for_us(self) -> int:
        if self.state not in (BEGINNING, BEGUN):
            raise StateError("the session has ended")
        if self.connection.links >= self.connection.limits.links_max:
            raise StateError("the connection has all the links it may have")
        try:
            return self._handle_for(len(self._by_handle))
        except SessionError as error:
            raise StateError(error.description) from None

    def _drop_links(self, error: Error | None) -> None:
        links = self.links
        self.connection.links -= len(self._by_handle)
        self._by_remote = {}
        self._by_handle = {}
        self._asking = {}
        for link in links:
            link.state = GONE
            link.forget()
            self.handler.detached(link, error, True)


def _unusual(handle: int, sent: Sent, more: bool) -> bytes:
    """The performative of a transfer that carries a state."""
    return Transfer(handle, sent.id, sent.tag, sent.format, sent.settled, more, state=sent.state).encode()
