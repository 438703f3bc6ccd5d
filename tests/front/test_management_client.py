"""ATOM management judged by Microsoft's own client: it writes the requests and reads the answers."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.core.pipeline.transport import HttpTransport, RequestsTransportResponse
from azure.servicebus.management import (
    AccessRights,
    AuthorizationRule,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)
from requests import Response as RequestsResponse
from requests.structures import CaseInsensitiveDict

from front.management_peer import HOST, KEY, ROOT, Peer
from hubbub.broker.entity import Queue, Subscription, Topic
from hubbub.broker.message import Message


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


class InMemory(HttpTransport):  # type: ignore[type-arg]
    """The official client's transport, joined to the management in memory."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def send(self, request: Any, **kwargs: Any) -> RequestsTransportResponse:
        parts = urlsplit(request.url)
        target = f"{parts.path}?{parts.query}"
        body = request.body or b""
        answer = self.peer.send(request.method, target, body, dict(request.headers))
        response = RequestsResponse()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = BytesIO(answer.body)
        response._content = answer.body
        return RequestsTransportResponse(request, response)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def sleep(self, duration: float) -> None:
        raise AssertionError("nothing here is worth a retry")

    def __exit__(self, *details: object) -> None: ...


@pytest.fixture(params=["2017-04", "2021-05", "2024-05"])
def client(peer: Peer, request: pytest.FixtureRequest) -> ServiceBusAdministrationClient:
    text = f"Endpoint=sb://{HOST}/;SharedAccessKeyName={ROOT};SharedAccessKey={KEY}"
    return ServiceBusAdministrationClient.from_connection_string(
        text, api_version=request.param, transport=InMemory(peer)
    )


class TestOfficialClient:
    """azure-servicebus writes the requests and reads the answers."""

    def test_queue(self, peer: Peer, client: ServiceBusAdministrationClient) -> None:
        rule = AuthorizationRule(
            type="SharedAccessAuthorizationRule",
            claim_type="SharedAccessKey",
            claim_value="None",
            rights=[AccessRights.MANAGE, AccessRights.SEND, AccessRights.LISTEN],
            key_name="k",
            primary_key=KEY,
        )
        made = client.create_queue(
            "Orders",
            lock_duration=datetime.timedelta(seconds=13),
            default_message_time_to_live="PT11M2S",
            max_delivery_count=14,
            requires_session=True,
            dead_lettering_on_message_expiration=True,
            user_metadata="<&>",
            authorization_rules=[rule],
        )
        assert (made.name, made.max_delivery_count, made.user_metadata) == ("Orders", 14, "<&>")
        assert made.lock_duration == datetime.timedelta(seconds=13)
        assert made.default_message_time_to_live == datetime.timedelta(minutes=11, seconds=2)
        assert (made.requires_session, made.dead_lettering_on_message_expiration) == (True, True)
        assert made.status == "Active"
        assert made.authorization_rules is not None
        assert made.authorization_rules[0].primary_key == KEY
        assert len(made.authorization_rules[0].secondary_key or "") == 44
        before = peer.namespace.entity("orders")
        client.update_queue(made)
        after = peer.namespace.entity("orders")
        assert isinstance(before, Queue)
        assert isinstance(after, Queue)
        assert after.updated > before.updated
        assert msg_equal(before, after)
        made.max_delivery_count = 15
        client.update_queue(made)
        assert client.get_queue("orders").max_delivery_count == 15
        with pytest.raises(ResourceExistsError):
            client.create_queue("ORDERS")
        client.delete_queue("orders")
        with pytest.raises(ResourceNotFoundError):
            client.get_queue("orders")
        with pytest.raises(ResourceNotFoundError):
            client.delete_queue("orders")

    def test_queue_at_run_time(self, peer: Peer, client: ServiceBusAdministrationClient) -> None:
        client.create_queue("q")

        async def send() -> None:
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            messages = [Message(payload=b"\x00Su\xa0\x01x"), Message(payload=b"\x00Su\xa0\x01y")]
            messages[1].scheduled = peer.clock.now() + 60_000
            peer.namespace.send("q", messages, peer.clock.now(), future.set_result)
            assert await future is None

        peer.runner.run(send())
        found = client.get_queue_runtime_properties("q")
        assert (found.total_message_count, found.active_message_count) == (2, 1)
        assert (found.scheduled_message_count, found.dead_letter_message_count) == (1, 0)
        assert (found.transfer_message_count, found.transfer_dead_letter_message_count) == (0, 0)
        assert found.size_in_bytes is not None
        assert found.size_in_bytes > 0
        created = datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.UTC)
        assert (found.created_at_utc, found.updated_at_utc) == (created, created)
        assert found.accessed_at_utc is not None
        assert [q.name for q in client.list_queues_runtime_properties()] == ["q"]

    def test_lists_go_on_to_the_last_page(self, client: ServiceBusAdministrationClient) -> None:
        names = [f"q{number}" for number in range(7)]
        assert list(client.list_queues()) == []
        for name in names:
            client.create_queue(name)
        assert [queue.name for queue in client.list_queues()] == names
        for size in (1, 3, 7, 8):
            assert [queue.name for queue in client.list_queues(max_page_size=size)] == names
        assert [queue.name for queue in client.list_queues(start_index=5)] == names[5:]

    def test_topic(self, peer: Peer, client: ServiceBusAdministrationClient) -> None:
        made = client.create_topic("ut/t", requires_duplicate_detection=True, max_size_in_megabytes=2048)
        assert (made.name, made.requires_duplicate_detection, made.max_size_in_megabytes) == (
            "ut/t",
            True,
            2048,
        )
        before = peer.namespace.entity("ut/t")
        client.update_topic(made)
        after = peer.namespace.entity("ut/t")
        assert isinstance(before, Topic)
        assert isinstance(after, Topic)
        assert msg_equal(before, after)
        made.requires_duplicate_detection = False
        with pytest.raises(HttpResponseError, match="requiresDuplicateDetection"):
            client.update_topic(made)
        client.create_subscription("ut/t", "s")
        found = client.get_topic_runtime_properties("ut/t")
        assert (found.subscription_count, found.size_in_bytes, found.scheduled_message_count) == (1, 0, 0)
        assert [topic.name for topic in client.list_topics()] == ["ut/t"]
        assert [topic.name for topic in client.list_topics_runtime_properties()] == ["ut/t"]
        client.delete_topic("ut/t")
        with pytest.raises(ResourceNotFoundError):
            client.get_topic("ut/t")

    def test_subscription(self, peer: Peer, client: ServiceBusAdministrationClient) -> None:
        client.create_topic("t")
        made = client.create_subscription("t", "S", lock_duration="PT7S", user_metadata="m")
        assert (made.name, made.lock_duration) == ("S", datetime.timedelta(seconds=7))
        before = peer.namespace.entity("t/subscriptions/s")
        client.update_subscription("t", made)
        after = peer.namespace.entity("t/subscriptions/s")
        assert isinstance(before, Subscription)
        assert isinstance(after, Subscription)
        assert msg_equal(before, after)
        found = client.get_subscription_runtime_properties("t", "s")
        assert (found.total_message_count, found.active_message_count) == (0, 0)
        assert [s.name for s in client.list_subscriptions("t")] == ["S"]
        assert [s.name for s in client.list_subscriptions_runtime_properties("t")] == ["S"]
        with pytest.raises(ResourceExistsError):
            client.create_subscription("t", "s")
        with pytest.raises(HttpResponseError, match="auto forwarding destination"):
            client.create_subscription("t", "s2", forward_to="q")
        client.delete_subscription("t", "s")
        with pytest.raises(ResourceNotFoundError):
            client.get_subscription("t", "s")

    def test_rule(self, client: ServiceBusAdministrationClient) -> None:
        client.create_topic("t")
        client.create_subscription("t", "s")
        assert isinstance(client.get_rule("t", "s", "$Default").filter, TrueRuleFilter)
        made = client.create_rule("t", "s", "All", filter=TrueRuleFilter())
        assert (made.name, made.action) == ("All", None)
        client.update_rule("t", "s", made)
        client.create_rule("t", "s", "sql", filter=SqlRuleFilter("1=1"))
        assert [rule.name for rule in client.list_rules("t", "s")] == ["$Default", "All", "sql"]
        parameters = {"@n": 1, "@t": "x", "@b": True, "@d": 2.5, "@w": datetime.datetime(2026, 1, 2)}
        client.create_rule("t", "s", "f", filter=SqlRuleFilter("a = @n OR b = @t", parameters=parameters))
        found = client.get_rule("t", "s", "f")
        assert found.filter.sql_expression == "a = @n OR b = @t"
        assert found.filter.parameters == parameters
        client.create_rule("t", "s", "a", filter=FalseRuleFilter(), action=SqlRuleAction("SET a = 1"))
        found = client.get_rule("t", "s", "a")
        assert isinstance(found.filter, FalseRuleFilter)
        assert found.action.sql_expression == "SET a = 1"
        for name in ("f", "a"):
            client.delete_rule("t", "s", name)
        client.delete_rule("t", "s", "all")
        with pytest.raises(ResourceNotFoundError):
            client.get_rule("t", "s", "all")

    def test_namespace(self, client: ServiceBusAdministrationClient) -> None:
        found = client.get_namespace_properties()
        assert (found.name, found.messaging_sku, found.namespace_type) == ("contoso", "Standard", "Mixed")


def msg_equal(before: Any, after: Any) -> bool:
    """Whether a round trip through the client changed nothing but the moment."""
    return bool(msgspec.structs.replace(after, updated=before.updated) == before)
