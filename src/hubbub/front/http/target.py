"""Request targets and hosts (RFC 9112 §3.2): where a request wants to go, in bytes.

Not here: percent-decoding, case folding, what a namespace is; a door does these. The path stays raw.
"""

from __future__ import annotations

import re

_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]{0,5})?"
)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(/[^?]*)?(?:\?(.*))?", re.DOTALL)


class BadTarget(ValueError):
    """The request target or the host cannot be understood; the text says why."""


def is_host(value: bytes) -> bool:
    """Tells whether `value` is `uri-host [":" port]`, not empty (RFC 9110 §4.2.1, §7.2)."""
    return _HOST.fullmatch(value) is not None


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes]:
    """Returns (authority without user information or b"", raw path, raw query) of a target in any form.

    A fragment never belongs in a request (RFC 9112 §3.2); letting one pass would let two readers of the
    same request see two paths. Raises BadTarget.
    """
    if b"#" in target:
        raise BadTarget("The request target contains a fragment.")
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
        return b"", path, query
    if target == b"*" and method == b"OPTIONS":
        return b"", b"*", b""
    return _split_absolute(target)


def _split_absolute(target: bytes) -> tuple[bytes, bytes, bytes]:
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadTarget("The request target is neither a path nor an http or https address.")
    authority = match[1].rpartition(b"@")[2]
    if not is_host(authority):
        raise BadTarget("The request target does not name a valid host.")
    return authority, match[2] or b"/", match[3] or b""
