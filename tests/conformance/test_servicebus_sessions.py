"""Sessions with the official Service Bus client, unmodified, against a real server process."""

from __future__ import annotations

import datetime
import json
import threading
import time
import uuid

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
)
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from live import running

WAIT = 5


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("sessions"), "--memory") as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with ServiceBusClient.from_connection_string(live.connection_string, retry_total=0) as client:
        yield client


@pytest.fixture
def queue(live, request):
    name = f"q-{uuid.uuid4().hex[:8]}"
    body = json.dumps({"requiresSession": True, **getattr(request, "param", {})}).encode()
    assert live.call("PUT", f"/_hubbub/api/v1/queues/{name}", body)[0] == 201
    return name


def send(client, queue, session, *bodies, **properties):
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage(body, session_id=session, **properties) for body in bodies])


def texts(messages):
    return [str(message) for message in messages]


def test_only_its_messages_in_order(client, queue):
    for n in range(3):
        send(client, queue, "a", f"a{n}")
        send(client, queue, "b", f"b{n}")
    with client.get_queue_receiver(queue, session_id="b") as receiver:
        messages = receiver.receive_messages(3, max_wait_time=WAIT)
        assert texts(messages) == ["b0", "b1", "b2"]
        assert {message.session_id for message in messages} == {"b"}
        assert receiver.session.session_id == "b"
        for message in messages:
            receiver.complete_message(message)
        assert receiver.receive_messages(1, max_wait_time=0.5) == []


def test_next_available(client, queue):
    send(client, queue, "only", "x")
    with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=3) as receiver:
        assert receiver.session.session_id == "only"
        other = client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)
        with pytest.raises(OperationTimeoutError), other:
            pass
        later = threading.Timer(0.3, send, (client, queue, "later", "y"))
        later.start()
        with client.get_queue_receiver(
            queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT
        ) as second:
            assert second.session.session_id == "later"
        later.join()


def test_a_session_is_held_by_one(client, queue):
    with client.get_queue_receiver(queue, session_id="s"):
        other = client.get_queue_receiver(queue, session_id="s")
        with pytest.raises(SessionCannotBeLockedError), other:
            pass
    with client.get_queue_receiver(queue, session_id="s") as again:
        assert again.session.session_id == "s"


def test_state(client, queue):
    with client.get_queue_receiver(queue, session_id="s") as receiver:
        assert receiver.session.get_state() is None
        receiver.session.set_state("half way")
        assert receiver.session.get_state() == b"half way"
    with client.get_queue_receiver(queue, session_id="s") as receiver:
        assert receiver.session.get_state() == b"half way"
        receiver.session.set_state(None)
        assert receiver.session.get_state() is None


def test_renew(client, queue):
    with client.get_queue_receiver(queue, session_id="s") as receiver:
        before = receiver.session.locked_until_utc
        assert before > datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=50)
        time.sleep(0.02)
        assert receiver.session.renew_lock() > before


@pytest.mark.parametrize("queue", [{"lockDuration": "PT5S"}], indirect=True)
def test_a_lost_session(client, queue):
    send(client, queue, "s", "x")
    with client.get_queue_receiver(queue, session_id="s") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        time.sleep(5.5)
        with pytest.raises((SessionLockLostError, ServiceBusError)):
            receiver.complete_message(message)
    with client.get_queue_receiver(queue, session_id="s") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert message.delivery_count == 1
        receiver.complete_message(message)


@pytest.mark.parametrize("queue", [{"lockDuration": "PT5S"}], indirect=True)
def test_the_renewer_keeps_sessions_and_messages(live, client, queue):
    """A message of another queue too, which is received from meanwhile."""
    plain = f"p-{uuid.uuid4().hex[:8]}"
    assert live.call("PUT", f"/_hubbub/api/v1/queues/{plain}", b'{"lockDuration": "PT5S"}')[0] == 201
    send(client, queue, "s", "x")
    send(client, plain, None, "y")
    failures = []
    with (
        client.get_queue_receiver(queue, session_id="s") as receiver,
        client.get_queue_receiver(plain) as other,
        AutoLockRenewer(
            max_lock_renewal_duration=30, on_lock_renew_failure=lambda *why: failures.append(why)
        ) as renewer,
    ):
        renewer.register(receiver, receiver.session)
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        (other_message,) = other.receive_messages(1, max_wait_time=WAIT)
        renewer.register(other, other_message)
        assert other.receive_messages(1, max_wait_time=6) == []
        receiver.complete_message(message)
        other.complete_message(other_message)
    assert failures == []


def test_settling(client, queue):
    send(client, queue, "s", "a", "b", "c", "d")
    with client.get_queue_receiver(queue, session_id="s") as receiver:
        a, b, c, d = receiver.receive_messages(4, max_wait_time=WAIT)
        receiver.abandon_message(a)
        receiver.defer_message(b)
        receiver.dead_letter_message(c, reason="why")
        receiver.complete_message(d)
        (again,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert (str(again), again.delivery_count) == ("a", 1)
        receiver.complete_message(again)
        (deferred,) = receiver.receive_deferred_messages(b.sequence_number)
        receiver.complete_message(deferred)
        assert receiver.peek_messages(5, sequence_number=1) == []


def test_peek_looks_into_the_session(client, queue):
    send(client, queue, "a", "a0", "a1")
    send(client, queue, "b", "b0")
    with client.get_queue_receiver(queue, session_id="a") as receiver:
        assert texts(receiver.peek_messages(5)) == ["a0", "a1"]


def test_receive_and_delete(client, queue):
    send(client, queue, "s", "x", "y")
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver(queue, session_id="s", receive_mode=mode) as receiver:
        assert texts(receiver.receive_messages(2, max_wait_time=WAIT)) == ["x", "y"]


def test_what_is_refused(live, client, queue):
    plain = f"p-{uuid.uuid4().hex[:8]}"
    assert live.call("PUT", f"/_hubbub/api/v1/queues/{plain}", b"{}")[0] == 201
    with pytest.raises(ServiceBusError), client.get_queue_receiver(queue) as receiver:
        receiver.receive_messages(1, max_wait_time=1)
    with pytest.raises(ServiceBusError), client.get_queue_receiver(plain, session_id="s"):
        pass
    with client.get_queue_sender(queue) as sender, pytest.raises(ServiceBusError):
        sender.send_messages(ServiceBusMessage("no session"))
