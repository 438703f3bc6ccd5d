"""Simple web tokens under the WRAP scheme: reading, checking and minting (rest.md §2.2).

    WRAP access_token="<swt>"
    <swt> = name=value *("&" name=value) "&HMACSHA256=" <base64>      names and values URL-encoded

    signed     = the bytes before the last "&HMACSHA256=", as received
    HMACSHA256 = Base64(HMAC-SHA256(Base64-DECODED signing key, signed))

Not here: the endpoint that sells such tokens. Rules: the signature is the last pair; one Audience, ExpiresOn
and Issuer each; the action claim may be repeated; the Audience compares like a SAS `sr`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from urllib.parse import quote_plus

from .resource import Authority, decode, decode_form, split_resource
from .rights import (
    Grant,
    Unauthorized,
    audience_not_found,
    expired_token,
    expires_on_not_found,
    invalid_audience,
    invalid_signature,
    issuer_not_found,
    malformed_token,
    rights_of,
    signature_not_found,
)
from .sas import is_expiry, signature_of

ACTION = "net.windows.servicebus.action"

_MARK = b"&HMACSHA256="
_QUOTES = (b'"', b"\xe2\x80\x9c", b"\xe2\x80\x9d", b"\x93", b"\x94")
"""ASCII, typographic in UTF-8, typographic in Windows-1252 (rest.md §2.2.4)."""
_NOBODY = bytes(32)
"""Checked against for an unknown issuer, so that a refusal takes the same time; the result is ignored."""


@dataclass(frozen=True, slots=True)
class SwtToken:
    """A token's claims. `signed` is what the signature covers; `expires` is ms."""

    signed: bytes
    signature: bytes
    issuer: str
    audience: str
    expires: int
    actions: tuple[str, ...]


def unwrap(credential: bytes) -> bytes:
    """The token in `access_token="…"`, whatever the quotes. Raises Unauthorized 40105."""
    name, mark, value = credential.strip(b" \t").partition(b"=")
    if not mark or name.strip().lower() != b"access_token":
        raise malformed_token()
    value = _strip_quotes(value.strip(b" \t"))
    if b"=" not in value and b"%3d" in value.lower():
        # The value of wrap_access_token, not yet decoded.
        value = decode_form(value).encode("utf-8")
    return value


def parse(token: bytes) -> SwtToken:
    """Raises Unauthorized 40105 or 40107..40110."""
    if token.startswith(_MARK[1:]) or b"=" not in token:
        raise malformed_token()
    signed, mark, signature_text = token.rpartition(_MARK)
    claims = _claims(signed if mark else token)
    if not mark or not signature_text:
        raise signature_not_found()
    expires = _single(claims, "ExpiresOn", expires_on_not_found())
    if b"&" in signature_text or not is_expiry(expires.encode("utf-8")):
        raise malformed_token()
    return SwtToken(
        signed,
        decode(signature_text).replace(" ", "+").encode("utf-8"),
        _single(claims, "Issuer", issuer_not_found()),
        _single(claims, "Audience", audience_not_found()),
        int(expires) * 1000,
        tuple(action for text in claims.get(ACTION, ()) for action in text.split(",")),
    )


def verify_swt(
    token: bytes, authority: Authority, issuers: Mapping[str, bytes], now: int, request_host: str = ""
) -> Grant:
    """The grant of a bare token. `issuers` maps `issuer_name(…)` to the decoded signing key."""
    claims = parse(token)
    key = issuers.get(issuer_name(claims.issuer))
    fits = compare_digest(signature_of(_NOBODY if key is None else key, claims.signed), claims.signature)
    if key is None or not fits:
        raise invalid_signature()
    if now >= claims.expires:
        raise expired_token()
    host, path = split_resource(claims.audience)
    if not authority.denotes(host, request_host):
        raise invalid_audience()
    return Grant("wrap", path, rights_of(claims.actions), claims.expires, claims.issuer)


def issuer_name(uri: str) -> str:
    """An issuer in the form they compare: any case, trailing slash optional."""
    return uri.strip().lower().rstrip("/")


def acs_issuer(namespace: str) -> str:
    """The issuer a namespace's tokens name."""
    return f"https://{namespace}-sb.accesscontrol.windows.net/"


def signing_key(text: str) -> bytes:
    """The decoded signing key. Raises ValueError, in words for the one who configured it."""
    try:
        key = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("A SWT signing key must be Base64 text, for example of 32 random bytes.") from None
    if len(key) < 16:
        raise ValueError(f"A SWT signing key must have at least 16 bytes, not {len(key)}; 32 is usual.")
    return key


def swt_token(issuer: str, audience: str, actions: Iterable[str], expires_s: int, key: bytes) -> str:
    """Mints a bare token. `actions` are of Listen, Manage, Send; `key` is the decoded signing key."""
    claims = (
        (ACTION, ",".join(sorted(actions))),
        ("Audience", audience),
        ("ExpiresOn", str(expires_s)),
        ("Issuer", issuer),
    )
    signed = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in claims)
    return f"{signed}&HMACSHA256={quote_plus(signature_of(key, signed.encode()))}"


def _strip_quotes(value: bytes) -> bytes:
    # Both ends alike: documents print a closing quote at the start too. Twice: some quote the quoted.
    for _ in range(2):
        for quote in _QUOTES:
            value = value.removeprefix(quote).removesuffix(quote)
    return value


def _claims(text: bytes) -> dict[str, list[str]]:
    claims: dict[str, list[str]] = {}
    for pair in text.split(b"&"):
        name, mark, value = pair.partition(b"=")
        if not mark or not name:
            raise malformed_token()
        claims.setdefault(decode_form(name), []).append(decode_form(value))
    return claims


def _single(claims: dict[str, list[str]], name: str, missing: Unauthorized) -> str:
    values = claims.get(name, [])
    if len(values) > 1:
        raise malformed_token()
    if not values or not values[0]:
        raise missing
    return values[0]
