"""`Sender.send_settled`: many settled messages at once, against the same sent one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.wire.amqp.errors import StateError
from hubbub.wire.amqp.handler import Limits
from wire.amqp_kit import Notes, linked, pump

PIECES = st.tuples(st.binary(max_size=30), st.binary(max_size=30))
SMALL_FRAMES = Limits(frame_bytes_max=512)


def received(client):
    return [(d.payload, d.settled, d.format) for d in client.deliveries]


@given(
    st.lists(st.tuples(PIECES, st.integers(1, 40)), max_size=12),
    st.integers(0, 20),
    st.integers(1, 8),
    st.sampled_from([0, 0xFFFFFFFA]),
)
def test_they_come_as_if_sent_one_by_one(messages, credit, window, first_id):
    """Large ones take several frames; credit and window let only some go at first."""
    messages = [(head * times, body * times) for (head, body), times in messages]
    client_limits = Limits(incoming_window=window, frame_bytes_max=512)
    s, c, _, cn, _, down = linked(
        client_notes=Notes(credit=0), server={"limits": SMALL_FRAMES, "first_id": first_id},
        client={"limits": client_limits},
    )  # fmt: skip
    receiver = next(link for link in c.sessions[0].links if link.role)
    receiver.grant(credit)
    pump(c, s)
    down.send_settled(messages)
    pump(c, s)
    expected = [(head + body, True, 0) for head, body in messages]
    assert received(cn) == expected[:credit]
    receiver.grant(len(messages) + 5)
    pump(c, s)
    assert received(cn) == expected
    assert down.credit_given == len(messages) + 5 - max(0, len(messages) - credit)
    assert down.unsettled() == []


def test_they_keep_their_turn_behind_what_waits():
    s, c, _, cn, _, down = linked(client_notes=Notes(credit=0))
    down.send(b"first", b"t", settled=True)
    down.send_settled([(b"sec", b"ond"), (b"", b"third")])
    next(link for link in c.sessions[0].links if link.role).grant(10)
    pump(c, s)
    assert [d.payload for d in cn.deliveries] == [b"first", b"second", b"third"]
    down.send_settled([(b"four", b"th")])
    pump(c, s)
    assert cn.deliveries[-1].payload == b"fourth"


def test_not_on_a_link_that_is_gone():
    _, _, _, _, _, down = linked()
    down.detach()
    with pytest.raises(StateError):
        down.send_settled([(b"", b"x")])
