"""From a resource URI in a token to a host and a path, and whether the host is ours (rest.md §2.1.4).

    [scheme "://"] [user "@"] host [":" port] ["/" path] ["?" query] ["#" fragment]

Not here: which entities exist. Rules: any scheme or none; scheme, user, port, query and fragment do not
count; case, runs of slashes and outer slashes do not count; the path's own percent escapes are decoded.
A trailing `$management` names its entity, since clients ask a token for the node and use it for the
entity or the other way round (amqp.md §2.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from .rights import invalid_audience

MANAGEMENT = "$management"
ENTITY_PATH_CHARS_MAX = 290
"""No entity path is longer (rest.md C33), so no rule can sit on a longer prefix."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The namespace and the host names (lower case, no port) that denote it."""

    namespace: str
    hosts: frozenset[str]

    def denotes(self, host: str, request_host: str = "") -> bool:
        """Whether `host` is this namespace; `request_host` is what the caller dialled, "" if unknown."""
        return bool(host) and (host in self.hosts or host == request_host)

    def path(self, uri: str, request_host: str = "") -> str:
        """The scope path a URI or CBS audience names. Raises Unauthorized 40104 for another host."""
        host, path = split_resource(uri)
        if not self.denotes(host, request_host):
            raise invalid_audience()
        return path


def split_resource(uri: str) -> tuple[str, str]:
    """(host, path): lower case, host without port, path decoded and without outer slashes."""
    scheme, mark, rest = uri.partition("://")
    if not mark or "/" in scheme:
        rest = uri
    location, _, path = _before(rest, "?#").partition("/")
    return host_name(location.rpartition("@")[2]), scope_path(decode(path.encode("utf-8", "replace")))


def host_name(location: str) -> str:
    """The host of `host[:port]` or `[v6][:port]`, lower case, no brackets, no trailing dot."""
    location = location.strip().lower()
    if location.startswith("["):
        return location[1:].partition("]")[0]
    if location.count(":") == 1:
        location = location.partition(":")[0]
    return location.rstrip(".")


def scope_path(path: str) -> str:
    """A decoded path in the form grants compare: lower case, single slashes, no trailing $management."""
    segments = [segment for segment in path.lower().split("/") if segment]
    if segments and segments[-1] == MANAGEMENT:
        segments.pop()
    return "/".join(segments)


def prefixes(path: str) -> list[str]:
    """The path and its parents that can be an entity, longest first, "" last."""
    found = []
    while path:
        if len(path) <= ENTITY_PATH_CHARS_MAX:
            found.append(path)
        path = path[:cut] if (cut := path.rfind("/", 0, ENTITY_PATH_CHARS_MAX + 1)) > 0 else ""
    found.append("")
    return found


def decode(raw: bytes) -> str:
    """Percent-decoding of UTF-8; bytes that are none become U+FFFD, which no name contains."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def decode_form(raw: bytes) -> str:
    """As `decode`, with `+` for a blank: the form encoding of .NET and of Python's quote_plus."""
    return decode(raw.replace(b"+", b" "))


def _before(text: str, marks: str) -> str:
    for mark in marks:
        text = text.partition(mark)[0]
    return text
