"""The official Event Hubs clients, unmodified, against a real server process: checks 1 to 24 by number."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import signal
import threading
import time
import uuid

import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, TransportType
from azure.eventhub._eventprocessor.in_memory_checkpoint_store import InMemoryCheckpointStore
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumerClient
from azure.eventhub.aio import EventHubProducerClient as AsyncProducerClient
from azure.eventhub.exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    EventDataSendError,
    EventHubError,
)
from proton import ConnectionException, Message
from proton.utils import BlockingConnection, LinkDetached

from hubbub.broker.access import sas_token
from live import FAR, ROOT, WELL_KNOWN, running

WAIT = 15


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eventhubs")
    (folder / "hubbub.toml").write_text("memory = true\n[limits]\nhubs_max = 0\n[[hub]]\nname = 'events'\n")
    flags = ("--config", "hubbub.toml", "--tls", "auto", "--https-port", "0", "--data", str(folder))
    with running(folder, *flags) as live:
        live.authority = str(next((folder / "tls").glob("*ca*.pem")))
        yield live


@pytest.fixture
def hub(live, request):
    """A hub of the test's own."""
    name = f"h-{uuid.uuid4().hex[:8]}"
    partitions = getattr(request, "param", 2)
    body = json.dumps({"partitionCount": partitions}).encode()
    assert live.call("PUT", f"/_hubbub/api/v1/hubs/{name}", body)[0] == 201
    return name


def producer(live, hub, **options):
    return EventHubProducerClient.from_connection_string(
        live.connection_string, eventhub_name=hub, retry_total=0, **options
    )


def send(live, hub, *bodies, **where):
    with producer(live, hub) as client:
        batch = client.create_batch(**where)
        for body in bodies:
            batch.add(EventData(body))
        client.send_batch(batch)


class Reading:
    """A consumer in a thread of its own, and what it got."""

    def __init__(self, live, hub, **options):
        self.events = []
        self.errors = []
        self.contexts = []
        receive = {name: options.pop(name) for name in list(options) if name not in _CLIENT}
        options.setdefault("consumer_group", "$Default")
        self.client = EventHubConsumerClient.from_connection_string(
            live.connection_string, eventhub_name=hub, retry_total=0, **options
        )
        receive.setdefault("starting_position", "-1")
        self._thread = threading.Thread(target=self._run, args=(receive,), daemon=True)
        self._thread.start()

    def _run(self, receive):
        self.client.receive(
            on_event=self._on_event, on_error=lambda context, error: self.errors.append(error), **receive
        )

    def _on_event(self, context, event):
        if event is not None:
            self.contexts.append(context)
            self.events.append(event)

    def until(self, count, seconds=WAIT):
        until(lambda: len(self.events) >= count, seconds)
        return [b"".join(event.body).decode("utf-8", "replace") for event in self.events]

    def close(self):
        self.client.close()
        self._thread.join(WAIT)


_CLIENT = ("consumer_group", "checkpoint_store", "load_balancing_interval", "transport_type")


@contextlib.contextmanager
def reading(live, hub, **options):
    found = Reading(live, hub, **options)
    try:
        yield found
    finally:
        found.close()


def until(true, seconds=WAIT):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)


class TestAsking:
    def test_01_02_properties(self, live, hub):
        with producer(live, hub) as client:
            found = client.get_eventhub_properties()
            assert (found["eventhub_name"], found["partition_ids"]) == (hub, ["0", "1"])
            assert abs(datetime.datetime.now(datetime.UTC) - found["created_at"]).seconds < 60
            empty = client.get_partition_properties("0")
            assert (empty["is_empty"], empty["last_enqueued_sequence_number"]) == (True, -1)
            assert (empty["last_enqueued_offset"], empty["beginning_sequence_number"]) == ("-1", 0)
        send(live, hub, "a", "b", partition_id="1")
        with producer(live, hub) as client:
            full = client.get_partition_properties("1")
        assert (full["is_empty"], full["last_enqueued_sequence_number"]) == (False, 1)
        assert full["last_enqueued_time_utc"].year > 2020

    def test_23_a_hub_that_is_not_there(self, live):
        with producer(live, "nowhere") as client, pytest.raises(EventHubError):
            client.get_eventhub_properties()
        with producer(live, "nowhere") as client, pytest.raises(EventHubError):
            client.send_event(EventData("x"))


class TestSending:
    def test_04_the_size_of_a_batch(self, live, hub):
        with producer(live, hub) as client:
            assert client.create_batch().max_size_in_bytes == 1048576

    def test_05_a_thousand_at_once(self, live, hub):
        bodies = [f"{n:04}" + "x" * 1000 for n in range(1000)]
        send(live, hub, *bodies, partition_id="1")
        # One partition only: this client asks all of them in turn, and waits at each empty one.
        with reading(live, hub, partition_id="1") as found:
            assert found.until(1000) == bodies
            assert [event.sequence_number for event in found.events] == list(range(1000))

    def test_06_many_frames(self, live, hub):
        body = bytes(range(256)) * 800
        with producer(live, hub) as client:
            client.send_batch([EventData(body)], partition_id="0")
        with reading(live, hub, partition_id="0") as found:
            found.until(1)
            assert b"".join(found.events[0].body) == body

    @pytest.mark.parametrize("hub", [8], indirect=True)
    def test_08_keys(self, live, hub):
        for _ in range(2):
            for key in ("alphabet", "key", "7"):
                send(live, hub, key, partition_key=key)
        with reading(live, hub) as found:
            found.until(6)
        placed = {
            (e.body_as_str(), c.partition_id) for e, c in zip(found.events, found.contexts, strict=True)
        }
        assert placed == {("alphabet", "6"), ("key", "3"), ("7", "7")}
        assert {event.partition_key for event in found.events} == {b"alphabet", b"key", b"7"}

    def test_09_a_partition_that_is_not_there(self, live, hub):
        with producer(live, hub) as client, pytest.raises(EventHubError):
            client.send_batch([EventData("x")], partition_id="9")

    def test_too_large(self, live, hub):
        with producer(live, hub) as client, pytest.raises((EventHubError, ValueError)):
            client.send_batch([EventData("x" * 2_000_000)])
        send(live, hub, "still works")

    def test_buffered(self, live, hub):
        sent, failed = [], []
        client = EventHubProducerClient.from_connection_string(
            live.connection_string,
            eventhub_name=hub,
            buffered_mode=True,
            max_wait_time=1,
            on_success=lambda events, partition: sent.extend(events),
            on_error=lambda events, partition, error: failed.append(error),
        )
        with client:
            for n in range(50):
                client.send_event(EventData(f"{n}"))
            client.flush()
        assert (len(sent), failed) == (50, [])
        with reading(live, hub) as found:
            assert sorted(map(int, found.until(50))) == list(range(50))

    def test_properties_come_back_with_their_types(self, live, hub):
        event = EventData("x")
        moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
        given = {
            "i": 5,
            "f": 2.5,
            "b": True,
            "s": "text",
            "u": uuid.UUID(int=9),
            "t": moment,
            "y": b"raw",
        }
        event.properties = given
        event.content_type, event.correlation_id, event.message_id = "text/x", "c", "m"
        with producer(live, hub) as client:
            client.send_event(event, partition_id="0")
        with reading(live, hub, partition_id="0") as found:
            found.until(1)
            got = found.events[0]
        plain = {k.decode() if isinstance(k, bytes) else k: v for k, v in got.properties.items()}
        assert plain["s"] in ("text", b"text")
        assert {k: plain[k] for k in ("i", "f", "b", "u", "y")} == {
            k: given[k] for k in ("i", "f", "b", "u", "y")
        }
        assert (got.content_type, got.correlation_id, got.message_id) == ("text/x", "c", "m")


class TestReading:
    @pytest.fixture
    def five(self, live, hub):
        """Each of a moment of its own; each new client would cost its second."""
        with producer(live, hub) as client:
            for n in range(5):
                client.send_event(EventData(f"{n}"), partition_id="0")
                time.sleep(0.005)
        return hub

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"starting_position": "-1"}, "01234"),
            ({"starting_position": "2"}, "34"),
            ({"starting_position": "2", "starting_position_inclusive": True}, "234"),
            ({"starting_position": 1}, "234"),
            ({"starting_position": 1, "starting_position_inclusive": True}, "1234"),
            ({"starting_position": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}, "01234"),
        ],
        ids=["10 start", "11 offset", "12 inclusive", "13 sequence", "13 inclusive", "14 time"],
    )
    def test_positions(self, live, five, options, expected):
        with reading(live, five, partition_id="0", **options) as found:
            found.until(len(expected))
            time.sleep(0.1)
            assert "".join(found.until(len(expected))) == expected

    def test_14_by_time(self, live, five):
        with reading(live, five, partition_id="0") as found:
            found.until(5)
        middle = found.events[2].enqueued_time
        with reading(live, five, partition_id="0", starting_position=middle) as after:
            assert "".join(after.until(2)) == "34"

    def test_15_latest(self, live, five):
        with reading(live, five, partition_id="0", starting_position="@latest") as found:
            until(lambda: found.client._event_processors)
            time.sleep(1.5)
            send(live, five, "new", partition_id="0")
            assert found.until(1) == ["new"]

    def test_16_a_higher_owner_steals(self, live, five):
        with reading(live, five, owner_level=0, partition_id="0") as first:
            first.until(5)
            with reading(live, five, owner_level=1, partition_id="0") as second:
                assert len(second.until(5)) == 5
                until(lambda: first.errors)
                assert isinstance(first.errors[0], ConnectionLostError)
                assert "stolen" in str(first.errors[0])

    def test_17_a_lower_one_may_not(self, live, five):
        with reading(live, five, owner_level=2, partition_id="0") as first:
            first.until(5)
            with reading(live, five, owner_level=1, partition_id="0") as second:
                until(lambda: second.errors)
                assert "stolen" in str(second.errors[0])
            send(live, five, "on", partition_id="0")
            first.until(6)

    def test_18_five_readers_and_no_more(self, live, five):
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(reading(live, five, partition_id="0")).until(5)
            sixth = stack.enter_context(reading(live, five, partition_id="0"))
            until(lambda: sixth.errors)
            assert "resource-limit-exceeded" in str(sixth.errors[0])

    def test_19_what_is_last(self, live, five):
        with reading(live, five, track_last_enqueued_event_properties=True, partition_id="0") as found:
            found.until(5)
            last = found.contexts[0].last_enqueued_event_properties
        assert (last["sequence_number"], last["offset"]) == (4, "4")
        assert last["enqueued_time"] == found.events[4].enqueued_time
        assert last["retrieval_time"]

    def test_20_checkpoints(self, live, five):
        store = InMemoryCheckpointStore()
        with reading(live, five, checkpoint_store=store, load_balancing_interval=0.5) as first:
            first.until(5)
            first.contexts[2].update_checkpoint(first.events[2])
        with reading(live, five, checkpoint_store=store, load_balancing_interval=0.5) as second:
            assert "".join(second.until(2)) == "34"

    def test_21_two_share(self, live, hub):
        for partition in "01":
            send(live, hub, *[f"{partition}{n}" for n in range(5)], partition_id=partition)
        store = InMemoryCheckpointStore()
        options = {"checkpoint_store": store, "load_balancing_interval": 0.5}
        with reading(live, hub, **options) as first, reading(live, hub, **options) as second:
            until(lambda: len({e.body_as_str() for e in first.events + second.events}) == 10)

            until(lambda: len({c.partition_id for c in first.contexts + second.contexts}) == 2)

    def test_batches(self, live, five):
        batches = []
        client = EventHubConsumerClient.from_connection_string(
            live.connection_string, consumer_group="$Default", eventhub_name=five, retry_total=0
        )
        thread = threading.Thread(
            target=lambda: client.receive_batch(
                on_event_batch=lambda context, events: batches.append([e.body_as_str() for e in events]),
                starting_position="-1",
                max_batch_size=3,
                partition_id="0",
            )
        )
        thread.start()
        until(lambda: sum(map(len, batches)) == 5)
        client.close()
        thread.join(WAIT)
        assert [body for batch in batches for body in batch] == list("01234")
        assert max(map(len, batches)) <= 3

    def test_a_group_that_is_not_there(self, live, five):
        with reading(live, five, consumer_group="nobody") as found:
            until(lambda: found.errors)
            assert "not-found" in str(found.errors[0])


class TestAsync:
    def test_send_and_receive(self, live, hub):
        async def main():
            client = AsyncProducerClient.from_connection_string(
                live.connection_string, eventhub_name=hub, retry_total=0
            )
            async with client:
                batch = await client.create_batch(partition_id="0")
                for n in range(100):
                    batch.add(EventData(f"{n}"))
                await client.send_batch(batch)
                assert await client.get_partition_ids() == ["0", "1"]
            got = []
            done = asyncio.Event()

            async def on_event(context, event):
                got.append(int(event.body_as_str()))
                if len(got) == 100:
                    done.set()

            consumer = AsyncConsumerClient.from_connection_string(
                live.connection_string, consumer_group="$Default", eventhub_name=hub, retry_total=0
            )
            async with consumer:
                task = asyncio.create_task(consumer.receive(on_event=on_event, starting_position="-1"))
                await asyncio.wait_for(done.wait(), WAIT)
                task.cancel()
            assert got == list(range(100))

        asyncio.run(main())


class _Token:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, FAR)


class TestCredentials:
    def test_24_a_wrong_key(self, live, hub):
        text = live.connection_string.replace(WELL_KNOWN, "wrong-key")
        began = time.monotonic()
        client = EventHubProducerClient.from_connection_string(text, eventhub_name=hub, retry_total=0)
        with client, pytest.raises((AuthenticationError, ConnectError)):
            client.send_event(EventData("x"))
        assert time.monotonic() - began < 3

    def test_a_signature_and_a_named_key(self, live, hub):
        where = {"fully_qualified_namespace": "localhost", "eventhub_name": hub}
        secure = {
            "connection_verify": live.authority,
            "custom_endpoint_address": live.ready["https"].replace("https", "sb"),
            "transport_type": TransportType.Amqp,
            "retry_total": 0,
        }
        token = sas_token(f"sb://localhost/{hub}", ROOT, WELL_KNOWN, FAR)
        for credential in (AzureSasCredential(token), AzureNamedKeyCredential(ROOT, WELL_KNOWN)):
            with EventHubProducerClient(**where, credential=credential, **secure) as client:
                client.send_event(EventData("x"))
        elsewhere = AzureSasCredential(sas_token("sb://localhost/other", ROOT, WELL_KNOWN, FAR))
        with (
            EventHubProducerClient(**where, credential=elsewhere, **secure) as client,
            pytest.raises(EventHubError),
        ):
            client.send_event(EventData("x"))

    def test_rights_count(self, live, hub):
        rules = [{"name": "listener", "rights": ["Listen"], "primary": "bGlzdGVuZXI="}]
        del rules  # Rules of hubs come by ATOM; see the management cases. Here: no right at all.
        token = sas_token(f"sb://localhost/{hub}", "nobody", WELL_KNOWN, FAR)
        text = f"{live.connection_string.split(';')[0]};SharedAccessSignature={token};UseDevelopmentEmulator=true"
        client = EventHubProducerClient.from_connection_string(text, eventhub_name=hub, retry_total=0)
        with client, pytest.raises(EventHubError):
            client.send_event(EventData("x"))


class TestTransports:
    @pytest.mark.parametrize(
        ("scheme", "transport"),
        [("http", TransportType.AmqpOverWebsocket), ("https", TransportType.AmqpOverWebsocket), ("https", TransportType.Amqp)],
        ids=["ws", "wss", "amqps"],
    )  # fmt: skip
    def test_each(self, live, hub, scheme, transport):
        text = live.connection_string
        if scheme == "https":
            text = text.replace("UseDevelopmentEmulator=true;", "")
        options = {
            "custom_endpoint_address": live.ready[scheme].replace(scheme, "sb"),
            "connection_verify": live.authority,
            "transport_type": transport,
        }
        client = EventHubProducerClient.from_connection_string(
            text, eventhub_name=hub, retry_total=0, **options
        )
        with client:
            client.send_batch([EventData(b"x" * 100_000), EventData("y")], partition_id="0")
            assert client.get_partition_properties("0")["last_enqueued_sequence_number"] == 1


class TestOtherDoors:
    def test_rest_to_amqp(self, live, hub):
        live.call(
            "POST", f"/{hub}/partitions/0/messages", b"wind", Alert="Strong Wind", Level="5", Hot="true",
            BrokerProperties='{"MessageId": "m", "CorrelationId": "c"}', Content_Type="text/plain",
        )  # fmt: skip
        with reading(live, hub, partition_id="0") as found:
            found.until(1)
            event = found.events[0]
        assert event.body_as_str() == "wind"
        assert event.properties == {b"Alert": b"Strong Wind", b"Level": 5, b"Hot": True}
        assert (event.message_id, event.correlation_id, event.content_type) == ("m", "c", "text/plain")

    def test_amqp_to_the_json_api(self, live, hub):
        event = EventData("x")
        event.properties = {"n": 5}
        with producer(live, hub) as client:
            client.send_batch([event], partition_id="1")
        path = f"/_hubbub/api/v1/hubs/{hub}/partitions/1/events?from=start"
        (found,) = json.loads(live.call("GET", path)[2])
        assert (found["body"], found["properties"], found["sequenceNumber"]) == ("x", {"n": 5}, 0)

    def test_a_client_without_an_sdk(self, live, hub):
        """Qpid Proton with SASL PLAIN and no tokens."""
        url = live.ready["amqp"]
        connection = BlockingConnection(
            url, user=ROOT, password=WELL_KNOWN, allowed_mechs="PLAIN", allow_insecure_mechs=True
        )
        sender = connection.create_sender(f"{hub}/Partitions/0")
        for n in range(3):
            sender.send(Message(body=f"m{n}", properties={"n": n}))
        receiver = connection.create_receiver(f"{hub}/ConsumerGroups/$Default/Partitions/0", credit=10)
        found = [receiver.receive(timeout=WAIT) for _ in range(3)]
        assert [(m.body, m.properties["n"]) for m in found] == [("m0", 0), ("m1", 1), ("m2", 2)]
        assert found[2].annotations["x-opt-sequence-number"] == 2
        with pytest.raises(LinkDetached, match=r"not-found|could not be found"):
            connection.create_sender("nowhere")
        connection.close()
        with pytest.raises(ConnectionException):
            BlockingConnection(
                url, user=ROOT, password="wrong", allowed_mechs="PLAIN", allow_insecure_mechs=True
            )

    def test_a_revoked_publisher(self, live, hub):
        body = (
            b'<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><RevokedPublisherDescription'
            b' xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"/></content></entry>'
        )
        assert live.call("PUT", f"/{hub}/revokedpublishers/bad?api-version=2021-05", body)[0] == 201
        connection = BlockingConnection(
            live.ready["amqp"],
            user=ROOT,
            password=WELL_KNOWN,
            allowed_mechs="PLAIN",
            allow_insecure_mechs=True,
        )
        connection.create_sender(f"{hub}/Publishers/good").send(Message(body="x"))
        with pytest.raises(Exception, match="37"):
            connection.create_sender(f"{hub}/Publishers/bad").send(Message(body="x"))
        connection.close()


def test_a_hub_that_is_deleted_takes_its_links_along(live, hub):
    connection = BlockingConnection(
        live.ready["amqp"], user=ROOT, password=WELL_KNOWN, allowed_mechs="PLAIN", allow_insecure_mechs=True
    )
    sender = connection.create_sender(f"{hub}/Partitions/0")
    sender.send(Message(body="x"))
    with reading(live, hub, partition_id="0") as found:
        until(lambda: found.events)
        assert live.call("DELETE", f"/_hubbub/api/v1/hubs/{hub}")[0] in (200, 204)
        until(lambda: found.errors)
        assert "not-found" in str(found.errors[0])
    assert live.call("PUT", f"/_hubbub/api/v1/hubs/{hub}", b'{"partitionCount": 2}')[0] == 201
    with pytest.raises(LinkDetached):
        sender.send(Message(body="into the void"))
    connection.close()


def test_keys_that_change_detach_links(tmp_path):
    file = tmp_path / "hubbub.toml"

    def write(primary):
        file.write_text(
            f'memory = true\n[[keys]]\nname = "{ROOT}"\nprimary = "{primary}"\n[[hub]]\nname = "events"\n'
        )

    write("b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQ=")
    with running(tmp_path, "--config", str(file)) as own, producer(own, "events") as client:
        client.send_event(EventData("x"), partition_id="0")
        write("bmV3LW5ldy1uZXctbmV3LW5ldy1uZXc=")
        own.process.send_signal(signal.SIGHUP)
        until(
            lambda: (
                "have changed" in own.log.read_text()
                or own.call("POST", "/events/messages", b"", key="bmV3LW5ldy1uZXctbmV3LW5ldy1uZXc=")[0] == 201
            )
        )
        with pytest.raises(EventHubError):
            client.send_event(EventData("y"), partition_id="0")


def test_no_event_is_lost_when_the_server_restarts(tmp_path):
    """The client reconnects by itself; what it was told was accepted is there."""
    accepted = []
    port = None
    for _ in range(2):
        flags = ["--port", str(port)] if port else []
        with running(tmp_path, *flags) as live:
            port = live.port
            with producer(live, "events") as client:
                for _ in range(20):
                    body = f"{len(accepted)}"
                    client.send_event(EventData(body), partition_id="0")
                    accepted.append(body)
            live.kill()
    with running(tmp_path) as live, reading(live, "events", partition_id="0") as found:
        assert found.until(40) == accepted


def test_errors_are_of_the_sdk():
    """The names the suite relies on exist and are what they are taken for."""
    assert issubclass(EventDataSendError, EventHubError)
