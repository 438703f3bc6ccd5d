"""Anything at all through the HTTP connection and the REST door of a whole server in memory.

Arbitrary bytes; valid requests bent in transport; requests put together at random from parts that mean
something. Whatever comes, the answer is a documented one (`door.judge`), and the house stands (`settle`).
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.world import AX, BJ, ENTRY, WRAP
from front.management_peer import entry_of
from fuzz.door import HOST, ROOT, House, request
from hubbub.broker.access import sas_token

API = b"/_hubbub/api/v1"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
LINE_HOST = b"Host: " + HOST.encode() + b"\r\nAuthorization: " + ROOT + b"\r\n"
BATCH = json.dumps(
    [
        {"Body": "one", "UserProperties": {"Alert": "Strong Wind", "n": 1, "f": 1.5, "b": True}},
        {"Body": "AAEC", "IsBodyBase64": True, "BrokerProperties": {"Label": "L", "TimeToLive": 40}},
        {"Body": None, "BrokerProperties": {"TimeToLiveTimeSpan": "0.00:00:40", "PartitionKey": "k"}},
    ]
).encode()
BROKER = (
    b'BrokerProperties: {"Label":"M1","State":"Active","TimeToLive":10,"MessageId":"m","SessionId":"s",'
    b'"CorrelationId":"c","ScheduledEnqueueTimeUtc":"Wed, 14 Dec 2033 00:00:00 GMT"}'
)
JSON_BATCH = b"Content-Type: " + BJ.encode()
ATOM = b"Content-Type: " + AX.encode()
QUEUE = entry_of(
    "QueueDescription", "<LockDuration>PT30S</LockDuration><MaxDeliveryCount>3</MaxDeliveryCount>"
)
RULES = entry_of(
    "TopicDescription",
    '<AuthorizationRules><AuthorizationRule i:type="SharedAccessAuthorizationRule"><Rights><AccessRights>Send'
    "</AccessRights></Rights><KeyName>k</KeyName></AuthorizationRule></AuthorizationRules>",
)
FORM = b"wrap_name=owner&wrap_password=" + quote(KEY).encode() + b"&wrap_scope=http%3a%2f%2f" + HOST.encode()
VALID = [
    request(b"POST", b"/hub1/messages?timeout=60&api-version=2014-01", b'{"DeviceId":"dev-01"}', ATOM),
    request(
        b"POST", b"/hub1/messages", b"x", b"Alert: Strong Wind", b'BrokerProperties: {"PartitionKey":"k"}'
    ),
    request(b"POST", b"/hub1/partitions/1/messages", b"x"),
    request(b"POST", b"/hub1/publishers/dev-01/messages", b"x"),
    request(b"POST", b"/hub1/messages", BATCH, JSON_BATCH),
    request(b"POST", b"/q1/messages", b"This is a message.", BROKER, b"Priority: High", b"n: 42", b"d: 3.14"),
    request(b"POST", b"/q1/messages", BATCH, JSON_BATCH, b"Foo: bar"),
    request(b"POST", b"/dup/messages", b"once", b'BrokerProperties: {"MessageId":"m","TimeToLive":0.5}'),
    request(b"POST", b"/sess/messages", b"in a session", b'BrokerProperties: {"SessionId":"s"}'),
    request(b"POST", b"/t1/messages", ENTRY.encode(), ATOM, auth=WRAP.encode()),
    request(b"POST", b"/t1/messages", b"hi", b'BrokerProperties: {"Label":"M1"}'),
    request(b"POST", b"/q1/messages/head?timeout=5"),
    request(b"DELETE", b"/t1/subscriptions/s1/messages/head?timeout=0"),
    request(b"DELETE", b"/q1/$DeadLetterQueue/messages/head?timeout=1"),
    request(b"PUT", b"/q1/messages/1/30de5ab6-2c4b-4dd1-9af4-d0b7b1f7d3a2"),
    request(b"PUT", b"/newq?api-version=2021-05", QUEUE.encode(), ATOM),
    request(b"PUT", b"/t1", RULES.encode(), ATOM, b"If-Match: *"),
    request(b"PUT", b"/hub1/consumergroups/g", entry_of("ConsumerGroupDescription").encode()),
    request(b"PUT", b"/hub1/revokedpublishers/dev-01", entry_of("RevokedPublisherDescription").encode()),
    request(b"GET", b"/t1/subscriptions/s1/rules/"),
    request(b"GET", b"/hub1/consumergroups/$Default/partitions/0"),
    request(b"GET", b"/%24Resources/queues?$skip=0&$top=1"),
    request(b"GET", b"/$namespaceinfo"),
    request(b"DELETE", b"/q1"),
    request(b"POST", b"/WRAPv0.9/", FORM, b"Content-Type: application/x-www-form-urlencoded", auth=b""),
    request(b"PUT", API + b"/queues/made", b'{"lockDuration":"PT5S","maxDeliveryCount":3}'),
    request(b"PUT", API + b"/hubs/made", b'{"partitionCount":2,"messageRetention":"P1D"}'),
    request(b"GET", API + b"/hubs/hub1/partitions/0/events?from=time:2020-01-01&wait=3"),
    request(b"GET", API + b"/hubs/hub1/partitions/0/events?from=seq:0&inclusive=1&stream=1"),
    request(b"GET", API + b"/subscriptions/t1/s1/messages?from=0&count=5&deadLetter=1"),
    request(b"POST", API + b"/queues/q1/purge"),
    request(b"GET", b"/metrics", auth=b""),
    request(b"GET", b"/health", auth=b""),
    request(b"HEAD", b"/", auth=b""),
    request(b"OPTIONS", b"/q1/messages", b"", b"Origin: https://x", auth=b""),
    b"POST https://"
    + HOST.encode()
    + b"/q1/messages HTTP/1.1\r\n"
    + LINE_HOST
    + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
    b"POST /hub1/messages HTTP/1.0\r\n"
    + LINE_HOST
    + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\nab",
    b"GET /health HTTP/1.1\r\n" + LINE_HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]

FRAGMENTS = st.sampled_from(
    (
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b":",
            b"/",
            b"//",
            b"?",
            b"#",
            b"%",
            b"%00",
            b"%2f",
            b"%ff",
        ),
        *(
            b"%0d%0a",
            b"&",
            b"=",
            b"$",
            b"*",
            b"..",
            b"\xff",
            b"\xc3\xa9",
            b"\x80",
            b'"',
            b"'",
            b"{",
            b"}",
            b"[",
            b"]",
        ),
        *(b"<", b"&#0;", b"]]>", b"-1", b"0", b"99999999999999999999", b"1e999", b"\xef\xbf\xbe", b"\\ud800"),
        *(b"\r\nContent-Length: 0", b"\r\nTransfer-Encoding: chunked", b"\r\nExpect: 100-continue"),
        *(
            b"\r\nHost: other",
            b"\r\nConnection: close",
            b"\r\nX: y\r\n z",
            b"\r\nAuthorization: x",
            b"\r\n\r\n",
        ),
        *(
            b'\r\nBrokerProperties: {"TimeToLive":1e400}',
            b"\r\nIf-Match: 1",
            b"\r\nContent-Type: " + BJ.encode(),
        ),
        *(
            b"/messages",
            b"/messages/head",
            b"/$deadletterqueue",
            b"subscriptions/",
            b"partitions/",
            b"{wide}",
        ),
        *(b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1", b"CONNECT ", b"TRACE ", b"PATCH ", b"DELETE ", b"HEAD "),
    )
)
KINDS = ("flip", "cut", "drop", "double", "insert", "insert", "replace")
MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.integers(0, 1 << 20), st.integers(1, 64), FRAGMENTS | st.binary(max_size=6)
    ),
    max_size=5,
)


def mutated(data: bytes, mutations: list[tuple[str, int, int, bytes]]) -> bytes:
    for kind, where, length, fragment in mutations:
        at = where % (len(data) + 1)
        piece = data[at : at + length]
        if kind == "flip" and piece:
            data = data[:at] + bytes([piece[0] ^ 1 << length % 8]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + length :]
        elif kind == "double":
            data = data[:at] + piece + data[at:]
        elif kind == "insert":
            data = data[:at] + fragment + data[at:]
        elif kind == "replace":
            data = data[:at] + fragment + data[at + len(fragment) :]
    return data


def split(data: bytes, step: int) -> list[bytes]:
    """In reads of `step` bytes, if that is not too many."""
    step = max(step or len(data), len(data) // 2000, 1)
    return [data[i : i + step] for i in range(0, len(data), step)]


def tell(data: bytes, step: int, shut: bool, *after: bytes) -> None:
    """Says it all on one connection, then `after` on others, which must succeed."""

    async def story() -> None:
        house = await House().open()
        try:
            await house.converse(split(data, step), shut=shut)
            for more in after:
                heard = await house.converse([more], seconds=10)
                assert heard.startswith(b"HTTP/1.1 20"), heard
            await house.settle()
        finally:
            house.close()

    asyncio.run(story())


STEPS = st.sampled_from([0, 0, 1, 2, 7, 100, 1000])


@given(st.lists(FRAGMENTS | st.binary(max_size=40), max_size=20).map(b"".join), STEPS, st.booleans())
def test_arbitrary_bytes(data: bytes, step: int, shut: bool) -> None:
    tell(data, step, shut)


@given(
    st.lists(st.sampled_from(VALID), min_size=1, max_size=4).map(b"".join), MUTATIONS, STEPS, st.booleans()
)
@settings(max_examples=settings.default.max_examples * 3)
def test_mutated_requests(data: bytes, mutations, step: int, shut: bool) -> None:
    tell(expanded(mutated(data, mutations)), step, shut)


# Requests from parts that mean something.

METHODS = st.sampled_from(
    [b"POST"] * 6
    + [b"GET"] * 3
    + [b"PUT", b"PUT", b"DELETE", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"TRACE", b"MKCOL"]
)
WORDS = st.sampled_from(
    (
        *(
            "hub1",
            "q1",
            "dup",
            "sess",
            "off",
            "t1",
            "s1",
            "HUB1",
            "nosuch",
            "messages",
            "messages",
            "messages",
            "head",
        ),
        *(
            "partitions",
            "publishers",
            "publisher",
            "subscriptions",
            "consumergroups",
            "revokedpublishers",
            "rules",
        ),
        *(
            "$DeadLetterQueue",
            "$Resources",
            "queues",
            "eventhubs",
            "$namespaceinfo",
            "$Default",
            "0",
            "1",
            "-1",
            "00",
        ),
        *(
            "_hubbub",
            "api",
            "v1",
            "hubs",
            "topics",
            "events",
            "purge",
            "livez",
            "metrics",
            "health",
            "WRAPv0.9",
            "..",
            ".",
        ),
        *(
            "{nines}",
            "30de5ab6-2c4b-4dd1-9af4-d0b7b1f7d3a2",
            "{wide}",
            "%2F",
            "%",
            "%zz",
            "%FF",
            "%EF%BF%BE",
            "%01",
        ),
    )
)
SEGMENT = WORDS.map(str.encode) | st.text(max_size=3).map(lambda t: quote(t, safe="").encode())
ROUTES = st.sampled_from(
    (
        *(b"/hub1/messages", b"/hub1/partitions/0/messages", b"/hub1/publishers/p/messages", b"/q1/messages"),
        *(b"/dup/messages", b"/sess/messages", b"/off/messages", b"/t1/messages", b"/q1/messages/head"),
        *(
            b"/dup/messages/head",
            b"/t1/subscriptions/s1/messages/head",
            b"/q1/$deadletterqueue/messages/head",
        ),
        *(b"/q1", b"/t1", b"/hub1", b"/t1/subscriptions/s1", b"/t1/subscriptions/s1/rules/r", b"/new"),
        *(b"/hub1/consumergroups/g", b"/hub1/revokedpublishers/p", API + b"/queues/q1", API + b"/hubs/new"),
        *(
            API + b"/subscriptions/t1/new",
            API + b"/topics/new",
            API + b"/queues/q1/messages",
            API + b"/queues/q1/purge",
        ),
        *(API + b"/hubs/hub1/partitions/0/events", API + b"/queues", b"/WRAPv0.9/", b"/$Resources/topics"),
    )
)
PATHS = ROUTES | ROUTES | st.lists(SEGMENT, max_size=6).map(lambda segments: b"/" + b"/".join(segments))
NUMBERS = st.sampled_from(
    (b"0", b"1", b"60", b"-1", b"", b"x", b"1.5", b"99999999999999999999", b"{nines}", "²".encode())
)
STARTS = st.sampled_from(
    (
        *(
            b"start",
            b"end",
            b"seq:0",
            b"seq:" + b"9" * 40,
            b"seq:{nines}",
            b"offset:0",
            b"offset:x",
            b"offset:%00",
        ),
        *(
            b"offset:{nines}",
            b"time:2020-01-01",
            b"time:0001-01-01T00:00:00%2B14:00",
            b"time:9999-12-31T23:59:59-14:00",
            b"time:x",
            b":",
        ),
    )
)
QUERIES = st.lists(
    st.one_of(
        st.builds(
            lambda n, v: n + b"=" + v,
            st.sampled_from((b"timeout", b"$skip", b"$top", b"count", b"from", b"wait")),
            NUMBERS,
        ),
        st.builds(lambda v: b"from=" + v, STARTS),
        st.sampled_from(
            (
                b"stream=1",
                b"inclusive=1",
                b"deadLetter=1",
                b"topic=t1",
                b"topic=",
                b"api-version=x",
                b"%",
                b"=&;",
            )
        ),
    ),
    max_size=3,
).map(lambda parts: b"?" + b"&".join(parts) if parts else b"")
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        (
            *(
                "",
                "x",
                "\0",
                "\x01\x7f",
                "\r\n",
                "\ufffe",
                "\ud800",
                "\U0001f600",
                "x" * 129,
                "{long}",
                "{googol}",
                '"',
                "\\",
            ),
            *(
                "Wed, 14 Dec 2033 00:00:00 GMT",
                "Fri, 31 Dec 9999 23:59:60 GMT",
                "Mon, 31 Feb 0001 00:00:00 GMT",
            ),
            *(
                "2033-12-14T00:00:00Z",
                "9999-12-31T23:59:60.9999999Z",
                "0001-01-01T00:00:00",
                "0.00:00:40",
                "00:00:00",
            ),
            *(
                "99999999999999999999999999.23:59:59",
                "PT1S",
                "P9999999999999999999D",
                "true",
                "1",
                "NaN",
                "1e999",
                "-0",
            ),
        )
    ),
)
SCALARS = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from((0, -1, 1 << 63, 1 << 64, -(1 << 63) - 1, 1e308, 5e-324)),
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXTS, SCALARS, max_size=2)
MEMBERS = st.sampled_from(
    (
        *(
            "CorrelationId",
            "Label",
            "MessageId",
            "PartitionKey",
            "ReplyTo",
            "ReplyToSessionId",
            "SessionId",
            "To",
        ),
        *(
            "TimeToLive",
            "TimeToLiveTimeSpan",
            "ScheduledEnqueueTimeUtc",
            "ForcePersistence",
            "ViaPartitionKey",
        ),
    )
)
BROKER_PROPERTIES = st.dictionaries(MEMBERS | TEXTS, VALUES, max_size=3)
ELEMENTS = st.dictionaries(
    st.sampled_from(("Body", "UserProperties", "IsBodyBase64", "BrokerProperties", "body")), VALUES
) | st.fixed_dictionaries(
    {},
    optional={
        "Body": TEXTS,
        "BrokerProperties": BROKER_PROPERTIES,
        "UserProperties": st.dictionaries(
            st.sampled_from(("Alert", "x-y", "a")) | TEXTS, SCALARS, max_size=3
        ),
    },
)
API_MEMBERS = st.sampled_from(
    (
        *(
            "lockDuration",
            "requiresSession",
            "defaultMessageTimeToLive",
            "deadLetteringOnMessageExpiration",
            "maxDeliveryCount",
        ),
        *(
            "status",
            "userMetadata",
            "requiresDuplicateDetection",
            "duplicateDetectionHistoryTimeWindow",
            "maxSizeInMegabytes",
        ),
        *("partitionCount", "messageRetention", "retentionSizeInBytes"),
    )
)


# What is long stands for itself only at the end, so that a failing example can be read.
LONG = {
    b'"{googol}"': b"1" + b"0" * 400,
    b"{nines}": b"9" * 5_000,
    b"{wide}": b"x" * 300,
    b"{long}": b"x" * 40_000,
    b"{huge}": b"x" * 300_000,
}


def expanded(data: bytes) -> bytes:
    for short, long in LONG.items():
        data = data.replace(short, long)
    return data


def asked(method: bytes, target: bytes, body: bytes, *headers: bytes, auth: bytes = ROOT) -> bytes:
    return request(method, expanded(target), expanded(body), *map(expanded, headers), auth=auth)


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


JSON_BODIES = st.one_of(
    st.lists(ELEMENTS, max_size=3), st.dictionaries(API_MEMBERS, VALUES, max_size=3), VALUES
).map(dumped)
XML_NAMES = st.sampled_from(
    (
        *(
            "LockDuration",
            "MaxSizeInMegabytes",
            "DefaultMessageTimeToLive",
            "MaxDeliveryCount",
            "RequiresSession",
            "Status",
        ),
        *(
            "UserMetadata",
            "MessageRetentionInDays",
            "PartitionCount",
            "AutoDeleteOnIdle",
            "DuplicateDetectionHistoryTimeWindow",
        ),
        *("AuthorizationRules", "Filter", "Action", "Name", "ForwardTo", "MaxMessageSizeInKilobytes"),
    )
)
XML_TEXTS = st.sampled_from(
    (
        "",
        "0",
        "1",
        "-1",
        "9" * 10,
        "9" * 30,
        "PT30S",
        "PT0S",
        "P1DT",
        "true",
        "Disabled",
        "&#1;",
        "]]>",
        "{long}",
        "²",
    )
)
XML_KINDS = st.sampled_from(
    ("Queue", "Topic", "Subscription", "EventHub", "ConsumerGroup", "RevokedPublisher", "Rule")
)
XML_BODIES = st.builds(
    lambda kind, items: entry_of(kind + "Description", "".join(f"<{n}>{t}</{n}>" for n, t in items)).encode(),
    XML_KINDS,
    st.lists(st.tuples(XML_NAMES, XML_TEXTS), max_size=4),
)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=30),
    JSON_BODIES,
    JSON_BODIES,
    XML_BODIES,
    st.sampled_from((ENTRY.encode(), FORM, b"{huge}")),
)


def value_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").translate(None, b"\r\n\0")


CUSTOM = st.builds(
    lambda n, v: n + b": " + value_of(v),
    st.sampled_from((b"Alert", b"A", b"a", b"UserProperties", b"Foo")),
    TEXTS,
)
HEADERS = st.lists(
    st.one_of(
        BROKER_PROPERTIES.map(lambda members: b"BrokerProperties: " + dumped(members)),
        VALUES.map(lambda value: b"BrokerProperties: " + dumped(value)),
        VALUES.map(lambda value: b"UserProperties: " + dumped(value)),
        CUSTOM,
        st.sampled_from(
            (
                JSON_BATCH,
                JSON_BATCH,
                ATOM,
                b"Content-Type: text/plain",
                b"Content-Type: \xff",
                b"Expect: 100-continue",
            )
        ),
        st.sampled_from(
            (b"If-Match: *", b"If-Match: 1", b"If-None-Match: *", b"Connection: close", b"Connection: Alert")
        ),
        st.sampled_from(
            (b"Host: second", b"Upgrade: websocket", b"Transfer-Encoding: chunked", b"Content-Length: 1")
        ),
    ),
    max_size=3,
)
GRANTED = st.sampled_from(
    (
        *(
            ROOT,
            ROOT,
            ROOT,
            ROOT,
            ROOT,
            WRAP.encode(),
            b"",
            b"Basic x",
            b"Bearer a.b.c",
            b"WRAP access_token=",
            b"\xff",
        ),
        sas_token(f"https://{HOST}/hub1", "sendonly", KEY, 4102444800).encode(),
        sas_token(HOST, "RootManageSharedAccessKey", KEY, 1).encode(),
        sas_token(
            "https://other.servicebus.windows.net", "RootManageSharedAccessKey", KEY, 4102444800
        ).encode(),
    )
)
REQUESTS = st.builds(
    lambda method, path, query, body, headers, auth: asked(method, path + query, body, *headers, auth=auth),
    METHODS,
    PATHS,
    QUERIES,
    BODIES,
    HEADERS,
    GRANTED,
)
# A body whose kind fits its place comes further than one in ten of the others would.
SENDS = st.builds(
    lambda path, body, header: asked(b"POST", path, body, header),
    ROUTES,
    st.lists(ELEMENTS, min_size=1, max_size=3).map(dumped),
    st.just(JSON_BATCH),
)
SINGLES = st.builds(
    lambda path, headers: asked(b"POST", path, b"body", *headers),
    ROUTES,
    st.lists(
        CUSTOM | BROKER_PROPERTIES.map(lambda members: b"BrokerProperties: " + dumped(members)), max_size=3
    ),
)
MANAGED = st.builds(
    lambda path, body, header: asked(b"PUT", path, body, *header),
    ROUTES,
    XML_BODIES,
    st.sampled_from(((), (b"If-Match: *",))),
)
MADE = st.builds(
    lambda kind, body: asked(b"PUT", API + kind + b"/made", body),
    st.sampled_from((b"/queues", b"/topics", b"/hubs", b"/subscriptions/t1")),
    st.dictionaries(API_MEMBERS, VALUES, max_size=2).map(dumped),
)
LOOKS = (
    request(b"GET", API + b"/queues"),
    request(b"GET", API + b"/topics"),
    request(b"GET", API + b"/hubs"),
    request(b"GET", b"/$Resources/queues"),
    request(b"GET", b"/$Resources/topics"),
    request(b"GET", b"/$Resources/eventhubs"),
    request(b"GET", b"/metrics"),
)
TAKES = (
    request(b"GET", API + b"/queues/q1/messages"),
    request(b"GET", API + b"/hubs/hub1/partitions/0/events?from=start"),
    request(b"GET", API + b"/hubs/hub1/partitions/1/events?from=start"),
    request(b"POST", b"/q1/messages/head?timeout=0"),
    request(b"DELETE", b"/t1/subscriptions/s1/messages/head?timeout=0"),
    request(b"DELETE", b"/dup/messages/head?timeout=0"),
)


@given(st.lists(REQUESTS | MADE | MANAGED, min_size=1, max_size=4), STEPS)
@settings(max_examples=settings.default.max_examples * 3)
def test_requests_from_parts(requests: list[bytes], step: int) -> None:
    tell(b"".join(requests), step, False, *LOOKS)


@given(st.lists(SENDS | SINGLES, min_size=1, max_size=3))
@settings(max_examples=settings.default.max_examples * 3)
def test_whatever_was_accepted_can_be_received(sends: list[bytes]) -> None:
    tell(b"".join(sends), 0, False, *TAKES, *LOOKS)
