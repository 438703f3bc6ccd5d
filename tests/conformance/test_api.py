"""Hubbub's own JSON API, its health and metrics, against the running server and its own description."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from world import BJ, LISTEN_ONLY, SEND_ONLY, World, contoso

API = "/_hubbub/api/v1"


@pytest.fixture(scope="module")
def api():
    world = World(contoso())
    yield world
    world.close()


def get(world, path, **options):
    reply = world.call("GET", API + path, **options)
    return reply.status, json.loads(reply.body)


def test_entities_live_and_die(api):
    body = json.dumps({"lockDuration": "PT30S", "maxDeliveryCount": 3})
    made = api.call("PUT", f"{API}/queues/a%2Fb", body=body)
    assert made.status == 201
    assert json.loads(made.body)["lockDuration"] == "PT30S"
    assert api.call("PUT", f"{API}/queues/a%2Fb", body="{}").status == 200
    assert {q["path"] for q in get(api, "/queues")[1]} == {"q1", "a/b"}
    assert get(api, "/queues/a%2Fb")[1]["maxDeliveryCount"] == 10
    assert api.call("DELETE", f"{API}/queues/a%2Fb").status == 200
    assert get(api, "/queues/a%2Fb")[0] == 404
    assert api.call("PUT", f"{API}/subscriptions/t1/more", body="{}").status == 201
    assert [s["name"] for s in get(api, "/subscriptions?topic=t1")[1]] == ["more", "s1"]
    assert api.call("DELETE", f"{API}/subscriptions/t1/more").status == 200
    assert len(get(api, "/hubs/hub1")[1]["partitions"]) == 4


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/queues/x", "nonsense", 400),
        ("PUT", "/queues/x", "[]", 400),
        ("PUT", "/queues/x", '{"lockDuraton":"PT1S"}', 400),
        ("PUT", "/queues/x", '{"lockDuration":"PT9M"}', 400),
        ("PUT", "/queues/x", '{"lockDuration":5}', 400),
        ("PUT", "/queues/x", '{"maxDeliveryCount":"many"}', 400),
        ("PUT", "/queues/_bad!", "{}", 400),
        ("PUT", "/hubs/q1", "{}", 409),
        ("GET", "/nothing", "", 404),
        ("GET", "/queues/hub1", "", 404),
        ("GET", "/hubs/hub1/partitions/9/events", "", 400),
        ("GET", "/hubs/hub1/partitions/0/events?from=somewhere", "", 400),
        ("GET", "/hubs/hub1/partitions/0/events?count=x", "", 400),
        ("GET", "/subscriptions?topic=nope", "", 404),
        ("PATCH", "/queues/q1", "{}", 400),
    ],
)
def test_mistakes_are_told(api, method, path, body, status):
    reply = api.call(method, API + path, body=body)
    assert reply.status == status
    error = json.loads(reply.body)["error"]
    assert error["code"]
    assert len(error["message"]) > 10
    assert get(api, "/queues/x")[0] == 404


@pytest.mark.parametrize(("method", "path"), [("PUT", "/queues/x"), ("POST", "/topics/t1/explain")])
def test_depth_is_no_fault_of_ours(api, method, path):
    reply = api.call(method, API + path, body='{"a":' * 10_000)
    assert (reply.status, "too deep" in reply.text) == (400, True)


def test_rights(api):
    assert get(api, "/queues", auth=None)[0] == 401
    assert get(api, "/hubs/hub1", auth=SEND_ONLY)[0] == 401
    assert get(api, "/hubs/hub1/partitions/0/events", auth=SEND_ONLY)[0] == 401
    assert get(api, "/hubs/hub1/partitions/0/events", auth=LISTEN_ONLY)[0] == 200


def test_where_reading_starts(api):
    for n in range(5):
        api.call("POST", "/hub1/partitions/2/messages", body=str(n))
    base = "/hubs/hub1/partitions/2/events"

    def bodies(query):
        return [event["body"] for event in get(api, f"{base}?{query}")[1]]

    assert bodies("from=start") == list("01234")
    assert bodies("from=start&count=2") == list("01")
    assert bodies("from=seq:2") == list("34")
    assert bodies("from=seq:2&inclusive=1") == list("234")
    assert bodies("from=offset:3") == ["4"]
    assert bodies("from=end") == []
    assert bodies("from=time:2020-01-01T00:00:00Z") == list("01234")
    assert bodies("from=time:2099-01-01T00:00:00Z") == []


def test_a_long_poll_ends_with_the_first_event(api):
    answer = []
    path = "/hubs/hub1/partitions/3/events?from=end&wait=10"
    waiting = threading.Thread(target=lambda: answer.append(get(api, path)))
    began = time.monotonic()
    waiting.start()
    time.sleep(0.2)
    api.call("POST", "/hub1/partitions/3/messages", body="now")
    waiting.join(10)
    assert [event["body"] for event in answer[0][1]] == ["now"]
    assert time.monotonic() - began < 5


def test_a_stream_goes_on(api):
    import http.client

    from world import HOST, HOST_ONLY

    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    path = f"{API}/hubs/hub1/partitions/1/events?from=end&stream=1"
    connection.request("GET", path, headers={"Host": HOST, "Authorization": HOST_ONLY})
    response = connection.getresponse()
    for n in range(3):
        api.call("POST", "/hub1/partitions/1/messages", body=str(n))
        assert json.loads(response.readline())["body"] == str(n)
    connection.close()


def test_peek_and_purge(api):
    batch = json.dumps([{"Body": str(n), "UserProperties": {"n": n}} for n in range(5)])
    api.call("POST", "/q1/messages", body=batch, Content_Type=BJ)
    lock = api.call("POST", "/q1/messages/head?timeout=0")
    assert lock.status == 201
    status, found = get(api, "/queues/q1/messages")
    assert [(m["body"], m["state"], m["properties"]) for m in found][:2] == [
        ("0", "Locked", {"n": 0}),
        ("1", "Active", {"n": 1}),
    ]
    assert get(api, "/queues/q1/messages?from=4&count=1")[1][0]["body"] == "3"
    assert get(api, "/queues/q1")[1]["lockedMessageCount"] == 1
    purged = api.call("POST", f"{API}/queues/q1/purge")
    assert json.loads(purged.body) == {"deleted": 4}
    assert get(api, "/queues/q1")[1]["activeMessageCount"] == 1
    where = "/" + lock.headers["location"].split("://", 1)[1].partition("/")[2]
    assert api.call("DELETE", where).status == 200


SB = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
XSI = "http://www.w3.org/2001/XMLSchema-instance"


@pytest.fixture
def rules(api):
    """The topic `routes` with two subscriptions, made and removed: `rule(subscription, name, sql, action)`."""
    for path in ("topics/routes", "subscriptions/routes/a", "subscriptions/routes/b"):
        assert api.call("PUT", f"{API}/{path}", body="{}").status == 201

    def rule(subscription, name, sql, action=""):
        if action:
            action = f'<Action i:type="SqlRuleAction"><SqlExpression>{action}</SqlExpression></Action>'
        wanted = f'<Filter i:type="SqlFilter"><SqlExpression>{sql}</SqlExpression></Filter>{action}'
        entry = (
            '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">'
            f'<RuleDescription xmlns="{SB}" xmlns:i="{XSI}">{wanted}</RuleDescription></content></entry>'
        )
        path = f"/routes/subscriptions/{subscription}/rules/{name}?api-version=2021-05"
        kind = "application/atom+xml;type=entry;charset=utf-8"
        assert api.call("PUT", path, body=entry, Content_Type=kind).status == 201

    yield rule
    assert api.call("DELETE", f"{API}/topics/routes").status == 200


def explained(api, body, topic="routes", **options):
    reply = api.call("POST", f"{API}/topics/{topic}/explain", body=json.dumps(body), **options)
    return reply.status, json.loads(reply.body)


def test_explaining_a_message(api, rules):
    rules("a", "red", "colour = 'red' AND size &gt; 3 OR sys.Label LIKE 'a%'", "SET size = size * 2")
    rules("b", "broken", "size / 0 = 1")
    assert api.call("DELETE", "/routes/subscriptions/b/rules/$Default?api-version=2021-05").status == 200
    message = {"subject": "b", "properties": {"colour": "red", "size": 5}, "body": "x"}
    status, found = explained(api, {"message": message})
    assert status == 200
    assert found["message"]["properties"]["size"] == {"type": "long", "value": 5}
    assert found["message"]["system"]["Label"] == {"type": "string", "value": "b"}
    first, second = found["subscriptions"]
    assert (first["name"], first["copies"], len(first["deadLetters"])) == ("a", 2, 0)
    default, red = first["rules"]
    assert (default["name"], default["matched"], default["filter"]["text"]) == ("$Default", True, "1=1")
    (both, label) = red["filter"]["terms"]
    assert [(t["text"], t["outcome"], t["decides"], t["reached"]) for t in both["terms"]] == [
        ("colour = 'red'", "true", True, True),
        ("size > 3", "true", True, True),
    ]
    assert both["terms"][0]["saw"] == {"colour": {"type": "string", "value": "red"}}
    assert (label["outcome"], label["reached"], label["decides"]) == ("false", False, False)
    (change,) = red["changes"]
    assert (change["property"], change["before"]["value"], change["after"]["value"]) == ("size", 5, 10)
    assert [copy["properties"] for copy in first["messages"]] == [
        {"colour": "red", "size": 5},
        {"colour": "red", "size": 10, "RuleName": "red"},
    ]
    assert (second["copies"], second["rules"][0]["filter"]["outcome"]) == (0, "error")
    assert second["deadLetters"][0]["deadLetterReason"] == "FilterEvaluationException"
    assert second["rules"][0]["error"] == second["deadLetters"][0]["deadLetterErrorDescription"]
    assert [s["name"] for s in explained(api, {"message": {}, "subscription": "B"})[1]["subscriptions"]] == [
        "b"
    ]
    # It was only asked: nothing was sent.
    assert get(api, "/subscriptions/routes/a/messages")[1] == []
    # And what was told is what happens.
    user = {"colour": '"red"', "size": "5", "BrokerProperties": '{"Label":"b"}'}
    assert api.call("POST", "/routes/messages", body="x", **user).status == 201
    got = get(api, "/subscriptions/routes/a/messages")[1]
    assert [m["properties"] for m in got] == [copy["properties"] for copy in first["messages"]]
    assert len(get(api, "/subscriptions/routes/b/messages?deadLetter=1")[1]) == 1


def test_explaining_a_message_that_is_there(api, rules):
    assert api.call("POST", "/routes/messages", body="x", when="Wed, 02 Jul 2014 01:32:27 GMT").status == 201
    assert api.call("POST", "/routes/messages", body="y").status == 201
    first, second = (m["sequenceNumber"] for m in get(api, "/subscriptions/routes/a/messages")[1])
    rules("b", "late", "when IS NOT NULL", "REMOVE when")
    status, found = explained(api, {"from": {"subscription": "a", "sequenceNumber": first}})
    assert (status, found["message"]["properties"]["when"]["type"]) == (200, "dateTime")
    assert [s["copies"] for s in found["subscriptions"]] == [1, 2]
    assert found["message"]["system"]["DeliveryCount"]["value"] == 0
    # The same, as the API shows the message, but with the type that it cannot show.
    (shown,) = get(api, f"/subscriptions/routes/a/messages?from={first}&count=1")[1]
    shown["properties"]["when"] = {"type": "dateTime", "value": shown["properties"]["when"]}
    again = explained(api, {"message": shown})[1]
    assert again["message"]["properties"] == found["message"]["properties"]
    assert [s["copies"] for s in again["subscriptions"]] == [1, 2]
    assert [
        s["copies"]
        for s in explained(api, {"from": {"subscription": "a", "sequenceNumber": second}})[1]["subscriptions"]
    ] == [1, 1]
    for place in ({"subscription": "a", "sequenceNumber": 99}, {"subscription": "nix", "sequenceNumber": 1}):
        assert explained(api, {"from": place})[0] == 404
    dead = {"subscription": "a", "sequenceNumber": first, "deadLetter": True}
    assert explained(api, {"from": dead})[0] == 404


def test_types_of_properties_that_are_told(api, rules):
    values = {
        "text": "5", "whole": 5, "broken": 2.5, "yes": True, "none": None, "moment": {"type": "dateTime", "value": "2026-01-02"},
        "span": {"type": "duration", "value": "PT1M"}, "id": {"type": "guid", "value": "00000000-0000-0000-0000-000000000007"},
    }  # fmt: skip
    message = {
        "properties": values,
        "timeToLive": "PT5S",
        "messageId": "m",
        "sessionId": "s",
        "scheduledEnqueueTimeUtc": "2099-01-01T00:00:00Z",
    }
    rules("a", "kinds", "broken / 0 &gt; whole", "SET more = broken / 0")
    found = explained(api, {"message": message})[1]
    seen = found["message"]["properties"]
    assert {name: value["type"] for name, value in seen.items()} == {
        "text": "string", "whole": "long", "broken": "double", "yes": "boolean", "moment": "dateTime", "span": "duration", "id": "guid",
    }  # fmt: skip
    assert seen["span"]["value"] == "00:01:00"
    system = found["message"]["system"]
    assert (system["TimeToLive"]["value"], system["MessageId"]["value"]) == ("00:00:05", "m")
    assert system["ScheduledEnqueueTimeUtc"]["value"] == "2099-01-01T00:00:00Z"
    assert found["subscriptions"][0]["rules"][1]["changes"][0]["after"] == {
        "type": "double",
        "value": "Infinity",
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("nonsense", 400), ("[]", 400), ("{}", 400), ('{"message": {}, "from": {}}', 400), ('{"message": {}, "more": 1}', 400),
        ('{"message": []}', 400), ('{"message": {"colour": "red"}}', 400), ('{"message": {"subject": 5}}', 400),
        ('{"message": {"properties": []}}', 400), ('{"message": {"properties": {"a": []}}}', 400), ('{"message": {"properties": {"a": {"type": "x", "value": "1"}}}}', 400),
        ('{"message": {"properties": {"a": {"type": "int", "value": "x"}}}}', 400), ('{"message": {"properties": {"a": 9223372036854775808}}}', 400),
        ('{"message": {"timeToLive": "soon"}}', 400), ('{"message": {"timeToLive": "PT0S"}}', 400), ('{"message": {"scheduledEnqueueTimeUtc": "soon"}}', 400),
        ('{"message": {"bodyBase64": "%"}}', 400), ('{"message": {"body": 5}}', 400), ('{"message": {"sessionId": "' + "x" * 129 + '"}}', 400),
        ('{"from": {}}', 400), ('{"from": {"subscription": "s1", "sequenceNumber": -1}}', 400), ('{"from": {"subscription": "s1", "sequenceNumber": true}}', 400),
        ('{"from": 7}', 400), ('{"from": {"subscription": 1, "sequenceNumber": 1}}', 400), ('{"message": {}, "subscription": 5}', 400),
        ('{"message": {}, "subscription": "nix"}', 404), ('{"message": {"body": "\\ud800"}}', 400), ('{"message": {"subject": "\\ud800"}}', 400),
        ('{"message": {"properties": {"a": "\\ud800"}}}', 400), ('{"message": {"label": "both", "subject": "fine"}}', 200),
        ('{"message": {"properties": null, "subject": null}}', 200), ('{"message": {"properties": {"": 1}}}', 200),
    ],
)  # fmt: skip
def test_what_cannot_be_explained(api, body, status):
    reply = api.call("POST", f"{API}/topics/t1/explain", body=body)
    assert reply.status == status, reply.body
    if status != 200:
        assert len(json.loads(reply.body)["error"]["message"]) > 10


def test_who_may_explain_and_what(api):
    assert explained(api, {"message": {}}, "t1", auth=LISTEN_ONLY)[0] == 401
    assert explained(api, {"message": {}}, "t1", auth=None)[0] == 401
    assert explained(api, {"message": {}}, "q1")[0] == 404
    assert explained(api, {"message": {}}, "nix")[0] == 404
    assert api.call("GET", f"{API}/topics/t1/explain").status == 400
    assert api.call("POST", f"{API}/queues/q1/explain", body='{"message":{}}').status == 400


def test_health(api):
    for path in ("/health", "/_hubbub/readyz", "/_hubbub/livez"):
        reply = api.call("GET", path, None)
        assert (reply.status, reply.text) == (200, '{"status":"healthy","message":"Service is healthy."}')


def test_a_server_that_cannot_write_is_not_healthy(tmp_path):
    from hubbub.engine.log import Full
    from hubbub.engine.memory import MemoryEngine

    world = World(contoso())
    try:
        assert isinstance(world.server.engine, MemoryEngine)
        world.server.engine._fault = lambda: Full("no space")
        reply = world.call("GET", "/health", None)
        assert reply.status == 503
        assert json.loads(reply.body)["status"] == "unhealthy"
        busy = world.call("POST", "/hub1/messages", body="x")
        assert busy.status == 503
        assert busy.detail.startswith("SubCode=50004")
        world.server.engine._fault = None
        time.sleep(0.3)
        assert world.call("GET", "/health", None).status == 200
        assert world.call("POST", "/hub1/messages", body="x").status == 201
    finally:
        world.close()


def test_metrics_are_prometheus_and_count(api):
    def value(name, entity):
        families = text_string_to_metric_families(api.call("GET", "/metrics", None).text)
        samples = [
            s for f in families for s in f.samples if s.name == name and s.labels.get("entity") == entity
        ]
        return samples[0].value if samples else 0

    before = value("hubbub_IncomingMessages_total", "hub1")
    api.call("POST", "/hub1/messages", body='[{"Body":"a"},{"Body":"b"}]', Content_Type=BJ)
    assert value("hubbub_IncomingMessages_total", "hub1") == before + 2
    errors = value("hubbub_UserErrors_total", "hub1")
    api.call("POST", "/hub1/messages", body="{", Content_Type=BJ)
    assert value("hubbub_UserErrors_total", "hub1") == errors + 1


def test_the_description_names_every_route(api):
    document = json.loads(api.call("GET", "/_hubbub/openapi.json", None).body)
    assert document["openapi"].startswith("3.1")
    places = {"path": "q1", "topic": "t1", "name": "s1", "id": "0"}
    for path, item in document["paths"].items():
        url = (
            re.sub(r"\{(\w+)\}", lambda m: places[m[1]], path)
            .replace("hubs/q1", "hubs/hub1")
            .replace("topics/q1", "topics/t1")
        )
        if "get" in item:
            query = "?topic=t1" if path.endswith("/subscriptions") else ""
            assert api.call("GET", url + query).status == 200, path


def test_tracking_ids_stand_in_the_log(api, caplog):
    import logging

    logging.getLogger("hubbub").propagate = True
    with caplog.at_level(logging.INFO, "hubbub"):
        reply = api.call("POST", "/hub1/messages", None, "x")
    tracking = re.search(r"TrackingId:([0-9a-f-]+_\w+)", reply.detail)[1]
    assert tracking in caplog.text
    assert "SharedAccessSignature" not in caplog.text
