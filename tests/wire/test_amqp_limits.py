"""Bounds in number, size and time, and peers that send anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.errors import StateError
from hubbub.wire.amqp.frames import HEARTBEAT
from hubbub.wire.amqp.handler import Limits
from hubbub.wire.amqp.performatives import (
    Flow,
    Source,
    Target,
)
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


def test_heartbeats_and_silence():
    s, c, sn, cn = pair(client={"limits": Limits(idle_ms=10_000)}, server={"limits": Limits(idle_ms=4_000)})
    now, quiet, last, due = 1000, 0, 1000, s.tick(1000)
    for _ in range(40):
        now = due
        assert s.tick(now) >= now
        due = s.tick(now)
        data = s.take()
        c.receive(data)
        if "closed" in cn.names():
            break
        if data:
            assert data == HEARTBEAT
            quiet, last = max(quiet, now - last), now
    assert quiet <= 5000, "half of the peer's idle time"
    assert 9000 <= now <= 9000 + 5000, "twice our idle time"
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


@given(st.binary(max_size=200), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_random_bytes_never_raise(data, prefix):
    s, notes = new()
    s.receive([b"", b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00", OPENED][prefix])
    s.receive(data)
    s.take()
    s.tick(0)
    s.eof()
    assert notes.over == 1
    assert notes.open_links == 0


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
