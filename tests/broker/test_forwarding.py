"""Auto-forwarding: where messages go, what they are there, and that each is in one place whatever happens.

The clock is jumped. The last tests play random lives on both engines, with restarts and failing disks.
"""

from __future__ import annotations

import asyncio

import pytest

from broker.jumped import Piecemeal, World
from hubbub.broker.entity import FOREVER, Queue, Topic
from hubbub.broker.errors import Disabled, Forwards, Invalid, NotFound
from hubbub.broker.forwarding import BATCH, DIRECT_MAX, HOPS_MAX, RETRY
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.file import FileEngine
from hubbub.engine.log import Full
from hubbub.engine.memory import MemoryEngine


def story(act):
    async def main():
        world = World(MemoryEngine())
        await act(world)
        await world.engine.close()

    asyncio.run(main())


DEAD = "/$deadletterqueue"


def test_a_message_is_at_its_target_when_its_sender_hears_of_it():
    async def act(w):
        await w.queue("b")
        await w.queue("a", "b")
        await w.send("b", "before")
        await w.send("a", "x", "y", message_id="m", session_id="s", partition_key="s", annotations=b"n")
        assert w.bodies("b") == ["before", "x", "y"]
        counts = w.ns.counts("a")
        assert (counts.active, counts.transfer, counts.size_bytes) == (0, 0, 0)
        first, second = w.ns.receivers["b"].peek(2, 2)
        assert (first.sequence, first.message.enqueued_sequence) == (2, 1)
        assert (second.sequence, second.message.enqueued_sequence) == (3, 2)
        assert (first.message.message_id, first.message.session_id) == ("m", "s")
        assert (first.message.annotations, first.enqueued, first.deliveries) == (b"n", w.clock.now(), 0)
        await w.send("a", "z")
        assert w.ns.receivers["b"].peek(4, 1)[0].message.enqueued_sequence == 3

    story(act)


@pytest.mark.parametrize("address", ["B", "sb://ns.servicebus.windows.net/b", "https://localhost:1/b/"])
def test_targets_are_names_or_addresses(address):
    async def act(w):
        await w.queue("b")
        entity = await w.queue("a", address)
        assert entity.forward_to == address
        await w.send("a", "x")
        assert w.bodies("b") == ["x"]

    story(act)


def test_subscriptions_forward_their_copies_to_queues_and_topics():
    async def act(w):
        for topic in ("t", "u"):
            await w.ns.create(Topic(path=topic))
        await w.queue("q")
        await w.subscription("u", "s")
        await w.subscription("u", "all", "q")
        await w.subscription("t", "s", "u")
        await w.subscription("t", "plain")
        await w.send("u", "first")
        await w.send("t", "x")
        assert w.bodies("t/subscriptions/plain") == ["x"]
        assert w.bodies("u/subscriptions/s") == w.bodies("q") == ["first", "x"]
        copy = w.ns.receivers["q"].peek(2, 1)[0]
        assert copy.message.enqueued_sequence == 1
        assert copy.message.hops == 2

    story(act)


def test_two_ways_to_one_target_are_two_copies():
    async def act(w):
        await w.ns.create(Topic(path="t"))
        await w.queue("q", default_ttl=10**7)
        await w.subscription("t", "one", "q")
        await w.subscription("t", "two", "q")
        await w.send("t", "x", "y")
        assert sorted(w.bodies("q")) == ["x", "x", "y", "y"]
        await w.later(10**7)
        assert await w.receive("q") is None
        assert w.ns.counts("q").size_bytes == 0

    story(act)


def test_duplicates_are_dropped_where_they_are_looked_for():
    async def act(w):
        await w.queue("b", requires_duplicate_detection=True)
        await w.queue("a", "b")
        await w.queue("c", "b", requires_duplicate_detection=True)
        for path in ("a", "c", "b", "c"):
            await w.send(path, path, message_id="same")
        assert w.bodies("b") == ["a"]
        assert w.ns.counts("a").active == w.ns.counts("c").active == 0

    story(act)


def test_times_to_live_end_by_the_shortest_on_the_way():
    async def act(w):
        await w.queue("c", default_ttl=10**8)
        await w.queue("b", "c", default_ttl=5000)
        await w.queue("a", "b")
        await w.send("a", "x", ttl=10**7)
        await w.later(4999)
        assert w.bodies("c") == ["x"]
        await w.later(1)
        assert w.bodies("c") == []

    story(act)


def test_scheduled_messages_go_when_they_are_due():
    async def act(w):
        await w.queue("b")
        await w.queue("a", "b")
        await w.send("a", "later", scheduled=w.clock.now() + 5000)
        await w.send("a", "now")
        assert w.bodies("b") == ["now"]
        counts = w.ns.counts("a")
        assert (counts.scheduled, counts.active, counts.transfer) == (1, 0, 0)
        await w.later(5000)
        assert w.bodies("b") == ["now", "later"]
        assert w.bodies("a") == []
        assert w.ns.receivers["b"].peek(2, 1)[0].message.enqueued_sequence == 1
        assert w.ns.receivers["b"].peek(2, 1)[0].enqueued == w.clock.now()

    story(act)


def test_what_is_there_goes_when_forwarding_is_set_and_stays_when_it_is_taken_away():
    async def act(w):
        await w.queue("b")
        await w.queue("a", lock_duration=5000)
        await w.send("a", *map(str, range(2 * BATCH + 3)))
        await w.send("a", "deferred")
        locked, lapsing = await w.receive("a"), await w.receive("a")
        deferred = w.ns.receivers["a"].peek(0, 1000)[-1].sequence
        while (last := await w.receive("a")).sequence != deferred:
            await w.settle("a", "give_back", last)
            break
        waiting = asyncio.ensure_future(w._call(w.ns.receiver("b").receive, False, w.clock.now() + 60_000))
        await w.quiet()
        await w.change("a", forward_to="b")
        await w.quiet()
        assert (await waiting).message.payload == b"2"
        assert w.bodies("a") == ["0", "1"]
        assert w.bodies("b") == [*map(str, range(3, 2 * BATCH + 3)), "deferred"]
        with pytest.raises(Forwards):
            await w.receive("a")
        await w.settle("a", "complete", locked)
        await w.later(5000)
        assert w.bodies("a") == []
        assert w.bodies("b")[-1] == "1"
        assert w.ns.receivers["b"].peek(0, 1000)[-1].deliveries == 0
        assert lapsing.sequence == 2
        await w.change("a", forward_to="")
        await w.send("a", "stays")
        assert (await w.receive("a")).message.payload == b"stays"

    story(act)


def test_who_waits_for_messages_hears_that_there_will_be_none():
    async def act(w):
        await w.queue("b")
        await w.queue("a")
        waiting = asyncio.ensure_future(w._call(w.ns.receiver("a").receive, True, FOREVER))
        await w.quiet()
        await w.change("a", forward_to="b")
        assert await waiting is None

    story(act)


def test_after_four_hops_it_goes_no_further():
    async def act(w):
        for n in range(HOPS_MAX + 2):
            await w.queue(f"q{n}", f"q{n - 1}" if n else "")
        await w.send(f"q{HOPS_MAX}", "arrives")
        assert w.bodies("q0") == ["arrives"]
        assert w.only("q0").message.hops == HOPS_MAX
        await w.send(f"q{HOPS_MAX + 1}", "too far")
        assert w.bodies("q0") == ["arrives"]
        dead = w.only("q1" + DEAD).message
        assert (dead.dead_letter_reason, dead.dead_letter_source) == ("MaxTransferHopCountExceeded", "q1")
        assert dead.dead_letter_description == "Maximum transfer hop count is exceeded."
        assert dead.enqueued_sequence == 1
        dead = await w.receive("q1" + DEAD)
        await w.settle("q1" + DEAD, "complete", dead)

    story(act)


def test_a_loop_ends():
    async def act(w):
        await w.queue("a")
        await w.queue("b", "a")
        await w.change("a", forward_to="b")
        await w.send("a", "round")
        assert w.bodies("a") == w.bodies("b") == []
        assert w.bodies("a" + DEAD) == ["round"]
        assert w.bodies("b" + DEAD) == []

    story(act)


def test_a_loop_that_multiplies_ends():
    async def act(w):
        for topic in ("t", "u"):
            await w.ns.create(Topic(path=topic))
        for topic, other in ("tu", "ut"):
            for name in range(4):
                await w.subscription(topic, f"s{name}", other)
        await w.send("t", *map(str, range(3)))
        for _ in range(200):
            await w.quiet()
        dead = [n for n in w.ns.receivers if n.endswith(DEAD)]
        assert sum(w.ns.counts(n).active for n in dead) == 3 * 4 ** (HOPS_MAX + 1)
        assert all(w.bodies(n) == [] for n in w.ns.receivers if n not in dead)

    story(act)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("gone", "MessagingEntityNotFoundException"),
        ("disabled", "MessagingEntityDisabledException"),
        ("full", "QuotaExceededException"),
        ("sessions", "Session ID is null."),
    ],
)
def test_what_cannot_go_on_becomes_a_dead_letter(what, reason, direct):
    async def act(w):
        await w.queue("b", requires_session=what == "sessions")
        await w.queue("a", "b")
        if what == "gone":
            await w.ns.delete("b")
        elif what == "disabled":
            await w.change("b", status="SendDisabled")
        elif what == "full":
            receiver = w.ns.receivers["b"]
            w.ns.receivers["b"] = type("Full", (), {"size_bytes": 1 << 40, "log": receiver.log})()
        await w.send("a", "x", scheduled=None if direct else w.clock.now() + 1000)
        await w.later(1000)
        dead = w.only("a" + DEAD)
        assert dead.message.payload == b"x"
        assert (dead.message.dead_letter_reason, dead.message.dead_letter_source) == (reason, "a")
        assert dead.message.dead_letter_description
        assert dead.message.enqueued_sequence == 1
        assert w.ns.receivers["a"].log.count == 0
        if what == "sessions":
            await w.send("a", "y", "z", session_id="s")
            assert w.bodies("b") == ["y", "z"]

    story(act)


def test_of_a_batch_only_those_without_a_session_cannot_go():
    async def act(w):
        await w.queue("b", requires_session=True)
        await w.queue("a", "b")
        messages = [Message(b"0", session_id="s"), Message(b"1"), Message(b"2", session_id="s")]
        await w._call(w.ns.send, "a", messages, w.clock.now())
        assert w.bodies("b") == ["0", "2"]
        assert w.bodies("a" + DEAD) == ["1"]

    story(act)


def test_nothing_leaves_what_may_not_be_received_from():
    async def act(w):
        await w.queue("b")
        await w.queue("a", "b", status="ReceiveDisabled")
        await w.send("a", "x", "y")
        counts = w.ns.counts("a")
        assert (counts.transfer, counts.active) == (2, 0)
        assert w.bodies("b") == []
        await w.change("a", status="Active")
        await w.quiet()
        assert w.bodies("b") == ["x", "y"]
        assert w.ns.counts("a").transfer == 0

    story(act)


def test_a_failing_disk_changes_nothing_and_what_waits_goes_later():
    async def act(w):
        await w.queue("b")
        await w.queue("a", "b")
        faults, asked = [], []
        w.engine._fault = lambda: asked.append(1) or (faults[0] if faults else None)
        await w.send("a", "later", scheduled=w.clock.now() + 1000)
        faults.append(Full("no space"))
        with pytest.raises(Exception, match="no space"):
            await w.send("a", "lost")
        await w.later(1000)
        assert w.bodies("b") == []
        assert w.bodies("a") == ["later"]
        asked.clear()
        for _ in range(3):
            await w.later(RETRY)
        assert len(asked) == 3
        faults.clear()
        await w.send("a", "next")
        await w.later(RETRY)
        assert w.bodies("b") == ["later", "next"]
        assert w.bodies("a") == []

    story(act)


@pytest.mark.parametrize("fails", range(4))
@pytest.mark.parametrize("due", [0, 1000])
def test_an_append_that_fails_tears_nothing_apart(fails, due):
    """Of the appends that follow the first, some number fails; what was written before it stays."""

    async def main():
        left = [1000]

        def fault():
            left[0] -= 1
            return Full("no space") if left[0] == -1 else None

        w = World(Piecemeal(fault))
        await w.queue("c", requires_session=True)
        await w.queue("b", "c")
        await w.queue("a", "b")
        messages = [Message(b"goes", session_id="s"), Message(b"is refused")]
        if due:
            for message in messages:
                message.scheduled = w.clock.now() + due
            await w._call(w.ns.send, "a", messages, w.clock.now())
            await w.quiet()
            left[0] = fails
            await w.later(due)
        else:
            left[0] = fails
            w.ns.send("a", messages, w.clock.now(), lambda error: None)
        await w.quiet()
        await w.later(RETRY)
        acknowledged = due or fails
        assert w.stored("c") == ["goes"] * bool(acknowledged)
        assert w.stored("b" + DEAD) == ["is refused"] * bool(acknowledged)
        assert w.stored("a") == w.stored("b") == w.stored("a" + DEAD) == []
        await w.engine.close()

    asyncio.run(main())


# Dead letters.


def test_dead_letters_go_to_their_own_target():
    async def act(w):
        await w.ns.create(Topic(path="graves"))
        await w.subscription("graves", "s")
        await w.queue("a", forward_dead_letters_to="graves", dead_letter_on_expiration=True)
        await w.send("a", "killed", "expires", ttl=60_000)
        await w.settle("a", "dead_letter", await w.receive("a"), "why", "because")
        await w.later(60_000)
        killed, expired = w.ns.receivers["graves/subscriptions/s"].peek(0, 10)
        message = killed.message
        assert (message.dead_letter_reason, message.dead_letter_description) == ("why", "because")
        assert (message.dead_letter_source, message.enqueued_sequence, killed.deliveries) == ("a", 1, 0)
        assert expired.message.dead_letter_reason == "TTLExpiredException"
        assert w.ns.counts("a").dead_letter == 0
        with pytest.raises(Forwards):
            await w.receive("a" + DEAD)

    story(act)


@pytest.mark.parametrize("what", ["gone", "disabled"])
def test_dead_letters_wait_for_their_target(what):
    async def act(w):
        await w.queue("graves")
        await w.queue("a", forward_dead_letters_to="graves")
        if what == "gone":
            await w.ns.delete("graves")
        else:
            await w.change("graves", status="Disabled")
        for name in "xy":
            await w.send("a", name)
            await w.settle("a", "dead_letter", await w.receive("a"), "why", "because")
        await w.later(10 * RETRY)
        assert w.ns.counts("a").dead_letter == 2
        if what == "gone":
            await w.queue("graves")
        else:
            await w.change("graves", status="Active")
        await w.quiet()
        assert w.bodies("graves") == ["x", "y"]
        assert w.ns.counts("a").dead_letter == 0

    story(act)


def test_dead_letters_wait_for_room():
    async def act(w):
        await w.queue("graves")
        await w.queue("a", forward_dead_letters_to="graves")
        receiver = w.ns.receivers["graves"]
        w.ns.receivers["graves"] = type("Full", (), {"size_bytes": 1 << 40, "log": receiver.log})()
        await w.send("a", "x")
        await w.settle("a", "dead_letter", await w.receive("a"), "why", "because")
        await w.later(3 * RETRY)
        assert w.ns.counts("a").dead_letter == 1
        w.ns.receivers["graves"] = receiver
        await w.later(RETRY)
        assert w.bodies("graves") == ["x"]
        assert w.ns.counts("a").dead_letter == 0

    story(act)


def test_what_has_made_all_its_hops_stays_among_the_dead_letters():
    async def act(w):
        await w.queue("graves")
        await w.queue("a", forward_dead_letters_to="graves")
        await w.queue("b", "a")
        await w.change("a", forward_to="b")
        await w.send("a", "round")
        await w.later(RETRY)
        assert w.bodies("a" + DEAD) == ["round"]
        assert w.bodies("graves") == []
        await w.change("a", forward_to="", forward_dead_letters_to="")
        assert (await w.receive("a" + DEAD)).message.payload == b"round"

    story(act)


def test_dead_letters_without_a_session_wait_for_a_target_that_needs_none():
    async def act(w):
        await w.queue("graves", requires_session=True)
        await w.queue("a", forward_dead_letters_to="graves")
        for body, session in (("x", None), ("y", "s")):
            await w.send("a", body, session_id=session)
            await w.settle("a", "dead_letter", await w.receive("a"), "why", "because")
        await w.later(2 * RETRY)
        assert w.bodies("graves") == ["y"]
        await w.ns.delete("graves")
        await w.queue("graves")
        await w.quiet()
        assert w.bodies("graves") == ["x"]
        assert w.bodies("a" + DEAD) == []

    story(act)


# What is refused.


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"forward_to": "nobody"}, "SubCode=40400. The auto forwarding destination entity does not exist"),
        ({"forward_dead_letters_to": "nobody"}, "destination entity does not exist"),
        ({"forward_to": "t/subscriptions/s"}, "BR0012The specified value is in an invalid format"),
        ({"forward_to": "https://only.host"}, "Parameter name: ForwardTo"),
        ({"forward_dead_letters_to": "a b"}, "Parameter name: ForwardDeadLetteredMessagesTo"),
        ({"forward_to": "sb://host/Q"}, "The entity q has an auto-forwarding policy to itself"),
        ({"forward_dead_letters_to": "q"}, "The entity q has an auto-forwarding policy to itself"),
        ({"forward_to": "b", "requires_session": True}, "Both RequiresSession and ForwardTo"),
    ],
)
def test_what_cannot_be_a_target(fields, text):
    async def act(w):
        await w.ns.create(Topic(path="t"))
        await w.subscription("t", "s")
        await w.queue("b")
        with pytest.raises(Invalid, match=text):
            await w.ns.create(Queue(path="q", **fields))
        assert w.ns.entity("q") is None
        if "requires_session" not in fields:
            await w.ns.create(Queue(path="q"))
            with pytest.raises(Invalid, match=text):
                await w.change("q", **fields)

    story(act)


def test_a_subscription_cannot_forward_to_its_own_topic():
    async def act(w):
        await w.ns.create(Topic(path="t"))
        with pytest.raises(Invalid, match="policy to itself"):
            await w.subscription("t", "s", "t")

    story(act)


def test_other_changes_are_possible_when_the_target_has_gone():
    async def act(w):
        await w.queue("b")
        await w.queue("a", "b")
        await w.ns.delete("b")
        await w.change("a", lock_duration=5000)
        with pytest.raises(Invalid):
            await w.change("a", forward_dead_letters_to="b")

    story(act)


def test_the_basic_tier_has_no_forwarding():
    async def main():
        ns = Namespace("ns", MemoryEngine(), ManualClock(), PROFILES["basic"])
        await ns.create(Queue(path="b"))
        with pytest.raises(Invalid, match="Basic"):
            await ns.create(Queue(path="a", forward_to="b"))

    asyncio.run(main())


def test_who_forwards_is_never_idle():
    async def act(w):
        await w.queue("b")
        assert (await w.queue("a", "b", auto_delete_on_idle=300_000)).auto_delete_on_idle == FOREVER

    story(act)


def test_a_disabled_source_refuses_senders_as_ever():
    async def act(w):
        await w.queue("b")
        await w.queue("a", "b", status="SendDisabled")
        with pytest.raises(Disabled):
            await w.send("a", "x")

    story(act)


def test_more_than_may_go_directly_goes_all_the_same():
    async def act(w):
        await w.queue("c")
        await w.queue("b", "c")
        await w.queue("a", "b")
        names = [str(n) for n in range(DIRECT_MAX + BATCH + 5)]
        await w.send("a", *names)
        await w.quiet()
        assert w.bodies("c") == names

    story(act)


# Restarts.


def test_forwarding_survives_a_restart(tmp_path):
    clock = ManualClock()

    async def before():
        w = World(FileEngine(str(tmp_path)), clock)
        await w.queue("b")
        await w.queue("a", "b", status="ReceiveDisabled")
        await w.queue("c", "b")
        await w.send("c", "direct")
        await w.send("a", "waits")
        await w.send("a", "due later", scheduled=clock.now() + 5000)
        await w.engine.close()

    async def after():
        w = World(FileEngine(str(tmp_path)), clock)
        await w.later(0)
        assert w.bodies("b") == ["direct"]
        await w.change("a", status="Active")
        await w.later(0)
        await w.later(5000)
        assert w.bodies("b") == ["direct", "waits", "due later"]
        await w.send("c", "second")
        assert w.ns.receivers["b"].peek(4, 1)[0].message.enqueued_sequence == 2
        await w.engine.close()

    asyncio.run(before())
    asyncio.run(after())


# Messages that go by way of another entity.

TRANSFERS = "/$transfer/$deadletterqueue"


def test_what_fails_on_its_way_is_a_transfer_dead_letter(tmp_path):
    async def by_way(w, way, path, body):
        await w._call(w.ns.send_by_way, way, path, [Message(body)], w.clock.now())

    async def before():
        w = World(FileEngine(str(tmp_path)))
        await w.ns.create(Topic(path="t"))
        for path in ("way", "b"):
            await w.queue(path)
        await by_way(w, "way", "b", b"arrives")
        await w.change("b", status="Disabled")
        await by_way(w, "way", "b", b"fails")
        with pytest.raises(Disabled):
            await by_way(w, "t", "b", b"a topic has no place for it")
        await w.change("way", status="SendDisabled")
        with pytest.raises(Disabled):
            await by_way(w, "way", "b", b"refused")
        assert w.bodies("b") == ["arrives"]
        counts = w.ns.counts("way")
        assert (counts.transfer_dead_letter, counts.dead_letter, counts.active) == (1, 0, 0)
        assert counts.size_bytes > 0
        await w.engine.close()

    async def after():
        w = World(FileEngine(str(tmp_path)))
        assert w.ns.counts("way").transfer_dead_letter == 1
        found = await w.receive("way" + TRANSFERS)
        assert found.message.payload == b"fails"
        assert found.message.dead_letter_reason == "MessagingEntityDisabledException"
        assert found.message.dead_letter_source == "way"
        await w.settle("way" + TRANSFERS, "complete", found)
        assert w.ns.counts("way").transfer_dead_letter == 0
        await w.ns.delete("way")
        await w.queue("way")
        assert w.bodies("way" + DEAD) == []
        assert w.ns.counts("way").transfer_dead_letter == 0
        await w.engine.close()

    asyncio.run(before())
    asyncio.run(after())


def test_sub_queues_are_there_before_anything_is_in_them():
    async def act(w):
        await w.queue("a")
        assert await w.receive("a" + TRANSFERS) is None
        assert await w.receive("a" + DEAD) is None
        for path in ("nobody" + TRANSFERS, "a" + DEAD + TRANSFERS, "a" + TRANSFERS + DEAD):
            with pytest.raises(NotFound):
                w.ns.receiver(path)

    story(act)
