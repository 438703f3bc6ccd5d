"""An AMQP 1.0 connection without I/O: bytes in, events and bytes out (specification part 2.4).

A transport makes a Connection, calls `tick` once and then whenever its deadline has come, passes what it
reads to `receive`, calls `eof` when the peer is gone, and writes what `take` returns whenever `wake` was
called. Once `finished`, it writes what is left and closes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .errors import (
    DECODE_ERROR,
    FRAME_SIZE_TOO_SMALL,
    FRAMING_ERROR,
    ILLEGAL_STATE,
    INVALID_FIELD,
    NOT_ALLOWED,
    RESOURCE_LIMIT,
    UNAUTHORIZED,
    FrameError,
    ProtocolError,
    SessionError,
    StateError,
)
from .frames import (
    AMQP,
    AMQP_HEADER,
    FRAME_BYTES_MIN,
    HEADER,
    HEARTBEAT,
    SASL,
    SASL_FRAME_BYTES_MAX,
    SASL_HEADER,
    Frame,
    FrameReader,
    frame,
)
from .handler import Handler, Limits
from .hot import DISPOSITION, FLOW, TRANSFER, Tails
from .performatives import (
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
    composite,
)
from .sasl import AUTH, MECHANISMS, OK, OPEN_TO_ALL, decode_plain, encode_plain, mechanisms_frame, sasl_frame
from .session import BEGINNING, BEGUN, ENDED, Session
from .types import DecodeError, decode

# START: a header is due. SASL_FRAMES: the peer's next SASL frame. JUDGING: the owner's word on credentials.
# OPENING: headers were exchanged, the peer's open is due. CLOSING: we have sent close. DONE: nothing more.
START, SASL_FRAMES, JUDGING, OPENING, OPENED, CLOSING, DONE = range(7)
_BEAT_MS_MIN = 100
_CHANNEL_MAX = 65535


class Connection:
    """One connection, as the side that answers; `Connection.client` makes the side that asks.

    `mechanism` is the SASL mechanism that succeeded (None without SASL), `user` the user of PLAIN, `peer` the
    peer's open frame (None before), `output_bytes` what waits to be taken, `context` the owner's.
    """

    __slots__ = (
        "_asks", "_beat_at", "_by_channel", "_by_remote", "_closing_at", "_container_id",
        "_credentials", "_early", "_first_id", "_heard", "_heard_at", "_hostname", "_mechanisms",
        "_open_sent", "_output", "_past", "_reader", "_secured", "_sent", "_settling", "_stage",
        "_started_at", "_told", "_unreadable", "_wake", "context", "handler", "limits", "links",
        "mechanism", "output_bytes", "partial_bytes", "peer", "send_frame_bytes", "tails", "user",
        "waiting_bytes",
    )  # fmt: skip

    def __init__(
        self,
        handler: Handler,
        *,
        container_id: str,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        wake: Callable[[], None] = lambda: None,
        mechanisms: Iterable[str] = MECHANISMS,
        first_id: int = 0,
    ) -> None:
        """`wake` is called when there is something to `take` after there was nothing; it must not call back.
        Transfer and delivery ids count from `first_id`."""
        self.handler = handler
        self.limits = limits
        self.context: Any = None
        self.mechanism: str | None = None
        self.user: str | None = None
        self.peer: Open | None = None
        self.links = 0
        self.output_bytes = 0
        self.partial_bytes = 0
        self.waiting_bytes = 0
        self.send_frame_bytes = FRAME_BYTES_MIN
        self.tails = Tails()
        self._container_id = container_id
        self._mechanisms = tuple(mechanisms)
        self._first_id = first_id
        self._wake = wake
        self._hostname: str | None = None
        self._asks = False
        self._credentials: SaslInit | None = None
        self._stage = START
        self._secured = False
        self._open_sent = False
        self._unreadable = False
        self._told: Error | None = None
        self._reader = FrameReader(SASL_FRAME_BYTES_MAX)
        self._output: list[bytes | memoryview] = []
        self._early: list[bytes] = []  # what we ask for before SASL is done
        self._settling: list[Session] = []
        self._by_remote: dict[int, Session] = {}
        self._by_channel: dict[int, Session] = {}
        self._past: set[int] = set()  # the peer's channels that had a session once
        self._heard = self._sent = False
        self._started_at = self._closing_at = -1
        self._heard_at: int = 0
        self._beat_at: int = 0

    @classmethod
    def client(
        cls,
        handler: Handler,
        *,
        container_id: str,
        hostname: str | None = None,
        mechanism: str | None = "ANONYMOUS",
        user: str = "",
        password: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        wake: Callable[[], None] = lambda: None,
        first_id: int = 0,
    ) -> Connection:
        """The side that asks. `mechanism` None leaves SASL out. Sessions and links may be asked for at once.
        There is something to `take` from the beginning."""
        self = cls(handler, container_id=container_id, limits=limits, first_id=first_id)
        self._asks = True
        self._hostname = hostname
        if mechanism is None:
            self._greet()
        else:
            response = encode_plain(user, password) if mechanism == "PLAIN" else b""
            self._credentials = SaslInit(mechanism, response, hostname)
            self.write(SASL_HEADER)
        self._wake = wake
        return self

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, in any splits. Never raises what the peer could cause: a fault closes the
        connection (or session, or link) with the condition the specification names, and events tell."""
        self._heard = True
        if self._stage == DONE or self._unreadable:
            return
        self._reader.feed(data)
        if self._stage == JUDGING:
            if self._reader.held_bytes > self.limits.frame_bytes_max:
                self._fault(RESOURCE_LIMIT, "too many bytes before the credentials were judged")
            return
        self._read()

    def eof(self) -> None:
        """The peer's end of the transport is gone. Links, sessions and connection report their end."""
        self._finish(self._told)

    def take(self) -> bytes:
        """What is to be written, in one piece; b"" if nothing is."""
        self._flush()
        if not self._output:
            return b""
        self._sent = True
        output, self._output = self._output, []
        self.output_bytes = 0
        return b"".join(output)

    @property
    def finished(self) -> bool:
        """Nothing more will come or go: write what `take` has and close the transport."""
        return self._stage == DONE

    @property
    def sessions(self) -> list[Session]:
        """All that stand or are about to."""
        return [session for session in self._by_channel.values() if session.state in (BEGINNING, BEGUN)]

    def tick(self, now: int) -> int:
        """Send heartbeats and end silent connections. `now` in milliseconds of any steady clock. Returns when
        to call again, latest. The first call starts the handshake's time."""
        limits = self.limits
        if self._started_at < 0:
            self._started_at = self._heard_at = self._beat_at = now
        if self._heard:
            self._heard = False
            self._heard_at = now
        if self._stage < OPENED:
            if now >= self._started_at + limits.handshake_ms:
                self._fault(RESOURCE_LIMIT, f"no open within {limits.handshake_ms} ms", unreadable=True)
            return self._started_at + limits.handshake_ms
        if self._stage == OPENED:
            if now >= self._heard_at + 2 * limits.idle_ms:
                self._fault(RESOURCE_LIMIT, f"local idle timeout: no byte for {2 * limits.idle_ms} ms")
            else:
                return min(self._beat(now), self._heard_at + 2 * limits.idle_ms)
        if self._closing_at < 0:
            self._closing_at = now
        elif now >= self._closing_at + limits.close_ms:
            self._finish(self._told)
        return self._closing_at + limits.close_ms

    def authenticated(self, success: bool) -> None:
        """The answer to `Handler.authenticate`. Nothing happens if the connection is gone. Raises StateError
        if there is no question."""
        if self._stage == DONE:
            return
        if self._stage != JUDGING:
            raise StateError("no credentials wait for an answer")
        if success:
            self._secure("PLAIN")
            self._read()
        else:
            self._refuse("the credentials are wrong")

    def begin(self) -> Session:
        """Begin a session; `begun` tells when it stands, but links may be asked for at once. Raises
        StateError if the connection is closing or has no channel free."""
        if self._stage >= CLOSING:
            raise StateError("the connection is closed")
        try:
            session = Session(self, self._channel_for(len(self._by_channel)), self._first_id)
        except ProtocolError as error:
            raise StateError(error.description) from None
        self._by_channel[session.channel] = session
        self.send(session.channel, session.begin_frame())
        return session

    def close(self, condition: str | None = None, description: str = "") -> None:
        """Close, with an error if there is a condition. `closed` comes when the peer has answered or after
        `Limits.close_ms`; links and sessions are reported gone at once. Before open it comes at once."""
        if self._stage < CLOSING:
            self._leave(None if condition is None else Error(condition, description))

    # What follows is for sessions and links.

    def write(self, *parts: bytes | memoryview) -> None:
        """Frames to the peer; dropped when close has been sent."""
        if self._stage < CLOSING:
            output = self._output
            first = not output
            output += parts
            self.output_bytes += sum(map(len, parts))
            if first:
                self._wake()

    def send(self, channel: int, performative: Composite) -> None:
        """One frame. If the peer cannot take one of that size the connection ends."""
        data = frame(AMQP, channel, performative.encode())
        if len(data) > max(self.send_frame_bytes, FRAME_BYTES_MIN) and self.peer is not None:
            self._fault(FRAME_SIZE_TOO_SMALL, f"{performative.NAME} takes {len(data)} bytes")
        elif self._asks and not self._open_sent:
            self._early.append(data)
        else:
            self.write(data)

    def settling(self, session: Session) -> None:
        """The session has dispositions to flush."""
        first = not self._settling and not self._output
        self._settling.append(session)
        if first:
            self._wake()

    # Reading.

    def _read(self) -> None:
        """All whole frames that came."""
        while True:
            try:
                self._frames()
                return
            except ProtocolError as error:
                self._fault(error.condition, error.description, unreadable=isinstance(error, FrameError))
            except DecodeError as error:
                self._fault(DECODE_ERROR, str(error))

    def _frames(self) -> None:
        read = self._reader.next
        by_remote = self._by_remote
        while self._stage != JUDGING and self._stage != DONE and not self._unreadable:
            found = read()
            if found is None:
                return
            kind, channel, data, start, end = found
            if self._stage != OPENED or kind != AMQP:
                self._other(found)
                continue
            if start == end:
                continue
            session = by_remote.get(channel)
            if session is not None and session.state == BEGUN:
                code = data[start : start + 3]
                try:
                    if code == TRANSFER:
                        session.on_transfer(data, start, end)
                    elif code == DISPOSITION:
                        session.on_disposition(data, start, end)
                    elif code == FLOW:
                        session.on_flow(data, start, end)
                    else:
                        self._performative(channel, data, start, end)
                except SessionError as error:
                    session.fail(error)
            else:
                self._performative(channel, data, start, end)

    def _other(self, found: Frame) -> None:
        """Headers, SASL, and AMQP frames before open and after close."""
        kind, _, data, start, end = found
        if kind == HEADER:
            self._on_header(data[start:end])
        elif self._stage == SASL_FRAMES:
            if kind != SASL:
                raise FrameError(f"a frame of type {kind} where SASL is due")
            self._on_sasl(composite(decode(memoryview(data)[:end], start)[0]))
        elif kind != AMQP:
            raise FrameError(f"a frame of type {kind}")
        elif self._stage == OPENING and start < end:
            self._on_first(_composite(data, start, end)[0])
        elif self._stage == CLOSING and data[start : start + 3] in _MAY_BE_CLOSE:
            performative = _composite(data, start, end)[0]
            if isinstance(performative, Close):
                self._finish(self._told or performative.error)

    def _performative(self, channel: int, data: bytes, start: int, end: int) -> None:
        """Any frame of an open connection; the three of `hot.py` come here only if they look unusual."""
        performative, stop = _composite(data, start, end)
        session = self._by_remote.get(channel)
        if isinstance(performative, Begin):
            self._on_begin(channel, performative)
        elif isinstance(performative, Close):
            self._on_close(performative)
        elif isinstance(performative, Open):
            raise ProtocolError(ILLEGAL_STATE, "the connection is open already")
        elif session is None:
            if channel not in self._past:
                raise ProtocolError(NOT_ALLOWED, f"no session has begun on channel {channel}")
        elif isinstance(performative, End):
            self._on_end(session, performative)
        elif session.state == BEGUN:
            try:
                _to_session(session, performative, data[stop:end])
            except SessionError as error:
                session.fail(error)

    # The handshake.

    def _on_header(self, header: bytes) -> None:
        wants_sasl = self._credentials is not None if self._asks else bool(self._mechanisms)
        if header == SASL_HEADER and wants_sasl and not self._secured:
            if not self._asks:
                self.write(SASL_HEADER, mechanisms_frame(self._mechanisms))
            self._stage = SASL_FRAMES
        elif header == AMQP_HEADER and (not self._asks or self._secured or not wants_sasl):
            if not self._asks:
                self.write(AMQP_HEADER)
            self._reader.frame_bytes_max = self.limits.frame_bytes_max
            self._stage = OPENING
        else:
            if not self._asks:
                self.write(SASL_HEADER if wants_sasl and not self._secured else AMQP_HEADER)
            self._finish(Error(FRAMING_ERROR, f"the protocol header {header.hex()} is not spoken here"))

    def _on_sasl(self, performative: Composite) -> None:
        if self._credentials is not None:
            self._on_sasl_answer(performative, self._credentials)
        elif not isinstance(performative, SaslInit):
            raise ProtocolError(ILLEGAL_STATE, f"{performative.NAME} where sasl-init is due")
        elif performative.mechanism not in self._mechanisms:
            self._refuse(f"the mechanism {performative.mechanism!r} was not offered")
        elif performative.mechanism in OPEN_TO_ALL:
            self._secure(performative.mechanism)
        elif performative.mechanism == "PLAIN":
            self.user, password = decode_plain(performative.initial_response)
            self._stage = JUDGING
            self.handler.authenticate(self, "PLAIN", self.user, password)
        else:
            self._refuse(f"the mechanism {performative.mechanism!r} is not possible here")

    def _on_sasl_answer(self, performative: Composite, credentials: SaslInit) -> None:
        if isinstance(performative, SaslMechanisms):
            if credentials.mechanism in (performative.mechanisms or ()):
                self.write(sasl_frame(credentials))
            else:
                self._finish(Error(UNAUTHORIZED, f"the peer does not offer {credentials.mechanism}"))
        elif isinstance(performative, SaslOutcome) and performative.code == OK:
            self.mechanism = credentials.mechanism
            self._secured = self._reader.header_due = True
            self._stage = START
            self._greet()
        elif isinstance(performative, SaslOutcome):
            self._finish(Error(UNAUTHORIZED, f"the peer refused the credentials (code {performative.code})"))
        else:
            raise ProtocolError(ILLEGAL_STATE, f"{performative.NAME} is not due")

    def _secure(self, mechanism: str) -> None:
        self.write(sasl_frame(SaslOutcome(OK)))
        self.mechanism = mechanism
        self._secured = self._reader.header_due = True
        self._stage = START

    def _refuse(self, description: str) -> None:
        self.write(sasl_frame(SaslOutcome(AUTH)))
        self._finish(Error(UNAUTHORIZED, description))

    def _greet(self) -> None:
        early, self._early = self._early, []
        self.write(AMQP_HEADER, self._open_frame(), *early)

    def _open_frame(self) -> bytes:
        limits = self.limits
        self._open_sent = True
        return frame(
            AMQP,
            0,
            Open(
                self._container_id, self._hostname, limits.frame_bytes_max, limits.channel_max, limits.idle_ms
            ).encode(),
        )

    def _on_first(self, performative: Composite) -> None:
        if not isinstance(performative, Open):
            raise ProtocolError(ILLEGAL_STATE, f"{performative.NAME} comes before open")
        size = performative.max_frame_size
        if size is not None and size < FRAME_BYTES_MIN:
            raise ProtocolError(INVALID_FIELD, f"a max-frame-size of {size}, {FRAME_BYTES_MIN} is the least")
        self.peer = performative
        self.send_frame_bytes = min(size or self.limits.frame_bytes_max, self.limits.frame_bytes_max)
        if not self._open_sent:
            self.write(self._open_frame())
        self._stage = OPENED
        self.handler.opened(self)

    # Sessions.

    def _on_begin(self, channel: int, begin: Begin) -> None:
        if channel > self.limits.channel_max:
            raise ProtocolError(FRAMING_ERROR, f"channel {channel}, the highest is {self.limits.channel_max}")
        if channel in self._by_remote:
            raise ProtocolError(ILLEGAL_STATE, f"a session has begun on channel {channel} already")
        if begin.remote_channel is None:
            session = Session(self, self._channel_for(channel), self._first_id)
            self._by_channel[session.channel] = session
        else:
            found = self._by_channel.get(begin.remote_channel)
            if found is None or found.remote_channel is not None:
                raise ProtocolError(
                    NOT_ALLOWED, f"a begin for channel {begin.remote_channel}, where none is due"
                )
            session = found
        self._by_remote[channel] = session
        session.begun(begin, channel)
        if begin.remote_channel is None:
            self.send(session.channel, session.begin_frame())
        if session.state == BEGINNING:
            session.state = BEGUN
            self.handler.begun(session)

    def _on_end(self, session: Session, end: End) -> None:
        before = session.state
        if before == BEGUN:
            session.send(End())
        session.state = ENDED
        channel = session.remote_channel
        if channel is not None:
            self._by_remote.pop(channel, None)
            self._past.add(channel)
        self._by_channel.pop(session.channel, None)
        if before == BEGUN:
            session.drop(end.error)

    def _channel_for(self, wanted: int) -> int:
        """The peer's own number where it can be had."""
        peer = self.peer
        highest = _CHANNEL_MAX if peer is None or peer.channel_max is None else peer.channel_max
        free: Iterable[int] = (wanted, *range(len(self._by_channel) + 1))
        for channel in free:
            if channel not in self._by_channel and channel <= highest:
                return channel
        raise ProtocolError(RESOURCE_LIMIT, "no channel is free")

    # The end.

    def _on_close(self, close: Close) -> None:
        self._flush()
        self.write(frame(AMQP, 0, Close().encode()))
        self._finish(close.error)

    def _fault(self, condition: str, description: str, unreadable: bool = False) -> None:
        """The peer broke the protocol. When nothing more can be read, its close is not waited for in its
        bytes."""
        self._unreadable = self._unreadable or unreadable
        if self._stage < CLOSING:
            self._leave(Error(condition, description))

    def _leave(self, error: Error | None) -> None:
        """Say close; before the protocol allows that word, just finish."""
        self._told = error
        if self._stage < OPENING:
            self._finish(error)
            return
        if not self._open_sent:
            self.write(self._open_frame())
        self._flush()
        self.write(frame(AMQP, 0, Close(error).encode()))
        self._stage = CLOSING
        self._drop(error)

    def _finish(self, error: Error | None) -> None:
        if self._stage != DONE:
            self._stage = DONE
            self._drop(error)
            self.handler.closed(self, error)

    def _drop(self, error: Error | None) -> None:
        """Report the end of all sessions."""
        sessions = self.sessions
        self._by_remote.clear()
        self._by_channel.clear()
        for session in sessions:
            session.state = ENDED
            session.drop(error)

    def _flush(self) -> None:
        for session in self._settling:
            session.flush()
        self._settling.clear()

    def _beat(self, now: int) -> int:
        """A heartbeat if nothing was sent since the last call; calls are half of the allowed silence
        apart."""
        if now >= self._beat_at:
            if not self._sent:
                self.write(HEARTBEAT)
            self._sent = False
            idle = self.peer.idle_time_out if self.peer is not None else None
            silence = min(self.limits.beat_ms, idle // 2) if idle else self.limits.beat_ms
            self._beat_at = now + max(_BEAT_MS_MIN, silence // 2)
        return self._beat_at


_MAY_BE_CLOSE = (b"\x00\x53\x18", b"\x00\x80\x00", b"\x00\xa3\x0f")


def _composite(data: bytes, start: int, end: int) -> tuple[Composite, int]:
    """The performative of a frame and where its payload begins. Raises DecodeError."""
    value, stop = decode(memoryview(data)[:end], start)
    performative = composite(value)
    if stop != end and not isinstance(performative, Transfer):
        raise DecodeError(f"bytes follow {performative.NAME}")
    return performative, stop


def _to_session(session: Session, performative: Composite, payload: bytes) -> None:
    """Unusual forms of the hot performatives are brought into the usual one."""
    if isinstance(performative, Attach):
        session.on_attach(performative)
    elif isinstance(performative, Detach):
        session.on_detach(performative)
    elif isinstance(performative, (Transfer, Disposition, Flow)):
        data = performative.encode() + payload
        read = {Transfer: session.on_transfer, Disposition: session.on_disposition, Flow: session.on_flow}
        read[type(performative)](data, 0, len(data))
    else:
        raise ProtocolError(NOT_ALLOWED, f"{performative.NAME} is no performative of an open connection")
