"""Odd but legitimate use of Service Bus, by the official clients and a plain one, against a real server process."""

from __future__ import annotations

import datetime
import json
import threading
import uuid

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import (
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    ServiceBusAuthenticationError,
    ServiceBusError,
)
from proton import (
    UNDESCRIBED,
    Array,
    Data,
    Described,
    Message,
    byte,
    char,
    float32,
    int32,
    short,
    symbol,
    timestamp,
    ubyte,
    uint,
    ulong,
    ushort,
)
from proton.reactor import Filter
from proton.utils import BlockingConnection, LinkDetached

from live import ROOT, WELL_KNOWN, running

WAIT = 5
KEYS = {"one": "a2V5LW9uZS1rZXktb25lLWtleS1vbmU=", "two": "a2V5LXR3by1rZXktdHdvLWtleS10d28="}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("oddities"), "--memory") as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    with ServiceBusClient.from_connection_string(live.connection_string, retry_total=0) as client:
        yield client


@pytest.fixture
def queue(live, request):
    """A queue of the test's own."""
    name = f"q-{uuid.uuid4().hex[:8]}"
    change(live, name, **getattr(request, "param", {}))
    return name


@pytest.fixture
def plain(live):
    """A client without an SDK."""
    connection = connected(live.ready["amqp"], WELL_KNOWN)
    yield connection
    connection.close()


def connected(url, key, **options):
    return BlockingConnection(url, user=ROOT, password=key, allowed_mechs="PLAIN", timeout=10, **options)


def change(live, queue, **settings):
    path = f"/_hubbub/api/v1/queues/{queue.replace('/', '%2F')}"
    assert live.call("PUT", path, json.dumps(settings).encode())[0] in (200, 201)


class Management:
    """Requests to the `$management` node of an entity."""

    def __init__(self, connection, entity):
        address = f"{entity}/$management"
        self.sender, self.receiver = connection.create_sender(address), connection.create_receiver(address)

    def __call__(self, operation, **body):
        """Status, condition and body of the answer."""
        self.sender.send(Message(id="1", properties={"operation": f"com.microsoft:{operation}"}, body=body))
        found = self.receiver.receive(WAIT)
        return found.properties["statusCode"], found.properties.get("errorCondition"), found.body


# Names, properties and bodies.


@pytest.mark.parametrize("name", ["a/b/c", "UPPER/Case.With-Dots_x", "x~y", "/".join(["seg"] * 20)])
def test_names(live, client, plain, name):
    change(live, name)
    plain.create_sender(f"amqps://somewhere/{name.lower()}").send(Message(body=b"x"))
    with client.get_queue_receiver(name.upper()) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.dead_letter_message(message, reason="r")
    with client.get_queue_receiver(name, sub_queue="deadletter") as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert message.dead_letter_source == name
        receiver.renew_message_lock(message)
        receiver.complete_message(message)
    assert live.call("POST", f"/{name}/messages", b"y")[0] == 201
    assert live.call("DELETE", f"/{name}/messages/head?timeout=0")[2] == b"y"


BODIES = (
    *(None, True, ubyte(3), byte(-3), short(-5), ushort(5), uint(5), int32(-5), ulong(2**63), 2**62),
    *(float32(1.5), 1.5, char("é"), timestamp(5), uuid.UUID(int=7), "text 🎉", "", symbol("sym"), {}, []),
    *(
        [1, "x", None, [True]],
        {"k": {"n": [1]}},
        Described(symbol("my:type"), [1, 2]),
        Described(ulong(5), "x"),
    ),
    Array(UNDESCRIBED, Data.INT, 1, 2, 3),
)


def test_bodies_and_properties_of_every_type(plain, queue):
    sender, receiver = plain.create_sender(queue), plain.create_receiver(queue, credit=100)
    for value in BODIES:
        sender.send(
            Message(body=value, inferred=False, properties={"p": value}, annotations={symbol("a"): value})
        )
        found = receiver.receive(WAIT)
        receiver.accept()
        assert (found.body, type(found.body)) == (value, type(value))
        assert (found.properties, found.annotations["a"]) == ({"p": value}, value)
    for value in ([1, [2]], [], b"", b"x" * 200_000):
        sender.send(Message(body=value, inferred=True))
        found = receiver.receive(WAIT)
        receiver.accept()
        assert found.inferred
        assert (bytes(found.body) if isinstance(value, bytes) else found.body) == value


def test_texts_of_all_kinds(client, queue):
    sent = ServiceBusMessage(
        "жизнь 🎉",
        application_properties={
            "ключ": "🎉",
            "k" * 5000: "v",
            "long": "v" * 30_000,
            "": "no name",
            "none": None,
        },
        message_id="и🎉",
        subject="",
        to="до",
        reply_to="о",
        reply_to_session_id="с",
        correlation_id="",
    )
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(sent)
    with client.get_queue_receiver(queue) as receiver:
        (found,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.complete_message(found)
    assert str(found) == "жизнь 🎉"
    assert {
        name.decode(): value and value.decode() for name, value in found.application_properties.items()
    } == sent.application_properties
    for name in ("message_id", "subject", "to", "reply_to", "reply_to_session_id", "correlation_id"):
        assert getattr(found, name) == getattr(sent, name)


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"p": "v" * 33_000}, "property 'p' size"),
        ({str(n): "v" * 30_000 for n in range(3)}, "properties' size"),
    ],
)
def test_properties_have_limits(client, plain, queue, properties, text):
    with client.get_queue_sender(queue) as sender:
        with pytest.raises(MessageSizeExceededError, match=text):
            sender.send_messages(ServiceBusMessage("x", application_properties=properties))
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        with pytest.raises(MessageSizeExceededError, match=text):
            sender.schedule_messages(ServiceBusMessage("x", application_properties=properties), later)


def test_a_symbol_that_is_none(client, queue):
    with (
        client.get_queue_sender(queue) as sender,
        pytest.raises(ServiceBusError, match="a symbol holds bytes that are not ASCII"),
    ):
        sender.send_messages(ServiceBusMessage("x", content_type="text/плайн"))


class Session(Filter):
    def __init__(self, name):
        super().__init__({symbol("com.microsoft:session-filter"): name})


@pytest.mark.parametrize("queue", [{"requiresSession": True}], indirect=True)
@pytest.mark.parametrize("name", ["a/b?c=d&e", "  ", "$x", " é 🎉", "x" * 128])
def test_names_of_sessions(plain, queue, name):
    plain.create_sender(queue).send(Message(body="x", group_id=name))
    assert plain.create_receiver(queue, credit=1, options=Session(name)).receive(WAIT).group_id == name


def test_links_without_an_address(plain):
    for attach in (lambda: plain.create_sender(None), lambda: plain.create_receiver(None, dynamic=True)):
        with pytest.raises(LinkDetached, match="names no entity"):
            attach()


# Requests.


def test_peeking_without_bodies(plain, queue):
    body = [1, "x"]
    plain.create_sender(queue).send(Message(body=body, subject="s", properties={"k": 1}))
    ask = Management(plain, queue)
    many = {"from-sequence-number": 0, "message-count": int32(9)}
    for omit in (False, True):
        status, _, found = ask("peek-message", **many, **{"omit-message-body": omit})
        assert status == 200
        message = Message()
        message.decode(bytes(found["messages"][0]["message"]))
        assert (message.subject, message.properties) == ("s", {"k": 1})
        assert (bytes(message.body) == b"") if omit else (message.body == body)


@pytest.mark.parametrize("start", [0, 1, -1, -(2**63), 2, 10**6, 2**63 - 1])
def test_peeks_from_far_away(plain, queue, start):
    plain.create_sender(queue).send(Message(body=b"x"))
    many = {"from-sequence-number": start, "message-count": int32(9)}
    assert Management(plain, queue)("peek-message", **many)[0] == (200 if start < 2 else 204)


def test_a_lock_named_twice_settles_once(live, plain, queue):
    sender, ask = plain.create_sender(queue), Management(plain, queue)
    for body in ("dead", "alive"):
        sender.send(Message(body=body))
    for status, active, dead in (("suspended", 1, 1), ("abandoned", 1, 1), ("completed", 0, 1)):
        headers = live.call("POST", f"/{queue}/messages/head?timeout=0")[1]
        token = uuid.UUID(json.loads(headers["BrokerProperties"])["LockToken"])
        tokens = Array(UNDESCRIBED, Data.UUID, token, token)
        assert ask("update-disposition", **{"disposition-status": status, "lock-tokens": tokens})[0] == 200
        found = json.loads(live.call("GET", f"/_hubbub/api/v1/queues/{queue}")[2])
        assert (found["activeMessageCount"], found["deadLetterMessageCount"]) == (active, dead)


def test_changed_properties_have_a_limit(live, plain, queue):
    plain.create_sender(queue).send(Message(body="x"))
    ask = Management(plain, queue)
    for n, (status, condition) in enumerate(
        [(200, None), (200, None), (403, "amqp:link:message-size-exceeded")]
    ):
        headers = live.call("POST", f"/{queue}/messages/head?timeout=0")[1]
        token = uuid.UUID(json.loads(headers["BrokerProperties"])["LockToken"])
        tokens = Array(UNDESCRIBED, Data.UUID, token)
        change = {"properties-to-modify": {str(n): "v" * 30_000}}
        found = ask(
            "update-disposition", **{"disposition-status": "abandoned", "lock-tokens": tokens}, **change
        )
        assert found[:2] == (status, condition)


def test_scheduled_in_the_past(client, queue):
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    with client.get_queue_sender(queue) as sender:
        numbers = sender.schedule_messages([ServiceBusMessage("x")], past)
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(numbers)
    with client.get_queue_receiver(queue) as receiver:
        (found,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert ([found.sequence_number], found.scheduled_enqueue_time_utc) == (numbers, past)


def test_a_thousand_receivers(live, queue):
    """Each waits with one credit; fifty messages go to fifty of them."""
    connections = [connected(live.ready["amqp"], WELL_KNOWN) for _ in range(5)]
    receivers = [
        connection.create_receiver(queue, credit=1, name=str(n))
        for n in range(200)
        for connection in connections
    ]
    sender = connections[0].create_sender(queue)
    for n in range(50):
        sender.send(Message(body=n))
    for _ in range(500):
        for connection in connections:
            connection.container.do_work(timeout=0.001)
        found = [message.body for r in receivers for message, _ in r.fetcher.incoming]
        if len(found) == 50:
            break
    assert sorted(found) == list(range(50))
    for connection in connections:
        connection.close()


class TestDisabled:
    """Who waits when an entity is disabled for receiving hears it, and gets nothing that comes later."""

    def test_a_receiver(self, live, client, plain, queue):
        with client.get_queue_receiver(queue) as receiver:
            timer = threading.Timer(0.5, change, (live, queue), {"status": "ReceiveDisabled"})
            timer.start()
            with pytest.raises(MessagingEntityDisabledError):
                receiver.receive_messages(1, max_wait_time=WAIT)
            timer.join()
        plain.create_sender(queue).send(Message(body=b"x"))
        assert live.call("DELETE", f"/{queue}/messages/head?timeout=0")[0] == 403
        change(live, queue, status="Active")
        assert live.call("DELETE", f"/{queue}/messages/head?timeout=0")[0] == 200

    def test_a_receiver_over_http(self, live, queue):
        timer = threading.Timer(0.2, change, (live, queue), {"status": "Disabled"})
        timer.start()
        assert live.call("POST", f"/{queue}/messages/head?timeout={WAIT}")[0] == 403
        timer.join()

    @pytest.mark.parametrize("queue", [{"requiresSession": True}], indirect=True)
    def test_who_waits_for_a_session(self, live, client, queue):
        settings = {"requiresSession": True, "status": "ReceiveDisabled"}
        timer = threading.Timer(0.5, change, (live, queue), settings)
        timer.start()
        with (
            pytest.raises(MessagingEntityDisabledError),
            client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT),
        ):
            raise AssertionError("no session is to be had")
        timer.join()

    def test_what_is_locked_can_be_settled(self, live, client, queue):
        with client.get_queue_sender(queue) as sender:
            sender.send_messages(ServiceBusMessage("x"))
        with client.get_queue_receiver(queue) as receiver:
            (message,) = receiver.receive_messages(1, max_wait_time=WAIT)
            change(live, queue, status="ReceiveDisabled")
            receiver.complete_message(message)
        change(live, queue, status="Active")
        assert live.call("POST", f"/{queue}/messages/head?timeout=0")[0] == 204


def test_namespaces_with_a_connection_string_each(tmp_path):
    """The names of this machine mean the first, unless another one claims them."""
    tables = [
        f'[[namespace]]\nname = "{name}"\n{hosts}[[namespace.keys]]\nname = "{ROOT}"\nprimary = "{KEYS[name]}"\n'
        '[[namespace.queue]]\nname = "q"\n'
        for name, hosts in (("one", ""), ("two", 'hosts = ["127.0.0.1"]\n'))
    ]
    (tmp_path / "hubbub.toml").write_text("memory = true\n" + "".join(tables))
    with running(tmp_path, "--config", "hubbub.toml") as live:
        first = live.connection_string
        assert KEYS["one"] in first
        second = first.replace("localhost", "127.0.0.1").replace(KEYS["one"], KEYS["two"])
        for text, body in ((first, "1"), (second, "2")):
            with (
                ServiceBusClient.from_connection_string(text, retry_total=0) as client,
                client.get_queue_sender("q") as sender,
            ):
                sender.send_messages(ServiceBusMessage(body))
        for name, body in (("one", b"1"), ("two", b"2")):
            connection = connected(live.ready["amqp"], KEYS[name], virtual_host=name)
            found = connection.create_receiver("q", credit=1).receive(WAIT)
            assert bytes(found.body) == body
            connection.close()
        crossed = first.replace(KEYS["one"], KEYS["two"])
        with (
            ServiceBusClient.from_connection_string(crossed, retry_total=0) as client,
            pytest.raises(ServiceBusAuthenticationError),
            client.get_queue_sender("q"),
        ):
            raise AssertionError("the key is of the other namespace")


def test_too_many_who_wait(tmp_path):
    (tmp_path / "hubbub.toml").write_text(
        "memory = true\n[limits]\nreceives_max = 2\n[[queue]]\nname = 'q'\n"
    )
    with running(tmp_path, "--config", "hubbub.toml") as live:
        connection = connected(live.ready["amqp"], WELL_KNOWN)
        receivers = [connection.create_receiver("q", credit=1, name=str(n)) for n in range(2)]
        with pytest.raises(LinkDetached, match="2 receives wait"):
            connection.create_receiver("q", credit=1, name="2").receive(WAIT)
        connection.create_sender("q").send(Message(body="x"))
        assert receivers[0].receive(WAIT).body == "x"
        connection.close()
