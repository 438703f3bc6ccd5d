"""Atom entries and feeds, read and written (REST reference 7.1, 7.2).

Reading goes by namespace, never by prefix; no DTD, no entities, bounded depth and size. Writing is text
with every value escaped, in the documented order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from ...broker.errors import Invalid

ATOM = "http://www.w3.org/2005/Atom"
SB = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
ENTRY_TYPE = (b"Content-Type", b"application/atom+xml;type=entry;charset=utf-8")
FEED_TYPE = (b"Content-Type", b"application/atom+xml;type=feed;charset=utf-8")
DEPTH_MAX = 32


class Element:
    """One XML element: `name` without its namespace, attributes by local name, children and text."""

    __slots__ = ("attributes", "children", "name", "namespace", "text")

    def __init__(self, namespace: str, name: str, attributes: dict[str, str]) -> None:
        self.namespace = namespace
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""

    def child(self, name: str) -> Element | None:
        return next((child for child in self.children if child.name == name), None)

    def get(self, name: str, default: str = "") -> str:
        """The text of a child."""
        child = self.child(name)
        return default if child is None else child.text.strip()


class _Reader:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._parser = expat.ParserCreate(namespace_separator="\n")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self, body: bytes) -> Element:
        self._parser.Parse(body, True)
        assert self.root is not None
        return self.root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition("\n")
        element = Element(namespace, local, {k.rpartition("\n")[2]: v for k, v in attributes.items()})
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        if len(self._open) > DEPTH_MAX:
            raise ValueError("nested too deep")

    def _end(self, name: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].text += text

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type is not allowed")


def description(body: bytes, wanted: str) -> Element:
    """The description inside an Atom entry. Raises Invalid unless it is a `wanted`."""
    try:
        root = _Reader().read(body)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Invalid(f"SubCode=40000. The request body is not well-formed XML: {error}.") from None
    content = root.child("content") if root.name == "entry" else None
    if root.namespace != ATOM or content is None or len(content.children) != 1:
        raise Invalid("SubCode=40000. The request body must be an Atom entry with one description.")
    found = content.children[0]
    if found.name != wanted:
        raise Invalid(f"SubCode=40000. A {wanted} is wanted here, not a {found.name}.")
    return found


def whole(moment: int) -> str:
    """published, updated: whole seconds with Z."""
    return datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(moment: int) -> str:
    """CreatedAt, UpdatedAt: with seven decimals."""
    return (
        datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        + f".{moment % 1000:03}0000Z"
    )


def tag(name: str, value: str | None) -> str:
    """An element with text; nothing for None."""
    return "" if value is None else f"<{name}>{escape(value)}</{name}>"


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
    """One entry; inside a feed give `link` (relative) and `base` (the feed's own address)."""
    opening = f"<entry xml:base={quoteattr(base)}>" if base else f'<entry xmlns="{ATOM}">'
    parts = [
        opening,
        tag("id", uri),
        f'<title type="text">{escape(title)}</title>',
        tag("published", whole(times[0])) if published else "",
        tag("updated", whole(times[1])),
        f"<author><name>{escape(author)}</name></author>" if author else "",
        f'<link rel="self" href={quoteattr(link or uri)}/>',
        f'<content type="application/xml">{content}</content></entry>',
    ]
    return "".join(parts)


def feed(uri: str, title: str, now: int, entries: Iterable[str], following: str | None) -> bytes:
    """A page of a collection. `following`: where the next page is; clients count the links."""
    more = f'<link rel="next" href={quoteattr(following)}/>' if following else ""
    head = (
        f'<feed xmlns="{ATOM}"><title type="text">{escape(title)}</title>{tag("id", uri)}'
        f'{tag("updated", whole(now))}<link rel="self" href={quoteattr(uri)}/>{more}'
    )
    return (head + "".join(entries) + "</feed>").encode()


def nothing_here(uuid: str, now: int) -> bytes:
    """What a path without an entity shows (7.5); every SDK takes it for "not found"."""
    return (
        f'<feed xmlns="{ATOM}"><title type="text">Publicly Listed Services</title><subtitle type="text">This'
        f" is the list of publicly-listed services currently available.</subtitle><id>uuid:{uuid};id=1</id>"
        f"<updated>{whole(now)}</updated><generator>Service Bus 1.1</generator></feed>"
    ).encode()
