"""The official asynchronous Service Bus client, unmodified, against a real server process.

The client's links open and close slowly, so that all checks run at once, each with a queue of its own; the
numbers in their names are those of the AMQP reference, section 7.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from live import running

WAIT = 15
"""Seconds until what must come is given up; SHORT is for what must not."""
SHORT = 1
AND_DELETE = ServiceBusReceiveMode.RECEIVE_AND_DELETE
SHORTEST = {"lockDuration": "PT5S"}
SESSIONS = {"requiresSession": True}
CHECKS: dict[str, tuple] = {}


def check(**description):
    """A coroutine function of the client and the name of a queue that is so described."""

    def registered(run):
        CHECKS[run.__name__] = (run, description)
        return run

    return registered


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """By check: what it raised, or None."""
    with running(tmp_path_factory.mktemp("aio"), "--memory", "--topic", "topic/all") as live:
        for name, (_, description) in CHECKS.items():
            assert (
                live.call("PUT", f"/_hubbub/api/v1/queues/{name}", json.dumps(description).encode())[0] == 201
            )
        found = asyncio.run(all_at_once(live))
    return dict(zip(CHECKS, found, strict=True))


async def all_at_once(live):
    async with connected(live.connection_string) as client:
        client.live = live
        runs = (asyncio.wait_for(run(client, name), 60) for name, (run, _) in CHECKS.items())
        return await asyncio.gather(*runs, return_exceptions=True)


def connected(text, **options):
    return ServiceBusClient.from_connection_string(text, retry_total=0, **options)


async def send(client, queue, *bodies, **properties):
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages([ServiceBusMessage(body, **properties) for body in bodies])


async def take(receiver, count=1, wait=WAIT):
    """That many messages, however many calls it takes; fewer if no more come."""
    found = []
    while len(found) < count and (messages := await receiver.receive_messages(count - len(found), wait)):
        found += messages
    return found


async def complete(receiver, messages):
    for message in messages:
        await receiver.complete_message(message)


def texts(messages):
    return [str(message) for message in messages]


def numbered(count, letter="m"):
    return [f"{letter}{n}" for n in range(count)]


@check()
async def sends_and_receives_25(client, queue):
    async with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        assert (await sender.create_message_batch()).max_size_in_bytes in (262144, 1048576)
        await sender.send_messages(ServiceBusMessage("hello", subject="s", application_properties={"n": 1}))
        batch = await sender.create_message_batch()
        for text in numbered(50):
            batch.add_message(ServiceBusMessage(text))
        await sender.send_messages(batch)
        first, *rest = await take(receiver, 51)
        assert (str(first), first.subject, first.application_properties) == ("hello", "s", {b"n": 1})
        assert (first.sequence_number, first.delivery_count) == (1, 0)
        assert texts(rest) == numbered(50)
        assert len({message.lock_token for message in rest}) == 50
        await complete(receiver, [first, *rest])
        assert await receiver.peek_messages(1) == []
        with pytest.raises(MessageSizeExceededError):
            await sender.send_messages(ServiceBusMessage("x" * 2_000_000))


@check()
async def settles_four_ways_31(client, queue):
    await send(client, queue, "a", "b", "c", "d")
    async with client.get_queue_receiver(queue) as receiver:
        a, b, c, d = await take(receiver, 4)
        await receiver.complete_message(a)
        await receiver.abandon_message(b)
        await receiver.defer_message(c)
        await receiver.dead_letter_message(d, reason="why", error_description="because")
        (again,) = await take(receiver)
        assert (str(again), again.sequence_number, again.delivery_count) == ("b", b.sequence_number, 1)
        await receiver.complete_message(again)
        (deferred,) = await receiver.receive_deferred_messages(c.sequence_number)
        assert deferred.state == ServiceBusMessageState.DEFERRED
        await receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages(c.sequence_number)
        assert await receiver.receive_messages(1, SHORT) == []
    dead = ServiceBusSubQueue.DEAD_LETTER
    async with client.get_queue_receiver(queue, sub_queue=dead) as receiver:
        (letter,) = await take(receiver)
        assert (letter.dead_letter_reason, letter.dead_letter_error_description) == ("why", "because")
        assert letter.dead_letter_source == queue
        await receiver.complete_message(letter)


@check(**SHORTEST)
async def locks_end_36(client, queue):
    await send(client, queue, "x")
    async with client.get_queue_receiver(queue) as receiver:
        (message,) = await take(receiver)
        (again,) = await take(receiver)
        assert again.delivery_count == 1
        with pytest.raises(MessageLockLostError):
            await receiver.complete_message(message)
        # The client does not even ask once the time is over: here the server must say it.
        with pytest.raises(MessageLockLostError):
            await receiver._renew_locks(message.lock_token)
        before = again.locked_until_utc
        assert await receiver.renew_message_lock(again) > before
        await receiver.complete_message(again)


@check(**SHORTEST)
async def renewer_keeps_messages(client, queue):
    await send(client, queue, "x")
    lost = []

    async def failed(renewable, error):
        lost.append(error)

    async with client.get_queue_receiver(queue) as receiver, AutoLockRenewer() as renewer:
        (message,) = await take(receiver)
        renewer.register(receiver, message, 30, failed)
        assert await receiver.receive_messages(1, 7) == []
        await receiver.complete_message(message)
    assert lost == []


@check(**SHORTEST, **SESSIONS)
async def renewer_keeps_sessions(client, queue):
    await send(client, queue, "x", session_id="s")
    async with client.get_queue_receiver(queue, session_id="s") as receiver, AutoLockRenewer() as renewer:
        renewer.register(receiver, receiver.session, 30)
        (message,) = await take(receiver)
        assert await receiver.receive_messages(1, 7) == []
        await receiver.complete_message(message)


@check(**SHORTEST, **SESSIONS)
async def sessions_end(client, queue):
    await send(client, queue, "x", session_id="s")
    async with client.get_queue_receiver(queue, session_id="s") as receiver:
        (message,) = await take(receiver)
        # Its end reaches who receives.
        with pytest.raises(SessionLockLostError):
            await receiver.receive_messages(1, WAIT)
        with pytest.raises(SessionLockLostError):
            await receiver.complete_message(message)
    async with client.get_queue_receiver(queue, session_id="s") as receiver:
        (message,) = await take(receiver)
        assert message.delivery_count == 1


@check()
async def schedules_37(client, queue):
    now = datetime.now(UTC)
    soon, far = now + timedelta(seconds=4), now + timedelta(hours=1)
    async with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        (first,) = await sender.schedule_messages(ServiceBusMessage("soon"), soon)
        others = await sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], far)
        await sender.cancel_scheduled_messages(others[0])
        peeked = await receiver.peek_messages(9)
        assert [(m.state.name, m.sequence_number) for m in peeked] == [
            ("SCHEDULED", first),
            ("SCHEDULED", others[1]),
        ]
        with pytest.raises(MessageNotFoundError):
            await sender.cancel_scheduled_messages(others)
        (message,) = await take(receiver)
        assert str(message) == "soon"
        assert datetime.now(UTC) >= soon
        assert abs(message.scheduled_enqueue_time_utc - soon) < timedelta(milliseconds=1)


@check()
async def peeks_in_every_state_39(client, queue):
    await send(client, queue, "active", "locked", "deferred")
    async with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        await sender.schedule_messages(ServiceBusMessage("scheduled"), datetime.now(UTC) + timedelta(hours=1))
        messages = await take(receiver, 3)
        await receiver.defer_message(messages[2])
        await receiver.abandon_message(messages[0])
        peeked = await receiver.peek_messages(20, sequence_number=1)
        assert [(str(m), m.state.name) for m in peeked] == [
            ("active", "ACTIVE"),
            ("locked", "ACTIVE"),
            ("deferred", "DEFERRED"),
            ("scheduled", "SCHEDULED"),
        ]
        assert [m.sequence_number for m in peeked] == [1, 2, 3, 4]


@check()
async def waits_and_iterates_40(client, queue):
    async with client.get_queue_receiver(queue, receive_mode=AND_DELETE, max_wait_time=SHORT) as receiver:
        began = time.monotonic()
        assert await receiver.receive_messages(1, SHORT) == []
        assert time.monotonic() - began >= SHORT - 0.1
        waiting = asyncio.create_task(receiver.receive_messages(1, WAIT))
        await send(client, queue, "late")
        assert texts(await waiting) == ["late"]
        await send(client, queue, *numbered(30))
        assert [str(message) async for message in receiver] == numbered(30)
        assert await receiver.peek_messages(1) == []


@check()
async def prefetches(client, queue):
    await send(client, queue, *numbered(200))
    async with client.get_queue_receiver(queue, prefetch_count=50) as receiver:
        found = []
        while len(found) < 200:
            messages = await receiver.receive_messages(40, WAIT)
            await complete(receiver, messages)
            found += texts(messages)
    assert found == numbered(200)


@check()
async def receivers_share_a_queue(client, queue):
    await send(client, queue, *numbered(200))
    found: list[list[str]] = []

    async def work():
        async with client.get_queue_receiver(queue) as receiver:
            while messages := await receiver.receive_messages(10, 2):
                await complete(receiver, messages)
                found.append(texts(messages))

    await asyncio.gather(*(work() for _ in range(4)))
    assert sorted(text for part in found for text in part) == sorted(numbered(200))
    async with client.get_queue_receiver(queue) as receiver:
        assert await receiver.peek_messages(1) == []


@check()
async def closes_with_messages_in_its_buffer(client, queue):
    """They are free at once, and do not count as delivered."""
    await send(client, queue, *numbered(20))
    async with client.get_queue_receiver(queue, prefetch_count=20) as receiver:
        (kept,) = await take(receiver)
        await asyncio.sleep(0.2)
    async with client.get_queue_receiver(queue) as receiver:
        messages = await take(receiver, 19)
        assert sorted(texts(messages)) == sorted(set(numbered(20)) - {str(kept)})
        assert {message.delivery_count for message in messages} == {0}
        assert await receiver.receive_messages(1, SHORT) == []


@check()
async def closes_while_it_receives(client, queue):
    """Nothing that comes later may be locked by who is gone."""
    for prefetch in (0, 5):
        receiver = client.get_queue_receiver(queue, prefetch_count=prefetch)
        waiting = asyncio.create_task(receiver.receive_messages(5, WAIT))
        await asyncio.sleep(SHORT)
        await receiver.close()
        await asyncio.wait([waiting])
        waiting.exception()
    cancelled = client.get_queue_receiver(queue)
    waiting = asyncio.create_task(cancelled.receive_messages(5, WAIT))
    await asyncio.sleep(SHORT)
    waiting.cancel()
    await asyncio.wait([waiting])
    await cancelled.close()
    await send(client, queue, *numbered(5))
    async with client.get_queue_receiver(queue) as receiver:
        messages = await take(receiver, 5)
        assert texts(messages) == numbered(5)
        assert {message.delivery_count for message in messages} == {0}


@check()
async def topics_38(client, queue):
    async with (
        client.get_topic_sender("topic") as sender,
        client.get_subscription_receiver("topic", "all") as receiver,
    ):
        await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        messages = await take(receiver, 2)
        assert texts(messages) == ["a", "b"]
        await receiver.dead_letter_message(messages[0], reason="why")
        await receiver.complete_message(messages[1])
    dead = ServiceBusSubQueue.DEAD_LETTER
    async with client.get_subscription_receiver("topic", "all", sub_queue=dead) as receiver:
        (letter,) = await take(receiver)
        assert (str(letter), letter.dead_letter_reason) == ("a", "why")
        assert letter.dead_letter_source.lower() == "topic/subscriptions/all"


@check(**SESSIONS)
async def sessions_43(client, queue):
    await send(client, queue, "a", session_id="a")
    await send(client, queue, "b", session_id="b")
    async with client.get_queue_receiver(queue, session_id="a") as receiver:
        session = receiver.session
        assert await session.get_state() is None
        await session.set_state("half way")
        assert await session.get_state() == b"half way"
        before = session.locked_until_utc
        await asyncio.sleep(0.02)
        assert await session.renew_lock() > before
        began = time.monotonic()
        with pytest.raises(SessionCannotBeLockedError):
            await client.get_queue_receiver(queue, session_id="a").__aenter__()
        assert time.monotonic() - began < WAIT
        async with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION) as other:
            assert other.session.session_id == "b"
            third = client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=SHORT)
            with pytest.raises(OperationTimeoutError):
                await third.__aenter__()
        listed = [name async for name in client.list_queue_sessions(queue)]
        assert sorted(listed) == ["a", "b"]
        since = datetime.now(UTC) - timedelta(minutes=5)
        assert [name async for name in client.list_queue_sessions(queue, state_updated_after=since)] == ["a"]


@check(**SESSIONS)
async def order_in_sessions_46(client, queue):
    """Messages of three sessions, sent in turn, received by three at once; what is given back comes again
    before those behind it."""
    async with client.get_queue_sender(queue) as sender:
        for n in range(15):
            await sender.send_messages([ServiceBusMessage(f"{s}{n}", session_id=s) for s in "abc"])

    async def alone():
        found = []
        async with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION) as receiver:
            while len(found) < 15:
                (message,) = await take(receiver)
                if message.delivery_count == 0 and len(found) % 5 == 3:
                    await receiver.abandon_message(message)
                else:
                    await receiver.complete_message(message)
                    found.append(str(message))
        return found

    found = await asyncio.gather(alone(), alone(), alone())
    assert sorted(found) == [numbered(15, letter) for letter in "abc"]


@check()
async def refuses_41(client, queue):
    for missing in (client.get_queue_sender("absent"), client.get_queue_receiver("absent")):
        with pytest.raises(MessagingEntityNotFoundError):
            await missing.__aenter__()
    with pytest.raises(ServiceBusError):
        await client.get_queue_receiver(queue, session_id="s").__aenter__()
    wrong = client.live.connection_string.replace("SAS_KEY_VALUE", "d3Jvbmc=")
    async with connected(wrong) as stranger:
        with pytest.raises(ServiceBusAuthenticationError):
            await send(stranger, queue, "x")


@check()
async def web_sockets_42(client, queue):
    async with connected(
        client.live.connection_string,
        transport_type=TransportType.AmqpOverWebsocket,
        custom_endpoint_address=client.live.ready["http"].replace("http", "sb"),
    ) as other:
        await send(other, queue, "over a socket", "x" * 200_000)
        async with other.get_queue_receiver(queue) as receiver:
            messages = await take(receiver, 2)
            assert [len(text) for text in texts(messages)] == [13, 200_000]
            await complete(receiver, messages)


def cut(receiver):
    """Ends its TCP connection without a word."""
    receiver._handler._connection._transport.writer.transport.abort()


@check(**SHORTEST)
async def lost_connections_54(client, queue):
    """Locks outlive the connection, and end in time."""
    await send(client, queue, *numbered(3))
    receiver = client.get_queue_receiver(queue)
    first = await take(receiver, 3)
    cut(receiver)
    async with client.get_queue_receiver(queue) as other:
        assert await other.receive_messages(3, SHORT) == []
        messages = await take(other, 3)
        assert texts(messages) == numbered(3)
        assert {message.delivery_count for message in messages} == {1}
        assert datetime.now(UTC) >= first[0].locked_until_utc - timedelta(milliseconds=10)
        await complete(other, messages)
    await receiver.close()


@check(**SESSIONS)
async def lost_connections_with_a_session_54(client, queue):
    """The session is free at once, with all its messages."""
    await send(client, queue, *numbered(3), session_id="s")
    receiver = client.get_queue_receiver(queue, session_id="s")
    await take(receiver, 3)
    await receiver.session.set_state("kept")
    cut(receiver)
    began = time.monotonic()
    async with client.get_queue_receiver(
        queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT
    ) as other:
        assert other.session.session_id == "s"
        assert await other.session.get_state() == b"kept"
        assert texts(await take(other, 3)) == numbered(3)
    assert time.monotonic() - began < WAIT
    await receiver.close()


@pytest.mark.parametrize("name", CHECKS)
def test_check(outcomes, name):
    if outcomes[name] is not None:
        raise outcomes[name]
