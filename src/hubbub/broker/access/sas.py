"""Shared access signatures: reading, checking and minting (rest.md §2.1, amqp.md §2.3).

    SharedAccessSignature sr=<uri>&sig=<base64>&se=<seconds>&skn=<rule>     any order, values URL-encoded

    signed = sr as it stands in the token, still encoded + LF + se
    sig    = Base64(HMAC-SHA256(UTF-8 of the key TEXT, signed))

Not here: the other schemes. Rules: fields are found by name in any case, once each; the rule that signs
lives on the entity `sr` names or above it; work does not depend on whether the rule exists.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest, digest
from urllib.parse import quote, quote_plus

from .resource import Authority, decode, decode_form, prefixes, split_resource
from .rights import (
    NO_RIGHTS,
    Grant,
    KeyRing,
    SharedKey,
    expired_token,
    invalid_audience,
    invalid_signature,
    malformed_token,
)

SCHEME = b"sharedaccesssignature"
EXPIRY_SECONDS_MAX = 2**63 - 1

_FIELDS = (b"sr", b"sig", b"se", b"skn")
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_NOBODY = SharedKey("", NO_RIGHTS, "nobody", "nobody")
"""Stands in for an unknown rule, so that a refusal takes the same time; it never opens anything."""


@dataclass(frozen=True, slots=True)
class SasToken:
    """A token's fields. `raw` is `sr` as transmitted; `se` its text; `host` and `path` what `sr` names."""

    raw: bytes
    signature: bytes
    se: bytes
    names: tuple[str, ...]
    host: str
    path: str

    @property
    def expires(self) -> int:
        return int(self.se) * 1000


def parse(fields: bytes) -> SasToken:
    """Reads what follows the scheme name. Raises Unauthorized 40105."""
    found = _fields(fields)
    if not is_expiry(found[b"se"]):
        raise malformed_token()
    host, path = split_resource(resource_text(found[b"sr"]))
    return SasToken(
        found[b"sr"],
        # Some clients' encoders turn the "+" of Base64 into a blank (rest.md §2.1.2 step 4).
        decode(found[b"sig"]).replace(" ", "+").encode("utf-8"),
        found[b"se"],
        _rule_names(found[b"skn"]),
        host,
        path,
    )


def verify_sas(fields: bytes, authority: Authority, ring: KeyRing, now: int, request_host: str = "") -> Grant:
    """The grant of a token without its scheme name. Raises Unauthorized in the order of rest.md §2.4."""
    token = parse(fields)
    rule = find_signer(token, candidates(token, ring))
    if rule is None:
        raise invalid_signature()
    if now >= token.expires:
        raise expired_token()
    if not authority.denotes(token.host, request_host):
        raise invalid_audience()
    return Grant("sas", token.path, rule.rights, token.expires, rule.name)


def candidates(token: SasToken, ring: KeyRing) -> list[SharedKey]:
    """The rules of the token's name, from the entity it names up to the namespace."""
    return [rule for path in prefixes(token.path) for rule in ring.rules(path) if rule.name in token.names]


def find_signer(token: SasToken, rules: Sequence[SharedKey]) -> SharedKey | None:
    """The rule one of whose keys signed the token, or None."""
    for resource in spellings(token.raw):
        signed = resource + b"\n" + token.se
        for rule in rules or (_NOBODY,):
            # Every key is tried, whichever fits: time must not tell which one did.
            fits = [compare_digest(signature(key, signed), token.signature) for key in rule.keys]
            if any(fits) and rule is not _NOBODY:
                return rule
    return None


def spellings(raw: bytes) -> Iterator[bytes]:
    """`sr` as transmitted, then as proxies may have rewritten its escapes; all name the same URI."""
    yield raw
    plain = decode(raw)
    upper = quote(plain, safe="")
    for text in (upper, _ESCAPE.sub(lambda escape: escape[0].lower(), upper), plain):
        if (spelling := text.encode("utf-8", "replace")) != raw:
            yield spelling


def signature(key: str, signed: bytes) -> bytes:
    """Base64 of the HMAC-SHA256 under the key's text."""
    return signature_of(key.encode("utf-8", "replace"), signed)


def signature_of(key: bytes, signed: bytes) -> bytes:
    """Base64 of the HMAC-SHA256 under these bytes."""
    return b64encode(digest(key, signed, sha256))


def sas_token(resource: str, key_name: str, key: str, expires_s: int) -> str:
    """Mints `SharedAccessSignature sr=…&sig=…&se=…&skn=…`; `expires_s` is seconds since 1970 UTC."""
    sr = quote_plus(resource)
    sig = quote_plus(signature(key, f"{sr}\n{expires_s}".encode()))
    return f"SharedAccessSignature sr={sr}&sig={sig}&se={expires_s}&skn={quote_plus(key_name)}"


def resource_text(raw: bytes) -> str:
    """The URI that `sr` stands for. One with `://` in the clear was not encoded and is the URI itself."""
    return raw.decode("utf-8", "replace") if b"://" in raw else decode_form(raw)


def _fields(text: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for pair in text.strip(b" \t").split(b"&"):
        name, mark, value = pair.partition(b"=")
        name = name.lower()
        if not mark or name in found:
            raise malformed_token()
        found[name] = value
    if not all(found.get(name) for name in _FIELDS):
        raise malformed_token()
    return found


def is_expiry(text: bytes) -> bool:
    """Whether the text is decimal seconds that fit 64 bits."""
    # bytes.isdigit is ASCII only; the length first, since int() of a long text is slow.
    return len(text) <= 19 and text.isdigit() and int(text) <= EXPIRY_SECONDS_MAX


def _rule_names(raw: bytes) -> tuple[str, ...]:
    # Python clients encode the name twice (rest.md §2.1.2 step 5).
    once = decode(raw)
    twice = decode(once.encode("utf-8", "replace"))
    return (once,) if once == twice else (once, twice)
