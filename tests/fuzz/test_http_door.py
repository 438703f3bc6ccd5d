"""Whatever a client sends, it gets documented answers, harms nobody, and stores only what was answered 2xx."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from house import DOCUMENTED, TOKEN, House, request, statuses

BATCH = b"Content-Type: application/vnd.microsoft.servicebus.json"
ENTRY = (
    b'<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><QueueDescription '
    b'xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"><LockDuration>PT1M'
    b"</LockDuration></QueueDescription></content></entry>"
)
VALID = (
    request(),
    request(body=b"hello", target=b"/queue/messages?timeout=60"),
    request(b"POST", b"/topic/messages", b"x", b'BrokerProperties: {"MessageId":"1","TimeToLive":5}'),
    request(b"POST", b"/hub/partitions/1/messages", b"x", b"Alert: Strong Wind", b'N: "a"', b"I: 5"),
    request(b"POST", b"/hub/publishers/p/messages", b"x"),
    request(b"POST", b"/hub/messages", b'[{"Body":"a"},{"Body":"b","UserProperties":{"x":1}}]', BATCH),
    request(b"POST", b"/queue/messages/head?timeout=1"),
    request(b"DELETE", b"/queue/messages/head"),
    request(b"DELETE", b"/queue/messages/1/00000000-0000-0000-0000-000000000000"),
    request(b"GET", b"/$Resources/Queues?$skip=0&$top=3"),
    request(b"PUT", b"/another?api-version=2021-05", ENTRY, b"Content-Type: application/atom+xml"),
    request(b"DELETE", b"/another"),
    request(b"GET", b"/_hubbub/api/v1/queues"),
    request(b"GET", b"/_hubbub/api/v1/hubs/hub/partitions/0/events?from=start"),
    request(b"GET", b"/metrics"),
)
PIECES = st.sampled_from(
    (
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0\r\n\r\n", b"5\r\nhello\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n"),
        *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"Host: x\r\n"),
        *(b"POST /hub/messages HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        *(b'BrokerProperties: {"TimeToLive":1e999}\r\n', b"A" * 200, b"%2f%00%ff", b"../", b"AMQP\0\1\0\0"),
    )
)
METHODS = st.sampled_from((b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"MERGE"))
SEGMENTS = st.sampled_from(
    (
        *(b"hub", b"queue", b"topic", b"messages", b"head", b"partitions", b"publishers", b"subscriptions"),
        *(b"s", b"0", b"1", b"99", b"-1", b"$DeadLetterQueue", b"$Resources", b"queues", b"consumergroups"),
        *(
            b"rules",
            b"$Default",
            b"_hubbub",
            b"api",
            b"v1",
            b"hubs",
            b"events",
            b"%ff",
            b"a%2fb",
            b"",
            b"..",
            b"x",
        ),
        *(b"WRAPv0.9", b"health", b"metrics", b"revokedpublishers", b"authorizationrules", b"$namespaceinfo"),
    )
)
QUERIES = st.sampled_from(
    (
        b"",
        b"?timeout=0",
        b"?timeout=x",
        b"?timeout=",
        b"?$skip=-1",
        b"?$top=1e9",
        b"?api-version=2",
        b"?from=%ff",
    )
)
TARGETS = st.builds(lambda s, q: b"/" + b"/".join(s) + q, st.lists(SEGMENTS, max_size=7), QUERIES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    (
        "MessageId",
        "TimeToLive",
        "TimeToLiveTimeSpan",
        "ScheduledEnqueueTimeUtc",
        "SessionId",
        "PartitionKey",
        "Label",
    )
)
BROKER = st.dictionaries(NAMES, JSON, max_size=3).map(
    lambda d: b"BrokerProperties: " + json.dumps(d).encode()
)
VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20).map(
    lambda text: text.encode("latin-1")
)
LINES = st.lists(
    BROKER
    | st.sampled_from(
        (
            BATCH,
            b"Content-Type: application/atom+xml;type=entry",
            b"If-Match: *",
            b"x-ms-retrypolicy: NoRetry",
        )
    )
    | st.builds(lambda v: b"Content-Type: " + v, VALUES)
    | st.builds(lambda n, v: b"P%d: " % n + v, st.integers(0, 9), VALUES),
    max_size=4,
)
AUTHS = st.sampled_from(
    (TOKEN.encode(),) * 6 + (b"", b"x", b"Bearer a.b.c", b'WRAP access_token="x"', TOKEN[:-9].encode())
)
BODIES = st.binary(max_size=60) | JSON.map(lambda j: json.dumps(j).encode()) | st.just(ENTRY)


@pytest.fixture(scope="module")
def house():
    house = House()
    yield house
    house.close()


def check(house, *chunks):
    house.restore()
    before = house.stored()
    found = statuses(house.talk(*chunks), heads=b"HEAD" in b"".join(chunks))
    assert set(found) <= DOCUMENTED, found
    if not set(found) & {200, 201}:
        assert house.stored() == before, "something was stored, though nothing was accepted"
    house.restore()
    assert statuses(house.talk(request(body=b"still there?"))) == [201]


@st.composite
def mutated(draw):
    """One to three valid requests in a row, with a few bytes cut, doubled, flipped or put in."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at:at] = draw(PIECES | st.binary(max_size=4))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 30))]
        elif kind == 2 and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        else:
            data[at:at] = data[at : at + 40]
    return bytes(data)


def split(data, cuts):
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 600), max_size=4)


@given(data=mutated(), cuts=CUTS)
def test_mutated_requests(house, data, cuts):
    check(house, *split(data, cuts))


@given(data=st.lists(PIECES | st.binary(max_size=12), max_size=20).map(b"".join), cuts=CUTS)
def test_soup(house, data, cuts):
    check(house, *split(data, cuts))


@settings(max_examples=4 * settings().max_examples)
@given(method=METHODS, target=TARGETS, lines=LINES, body=BODIES, auth=AUTHS)
def test_well_formed_requests(house, method, target, lines, body, auth):
    check(house, request(method, target, body, *lines, auth=auth))


def test_every_request_that_is_mutated_is_valid():
    """Or the mutations would explore nothing."""
    house = House()
    good = [statuses(house.talk(data))[0] for data in VALID]
    assert all(status < 300 or status in (404, 410) for status in good), good
