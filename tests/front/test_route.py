"""Every form of address with every verb: what it means, and what is answered (REST reference 1.2, 3.14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from house import House, request, statuses
from hubbub.broker.errors import Invalid
from hubbub.front.rest.route import (
    SEGMENTS_MAX,
    Target,
    segments_of,
    settled_lock,
    settled_prefix,
    target_of,
)

LOCK = "30de5ab6-2c4b-4dd1-9af4-d0b7b1f7d3a2"
FORMS = [
    # path, kind, entity, scope, and what else differs from None
    ("/hub/messages", "send", "hub", "hub/messages", {}),
    ("/HUB/Messages", "send", "hub", "hub/messages", {"spelled": "HUB"}),
    ("/hub/messages/", "send", "hub", "hub/messages", {}),
    ("//hub///messages//", "send", "hub", "hub/messages", {}),
    ("/%68ub/m%65ssages", "send", "hub", "hub/messages", {}),
    ("/a/b/c/messages", "send", "a/b/c", "a/b/c/messages", {}),
    ("/a%2Fb/messages", "send", "a/b", "a/b/messages", {}),
    ("/%C3%A4/messages", "send", "ä", "ä/messages", {}),
    ("/hub/partitions/3/messages", "send", "hub", "hub/partitions/3/messages", {"partition": "3"}),
    ("/hub/Partitions/x/Messages", "send", "hub", "hub/partitions/x/messages", {"partition": "x"}),
    ("/a/b/partitions/0/messages", "send", "a/b", "a/b/partitions/0/messages", {"partition": "0"}),
    ("/hub/publishers/Dev-1/messages", "send", "hub", "hub/publishers/dev-1/messages", {"publisher": "Dev-1"}),
    ("/hub/publisher/Dev-1/messages", "send", "hub", "hub/publishers/dev-1/messages", {"publisher": "Dev-1"}),
    ("/hub/publishers/a%2Fb/messages", "send", "hub", "hub/publishers/a/b/messages", {"publisher": "a/b"}),
    ("/partitions/0/messages", "send", "partitions/0", "partitions/0/messages", {}),
    ("/topic/subscriptions/s/messages", "send", "topic/subscriptions/s", "topic/subscriptions/s/messages", {}),
    ("/queue/messages/head", "receive", "queue", "queue/messages/head", {}),
    ("/Queue/Messages/Head/", "receive", "queue", "queue/messages/head", {"spelled": "Queue"}),
    ("/t/subscriptions/s/messages/head", "receive", "t/subscriptions/s", "t/subscriptions/s/messages/head", {}),
    ("/t/Subscriptions/S/messages/head", "receive", "t/subscriptions/s", "t/subscriptions/s/messages/head", {"spelled": "t/Subscriptions/S"}),
    ("/q/$DeadLetterQueue/messages/head", "receive", "q/$deadletterqueue", "q/$deadletterqueue/messages/head", {"spelled": "q/$DeadLetterQueue"}),
    ("/q/%24deadletterqueue/messages/head", "receive", "q/$deadletterqueue", "q/$deadletterqueue/messages/head", {}),
    (f"/q/messages/1/{LOCK}", "settle", "q", f"q/messages/1/{LOCK}", {}),
    (f"/q/messages//1//{LOCK}/", "settle", "q", f"q/messages/1/{LOCK}", {}),
    (f"/t/subscriptions/s/messages/1/{LOCK}", "settle", "t/subscriptions/s", f"t/subscriptions/s/messages/1/{LOCK}", {}),
    (f"/q/$DeadLetterQueue/messages/1/{LOCK}", "settle", "q/$deadletterqueue", f"q/$deadletterqueue/messages/1/{LOCK}", {"spelled": "q/$DeadLetterQueue"}),
    ("/", "manage", "", "", {}),
    ("//", "manage", "", "", {}),
    ("/messages", "manage", "messages", "messages", {}),
    ("/messages/head", "manage", "messages/head", "messages/head", {}),
    ("/messages/1/x", "manage", "messages/1/x", "messages/1/x", {}),
    ("/q", "manage", "q", "q", {}),
    ("/q/messages/1", "manage", "q/messages/1", "q/messages/1", {}),
    ("/t/subscriptions", "manage", "t/subscriptions", "t/subscriptions", {}),
    ("/hub/consumergroups/$Default/partitions/0", "manage", "hub/consumergroups/$default/partitions/0", "hub/consumergroups/$default/partitions/0", {"spelled": "hub/consumergroups/$Default/partitions/0"}),
    ("/$Resources/queues", "manage", "$resources/queues", "$resources/queues", {"spelled": "$Resources/queues"}),
    ("/%24namespaceinfo", "manage", "$namespaceinfo", "$namespaceinfo", {}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "kind", "entity", "scope", "rest"), FORMS, ids=[f[0] for f in FORMS])
def test_what_a_path_means(path, kind, entity, scope, rest):
    found = target_of(segments_of(path.encode()))
    assert found == Target(kind, entity, scope=scope, **{"spelled": entity, **rest})


@pytest.mark.parametrize("path", [b"/%FF/messages", b"/hub/%C3", b"/" + b"a/" * (SEGMENTS_MAX + 1)])
def test_what_is_no_path(path):
    with pytest.raises(Invalid):
        segments_of(path)


def test_a_deep_path_is_allowed_up_to_its_bound():
    assert len(segments_of(b"/a" * SEGMENTS_MAX)) == SEGMENTS_MAX


@given(
    st.lists(
        st.sampled_from(["hub", "messages", "head", "partitions", "0", "publishers", "$x", "ä", "%"]),
        max_size=8,
    )
)
def test_escapes_slashes_and_case_change_nothing(segments):
    from urllib.parse import quote

    plain = "/" + "/".join(quote(s, safe="$") for s in segments)
    wild = "//".join(["", *("".join(f"%{b:02x}" for b in s.encode()) for s in segments)]) + "/"
    one, other = target_of(segments_of(plain.encode())), target_of(segments_of(wild.encode()))
    assert one == other
    upper = target_of([s.upper() for s in segments])
    assert (upper.kind, upper.entity, upper.scope) == (one.kind, one.entity, one.scope)


@pytest.mark.parametrize(
    ("path", "name", "token"),
    [
        (f"/q/messages/17/{LOCK}", "17", LOCK),
        (f"/q/messages/17/{LOCK.upper()}/", "17", LOCK),
        (f"/q/messages//17//{LOCK}", "17", LOCK),
        (f"/q/messages/a%20b%2Fc/{LOCK.replace('-', '')}", "a b/c", LOCK),
    ],
)
def test_the_lock_of_a_settlement(path, name, token):
    assert settled_lock(path.encode()) == (name, bytes.fromhex(token.replace("-", "")))


@pytest.mark.parametrize(
    "path", ["/q/messages/1/x", "/q/messages/1/%FF", "/q/messages/%FF/00", "/q/messages/1/0"]
)
def test_what_is_no_lock(path):
    with pytest.raises(ValueError):
        settled_lock(path.encode())


@pytest.mark.parametrize(
    ("target", "prefix"),
    [
        (f"/q/messages/1/{LOCK}", "/q/messages/"),
        (f"https://h/q/messages/1/{LOCK}", "https://h/q/messages/"),
        ("/q/messages/head", ""),
        ("/q/messages", ""),
        (f"/q/messages/1/{LOCK}?timeout=1", ""),
        (f"/q/messages/1/{LOCK}/", ""),
        (f"/q/messages/1//{LOCK}", ""),
        ("/messages/1/2/3", ""),
    ],
)
def test_settlements_share_a_prefix(target, prefix):
    assert settled_prefix(target.encode()) == prefix.encode()


# The matrix: every form with every verb, asked of a whole house by somebody with all rights.

WRONG = 400
VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
MATRIX = {
    # form: answers to VERBS
    "/hub/messages": (WRONG, WRONG, 201, WRONG, WRONG, WRONG, WRONG),
    "/hub/partitions/1/messages": (WRONG, WRONG, 201, WRONG, WRONG, WRONG, WRONG),
    "/hub/partitions/2/messages": (WRONG, WRONG, 400, WRONG, WRONG, WRONG, WRONG),
    "/hub/publishers/p/messages": (WRONG, WRONG, 201, WRONG, WRONG, WRONG, WRONG),
    "/hub/publisher/p/messages": (WRONG, WRONG, 201, WRONG, WRONG, WRONG, WRONG),
    "/queue/messages": (WRONG, WRONG, 201, WRONG, WRONG, WRONG, WRONG),
    "/topic/messages": (WRONG, WRONG, 201, WRONG, WRONG, WRONG, WRONG),
    "/nosuch/messages": (WRONG, WRONG, 404, WRONG, WRONG, WRONG, WRONG),
    "/queue/partitions/0/messages": (WRONG, WRONG, 404, WRONG, WRONG, WRONG, WRONG),
    "/topic/publishers/p/messages": (WRONG, WRONG, 404, WRONG, WRONG, WRONG, WRONG),
    "/topic/subscriptions/s/messages": (WRONG, WRONG, 404, WRONG, WRONG, WRONG, WRONG),
    "/queue/$DeadLetterQueue/messages": (WRONG, WRONG, 404, WRONG, WRONG, WRONG, WRONG),
    "/queue/messages/head?timeout=0": (WRONG, WRONG, 204, WRONG, 204, WRONG, WRONG),
    "/queue/$DeadLetterQueue/messages/head?timeout=0": (WRONG, WRONG, 204, WRONG, 204, WRONG, WRONG),
    "/topic/subscriptions/s/messages/head?timeout=0": (WRONG, WRONG, 204, WRONG, 204, WRONG, WRONG),
    "/topic/subscriptions/s/$DeadLetterQueue/messages/head?timeout=0": (WRONG, WRONG, 204, WRONG, 204, WRONG, WRONG),
    "/topic/messages/head": (WRONG, WRONG, 404, WRONG, 404, WRONG, WRONG),
    "/hub/messages/head": (WRONG, WRONG, 404, WRONG, 404, WRONG, WRONG),
    "/nosuch/messages/head": (WRONG, WRONG, 404, WRONG, 404, WRONG, WRONG),
    "/topic/subscriptions/nope/messages/head": (WRONG, WRONG, 404, WRONG, 404, WRONG, WRONG),
    f"/queue/messages/1/{LOCK}": (WRONG, WRONG, 404, 404, 404, WRONG, WRONG),
    "/queue/messages/1/nonsense": (WRONG, WRONG, 404, 404, 404, WRONG, WRONG),
    f"/nosuch/messages/1/{LOCK}": (WRONG, WRONG, 404, 404, 404, WRONG, WRONG),
    "/queue": (200, 200, WRONG, 400, None, WRONG, WRONG),
    "/hub/consumergroups": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/hub/consumergroups/$Default/partitions/0": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/topic/subscriptions": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/topic/subscriptions/s/rules/": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/hub/revokedpublishers": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/$Resources/queues": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/%24resources/eventhubs": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/$Resources/nothing": (404, 404, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/$namespaceinfo": (200, 200, WRONG, WRONG, WRONG, WRONG, WRONG),
    "/nosuch": (200, 200, WRONG, 400, 404, WRONG, WRONG),
    "/": (200, 200, WRONG, WRONG, 404, WRONG, WRONG),
}  # fmt: skip


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


@pytest.mark.parametrize("form", MATRIX)
def test_every_verb(house, form):
    for verb, wanted in zip(VERBS, MATRIX[form], strict=True):
        if wanted is None:
            continue
        before = house.stored()
        output = house.talk(request(verb.encode(), form.encode()))
        assert statuses(output, heads=verb == "HEAD") == [wanted], (verb, output)
        if wanted >= 400:
            assert house.stored() == before
        if wanted == WRONG and verb in ("PATCH", "OPTIONS"):
            assert f"SubCode=40000. The specified HTTP verb ({verb}) is not valid.".encode() in output


@pytest.mark.parametrize(
    "target",
    [
        b"/HUB/MESSAGES", b"//hub//messages", b"/hub/messages/", b"/%68%75%62/messages", b"/hub/messages?api-version=1999-99&x=y",
        b"https://contoso.servicebus.windows.net/hub/messages", b"http://CONTOSO.servicebus.windows.net:443/hub/messages?timeout=60",
    ],
)  # fmt: skip
def test_spellings_reach_the_same_hub(house, target):
    before = sum(log.durable for log in house.namespace.hub("hub").partitions)
    assert statuses(house.talk(request(b"POST", target))) == [201]
    assert sum(log.durable for log in house.namespace.hub("hub").partitions) == before + 1
