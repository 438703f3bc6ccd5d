"""Messages that come by one protocol and leave by the other, unmodified clients on the AMQP side: properties
and types as the REST reference has them in section 4, the AMQP reference in 4.6."""

from __future__ import annotations

import base64
import datetime
import json
import uuid
from email.utils import format_datetime

import pytest
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.servicebus.management import (
    CorrelationRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
)
from plain import Plain

from live import running

WAIT = 10
MOMENT = datetime.datetime(2031, 12, 14, 1, 2, 3, tzinfo=datetime.UTC)
MOMENT_TEXT = format_datetime(MOMENT, usegmt=True)
BATCH = "application/vnd.microsoft.servicebus.json"


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("doors"), "--memory") as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with ServiceBusClient.from_connection_string(live.connection_string, retry_total=0) as client:
        yield client


def made(live, kind="queues", **description):
    name = f"e-{uuid.uuid4().hex[:8]}"
    body = json.dumps(description).encode()
    assert live.call("PUT", f"/_hubbub/api/v1/{kind}/{name}", body)[0] == 201
    return name


@pytest.fixture
def queue(live):
    return made(live)


# Over HTTP. Each raises if it is refused.


def post(live, entity, body=b"", broker=None, **headers):
    """`headers`: user properties as the texts of their headers."""
    if broker is not None:
        headers["BrokerProperties"] = json.dumps(broker)
    status, _, answer = live.call("POST", f"/{entity}/messages", body, **headers)
    assert status == 201, answer


def post_batch(live, entity, *items):
    status, _, answer = live.call(
        "POST", f"/{entity}/messages", json.dumps(items).encode(), Content_Type=BATCH
    )
    assert status == 201, answer


def delete(live, entity):
    """The next message: broker properties, headers, body; None if there is none."""
    status, headers, body = live.call("DELETE", f"/{entity}/messages/head?timeout=0")
    if status == 204:
        return None
    assert status == 200, body
    return json.loads(headers.pop("BrokerProperties")), headers, body


# Over AMQP.


def send(client, queue, *messages):
    with client.get_queue_sender(queue) as sender:
        for message in messages:
            sender.send_messages(message)


def take(client, queue, count=1, **options):
    with client.get_queue_receiver(
        queue, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, **options
    ) as receiver:
        return [receiver.receive_messages(1, max_wait_time=WAIT)[0] for _ in range(count)]


def user_properties(message):
    """With names as text, and texts as text."""
    return {
        name.decode(): value.decode() if isinstance(value, bytes) else value
        for name, value in (message.application_properties or {}).items()
    }


def typed(properties):
    return {name: (type(value).__name__, value) for name, value in properties.items()}


def milliseconds(moment):
    return int(moment.timestamp() * 1000)


def test_every_broker_property_from_http(live, client, queue):
    sent = {
        "CorrelationId": "c",
        "Label": "über",
        "MessageId": "m",
        "PartitionKey": "s",
        "ReplyTo": "r",
        "ReplyToSessionId": "rs",
        "SessionId": "s",
        "TimeToLive": 90.5,
        "To": "t",
        "ViaPartitionKey": "v",
        "State": "Active",
        "DeliveryCount": 99,
    }
    post(live, queue, b"\x00\xff body", sent, Content_Type="text/x-thing; charset=utf-8")
    (message,) = take(client, queue)
    assert (message.correlation_id, message.subject, message.message_id) == ("c", "über", "m")
    assert (message.partition_key, message.session_id, message.reply_to) == ("s", "s", "r")
    assert (message.reply_to_session_id, message.to) == ("rs", "t")
    assert message.content_type == "text/x-thing; charset=utf-8"
    assert message.time_to_live == datetime.timedelta(seconds=90.5)
    assert message.expires_at_utc == message.enqueued_time_utc + message.time_to_live
    assert (message.delivery_count, message.state.name, message.sequence_number) == (0, "ACTIVE", 1)
    raw = message.raw_amqp_message
    assert raw.annotations[b"x-opt-via-partition-key"] == b"v"
    assert (raw.body_type, b"".join(raw.body)) == (AmqpMessageBodyType.DATA, b"\x00\xff body")
    assert message.application_properties in (None, {})


def test_a_message_that_says_nothing(live, client, queue):
    post(live, queue, b"")
    (message,) = take(client, queue)
    assert len(message.message_id) == 32
    assert int(message.message_id, 16)
    assert b"".join(message.body) == b""
    assert (message.subject, message.session_id, message.partition_key, message.to) == (None,) * 4


def test_user_properties_of_every_type_from_http(live, client, queue):
    """A header's text says its type."""
    post(
        live,
        queue,
        text='"a \\"quoted\\" text"',
        number_text='"42"',
        bare="Strong Wind",
        true="true",
        false="false",
        True_="True",
        small="42",
        large="8555111000",
        beyond="99999999999999999999",
        real="3.14",
        exponent="-1e-3",
        moment=MOMENT_TEXT,
        quoted_moment=f'"{MOMENT_TEXT}"',
    )
    (message,) = take(client, queue)
    assert typed(user_properties(message)) == typed(
        {
            "text": 'a "quoted" text',
            "number-text": "42",
            "bare": "Strong Wind",
            "true": True,
            "false": False,
            "True-": "True",
            "small": 42,
            "large": 8555111000,
            "beyond": 1e20,
            "real": 3.14,
            "exponent": -0.001,
            "moment": milliseconds(MOMENT),
            "quoted-moment": milliseconds(MOMENT),
        }
    )


def test_a_batch_from_http(live, client, queue):
    user = {"text": "x", "yes": True, "small": 1, "large": 2**40, "real": 0.5, "none": None}
    post_batch(
        live,
        queue,
        {"Body": "é", "UserProperties": user, "BrokerProperties": {"Label": "l", "MessageId": "m"}},
        {"Body": base64.b64encode(b"\x00\x01").decode(), "IsBodyBase64": True},
        {"BrokerProperties": {"TimeToLiveTimeSpan": "0.00:00:40", "SessionId": "s"}},
    )
    first, second, third = take(client, queue, 3)
    assert (str(first), first.subject, first.message_id, first.content_type) == ("é", "l", "m", None)
    del user["none"]
    assert typed(user_properties(first)) == typed(user)
    assert b"".join(second.body) == b"\x00\x01"
    assert (third.time_to_live, third.session_id) == (datetime.timedelta(seconds=40), "s")


def test_every_property_from_amqp(live, client, queue):
    send(
        client,
        queue,
        ServiceBusMessage(
            "body",
            content_type="text/plain",
            correlation_id="c",
            message_id="m",
            partition_key="s",
            reply_to="r",
            reply_to_session_id="rs",
            session_id="s",
            subject="über",
            time_to_live=datetime.timedelta(seconds=90),
            to="t",
        ),
    )
    broker, headers, body = delete(live, queue)
    for name in ("EnqueuedTimeUtc", "EnqueuedSequenceNumber"):
        broker.pop(name, None)
    assert broker == {
        "CorrelationId": "c",
        "DeliveryCount": 1,
        "Label": "über",
        "MessageId": "m",
        "PartitionKey": "s",
        "ReplyTo": "r",
        "ReplyToSessionId": "rs",
        "SequenceNumber": 1,
        "SessionId": "s",
        "State": "Active",
        "TimeToLive": 90,
        "To": "t",
    }
    assert (headers["Content-Type"], body) == ("text/plain", b"body")


def test_user_properties_of_every_type_from_amqp(live, client, queue):
    guid = uuid.uuid4()
    sent = {
        "text": 'a "quoted" text',
        "lines": "one\r\nSet-Cookie: two",
        "yes": True,
        "no": False,
        "small": 42,
        "large": -(2**31),
        "real": 3.14,
        "guid": guid,
        "moment": MOMENT,
        "nothing": None,
        "no token": "x",
        "Location": "http://elsewhere",
    }
    send(client, queue, ServiceBusMessage("x", application_properties=sent))
    _, headers, _ = delete(live, queue)
    assert {name: headers[name] for name in sent if name in headers} == {
        "text": '"a \\"quoted\\" text"',
        "lines": '"one  Set-Cookie: two"',
        "yes": "true",
        "no": "false",
        "small": "42",
        "large": str(-(2**31)),
        "real": "3.14",
        "guid": f'"{guid}"',
        "moment": f'"{MOMENT_TEXT}"',
    }


def test_bodies_from_amqp(live, client, queue):
    bodies = [
        ({"data_body": [b"ab", b"cd"]}, b"abcd"),
        ({"data_body": b""}, b""),
        ({"value_body": "über"}, "über".encode()),
        ({"value_body": b"\x00\xff"}, b"\x00\xff"),
        # Other values as they are encoded.
        ({"value_body": True}, b"\x56\x01"),
    ]
    send(client, queue, *(AmqpAnnotatedMessage(**sections) for sections, _ in bodies))
    for _, expected in bodies:
        assert delete(live, queue)[2] == expected


def test_ids_of_every_type(live, client, queue):
    """They read as text, and are of their own type for who can have it."""
    ids = {uuid.UUID(int=1): str(uuid.UUID(int=1)), 7: "7", b"\x01\xff": "01ff"}
    sent = [
        AmqpAnnotatedMessage(data_body=b"x", properties={"message_id": one, "correlation_id": one})
        for one in ids
    ]
    send(client, queue, *sent, *sent)
    for text in ids.values():
        broker = delete(live, queue)[0]
        assert (broker["MessageId"], broker["CorrelationId"]) == (text, text)
    found = [message.raw_amqp_message.properties.message_id for message in take(client, queue, len(ids))]
    assert found == list(ids)


def test_settling_on_both_sides(live, client, queue):
    """One delivery count, one lock; who holds it, holds it for both."""
    send(client, queue, ServiceBusMessage("x"))
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert delete(live, queue) is None
        receiver.abandon_message(message)
        status, headers, _ = live.call("POST", f"/{queue}/messages/head?timeout=5")
        broker = json.loads(headers["BrokerProperties"])
        assert (status, broker["DeliveryCount"], broker["MessageId"]) == (201, 2, message.message_id)
        assert uuid.UUID(broker["LockToken"]) != message.lock_token
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
        (peeked,) = receiver.peek_messages(1, sequence_number=1)
        # The lock is another's.
        assert (str(peeked), peeked.lock_token) == ("x", None)
        where = (
            headers["Location"].removeprefix(f"http://localhost:{live.port}").removeprefix("http://localhost")
        )
        assert live.call("PUT", where)[0] == 200
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert message.delivery_count == 2
        receiver.complete_message(message)
        assert delete(live, queue) is None


def test_dead_letters_on_both_sides(live, client, queue):
    send(client, queue, ServiceBusMessage("x", application_properties={"kept": 1}), ServiceBusMessage("y"))
    with client.get_queue_receiver(queue) as receiver:
        for _ in range(2):
            (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
            receiver.dead_letter_message(message, reason="why", error_description='be"cause')
    broker, headers, body = delete(live, f"{queue}/$DeadLetterQueue")
    assert (broker["DeadLetterSource"], body) == (queue, b"x")
    assert (headers["DeadLetterReason"], headers["kept"]) == ('"why"', "1")
    assert headers["DeadLetterErrorDescription"] == '"be\\"cause"'
    (letter,) = take(client, queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    assert (str(letter), letter.dead_letter_reason) == ("y", "why")


def test_deferred_messages(live, client, queue):
    """Nobody who has no word for them can see them."""
    post(live, queue, b"deferred", {"Label": "l"}, n="1")
    with client.get_queue_receiver(queue) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.defer_message(message)
        assert delete(live, queue) is None
        (again,) = receiver.receive_deferred_messages([message.sequence_number])
        assert (str(again), again.subject, user_properties(again)) == ("deferred", "l", {"n": 1})
        receiver.complete_message(again)


def test_scheduled_messages(live, client, queue):
    post(live, queue, b"http", {"ScheduledEnqueueTimeUtc": MOMENT_TEXT})
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        sender.schedule_messages(ServiceBusMessage("amqp"), soon)
        peeked = receiver.peek_messages(5)
        assert [(str(m), m.state.name) for m in peeked] == [("http", "SCHEDULED"), ("amqp", "SCHEDULED")]
        assert peeked[0].scheduled_enqueue_time_utc == MOMENT
        assert delete(live, queue) is None
        sender.cancel_scheduled_messages(peeked[0].sequence_number)
        status, headers, body = live.call("DELETE", f"/{queue}/messages/head?timeout={WAIT}")
        assert (status, body) == (200, b"amqp")
        broker = json.loads(headers["BrokerProperties"])
        assert broker["ScheduledEnqueueTimeUtc"] == format_datetime(soon.replace(microsecond=0), usegmt=True)
        assert receiver.peek_messages(1, sequence_number=1) == []


def test_sessions(live, client):
    """HTTP can send to them; it cannot receive from them."""
    queue = made(live, requiresSession=True)
    status, _, body = live.call("POST", f"/{queue}/messages", b"x")
    assert (status, b"SessionId" in body) == (400, True)
    for session in "ab":
        post(live, queue, session.encode(), {"SessionId": session})
    for method in ("POST", "DELETE"):
        status, _, body = live.call(method, f"/{queue}/messages/head?timeout=0")
        assert (status, b"session" in body) == (400, True)
    (message,) = take(client, queue, session_id="b")
    assert (str(message), message.session_id) == ("b", "b")


def test_subscriptions_with_rules(live, client):
    """Rules see the same types whichever way a message came; what an action changed leaves by both."""
    topic = made(live, "topics")
    rules = {
        "number": (SqlRuleFilter("n > 5 AND sys.Label = 'l'"), None),
        "moment": (SqlRuleFilter("flag = TRUE AND EXISTS (moment)"), None),
        "label": (CorrelationRuleFilter(label="l", properties={"n": 9}), None),
        "action": (
            SqlRuleFilter("n = 9"),
            SqlRuleAction("SET n = n + 1; SET sys.Label = 'new'; REMOVE flag"),
        ),
    }
    with ServiceBusAdministrationClient.from_connection_string(
        live.connection_string, transport=Plain()
    ) as admin:
        for name, (chosen, action) in rules.items():
            admin.create_subscription(topic, name)
            admin.delete_rule(topic, name, "$Default")
            admin.create_rule(topic, name, "r", filter=chosen, action=action)
    post(live, topic, b"http", {"Label": "l"}, n="9", flag="true", moment=MOMENT_TEXT)
    properties = {"n": 9, "flag": True, "moment": MOMENT}
    with client.get_topic_sender(topic) as sender:
        sender.send_messages(ServiceBusMessage("amqp", subject="l", application_properties=properties))
        sender.send_messages(ServiceBusMessage("none", subject="l", application_properties={"n": "9"}))
    for name in rules:
        found = [delete(live, f"{topic}/subscriptions/{name}") for _ in range(3)]
        assert [one and one[2] for one in found] == [b"http", b"amqp", None], name
        if name == "action":
            for broker, headers, _ in found[:2]:
                assert (broker["Label"], headers["n"], headers.get("flag")) == ("new", "10", None)
                assert headers["moment"] == f'"{MOMENT_TEXT}"'
