"""Atom and descriptions on their own: what is read, what is refused, what is written."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.broker.entity import FOREVER, EventHub, Queue, RevokedPublisher, Rule, Topic
from hubbub.broker.errors import Invalid
from hubbub.front.rest import atom, descriptions
from hubbub.front.rest.atom import ATOM, SB, XSI, Element, description

NOW = 1_700_000_000_123


def wrapped(content: str, *, atom_prefix: str = "") -> bytes:
    """An Atom entry around a description, with or without a prefix for Atom's own elements."""
    p = f"{atom_prefix}:" if atom_prefix else ""
    bound = f"xmlns:{atom_prefix}" if atom_prefix else "xmlns"
    inside = f'<{p}content type="application/xml">{content}</{p}content>'
    return f'<{p}entry {bound}="{ATOM}">{inside}</{p}entry>'.encode()


def queue_xml(inner: str) -> bytes:
    return wrapped(f'<QueueDescription xmlns="{SB}" xmlns:i="{XSI}">{inner}</QueueDescription>')


def read(kind: type, inner: str, **given: str) -> object:
    name = descriptions.TABLES[kind][0]
    element = description(wrapped(f'<{name} xmlns="{SB}" xmlns:i="{XSI}">{inner}</{name}>'), (name,))
    return descriptions.read(kind, element, given, None, NOW)


def refusal(body: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        description(body, ("QueueDescription",))
    return str(caught.value)


class TestReading:
    @pytest.mark.parametrize(
        "body",
        [
            queue_xml("<LockDuration>PT30S</LockDuration>"),
            b"\xef\xbb\xbf" + queue_xml("<LockDuration>PT30S</LockDuration>"),
            b'<?xml version="1.0" encoding="utf-8"?>' + queue_xml("<LockDuration>PT30S</LockDuration>"),
            queue_xml("<LockDuration>PT30S</LockDuration>").decode().encode("utf-16"),
            wrapped(
                f'<q:QueueDescription xmlns:q="{SB}"><q:LockDuration>PT30S</q:LockDuration>'
                "</q:QueueDescription>",
                atom_prefix="ns0",
            ),
            wrapped(
                f'<QueueDescription xmlns="{SB}"><!-- c --><LockDuration><![CDATA[PT30S]]></LockDuration>'
                "</QueueDescription>"
            ),
            wrapped(
                f'<QueueDescription xmlns="{SB}"><LockDuration>PT30S</LockDuration></QueueDescription>'
            ).replace(b"<content", b"<title>t</title><updated/><author><name/></author><content"),
        ],
        ids=["plain", "bom", "declaration", "utf-16", "prefixes", "cdata", "old clients"],
    )
    def test_goes_by_namespace_in_any_spelling(self, body: bytes) -> None:
        assert description(body, ("QueueDescription",)).get("LockDuration") == "PT30S"

    def test_ignores_elements_of_other_namespaces(self) -> None:
        element = description(
            queue_xml('<x:Status xmlns:x="urn:x">Disabled</x:Status>'), ("QueueDescription",)
        )
        assert element.get("Status") == ""

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"", "not XML"),
            (b"not xml", "not XML"),
            (b"<entry", "not XML"),
            (queue_xml("") + b"<more/>", "not XML"),
            (b"\xff\xfe\x00", "not XML"),
            (b'<?xml version="1.0" encoding="nonsense"?><entry/>', "not XML"),
            (b"<entry/>", "must be an Atom entry"),
            (f'<feed xmlns="{ATOM}"/>'.encode(), "must be an Atom entry"),
            (f'<entry xmlns="{ATOM}"/>'.encode(), "must be an Atom entry"),
            (wrapped(""), "must be an Atom entry"),
            (wrapped("<a/><b/>"), "must be an Atom entry"),
            (
                wrapped(f'<TopicDescription xmlns="{SB}"/>'),
                "QueueDescription is wanted here, not a TopicDesc",
            ),
            (wrapped('<QueueDescription xmlns="urn:other"/>'), "must be in the namespace"),
        ],
    )
    def test_refuses_what_holds_no_such_description(self, body: bytes, text: str) -> None:
        assert text in refusal(body)

    def test_refuses_document_types_and_with_them_entities(self) -> None:
        laughs = '<!ENTITY a "ha">' + "".join(
            f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )
        bomb = f"<!DOCTYPE entry [{laughs}]>".encode() + queue_xml("<UserMetadata>&i;</UserMetadata>")
        outside = b'<!DOCTYPE entry SYSTEM "file:///etc/passwd">' + queue_xml("")
        assert "document type" in refusal(bomb)
        assert "document type" in refusal(outside)
        assert "undefined entity" in refusal(queue_xml("&nbsp;"))

    def test_is_bounded_in_bytes_elements_and_levels(self) -> None:
        def nested(levels: int) -> bytes:
            # entry, content and QueueDescription are three.
            return queue_xml("<a>" * (levels - 3) + "</a>" * (levels - 3))

        def filled(size: int) -> bytes:
            return queue_xml("x" * (size - len(queue_xml(""))))

        description(nested(atom.DEPTH_MAX), ("QueueDescription",))
        assert "levels" in refusal(nested(atom.DEPTH_MAX + 1))
        description(queue_xml("<a/>" * (atom.ELEMENTS_MAX - 3)), ("QueueDescription",))
        assert "elements" in refusal(queue_xml("<a/>" * (atom.ELEMENTS_MAX - 2)))
        description(filled(atom.ENTRY_BYTES_MAX), ("QueueDescription",))
        assert "bytes" in refusal(filled(atom.ENTRY_BYTES_MAX + 1))

    @given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
    def test_of_anything_at_all_raises_nothing_but_invalid(self, noise: bytes) -> None:
        for body in (noise, queue_xml("").replace(b"</Queue", noise + b"</Queue")):
            try:
                description(body, ("QueueDescription",))
            except Invalid:
                pass


class TestWriting:
    @given(st.text())
    def test_any_text_makes_a_well_formed_entry_that_says_it(self, text: str) -> None:
        written = atom.entry(f"https://h/{text}", text, (NOW, NOW), atom.tag("d", text), author="a")
        root = ElementTree.fromstring(written.encode("utf-8", "strict"))
        legal = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
        assert root.findtext(f"{{{ATOM}}}title") == legal
        link = root.find(f"{{{ATOM}}}link")
        assert link is not None
        assert link.get("href") == f"https://h/{legal}"

    def test_an_entry_has_the_recorded_order(self) -> None:
        root = ElementTree.fromstring(atom.entry("u", "t", (NOW, NOW + 1000), "<d/>", author="contoso"))
        assert [child.tag.rpartition("}")[2] for child in root] == [
            "id",
            "title",
            "published",
            "updated",
            "author",
            "link",
            "content",
        ]
        assert root.findtext(f"{{{ATOM}}}published") == "2023-11-14T22:13:20Z"
        assert root.findtext(f"{{{ATOM}}}updated") == "2023-11-14T22:13:21Z"

    def test_moments_carry_seven_decimals_and_a_zone(self) -> None:
        assert atom.exact(NOW) == "2023-11-14T22:13:20.1230000Z"
        assert atom.exact(0) == "1970-01-01T00:00:00.0000000Z"

    def test_a_feed_has_a_second_link_only_if_something_follows(self) -> None:
        for following, count in ((None, 1), ("https://h/?$skip=1&$top=1", 2)):
            links = ElementTree.fromstring(atom.feed("u", "t", NOW, [], following)).findall(f"{{{ATOM}}}link")
            assert len(links) == count
            assert links[-1].get("href") == (following or "u")


class TestLengths:
    @pytest.mark.parametrize(
        ("length", "text"),
        [
            (0, "PT0S"),
            (1, "PT0.001S"),
            (30_000, "PT30S"),
            (59_999, "PT59.999S"),
            (60_000, "PT1M"),
            (3_600_000, "PT1H"),
            (86_400_000, "P1D"),
            (7 * 86_400_000 + 3_600_000 + 60_000 + 1_500, "P7DT1H1M1.5S"),
            (FOREVER, "P10675199DT2H48M5.4775807S"),
        ],
    )
    def test_both_ways(self, length: int, text: str) -> None:
        assert descriptions.length_text(length) == text
        assert descriptions.length_of(text) == length

    @pytest.mark.parametrize(
        "text",
        [
            "P10675199DT2H48M5.477539S",
            "P10675199DT2H48M5.477581S",
            "PT256204778H48M5.4775807S",
            "P99999999D",
            "P10675200D",
        ],
    )
    def test_the_infinite_comes_back_with_losses(self, text: str) -> None:
        assert descriptions.length_of(text) == FOREVER

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "P",
            "PT",
            "P1DT",
            "1",
            "60",
            "-PT1M",
            "P1Y",
            "P1M",
            "PT1,5S",
            "PT1",
            "P١D",
            "PT1S ",
            "P" + "9" * 400 + "D",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(Invalid, match="not a valid duration"):
            descriptions.length_of(text)

    @given(st.integers(0, FOREVER))
    def test_nothing_is_lost(self, length: int) -> None:
        assert descriptions.length_of(descriptions.length_text(length)) == length


class TestDescriptions:
    def test_an_empty_one_means_the_defaults(self) -> None:
        assert read(Queue, "", path="q") == Queue(path="q")
        assert read(Topic, "", path="t") == Topic(path="t")
        assert read(EventHub, "", path="h") == EventHub(path="h")

    def test_the_order_of_elements_does_not_matter_and_the_first_counts(self) -> None:
        queue = read(
            Queue,
            "<Zzz>1</Zzz><RequiresSession>1</RequiresSession><MaxDeliveryCount> 3 </MaxDeliveryCount>"
            "<LockDuration>PT5S</LockDuration><LockDuration>PT9S</LockDuration><Status/>",
            path="q",
        )
        assert queue == Queue(path="q", requires_session=True, deliveries_max=3, lock_duration=5_000)

    def test_what_only_answers_have_is_ignored_in_a_request(self) -> None:
        queue = read(
            Queue,
            "<SizeInBytes>99</SizeInBytes><CreatedAt>nonsense</CreatedAt><MessageCount>x</MessageCount>"
            "<EntityAvailabilityStatus>Limited</EntityAvailabilityStatus>",
            path="q",
        )
        assert queue == Queue(path="q")

    def test_metadata_keeps_its_blanks(self) -> None:
        queue = read(Queue, "<UserMetadata> a&lt;b&#13;\n</UserMetadata>", path="q")
        assert isinstance(queue, Queue)
        assert queue.user_metadata == " a<b\r\n"

    @pytest.mark.parametrize(
        ("inner", "text"),
        [
            ("<LockDuration>soon</LockDuration>", "'soon' is not a valid duration"),
            ("<RequiresSession>maybe</RequiresSession>", "'maybe' is not true or false"),
            ("<MaxDeliveryCount>ten</MaxDeliveryCount>", "'ten' is not a number"),
            ("<MaxDeliveryCount>99999999999</MaxDeliveryCount>", "is not a number of at most ten digits"),
            (
                "<IsAnonymousAccessible>true</IsAnonymousAccessible>",
                "'IsAnonymousAccessible' can only be false",
            ),
            ("<AuthorizationRules><Other/></AuthorizationRules>", "must be of type SharedAccess"),
            (
                '<AuthorizationRules><AuthorizationRule i:type="AllowRule"/></AuthorizationRules>',
                "must be of type SharedAccessAuthorizationRule",
            ),
            ("<AuthorizationRules><AuthorizationRule/></AuthorizationRules>", "must have a KeyName"),
            (
                "<AuthorizationRules><AuthorizationRule><KeyName>k</KeyName><PrimaryKey>"
                + "x" * 257
                + "</PrimaryKey></AuthorizationRule></AuthorizationRules>",
                "over 256 characters",
            ),
        ],
    )
    def test_refused_values(self, inner: str, text: str) -> None:
        with pytest.raises(Invalid, match=re.escape(text)):
            read(Queue, inner, path="q")

    @pytest.mark.parametrize(
        "inner",
        [
            "",
            "<Filter/>",
            '<Filter i:nil="true"/>',
            '<Filter i:type="TrueFilter"/>',
            '<Filter i:type="x:TrueFilter"><SqlExpression>1=1</SqlExpression></Filter>',
            '<Filter i:type="SqlFilter"><SqlExpression> 1 = 1 </SqlExpression></Filter>',
            '<Action i:type="EmptyRuleAction"/><Name>R</Name>',
        ],
    )
    def test_true_filters(self, inner: str) -> None:
        rule = read(Rule, inner, path="t/subscriptions/s/rules/r", subscription="t/subscriptions/s", name="r")
        assert isinstance(rule, Rule)
        assert rule.name == "r"

    @pytest.mark.parametrize(
        ("inner", "text"),
        [
            ("<Filter><SqlExpression>a=1</SqlExpression></Filter>", "'nothing' is not a type of filter"),
            ('<Filter i:type="Other"/>', "'Other' is not a type of filter"),
            (
                "<Action><SqlExpression>SET a=1</SqlExpression></Action>",
                "'nothing' is not a type of rule action",
            ),
            ("<Name>other</Name>", "The Name 'other' must be 'r' here"),
        ],
    )
    def test_other_rules_are_refused(self, inner: str, text: str) -> None:
        with pytest.raises(Invalid, match=text):
            read(Rule, inner, path="t/subscriptions/s/rules/r", subscription="t/subscriptions/s", name="r")

    def test_a_publisher_must_be_printable(self) -> None:
        for name in ("a\nb", "\x01", "x" * 129):
            with pytest.raises(Invalid, match="printable"):
                read(RevokedPublisher, "", path=f"h/revokedpublishers/{name}", hub="h", name=name)

    def test_type_is_without_its_prefix(self) -> None:
        assert Element("", "f", {"type": "p:TrueFilter"}).type == "TrueFilter"
        assert Element("", "f", {}).type == ""
