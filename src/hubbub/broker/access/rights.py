"""What a caller may do: rights, the rule that gives them, the grant a credential buys, and the refusals.

Not here: how a credential is read (`sas`, `swt`) and where rules live (the namespace, behind `KeyRing`).
Rules: a grant covers its scope and everything below it, by whole path segments; paths are percent-decoded,
lower case and without slashes at either end, "" is the namespace. Every refusal is one HTTP 401 with a
sub-code of the service (rest.md §2.4); order of the checks: expiry, audience, right.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import BrokerError

NEVER = 2**63 - 1
"""The expiry of a grant that does not expire."""


class Right(enum.IntFlag):
    """A claim. `Manage` does not imply the others; a rule that has it must list them (rest.md §2)."""

    LISTEN = 1
    SEND = 2
    MANAGE = 4


ALL_RIGHTS = Right.LISTEN | Right.SEND | Right.MANAGE
NO_RIGHTS = Right(0)

_BY_NAME = {"listen": Right.LISTEN, "send": Right.SEND, "manage": Right.MANAGE}


def rights_of(names: Iterable[str]) -> Right:
    """The rights among `names`, in any case and with blanks around; other names give nothing."""
    rights = NO_RIGHTS
    for name in names:
        rights |= _BY_NAME.get(name.strip().lower(), NO_RIGHTS)
    return rights


class Action(enum.Enum):
    """What is attempted, for the words of a refusal (rest.md §2.4)."""

    SEND = "Authorization failed for specified action: Send."
    LISTEN = "Authorization failed for specified action: Listen."
    READ = "Manage,EntityRead claims required for this operation."
    WRITE = "Authorization failed for specified action: Manage,EntityWrite."
    DELETE = "Authorization failed for specified action: Manage,EntityDelete."


_USUAL = {int(Right.SEND): Action.SEND, int(Right.LISTEN): Action.LISTEN, int(Right.MANAGE): Action.READ}


class Unauthorized(BrokerError):
    """The caller may not do this: HTTP 401 with `text` as Detail, AMQP amqp:unauthorized-access.

    `code` is the service's sub-code, 40100..40110.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def missing_right(text: str) -> Unauthorized:
    return Unauthorized(40100, text)


def no_transport_security() -> Unauthorized:
    return Unauthorized(40101, "NoTransportSecurity: The request must be sent over TLS (https).")


def missing_token() -> Unauthorized:
    return Unauthorized(40102, "MissingToken: The authorization header was not found.")


def invalid_signature() -> Unauthorized:
    return Unauthorized(40103, "InvalidSignature: The token has an invalid signature.")


def invalid_audience() -> Unauthorized:
    return Unauthorized(
        40104, "InvalidAudience: The authorization header contains a token with a wrong audience."
    )


def malformed_token() -> Unauthorized:
    # The service says WRAP of every scheme.
    return Unauthorized(
        40105,
        "MalformedToken: The credentials contained in the authorization header are not in the WRAP format.",
    )


def expired_token() -> Unauthorized:
    return Unauthorized(40106, "ExpiredToken: The token is expired.")


def audience_not_found() -> Unauthorized:
    return Unauthorized(40107, "AudienceNotFound: The token has no Audience claim.")


def expires_on_not_found() -> Unauthorized:
    return Unauthorized(40108, "ExpiresOnNotFound: The token has no ExpiresOn claim.")


def issuer_not_found() -> Unauthorized:
    return Unauthorized(40109, "IssuerNotFound: The token has no Issuer claim.")


def signature_not_found() -> Unauthorized:
    return Unauthorized(40110, "SignatureNotFound: The token has no HMACSHA256 signature.")


@dataclass(frozen=True, slots=True)
class SharedKey:
    """An authorization rule. A key is its text as configured, not decoded; an empty key opens nothing."""

    name: str
    rights: Right
    primary: str
    secondary: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.primary, self.secondary) if key)


class KeyRing(Protocol):
    """Says which authorization rules live where."""

    def rules(self, path: str) -> Sequence[SharedKey]:
        """The rules on exactly this entity (lower case; "" is the namespace); empty if there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Grant:
    """What a verified credential allows: `rights` on `scope` and all below it, until `expires` (ms)."""

    scheme: Literal["sas", "wrap", "bearer", "open", "plain"]
    scope: str
    rights: Right
    expires: int
    key_name: str

    def covers(self, path: str) -> bool:
        """Whether `path` (decoded, lower case, no outer slashes) is the scope or below it."""
        scope = self.scope
        return not scope or path == scope or path.startswith(scope + "/")

    def require(self, path: str, right: Right, now: int, action: Action | str | None = None) -> None:
        """Raises Unauthorized unless the grant lives, covers `path` and has any of `right`.

        Pass the whole request path, so that a token for one publisher or one subscription can match.
        `action` chooses the words of a refusal; without it they follow from the right.
        """
        if now >= self.expires:
            raise expired_token()
        if not self.covers(path):
            raise invalid_audience()
        # Plain integers: the operator of IntFlag takes ten times as long, on every request.
        if not int.__and__(self.rights, right):
            raise missing_right(_refusal(right, action))


def _refusal(right: Right, action: Action | str | None) -> str:
    if action is None:
        action = _USUAL.get(int(right), Action.READ)
    return action.value if isinstance(action, Action) else action


OPEN = Grant("open", "", ALL_RIGHTS, NEVER, "")
"""What everyone has where access control is off."""
