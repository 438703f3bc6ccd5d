"""Forwarding, its dead letters and idle entities, by the official clients against a real server process."""

from __future__ import annotations

import datetime
import json
import re
import time
import uuid

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.exceptions import ServiceBusError
from azure.servicebus.management import AuthorizationRule, ServiceBusAdministrationClient

from hubbub.broker.access import sas_token
from live import FAR, ROOT, WELL_KNOWN, running

WAIT = 5
AND_DELETE = ServiceBusReceiveMode.RECEIVE_AND_DELETE
ENTRY = (
    '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><QueueDescription'
    ' xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect">{}</QueueDescription>'
    "</content></entry>"
)
REFUSED = "Cannot create a message receiver on an entity with auto-forwarding enabled"


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("forwarding"), "--memory") as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with ServiceBusClient.from_connection_string(live.connection_string, retry_total=0) as client:
        yield client


class Plain(RequestsTransport):
    """The client would speak TLS; the server does without here."""

    def send(self, request, **options):
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **options)


@pytest.fixture(scope="module")
def admin(live):
    text = f"Endpoint=sb://localhost:{live.port};SharedAccessKeyName={ROOT};SharedAccessKey={WELL_KNOWN}"
    found = ServiceBusAdministrationClient.from_connection_string(text, retry_total=0, transport=Plain())
    with found as admin:
        yield admin


@pytest.fixture
def names():
    """Three names nobody else has."""
    mark = uuid.uuid4().hex[:8]
    return [f"{letter}-{mark}" for letter in "abc"]


def send(client, path, *bodies, **properties):
    with client.get_queue_sender(path) as sender:
        sender.send_messages([ServiceBusMessage(body, **properties) for body in bodies])


def take(client, path, count=1, **options):
    with client.get_queue_receiver(path, receive_mode=AND_DELETE, **options) as receiver:
        return receiver.receive_messages(count, max_wait_time=WAIT)


def texts(messages):
    return [str(message) for message in messages]


def test_a_queue_forwards_to_a_queue(client, admin, names):
    a, b, _ = names
    admin.create_queue(b)
    made = admin.create_queue(a, forward_to=b)
    assert made.forward_to.endswith(f"/{b}")
    assert admin.get_queue(a).forward_to == made.forward_to
    send(client, b, "first")
    send(client, a, "x", "y", application_properties={"k": 1}, subject="s", message_id="m")
    first, x, y = take(client, b, 3)
    assert texts((first, x, y)) == ["first", "x", "y"]
    assert (x.sequence_number, x.enqueued_sequence_number) == (2, 1)
    assert (x.application_properties, x.subject, x.message_id) == ({b"k": 1}, "s", "m")
    assert (y.delivery_count, y.dead_letter_source) == (0, None)
    assert abs(x.enqueued_time_utc.timestamp() - time.time()) < 60
    found = admin.get_queue_runtime_properties(a)
    assert (found.total_message_count, found.transfer_message_count) == (0, 0)


def test_a_subscription_forwards_through_a_topic(client, admin, names):
    a, b, c = names
    admin.create_topic(a)
    admin.create_topic(b)
    admin.create_queue(c)
    admin.create_subscription(b, "to-queue", forward_to=c)
    admin.create_subscription(a, "to-topic", forward_to=b)
    admin.create_subscription(a, "plain")
    with client.get_topic_sender(a) as sender:
        sender.send_messages(ServiceBusMessage("x"))
    assert texts(take(client, c)) == ["x"]
    with client.get_subscription_receiver(a, "plain", receive_mode=AND_DELETE) as receiver:
        assert texts(receiver.receive_messages(1, max_wait_time=WAIT)) == ["x"]


def test_nobody_receives_from_who_forwards(client, admin, names):
    a, b, _ = names
    admin.create_queue(b)
    admin.create_queue(a)
    with client.get_queue_receiver(a) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.2) == []
        described = admin.get_queue(a)
        described.forward_to = b
        admin.update_queue(described)
        with pytest.raises(ServiceBusError, match=REFUSED):
            receiver.receive_messages(1, max_wait_time=WAIT)
    with pytest.raises(ServiceBusError, match=REFUSED):
        take(client, a)
    send(client, a, "x")
    assert texts(take(client, b)) == ["x"]
    described.forward_to = None
    admin.update_queue(described)
    send(client, a, "stays")
    assert texts(take(client, a)) == ["stays"]


def test_what_is_scheduled_goes_when_it_is_due(client, admin, names):
    a, b, _ = names
    admin.create_queue(b)
    admin.create_queue(a, forward_to=b)
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1.5)
    with client.get_queue_sender(a) as sender:
        (number,) = sender.schedule_messages(ServiceBusMessage("later"), due)
        (gone,) = sender.schedule_messages(ServiceBusMessage("never"), due)
        sender.cancel_scheduled_messages(gone)
    assert admin.get_queue_runtime_properties(a).scheduled_message_count == 1
    (found,) = take(client, b)
    assert (str(found), found.enqueued_sequence_number) == ("later", number)
    assert datetime.datetime.now(datetime.UTC) >= due


def test_five_hops_are_too_many(client, admin, names):
    path = names[0]
    admin.create_queue(f"{path}0")
    for n in range(5):
        admin.create_queue(f"{path}{n + 1}", forward_to=f"{path}{n}")
    send(client, f"{path}5", "too far")
    send(client, f"{path}4", "arrives")
    assert texts(take(client, f"{path}0")) == ["arrives"]
    (dead,) = take(client, f"{path}1", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    assert dead.dead_letter_reason == "MaxTransferHopCountExceeded"
    assert dead.dead_letter_error_description == "Maximum transfer hop count is exceeded."


def test_without_a_target_messages_are_dead_letters(client, admin, names):
    a, b, _ = names
    admin.create_queue(b)
    admin.create_queue(a, forward_to=b)
    admin.delete_queue(b)
    send(client, a, "x")
    assert admin.get_queue_runtime_properties(a).dead_letter_message_count == 1
    (dead,) = take(client, a, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    assert (str(dead), dead.dead_letter_reason) == ("x", "MessagingEntityNotFoundException")


def test_dead_letters_go_to_their_target(client, admin, names):
    a, b, _ = names
    admin.create_queue(b)
    admin.create_queue(a, forward_dead_lettered_messages_to=b)
    send(client, a, "x")
    with client.get_queue_receiver(a) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.dead_letter_message(message, reason="why", error_description="because")
    (dead,) = take(client, b)
    assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("why", "because")
    assert (dead.dead_letter_source, dead.enqueued_sequence_number) == (a, 1)
    assert admin.get_queue_runtime_properties(a).dead_letter_message_count == 0
    with pytest.raises(ServiceBusError, match=REFUSED):
        take(client, a, sub_queue=ServiceBusSubQueue.DEAD_LETTER)


def test_transfer_dead_letters_are_a_sub_queue(live, client, admin, names):
    a, _, _ = names
    admin.create_queue(a)
    with client.get_queue_receiver(a, sub_queue=ServiceBusSubQueue.TRANSFER_DEAD_LETTER) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.2) == []
        assert receiver.peek_messages() == []
    assert live.call("DELETE", f"/{a}/$Transfer/$DeadLetterQueue/messages/head?timeout=0")[0] == 204
    assert admin.get_queue_runtime_properties(a).transfer_dead_letter_message_count == 0


def test_over_rest(live, admin, names):
    a, b, _ = names
    assert live.call("PUT", f"/{b}", ENTRY.format("").encode())[0] == 201
    status, _, body = live.call("PUT", f"/{a}", ENTRY.format(f"<ForwardTo>{b}</ForwardTo>").encode())
    assert (status, f"<ForwardTo>{b}</ForwardTo>".encode() in body) == (201, True)
    assert live.call("POST", f"/{a}/messages", b"x", Content_Type="text/plain")[0] == 201
    status, headers, body = live.call("DELETE", f"/{b}/messages/head?timeout=5")
    assert (status, body) == (200, b"x")
    assert json.loads(headers["BrokerProperties"])["EnqueuedSequenceNumber"] == 1
    status, _, body = live.call("DELETE", f"/{a}/messages/head?timeout=0")
    assert (status, REFUSED.encode() in body) == (400, True)
    status, _, body = live.call("GET", f"/_hubbub/api/v1/queues/{a}")
    assert (status, json.loads(body)["forwardTo"]) == (200, b)


def test_what_is_refused(admin, names):
    a, b, _ = names
    with pytest.raises(HttpResponseError, match="forwarding destination entity does not exist"):
        admin.create_queue(a, forward_to=b)
    admin.create_queue(b)
    with pytest.raises(HttpResponseError, match="Both RequiresSession and ForwardTo"):
        admin.create_queue(a, forward_to=b, requires_session=True)
    described = admin.get_queue(b)
    described.forward_to = b
    with pytest.raises(HttpResponseError, match="auto-forwarding policy to itself"):
        admin.update_queue(described)


def test_both_entities_must_let_them(live, admin, names):
    a, b, c = names
    rule = AuthorizationRule(
        type="SharedAccessAuthorizationRule",
        claim_type="SharedAccessKey",
        claim_value="None",
        rights=["Manage", "Send", "Listen"],
        key_name="own",
        primary_key=WELL_KNOWN,
    )
    for path in (a, b):
        admin.create_queue(path, authorization_rules=[rule])
    admin.create_queue(c)
    tokens = {path: sas_token(f"sb://localhost/{path}", "own", WELL_KNOWN, FAR) for path in (a, b)}

    shown = live.call("GET", f"/{a}")[2].decode()
    rules = re.search("<AuthorizationRules>.*</AuthorizationRules>", shown, re.DOTALL)[0]
    rules = rules.replace("i:type", 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:type')

    def put(target, **headers):
        body = ENTRY.format(f"{rules}<ForwardTo>{target}</ForwardTo>").encode()
        return live.call("PUT", f"/{a}", body, auth=tokens[a], If_Match="*", **headers)[0]

    assert put(b) == 401
    assert put(c, ServiceBusSupplementaryAuthorization=tokens[b]) == 401
    assert put(b, ServiceBusSupplementaryAuthorization="SharedAccessSignature sr=x") == 401
    assert put(b, ServiceBusDlqSupplementaryAuthorization=tokens[b]) == 401
    assert put(b, ServiceBusSupplementaryAuthorization=tokens[b]) == 200
    assert put(b) == 200, "what was there needs no new right"


def test_idle_entities_have_a_length(admin, names):
    a, b, _ = names
    length = datetime.timedelta(minutes=5)
    assert admin.create_queue(a, auto_delete_on_idle=length).auto_delete_on_idle == length
    forwarding = admin.create_queue(b, auto_delete_on_idle=length, forward_to=a)
    assert forwarding.auto_delete_on_idle > datetime.timedelta(days=10675198)


def test_numbers_of_a_partitioned_queue(client, admin, names):
    a, b, _ = names
    admin.create_queue(b, enable_partitioning=True)
    admin.create_queue(a, enable_partitioning=True, forward_to=b)
    assert admin.get_queue(a).enable_partitioning
    send(client, b, "one", "two", partition_key="k")
    send(client, a, "three")
    one, two, three = take(client, b, 3)
    assert two.sequence_number == one.sequence_number + 1
    marks = [m.raw_amqp_message.annotations[b"x-opt-partition-id"] for m in (one, two, three)]
    assert marks == [m.sequence_number >> 48 for m in (one, two, three)]
    assert three.enqueued_sequence_number & (1 << 48) - 1 == 1
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    with client.get_queue_sender(b) as sender:
        numbers = sender.schedule_messages([ServiceBusMessage("x", message_id=f"{n}") for n in range(9)], due)
        assert len({number >> 48 for number in numbers}) > 1
        sender.cancel_scheduled_messages(numbers)
    assert admin.get_queue_runtime_properties(b).total_message_count == 0


CONFIG = """
[[namespace]]
name = "ns"
[[namespace.queue]]
name = "first"
forward_to = "second"
[[namespace.queue]]
name = "second"
forward_to = "third"
forward_dead_letters_to = "first"
[[namespace.queue]]
name = "third"
forward_dead_letters_to = "second"
"""


def test_a_configuration_in_any_order_and_kill_9(tmp_path):
    """Each message that was acknowledged is at the end of the way, once."""
    (tmp_path / "hubbub.toml").write_text(CONFIG)
    flags = ("--config", "hubbub.toml", "--data", str(tmp_path / "data"))
    sent = []
    for round in range(3):
        with running(tmp_path, *flags) as live:
            for n in range(100):
                body = f"{round}-{n}"
                if live.call("POST", "/first/messages", body.encode())[0] == 201:
                    sent.append(body)
            live.kill()
    with running(tmp_path, *flags) as live:
        found = []
        while (reply := live.call("DELETE", "/third/messages/head?timeout=0"))[0] == 200:
            found.append(reply[2].decode())
        assert found == sent
        assert live.call("DELETE", "/second/messages/head?timeout=0")[0] == 400
