"""The official Service Bus client, unmodified, against a real server process: checks 25 to 54 by number.

Sessions, the asynchronous client and what REST makes of the same messages have files of their own.
"""

from __future__ import annotations

import datetime
import json
import resource
import time
import uuid

import pytest
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusServerBusyError,
)

from live import running

WAIT = 5
SEGMENT = 1 << 20
AND_DELETE = ServiceBusReceiveMode.RECEIVE_AND_DELETE


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("servicebus"), "--memory", "--topic", "topic/all") as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with ServiceBusClient.from_connection_string(live.connection_string, retry_total=0) as client:
        yield client


@pytest.fixture
def queue(live, request):
    """A queue of the test's own."""
    name = f"q-{uuid.uuid4().hex[:8]}"
    body = json.dumps(getattr(request, "param", {})).encode()
    assert live.call("PUT", f"/_hubbub/api/v1/queues/{name}", body)[0] == 201
    return name


def send(client, queue, *bodies, **properties):
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage(body, **properties) for body in bodies])


def take(client, queue, count=1, **options):
    """What is there, received and deleted, however many calls it takes."""
    found = []
    with client.get_queue_receiver(queue, receive_mode=AND_DELETE, **options) as receiver:
        while len(found) < count:
            messages = receiver.receive_messages(count - len(found), max_wait_time=WAIT)
            if not messages:
                break
            found += messages
    return found


def nothing(client, queue, **options):
    with client.get_queue_receiver(queue, **options) as receiver:
        return receiver.receive_messages(1, max_wait_time=0.5) == []


def texts(messages):
    return [str(message) for message in messages]


def test_25_send_and_complete(client, queue):
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(
            ServiceBusMessage(
                "hello", subject="greeting", content_type="text/plain", application_properties={"n": 1}
            )
        )
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert str(message) == "hello"
        assert (message.subject, message.content_type) == ("greeting", "text/plain")
        assert message.application_properties == {b"n": 1}
        assert (message.sequence_number, message.delivery_count) == (1, 0)
        assert message.message_id
        left = message.locked_until_utc - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(seconds=50) < left <= datetime.timedelta(seconds=61)
        receiver.complete_message(message)
    assert nothing(client, queue)


def test_26_order_of_a_batch(client, queue):
    with client.get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        for n in range(100):
            batch.add_message(ServiceBusMessage(f"m{n}"))
        sender.send_messages(batch)
    assert texts(take(client, queue, 100)) == [f"m{n}" for n in range(100)]


def test_27_abandoned_messages_come_again(client, queue):
    send(client, queue, "x")
    with client.get_queue_receiver(queue) as receiver:
        for count in range(3):
            (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
            assert message.delivery_count == count
            receiver.abandon_message(message)


@pytest.mark.parametrize("queue", [{"maxDeliveryCount": 2}], indirect=True)
def test_28_too_many_deliveries(client, queue):
    send(client, queue, "poison")
    with client.get_queue_receiver(queue) as receiver:
        for _ in range(2):
            receiver.abandon_message(receiver.receive_messages(1, max_wait_time=WAIT)[0])
    (message,) = take(client, queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    assert message.dead_letter_reason == "MaxDeliveryCountExceeded"


def test_29_dead_letter_with_reason(client, queue):
    send(client, queue, "bad")
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.dead_letter_message(message, reason="why", error_description="because")
    (message,) = take(client, queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    assert (message.dead_letter_reason, message.dead_letter_error_description) == ("why", "because")
    assert message.dead_letter_source == queue
    assert str(message) == "bad"


def test_30_deferred_messages_wait_for_their_number(client, queue):
    send(client, queue, "later", "now")
    with client.get_queue_receiver(queue) as receiver:
        first, second = receiver.receive_messages(2, max_wait_time=WAIT)
        receiver.defer_message(first)
        receiver.complete_message(second)
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
        (again,) = receiver.receive_deferred_messages([first.sequence_number])
        assert (str(again), again.delivery_count) == ("later", 1)
        receiver.abandon_message(again)
        (again,) = receiver.receive_deferred_messages([first.sequence_number])
        receiver.complete_message(again)
        with pytest.raises(MessageNotFoundError):
            receiver.receive_deferred_messages([first.sequence_number])


def test_30_more_deferred_messages_than_one_answer_holds(client, queue):
    with client.get_queue_sender(queue) as sender:
        for n in range(40):
            sender.send_messages(ServiceBusMessage(f"{n:<240000}"))
    with client.get_queue_receiver(queue, prefetch_count=0) as receiver:
        numbers = []
        while len(numbers) < 40:
            for message in receiver.receive_messages(40, max_wait_time=WAIT):
                receiver.defer_message(message)
                numbers.append(message.sequence_number)
        with pytest.raises(MessageSizeExceededError, match="fewer sequence numbers"):
            receiver.receive_deferred_messages(numbers)
        found = receiver.receive_deferred_messages(numbers[:30]) + receiver.receive_deferred_messages(
            numbers[30:]
        )
        assert [int(str(message)) for message in found] == list(range(40))


def test_31_peek_changes_nothing(client, queue):
    send(client, queue, "a", "b", "c")
    with client.get_queue_receiver(queue) as receiver:
        assert texts(receiver.peek_messages(2)) == ["a", "b"]
        assert texts(receiver.peek_messages(5, sequence_number=2)) == ["b", "c"]
        assert texts(receiver.receive_messages(3, max_wait_time=WAIT)) == ["a", "b", "c"]
    assert client.get_queue_receiver(queue).peek_messages(1, sequence_number=99) == []


def test_32_renew(client, queue):
    send(client, queue, "x")
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        before = message.locked_until_utc
        time.sleep(0.01)
        assert receiver.renew_message_lock(message) > before
        receiver.complete_message(message)
        with pytest.raises(ValueError):
            receiver.complete_message(message)


@pytest.mark.parametrize("queue", [{"lockDuration": "PT5S"}], indirect=True)
def test_33_a_lost_lock(client, queue):
    send(client, queue, "x")
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        (again,) = receiver.receive_messages(1, max_wait_time=8)
        assert again.delivery_count == 1
        message._settled = False
        with pytest.raises((MessageLockLostError, ValueError)):
            receiver.complete_message(message)
        receiver.complete_message(again)


def test_34_schedule_and_cancel(client, queue):
    now = datetime.datetime.now(datetime.UTC)
    far, soon = now + datetime.timedelta(hours=1), now + datetime.timedelta(seconds=3)
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        first, second = sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], far)
        sender.schedule_messages(ServiceBusMessage("c"), soon)
        waiting = receiver.peek_messages(5)
        assert [(m.state.name, m.sequence_number) for m in waiting[:2]] == [
            ("SCHEDULED", 1),
            ("SCHEDULED", 2),
        ]
        assert waiting[0].scheduled_enqueue_time_utc.replace(microsecond=0) == far.replace(microsecond=0)
        sender.cancel_scheduled_messages([first, second])
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(second)
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert str(message) == "c"
        assert datetime.datetime.now(datetime.UTC) >= soon


def test_35_receive_and_delete(client, queue):
    send(client, queue, *map(str, range(50)))
    assert texts(take(client, queue, 50)) == [str(n) for n in range(50)]
    assert nothing(client, queue)


def test_36_prefetch(client, queue):
    send(client, queue, *map(str, range(300)))
    with client.get_queue_receiver(queue, prefetch_count=100) as receiver:
        found = []
        while len(found) < 300:
            messages = receiver.receive_messages(50, max_wait_time=WAIT)
            for message in messages:
                receiver.complete_message(message)
            found += texts(messages)
    assert found == [str(n) for n in range(300)]


def test_37_a_receiver_that_waits(client, queue):
    with client.get_queue_receiver(queue) as receiver:
        began = time.monotonic()
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
        assert 0.4 < time.monotonic() - began < 3
        send(client, queue, "x")
        assert texts(receiver.receive_messages(1, max_wait_time=WAIT)) == ["x"]


def test_38_topics(live, client):
    with client.get_topic_sender("topic") as sender:
        sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
    with client.get_subscription_receiver("topic", "all") as receiver:
        messages = receiver.receive_messages(2, max_wait_time=WAIT)
        assert texts(messages) == ["a", "b"]
        for message in messages:
            receiver.complete_message(message)


def test_39_every_section_comes_back(client, queue):
    sent = AmqpAnnotatedMessage(
        value_body={"k": [1, 2.5, True, None, "text", b"bytes"]},
        header={"durable": True, "priority": 7},
        properties={"message_id": uuid.uuid4(), "correlation_id": 12, "reply_to": "r", "subject": "s"},
        application_properties={"i": 2**20, "f": 1.5, "b": False, "u": uuid.uuid4()},
        annotations={"x-own": "mine"},
    )
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(sent)
    (message,) = take(client, queue)
    raw = message.raw_amqp_message
    assert raw.body_type == AmqpMessageBodyType.VALUE
    assert raw.body == {b"k": [1, 2.5, True, None, b"text", b"bytes"]}
    assert (raw.header.priority, raw.header.durable) == (7, True)
    assert raw.properties.message_id == sent.properties.message_id
    assert raw.properties.correlation_id == 12
    assert raw.application_properties == {k.encode(): v for k, v in sent.application_properties.items()}
    assert raw.annotations[b"x-own"] == b"mine"


def test_40_time_to_live(client, queue):
    second = datetime.timedelta(seconds=1)
    send(client, queue, "long", time_to_live=100 * second)
    send(client, queue, "short", time_to_live=second)
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.peek_messages(1)
        assert message.time_to_live == 100 * second
        assert message.expires_at_utc - message.enqueued_time_utc == 100 * second
        time.sleep(1.1)
        assert texts(receiver.receive_messages(2, max_wait_time=1)) == ["long"]


def test_41_errors(live, client, queue):
    for missing in (client.get_queue_sender("absent"), client.get_queue_receiver("absent")):
        with pytest.raises(MessagingEntityNotFoundError), missing as link:
            link._open()
    wrong = live.connection_string.replace("SAS_KEY_VALUE", "d3Jvbmc=")
    other = ServiceBusClient.from_connection_string(wrong, retry_total=0)
    with pytest.raises(ServiceBusAuthenticationError), other.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("x"))
    # The client tells its user neither of the two reasons' words.
    log = live.log.read_text()
    assert "link refused: The messaging entity 'absent' could not be found" in log
    assert f"token for '{queue}' refused" in log
    assert "d3Jvbmc" not in log
    with client.get_queue_sender(queue) as sender:
        with pytest.raises(MessageSizeExceededError):
            sender.send_messages(ServiceBusMessage("x" * 2_000_000))
        sender.send_messages(ServiceBusMessage("fits"))


def test_42_web_sockets(live, queue):
    client = ServiceBusClient.from_connection_string(
        live.connection_string,
        transport_type=TransportType.AmqpOverWebsocket,
        custom_endpoint_address=live.ready["http"].replace("http", "sb"),
        retry_total=0,
    )
    with client:
        send(client, queue, "over a socket")
        assert texts(take(client, queue)) == ["over a socket"]


def test_43_rest_and_amqp_see_the_same(live, client, queue):
    properties = '{"Label":"L","CorrelationId":"C","MessageId":"M"}'
    status, _, _ = live.call("POST", f"/{queue}/messages", b"rest", BrokerProperties=properties, Kind='"k"')
    assert status == 201
    (message,) = take(client, queue)
    assert (str(message), message.subject, message.correlation_id, message.message_id) == (
        "rest",
        "L",
        "C",
        "M",
    )
    assert message.application_properties == {b"Kind": b"k"}
    send(client, queue, "amqp", subject="S", application_properties={"n": 5})
    status, headers, body = live.call("DELETE", f"/{queue}/messages/head?timeout=5")
    assert (status, body, headers["n"]) == (200, b"amqp", "5")
    assert json.loads(headers["BrokerProperties"])["Label"] == "S"


def sent_until_busy(sender):
    for n in range(10):
        try:
            sender.send_messages(ServiceBusMessage(f"{n}" * 150_000))
        except ServiceBusServerBusyError:
            return n
    return None


def test_49_a_full_disk_is_a_busy_server(tmp_path):
    """What cannot be stored is refused and can be tried again; nothing that was stored is lost."""
    (tmp_path / "hubbub.toml").write_text(f'segment_bytes = {SEGMENT}\n[[queue]]\nname = "queue"')
    with running(tmp_path, "--config", "hubbub.toml") as live:
        process, kind = live.process.pid, resource.RLIMIT_FSIZE
        limits = resource.prlimit(process, kind)
        client = ServiceBusClient.from_connection_string(live.connection_string, retry_total=0)
        with client, client.get_queue_sender("queue") as sender:
            # The journal goes on in a second file, for which there is no room.
            resource.prlimit(process, kind, (SEGMENT - 1, limits[1]))
            sent = sent_until_busy(sender)
            assert 2 < sent < 10
            large = ServiceBusMessage("x" * 200_000)
            later = datetime.datetime(2100, 1, 1)
            with pytest.raises(ServiceBusServerBusyError):
                sender.schedule_messages(large, later)
            resource.prlimit(process, kind, limits)
            assert len(sender.schedule_messages(large, later)) == 1
            sender.send_messages(ServiceBusMessage("after"))
            kept = [f"{n}" * 150_000 for n in range(sent)]
            assert texts(take(client, "queue", sent + 1)) == [*kept, "after"]
