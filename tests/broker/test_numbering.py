"""Partitioned queues and topics: sequence numbers carry the partition, whatever is done with a message."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.jumped import World
from hubbub.broker.entity import Subscription, Topic
from hubbub.broker.errors import LockLost, MessageNotFound
from hubbub.broker.message import Message
from hubbub.broker.numbering import PARTITIONS, number_of, partition_of, sequence_of
from hubbub.engine.file import FileEngine
from hubbub.engine.memory import MemoryEngine

DEAD = "/$deadletterqueue"
keys = st.none() | st.text(max_size=20)


@given(st.integers(0, (1 << 48) - 1), keys, keys, keys)
def test_numbers_and_sequences(sequence, message_id, session_id, partition_key):
    message = Message(b"", message_id=message_id, session_id=session_id, partition_key=partition_key)
    number = number_of(sequence, message)
    assert sequence_of(number) == sequence
    assert number >> 48 == partition_of(message) < PARTITIONS
    key = session_id or partition_key
    if key:
        assert partition_of(Message(b"", message_id="other", partition_key=key)) == partition_of(message)


def test_messages_without_keys_are_everywhere():
    found = {partition_of(Message(b"", message_id=f"id-{n}")) for n in range(300)}
    assert found == set(range(PARTITIONS))


def story(act):
    async def main():
        world = World(MemoryEngine())
        await act(world)
        await world.engine.close()

    asyncio.run(main())


async def _sent(w, path="q", count=20, **fields):
    messages = [Message(str(n).encode(), message_id=f"m{n}", **fields) for n in range(count)]
    await w._call(w.ns.send, path, messages, w.clock.now())
    return [number_of(n, message) for n, message in enumerate(messages, 1)]


def test_every_delivery_says_where_it_is():
    async def act(w):
        await w.queue("q", partitioning=True)
        await w.queue("plain")
        numbers = await _sent(w)
        await _sent(w, "plain")
        found = w.ns.receivers["q"].peek(0, 100)
        assert [d.sequence for d in found] == numbers
        assert [d.partition for d in found] == [n >> 48 for n in numbers]
        assert len({d.partition for d in found}) > 4
        plain = w.ns.receivers["plain"].peek(0, 100)
        assert [(d.sequence, d.partition) for d in plain] == [(n, None) for n in range(1, 21)]
        received = await w.receive("q")
        assert received.sequence == numbers[0]
        await w.settle("q", "complete", received)
        assert (await w.receive("q", lock=False)).sequence == numbers[1]
        received = await w.receive("q")
        with pytest.raises(LockLost):
            w.ns.receiver("q").find("3", received.token)
        assert w.ns.receiver("q").find("m2", received.token).sequence == 3

    story(act)


def test_one_can_look_from_any_number_on():
    async def act(w):
        await w.queue("q", partitioning=True)
        numbers = await _sent(w)
        at, seen = 0, []
        while found := w.ns.receivers["q"].peek(at, 3):
            seen += [d.sequence for d in found]
            at = seen[-1] + 1
        assert seen == numbers

    story(act)


def test_one_key_is_one_partition():
    async def act(w):
        await w.queue("q", partitioning=True)
        await w.queue("s", partitioning=True, requires_session=True)
        await _sent(w, partition_key="k")
        await _sent(w, "s", session_id="k")
        for path in "qs":
            assert {d.partition for d in w.ns.receivers[path].peek(0, 100)} == {
                partition_of(Message(b"", partition_key="k"))
            }

    story(act)


def test_deferred_and_scheduled_messages_are_found_by_their_numbers():
    async def act(w):
        await w.queue("q", partitioning=True)
        numbers = await _sent(w)
        receiver = w.ns.receiver("q")
        for _ in range(3):
            await w.settle("q", "defer", await w.receive("q"))
        with pytest.raises(MessageNotFound):
            await w._call(receiver.receive_deferred, [2], True)
        with pytest.raises(MessageNotFound):
            await w._call(receiver.receive_deferred, [numbers[1] ^ 1 << 48], True)
        found = await w._call(receiver.receive_deferred, [numbers[1], numbers[0]], True)
        assert [d.sequence for d in found] == [numbers[1], numbers[0]]
        await w.settle("q", "complete", found[0])

        given: list[int] = []
        later = [Message(b"x", message_id=f"later{n}", scheduled=w.clock.now() + 1000) for n in range(3)]
        future = asyncio.get_running_loop().create_future()
        w.ns.send("q", later, w.clock.now(), future.set_result, given)
        await future
        assert given == [number_of(21 + n, message) for n, message in enumerate(later)]
        await w._call(receiver.cancel, given[1:])
        await w.later(1000)
        assert w.ns.counts("q").active == 19
        assert receiver.peek(given[0], 10)[0].sequence == given[0]

    story(act)


def test_topics_and_dead_letters_keep_the_first_number(tmp_path):
    async def before():
        w = World(FileEngine(str(tmp_path)))
        await w.ns.create(Topic(path="t", partitioning=True))
        await w.ns.create(Subscription(path="t/subscriptions/s", topic="t", name="s"))
        await w.queue("other")
        await w.subscription("t", "forwards", "other")
        numbers = await _sent(w, "t", 3)
        await w.settle(
            "t/subscriptions/s", "dead_letter", await w.receive("t/subscriptions/s"), "why", "because"
        )
        await w.engine.close()
        return numbers

    async def after(numbers):
        w = World(FileEngine(str(tmp_path)))
        dead = w.only("t/subscriptions/s" + DEAD)
        assert (dead.sequence, dead.message.enqueued_sequence) == (numbers[0], numbers[0])
        copies = w.ns.receivers["t/subscriptions/s"].peek(0, 10)
        assert [d.message.enqueued_sequence for d in copies] == numbers[1:]
        assert [d.sequence for d in copies] == numbers[1:]
        moved = w.ns.receivers["other"].peek(0, 10)
        assert [(d.sequence, d.message.enqueued_sequence) for d in moved] == list(enumerate(numbers, 1))
        await w.engine.close()

    asyncio.run(after(asyncio.run(before())))


def test_scheduled_messages_of_a_topic_are_cancelled_by_their_numbers():
    async def act(w):
        await w.ns.create(Topic(path="t", partitioning=True))
        await w.subscription("t", "s")
        given: list[int] = []
        later = [Message(b"x", message_id=f"{n}", scheduled=w.clock.now() + 1000) for n in range(2)]
        future = asyncio.get_running_loop().create_future()
        w.ns.send("t", later, w.clock.now(), future.set_result, given)
        await future
        await w._call(w.ns.topics["t"].cancel, given[:1], w.clock.now())
        await w.later(1000)
        assert (await w.receive("t/subscriptions/s")).message.enqueued_sequence == given[1]

    story(act)


@pytest.mark.parametrize("partitioned", [True, False])
def test_duplicates_have_the_same_key_where_it_is_partitioned(partitioned):
    async def act(w):
        await w.queue("q", partitioning=partitioned, requires_duplicate_detection=True)
        await w.send("q", "1", message_id="m", partition_key="a")
        await w.send("q", "2", message_id="m", partition_key="b")
        await w.send("q", "3", message_id="m", partition_key="a")
        await w.send("q", "4", message_id="m")
        assert w.bodies("q") == (["1", "2", "4"] if partitioned else ["1"])

    story(act)
