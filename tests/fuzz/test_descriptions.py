"""Management bodies: an entity, or an error of the service's own; never anything else, and never slowly."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from house import DOCUMENTED, House, request, statuses

ATOM = b"Content-Type: application/atom+xml;type=entry;charset=utf-8"
SB = b'xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"'


def entry(content: bytes) -> bytes:
    return (
        b'<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">'
        + content
        + b"</content></entry>"
    )


FIELDS = st.sampled_from(
    (
        *(b"LockDuration", b"DefaultMessageTimeToLive", b"MaxDeliveryCount", b"RequiresSession", b"Status"),
        *(
            b"MaxSizeInMegabytes",
            b"EnablePartitioning",
            b"PartitionCount",
            b"MessageRetentionInDays",
            b"Unknown",
        ),
        *(
            b"AutoDeleteOnIdle",
            b"ForwardTo",
            b"UserMetadata",
            b"AuthorizationRules",
            b"Filter",
            b"Action",
            b"Name",
        ),
    )
)
TEXTS = st.sampled_from(
    (
        b"PT1M",
        b"P1D",
        b"-P1D",
        b"P99999999999999D",
        b"true",
        b"1",
        b"-1",
        b"1e9",
        b"9" * 40,
        b"",
        b"&#0;",
        b"&x;",
        b"<a/>",
    )
) | st.text(st.characters(codec="utf-8", exclude_characters="<&\r"), max_size=8).map(str.encode)
KINDS = st.sampled_from(
    (
        b"QueueDescription",
        b"TopicDescription",
        b"SubscriptionDescription",
        b"EventHubDescription",
        b"RuleDescription",
        b"X",
    )
)
ELEMENTS = st.builds(lambda f, t: b"<%b>%b</%b>" % (f, t, f), FIELDS, TEXTS)
BODIES = st.builds(
    lambda kind, inner: entry(b"<%b %b>%b</%b>" % (kind, SB, b"".join(inner), kind)),
    KINDS,
    st.lists(ELEMENTS, max_size=6),
)
PATHS = st.sampled_from(
    (b"/queue", b"/new", b"/topic", b"/hub", b"/topic/subscriptions/s", b"/topic/subscriptions/n", b"/a/b/c", b"/%00",
     b"/topic/subscriptions/s/rules/r", b"/hub/consumergroups/g", b"/hub/revokedpublishers/p", b"/$namespaceinfo")
)  # fmt: skip
METHODS = st.sampled_from((b"PUT", b"PUT", b"PUT", b"GET", b"DELETE", b"POST"))


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


def answer(house, method, path, body, *lines):
    target = path + b"?api-version=2021-05"
    found = statuses(house.talk(request(method, target, body, ATOM, *lines)))
    assert len(found) == 1
    assert found[0] in DOCUMENTED
    return found[0]


REQUESTS = st.lists(
    st.tuples(METHODS, PATHS, BODIES, st.sampled_from(((), (b"If-Match: *",), (b"If-Match: 5",)))),
    min_size=1,
    max_size=8,
)


@settings(max_examples=2 * settings().max_examples)
@given(REQUESTS)
def test_descriptions(requests):
    house = House()
    try:
        for method, path, body, lines in requests:
            answer(house, method, path, body, *lines)
        # Whatever was made of it can be listed and read again.
        for path in (b"/$Resources/Queues", b"/$Resources/Topics", b"/$Resources/EventHubs"):
            assert answer(house, b"GET", path, b"") == 200
    finally:
        house.close()


@given(BODIES, st.integers(0, 500), st.binary(min_size=1, max_size=4), st.integers(0, 20))
def test_mutated_bodies(body, at, junk, cut):
    house = House()
    try:
        at = min(at, len(body))
        answer(house, b"PUT", b"/new", body[:at] + junk + body[at + cut :])
    finally:
        house.close()


@pytest.mark.parametrize(
    "bomb",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%b">' % (98 + n, b"&%c;" % (97 + n) * 20) for n in range(10))
        + b"]>" + entry(b"<QueueDescription>&k;</QueueDescription>"),
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + entry(b"<QueueDescription>&a;</QueueDescription>"),
        entry(b"<a>" * 100_000),
        entry(b"<a>" * 50_000 + b"</a>" * 50_000),
        entry(b"<QueueDescription " + b"".join(b'a%d="1" ' % n for n in range(50_000)) + b"/>"),
    ],
    ids=["laughs", "file", "open", "deep", "wide"],
)  # fmt: skip
def test_bombs(house, bomb):
    began = time.process_time()
    assert answer(house, b"PUT", b"/bomb", bomb) == 400
    assert time.process_time() - began < 2
    assert house.namespace.entity("bomb") is None
