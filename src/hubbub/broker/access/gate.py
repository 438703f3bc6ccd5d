"""The gate of a namespace: from what a door received as credential to a `Grant`, with a memory.

Not here: the reading of each scheme (`sas`, `swt`), the keys of bearer tokens (a door's, behind `Bearer`).
Rules: a token is verified once and remembered until it expires or `forget()` is called, which whoever
changes a rule, a key or an entity must do; refusals are not remembered; the memory is bounded.
Order of checks: presence, shape, signature, expiry, audience (rest.md §2.4); the right is the door's to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hmac import compare_digest
from typing import Protocol

from .resource import Authority, decode, host_name
from .rights import (
    NEVER,
    OPEN,
    Grant,
    KeyRing,
    SharedKey,
    invalid_signature,
    malformed_token,
    missing_token,
)
from .sas import SCHEME as SAS
from .sas import verify_sas
from .swt import issuer_name, signing_key, unwrap, verify_swt

WRAP = b"wrap"
BEARER = b"bearer"
CREDENTIAL_BYTES_MAX = 16 * 1024
REMEMBERED_MAX = 4096
"""Tokens per generation of the memory; there are two."""
BEARER_REMEMBERED_MS = 60_000
"""The keys of bearer tokens change behind our back, so each is checked again this often."""


class Bearer(Protocol):
    """Verifies JSON web tokens."""

    def verify(self, token: str, now: int) -> Grant:
        """Raises Unauthorized."""
        ...


def verify(
    credential: str | bytes,
    *,
    authority: Authority,
    ring: KeyRing,
    now: int,
    request_host: str = "",
    issuers: Mapping[str, bytes] | None = None,
    bearer: Bearer | None = None,
) -> Grant:
    """The grant of an `Authorization` value of any scheme. Raises Unauthorized 40102..40110.

    `now` is ms; `request_host` is a host name without port that denotes this namespace for this call;
    `issuers` as in `verify_swt`; without `bearer` no JWT is accepted.
    """
    raw = credential.encode("utf-8", "replace") if isinstance(credential, str) else credential
    scheme, rest = split_scheme(raw)
    if scheme == SAS:
        return verify_sas(rest, authority, ring, now, request_host)
    if scheme == WRAP:
        return verify_swt(unwrap(rest), authority, issuers or {}, now, request_host)
    if bearer is None:
        raise invalid_signature()
    return bearer.verify(rest.decode("utf-8", "replace"), now)


def split_scheme(credential: bytes) -> tuple[bytes, bytes]:
    """(scheme in lower case, the rest). Raises Unauthorized 40102 if empty, 40105 for an unknown scheme."""
    credential = credential.strip(b" \t")
    if not credential:
        raise missing_token()
    if len(credential) > CREDENTIAL_BYTES_MAX:
        raise malformed_token()
    scheme, _, rest = credential.partition(b" ")
    scheme = scheme.lower()
    if scheme == BEARER and rest.lower().startswith(SAS + b" "):
        # The official administration client, when its connection string holds a signature.
        scheme, _, rest = rest.partition(b" ")
        scheme = scheme.lower()
    if scheme.startswith(b"wrap_access_token="):
        # Documents print it so (rest.md §2.2.4).
        return WRAP, credential[5:]
    if scheme not in (SAS, WRAP, BEARER) or not rest.strip():
        raise malformed_token()
    return scheme, rest.strip(b" \t")


def cbs_credential(token: str) -> str:
    """A CBS token as an `Authorization` value: by its look, since clients give wrong types (amqp.md §2.2)."""
    token = token.strip()
    if not token or " " in token:
        # With its scheme, or of a scheme nobody knows.
        return token
    if "=" in token or "%3d" in token.lower():
        return f"WRAP access_token={token}"
    return f"Bearer {token}"


class Gate:
    """Grants for one namespace. `swt_issuers` maps an issuer URI to its signing key (Base64 text).

    With `open` everyone has all rights, whatever the credential. Raises ValueError for an unusable key.
    """

    __slots__ = ("_bearer", "_here", "_issuers", "_older", "_older_here", "_ring", "authority", "open")

    def __init__(
        self,
        authority: Authority,
        ring: KeyRing,
        swt_issuers: Mapping[str, str] | None = None,
        jwt: Bearer | None = None,
        open: bool = False,
    ) -> None:
        self.authority = authority
        self.open = open
        self._ring = ring
        self._issuers = {issuer_name(name): signing_key(key) for name, key in (swt_issuers or {}).items()}
        self._bearer = jwt
        self.forget()

    def forget(self) -> None:
        """Every token will be verified anew: call it when a rule, a key or an entity changes."""
        # What denotes the namespace by its own names is found by the token alone; only tokens for the host
        # of the request need that host in the key. Two generations make a cheap least-recently-used memory.
        self._here: dict[bytes | tuple[bytes, bytes], tuple[int, Grant]] = {}
        self._older: dict[bytes | tuple[bytes, bytes], tuple[int, Grant]] = {}

    def grant(self, authorization: bytes, request_host: bytes, now: int) -> Grant:
        """What the header allows. `request_host` is the Host header as received, b"" if none.

        Raises Unauthorized. The caller still asks `Grant.require` for path and right.
        """
        entry = self._here.get(authorization) or self._here.get((authorization, request_host))
        if entry is not None and now < entry[0]:
            return entry[1]
        return OPEN if self.open else self._recall(authorization, request_host, now)

    def cbs(self, token: str, request_host: bytes, now: int) -> Grant:
        """What the token of a put-token request allows. Raises Unauthorized."""
        return self.grant(cbs_credential(token).encode("utf-8", "replace"), request_host, now)

    def plain(self, name: str, password: str, paths: Iterable[str] = ("",)) -> Grant:
        """What SASL PLAIN allows: `name` is a rule on one of `paths`, `password` its key (amqp.md §1.4).

        Raises Unauthorized 40103. The grant does not expire: drop it when a key changes.
        """
        if self.open:
            return OPEN
        names = (name, decode(name.encode("utf-8", "replace")))
        offered = password.encode("utf-8", "replace")
        found = [
            Grant("plain", path, rule.rights, NEVER, rule.name)
            for path in paths
            for rule in self._ring.rules(path)
            if rule.name in names and _opens(rule, offered)
        ]
        if not found:
            raise invalid_signature()
        return found[0]

    def _recall(self, authorization: bytes, request_host: bytes, now: int) -> Grant:
        host = host_name(request_host.decode("latin-1"))
        ours = not host or host in self.authority.hosts
        key = authorization if ours else (authorization, request_host)
        entry = self._here.get(key) or self._older.get(key)
        if entry is None or now >= entry[0]:
            grant = verify(
                authorization,
                authority=self.authority,
                ring=self._ring,
                now=now,
                request_host=host,
                issuers=self._issuers,
                bearer=self._bearer,
            )
            entry = (_until(grant, now), grant)
        self._remember(key, entry)
        return entry[1]

    def _remember(self, key: bytes | tuple[bytes, bytes], entry: tuple[int, Grant]) -> None:
        if len(self._here) >= REMEMBERED_MAX:
            self._older, self._here = self._here, {}
        self._here[key] = entry


def _opens(rule: SharedKey, offered: bytes) -> bool:
    fits = [compare_digest(key.encode("utf-8", "replace"), offered) for key in rule.keys]
    return any(fits)


def _until(grant: Grant, now: int) -> int:
    return min(grant.expires, now + BEARER_REMEMBERED_MS) if grant.scheme == "bearer" else grant.expires
