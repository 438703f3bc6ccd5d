"""Why a token works or does not, in sentences for the person who holds it.

Not here: any decision; a door asks the gate. Rules: one entry per check, in the order of rest.md §2.4, up to
the last one that makes sense; a failed check says what is wrong and what to do. This tells more than a
stranger may know, so it is for the command line of whoever owns the keys, never for an answer on the wire.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest, digest
from typing import NamedTuple

from . import sas, swt
from .gate import WRAP, Bearer, cbs_credential, split_scheme
from .resource import Authority, prefixes, split_resource
from .rights import Grant, KeyRing, Right, SharedKey, Unauthorized, rights_of

MILLISECONDS_SUSPECT = 10**12
"""As seconds this is in the year 33658; as milliseconds it is 2001."""


class Check(NamedTuple):
    """One finding: its short name, whether it passed, and a sentence or two."""

    check: str
    ok: bool
    text: str


def explain(
    token: str,
    *,
    authority: Authority,
    ring: KeyRing,
    now: int,
    path: str = "",
    right: Right | None = None,
    request_host: str = "",
    issuers: Mapping[str, bytes] | None = None,
    bearer: Bearer | None = None,
) -> list[Check]:
    """What each check finds. `path` (decoded, lower case) and `right` are what the token is wanted for."""
    try:
        scheme, rest = split_scheme(cbs_credential(token).encode("utf-8", "replace"))
    except Unauthorized as refused:
        return [Check("scheme", False, _SHAPE_ADVICE.get(refused.code, refused.text) + _quoted(token))]
    if scheme == sas.SCHEME:
        checks, found = _explain_sas(rest, ring, now)
    elif scheme == WRAP:
        checks, found = _explain_swt(rest, issuers or {}, now)
    else:
        return _explain_bearer(rest, bearer, now, right)
    if found is not None:
        host, grant = found
        checks.append(_audience(host, authority, request_host))
        checks += _use(grant, path, right)
    return checks


_SHAPE_ADVICE = {
    40102: "There is no token.",
    40105: "It is of no known scheme: it must begin with 'SharedAccessSignature ', 'WRAP ' or 'Bearer '.",
}

_Found = tuple[list[Check], tuple[str, Grant] | None]
"""The checks so far and, if the token could be read, its host and what it would grant."""


def _quoted(token: str) -> str:
    return " Remove the quotes around it." if token.strip()[:1] in ("'", '"', "“", "”") else ""


def _explain_sas(fields: bytes, ring: KeyRing, now: int) -> _Found:
    checks = [Check("scheme", True, "A shared access signature (SAS).")]
    try:
        token = sas.parse(fields)
    except Unauthorized:
        text = "It must have sr, sig, se and skn, each once, as name=value joined by &; se is whole seconds."
        return [*checks, Check("fields", False, f"{text} {_missing(fields)}".rstrip())], None
    uri = sas.resource_text(token.raw)
    checks.append(Check("fields", True, f"All four are there; sr names {uri}, that is {_place(token.path)}."))
    rules = sas.candidates(token, ring)
    checks.append(_rule(token, rules, ring))
    signer = sas.find_signer(token, rules)
    if rules:
        checks.append(_signature(token, rules, signer, ring))
    checks.append(_expiry(token.expires, now))
    rule = signer or (rules[0] if rules else None)
    if rule is None:
        return checks, None
    return checks, (token.host, Grant("sas", token.path, rule.rights, token.expires, rule.name))


def _missing(fields: bytes) -> str:
    names = {pair.partition(b"=")[0].strip().lower() for pair in fields.split(b"&")}
    missing = [name for name in ("sr", "sig", "se", "skn") if name.encode() not in names]
    return f"Missing: {', '.join(missing)}." if missing else "One is empty, twice there, or not a number."


def _place(path: str) -> str:
    return f"'{path}'" if path else "the whole namespace"


def _rule(token: sas.SasToken, rules: Sequence[SharedKey], ring: KeyRing) -> Check:
    if rules:
        rights = ", ".join(_names(rules[0].rights))
        return Check("rule", True, f"The rule '{rules[0].name}' exists and gives {rights}.")
    known = [rule.name for path in prefixes(token.path) for rule in ring.rules(path)]
    there = f"Rules there: {', '.join(known)}." if known else "There are no rules there."
    return Check(
        "rule",
        False,
        f"There is no rule '{token.names[0]}' on {_place(token.path)} or above it. {there}"
        " A rule of an entity cannot sign for the whole namespace or for another entity.",
    )


def _names(rights: Right) -> list[str]:
    return [(right.name or "").capitalize() for right in Right if right & rights]


def _signature(
    token: sas.SasToken, rules: Sequence[SharedKey], signer: SharedKey | None, ring: KeyRing
) -> Check:
    if signer is not None:
        return Check("signature", True, f"It was made with a key of '{signer.name}'.")
    for advice, attempt in _mistakes(token, rules, ring):
        if compare_digest(attempt, token.signature):
            return Check("signature", False, advice)
    return Check(
        "signature",
        False,
        "It was not made with a key of this rule, or sr or se were changed afterwards. Compare the key with"
        " the rule's, and sign the encoded sr exactly as it is sent, a line feed, and se.",
    )


def _mistakes(token: sas.SasToken, rules: Sequence[SharedKey], ring: KeyRing) -> Iterator[tuple[str, bytes]]:
    """(advice, the signature that this mistake would have made)"""
    signed = token.raw + b"\n" + token.se
    uri = sas.resource_text(token.raw)
    for key in (key for rule in rules for key in rule.keys):
        yield (
            "The key was Base64-decoded before signing. Use the text of the key as it is.",
            sas.signature_of(_decoded(key), signed),
        )
        yield (
            "The URI and the expiry were joined by CR LF. Join them by a single line feed.",
            sas.signature(key, token.raw + b"\r\n" + token.se),
        )
        yield (
            "The URI was lower-cased for signing, but sent as it was. Sign what is sent.",
            sas.signature(key, token.raw.lower() + b"\n" + token.se),
        )
        yield (
            "Only the URI was signed. Sign the URI, a line feed, and the expiry.",
            sas.signature(key, token.raw),
        )
        yield (
            "The signature is in hexadecimal. Send it in Base64.",
            digest(key.encode("utf-8", "replace"), signed, sha256).hex().encode(),
        )
        yield (
            "The key had a line end at its end when it signed. Strip it.",
            sas.signature(key + "\n", signed),
        )
        yield (
            f"The URI was signed with a slash at its end. Sign exactly what is sent: {uri}",
            sas.signature(key, token.raw + b"%2f\n" + token.se),
        )
    for rule in (rule for path in prefixes(token.path) for rule in ring.rules(path)):
        for key in rule.keys:
            advice = f"It was made with a key of the rule '{rule.name}', but skn names '{token.names[0]}'."
            yield advice, sas.signature(key, signed)


def _decoded(key: str) -> bytes:
    try:
        return b64decode(key)
    except ValueError:
        return b""


def _expiry(expires: int, now: int) -> Check:
    if expires // 1000 >= MILLISECONDS_SUSPECT:
        return Check(
            "expiry",
            True,
            "The expiry is thousands of years away. Was it given in milliseconds? It is seconds.",
        )
    moment = datetime.fromtimestamp(expires // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if now >= expires:
        ago = f"{(now - expires) // 1000} seconds ago"
        return Check("expiry", False, f"It expired at {moment}, {ago}. Make a new token; check both clocks.")
    return Check("expiry", True, f"It is good until {moment}, {(expires - now) // 1000} seconds from now.")


def _audience(host: str, authority: Authority, request_host: str) -> Check:
    if authority.denotes(host, request_host):
        return Check("audience", True, f"The host '{host}' is the namespace '{authority.namespace}'.")
    return Check(
        "audience",
        False,
        f"The host '{host}' is not this namespace. Sign for one of {', '.join(sorted(authority.hosts))},"
        " or tell the server that this host name is its own.",
    )


def _use(grant: Grant, path: str, right: Right | None) -> list[Check]:
    checks = []
    if path:
        covered = grant.covers(path)
        advice = "" if covered else " Sign for that path, or for one above it."
        text = (
            f"A token for {_place(grant.scope)} {'covers' if covered else 'does not cover'} '{path}'.{advice}"
        )
        checks.append(Check("path", covered, text))
    if right is not None:
        checks.append(_right(grant, right))
    return checks


def _right(grant: Grant, right: Right) -> Check:
    has, wants = ", ".join(_names(grant.rights)) or "nothing", " or ".join(_names(right))
    if grant.rights & right:
        return Check("right", True, f"{wants} is needed, and the token has {has}.")
    return Check(
        "right", False, f"{wants} is needed, but the token has {has}. Use another rule or principal."
    )


def _explain_swt(credential: bytes, issuers: Mapping[str, bytes], now: int) -> _Found:
    checks = [Check("scheme", True, "A simple web token (WRAP).")]
    try:
        token = swt.parse(swt.unwrap(credential))
    except Unauthorized as refused:
        advice = 'It must be WRAP access_token="…&HMACSHA256=…", the signature last.'
        return [*checks, Check("claims", False, f"{refused.text} {advice}")], None
    rights = rights_of(token.actions)
    checks.append(Check("claims", True, f"All are there; it is for {token.audience}."))
    checks.append(_swt_signature(token, issuers))
    checks.append(_expiry(token.expires, now))
    host, path = split_resource(token.audience)
    return checks, (host, Grant("wrap", path, rights, token.expires, token.issuer))


def _swt_signature(token: swt.SwtToken, issuers: Mapping[str, bytes]) -> Check:
    key = issuers.get(swt.issuer_name(token.issuer))
    if key is None:
        known = ", ".join(sorted(issuers)) or "none"
        text = f"No signing key is configured for the issuer {token.issuer}. Configured issuers: {known}."
        return Check("signature", False, text)
    if compare_digest(sas.signature_of(key, token.signed), token.signature):
        return Check("signature", True, f"It was made with the key of {token.issuer}.")
    return Check(
        "signature",
        False,
        "It was not made with this issuer's key, or a claim was changed afterwards. The key is Base64-decoded"
        " for a simple web token, unlike for SAS.",
    )


def _explain_bearer(token: bytes, bearer: Bearer | None, now: int, right: Right | None) -> list[Check]:
    checks = [Check("scheme", True, "A bearer token (JWT).")]
    if bearer is None:
        text = "No key set is configured, so no bearer token is accepted. Configure a JWKS file or URL."
        return [*checks, Check("signature", False, text)]
    try:
        grant = bearer.verify(token.decode("utf-8", "replace"), now)
    except Unauthorized as refused:
        return [*checks, Check("verdict", False, refused.text)]
    checks += [Check("signature", True, f"It is of '{grant.key_name}'."), _expiry(grant.expires, now)]
    return checks if right is None else [*checks, _right(grant, right)]
