"""Odd but legitimate use of Service Bus, by the official clients and a plain one, against a real server process."""

from __future__ import annotations

import json
import threading
import uuid

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import MessagingEntityDisabledError, ServiceBusAuthenticationError
from proton import Message
from proton.utils import BlockingConnection

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
