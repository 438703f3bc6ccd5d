"""From a request target to what it means (REST reference 1.2). Pure: which entity is there is asked later.

/{entity}/messages                                     send
/{hub}/partitions/{id}/messages                        send to a partition
/{hub}/publishers/{id}/messages                        send as a publisher
/{receiver}/messages/head                              receive
/{receiver}/messages/{number or id}/{lock token}       settle
everything else                                        management
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ...broker.errors import Invalid

SEGMENTS_MAX = 64


class Target(NamedTuple):
    """`entity` and `scope` are lower case; `spelled` is the entity as the client wrote it."""

    kind: str
    """send, receive, settle or manage."""
    entity: str
    spelled: str
    scope: str
    """The whole path, as tokens are compared with it."""
    partition: str | None = None
    publisher: str | None = None


def segments_of(path: bytes) -> list[str]:
    """The decoded segments; runs of slashes count as one. Raises Invalid."""
    try:
        found = [unquote_to_bytes(segment).decode() for segment in path.split(b"/") if segment]
    except UnicodeDecodeError:
        raise Invalid("SubCode=40000. The request path is not valid UTF-8.") from None
    if len(found) > SEGMENTS_MAX:
        raise Invalid(f"SubCode=40000. The request path has more than {SEGMENTS_MAX} segments.")
    return found


def target_of(segments: list[str]) -> Target:
    """What the path means, by its shape alone."""
    lower = [segment.lower() for segment in segments]
    count = len(segments)
    if count >= 2 and lower[-1] == "messages":
        return _send(segments, lower)
    if count >= 3 and lower[-2:] == ["messages", "head"]:
        return Target("receive", "/".join(lower[:-2]), "/".join(segments[:-2]), "/".join(lower))
    if count >= 4 and lower[-3] == "messages":
        entity, spelled = "/".join(lower[:-3]), "/".join(segments[:-3])
        return Target("settle", entity, spelled, "/".join(lower))
    return Target("manage", "/".join(lower), "/".join(segments), "/".join(lower))


def settled_prefix(target: bytes) -> bytes:
    """All settlements of one receiver share this much of their request targets; b"" for other targets."""
    cut = target.rfind(b"/messages/") + 10
    if cut < 10 or b"?" in target or target.count(b"/", cut) != 1 or target.endswith(b"/"):
        return b""
    return target[:cut]


def settled_lock(path: bytes) -> tuple[str, bytes]:
    """Message number or id, and lock token, of a settlement's path. Raises ValueError."""
    name, token = [segment for segment in path.split(b"/") if segment][-2:]
    return unquote_to_bytes(name).decode(), bytes.fromhex(unquote_to_bytes(token).decode().replace("-", ""))


def _send(segments: list[str], lower: list[str]) -> Target:
    if len(segments) >= 4 and lower[-3] in ("partitions", "publishers", "publisher"):
        entity, spelled = "/".join(lower[:-3]), "/".join(segments[:-3])
        if lower[-3] == "partitions":
            return Target("send", entity, spelled, "/".join(lower), partition=segments[-2])
        # The documents' example has the singular (conflict C12); tokens name the plural.
        scope = "/".join([*lower[:-3], "publishers", *lower[-2:]])
        return Target("send", entity, spelled, scope, publisher=segments[-2])
    return Target("send", "/".join(lower[:-1]), "/".join(segments[:-1]), "/".join(lower))
