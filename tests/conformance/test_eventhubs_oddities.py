"""Odd but legitimate use of event hubs, by the official client and a plain one, against a real server process."""

from __future__ import annotations

import json
import uuid

import pytest
from proton import Message
from proton.utils import BlockingConnection, LinkDetached, SendException

from live import ROOT, WELL_KNOWN, running


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("oddities"), "--memory") as live:
        yield live


@pytest.fixture
def hub(live):
    name = f"h-{uuid.uuid4().hex[:8]}"
    change(live, name)
    return name


@pytest.fixture
def plain(live):
    """A client without an SDK."""
    port = live.connection_string.split("localhost:")[1].split(";")[0].strip("/")
    url = f"amqp://127.0.0.1:{port}"
    connection = BlockingConnection(url, user=ROOT, password=WELL_KNOWN, allowed_mechs="PLAIN", timeout=10)
    yield connection
    connection.close()


def change(live, hub, **settings):
    body = json.dumps({"partitionCount": 1} | settings).encode()
    assert live.call("PUT", f"/_hubbub/api/v1/hubs/{hub}", body)[0] in (200, 201)


def body_of(receiver):
    message = receiver.receive(5)  # Its body is a view of memory that goes with it.
    return bytes(message.body)


def test_a_hub_disabled_for_receiving_has_no_readers(live, hub, plain):
    address = f"{hub}/ConsumerGroups/$Default/Partitions/0"
    sender = plain.create_sender(hub)
    reader = plain.create_receiver(address, credit=10)
    sender.send(Message(body=b"a"))
    assert body_of(reader) == b"a"
    change(live, hub, status="SendDisabled")
    with pytest.raises(SendException, match="37"):  # rejected
        sender.send(Message(body=b"b"))
    change(live, hub, status="Disabled")
    with pytest.raises(LinkDetached, match="entity-disabled"):
        reader.receive(5)
    with pytest.raises(LinkDetached, match="disabled for receiving"):
        plain.create_receiver(address, credit=10).receive(5)
    change(live, hub, status="Active")
    again = plain.create_receiver(address, credit=10)
    assert body_of(again) == b"a"
