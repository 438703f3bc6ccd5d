"""The official administration client, unmodified, against a real server process.

The same tests run with its blocking and its asyncio form, by every api-version it knows, over TLS and
without; and with an older release, in a process of its own. All of it goes to one port.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import azure.servicebus
import azure.servicebus.aio.management
import azure.servicebus.management
import older
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.management import (
    AccessRights,
    AuthorizationRule,
    CorrelationRuleFilter,
    EntityAvailabilityStatus,
    EntityStatus,
    FalseRuleFilter,
    MessagingSku,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)
from entra import AsyncCredential, Credential, bearer, configure
from plain import Plain

from hubbub.broker.access import sas_token
from live import FAR, ROOT, WELL_KNOWN, environment, running

HERE = Path(__file__).parent
RELEASE = "7.11"
NEWEST = tuple(map(int, azure.servicebus.__version__.split(".")[:2])) >= (7, 15)
newest = pytest.mark.skipif(not NEWEST, reason="this release cannot do it")

OWNER, READER = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"
PRINCIPALS = {OWNER: ["Manage", "Send", "Listen"], READER: ["Listen"]}
INFINITE = timedelta(days=10675199)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("administration")
    configure(folder, PRINCIPALS)
    data = os.environ.get("ADMINISTRATION_DATA", str(folder / "data"))
    with running(folder, "--config", "hubbub.toml", "--tls", "auto", "--data", data) as live:
        live.authority = str(Path(data) / "tls/ca.pem")
        yield live


class Blocking:
    """The asyncio client with the methods of the other one."""

    def __init__(self, client) -> None:
        self.client = client
        self.loop = asyncio.new_event_loop()

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*arguments, **options):
            found = method(*arguments, **options)
            if inspect.isawaitable(found):
                return self.loop.run_until_complete(found)
            return self.loop.run_until_complete(self._all(found))

        return call

    async def _all(self, pages) -> list:
        return [item async for item in pages]

    def close(self) -> None:
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


def connection_string(live, **changes: str) -> str:
    parts = {
        "Endpoint": f"sb://localhost:{live.port}",
        "SharedAccessKeyName": ROOT,
        "SharedAccessKey": WELL_KNOWN,
    }
    return ";".join(f"{name}={value}" for name, value in (parts | changes).items() if value)


def opened(live, kind: str = "", text: str = "", **options):
    module = azure.servicebus.aio.management if kind == "asyncio" else azure.servicebus.management
    client = module.ServiceBusAdministrationClient.from_connection_string(
        text or connection_string(live), retry_total=0, connection_verify=live.authority, **options
    )
    return Blocking(client) if kind == "asyncio" else client


WAYS = {
    "2017-04": {"api_version": "2017-04"},
    "2021-05": {"api_version": "2021-05"},
    "2024-05": {"api_version": "2024-05"},
    "asyncio": {"kind": "asyncio"},
    "http": {"transport": Plain()},
}
if not NEWEST:
    del WAYS["2024-05"], WAYS["http"]


def clean(admin) -> None:
    for queue in list(admin.list_queues()):
        admin.delete_queue(queue.name)
    for topic in list(admin.list_topics()):
        admin.delete_topic(topic.name)


@pytest.fixture(scope="module", params=WAYS)
def way(live, request):
    admin = opened(live, **WAYS[request.param])
    clean(admin)
    yield admin
    admin.close()


@pytest.fixture
def admin(way):
    yield way
    clean(way)


@pytest.fixture(scope="module")
def only(live):
    """For what does not depend on the way."""
    admin = opened(live)
    yield admin
    admin.close()


@pytest.fixture
def one(only):
    clean(only)
    yield only
    clean(only)


@pytest.fixture
def bus(live):
    text = connection_string(live, UseDevelopmentEmulator="true")
    with ServiceBusClient.from_connection_string(text, retry_total=0) as client:
        yield client


def shown(found, names) -> dict:
    return {name: getattr(found, name) for name in names}


# Queues.

QUEUE_DEFAULTS = {
    "lock_duration": MINUTE,
    "max_size_in_megabytes": 1024,
    "requires_duplicate_detection": False,
    "requires_session": False,
    "dead_lettering_on_message_expiration": False,
    "duplicate_detection_history_time_window": 10 * MINUTE,
    "max_delivery_count": 10,
    "enable_batched_operations": True,
    "enable_partitioning": False,
    "enable_express": False,
    "user_metadata": None,
    "forward_to": None,
    "forward_dead_lettered_messages_to": None,
    "max_message_size_in_kilobytes": None,
}
QUEUE_CHOSEN = {
    "lock_duration": 13 * SECOND,
    "max_size_in_megabytes": 3072,
    "requires_duplicate_detection": True,
    "requires_session": True,
    "default_message_time_to_live": timedelta(days=1, hours=2, minutes=3, seconds=4.5),
    "dead_lettering_on_message_expiration": True,
    "duplicate_detection_history_time_window": timedelta(minutes=12),
    "max_delivery_count": 14,
    "enable_batched_operations": False,
    "enable_partitioning": True,
    "enable_express": True,
    "user_metadata": "  <a b=\"c\">&amp; 'd'</a>\n\té€😀 ",
}
QUEUE_CHANGES = {
    "lock_duration": 5 * MINUTE,
    "max_size_in_megabytes": 5120,
    "default_message_time_to_live": 3 * SECOND,
    "dead_lettering_on_message_expiration": True,
    "duplicate_detection_history_time_window": timedelta(days=7),
    "max_delivery_count": 2**31 - 1,
    "enable_batched_operations": False,
    "user_metadata": "x" * 1024,
}


def test_a_queue_as_it_comes(admin):
    made = admin.create_queue("plain")
    assert made.name == "plain"
    for found in (made, admin.get_queue("plain"), *admin.list_queues()):
        assert shown(found, QUEUE_DEFAULTS) == QUEUE_DEFAULTS
        assert not found.authorization_rules
        assert found.status == EntityStatus.ACTIVE
        assert found.availability_status == EntityAvailabilityStatus.AVAILABLE
        assert found.default_message_time_to_live > INFINITE
        assert found.auto_delete_on_idle > INFINITE


def test_a_queue_with_every_property(admin):
    made = admin.create_queue("Chosen", **QUEUE_CHOSEN)
    for found in (made, admin.get_queue("chosen"), *admin.list_queues()):
        assert shown(found, QUEUE_CHOSEN) == QUEUE_CHOSEN
    assert [queue.name for queue in admin.list_queues()] == ["Chosen"]


def test_lengths_of_time_as_text(admin):
    made = admin.create_queue("texts", lock_duration="PT1M5.5S", default_message_time_to_live="P1DT1H")
    assert (made.lock_duration, made.default_message_time_to_live) == (65.5 * SECOND, timedelta(hours=25))


def test_a_queue_changes(admin):
    queue = admin.create_queue("changing")
    for name, value in QUEUE_CHANGES.items():
        setattr(queue, name, value)
        admin.update_queue(queue)
        assert getattr(admin.get_queue("changing"), name) == value
    assert shown(admin.get_queue("changing"), QUEUE_CHANGES) == QUEUE_CHANGES
    # What was got goes back as it is.
    admin.update_queue(admin.get_queue("changing"))
    assert shown(admin.get_queue("changing"), QUEUE_CHANGES) == QUEUE_CHANGES
    queue.user_metadata = None
    queue.max_delivery_count = None
    admin.update_queue(queue)
    found = admin.get_queue("changing")
    assert (found.user_metadata, found.max_delivery_count) == (None, 10)


def test_a_queue_changes_by_keyword(admin):
    queue = admin.create_queue("keyword")
    admin.update_queue(queue, max_delivery_count=3, lock_duration="PT7S")
    found = admin.get_queue("keyword")
    assert (found.max_delivery_count, found.lock_duration) == (3, 7 * SECOND)


def test_a_queue_changes_by_mapping(admin):
    queue = admin.create_queue("mapping")
    admin.update_queue({**dict(queue), "max_delivery_count": 4})
    assert admin.get_queue("mapping").max_delivery_count == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requires_session", "requiresSession"),
        ("requires_duplicate_detection", "requiresDuplicateDetection"),
        ("enable_partitioning", "enablePartitioning"),
    ],
)
def test_what_a_queue_is_born_with_stays(one, name, text):
    for value in (False, True):
        queue = one.create_queue(f"born-{value}", **{name: value})
        setattr(queue, name, not value)
        queue.max_delivery_count = 3
        with pytest.raises(HttpResponseError, match=f"SubCode=40000.*'{text}'.*cannot be changed") as caught:
            one.update_queue(queue)
        assert caught.value.status_code == 400
        found = one.get_queue(queue.name)
        assert (getattr(found, name), found.max_delivery_count) == (value, 10)


QUEUE_REFUSALS = [
    ("lock_duration", "PT5M0.001S", "supplied lock time exceeds the allowed maximum of '5' minutes"),
    ("lock_duration", "PT0S", "LockDuration"),
    ("lock_duration", "P1M", "not a valid duration"),
    ("lock_duration", timedelta(seconds=-1), "not a valid duration"),
    ("max_size_in_megabytes", 1000, "specified value 1000 is invalid. The property 'MaxSizeInMegabytes'"),
    ("max_size_in_megabytes", 0, "specified value 0 is invalid"),
    ("default_message_time_to_live", timedelta(0), "DefaultMessageTimeToLive"),
    ("duplicate_detection_history_time_window", timedelta(days=7, seconds=1), "P7D"),
    ("duplicate_detection_history_time_window", timedelta(0), "DuplicateDetectionHistoryTimeWindow"),
    ("max_delivery_count", 0, "MaxDeliveryCount"),
    ("max_delivery_count", -1, "MaxDeliveryCount"),
    ("max_delivery_count", 2**31, "MaxDeliveryCount"),
    ("user_metadata", "x" * 1025, "over 1024 characters"),
    ("status", "Deleting", "status 'Deleting'"),
    ("auto_delete_on_idle", timedelta(minutes=4, seconds=59), "AutoDeleteOnIdle"),
    ("max_message_size_in_kilobytes", 1024, "Premium"),
    ("max_message_size_in_kilobytes", 1023, "MaxMessageSizeInKilobytes"),
]


@pytest.mark.parametrize(("name", "value", "text"), QUEUE_REFUSALS)
def test_what_a_queue_cannot_be(one, name, value, text):
    with pytest.raises(HttpResponseError) as caught:
        one.create_queue("never", **{name: value})
    assert (caught.value.status_code, text in caught.value.message) == (400, True), caught.value.message
    assert list(one.list_queues()) == []
    queue = one.create_queue("always")
    with pytest.raises(HttpResponseError) as caught:
        one.update_queue(queue, **{name: value})
    assert (caught.value.status_code, text in caught.value.message) == (400, True), caught.value.message


@pytest.mark.parametrize("status", list(EntityStatus))
def test_the_status_of_a_queue(one, status):
    allowed = {"Active", "Disabled", "SendDisabled", "ReceiveDisabled"}
    queue = one.create_queue("status")
    queue.status = status
    if status in allowed:
        one.update_queue(queue)
        assert one.get_queue("status").status == status
    else:
        with pytest.raises(HttpResponseError, match="status"):
            one.update_queue(queue)


@newest
def test_a_disabled_queue_does_nothing(one, bus):
    queue = one.create_queue("status")
    for status, sends in (("SendDisabled", False), ("ReceiveDisabled", True), ("Disabled", False)):
        one.update_queue(queue, status=status)
        with bus.get_queue_sender("status") as sender:
            if sends:
                sender.send_messages(ServiceBusMessage("x"))
                continue
            with pytest.raises(azure.servicebus.exceptions.MessagingEntityDisabledError):
                sender.send_messages(ServiceBusMessage("x"))
    assert one.get_queue_runtime_properties("status").active_message_count == 1


@newest
def test_premium(tmp_path):
    with running(tmp_path, "--memory", "--limits", "premium") as live:
        live.authority = True
        admin = opened(live, transport=Plain())
        queue = admin.create_queue("large", max_message_size_in_kilobytes=102400)
        assert queue.max_message_size_in_kilobytes == 102400
        admin.update_queue(queue, max_message_size_in_kilobytes=2048)
        assert admin.get_queue("large").max_message_size_in_kilobytes == 2048
        assert (
            admin.create_topic(
                "large-topic", max_message_size_in_kilobytes=1024
            ).max_message_size_in_kilobytes
            == 1024
        )
        with pytest.raises(HttpResponseError, match=r"1024\.\.102400"):
            admin.update_queue(queue, max_message_size_in_kilobytes=102401)
        found = admin.get_namespace_properties()
        assert (found.messaging_sku, found.messaging_units) == (MessagingSku.PREMIUM, 1)
        admin.close()


# Names.

GOOD_NAMES = ["a", "A-b_c.d", "9", "a/b/c", "x" * 260, "rules.of", "Über".replace("Ü", "U")]
BAD_NAMES = [
    "a b",
    "a*b",
    "a?b",
    "a#b",
    "a:b",
    "a\\b",
    "a@b",
    "é",
    "-a",
    "a-",
    ".a",
    "a.",
    "a//b~!",
    "x" * 261,
]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(one, name):
    for make, get, delete in (
        (one.create_queue, one.get_queue, one.delete_queue),
        (one.create_topic, one.get_topic, one.delete_topic),
    ):
        assert make(name).name == name
        assert get(name.upper()).name == name.upper()
        delete(name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(one, name):
    for make in (one.create_queue, one.create_topic):
        with pytest.raises(HttpResponseError) as caught:
            make(name)
        assert caught.value.status_code == 400
    one.create_topic("topic")
    one.create_subscription("topic", "s")
    with pytest.raises(HttpResponseError) as caught:
        one.create_subscription("topic", name)
    assert caught.value.status_code in (400, 404)
    with pytest.raises(HttpResponseError) as caught:
        one.create_rule("topic", "s", name)
    assert caught.value.status_code in (400, 404)


@pytest.mark.parametrize("length", [50, 51])
def test_names_below_a_topic_are_shorter(one, length):
    one.create_topic("topic")
    one.create_subscription("topic", "s")
    for make in (
        lambda: one.create_subscription("topic", "n" * length),
        lambda: one.create_rule("topic", "s", "n" * length),
    ):
        if length <= 50:
            assert make().name == "n" * length
        else:
            with pytest.raises(HttpResponseError, match="50 characters"):
                make()


# What is missing, and what is there already.


def test_what_is_missing(admin):
    admin.create_topic("topic")
    admin.create_subscription("topic", "s")
    queue, topic = admin.create_queue("q"), admin.get_topic("topic")
    subscription, rule = admin.get_subscription("topic", "s"), admin.get_rule("topic", "s", "$Default")
    queue.name = topic.name = subscription.name = rule.name = "missing"
    for call in (
        lambda: admin.get_queue("missing"),
        lambda: admin.get_queue_runtime_properties("missing"),
        lambda: admin.update_queue(queue),
        lambda: admin.delete_queue("missing"),
        lambda: admin.get_topic("missing"),
        lambda: admin.get_topic_runtime_properties("missing"),
        lambda: admin.update_topic(topic),
        lambda: admin.delete_topic("missing"),
        lambda: admin.get_subscription("topic", "missing"),
        lambda: admin.get_subscription("missing", "s"),
        lambda: admin.get_subscription_runtime_properties("topic", "missing"),
        lambda: admin.create_subscription("missing", "s"),
        lambda: admin.create_subscription("q", "s"),
        lambda: admin.update_subscription("topic", subscription),
        lambda: admin.delete_subscription("topic", "missing"),
        lambda: admin.delete_subscription("missing", "s"),
        lambda: admin.get_rule("topic", "s", "missing"),
        lambda: admin.get_rule("topic", "missing", "r"),
        lambda: admin.create_rule("topic", "missing", "r"),
        lambda: admin.create_rule("missing", "s", "r"),
        lambda: admin.update_rule("topic", "s", rule),
        lambda: admin.delete_rule("topic", "s", "missing"),
        lambda: admin.delete_rule("topic", "missing", "r"),
        lambda: list(admin.list_subscriptions("missing")),
        lambda: list(admin.list_subscriptions_runtime_properties("missing")),
        lambda: list(admin.list_rules("topic", "missing")),
        lambda: list(admin.list_rules("missing", "s")),
    ):
        with pytest.raises(ResourceNotFoundError):
            call()
    assert [queue.name for queue in admin.list_queues()] == ["q"]


def test_what_is_something_else(admin):
    admin.create_queue("q")
    admin.create_topic("t")
    with pytest.raises(HttpResponseError, match="QueueDescription is wanted"):
        admin.update_topic(_renamed(admin.get_topic("t"), "q"))
    with pytest.raises(HttpResponseError, match="TopicDescription is wanted"):
        admin.update_queue(_renamed(admin.get_queue("q"), "t"))
    for make, name in ((admin.create_queue, "t"), (admin.create_topic, "q")):
        with pytest.raises(ResourceExistsError):
            make(name)


def _renamed(found, name: str):
    found.name = name
    return found


def test_what_is_there_already(admin):
    admin.create_queue("q")
    admin.create_topic("t")
    admin.create_subscription("t", "s")
    admin.create_rule("t", "s", "r")
    for call, text in (
        (lambda: admin.create_queue("Q"), "SubCode=40900"),
        (lambda: admin.create_topic("T"), "SubCode=40900"),
        (lambda: admin.create_subscription("t", "S"), "Topic:t|S' already exists"),
        (lambda: admin.create_rule("t", "s", "R"), "Topic:t|s|R' already exists"),
        (lambda: admin.create_rule("t", "s", "$default"), "already exists"),
    ):
        with pytest.raises(ResourceExistsError) as caught:
            call()
        assert (caught.value.status_code, text in str(caught.value)) == (409, True), str(caught.value)


# Authorization rules.


def authorization(name: str, *rights: AccessRights, **keys: str) -> AuthorizationRule:
    return AuthorizationRule(
        type="SharedAccessAuthorizationRule",
        claim_type="SharedAccessKey",
        claim_value="None",
        rights=list(rights),
        key_name=name,
        **keys,
    )


ALL = (AccessRights.MANAGE, AccessRights.SEND, AccessRights.LISTEN)


@pytest.mark.parametrize("kind", ["queue", "topic"])
def test_authorization_rules(admin, kind):
    create, update, get = (getattr(admin, f"{verb}_{kind}") for verb in ("create", "update", "get"))
    rules = [authorization("all", *ALL, primary_key="cHJpbWFyeQ==", secondary_key="c2Vjb25kYXJ5")]
    made = create("guarded", authorization_rules=[*rules, authorization("send", AccessRights.SEND)])
    for found in (made, get("guarded")):
        first, second = found.authorization_rules
        assert (first.key_name, first.rights) == ("all", list(ALL))
        # The older release forgets the type of what it reads.
        assert first.type == ("SharedAccessAuthorizationRule" if NEWEST else None)
        assert (first.claim_type, first.claim_value) == ("SharedAccessKey", "None")
        assert (first.primary_key, first.secondary_key) == ("cHJpbWFyeQ==", "c2Vjb25kYXJ5")
        assert (second.key_name, second.rights) == ("send", [AccessRights.SEND])
        assert len(second.primary_key) == len(second.secondary_key) == 44
        assert abs(first.created_at_utc - datetime.now(UTC)) < timedelta(minutes=5)
    changed = get("guarded")
    changed.authorization_rules[1].rights = [AccessRights.LISTEN]
    changed.authorization_rules[1].secondary_key = "bmV3"
    update(changed)
    first, after = get("guarded").authorization_rules
    assert (after.rights, after.secondary_key) == ([AccessRights.LISTEN], "bmV3")
    assert after.primary_key == made.authorization_rules[1].primary_key
    assert after.modified_at_utc > after.created_at_utc == second.created_at_utc
    assert first.modified_at_utc == first.created_at_utc
    changed.authorization_rules = []
    update(changed)
    assert not get("guarded").authorization_rules


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ([authorization("m", AccessRights.MANAGE)], "Manage must come with Send and Listen"),
        ([authorization("none")], "rights"),
        ([authorization("", *ALL)], "KeyName"),
        ([authorization("twice", *ALL), authorization("twice", *ALL)], "same name"),
        ([authorization(f"r{n}", *ALL) for n in range(13)], "12"),
    ],
)
def test_authorization_rules_that_cannot_be(one, rules, text):
    with pytest.raises(HttpResponseError, match=text):
        one.create_queue("guarded", authorization_rules=rules)


def test_a_new_key_opens_its_queue_at_once(one, live):
    made = one.create_queue("guarded", authorization_rules=[authorization("a", *ALL)])
    rule = made.authorization_rules[0]
    text = connection_string(live, SharedAccessKeyName="a", SharedAccessKey=rule.secondary_key)
    for key in (rule.primary_key, rule.secondary_key):
        token = sas_token(f"https://localhost:{live.port}/guarded", "a", key, FAR)
        assert live.call("POST", "/guarded/messages", b"x", auth=token)[0] == 201
    owner = opened(live, text=text)
    # A key of the queue is none of the namespace.
    with pytest.raises(ClientAuthenticationError):
        list(owner.list_queues())
    owner.close()
    one.update_queue(made, authorization_rules=[])
    assert live.call("POST", "/guarded/messages", b"x", auth=token)[0] == 401


# Topics.

TOPIC_DEFAULTS = {
    "max_size_in_megabytes": 1024,
    "requires_duplicate_detection": False,
    "duplicate_detection_history_time_window": 10 * MINUTE,
    "enable_batched_operations": True,
    "size_in_bytes": 0,
    "filtering_messages_before_publishing": False,
    "support_ordering": True,
    "enable_partitioning": False,
    "enable_express": False,
    "user_metadata": None,
    "max_message_size_in_kilobytes": None,
}
if not NEWEST:
    del TOPIC_DEFAULTS["filtering_messages_before_publishing"]
TOPIC_CHOSEN = {
    "max_size_in_megabytes": 2048,
    "requires_duplicate_detection": True,
    "default_message_time_to_live": timedelta(hours=7, seconds=0.25),
    "duplicate_detection_history_time_window": timedelta(seconds=20),
    "enable_batched_operations": False,
    "support_ordering": False,
    "enable_partitioning": True,
    "enable_express": True,
    "user_metadata": "über",
}
TOPIC_CHANGES = {
    "max_size_in_megabytes": 4096,
    "default_message_time_to_live": 90 * SECOND,
    "duplicate_detection_history_time_window": timedelta(hours=1),
    "enable_batched_operations": False,
    "support_ordering": False,
    "user_metadata": "y",
}


def test_a_topic_as_it_comes(admin):
    made = admin.create_topic("plain")
    for found in (made, admin.get_topic("plain"), *admin.list_topics()):
        assert shown(found, TOPIC_DEFAULTS) == TOPIC_DEFAULTS
        assert not found.authorization_rules
        assert (found.status, found.availability_status) == ("Active", "Available")
        assert found.default_message_time_to_live > INFINITE
        assert found.auto_delete_on_idle > INFINITE


def test_a_topic_with_every_property(admin):
    made = admin.create_topic("ut/Chosen", **TOPIC_CHOSEN)
    for found in (made, admin.get_topic("ut/chosen"), *admin.list_topics()):
        assert shown(found, TOPIC_CHOSEN) == TOPIC_CHOSEN
    assert [topic.name for topic in admin.list_topics()] == ["ut/Chosen"]


def test_a_topic_changes(admin):
    topic = admin.create_topic("changing")
    for name, value in TOPIC_CHANGES.items():
        setattr(topic, name, value)
    admin.update_topic(topic)
    assert shown(admin.get_topic("changing"), TOPIC_CHANGES) == TOPIC_CHANGES
    admin.update_topic(admin.get_topic("changing"), status="SendDisabled")
    assert shown(admin.get_topic("changing"), [*TOPIC_CHANGES, "status"]) == {
        **TOPIC_CHANGES,
        "status": "SendDisabled",
    }
    admin.update_topic({**dict(topic), "user_metadata": "z", "status": "Active"})
    assert admin.get_topic("changing").user_metadata == "z"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requires_duplicate_detection", "requiresDuplicateDetection"),
        ("enable_partitioning", "enablePartitioning"),
    ],
)
def test_what_a_topic_is_born_with_stays(one, name, text):
    topic = one.create_topic("born")
    with pytest.raises(HttpResponseError, match=f"'{text}'.*cannot be changed"):
        one.update_topic(topic, **{name: True})
    assert getattr(one.get_topic("born"), name) is False


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_size_in_megabytes", 1, "MaxSizeInMegabytes"),
        ("duplicate_detection_history_time_window", "P8D", "P7D"),
        ("default_message_time_to_live", "PT0S", "DefaultMessageTimeToLive"),
        ("auto_delete_on_idle", "PT1M", "AutoDeleteOnIdle"),
        ("user_metadata", "x" * 1025, "1024"),
        ("max_message_size_in_kilobytes", 2048, "Premium"),
        ("status", "Renaming", "status"),
    ],
)
def test_what_a_topic_cannot_be(one, name, value, text):
    with pytest.raises(HttpResponseError, match=text):
        one.create_topic("never", **{name: value})
    assert list(one.list_topics()) == []


# Subscriptions.

SUBSCRIPTION_DEFAULTS = {
    "lock_duration": MINUTE,
    "requires_session": False,
    "dead_lettering_on_message_expiration": False,
    "dead_lettering_on_filter_evaluation_exceptions": True,
    "max_delivery_count": 10,
    "enable_batched_operations": True,
    "forward_to": None,
    "user_metadata": None,
    "forward_dead_lettered_messages_to": None,
}
SUBSCRIPTION_CHOSEN = {
    "lock_duration": 5 * SECOND,
    "requires_session": True,
    "default_message_time_to_live": timedelta(days=3),
    "dead_lettering_on_message_expiration": True,
    "dead_lettering_on_filter_evaluation_exceptions": False,
    "max_delivery_count": 1,
    "enable_batched_operations": False,
    "user_metadata": "<s/>",
}


def test_a_subscription_as_it_comes(admin):
    admin.create_topic("t")
    made = admin.create_subscription("t", "plain")
    for found in (made, admin.get_subscription("t", "plain"), *admin.list_subscriptions("t")):
        assert found.name == "plain"
        assert shown(found, SUBSCRIPTION_DEFAULTS) == SUBSCRIPTION_DEFAULTS
        assert (found.status, found.availability_status) == ("Active", "Available")
        assert found.default_message_time_to_live > INFINITE
        assert found.auto_delete_on_idle > INFINITE


def test_a_subscription_with_every_property(admin):
    admin.create_topic("ut/t")
    made = admin.create_subscription("ut/t", "Chosen", **SUBSCRIPTION_CHOSEN)
    for found in (made, admin.get_subscription("UT/T", "chosen"), *admin.list_subscriptions("ut/t")):
        assert shown(found, SUBSCRIPTION_CHOSEN) == SUBSCRIPTION_CHOSEN
    changes = {**SUBSCRIPTION_CHOSEN, "lock_duration": MINUTE, "max_delivery_count": 5, "user_metadata": None}
    for name, value in changes.items():
        setattr(made, name, value)
    admin.update_subscription("ut/t", made, enable_batched_operations=True)
    assert shown(admin.get_subscription("ut/t", "chosen"), changes) == {
        **changes,
        "enable_batched_operations": True,
    }
    admin.update_subscription("ut/t", {**dict(made), "max_delivery_count": 6})
    assert admin.get_subscription("ut/t", "chosen").max_delivery_count == 6


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("requires_session", True, "'requiresSession'.*cannot be changed"),
        ("lock_duration", "PT301S", "maximum of '5' minutes"),
        ("max_delivery_count", 0, "MaxDeliveryCount"),
        ("default_message_time_to_live", "PT0S", "DefaultMessageTimeToLive"),
        ("user_metadata", "x" * 1025, "1024"),
        ("status", "Unknown", "status"),
        ("auto_delete_on_idle", "PT1M", "AutoDeleteOnIdle"),
    ],
)
def test_what_a_subscription_cannot_become(one, name, value, text):
    one.create_topic("t")
    made = one.create_subscription("t", "s")
    with pytest.raises(HttpResponseError, match=text) as caught:
        one.update_subscription("t", made, **{name: value})
    assert caught.value.status_code == 400
    assert getattr(one.get_subscription("t", "s"), name) == getattr(made, name)


def test_what_is_below_goes_with_it(admin):
    admin.create_topic("t")
    for name in ("a", "b"):
        admin.create_subscription("t", name)
        admin.create_rule("t", name, "r")
    admin.delete_subscription("t", "a")
    admin.create_subscription("t", "a")
    assert [rule.name for rule in admin.list_rules("t", "a")] == ["$Default"]
    admin.delete_topic("t")
    admin.create_topic("t")
    assert list(admin.list_subscriptions("t")) == []


# Rules.

MOMENT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
VALUES = {
    "text": "é <&> ' \"",
    "blank": "  ",
    "int": -5,
    "int-max": 2**31 - 1,
    "long": 2**31,
    "long-max": 2**63 - 1,
    "long-min": -(2**63),
    "double": 2.5,
    "tiny": 5e-324,
    "true": True,
    "false": False,
    "moment": MOMENT,
    "naive": datetime(2026, 2, 3, 4, 5, 6),
    "duration": timedelta(days=1, hours=2, seconds=3),
    "fraction": timedelta(milliseconds=1500),
}


@pytest.fixture
def subscribed(admin):
    admin.create_topic("t")
    admin.create_subscription("t", "s")
    return admin


def test_the_first_rule(subscribed):
    (rule,) = subscribed.list_rules("t", "s")
    assert (rule.name, type(rule.filter), rule.action) == ("$Default", TrueRuleFilter, None)
    assert abs(rule.created_at_utc - datetime.now(UTC)) < timedelta(minutes=5)
    subscribed.delete_rule("t", "s", "$Default")
    assert list(subscribed.list_rules("t", "s")) == []


def rules_of(admin, name: str) -> list:
    return [admin.get_rule("t", "s", name), *(r for r in admin.list_rules("t", "s") if r.name == name)]


@pytest.mark.parametrize("kind", [TrueRuleFilter, FalseRuleFilter])
def test_rules_that_take_all_or_nothing(subscribed, kind):
    made = subscribed.create_rule("t", "s", "r", filter=kind())
    for found in (made, *rules_of(subscribed, "r")):
        assert (type(found.filter), found.action) == (kind, None)


def test_sql_rules_with_values_of_every_type(subscribed):
    parameters = {f"@{name}".replace("-", "_"): value for name, value in VALUES.items()}
    expression = " OR ".join(f"a = {name}" for name in parameters)
    made = subscribed.create_rule(
        "t",
        "s",
        "r",
        filter=SqlRuleFilter(expression, parameters=parameters),
        action=SqlRuleAction("SET b = @int; REMOVE c", parameters=parameters),
    )
    for found in (made, *rules_of(subscribed, "r")):
        assert found.name == "r"
        assert (type(found.filter), found.filter.sql_expression) == (SqlRuleFilter, expression)
        assert found.filter.parameters == parameters
        assert found.action.sql_expression == "SET b = @int; REMOVE c"
        assert found.action.parameters == parameters
        kinds = {name: type(value) for name, value in found.filter.parameters.items()}
        assert kinds == {name: type(value) for name, value in parameters.items()}


def test_correlation_rules_with_values_of_every_type(subscribed):
    system = {
        "correlation_id": "c",
        "message_id": "m",
        "to": "to",
        "reply_to": "r",
        "label": "<l>",
        "session_id": "s",
        "reply_to_session_id": "rs",
        "content_type": "ct",
    }
    made = subscribed.create_rule("t", "s", "r", filter=CorrelationRuleFilter(**system, properties=VALUES))
    for found in (made, *rules_of(subscribed, "r")):
        assert type(found.filter) is CorrelationRuleFilter
        assert shown(found.filter, system) == system
        assert found.filter.properties == VALUES
    for name, value in system.items():
        made = subscribed.create_rule("t", "s", name, filter=CorrelationRuleFilter(**{name: value}))
        assert shown(made.filter, system) == {**dict.fromkeys(system), name: value}


def test_rules_change(subscribed):
    rule = subscribed.create_rule("t", "s", "r", filter=SqlRuleFilter("a = 1"))
    born = rule.created_at_utc
    rule.filter, rule.action = (
        CorrelationRuleFilter(label="x", properties={"n": 1}),
        SqlRuleAction("SET a = 2"),
    )
    subscribed.update_rule("t", "s", rule)
    found = subscribed.get_rule("t", "s", "r")
    assert (found.filter.label, found.filter.properties) == ("x", {"n": 1})
    assert (found.action.sql_expression, found.created_at_utc) == ("SET a = 2", born)
    rule.filter, rule.action = TrueRuleFilter(), None
    subscribed.update_rule("t", "s", rule)
    found = subscribed.get_rule("t", "s", "r")
    assert (type(found.filter), found.action) == (TrueRuleFilter, None)
    subscribed.update_rule("t", "s", rule, filter=SqlRuleFilter("b = 2"))
    assert subscribed.get_rule("t", "s", "r").filter.sql_expression == "b = 2"
    subscribed.update_rule("t", "s", {**dict(rule), "filter": FalseRuleFilter()})
    assert type(subscribed.get_rule("t", "s", "r").filter) is FalseRuleFilter


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({"filter": SqlRuleFilter("a = = 1")}, "not valid"),
        ({"filter": SqlRuleFilter("")}, "not valid"),
        ({"filter": SqlRuleFilter("a = @missing")}, "@missing"),
        ({"filter": SqlRuleFilter("a = '" + "x" * 1020 + "'")}, "1024"),
        ({"filter": CorrelationRuleFilter()}, "at least one property"),
        ({"action": SqlRuleAction("SET")}, "not valid"),
        ({"action": SqlRuleAction("a = 1")}, "not valid"),
        ({"action": SqlRuleAction(";".join(["SET a = 1"] * 33))}, "32"),
        ({"action": SqlRuleAction("SET a = 1", parameters={"@p": 2**63})}, "no long"),
        ({"filter": SqlRuleFilter("a = @p", parameters={"@p": -(2**63) - 1})}, "no int"),
        ({"filter": CorrelationRuleFilter(properties={"p": 2**63})}, "no long"),
    ],
)
def test_rules_that_cannot_be(one, what, text):
    one.create_topic("t")
    one.create_subscription("t", "s")
    with pytest.raises(HttpResponseError) as caught:
        one.create_rule("t", "s", "r", **what)
    assert (caught.value.status_code, text in str(caught.value)) == (400, True), str(caught.value)
    rule = one.get_rule("t", "s", "$Default")
    for field, value in what.items():
        setattr(rule, field, value)
    with pytest.raises(HttpResponseError, match="SubCode=40000"):
        one.update_rule("t", "s", rule)
    assert type(one.get_rule("t", "s", "$Default").filter) is TrueRuleFilter


@newest
def test_rules_do_what_they_say(one, bus, live):
    one.create_topic("t")
    wanted = {
        "all": (TrueRuleFilter(), None, "12345"),
        "none": (FalseRuleFilter(), None, ""),
        "sql": (SqlRuleFilter("n > @least", parameters={"@least": 2}), None, "345"),
        "real": (SqlRuleFilter("x = @x", parameters={"@x": 2.5}), None, "5"),
        "lives": (SqlRuleFilter("sys.TimeToLive > @t", parameters={"@t": timedelta(hours=1)}), None, "4"),
        "flag": (CorrelationRuleFilter(properties={"even": True}), None, "24"),
        "label": (CorrelationRuleFilter(label="s1", properties={"n": 1}), None, "1"),
        "when": (CorrelationRuleFilter(properties={"when": MOMENT}), None, "3"),
        "acts": (SqlRuleFilter("n = 1"), SqlRuleAction("SET made = @m", parameters={"@m": 7}), "1"),
    }
    for name, (wants, does, _) in wanted.items():
        one.create_subscription("t", name)
        one.delete_rule("t", name, "$Default")
        one.create_rule("t", name, "r", filter=wants, action=does)
    messages = [
        ServiceBusMessage(
            str(n), subject=f"s{n}", application_properties={"n": n, "even": n % 2 == 0, "x": n / 2}
        )
        for n in range(1, 6)
    ]
    messages[2].application_properties["when"] = MOMENT
    messages[3].time_to_live = timedelta(hours=2)
    messages[4].time_to_live = timedelta(minutes=2)
    with bus.get_topic_sender("t") as sender:
        sender.send_messages(messages)
    for name, (_, does, bodies) in wanted.items():
        found = one.get_subscription_runtime_properties("t", name)
        assert (found.active_message_count, found.total_message_count) == (len(bodies), len(bodies)), name
        for body in bodies:
            status, headers, got = live.call("DELETE", f"/t/subscriptions/{name}/messages/head")
            assert (status, got, headers.get("made")) == (200, body.encode(), does and "7"), name


# What is in them.


COUNTED = (
    "active_message_count",
    "dead_letter_message_count",
    "scheduled_message_count",
    "transfer_message_count",
    "transfer_dead_letter_message_count",
    "total_message_count",
)
TIMES = ("created_at_utc", "updated_at_utc", "accessed_at_utc")


@newest
def test_counts_and_sizes_of_a_queue(one, bus):
    one.create_queue("counted")

    def counts(*values: int) -> int:
        found = one.get_queue_runtime_properties("counted")
        assert (found.name, shown(found, COUNTED)) == ("counted", dict(zip(COUNTED, values, strict=True)))
        (same,) = one.list_queues_runtime_properties()
        names = ("name", "size_in_bytes", *COUNTED, *TIMES)
        assert shown(same, names) == shown(found, names)
        return found.size_in_bytes

    assert counts(0, 0, 0, 0, 0, 0) == 0
    later = datetime.now(UTC) + timedelta(hours=1)
    with bus.get_queue_sender("counted") as sender, bus.get_queue_receiver("counted") as receiver:
        sender.send_messages([ServiceBusMessage("x" * 1000) for _ in range(10)])
        assert 10_000 < counts(10, 0, 0, 0, 0, 10) < 15_000
        numbers = sender.schedule_messages([ServiceBusMessage("later") for _ in range(3)], later)
        counts(10, 0, 3, 0, 0, 13)
        first, second, third, fourth, *_ = receiver.receive_messages(10, max_wait_time=5)
        counts(10, 0, 3, 0, 0, 13)
        receiver.complete_message(first)
        receiver.dead_letter_message(second, reason="r")
        # What is deferred is still active.
        receiver.defer_message(third)
        assert 9_000 < counts(8, 1, 3, 0, 0, 12) < 15_000
        sender.cancel_scheduled_messages(numbers[:2])
        receiver.abandon_message(fourth)
        counts(8, 1, 1, 0, 0, 10)
        with bus.get_queue_receiver("counted", sub_queue=ServiceBusSubQueue.DEAD_LETTER) as dead:
            dead.complete_message(dead.receive_messages(1, max_wait_time=5)[0])
        assert 8_000 < counts(8, 0, 1, 0, 0, 9) < 10_000


@newest
def test_counts_of_a_topic_and_its_subscriptions(one, bus):
    one.create_topic("t")
    for name in ("a", "b", "c"):
        one.create_subscription("t", name)
    one.delete_rule("t", "c", "$Default")
    one.create_rule("t", "c", "r", filter=SqlRuleFilter("n = 1"))
    later = datetime.now(UTC) + timedelta(hours=1)
    with bus.get_topic_sender("t") as sender:
        sender.send_messages(
            [ServiceBusMessage("x" * 1000, application_properties={"n": n}) for n in range(4)]
        )
        numbers = sender.schedule_messages([ServiceBusMessage("later") for _ in range(5)], later)
        sender.cancel_scheduled_messages(numbers[3:])
    with bus.get_subscription_receiver("t", "a") as receiver:
        for message in receiver.receive_messages(2, max_wait_time=5):
            receiver.dead_letter_message(message)
    # What is scheduled is still with the topic.
    counted = tuple(name for name in COUNTED if name != "scheduled_message_count")
    for name, values in {"a": (2, 2, 0, 0, 4), "b": (4, 0, 0, 0, 4), "c": (1, 0, 0, 0, 1)}.items():
        found = one.get_subscription_runtime_properties("t", name)
        assert shown(found, counted) == dict(zip(counted, values, strict=True)), name
        (same,) = (s for s in one.list_subscriptions_runtime_properties("t") if s.name == name)
        assert shown(same, (*counted, *TIMES)) == shown(found, (*counted, *TIMES))
    found = one.get_topic_runtime_properties("t")
    assert (found.name, found.subscription_count, found.scheduled_message_count) == ("t", 3, 3)
    assert found.size_in_bytes > 9_000
    (same,) = one.list_topics_runtime_properties()
    names = ("name", "subscription_count", "scheduled_message_count", "size_in_bytes", *TIMES)
    assert shown(same, names) == shown(found, names)


@newest
@pytest.mark.parametrize(("version", "counts"), [("2024-05", (4, 1)), ("2021-05", (None, None))])
def test_counts_of_filters(one, live, version, counts):
    one.create_topic("t")
    for name in ("a", "b"):
        one.create_subscription("t", name)
        one.create_rule("t", name, "sql", filter=SqlRuleFilter("n = 1"))
    one.create_rule("t", "b", "other", filter=CorrelationRuleFilter(label="x"))
    one.create_topic("t2")
    with opened(live, api_version=version) as admin:
        for found in (admin.get_topic_runtime_properties("t"), next(admin.list_topics_runtime_properties())):
            assert (found.sql_filter_count, found.correlation_filter_count) == counts


def test_times(admin):
    before = datetime.now(UTC) - SECOND
    admin.create_queue("q")
    first = admin.get_queue_runtime_properties("q")
    admin.update_queue(admin.get_queue("q"))
    second = admin.get_queue_runtime_properties("q")
    assert before < first.created_at_utc == second.created_at_utc < datetime.now(UTC) + SECOND
    assert first.updated_at_utc < second.updated_at_utc
    assert first.accessed_at_utc.tzinfo is not None


# Pages.


def test_pages(admin):
    names = [f"q{n:03}" for n in range(105)]
    for name in reversed(names):
        admin.create_queue(name)
    assert [queue.name for queue in admin.list_queues()] == names
    assert [queue.name for queue in admin.list_queues_runtime_properties()] == names
    for size in (20, 105, 1000):
        assert [queue.name for queue in admin.list_queues(max_page_size=size)] == names
    assert [queue.name for queue in admin.list_queues(start_index=103)] == names[103:]
    assert [queue.name for queue in admin.list_queues(start_index=50, max_page_size=20)] == names[50:]
    assert list(admin.list_queues(start_index=105)) == []


def test_pages_of_everything_else(admin):
    names = ["a", "b", "c"]
    for name in names:
        admin.create_topic(name)
        admin.create_subscription("a", name)
        admin.create_rule("a", "a", name, filter=SqlRuleFilter("n = @n", parameters={"@n": name}))
    page = {"max_page_size": 2}
    assert [topic.name for topic in admin.list_topics(**page)] == names
    assert [topic.name for topic in admin.list_topics_runtime_properties(**page)] == names
    assert [s.name for s in admin.list_subscriptions("a", **page)] == names
    assert [s.name for s in admin.list_subscriptions_runtime_properties("a", **page)] == names
    rules = list(admin.list_rules("a", "a", **page))
    assert [rule.name for rule in rules] == ["$Default", *names]
    assert [rule.filter.parameters for rule in rules[1:]] == [{"@n": name} for name in names]


def test_nothing_to_list(admin):
    assert list(admin.list_queues()) == list(admin.list_topics()) == []
    admin.create_topic("t")
    assert list(admin.list_subscriptions("t")) == []


def test_the_namespace(admin):
    found = admin.get_namespace_properties()
    assert (found.name, found.alias, found.messaging_sku) == ("hubbub", None, MessagingSku.STANDARD)
    assert (found.messaging_units, found.namespace_type) == (None, "Mixed")
    assert found.created_at_utc <= found.modified_at_utc <= datetime.now(UTC)


# Who may, and by which way.


def with_token(live, text: str, kind: str = ""):
    options = {"retry_total": 0, "connection_verify": live.authority}
    host = f"localhost:{live.port}"
    if kind == "asyncio":
        client = azure.servicebus.aio.management.ServiceBusAdministrationClient(
            host, AsyncCredential(text), **options
        )
        return Blocking(client)
    return azure.servicebus.management.ServiceBusAdministrationClient(host, Credential(text), **options)


def works(admin) -> None:
    admin.create_queue("mine")
    admin.update_queue(admin.get_queue("mine"), max_delivery_count=3)
    assert [queue.max_delivery_count for queue in admin.list_queues()] == [3]
    admin.delete_queue("mine")
    assert admin.get_namespace_properties().name == "hubbub"
    admin.close()


@pytest.mark.parametrize("kind", ["", "asyncio"])
def test_a_token_credential(one, live, kind):
    works(with_token(live, bearer(OWNER), kind))


@pytest.mark.parametrize("kind", ["", "asyncio"])
def test_a_signature_in_the_connection_string(one, live, kind):
    token = sas_token(f"https://localhost:{live.port}/", ROOT, WELL_KNOWN, FAR)
    text = f"Endpoint=sb://localhost:{live.port}/;SharedAccessSignature={token}"
    works(opened(live, kind, text))


@newest
def test_the_connection_string_of_the_ready_file(one, live):
    works(opened(live, text=live.connection_string))


DENIED = {
    "reader": bearer(READER),
    "nobody": bearer("33333333-0000-0000-0000-000000000000"),
    "expired": bearer(OWNER, seconds=-600),
    "elsewhere": bearer(OWNER, audience="https://storage.azure.net"),
    "forged": bearer(OWNER)[:-8] + "AAAAAAAA",
    "garbage": "garbage",
}


@pytest.mark.parametrize("name", DENIED)
def test_tokens_that_do_not_do(one, live, name):
    admin = with_token(live, DENIED[name])
    for call in (
        lambda: admin.create_queue("mine"),
        lambda: admin.get_queue("mine"),
        lambda: list(admin.list_queues()),
        lambda: admin.delete_queue("mine"),
        lambda: admin.get_subscription("t", "s"),
        lambda: admin.get_rule("t", "s", "r"),
        admin.get_namespace_properties,
    ):
        with pytest.raises(ClientAuthenticationError) as caught:
            call()
        assert caught.value.status_code == 401
    admin.close()
    assert list(one.list_queues()) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"SharedAccessKey": "d3Jvbmc="}, "InvalidSignature"),
        ({"SharedAccessKeyName": "nobody"}, "InvalidSignature|40103"),
        ({"Endpoint": "sb://127.0.0.1:{port}"}, ""),
    ],
)
def test_keys(one, live, changes, text):
    changes = {name: value.format(port=live.port) for name, value in changes.items()}
    admin = opened(live, text=connection_string(live, **changes))
    if text:
        with pytest.raises(ClientAuthenticationError, match=text):
            admin.create_queue("mine")
        admin.close()
    else:
        works(admin)


@newest
def test_one_port_for_everything(one, live, bus):
    """Both forms of HTTP, and AMQP, in turn."""
    one.create_queue("shared")
    plain = opened(live, transport=Plain())
    for n in range(3):
        with bus.get_queue_sender("shared") as sender:
            sender.send_messages(ServiceBusMessage("x"))
        for admin in (one, plain):
            assert admin.get_queue_runtime_properties("shared").active_message_count == n + 1
    plain.close()


# Preconditions, which the client can be given by header.


def test_if_match(one, live):
    queue = one.create_queue("matched")
    tag = live.call("GET", "/matched")[1]["ETag"]
    with pytest.raises(HttpResponseError) as caught:
        one.create_queue("matched", headers={"If-Match": "1"}, max_delivery_count=2)
    assert caught.value.status_code == 412
    with pytest.raises(HttpResponseError) as caught:
        one.create_queue("matched", headers={"If-None-Match": "*"}, max_delivery_count=2)
    assert caught.value.status_code == 412
    assert one.get_queue("matched").max_delivery_count == 10
    replaced = one.create_queue("matched", headers={"If-Match": tag}, max_delivery_count=2)
    assert replaced.max_delivery_count == 2
    # It has another tag now.
    with pytest.raises(HttpResponseError) as caught:
        one.create_queue("matched", headers={"If-Match": tag}, max_delivery_count=3)
    assert caught.value.status_code == 412
    one.update_queue(queue, max_delivery_count=4)
    assert one.get_queue("matched").max_delivery_count == 4


@pytest.mark.skipif(not NEWEST, reason="this is the older release")
def test_the_older_release(live):
    """All of the above with an older client, in a process of its own."""
    front = older.installed("azure-servicebus", RELEASE)
    given = environment()
    extra = {
        "PYTHONPATH": os.pathsep.join([str(front), given["PYTHONPATH"]]),
        "ADMINISTRATION_DATA": str(Path(live.authority).parents[1]),
        # That release cannot be told of an authority in any other way.
        "REQUESTS_CA_BUNDLE": live.authority,
        "SSL_CERT_FILE": live.authority,
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-k",
            "2021 or not (2017 or test_pages)",
            __file__,
        ],
        cwd=HERE.parents[1],
        env={**given, **extra},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
