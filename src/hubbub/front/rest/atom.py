"""Atom entries and feeds, read and written (REST reference 7.1, 7.2).

Not here: what the elements of a description mean (`descriptions`), who asks for them (`management`).
Reading goes by namespace, never by prefix, and is bounded: no document type (so no entities), so many bytes,
elements and levels. Writing escapes every value, and replaces what XML cannot carry at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from ...broker.errors import Invalid

ATOM = "http://www.w3.org/2005/Atom"
SB = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
ENTRY_TYPE = (b"Content-Type", b"application/atom+xml;type=entry;charset=utf-8")
FEED_TYPE = (b"Content-Type", b"application/atom+xml;type=feed;charset=utf-8")
ENTRY_BYTES_MAX = 256 * 1024
ELEMENTS_MAX = 2_000
DEPTH_MAX = 32

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Element:
    """One XML element: its name without the namespace, attributes by local name, children and text."""

    __slots__ = ("attributes", "children", "name", "namespace", "text")

    def __init__(self, namespace: str, name: str, attributes: dict[str, str]) -> None:
        self.namespace = namespace
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""

    def child(self, name: str) -> Element | None:
        """The first child of that name in this element's own namespace."""
        return next((c for c in self.children if c.name == name and c.namespace == self.namespace), None)

    def get(self, name: str, default: str = "") -> str:
        """The text of a child, without blanks around it."""
        child = self.child(name)
        return default if child is None else child.text.strip()

    @property
    def type(self) -> str:
        """The value of `i:type` without a prefix; empty if there is none."""
        return self.attributes.get("type", "").rpartition(":")[2]


class _Reader:
    """Builds elements from expat's events, and stops at the first that is not welcome."""

    def __init__(self) -> None:
        self._root: Element | None = None
        self._open: list[Element] = []
        self._count = 0
        self._parser = expat.ParserCreate(namespace_separator="\n")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self, body: bytes) -> Element:
        self._parser.Parse(body, True)
        # Expat raises for a document without a root.
        assert self._root is not None
        return self._root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > ELEMENTS_MAX:
            raise ValueError(f"more than {ELEMENTS_MAX} elements")
        if len(self._open) >= DEPTH_MAX:
            raise ValueError(f"more than {DEPTH_MAX} levels")
        namespace, _, local = name.rpartition("\n")
        element = Element(namespace, local, {k.rpartition("\n")[2]: v for k, v in attributes.items()})
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)

    def _end(self, name: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type is not allowed")


def parse(body: bytes) -> Element:
    """The root of a document. Raises Invalid."""
    if len(body) > ENTRY_BYTES_MAX:
        raise Invalid(f"SubCode=40000. The request body is over {ENTRY_BYTES_MAX} bytes.")
    try:
        return _Reader().read(body)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Invalid(f"SubCode=40000. The request body is not XML as wanted here: {error}.") from None


def description(body: bytes, wanted: Collection[str]) -> Element:
    """The one description inside an Atom entry. Raises Invalid unless it is one of `wanted`."""
    root = parse(body)
    content = root.child("content") if (root.namespace, root.name) == (ATOM, "entry") else None
    if content is None or len(content.children) != 1:
        raise Invalid("SubCode=40000. The request body must be an Atom entry with one description.")
    found = content.children[0]
    if found.name not in wanted:
        raise Invalid(f"SubCode=40000. A {' or '.join(wanted)} is wanted here, not a {found.name:.80}.")
    if found.namespace != SB:
        raise Invalid(f"SubCode=40000. The {found.name} must be in the namespace {SB}.")
    return found


def whole(moment: int) -> str:
    """A moment in ms as `published` and `updated` have it: whole seconds with Z."""
    return datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(moment: int) -> str:
    """A moment in ms as CreatedAt and UpdatedAt have it: with seven decimals."""
    return f"{whole(moment)[:-1]}.{moment % 1000:03}0000Z"


def text_of(value: str) -> str:
    """Escaped element text. A carriage return would else come back as a line feed."""
    return escape(_UNWRITABLE.sub("?", value), {"\r": "&#13;"})


def tag(name: str, value: str) -> str:
    """An element with text."""
    return f"<{name}>{text_of(value)}</{name}>"


def _attribute(value: str) -> str:
    return quoteattr(_UNWRITABLE.sub("?", value))


def entry(
    uri: str,
    title: str,
    times: tuple[int, int],
    content: str,
    *,
    author: str | None = None,
    link: str | None = None,
    base: str | None = None,
    published: bool = True,
) -> str:
    """One entry; `times` are created and updated, `content` is XML.

    Inside a feed give `link`, relative, and `base`, the feed's own address.
    """
    opening = f"<entry xml:base={_attribute(base)}>" if base else f'<entry xmlns="{ATOM}">'
    parts = (
        opening,
        tag("id", uri),
        f'<title type="text">{text_of(title)}</title>',
        tag("published", whole(times[0])) if published else "",
        tag("updated", whole(times[1])),
        f"<author>{tag('name', author)}</author>" if author else "",
        f'<link rel="self" href={_attribute(link or uri)}/>',
        f'<content type="application/xml">{content}</content></entry>',
    )
    return "".join(parts)


def feed(uri: str, title: str, now: int, entries: Iterable[str], following: str | None) -> bytes:
    """A page of a collection; `following` is the address of the next one.

    The Python client goes on only if the feed has exactly two links, hence no other is ever written (7.4).
    """
    more = f'<link rel="next" href={_attribute(following)}/>' if following else ""
    head = (
        f'<feed xmlns="{ATOM}"><title type="text">{text_of(title)}</title>{tag("id", uri)}'
        f'{tag("updated", whole(now))}<link rel="self" href={_attribute(uri)}/>{more}'
    )
    return (head + "".join(entries) + "</feed>").encode()


def nothing_here(uuid: str, now: int) -> bytes:
    """What a path without an entity shows (7.5); every SDK takes it for "not found"."""
    return (
        f'<feed xmlns="{ATOM}"><title type="text">Publicly Listed Services</title><subtitle type="text">This'
        f" is the list of publicly-listed services currently available.</subtitle><id>uuid:{uuid};id=1</id>"
        f"<updated>{whole(now)}</updated><generator>Service Bus 1.1</generator></feed>"
    ).encode()
