"""ATOM management over a real namespace in memory: the conformance cases, changes and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from front.management_peer import ANY, ARRAYS, COUNTS, FAR, HOST, KEY, SB, TYPE, A, Peer, entry_of
from hubbub.broker.access import sas_token
from hubbub.broker.entity import EventHub, Queue, RevokedPublisher, Subscription
from hubbub.broker.message import Message
from hubbub.front.http.request import Request
from hubbub.front.rest.management import Place, place_of


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def topic(peer: Peer) -> Peer:
    """With topic t1, its subscription s1, and hub1."""
    assert peer.put("/t1", "TopicDescription").status == 201
    assert peer.put("/t1/subscriptions/s1", "SubscriptionDescription").status == 201
    assert peer.put("/hub1", "EventHubDescription").status == 201
    return peer


class TestPlaces:
    """What paths mean, before anything is looked up."""

    @pytest.mark.parametrize(
        ("path", "kind", "place"),
        [
            ("q1", None, ("q1", "", "", False, None)),
            ("ut/topicba2054", None, ("ut/topicba2054", "", "", False, None)),
            ("T/Subscriptions", Subscription, ("T", "", "", True, None)),
            ("a/b/SUBSCRIPTIONS/S", Subscription, ("a/b/subscriptions/S", "a/b", "S", False, None)),
            ("t/subscriptions/rules", Subscription, ("t/subscriptions/rules", "t", "rules", False, None)),
            ("h/revokedpublishers", RevokedPublisher, ("h", "", "", True, None)),
            ("h/RevokedPublishers/p", RevokedPublisher, ("h/revokedpublishers/p", "h", "p", False, None)),
        ],
    )
    def test_shapes(self, path: str, kind: type | None, place: tuple[Any, ...]) -> None:
        assert place_of(path.split("/")) == Place(kind, *place)

    def test_rules_and_partitions(self) -> None:
        rule = place_of(["t", "subscriptions", "s", "Rules", "r"])
        assert (rule.path, rule.parent, rule.name) == (
            "t/subscriptions/s/rules/r",
            "t/subscriptions/s",
            "r",
        )
        rules = place_of(["t", "subscriptions", "subscriptions", "rules"])
        assert (rules.path, rules.collection) == ("t/subscriptions/subscriptions", True)
        one = place_of(["h", "consumergroups", "$Default", "partitions", "3"])
        assert (one.path, one.parent, one.partition) == ("h/consumergroups/$Default", "h", "3")
        every = place_of(["h", "consumergroups", "g", "partitions"])
        assert (every.path, every.partition) == ("h/consumergroups/g", "")

    def test_nothing_else_lies_below(self, topic: Peer) -> None:
        for path in (
            "/t1/subscriptions/s1/other",
            "/hub1/revokedpublishers/p/x",
            "/hub1/consumergroups/g/rules",
        ):
            answer = topic.get(path)
            assert (answer.status, answer.detail) == (
                404,
                f"The messaging entity '{path[1:]}' could not be found.",
            )


class TestConformance:
    """The cases of section 9 of the REST reference that are management."""

    def test_71_create_again_and_replace(self, peer: Peer) -> None:
        created = peer.put("/newq?api-version=2021-05", "QueueDescription")
        assert created.status == 201
        assert created.headers == {"Content-Type": "application/atom+xml;type=entry;charset=utf-8"}
        uri = f"https://{HOST}/newq?api-version=2021-05"
        assert created.xml.findtext(f"{A}id") == uri
        link = created.xml.find(f"{A}link")
        assert link is not None
        assert link.attrib == {"rel": "self", "href": uri}
        assert created.xml.findtext(f"{A}title") == "newq"
        assert created.xml.findtext(f"{A}author/{A}name") == "contoso"
        again = peer.put("/newq?api-version=2021-05", "QueueDescription")
        assert again.status == 409
        assert again.detail.startswith("SubCode=40900. Conflict.")
        changed = peer.put("/NEWQ", "QueueDescription", "<MaxDeliveryCount>3</MaxDeliveryCount>", ANY)
        assert (changed.status, changed.value("MaxDeliveryCount")) == (200, "3")
        assert changed.xml.findtext(f"{A}title") == "newq"

    def test_72_get(self, peer: Peer) -> None:
        peer.put("/newq", "QueueDescription")
        found = peer.get("/newq")
        assert found.status == 200
        details = found.described().find(f"{SB}CountDetails")
        assert details is not None
        assert details.findtext(f"{COUNTS}ActiveMessageCount") == "0"
        nothing = peer.get("/nope")
        assert nothing.status == 200
        assert nothing.headers == {"Content-Type": "application/atom+xml;type=feed;charset=utf-8"}
        assert nothing.xml.findtext(f"{A}title") == "Publicly Listed Services"
        assert nothing.xml.findtext(f"{A}generator") == "Service Bus 1.1"
        assert nothing.xml.findall(f"{A}entry") == []

    def test_73_missing_below(self, topic: Peer) -> None:
        answer = topic.get("/t1/subscriptions/nope")
        assert (answer.status, answer.detail) == (404, "Entity 'contoso:Topic:t1|nope' was not found.")
        answer = topic.get("/t1/subscriptions/s1/rules/nope")
        assert (answer.status, answer.detail) == (404, "Entity 'contoso:Topic:t1|s1|nope' was not found.")
        for path in ("/hub1/consumergroups/nope", "/hub1/consumergroups/nope/partitions/0"):
            answer = topic.get(path)
            assert (answer.status, answer.detail) == (
                404,
                "Entity 'hub1/consumergroups/nope' was not found.",
            )
        for path in ("/nope/subscriptions", "/hub1/subscriptions", "/t1/consumergroups"):
            assert topic.get(path).status == 404

    def test_74_delete_twice(self, peer: Peer) -> None:
        peer.put("/newq", "QueueDescription")
        first = peer.send("DELETE", "/newq")
        assert (first.status, first.body) == (200, b"")
        second = peer.send("DELETE", "/newq")
        assert (second.status, second.detail) == (404, "No service is hosted at the specified address.")

    def test_75_paging(self, peer: Peer) -> None:
        for name in ("qb", "Qa", "qc"):
            peer.put(f"/{name}", "QueueDescription")
        page = peer.get("/$Resources/queues?api-version=2021-05&$skip=0&$top=1")
        assert page.headers == {"Content-Type": "application/atom+xml;type=feed;charset=utf-8"}
        assert page.xml.findtext(f"{A}title") == "Queues"
        assert page.titles() == ["Qa"]
        links = page.xml.findall(f"{A}link")
        assert [link.get("rel") for link in links] == ["self", "next"]
        following = links[1].get("href") or ""
        assert following == f"https://{HOST}/$Resources/queues?api-version=2021-05&$skip=1&$top=1"
        parts = urlsplit(following)
        last = peer.get(f"/%24Resources/queues?{parts.query.replace('skip=1', 'skip=2')}")
        assert last.titles() == ["qc"]
        assert len(last.xml.findall(f"{A}link")) == 1
        inside = last.xml.find(f"{A}entry")
        assert inside is not None
        base = "{http://www.w3.org/XML/1998/namespace}base"
        assert inside.get(base) == last.xml.findtext(f"{A}id")
        assert inside.findtext(f"{A}id") == f"https://{HOST}/qc?api-version=2021-05"
        link = inside.find(f"{A}link")
        assert link is not None
        assert link.get("href") == "../qc"

    @pytest.mark.parametrize(
        "query", ["$skip=-1", "$skip=x", "$top=0", "$top=1e3", "$top=9999999999", "$skip=٣"]
    )
    def test_75_numbers_that_are_none(self, peer: Peer, query: str) -> None:
        assert peer.get(f"/$Resources/queues?{query}").status == 400

    def test_75_pages_are_bounded(self, peer: Peer) -> None:
        for number in range(101):
            peer.put(f"/q{number:03}", "QueueDescription")
        page = peer.get("/$Resources/queues?$top=5000")
        assert len(page.titles()) == 100
        assert (page.xml.findall(f"{A}link")[1].get("href") or "").endswith("?$skip=100&$top=100")
        assert peer.get("/$Resources/queues?$skip=101").titles() == []

    @pytest.mark.parametrize(
        ("profile", "sku", "units"),
        [("basic", "Basic", None), ("standard", "Standard", None), ("premium", "Premium", "1")],
    )
    def test_76_namespace(self, profile: str, sku: str, units: str | None) -> None:
        peer = Peer(profile)
        found = peer.get("/$NamespaceInfo")
        assert (found.value("Name"), found.value("MessagingSKU")) == ("contoso", sku)
        assert found.value("MessagingUnits") == units
        assert found.described().tag == f"{SB}NamespaceInfo"
        peer.close()

    def test_77_first_rule(self, topic: Peer) -> None:
        assert topic.put("/t1/subscriptions/s2", "SubscriptionDescription").status == 201
        rules = topic.get("/t1/subscriptions/s2/rules/")
        assert rules.xml.findtext(f"{A}title") == "Rules"
        assert rules.titles() == ["$Default"]
        described = rules.xml.find(f"{A}entry/{A}content/{SB}RuleDescription")
        assert described is not None
        assert [(c.tag.removeprefix(SB), c.get(TYPE)) for c in described] == [
            ("Filter", "TrueFilter"),
            ("Action", "EmptyRuleAction"),
            ("CreatedAt", None),
            ("Name", None),
        ]

    def test_78_event_hub(self, peer: Peer) -> None:
        created = peer.put("/hub9", "EventHubDescription")
        assert created.status == 201
        ids = [e.text for e in peer.get("/hub9").described().iter(f"{ARRAYS}string")]
        assert ids == ["0", "1", "2", "3"]
        assert peer.get("/hub9").value("MessageRetentionInDays") == "7"
        groups = peer.get("/hub9/consumergroups")
        assert groups.titles() == ["$Default"]
        assert groups.xml.findtext(f"{A}title") == "ConsumerGroups"
        message = Message(payload=b"\x00Su\xa0\x01x")

        async def publish() -> None:
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            peer.namespace.publish(
                peer.namespace.hub("hub9"), [message, message], 0, peer.clock.now(), future.set_result
            )
            assert await future is None

        peer.runner.run(publish())
        partition = peer.get("/hub9/consumergroups/$Default/partitions/0")
        assert partition.described().tag == f"{SB}PartitionDescription"
        assert (partition.value("BeginSequenceNumber"), partition.value("EndSequenceNumber")) == ("0", "1")
        assert partition.value("LastEnqueuedOffset") == "1"
        assert partition.value("LastEnqueuedTimeUtc") == "2023-11-14T22:13:20.0000000Z"
        every = peer.get("/hub9/consumergroups/%24default/partitions?$top=3")
        assert every.titles() == ["0", "1", "2"]
        assert (every.xml.findall(f"{A}link")[1].get("href") or "").endswith("?$skip=3&$top=3")
        for wrong in ("4", "x"):
            assert peer.get(f"/hub9/consumergroups/$Default/partitions/{wrong}").status == 400

    def test_79_revoked_publishers(self, topic: Peer) -> None:
        path = "/hub1/revokedpublishers"
        body = "<Name>dev-01</Name>"
        created = topic.put(f"{path}/Dev-01", "RevokedPublisherDescription", body)
        assert (created.status, created.value("Name")) == (201, "Dev-01")
        assert topic.put(f"{path}/dev-01", "RevokedPublisherDescription", body).status == 409
        assert topic.put(f"{path}/dev-02", "RevokedPublisherDescription", body).status == 400
        topic.put(f"{path}/a%20b%2Fc", "RevokedPublisherDescription")
        feed = topic.get(path)
        assert feed.titles() == ["a b/c", "Dev-01"]
        assert feed.xml.find(f"{A}entry/{A}published") is None
        inside = feed.xml.find(f"{A}entry/{A}id")
        assert inside is not None
        assert inside.text == f"https://{HOST}/hub1/revokedpublishers/a%20b/c"
        assert topic.send("DELETE", f"{path}/DEV-01").status == 200
        assert topic.send("DELETE", f"{path}/DEV-01").status == 404

    def test_80_rights(self, topic: Peer) -> None:
        rule = (
            "<AuthorizationRules>"
            + "".join(
                f'<AuthorizationRule i:type="SharedAccessAuthorizationRule"><Rights>{rights}</Rights>'
                f"<KeyName>{name}</KeyName><PrimaryKey>{KEY}</PrimaryKey></AuthorizationRule>"
                for name, rights in (
                    ("sendonly", "<AccessRights>Send</AccessRights>"),
                    (
                        "owner",
                        "".join(f"<AccessRights>{r}</AccessRights>" for r in ("Manage", "Send", "Listen")),
                    ),
                )
            )
            + "</AuthorizationRules>"
        )
        assert topic.put("/hub2", "EventHubDescription", rule).status == 201
        sender = {"Authorization": sas_token(f"{HOST}/hub2", "sendonly", KEY, FAR)}
        owner = {"Authorization": sas_token(f"{HOST}/hub2", "owner", KEY, FAR)}
        body = entry_of("EventHubDescription")
        denied = topic.send("PUT", "/hub2", body, {**sender, **ANY})
        assert denied.status == 401
        assert denied.detail == "Authorization failed for specified action: Manage,EntityWrite."
        assert "EntityDelete" in topic.send("DELETE", "/hub2", b"", sender).detail
        assert "EntityRead" in topic.send("GET", "/hub2", b"", sender).detail
        assert topic.send("PUT", "/hub2", body, {**owner, **ANY}).status == 200
        assert topic.send("GET", "/hub2/consumergroups", b"", owner).status == 200
        for path in ("/hub1", "/$Resources/eventhubs", "/", "/$namespaceinfo"):
            answer = topic.send("GET", path, b"", owner)
            assert answer.status == 401
            assert answer.detail.startswith("InvalidAudience")


class TestVerbs:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/q1"),
            ("PATCH", "/q1"),
            ("PUT", "/"),
            ("PUT", "/$Resources/queues"),
            ("DELETE", "/$Resources/queues"),
            ("PUT", "/$namespaceinfo"),
            ("PUT", "/t1/subscriptions"),
            ("DELETE", "/t1/subscriptions"),
            ("DELETE", "/hub1/consumergroups/$Default/partitions/0"),
        ],
    )
    def test_wrong_ones(self, topic: Peer, method: str, path: str) -> None:
        answer = topic.send(method, path, entry_of("QueueDescription"))
        assert answer.status == 400
        assert answer.detail == f"SubCode=40000. The specified HTTP verb ({method}) is not valid."
        assert topic.namespace.entity("t1/subscriptions/s1") is not None

    def test_the_root_shows_nothing_even_to_strangers(self, peer: Peer) -> None:
        request = Request(None, b"GET", b"/", [])  # type: ignore[arg-type]
        found = peer.management.handle(request, peer.namespace, None, [], peer.clock.now())
        assert isinstance(found, tuple)
        assert b"Publicly Listed Services" in found[2]
        assert peer.get("/").xml.findtext(f"{A}title") == "Publicly Listed Services"


class TestPreconditions:
    def test_etag_is_updated_at_in_ticks(self, peer: Peer) -> None:
        assert "ETag" not in peer.put("/q1", "QueueDescription").headers
        # 2023-11-14T22:13:20Z.
        assert peer.get("/q1").headers["ETag"] == "638355968000000000"

    def test_an_update_needs_the_tag_it_names(self, topic: Peer) -> None:
        for path, kind in (
            ("/t1", "TopicDescription"),
            ("/t1/subscriptions/s1", "SubscriptionDescription"),
            ("/hub1/consumergroups/$Default", "ConsumerGroupDescription"),
        ):
            tag = topic.get(path).headers["ETag"]
            first = topic.put(path, kind, "", {"If-Match": f'"{tag}"'})
            assert first.status == 200
            assert first.headers["ETag"] != tag
            stale = topic.put(path, kind, "", {"If-Match": tag})
            assert (stale.status, stale.detail) == (412, "Precondition Failed.")
            listed = topic.put(path, kind, "", {"If-Match": f'"1", W/"{first.headers["ETag"]}"'})
            assert listed.status == 200
        assert topic.send("DELETE", "/t1", b"", {"If-Match": tag}).status == 412
        assert topic.send("DELETE", "/t1", b"", ANY).status == 200

    def test_what_must_be_new(self, peer: Peer) -> None:
        new = {"If-None-Match": "*"}
        assert peer.put("/q1", "QueueDescription", "", new).status == 201
        assert peer.put("/q1", "QueueDescription", "", new).status == 412

    def test_an_update_of_nothing(self, topic: Peer) -> None:
        answer = topic.put("/nope", "QueueDescription", "", ANY)
        assert (answer.status, answer.detail) == (404, "No service is hosted at the specified address.")
        answer = topic.put("/t1/subscriptions/x", "SubscriptionDescription", "", ANY)
        assert (answer.status, answer.detail) == (404, "Entity 'contoso:Topic:t1|x' was not found.")
        assert topic.namespace.entity("nope") is None


class TestChanging:
    def test_names_of_many_segments_keep_their_case(self, peer: Peer) -> None:
        assert peer.put("/ut/TopicBA2054", "TopicDescription").status == 201
        assert peer.put("/UT/topicba2054/Subscriptions/S1", "SubscriptionDescription").status == 201
        found = peer.get("//ut//topicba2054/subscriptions/s1/")
        assert found.xml.findtext(f"{A}title") == "S1"
        assert found.xml.find(f"{A}author") is None
        assert peer.get("/ut/topicba2054/subscriptions").titles() == ["S1"]
        entity = peer.namespace.entity("ut/topicba2054/subscriptions/s1")
        assert isinstance(entity, Subscription)
        assert (entity.path, entity.topic) == ("ut/TopicBA2054/subscriptions/S1", "ut/TopicBA2054")
        updated = peer.put("/ut/topicba2054/subscriptions/s1", "SubscriptionDescription", "", ANY)
        assert updated.xml.findtext(f"{A}title") == "S1"
        assert peer.get("/$Resources/topics").titles() == ["ut/TopicBA2054"]

    def test_an_update_replaces_everything(self, peer: Peer) -> None:
        inner = "<LockDuration>PT5S</LockDuration><UserMetadata>x</UserMetadata>"
        peer.put("/q1", "QueueDescription", inner)
        peer.put("/q1", "QueueDescription", "<MaxDeliveryCount>3</MaxDeliveryCount>", ANY)
        entity = peer.namespace.entity("q1")
        assert isinstance(entity, Queue)
        assert (entity.lock_duration, entity.deliveries_max, entity.user_metadata) == (60_000, 3, "")

    def test_an_event_hub_keeps_what_its_update_leaves_out(self, peer: Peer) -> None:
        peer.put("/h", "EventHubDescription", "<PartitionCount>8</PartitionCount>")
        answer = peer.put(
            "/h", "EventHubDescription", "<MessageRetentionInDays>2</MessageRetentionInDays>", ANY
        )
        assert answer.status == 200
        assert answer.xml.find(f"{A}published") is None
        entity = peer.namespace.entity("h")
        assert isinstance(entity, EventHub)
        assert (entity.partition_count, entity.retention) == (8, 2 * 86_400_000)
        answer = peer.put("/h", "EventHubDescription", "<PartitionCount>9</PartitionCount>", ANY)
        assert answer.status == 400

    def test_a_hub_is_kept_as_long_as_the_tier_allows(self) -> None:
        peer = Peer("basic")
        assert peer.put("/h", "EventHubDescription").value("MessageRetentionInDays") == "1"
        days = "<MessageRetentionInDays>7</MessageRetentionInDays>"
        assert peer.put("/h2", "EventHubDescription", days).status == 400
        topic = peer.put("/t", "TopicDescription")
        assert "'contoso' is using 'Basic' tier" in topic.detail
        peer.close()

    @pytest.mark.parametrize(
        ("path", "kind", "inner", "status", "text"),
        [
            ("/q%21", "QueueDescription", "", 400, "character(s) that is not allowed"),
            ("/" + "q" * 261, "QueueDescription", "", 400, "over 260 characters"),
            ("/q", "QueueDescription", "<LockDuration>PT5M1S</LockDuration>", 400, "maximum of '5' minutes"),
            (
                "/q",
                "QueueDescription",
                "<MaxSizeInMegabytes>7</MaxSizeInMegabytes>",
                400,
                "value 7 is invalid",
            ),
            ("/q", "QueueDescription", "<ForwardTo>q2</ForwardTo>", 400, "auto forwarding destination"),
            ("/q", "QueueDescription", "<Status>Odd</Status>", 400, "status 'Odd'"),
            ("/q", "SubscriptionDescription", "", 400, "is wanted here, not a SubscriptionDescription"),
            ("/t1/subscriptions/s2", "QueueDescription", "", 400, "A SubscriptionDescription is wanted here"),
            (
                "/t1/subscriptions/s1",
                "SubscriptionDescription",
                "",
                409,
                "'contoso:Topic:t1|s1' already exists",
            ),
            (
                "/t1/subscriptions/s1/rules/$Default",
                "RuleDescription",
                "",
                409,
                "t1|s1|$Default' already exists",
            ),
            ("/t9/subscriptions/s", "SubscriptionDescription", "", 404, "'t9' was not found"),
            ("/hub1/subscriptions/s", "SubscriptionDescription", "", 404, "'hub1' was not found"),
            ("/t1", "QueueDescription", "", 409, "SubCode=40900"),
            ("/hub3", "EventHubDescription", "<PartitionCount>33</PartitionCount>", 400, "PartitionCount"),
            ("/hub3", "EventHubDescription", "<PartitionCount>0</PartitionCount>", 400, "PartitionCount"),
        ],
    )
    def test_refusals(self, topic: Peer, path: str, kind: str, inner: str, status: int, text: str) -> None:
        answer = topic.put(path, kind, inner)
        assert answer.status == status
        assert text in answer.detail

    def test_what_may_not_change(self, topic: Peer) -> None:
        inner = "<RequiresSession>true</RequiresSession>"
        answer = topic.put("/t1/subscriptions/s1", "SubscriptionDescription", inner, ANY)
        assert (answer.status, "requiresSession" in answer.detail) == (400, True)
        answer = topic.put("/t1", "QueueDescription", "", ANY)
        assert (answer.status, "A TopicDescription is wanted" in answer.detail) == (400, True)

    def test_the_default_consumer_group_stays(self, topic: Peer) -> None:
        answer = topic.send("DELETE", "/hub1/consumergroups/$default")
        assert (answer.status, "$Default cannot be deleted" in answer.detail) == (400, True)
        assert topic.put("/hub1/consumergroups/g", "ConsumerGroupDescription").status == 201
        assert topic.get("/hub1/consumergroups").titles() == ["$Default", "g"]
        assert topic.send("DELETE", "/hub1/consumergroups/g").status == 200
        assert topic.get("/hub1/consumergroups/g").status == 404

    def test_a_topic_goes_with_all_below_it(self, topic: Peer) -> None:
        assert topic.send("DELETE", "/t1").status == 200
        assert topic.get("/t1/subscriptions/s1").status == 404
        topic.put("/t1", "TopicDescription")
        assert topic.get("/t1/subscriptions").titles() == []

    def test_keys_are_made_and_then_kept(self, peer: Peer) -> None:
        def rules(keys: str, right: str = "Send") -> str:
            return (
                f"<AuthorizationRules><AuthorizationRule><Rights><AccessRights>{right}</AccessRights></Rights>"
                f"<KeyName>k</KeyName>{keys}</AuthorizationRule></AuthorizationRules>"
            )

        peer.put("/q", "QueueDescription", rules(""))
        entity = peer.namespace.entity("q")
        assert isinstance(entity, Queue)
        (made,) = entity.authorization_rules
        assert (len(made.primary), len(made.secondary)) == (44, 44)
        assert made.primary != made.secondary
        shown = next(peer.get("/q").described().iter(f"{SB}AuthorizationRule"))
        assert shown.findtext(f"{SB}PrimaryKey") == made.primary
        peer.clock.advance(1000)
        peer.put("/q", "QueueDescription", rules(""), ANY)
        assert peer.namespace.entity("q").authorization_rules == (made,)  # type: ignore[union-attr]
        peer.put("/q", "QueueDescription", rules("<PrimaryKey>mine</PrimaryKey>", "Listen"), ANY)
        (changed,) = peer.namespace.entity("q").authorization_rules  # type: ignore[union-attr]
        assert (changed.primary, changed.secondary, changed.rights) == ("mine", made.secondary, ("Listen",))
        assert (changed.created, changed.modified) == (made.created, made.created + 1000)
        peer.put("/q", "QueueDescription", "", ANY)
        assert peer.namespace.entity("q").authorization_rules == ()  # type: ignore[union-attr]
