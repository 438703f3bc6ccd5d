"""Management bodies and Atom entries: trees that mean something, bytes bent in transport, and bombs.

Past HTTP, through a client of the management of a namespace in memory, which lets through no exception but
the broker's own. What was accepted must be shown again as XML, and be readable at the next start.
"""

from __future__ import annotations

import time
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from front.management_peer import HOST, Peer, entry_of
from hubbub.broker.errors import Invalid
from hubbub.broker.namespace import Namespace
from hubbub.front.rest import atom, descriptions
from hubbub.front.rest.send import _content_of, _entry

EXAMPLES = settings.default.max_examples
STATUSES = {200, 201, 400, 401, 404, 409, 412}
PLACES = {
    "QueueDescription": "/q",
    "TopicDescription": "/t",
    "EventHubDescription": "/h",
    "SubscriptionDescription": "/topic/subscriptions/s",
    "RuleDescription": "/topic/subscriptions/sub/rules/r",
    "ConsumerGroupDescription": "/hub/consumergroups/g",
    "RevokedPublisherDescription": "/hub/revokedpublishers/p",
}
SB = f'xmlns="{atom.SB}"'


def prepared() -> Peer:
    peer = Peer()
    for place, kind in (
        ("/topic", "TopicDescription"),
        ("/topic/subscriptions/sub", "SubscriptionDescription"),
        ("/hub", "EventHubDescription"),
    ):
        assert peer.put(place, kind).status == 201
    return peer


def told(peer: Peer, requests: list[tuple[str, str, bytes, dict[str, str]]]) -> None:
    """Every answer is documented, and all that is then there can be shown and loaded."""
    try:
        for method, target, body, headers in requests:
            answer = peer.send(method, target, body, headers)
            assert answer.status in STATUSES, answer.status
            if answer.body:
                assert answer.xml.tag in (f"{atom_name('entry')}", f"{atom_name('feed')}", "Error")
        looks = ("/$Resources/queues", "/$Resources/topics", "/$Resources/eventhubs", "/topic/subscriptions")
        for look in (
            *looks,
            "/topic/subscriptions/sub/rules",
            "/hub/consumergroups",
            "/hub/revokedpublishers",
        ):
            assert peer.get(look).xml.tag == atom_name("feed")
        old = peer.namespace
        assert Namespace("contoso", old._engine, peer.clock, old.limits)._entities == old._entities
    finally:
        peer.close()


def atom_name(name: str) -> str:
    return f"{{{atom.ATOM}}}{name}"


NAMES = sorted({row.name for _, rows in descriptions.TABLES.values() for row in rows})
LEAVES = (
    "KeyName",
    "PrimaryKey",
    "SecondaryKey",
    "AccessRights",
    "Rights",
    "SqlExpression",
    "AuthorizationRule",
    "x",
)
TEXTS = st.one_of(
    st.sampled_from(
        (
            *(
                "",
                " ",
                "0",
                "1",
                "-1",
                "1.5",
                "1e9",
                "9" * 10,
                "9" * 11,
                "9" * 400,
                "+1",
                "\u00b2",
                "0x10",
                "true",
                "TRUE",
                "no",
            ),
            *(
                "PT0S",
                "PT1S",
                "PT5M",
                "PT0.0000001S",
                "P1D",
                "P10675199DT2H48M5.4775807S",
                "P9999999999D",
                "PT",
                "P",
                "-PT1S",
            ),
            *(
                "Active",
                "Disabled",
                "SendDisabled",
                "active",
                "1=1",
                "sys.Label = 'x'",
                "Send",
                "Manage",
                "Listen",
                "1024",
            ),
            *(
                "x" * 300,
                "\U0001f600",
                "&#x1F600;",
                "&lt;",
                "&amp;#0;",
                "<![CDATA[]]&gt;]]>",
                "<!-- c -->",
                "<?pi?>",
                "\ufffd",
            ),
        )
    ),
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="<&\ufffe\uffff"),
        max_size=8,
    ),
)
ATTRIBUTES = st.sampled_from(
    (
        "",
        ' i:type="TrueFilter"',
        ' i:type="SqlFilter"',
        ' i:type="x:EmptyRuleAction"',
        ' i:nil="true"',
        ' xmlns=""',
        ' xmlns="urn:x"',
    )
)
NODES = st.recursive(
    st.tuples(st.sampled_from([*NAMES, *LEAVES]), ATTRIBUTES, TEXTS).map(
        lambda n: f"<{n[0]}{n[1]}>{n[2]}</{n[0]}>"
    ),
    lambda inner: st.tuples(
        st.sampled_from(
            (
                "AuthorizationRules",
                "AuthorizationRule",
                "Rights",
                "Filter",
                "Action",
                "DefaultRuleDescription",
            )
        ),
        ATTRIBUTES,
        st.lists(inner, max_size=4),
    ).map(lambda n: f"<{n[0]}{n[1]}>{''.join(n[2])}</{n[0]}>"),
    max_leaves=6,
)
KINDS = st.sampled_from(sorted(PLACES))
METHODS = st.sampled_from(("PUT", "PUT", "PUT", "GET", "DELETE"))
MATCHES = st.sampled_from(({}, {}, {"If-Match": "*"}, {"If-Match": "1"}, {"If-None-Match": "*"}))
REQUESTS = st.tuples(METHODS, KINDS, KINDS | st.none(), st.lists(NODES, max_size=5), MATCHES).map(
    lambda r: (r[0], PLACES[r[1]], entry_of(r[2] or r[1], "".join(r[3])).encode(), r[4])
)


@given(st.lists(REQUESTS, min_size=1, max_size=4))
@settings(max_examples=EXAMPLES * 3)
def test_any_description(requests: list[tuple[str, str, bytes, dict[str, str]]]) -> None:
    told(prepared(), requests)


FULL = [
    entry_of(
        "QueueDescription", "<LockDuration>PT30S</LockDuration><UserMetadata> a &amp; b </UserMetadata>"
    ),
    entry_of(
        "EventHubDescription",
        "<MessageRetentionInDays>3</MessageRetentionInDays><PartitionCount>2</PartitionCount>",
    ),
    entry_of(
        "TopicDescription",
        '<AuthorizationRules><AuthorizationRule i:type="SharedAccessAuthorizationRule"><Rights><AccessRights>Send'
        "</AccessRights></Rights><KeyName>k</KeyName></AuthorizationRule></AuthorizationRules>",
    ),
]
FRAGMENTS = st.sampled_from(
    (
        *(
            b"<!DOCTYPE x>",
            b'<!DOCTYPE x [<!ENTITY a "b">]>',
            b"&a;",
            b"&#0;",
            b"&#x110000;",
            b"&#xD800;",
            b"<![CDATA[",
            b"]]>",
        ),
        *(
            b"<?xml version='1.0' encoding='utf-16'?>",
            b"<?xml version='1.1'?>",
            b"<?xml version='1.0' encoding='x'?>",
            b"<!--",
        ),
        *(
            b"<",
            b">",
            b"/>",
            b"</",
            b"<a>",
            b"<a/>",
            b"<a:b/>",
            b" a='b' a='b'",
            b" xmlns:i='x'",
            b" xmlns=''",
            b"'",
            b'"',
        ),
        *(
            b"\xff\xfe",
            b"\xfe\xff",
            b"\xef\xbb\xbf",
            b"\0",
            b"\x80",
            b"\xed\xa0\x80",
            b"\xef\xbf\xbe",
            b"<a>" * 40,
            b"9" * 500,
        ),
    )
)
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 30), FRAGMENTS | st.binary(max_size=4)), max_size=4
)


def bent(data: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    for where, removed, fragment in mutations:
        at = where % (len(data) + 1)
        data = data[:at] + fragment + data[at + removed :]
    return data


@given(st.sampled_from(FULL), MUTATIONS, st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-8-sig", "utf-32"]))
@settings(max_examples=EXAMPLES * 3)
def test_bent_bodies(text: str, mutations: list[tuple[int, int, bytes]], encoding: str) -> None:
    body = bent(text.encode(encoding), mutations)
    told(prepared(), [("PUT", place, body, {}) for place in ("/q", "/t", "/h")])


LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(12))
BOMBS = {
    "laughs": f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>'
    + entry_of("QueueDescription", "<Status>&l12;</Status>"),
    "quadratic": f'<!DOCTYPE x [<!ENTITY a "{"x" * 50_000}">]>'
    + entry_of("QueueDescription", "&a;" * 20_000),
    "external": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    + entry_of("QueueDescription", "&a;"),
    "parameter": '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:1/"> %a;]>'
    + entry_of("QueueDescription"),
    "deep": entry_of("QueueDescription", "<a>" * 50_000 + "</a>" * 50_000),
    "wide": entry_of("QueueDescription", "<a/>" * 60_000),
    "attributes": entry_of("QueueDescription", "<a " + " ".join(f"a{n}='x'" for n in range(20_000)) + "/>"),
    "prefixes": entry_of(
        "QueueDescription", "<a " + " ".join(f"xmlns:a{n}='x'" for n in range(10_000)) + "/>"
    ),
    "text": entry_of("QueueDescription", "<UserMetadata>" + "&#65;" * 50_000 + "</UserMetadata>"),
    "rules": entry_of(
        "QueueDescription", "<AuthorizationRules>" + "<AuthorizationRule/>" * 10_000 + "</AuthorizationRules>"
    ),
    "unclosed": entry_of("QueueDescription", "<a b='" + "x" * 250_000),
    "comment": entry_of("QueueDescription", "<!--" + "-" * 250_000),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs(name: str) -> None:
    began = time.perf_counter()
    peer = prepared()
    if name in ("attributes", "prefixes"):
        assert peer.send("PUT", "/q", BOMBS[name]).status == 201  # Bounded by the size of the body.
    else:
        assert peer.send("PUT", "/q", BOMBS[name]).status == 400
        assert peer.get("/$Resources/queues").titles() == []
    peer.close()
    with pytest.raises(Invalid):
        _content_of(BOMBS[name].encode()[:-8])
    assert time.perf_counter() - began < 2


@given(st.lists(FRAGMENTS | st.binary(max_size=20), max_size=12).map(b"".join))
@settings(max_examples=EXAMPLES * 2)
def test_any_bytes(body: bytes) -> None:
    for read in (atom.parse, _content_of):
        try:
            read(body)
        except Invalid as refused:
            said = str(refused)
        else:
            said = "SubCode=40000"
        assert said.startswith("SubCode=40000")


ENTRIES = (
    "<entry xmlns='http://www.w3.org/2005/Atom'><title>t</title><content type='application/xml'><d>hi</d></content></entry>",
    "<a:entry xmlns:a='http://www.w3.org/2005/Atom' xmlns:b='urn:b'><a:content xmlns:c='urn:c'><b:d c:e='1'/></a:content></a:entry>",
    "<?xml version='1.0' encoding='iso-8859-1'?><entry xmlns='http://www.w3.org/2005/Atom'><content>\u00e9</content></entry>",
    "<entry xmlns='http://www.w3.org/2005/Atom'><content a='>' b=\"'\"/><content>no</content></entry>",
)


@given(st.sampled_from(ENTRIES), MUTATIONS, st.sampled_from(["utf-8", "latin-1", "utf-16-le", "utf-16"]))
@settings(max_examples=EXAMPLES * 3)
def test_what_is_copied_from_an_entry_stands_alone(text: str, mutations: list, encoding: str) -> None:
    try:
        content = _content_of(bent(text.encode(encoding), mutations))
    except Invalid:
        return
    if content is not None:
        written = _entry(f"https://{HOST}/t", content, 1_700_000_000_000)
        assert ElementTree.fromstring(written).find(atom_name("content")) is not None


def test_prefixes_go_with_the_content() -> None:
    content = _content_of(ENTRIES[1].encode())
    assert content is not None
    root = ElementTree.fromstring(_entry("https://h/t", content, 0))
    assert root.find(f"{atom_name('content')}/{{urn:b}}d") is not None
    assert content.inner == b"<b:d c:e='1'/>"
