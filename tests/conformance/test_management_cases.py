"""The REST reference's conformance cases 71 to 78 and 80, and the official administration client."""

from __future__ import annotations

import datetime
from xml.etree import ElementTree

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus.management import (
    CorrelationRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleFilter,
    TrueRuleFilter,
)
from world import KEY, ROOT, SEND_ONLY, World, contoso

A = "{http://www.w3.org/2005/Atom}"
SB = "{http://schemas.microsoft.com/netservices/2010/10/servicebus/connect}"


def entry(description: str, inner: str = "") -> str:
    return (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">'
        f'<{description} xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"'
        f' xmlns:i="http://www.w3.org/2001/XMLSchema-instance">{inner}</{description}></content></entry>'
    )


@pytest.fixture(scope="module")
def own():
    """A world of its own, since these cases make and remove entities."""
    world = World(contoso())
    yield world
    world.close()


def test_case_71_create_again_update(own):
    path = "/newq?api-version=2021-05"
    made = own.call("PUT", path, body=entry("QueueDescription"))
    assert made.status == 201
    assert made.headers["content-type"] == "application/atom+xml;type=entry;charset=utf-8"
    again = own.call("PUT", path, body=entry("QueueDescription"))
    assert again.status == 409
    assert again.detail.startswith("SubCode=40900")
    changed = own.call(
        "PUT", path, body=entry("QueueDescription", "<LockDuration>PT30S</LockDuration>"), If_Match="*"
    )
    assert changed.status == 200
    assert "<LockDuration>PT30S</LockDuration>" in changed.text


def test_case_72_get_and_the_empty_feed(own):
    assert "CountDetails" in own.call("GET", "/q1").text
    missing = own.call("GET", "/nope")
    assert missing.status == 200
    assert "Publicly Listed Services" in missing.text
    root = own.call("GET", "/", None)
    assert (root.status, "Publicly Listed Services" in root.text) == (200, True)


def test_case_73_missing_subscription(own):
    reply = own.call("GET", "/t1/subscriptions/nope")
    assert reply.status == 404
    assert reply.detail.startswith("Entity 'contoso:Topic:t1|nope' was not found.")


def test_case_74_delete(own):
    own.call("PUT", "/gone", body=entry("QueueDescription"))
    assert own.call("DELETE", "/gone").status == 200
    again = own.call("DELETE", "/gone")
    assert again.status == 404
    assert again.detail.startswith("No service is hosted at the specified address.")


def test_case_75_paging(own):
    own.call("PUT", "/zz", body=entry("QueueDescription"))
    feed = ElementTree.fromstring(own.call("GET", "/$Resources/queues?$skip=0&$top=1").body)
    assert len(feed.findall(A + "entry")) == 1
    links = feed.findall(A + "link")
    assert [link.get("rel") for link in links] == ["self", "next"]
    assert "$skip=1" in links[1].get("href")


def test_case_76_namespace_info(own):
    reply = own.call("GET", "/$namespaceinfo")
    assert reply.status == 200
    assert ElementTree.fromstring(reply.body).find(f".//{SB}NamespaceInfo/{SB}Name").text == "contoso"


def test_case_77_default_rule(own):
    assert own.call("PUT", "/t1/subscriptions/s2", body=entry("SubscriptionDescription")).status == 201
    text = own.call("GET", "/t1/subscriptions/s2/rules").text
    for word in ("$Default", "TrueFilter", "EmptyRuleAction"):
        assert word in text


def test_case_78_event_hub(own):
    made = own.call("PUT", "/hub9", body=entry("EventHubDescription"))
    assert made.status == 201
    for n in range(4):
        assert f"<d2p1:string>{n}</d2p1:string>" in made.text
    assert own.call("GET", "/hub9").status == 200
    assert "$Default" in own.call("GET", "/hub9/consumergroups").text
    part = own.call("GET", "/hub9/consumergroups/$Default/partitions/0")
    assert "PartitionDescription" in part.text
    assert own.call("DELETE", "/hub9/consumergroups/$Default").status == 400


def test_case_80_right_missing(own):
    reply = own.call("PUT", "/hub1/consumergroups/x", SEND_ONLY, entry("ConsumerGroupDescription"))
    assert reply.status == 401
    assert reply.detail.startswith("Authorization failed for specified action: Manage,EntityWrite")


@pytest.mark.parametrize(
    "body",
    [
        "nonsense",
        "<entry/>",
        entry("TopicDescription").replace("<content", "<!DOCTYPE x><content"),
        '<!DOCTYPE x [<!ENTITY a "b">]>' + entry("QueueDescription"),
        entry("QueueDescription", "<LockDuration>PT6M</LockDuration>"),
        entry("QueueDescription", "<LockDuration>soon</LockDuration>"),
        entry("QueueDescription", "<ForwardTo>nobody</ForwardTo>"),
        entry("QueueDescription", "<MaxSizeInMegabytes>7</MaxSizeInMegabytes>"),
    ],
)
def test_bad_descriptions_are_refused(own, body):
    assert own.call("PUT", "/bad", body=body).status == 400
    assert "Publicly Listed" in own.call("GET", "/bad").text


def test_preconditions(own):
    tag = own.call("GET", "/q1").headers["etag"]
    body = entry("QueueDescription")
    assert own.call("PUT", "/q1", body=body, If_Match="1").status == 412
    assert own.call("PUT", "/q1", body=body, If_Match=tag).status == 200
    assert own.call("PUT", "/q1", body=body, If_None_Match="*").status == 412


@pytest.fixture(scope="module")
def admin(tmp_path_factory):
    """The official client, over TLS with our own CA."""
    folder = tmp_path_factory.mktemp("tls")
    world = World(contoso(tls="auto", https_port=0, data=str(folder)))
    port = world.ready.urls["https"].rpartition(":")[2]
    string = f"Endpoint=sb://localhost:{port};SharedAccessKeyName={ROOT};SharedAccessKey={KEY}"
    authority = next(
        path for path in (folder / "tls").rglob("*.pem") if "ca" in path.name and "key" not in path.name
    )
    client = ServiceBusAdministrationClient.from_connection_string(
        string, connection_verify=str(authority), retry_total=0
    )
    yield client
    client.close()
    world.close()


def test_the_official_client_manages_queues(admin):
    made = admin.create_queue("ut/orders", lock_duration=datetime.timedelta(seconds=30), max_delivery_count=3)
    assert made.lock_duration == datetime.timedelta(seconds=30)
    with pytest.raises(ResourceExistsError):
        admin.create_queue("ut/orders")
    made.max_delivery_count = 7
    admin.update_queue(made)
    assert admin.get_queue("ut/orders").max_delivery_count == 7
    assert admin.get_queue_runtime_properties("ut/orders").active_message_count == 0
    assert {q.name for q in admin.list_queues()} == {"q1", "ut/orders"}
    admin.delete_queue("ut/orders")
    with pytest.raises(ResourceNotFoundError):
        admin.get_queue("ut/orders")
    with pytest.raises(HttpResponseError):
        admin.create_queue("bad~~name!")


def test_the_official_client_manages_topics_and_rules(admin):
    admin.create_topic("news")
    admin.create_subscription("news", "all")
    assert [r.name for r in admin.list_rules("news", "all")] == ["$Default"]
    admin.create_rule("news", "all", "every", filter=TrueRuleFilter())
    assert isinstance(admin.get_rule("news", "all", "every").filter, TrueRuleFilter)
    admin.create_rule("news", "all", "some", filter=CorrelationRuleFilter(label="x", properties={"n": 5}))
    found = admin.get_rule("news", "all", "some").filter
    assert (found.label, found.properties) == ("x", {"n": 5})
    with pytest.raises(HttpResponseError):
        admin.create_rule("news", "all", "none", filter=SqlRuleFilter("a = = 1"))
    admin.delete_rule("news", "all", "some")
    admin.delete_rule("news", "all", "every")
    assert admin.get_subscription_runtime_properties("news", "all").total_message_count == 0
    assert admin.get_topic_runtime_properties("news").subscription_count == 1
    assert [s.name for s in admin.list_subscriptions("news")] == ["all"]
    admin.delete_subscription("news", "all")
    admin.delete_topic("news")


def test_the_official_client_sees_the_namespace(admin):
    assert admin.get_namespace_properties().name == "contoso"


def test_the_official_client_pages(admin):
    for n in range(103):
        admin.create_queue(f"many{n:03}")
    assert len([q for q in admin.list_queues() if q.name.startswith("many")]) == 103
