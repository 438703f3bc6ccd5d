"""Bearer tokens: RS256 JSON web tokens checked against a key set (rest.md §2.3).

    Bearer <base64url header> "." <base64url claims> "." <base64url signature>

Not here: who issues them, and what a grant is. Rules: RS256 and nothing else, whatever the token's header
says; `exp` and `nbf` with 300 s of skew; the caller's clock, not the machine's. Rights come from the
configured principals and from the `roles` claim. Verifying never waits for the network: a key set at a URL is
fetched in a thread, ahead of need by `refresh()`, later when it is an hour old or lacks a key that a token
names, at most once a minute. PyJWT is imported when the first key is read, to keep the start quick.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hubbub.broker.access import ALL_RIGHTS, NO_RIGHTS, Grant, Right, Unauthorized, rights_of
from hubbub.broker.access.rights import (
    audience_not_found,
    expired_token,
    expires_on_not_found,
    invalid_audience,
    invalid_signature,
    malformed_token,
)

AUDIENCES = (
    "https://servicebus.azure.net",
    "https://servicebus.azure.net/",
    "https://eventhubs.azure.net",
    "https://eventhubs.azure.net/",
)
SKEW_MS = 300_000
SECONDS_MAX = 1 << 53
REFETCH_MS_MIN = 60_000
KEYS_AGE_MS_MAX = 3_600_000
FETCH_TIMEOUT_S = 5.0
KEY_SET_BYTES_MAX = 1 << 20
KEYS_MAX = 64
PRINCIPAL_CLAIMS = ("oid", "appid", "azp", "sub")

_ROLES = {
    f"azure {service} data {role}": right
    for service in ("event hubs", "service bus")
    for role, right in (("owner", ALL_RIGHTS), ("sender", Right.SEND), ("receiver", Right.LISTEN))
}

Keys = tuple[tuple[str, Any], ...]
"""(kid, RSA public key) pairs."""


class _Source(Protocol):
    def keys(self, now: int) -> Keys: ...

    def lacks(self, now: int) -> None:
        """A token named a key that is not there."""

    def fetch(self) -> None:
        """Blocks."""


class JwtVerifier:
    """Verifies bearer tokens.

    `jwks` is a key set (RFC 7517) as a mapping, a file path, or an http(s) URL. `principals` maps an object,
    application or subject id to its rights; role names in a token's `roles` claim add theirs. `issuers`, if
    any, are the only ones accepted. Raises ValueError for a mapping or file without a usable key.
    """

    __slots__ = ("_audiences", "_issuers", "_principals", "_source")

    def __init__(
        self,
        jwks: Mapping[str, Any] | str | Path,
        *,
        audiences: Iterable[str] = AUDIENCES,
        issuers: Iterable[str] = (),
        principals: Mapping[str, Right] | None = None,
    ) -> None:
        self._source = _source(jwks)
        self._audiences = frozenset(audiences)
        self._issuers = frozenset(issuers)
        self._principals = {name.lower(): right for name, right in (principals or {}).items()}

    async def refresh(self) -> None:
        """Reads the key set anew. Raises OSError or ValueError if that fails; older keys stay in use."""
        await asyncio.to_thread(self._source.fetch)

    def verify(self, token: str, now: int) -> Grant:
        """The namespace-wide grant of a token without its scheme name, `now` in ms. Raises Unauthorized."""
        claims = self._signed_claims(token, now)
        expires = self._check_claims(claims, now)
        rights = _role_rights(claims.get("roles"))
        principals = [claims[name] for name in PRINCIPAL_CLAIMS if isinstance(claims.get(name), str)]
        for principal in principals:
            rights |= self._principals.get(principal.lower(), NO_RIGHTS)
        return Grant("bearer", "", rights, expires, principals[0] if principals else "")

    def _signed_claims(self, token: str, now: int) -> dict[str, Any]:
        import jwt

        unreadable = (jwt.exceptions.PyJWTError, ValueError, TypeError, RecursionError)
        try:
            header = jwt.get_unverified_header(token)
        except unreadable:
            raise malformed_token() from None
        for key in self._matching(header, now):
            try:
                claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], options=_ONLY_SIGNATURE)
            except jwt.exceptions.InvalidSignatureError:
                continue
            except unreadable:
                raise malformed_token() from None
            return claims
        raise invalid_signature()

    def _matching(self, header: Mapping[str, Any], now: int) -> list[Any]:
        """The keys a token may be signed with: the one it names, or all if it names none."""
        # Checked before any key is touched: a public key must never serve as an HMAC secret.
        if header.get("alg") != "RS256":
            raise invalid_signature()
        kid = header.get("kid")
        matching = [key for name, key in self._source.keys(now) if kid is None or name == kid]
        if not matching:
            self._source.lacks(now)
        return matching

    def _check_claims(self, claims: dict[str, Any], now: int) -> int:
        """When the token ends (ms, skew included)."""
        if self._issuers and claims.get("iss") not in self._issuers:
            raise invalid_signature()
        if "exp" not in claims:
            raise expires_on_not_found()
        expires = _moment(claims["exp"]) + SKEW_MS
        if now >= expires:
            raise expired_token()
        if now < _moment(claims.get("nbf", 0)) - SKEW_MS:
            raise Unauthorized(40106, "ExpiredToken: The token is not valid yet.")
        audiences = claims.get("aud")
        if audiences is None:
            raise audience_not_found()
        if not self._audiences.intersection(_texts(audiences)):
            raise invalid_audience()
        return expires


# What remains is checked here, by the caller's clock and with the service's words.
_ONLY_SIGNATURE: Any = {
    "verify_signature": True,
    **{f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")},
}


def _moment(seconds: object) -> int:
    """Milliseconds of a NumericDate (RFC 7519 §2), which may have a fraction."""
    if not isinstance(seconds, int | float) or not abs(seconds) <= SECONDS_MAX:
        raise malformed_token()
    return int(seconds * 1000)


def _texts(claim: object) -> list[str]:
    """A claim that may be one text or a list of them."""
    return [text for text in (claim if isinstance(claim, list) else [claim]) if isinstance(text, str)]


def _role_rights(claim: object) -> Right:
    rights = NO_RIGHTS
    for role in _texts(claim):
        rights |= _ROLES.get(role.lower(), rights_of((role,)))
    return rights


def _source(jwks: Mapping[str, Any] | str | Path) -> _Source:
    if isinstance(jwks, Mapping):
        return _Fixed(_parse(jwks))
    if str(jwks).lower().startswith(("https://", "http://")):
        return _Url(str(jwks))
    return _File(Path(jwks))


class _Fixed:
    """A key set given as such."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def keys(self, now: int) -> Keys:
        return self._keys

    def lacks(self, now: int) -> None:
        pass

    def fetch(self) -> None:
        pass


class _File:
    """A key set in a file, read again when the file changes. A broken change leaves the old keys in use."""

    __slots__ = ("_keys", "_mark", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, int, int] | None = None
        self._keys: Keys = ()
        self.fetch()

    def keys(self, now: int) -> Keys:
        try:
            if self._mark != _file_mark(self._path):
                self.fetch()
        except (OSError, ValueError):
            # Half written, or gone for the moment of a replacement: the next token looks again.
            pass
        return self._keys

    def lacks(self, now: int) -> None:
        pass

    def fetch(self) -> None:
        mark = _file_mark(self._path)
        self._keys = _parse_text(self._path.read_bytes())
        self._mark = mark


class _Url:
    """A key set behind a URL, fetched in a thread."""

    __slots__ = ("_keys", "_tried", "_url", "thread")

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: Keys = ()
        self._tried: int | None = None
        self.thread: threading.Thread | None = None

    def keys(self, now: int) -> Keys:
        if self._tried is None and self._keys:
            # `refresh()` has no clock: its keys count as fetched when they are first used.
            self._tried = now
        elif self._tried is None or now - self._tried >= KEYS_AGE_MS_MAX:
            self.lacks(now)
        return self._keys

    def lacks(self, now: int) -> None:
        if self._tried is not None and now - self._tried < REFETCH_MS_MIN:
            return
        self._tried = now
        self.thread = threading.Thread(target=self._try_fetch, name="jwks", daemon=True)
        self.thread.start()

    def _try_fetch(self) -> None:
        try:
            self.fetch()
        except (OSError, ValueError):
            # The issuer is out of reach; tokens of known keys go on, and the next minute tries again.
            pass

    def fetch(self) -> None:
        import urllib.request

        request = urllib.request.Request(self._url, headers={"Accept": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310
            text = response.read(KEY_SET_BYTES_MAX + 1)
        if len(text) > KEY_SET_BYTES_MAX:
            raise ValueError(f"The key set at {self._url} is over {KEY_SET_BYTES_MAX} bytes.")
        self._keys = _parse_text(text)


def _file_mark(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parse_text(text: bytes) -> Keys:
    try:
        jwks = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("The key set (JWKS) is not JSON.") from None
    return _parse(jwks)


def _parse(jwks: Any) -> Keys:
    """The RSA signing keys of a JWKS. Raises ValueError if there are none."""
    import jwt

    entries = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError('The key set (JWKS) must be a JSON object with a list "keys".')
    keys = []
    for entry in entries[:KEYS_MAX]:
        if not _can_sign(entry):
            continue
        try:
            # Only the public half, should somebody have put a whole key pair into the set.
            public = {name: entry[name] for name in ("kty", "n", "e")}
            keys.append((str(entry.get("kid", "")), jwt.PyJWK(public, algorithm="RS256").key))
        except (jwt.exceptions.PyJWTError, ValueError, TypeError, KeyError):
            # One unusable key must not take the others with it.
            continue
    if not keys:
        raise ValueError("The key set (JWKS) has no RSA key that can sign with RS256.")
    return tuple(keys)


def _can_sign(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and entry.get("kty") == "RSA"
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", "RS256") == "RS256"
    )
