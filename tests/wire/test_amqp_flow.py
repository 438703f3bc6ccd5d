"""Credit, windows, drains, sizes and ids: both ends of the library joined in memory, cut at random places.

The receiving end is strict (no delivery beyond credit, no frame beyond the window: either would end the link or
the session, and the test sees it), so what the sending end does is judged by the other.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubbub.wire.amqp.errors import StateError
from hubbub.wire.amqp.frames import frame
from hubbub.wire.amqp.handler import Limits
from hubbub.wire.amqp.performatives import (
    ACCEPTED,
    RELEASED,
    Accepted,
    Attach,
    Disposition,
    Error,
    Flow,
    Modified,
    Rejected,
    Released,
    Source,
    Target,
    TransactionalState,
    Transfer,
)
from wire.amqp_kit import Notes, frames, linked, pair, pump

STRICT = Limits(credit_excess_max=0)
OUTCOMES = [ACCEPTED, RELEASED, Rejected(Error("a:b", "c")), Modified(True, False), Modified(None, True)]


class Busy(Notes):
    """Settles some time later, in any order, and answers outcomes that want an answer."""

    def __init__(self, chance, credit):
        super().__init__(credit=credit, settle=False)
        self.chance = chance
        self.open = []
        self.told = []
        self.got = []

    def delivery(self, link, delivery):
        self.got.append((link.name, delivery.payload, delivery.tag, delivery.format))
        if delivery.settled:
            return
        self.open.append((link, delivery))

    def disposition(self, link, deliveries, state, settled):
        for sent in deliveries:
            self.told.append((link.name, sent.tag, state))
        if not settled:
            link.settle(deliveries, state)

    def work(self):
        self.chance.shuffle(self.open)
        for _ in range(self.chance.randint(0, len(self.open))):
            link, delivery = self.open.pop()
            link.settle(delivery, OUTCOMES[delivery.tag[-1] % len(OUTCOMES)])


def traffic(seed, credit, window, frame_bytes, first_id, count, unsettled=10_000):
    """Messages of all sizes over two links each way at once; what was sent and what came, per direction."""
    chance = random.Random(seed)
    limits = replace(
        STRICT, incoming_window=window, frame_bytes_max=frame_bytes, unsettled_max=unsettled,
        credit_excess_max=0, handle_max=9,
    )  # fmt: skip
    ends = Busy(chance, credit), Busy(chance, credit)
    options = {"limits": limits, "first_id": first_id}
    s, c, *_ = pair(*ends, server=options, client=options)
    session = c.begin()
    senders = [session.sender(f"up{i}", Target("q"), initial_delivery_count=first_id) for i in (0, 1)]
    for i in (0, 1):
        session.receiver(f"down{i}", Source("q"))
    pump(c, s)
    back = [link for link in ends[0].links if not link.role]
    sent = {0: [], 1: []}
    todo = [(0, link) for link in senders] * count + [(1, link) for link in back] * count
    chance.shuffle(todo)

    def cut(size):
        return chance.choice([1, 7, 100, size])

    for number, (side, link) in enumerate(todo):
        size = chance.choice([0, 1, 10, frame_bytes - 60, frame_bytes, 3 * frame_bytes])
        tag = number.to_bytes(4, "big")
        payload = bytes([number % 256]) * size
        settled = chance.random() < 0.2
        link.send(payload, tag, format=number, settled=settled)
        sent[side].append((link.name, payload, tag, number, settled))
        if chance.random() < 0.3:
            pump(c, s, cut)
            ends[chance.randint(0, 1)].work()
    for _ in range(10 * count + 100):
        pump(c, s, cut)
        for end in ends:
            end.work()
    return s, c, ends, sent


@given(
    st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 12), st.sampled_from([512, 600, 2000]),
    st.sampled_from([0, 2**32 - 5, 2**31 - 3]), st.sampled_from([3, 10_000]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
@example(1, 1, 1, 512, 2**32 - 5, 3)
def test_nothing_is_lost_doubled_or_out_of_order(seed, credit, window, frame_bytes, first_id, unsettled):
    s, c, ends, sent = traffic(seed, credit, window, frame_bytes, first_id, 8, unsettled)
    for end in ends:
        assert not {"detached", "ended", "closed"} & set(end.names()), "neither credit nor window was overrun"
    for side, end in ((0, ends[0]), (1, ends[1])):
        for name in {m[0] for m in sent[side]}:
            assert [g for g in end.got if g[0] == name] == [m[:4] for m in sent[side] if m[0] == name]
        told = ends[1 - side].told
        assert sorted((n, t) for n, t, _ in told) == sorted((m[0], m[2]) for m in sent[side] if not m[4])
        for _, tag, state in told:
            assert state == OUTCOMES[tag[-1] % len(OUTCOMES)]
    for connection in (s, c):
        assert connection.waiting_bytes == connection.partial_bytes == 0
        assert all(not session.outgoing and not session.incoming_unsettled for session in connection.sessions)


# --- settlement


def test_settlements_of_one_read_make_one_range():
    s, c, sn, cn, up, _ = linked(Notes(credit=1000))
    for i in range(300):
        up.send(b"x", b"%d" % i)
    s.receive(c.take())
    found = [f for _, f, _ in frames(s.take()) if isinstance(f, Disposition)]
    assert found == [Disposition(True, 0, 299, True, ACCEPTED)]


def test_settlements_of_unlike_outcome_or_gaps_make_several():
    s, c, sn, cn, up, _ = linked(Notes(settle=False))
    for i in range(8):
        up.send(b"x", b"%d" % i)
    s.receive(c.take())
    link, got = sn.links[0], sn.deliveries
    link.settle(got[0:2])
    link.settle(got[2], RELEASED)
    link.settle([got[4], got[5], got[5]])
    link.settle([got[3], got[7]])
    link.settle(got)
    found = [(f.first, f.last, type(f.state)) for _, f, _ in frames(s.take()) if isinstance(f, Disposition)]
    a, r = Accepted, Released
    assert found == [(0, 1, a), (2, 2, r), (4, 5, a), (3, 3, a), (7, 7, a), (6, 6, a)]


def test_an_outcome_is_told_once_and_answered_in_kind():
    s, c, sn, cn, _, down = linked(client_notes=Notes(settle=False))
    sent = [down.send(b"x", b"%d" % i, context=i) for i in range(4)]
    pump(c, s)
    outcome = Modified(True, None)
    for first, last, state in ((1, 2, outcome), (0, 3, ACCEPTED), (0, 3, ACCEPTED)):
        c.sessions[0].send(Disposition(True, first, last, False, state))
    pump(c, s)
    told = [(event[2], event[3], event[4]) for event in sn.of("disposition")]
    assert told == [(sent[1:3], outcome, False), ([sent[0], sent[3]], ACCEPTED, False)]
    assert [one.outcome for one in sent] == [ACCEPTED, outcome, outcome, ACCEPTED]
    down.settle(sent[1:3], outcome)
    down.settle(sent[1:3], outcome)
    assert [f for _, f, _ in frames(s.take())] == [Disposition(False, 1, 2, True, outcome)]
    assert down.unsettled() == [sent[0], sent[3]]


def test_ranges_over_everything_cost_what_lives():
    s, c, sn, cn, _, down = linked(client_notes=Notes(settle=False, credit=100))
    kept = [down.send(b"x", b"%d" % i) for i in range(100)]
    pump(c, s)
    link = next(link for link in c.sessions[0].links if link.role)
    link.settle(cn.deliveries[10:90])
    pump(c, s)
    session = c.sessions[0]
    for first, last in ((0, 2**31 - 1), (2**31 + 7, 5), (95, 20), (200, 2**30), (2**32 - 9, 99)):
        session.send(Disposition(True, first, last, False, RELEASED))
        pump(c, s)
    told = [sent for event in sn.of("disposition") for sent in event[2]]
    assert told == kept[10:90] + kept[:10] + kept[90:]
    assert down.unsettled() == kept[:10] + kept[90:]
    down.settle(down.unsettled(), RELEASED)
    assert down.unsettled() == []


class Touched(dict):
    """Counts what is looked at."""

    touched = 0

    def __contains__(self, key):
        self.touched += 1
        return super().__contains__(key)

    def items(self):
        self.touched += len(self)
        return super().items()


def test_ranges_touch_no_more_than_lives():
    s, c, sn, cn, _, down = linked(client_notes=Notes(credit=6000))
    for i in range(5001):
        down.send(b"x", b"%d" % i)
    session = s.sessions[0]
    beyond = (5001, 2**30, 0), (2**32 - 2**30, 2**32 - 1, 0)
    session.outgoing = Touched(session.outgoing)
    for first, last, live in beyond:
        assert len(session._live(first, last)) == live
        assert session.outgoing.touched <= 4, "not even looked for"
    session._outcomes(session._live(1, 4990), ACCEPTED, True)
    assert len(session.outgoing) == 11
    for first, last, live in ((0, 2**31 - 1, 11), *beyond, (10, 4980, 0)):
        session.outgoing.touched = 0
        assert len(session._live(first, last)) == live
        assert session.outgoing.touched <= 40


def test_the_sender_may_settle_first():
    s, c, sn, cn, up, _ = linked(Notes(settle=False, credit=4))
    sent = [up.send(b"x", b"%d" % i) for i in range(4)]
    pump(c, s)
    up.settle(sent, None)
    pump(c, s)
    assert all(delivery.settled for delivery in sn.deliveries)
    assert up.credit == 4, "what was settled no longer takes credit"
    sn.links[0].settle(sn.deliveries)
    assert s.take() == b""


def test_transactional_states_go_along_and_come_back():
    s, c, sn, cn, up, _ = linked(Notes(settle=False))
    state = TransactionalState(b"txn")
    up.send(b"y" * 100_000, b"1", state=state)
    pump(c, s)
    assert (sn.deliveries[0].state, len(sn.deliveries[0].payload)) == (state, 100_000)
    sn.links[0].settle(sn.deliveries[0], TransactionalState(b"txn", ACCEPTED))
    pump(c, s)
    assert cn.outcomes[0][1] == TransactionalState(b"txn", ACCEPTED)


# --- credit and drain


def test_credit_is_a_total():
    s, c, sn, cn, up, _ = linked(Notes(credit=5, keep=False))
    for grant, left in ((None, 5), (30, 30), (3, 3), (0, 0)):
        if grant is not None:
            sn.links[0].grant(grant)
            pump(c, s)
        assert up.credit == left
    sn.links[0].grant(2)
    pump(c, s)
    for _ in range(2):
        up.send(b"x", b"t")
    sn.links[0].grant(5)
    c.receive(s.take())  # this grant crosses the two on their way: they count against it
    assert up.credit == 3
    pump(c, s)
    assert (up.credit, sn.links[0].credit) == (3, 3)


def test_kept_credit_follows_settlement():
    s, c, sn, cn, up, _ = linked(Notes(credit=10, keep=True, settle=False))
    for i in range(25):
        up.send(b"x", b"%d" % i)
    pump(c, s)
    assert len(sn.deliveries) == 10
    sn.links[0].settle(sn.deliveries[:4])
    pump(c, s)
    assert len(sn.deliveries) == 10, "less than half is free"
    sn.links[0].settle(sn.deliveries[4])
    pump(c, s)
    assert len(sn.deliveries) == 15


def test_drain():
    s, c, sn, cn, _, down = linked(client_notes=Notes(credit=20, keep=False))
    theirs = next(link for link in c.sessions[0].links if link.role)
    down.send(b"a", b"1")
    theirs.drain()
    s.receive(c.take())
    assert down.draining
    assert down.credit == 19
    down.send(b"b", b"2")
    down.drained()
    found = [f for _, f, _ in frames(s.take())]
    assert [type(f) for f in found] == [Transfer, Transfer, Flow]
    assert (found[2].link_credit, found[2].delivery_count, found[2].drain) == (0, 20, True)
    assert not down.draining
    assert down.credit == 0
    down.drained()
    assert s.take() == b""


def test_drain_is_told_to_who_asked():
    s, c, sn, cn, _, down = linked(client_notes=Notes(credit=20, keep=False))
    theirs = next(link for link in c.sessions[0].links if link.role)
    theirs.drain()
    pump(c, s)
    down.drained()
    cn.events.clear()
    pump(c, s)
    assert cn.events == [("flow", theirs)]
    assert theirs.credit == 0


def test_drain_waits_for_what_waits():
    s, c, sn, cn, _, down = linked(
        client_notes=Notes(credit=50, keep=False), client={"limits": Limits(incoming_window=4)}
    )
    theirs = next(link for link in c.sessions[0].links if link.role)
    for i in range(7):
        down.send(b"x", b"%d" % i)
    theirs.drain()
    s.receive(c.take())
    down.drained()
    assert down.draining
    c.sessions[0].send(Flow(4, 4, 0, 9))
    s.receive(c.take())
    kinds = [type(f) for _, f, _ in frames(s.take())]
    assert kinds == [Transfer] * 7 + [Flow]
    assert not down.draining


def test_credit_tells_how_many_go_at_once():
    s, c, sn, cn, _, down = linked(
        client_notes=Notes(credit=50, keep=False), client={"limits": Limits(incoming_window=4)}
    )
    assert down.credit == 4
    for i in range(6):
        down.send(b"x", b"%d" % i)
    assert down.credit == 0
    sn.events.clear()
    pump(c, s)
    assert ("flow", down) in sn.events
    assert down.credit > 0
    assert len(cn.deliveries) == 6


def windowed(**limits):
    """A sender with credit 50 and a window of 4 frames; its peer is played by hand from here on."""
    s, c, sn, cn, _, down = linked(
        client_notes=Notes(credit=50, keep=False),
        client={"limits": Limits(incoming_window=4)},
        server={"limits": Limits(**limits)},
    )

    def open_window(seen, window=4):
        s.receive(frame(0, 0, Flow(seen, window, 0, 9).encode()))
        return sent_by(s)

    sn.events.clear()
    return s, sn, down, open_window


def sent_by(connection):
    return [f for _, f, _ in frames(connection.take()) if isinstance(f, Transfer)]


def test_a_sender_told_of_less_hears_of_more():
    s, sn, down, open_window = windowed()
    assert down.credit == 4
    down.send(b"x", b"t")
    open_window(1)
    assert sn.events == [("flow", down)]
    assert down.credit == 4


@pytest.mark.parametrize(("size", "frames_due"), [(1, 5), (200_000, 20), (150_000, 15), (350_000, 30)])
def test_a_sender_whose_messages_waited_hears_when_they_are_gone(size, frames_due):
    s, sn, down, open_window = windowed()
    for _ in range(5):
        down.send(b"x" * size, b"t")
    seen = len(sent_by(s))
    assert seen == 4
    while sn.events == []:
        seen += len(open_window(seen))
        assert seen <= frames_due
    assert seen == frames_due
    open_window(seen)
    assert down.credit == 4


def test_a_sender_with_too_much_unsettled_hears_when_some_is_settled():
    s, sn, down, open_window = windowed(unsettled_max=2)
    one, _ = down.send(b"x", b"1"), down.send(b"x", b"2")
    assert down.credit == 0
    down.settle(one, ACCEPTED)
    assert sn.events == [("flow", down)]
    assert down.credit == 1


def test_links_take_turns_and_never_mix_frames_of_two_deliveries():
    s, sn, down, open_window = windowed()
    s.receive(frame(0, 0, Attach("second", 5, True, source=Source("q"), target=Target()).encode()))
    s.receive(frame(0, 0, Flow(0, 4, 0, 9, 5, 0, 50).encode()))
    second = next(link for link in s.sessions[0].links if link.name == "second")
    s.take()
    for size in (300_000, 1, 1, 1):
        down.send(b"x" * size, b"t")
    for _ in range(4):
        second.send(b"y", b"t")
    handles, seen = [f.handle for f in sent_by(s)], 4
    while len(handles) < 5 + 3 + 4:
        (found,) = open_window(seen, 1)
        handles.append(found.handle)
        seen += 1
    a, b = down.handle, second.handle
    assert handles[:5] == [a] * 5, "the large one is not interrupted"
    assert handles[5:] in ([b, a] * 3 + [b], [a, b] * 3 + [b])


def test_withdraw_takes_back_what_was_not_begun():
    s, c, sn, cn, _, down = linked(client_notes=Notes(credit=3, keep=False))
    sent = [down.send(b"x", b"%d" % i) for i in range(5)]
    assert down.withdraw() == sent[3:]
    assert s.waiting_bytes == 0
    pump(c, s)
    assert len(cn.deliveries) == 3
    assert down.withdraw() == []


def test_early_credit_is_told_at_accept():
    s, c, sn, cn = pair(Notes(answer=False))
    c.begin().receiver("r", Source("q"))
    pump(c, s)
    link = sn.links[0]
    c.sessions[0].send(Flow(0, 100, 0, 100, 0, None, 7))
    pump(c, s)
    assert sn.of("flow") == []
    link.accept()
    assert sn.of("flow") == [("flow", link)]
    assert link.credit == 7
    with pytest.raises(StateError):
        link.accept()
    with pytest.raises(StateError):
        link.refuse("a:b")


def test_held_back_attach_of_a_client_that_leaves():
    s, c, sn, cn = pair(Notes(answer=False))
    link = c.begin().receiver("r", Source("q"))
    pump(c, s)
    link.detach()
    pump(c, s)
    theirs = sn.links[0]
    assert [event[1] for event in sn.of("detached")] == [theirs]
    assert theirs.accept() is False
    assert theirs.refuse("a:b") is False
    with pytest.raises(StateError):
        theirs.send(b"x", b"t")
    assert s.take() == b""
    assert s.links == c.links == 0


# --- messages of many frames


def test_aborted_deliveries_leave_nothing():
    s, c, sn, cn, up, _ = linked()
    session = c.sessions[0]
    for f, payload in (
        (Transfer(up.handle, 0, b"t", 0, more=True), b"abc"),
        (Transfer(up.handle, None, None, None, more=True), b"def"),
        (Transfer(up.handle, aborted=True), b""),
        (Transfer(up.handle, 1, b"u", 0, more=True), b"gh"),
        (Transfer(up.handle), b"i"),
    ):
        data = f.encode() + payload
        s.receive(
            (len(data) + 8).to_bytes(4, "big") + b"\x02\x00" + session.channel.to_bytes(2, "big") + data
        )
    assert [d.payload for d in sn.deliveries] == [b"ghi"]
    assert s.partial_bytes == 0


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("size", [1001, 70_000, 300_000])
def test_too_large_messages_are_rejected(size, settled):
    """Who sends settled hears of it by the end of the link alone."""

    class Small(Notes):
        def attach(self, link):
            self.links.append(link)
            self.open_links += 1
            self.accept(link, max_message_size=1000)

    s, c, sn, cn = pair(Small())
    up = c.begin().sender("up", Target("q"))
    pump(c, s)
    assert up.max_message_size == 1000
    up.send(b"x" * 1000, b"1")
    large = up.send(b"x" * size, b"2", settled=settled)
    up.send(b"x", b"3")
    pump(c, s)
    assert s.partial_bytes == 0
    if settled:
        assert len(sn.deliveries) == 1
        assert cn.of("detached")[0][2].condition == "amqp:link:message-size-exceeded"
        assert s.links == c.links == 0
        return
    assert [len(d.payload) for d in sn.deliveries] == [1000, 1]
    assert large.outcome.error.condition == "amqp:link:message-size-exceeded"
    assert f"size:{size} bytes" in large.outcome.error.description
    assert up.attached
