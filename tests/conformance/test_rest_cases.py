"""The REST reference's conformance cases 1 to 70 and 79, each by its number."""

from __future__ import annotations

import json
import time
from email.utils import parsedate

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from world import (
    AX,
    BJ,
    ENTRY,
    HOST,
    HOST_ONLY,
    KEY,
    LISTEN_ONLY,
    LOWER,
    PUBLISHER,
    ROOT,
    SEND_ONLY,
    SHORT,
    SIGNED,
    SWT,
    UPPER,
    WRAP,
    World,
    contoso,
)

from hubbub.broker.access import sas_token
from hubbub.config import JwtConfig

BODY = '{ "DeviceId":"dev-01", "Temperature":"37.0" }'
SEND = "/hub1/messages?timeout=60&api-version=2014-01"
THREE = '[{"Body":"Message1"},{"Body":"Message2"},{"Body":"Message3"}]'


def event(world, body=BODY, path=SEND, auth=HOST_ONLY, **headers):
    """One send, and what it left in the hub."""
    ends = world.ends()
    headers.setdefault("Content_Type", AX)
    reply = world.call("POST", path, auth, body, **headers)
    return reply, world.since(ends)


def batch(world, body, content_type=BJ, **headers):
    return event(world, body, Content_Type=content_type, **headers)


def test_case_01_send_event(world):
    reply, found = event(world)
    assert reply.status == 201
    assert reply.headers["content-type"] == "application/xml; charset=utf-8"
    assert reply.headers["server"] == "Microsoft-HTTPAPI/2.0"
    assert parsedate(reply.headers["date"])
    assert reply.headers["content-length"] == "0"
    assert reply.body == b""
    assert [e["body"] for _, e in found] == [BODY]
    assert found[0][1]["contentType"] == AX


def test_case_02_custom_header_becomes_a_property(world):
    reply, found = event(world, Alert="Strong Wind")
    assert reply.status == 201
    assert found[0][1]["properties"] == {"Alert": "Strong Wind"}


def test_case_03_typographic_quotes_stay(world):
    body = "{ \u201cDeviceId\u201d:\u201cdev-01\u201d }"
    reply, found = event(world, body)
    assert reply.status == 201
    assert found[0][1]["body"] == body


def test_case_04_any_bytes_stay(world):
    import base64

    reply, found = event(world, bytes(range(256)))
    assert reply.status == 201
    assert base64.b64decode(found[0][1]["bodyBase64"]) == bytes(range(256))


def test_case_05_empty_body(world):
    reply, found = event(world, b"")
    assert reply.status == 201
    assert found[0][1]["body"] == ""


def test_case_06_no_query(world):
    assert event(world, path="/hub1/messages")[0].status == 201


def test_case_07_no_content_type(world):
    assert world.call("POST", SEND, HOST_ONLY, BODY).status == 201


def test_case_08_absolute_form(world):
    assert event(world, path=f"https://{HOST}/hub1/messages")[0].status == 201


def test_case_09_expect_continue(world):
    head = f"POST {SEND} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {HOST_ONLY}\r\nExpect: 100-continue\r\n"
    answer = world.raw(f"{head}Content-Length: 2\r\n\r\nhi".encode())
    assert answer.startswith(b"HTTP/1.1 201") or answer.startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201"
    )
    import socket

    with socket.create_connection(("127.0.0.1", world.port), timeout=5) as plug:
        plug.sendall(f"{head}Content-Length: 2\r\n\r\n".encode())
        assert plug.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        plug.sendall(b"hi")
        assert plug.recv(1000).startswith(b"HTTP/1.1 201")


def test_case_10_chunked(world):
    ends = world.ends()
    head = f"POST {SEND} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: {HOST_ONLY}\r\nTransfer-Encoding: chunked\r\n"
    assert world.raw(f"{head}\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".encode()).startswith(b"HTTP/1.1 201")
    assert world.since(ends)[0][1]["body"] == "abcde"


def test_case_11_retry_policy_is_no_property(world):
    reply, found = event(world, x_ms_retrypolicy="NoRetry")
    assert reply.status == 201
    assert "properties" not in found[0][1]


def test_case_12_letter_case_of_the_path(world):
    reply, found = event(world, path="/HUB1/Messages")
    assert reply.status == 201
    assert len(found) == 1


def test_case_13_partition(world):
    reply, found = event(world, path="/hub1/partitions/0/messages?timeout=60&api-version=2014-01")
    assert reply.status == 201
    assert [p for p, _ in found] == [0]


@pytest.mark.parametrize("partition", ["4", "x", "00", "-1"])
def test_case_14_no_such_partition(world, partition):
    reply = world.call("POST", f"/hub1/partitions/{partition}/messages", body=BODY)
    assert reply.status == 400
    assert "between 0 and 3" in reply.detail


def test_case_15_partition_key(world):
    ends = world.ends()
    for _ in range(2):
        assert world.call("POST", SEND, body="k", BrokerProperties='{"PartitionKey":"k1"}').status == 201
    found = world.since(ends)
    assert len({p for p, _ in found}) == 1
    assert [e["partitionKey"] for _, e in found] == ["k1", "k1"]


def test_case_16_keyless_events_spread(world):
    ends = world.ends()
    for _ in range(8):
        assert world.call("POST", SEND, body="x").status == 201
    assert len({p for p, _ in world.since(ends)}) > 1


def test_case_17_partition_and_key(world):
    reply, found = event(world, path="/hub1/partitions/0/messages", BrokerProperties='{"PartitionKey":"k"}')
    assert reply.status == 400
    assert not found


def test_case_18_publisher_token(world):
    reply, found = event(world, path="/hub1/publishers/dev-01/messages", auth=PUBLISHER)
    assert reply.status == 201
    assert found[0][1]["partitionKey"] == found[0][1]["publisher"] == "dev-01"


@pytest.mark.parametrize("path", ["/hub1/publishers/dev-02/messages", "/hub1/messages"])
def test_case_19_publisher_token_elsewhere(world, path):
    reply = world.call("POST", path, PUBLISHER, BODY)
    assert reply.status == 401
    assert reply.detail.startswith("InvalidAudience")


def test_case_20_publisher_in_the_singular(world):
    reply, found = event(world, path="/hub1/publisher/dev-01/messages")
    assert reply.status == 201
    assert found[0][1]["publisher"] == "dev-01"


def test_case_21_publisher_and_another_key(world):
    reply, found = event(
        world, path="/hub1/publishers/dev-01/messages", BrokerProperties='{"PartitionKey":"other"}'
    )
    assert reply.status == 400
    assert not found


def test_case_22_batch(world):
    reply, found = batch(world, THREE)
    assert (reply.status, reply.body) == (201, b"")
    assert [e["body"] for _, e in found] == ["Message1", "Message2", "Message3"]
    assert len({p for p, _ in found}) == 1


def test_case_23_batch_user_properties(world):
    body = THREE.replace('"Message1"', '"Message1","UserProperties":{"Alert":"Strong Wind"}')
    reply, found = batch(world, body)
    assert reply.status == 201
    assert [e.get("properties") for _, e in found] == [{"Alert": "Strong Wind"}, None, None]


def test_case_24_batch_ignores_headers(world):
    reply, found = batch(world, THREE, Foo="bar", BrokerProperties='{"PartitionKey":"z"}')
    assert reply.status == 201
    assert all("properties" not in e and "partitionKey" not in e for _, e in found)
    assert len(found) == 3


def test_case_25_batch_broker_properties(world):
    correlation = "32119834-65f3-48c1-b366-619df2e4c400"
    reply, found = batch(world, json.dumps([{"BrokerProperties": {"CorrelationId": correlation}}]))
    assert reply.status == 201
    assert found[0][1]["correlationId"] == correlation


def test_case_26_the_documents_broken_sample(world):
    reply, found = batch(world, '[{"Body":"x","BrokerProperties":{"CorrelationId","32119834"}}]')
    assert reply.status == 400
    assert not found


@pytest.mark.parametrize("body", ["not json", '{"Body":"x"}', '["x"]', "[]"])
def test_case_27_not_a_batch(world, body):
    reply, found = batch(world, body)
    assert reply.status == 400
    assert not found


def test_case_28_one_bad_element(world):
    reply, found = batch(world, '[{"Body":"ok"},{"Body":{"a":1}}]')
    assert reply.status == 400
    assert not found


@pytest.mark.parametrize("body", ["[{}]", '[{"Body":null}]'])
def test_case_29_no_body(world, body):
    reply, found = batch(world, body)
    assert reply.status == 201
    assert [e["body"] for _, e in found] == [""]


def test_case_30_base64(world):
    reply, found = batch(world, '[{"Body":"AAEC","IsBodyBase64":true}]')
    assert reply.status == 201
    assert found[0][1]["body"] == "\x00\x01\x02"


def test_case_31_unknown_member(world):
    assert batch(world, '[{"Body":"x","Zzz":1}]')[0].status == 201


def test_case_32_batch_type_with_charset(world):
    reply, found = batch(world, THREE, BJ + "; charset=utf-8")
    assert reply.status == 201
    assert len(found) == 3


def test_case_33_array_without_the_batch_type(world):
    reply, found = event(world, THREE)
    assert reply.status == 201
    assert [e["body"] for _, e in found] == [THREE]


def test_case_34_property_types(world):
    from hubbub.wire.amqp.message import section_map, split

    ends = world.ends()
    body = '[{"UserProperties":{"s":"1","i":42,"d":3.14,"b":true}}]'
    assert world.call("POST", SEND, body=body, Content_Type=BJ).status == 201
    number = next(n for n, end in enumerate(ends) if world.ends()[n] > end)
    message = world.namespace.hub("hub1").read(number, ends[number], 1, 999)[0].message
    found = section_map(split(message.payload).application_properties)
    assert found == {"s": "1", "i": 42, "d": 3.14, "b": True}
    assert [type(v).__name__ for v in found.values()] == ["str", "Long", "float", "bool"]


def test_case_35_no_authorization(world):
    reply = world.call("POST", SEND, None, BODY)
    assert reply.status == 401
    assert "<Code>401</Code>" in reply.text
    assert reply.detail.startswith("MissingToken")
    assert reply.headers["content-type"] == "application/xml; charset=utf-8"


@pytest.mark.parametrize("auth", ["Basic x", f'"{HOST_ONLY}"'])
def test_case_36_malformed(world, auth):
    reply = world.call("POST", SEND, auth, BODY)
    assert reply.status == 401
    assert reply.detail.startswith("MalformedToken")


def test_case_37_wrong_signature(world):
    reply = world.call("POST", SEND, HOST_ONLY.replace("sig=p", "sig=q"), BODY)
    assert reply.status == 401
    assert reply.detail.startswith("InvalidSignature")


def test_case_38_expired(world):
    reply = world.call("POST", SEND, sas_token(f"https://{HOST}/", ROOT, KEY, 1403736877), BODY)
    assert reply.status == 401
    assert reply.detail.startswith("ExpiredToken")


def test_case_39_another_hub(world):
    reply = world.call("POST", SEND, sas_token(f"https://{HOST}/hub2", ROOT, KEY, 4102444800), BODY)
    assert reply.status == 401
    assert reply.detail.startswith("InvalidAudience")


def test_case_40_listen_cannot_send(world):
    reply = world.call("POST", SEND, LISTEN_ONLY, BODY)
    assert reply.status == 401
    assert "Send" in reply.detail
    assert world.call("POST", SEND, SEND_ONLY, BODY).status == 201


@pytest.mark.parametrize("auth", [LOWER, UPPER])
def test_case_41_either_hex_case(world, auth):
    assert world.call("POST", SEND, auth, BODY).status == 201


def test_case_42_field_order(world):
    fields = dict(pair.split("=", 1) for pair in LOWER.split(" ", 1)[1].split("&"))
    auth = "SharedAccessSignature " + "&".join(
        f"{name}={fields[name]}" for name in ("sig", "se", "skn", "sr")
    )
    assert world.call("POST", SEND, auth, BODY).status == 201


def test_case_43_short_namespace_name(world):
    assert world.call("POST", "/q1/messages", SHORT, "x").status == 201
    world.empty("q1")


def test_case_44_unencoded_signature(world):
    auth = LOWER.replace("%2F", "/").replace("%3D", "=").replace("%2B", "+")
    assert world.call("POST", SEND, auth, BODY).status == 201


def test_case_45_missing_hub(world):
    reply = world.call("POST", "/nosuch/messages", body=BODY)
    assert reply.status == 404
    for word in ("TrackingId:", "SystemTracker:", "Timestamp:"):
        assert word in reply.detail


def test_case_46_too_large(world):
    limit = world.namespace.limits.event_bytes_max
    reply, found = event(world, b"x" * (limit + 1))
    assert reply.status == 413
    assert not found


@pytest.fixture(scope="module")
def entra(tmp_path_factory):
    """A world that trusts one key, and how to sign with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(pyjwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    path = tmp_path_factory.mktemp("jwks") / "keys.json"
    path.write_text(json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]}))
    world = World(contoso(jwt=JwtConfig(str(path), principals=(("app-1", ("Send",)),))))

    def bearer(**claims):
        payload = {
            "oid": "app-1",
            "aud": "https://eventhubs.azure.net/",
            "exp": int(time.time()) + 600,
        } | claims
        return "Bearer " + pyjwt.encode(payload, key, algorithm="RS256", headers={"kid": "k1"})

    yield world, bearer
    world.close()


@pytest.mark.parametrize("aud", ["https://eventhubs.azure.net/", "https://servicebus.azure.net/"])
def test_case_47_bearer(entra, aud):
    world, bearer = entra
    assert world.call("POST", SEND, bearer(aud=aud), BODY).status == 201


@pytest.mark.parametrize("claims", [{"exp": 1_500_000_000}, {"aud": "https://storage.azure.com/"}])
def test_case_48_bearer_refused(entra, claims):
    world, bearer = entra
    assert world.call("POST", SEND, bearer(**claims), BODY).status == 401


def check_entry(world, auth):
    reply = world.call("POST", "/t1/messages", auth, ENTRY, Content_Type=AX)
    assert reply.status == 200
    return reply


def test_case_49_wrap_and_atom(world):
    from xml.etree import ElementTree

    reply = check_entry(world, WRAP)
    kind = reply.headers["content-type"]
    assert kind.startswith("application/atom+xml; type=entry")
    atom = "{http://www.w3.org/2005/Atom}"
    root = ElementTree.fromstring(reply.body)
    assert root.tag == atom + "entry"
    assert root.find(atom + "id").text == f"https://{HOST}/t1"
    assert root.find(atom + "published").text.endswith("Z")
    assert root.find(atom + "updated").text.endswith("Z")
    link = root.find(atom + "link")
    assert link.get("rel") == "self"
    assert link.get("href") == link.text == f"https://{HOST}/t1"
    assert "<d>hi</d>" in reply.text
    got = world.call("DELETE", "/t1/subscriptions/s1/messages/head?timeout=5")
    assert got.text == ENTRY


@pytest.mark.parametrize(
    "auth", [f"WRAP access_token={SWT}", f"WRAP access_token=\u201c{SWT}\u201d".encode().decode("latin-1")]
)
def test_case_50_quotes_of_the_token(world, auth):
    check_entry(world, auth)
    world.empty()


def test_case_51_atom_with_a_signature(world):
    reply = world.call("POST", "/t1/messages", HOST_ONLY, ENTRY, Content_Type=AX)
    assert (reply.status, reply.body) == (201, b"")


def test_case_52_wrap_with_text(world):
    reply = world.call("POST", "/t1/messages", WRAP, "hello", Content_Type=AX)
    assert (reply.status, reply.body) == (201, b"")


def test_case_53_broken_entry(world):
    body = "<entry xmlns='http://www.w3.org/2005/Atom'><content"
    assert world.call("POST", "/t1/messages", WRAP, body, Content_Type=AX).status == 400
    without = "<entry xmlns='http://www.w3.org/2005/Atom'/>"
    assert world.call("POST", "/t1/messages", WRAP, without, Content_Type=AX).status == 400


@pytest.mark.parametrize("path", ["/q1/messages", "/hub1/messages"])
def test_case_54_atom_elsewhere(world, path):
    reply = world.call("POST", path, WRAP, ENTRY, Content_Type=AX)
    assert (reply.status, reply.body) == (201, b"")
    world.empty()


def test_case_55_bad_simple_web_tokens(world):
    from urllib.parse import quote

    from hubbub.broker.access import signing_key, swt_token

    issuer = "https://contoso-sb.accesscontrol.windows.net/"
    key = signing_key(KEY)

    def detail(token):
        reply = world.call("POST", "/t1/messages", f'WRAP access_token="{token}"', ENTRY, Content_Type=AX)
        assert reply.status == 401
        return reply.detail

    assert detail(SWT.replace("Listen", "Lixten")).startswith("InvalidSignature")
    past = swt_token(issuer, f"http://{HOST}/", ["Send"], 1404435127, key)
    assert detail(past).startswith("ExpiredToken")
    other = swt_token(issuer, "http://fabrikam.servicebus.windows.net/", ["Send"], 4102444800, key)
    assert detail(other).startswith("InvalidAudience")
    assert detail(SIGNED).startswith("SignatureNotFound")
    assert quote("x")


def test_case_56_send_disabled_topic(world):
    import msgspec

    topic = world.namespace.entity("t1")
    world.do(world.namespace.update(msgspec.structs.replace(topic, status="SendDisabled")))
    try:
        assert world.call("POST", "/t1/messages", WRAP, ENTRY, Content_Type=AX).status == 409
    finally:
        world.do(world.namespace.update(msgspec.structs.replace(topic, status="Active")))


def put_message(world):
    world.empty("q1")
    return world.call(
        "POST",
        "/q1/messages",
        body="This is a message.",
        BrokerProperties='{"Label":"M1","State":"Active","TimeToLive":10}',
        Priority="High",
        Customer="12345,ABC",
    )


def lock(world, path="/q1/messages/head?timeout=5"):
    reply = world.call("POST", path)
    assert reply.status == 201
    return reply, "/" + reply.headers["location"].split("://", 1)[1].partition("/")[2]


def test_case_57_send_message(world):
    reply = put_message(world)
    assert (reply.status, reply.body) == (201, b"")


def test_case_58_peek_lock(world):
    put_message(world)
    reply, location = lock(world)
    assert reply.text == "This is a message."
    broker = reply.broker
    assert broker["DeliveryCount"] == 1
    assert broker["Label"] == "M1"
    assert broker["State"] == "Active"
    assert broker["TimeToLive"] == 10
    assert {"LockToken", "LockedUntilUtc", "SequenceNumber", "MessageId", "EnqueuedTimeUtc"} <= broker.keys()
    assert list(broker) == sorted(broker)
    assert reply.headers["priority"] == '"High"'
    assert reply.headers["customer"] == '"12345,ABC"'
    assert location.endswith(f"/messages/{broker['SequenceNumber']}/{broker['LockToken']}")


def test_case_59_unlock(world):
    put_message(world)
    _, location = lock(world)
    assert world.call("PUT", location).status == 200
    assert lock(world)[0].broker["DeliveryCount"] == 2


def test_case_60_renew(world):
    put_message(world)
    _, location = lock(world)
    reply = world.call("POST", location)
    assert (reply.status, reply.body) == (200, b"")


def test_case_61_complete(world):
    put_message(world)
    _, location = lock(world)
    assert world.call("DELETE", location).status == 200
    again = world.call("DELETE", location)
    assert again.status == 404
    assert "lock supplied is invalid" in again.detail


def test_case_62_receive_and_delete(world):
    put_message(world)
    reply = world.call("DELETE", "/q1/messages/head?timeout=5")
    assert (reply.status, reply.text) == (200, "This is a message.")
    assert "location" not in reply.headers
    assert not {"LockToken", "LockedUntilUtc"} & reply.broker.keys()


def test_case_63_nothing_there(world):
    world.empty("q1")
    began = time.monotonic()
    reply = world.call("DELETE", "/q1/messages/head?timeout=1")
    assert (reply.status, reply.body) == (204, b"")
    assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize("status", [410, 404])
def test_case_64_missing_queue_on_service_bus(status):
    from hubbub.broker.entity import Queue
    from hubbub.config import NamespaceConfig

    config = contoso(missing_status=status)
    keys = config.namespaces[0].keys
    bus = World(
        contoso(
            missing_status=status,
            namespaces=(NamespaceConfig("contoso", (), keys, entities=(Queue(path="q"),)),),
        )
    )
    try:
        assert bus.call("POST", "/nosuch/messages", body="x").status == status
        assert bus.call("POST", "/nosuch/messages/head?timeout=0").status == status
    finally:
        bus.close()


def test_case_65_bad_broker_properties(world):
    reply = world.call("POST", "/q1/messages", body="x", BrokerProperties="{'Label': 'x'}")
    assert reply.status == 400
    assert "HTTP header 'BrokerProperties' is invalid" in reply.detail


def test_case_66_recorded_property_echo(world):
    world.empty("q1")
    sent = {
        "active": "true",
        "deceased": "false",
        "dob": '"Wed, 14 Dec 2011 00:00:00 GMT"',
        "floating": "3.14",
        "hello": '"world"',
        "large": "8555111000",
        "number": "42",
        "quote-message": '"This \\"should\\" work fine"',
    }
    assert world.call("POST", "/q1/messages", body="x", **sent).status == 201
    reply, _ = lock(world)
    assert {name: reply.headers[name] for name in sent} == sent


def test_case_67_content_type_comes_back(world):
    world.empty("q1")
    world.call("POST", "/q1/messages", body="<x/>", Content_Type="text/xml")
    assert lock(world)[0].headers["content-type"] == "text/xml"


def test_case_68_service_bus_batch(world):
    world.empty("q1")
    body = json.dumps(
        [
            {
                "Body": "This is the first message",
                "BrokerProperties": {"Label": "M1", "TimeToLiveTimeSpan": "0.00:00:40"},
                "UserProperties": {"Priority": "Low"},
            },
            {"Body": "This is the second message"},
            {"Body": "This is the third message"},
        ]
    )
    assert world.call("POST", "/q1/messages", body=body, Content_Type=BJ).status == 201
    replies = [world.call("DELETE", "/q1/messages/head?timeout=5") for _ in range(3)]
    assert [r.text.split()[3] for r in replies] == ["first", "second", "third"]
    assert replies[0].broker["TimeToLive"] == 40
    assert replies[0].broker["Label"] == "M1"
    assert replies[0].headers["priority"] == '"Low"'
    assert {r.headers["content-type"] for r in replies} == {"application/xml; charset=utf-8"}


def test_case_69_dead_letter_path(world):
    for dollar in ("$", "%24"):
        path = f"/t1/subscriptions/s1/{dollar}DeadLetterQueue/messages/head?timeout=0"
        assert world.call("POST", path).status == 204


def test_case_70_message_id_for_the_sequence_number(world):
    world.empty("q1")
    plain = "31907572164743c38741631acd554d6f"
    world.call("POST", "/q1/messages", body="x", BrokerProperties=json.dumps({"MessageId": plain}))
    reply, _ = lock(world)
    dashed = "31907572-1647-43c3-8741-631acd554d6f"
    assert world.call("PUT", f"/q1/messages/{dashed}/{reply.broker['LockToken']}").status == 200
    world.empty("q1")


def test_case_79_revoked_publisher(world):
    send = ("POST", "/hub1/publishers/dev-01/messages", HOST_ONLY, "x")
    description = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><RevokedPublisherDescription'
        ' xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"><Name>dev-01</Name>'
        "</RevokedPublisherDescription></content></entry>"
    )
    path = "/hub1/revokedpublishers/dev-01?api-version=2014-05"
    assert world.call("PUT", path, body=description).status == 201
    assert world.call(*send).status == 401
    assert world.call("DELETE", path).status == 200
    assert world.call(*send).status == 201
