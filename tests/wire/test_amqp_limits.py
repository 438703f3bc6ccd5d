"""Bounds in number, size and time, and peers that send anything at all."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.errors import StateError
from hubbub.wire.amqp.frames import HEARTBEAT
from hubbub.wire.amqp.handler import Limits
from hubbub.wire.amqp.link import Link
from hubbub.wire.amqp.performatives import (
    RELEASED,
    Flow,
    Source,
    Target,
)
from hubbub.wire.amqp.session import Session
from wire.amqp_kit import Notes, linked, pair, pump

# --- limits


def test_incomplete_deliveries_are_bounded():
    s, c, sn, cn, up, _ = linked(server={"limits": Limits(partial_bytes_max=100_000)})
    up.send(b"x" * 150_000, b"t")
    pump(c, s)
    assert cn.of("detached")[0][2].condition == "amqp:resource-limit-exceeded"
    assert s.partial_bytes == 0


def test_unsettled_deliveries_are_bounded():
    s, c, sn, cn, up, _ = linked(Notes(settle=False), server={"limits": Limits(unsettled_max=5)})
    for _ in range(6):
        up.send(b"x", b"t")
    pump(c, s)
    assert len(sn.deliveries) == 5
    assert cn.of("detached")[0][2].condition == "amqp:resource-limit-exceeded"
    assert s.sessions[0].incoming_unsettled == 0


def test_waiting_deliveries_are_bounded():
    s, c, sn, cn, up, _ = linked(Notes(credit=0), client={"limits": Limits(waiting_bytes_max=100)})
    up.send(b"x" * 60, b"1")
    with pytest.raises(StateError):
        up.send(b"x" * 60, b"2")
    up.send(b"x" * 40, b"2")
    with pytest.raises(ValueError, match="33 bytes"):
        up.send(b"x", b"t" * 33)


@pytest.mark.parametrize("excess", [0, 3])
def test_deliveries_beyond_credit(excess):
    s, c, sn, cn, up, _ = linked(
        Notes(credit=2, keep=False), server={"limits": Limits(credit_excess_max=excess)}
    )
    up.on_flow(Flow(0, 100, 0, 0, None, None, 10_000))  # a client that believes in a credit of its own
    for _ in range(2 + excess):
        up.send(b"x", b"t")
    pump(c, s)
    assert len(sn.deliveries) == 2 + excess
    up.send(b"x", b"t")
    pump(c, s)
    assert cn.of("detached")[0][2].condition == "amqp:link:transfer-limit-exceeded"


def test_the_window_is_kept():
    s, c, sn, cn, up, _ = linked(server={"limits": Limits(incoming_window=4)})
    c.sessions[0]._window = 1000
    for _ in range(6):
        up.send(b"x", b"t")
    s.receive(c.take())
    assert sn.of("ended") == [], "the window is opened again while frames are read"
    s.sessions[0]._incoming_left = 0
    up.send(b"x", b"t")
    pump(c, s)
    assert cn.of("ended")[0][2].condition == "amqp:session:window-violation"


def test_handles_channels_and_links_are_bounded():
    limits = Limits(handle_max=1, channel_max=1, links_max=3)
    s, c, sn, cn = pair(server={"limits": limits})
    session = c.begin()
    pump(c, s)
    links = [session.sender(f"l{i}", Target("q")) for i in range(2)]
    with pytest.raises(StateError, match="no handle is free"):
        session.sender("l2", Target("q"))
    other = c.begin()
    with pytest.raises(StateError, match="no channel is free"):
        c.begin()
    pump(c, s)
    assert all(link.attached for link in links)
    other.sender("a", Target("q"))
    other.sender("b", Target("q"))
    pump(c, s)
    assert cn.of("closed")[0][1].condition == "amqp:resource-limit-exceeded"


@pytest.mark.parametrize(
    ("frame", "condition"),
    [("attach", "amqp:connection:framing-error"), ("begin", "amqp:connection:framing-error")],
)
def test_numbers_beyond_what_was_agreed(frame, condition):
    s, c, sn, cn = pair(server={"limits": Limits(handle_max=1, channel_max=1)})
    session = c.begin()
    pump(c, s)
    session.handle_max = 99
    c.peer.channel_max = 99
    if frame == "attach":
        links = [session.sender(f"l{i}", Target("q")) for i in range(3)]
        assert links[2].handle == 2
    else:
        assert [c.begin().channel for _ in range(2)] == [1, 2]
    pump(c, s)
    assert cn.of("closed")[0][1].condition == condition


def test_a_frame_too_large_for_the_peer():
    s, c, sn, cn = pair(client={"limits": Limits(frame_bytes_max=512)})
    c.begin().receiver("x" * 300, Source("y" * 100))
    pump(c, s)
    assert sn.of("attach")
    s.sessions[0].links[0].detach("a:b", "z" * 600)
    pump(c, s)
    assert cn.of("closed")[0][1].condition == "amqp:frame-size-too-small"


# --- time


def test_heartbeats():
    s, *_ = pair(client={"limits": Limits(idle_ms=10_000)})
    now, said = s.tick(1000), [1000]
    while now < 100_000:
        due = s.tick(now)
        if data := s.take():
            assert data == HEARTBEAT
            said.append(now)
        now = due
    gaps = [b - a for a, b in itertools.pairwise(said)]
    assert 2000 < max(gaps) <= 5000, "within half of the peer's idle time, and not much more often"
    assert len(gaps) < 50


def test_silence():
    s, c, sn, cn = pair(server={"limits": Limits(idle_ms=4_000)})
    for now in (1000, 8999):
        s.tick(now)
        c.receive(s.take())
    assert "closed" not in cn.names()
    s.tick(9000)
    c.receive(s.take())
    assert cn.of("closed")[0][1].condition == "amqp:resource-limit-exceeded"


def test_a_talking_peer_is_never_idle():
    s, c, sn, cn = pair(server={"limits": Limits(idle_ms=4_000)})
    now = 0
    for _ in range(50):
        now = s.tick(now)
        s.receive(HEARTBEAT)
    assert not s.finished
    assert "closed" not in sn.names()


def test_a_handshake_that_never_ends():
    s, *_ = new()
    assert s.tick(0) == 60_000
    s.receive(b"AMQP\x03\x01")
    s.tick(60_000)
    assert s.finished


def test_a_close_that_is_never_answered():
    s, c, sn, cn, up, down = linked()
    s.close("amqp:connection:forced", "bye")
    assert sn.names()[-3:] == ["detached", "detached", "ended"]
    due = s.tick(0)
    assert not s.finished
    s.tick(due)
    assert s.finished
    assert sn.events[-1][1].condition == "amqp:connection:forced"


def new():
    notes = Notes()
    return Connection(notes, container_id="s"), notes


# --- anything


BEGINNINGS = [b"", b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00"]


@given(st.binary(max_size=200), st.integers(0, 3), st.booleans())
@settings(max_examples=400, deadline=None)
def test_random_bytes_never_raise(data, prefix, asks):
    s, notes = new()
    if asks:
        s = Connection.client(notes, container_id="c", mechanism=None if prefix > 1 else "ANONYMOUS")
        s.begin().sender("x", Target("q"))
    s.receive([*BEGINNINGS, OPENED][prefix])
    s.receive(data)
    s.take()
    s.tick(0)
    s.eof()
    assert notes.over == 1
    assert notes.open_links == (-1 if asks else 0), "its own link is asked for, and reported gone"


def life():
    """All bytes of a client's life with links each way, messages large and small, settlements and drains."""
    parts = []
    s, c, sn, cn = pair(mechanism=None)
    session = c.begin()
    up, theirs = session.sender("up", Target("q")), session.receiver("down", Source("q"))

    def turn():
        data = c.take()
        parts.append(data)
        s.receive(data)
        c.receive(s.take())

    turn()
    for i in range(3):
        up.send(b"x" * [3, 700, 70_000][i], b"%d" % i)
        next(link for link in sn.links if not link.role).send(b"y", b"z%d" % i)
        turn()
    theirs.drain()
    turn()
    up.detach()
    session.end()
    turn()
    c.close()
    turn()
    return b"".join(parts)


LIFE = life()
OPENED = b"AMQP\x00\x01\x00\x00" + b"\x00\x00\x00\x11\x02\x00\x00\x00\x00\x53\x10\xc0\x04\x01\xa1\x01x"


@given(
    st.lists(st.tuples(st.integers(0, 1200), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
    st.integers(1, 5000),
)
@settings(max_examples=300, deadline=None)
def test_a_life_with_some_bytes_changed_never_raises(changes, piece):
    data = OPENED + LIFE
    for at, new_bytes, gone in changes:
        data = data[:at] + new_bytes + data[at + gone :]
    s, notes = new()
    for at in range(0, min(len(data), 20_000), piece):
        s.receive(data[at : at + piece])
        if at % 3 == 0:
            s.take()
    s.take()
    s.eof()
    assert notes.over == 1
    assert notes.open_links == 0
    assert s.partial_bytes == s.waiting_bytes == 0


class Wild(Notes):
    """Does anything at all from inside any event."""

    def __init__(self, chance):
        super().__init__(answer=False, settle=False, credit=0)
        self.chance = chance

    def note(self, name, *rest):
        super().note(name, *rest)
        subject = rest[0] if rest else None
        try:
            if isinstance(subject, Link):
                self.act(subject)
            elif isinstance(subject, Session) and self.chance.random() < 0.2:
                subject.end("test:whim")
        except StateError:
            pass

    def act(self, link):
        whim = self.chance.randrange(40)
        if link.state == 0:
            link.refuse("test:no") if whim < 4 else link.accept()
            self.open_links -= whim < 4
        if whim == 0:
            link.session.connection.close("test:whim")
        elif whim == 1:
            link.session.end()
        elif whim == 2 and link.attached:
            self.open_links -= 1
            link.detach("test:whim")
        elif link.role:
            link.grant(self.chance.randrange(5), keep=whim % 2 == 0)
            link.settle(self.deliveries)
            if whim < 8:
                link.drain()
        else:
            sent = link.send(b"x" * self.chance.choice([1, 2000]), b"t", settled=whim > 30)
            link.settle(sent, RELEASED)
            link.drained()
            if whim < 9:
                link.withdraw()


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_an_owner_may_do_anything_from_inside_an_event(seed):
    chance = random.Random(seed)
    limits = Limits(frame_bytes_max=512, incoming_window=4, unsettled_max=20)
    notes = Wild(chance), Wild(chance)
    s = Connection(notes[0], container_id="s", limits=limits)
    c = Connection.client(notes[1], container_id="c", limits=limits, mechanism=None)
    asked = 0
    for _ in range(30):
        try:
            session = chance.choice(c.sessions) if c.sessions and chance.random() < 0.7 else c.begin()
            name = f"l{chance.randrange(10**9)}"
            session.sender(name, Target("q")) if chance.random() < 0.5 else session.receiver(
                name, Source("q")
            )
            asked += 1
        except StateError:
            pass
        for a, b in ((c, s), (s, c)):
            data = a.take()
            cut = chance.randint(0, len(data))
            b.receive(data[:cut])
            b.receive(data[cut:])
    for end in (s, c):
        end.eof()
        end.eof()
    for end, told in zip((s, c), notes, strict=True):
        assert told.over == 1
        assert told.names()[-1] == "closed"
        assert end.links == end.partial_bytes == end.waiting_bytes == 0
    gone = [event[1] for event in notes[0].of("detached")]
    assert len(gone) == len(set(map(id, gone))), "no link ends twice"
