"""SASL frames and the PLAIN mechanism (specification part 5.3, RFC 4616). Who may come in is the owner's to
say.

ANONYMOUS and MSSBCBS grant nothing (tokens follow), so they always come through; EXTERNAL is offered, as
the service does, but no certificate of a client is ever looked at, so it fails.
"""

from __future__ import annotations

from .frames import SASL, frame
from .performatives import Composite, SaslMechanisms
from .types import DecodeError

MECHANISMS = ("MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL")
OPEN_TO_ALL = ("ANONYMOUS", "MSSBCBS")
OK, AUTH, SYS = 0, 1, 2  # codes of an outcome


def sasl_frame(performative: Composite) -> bytes:
    return frame(SASL, 0, performative.encode())


def mechanisms_frame(mechanisms: tuple[str, ...]) -> bytes:
    return sasl_frame(SaslMechanisms(list(mechanisms)))


def encode_plain(user: str, password: str) -> bytes:
    """The initial response of PLAIN, on one's own behalf."""
    return b"\x00" + user.encode() + b"\x00" + password.encode()


def decode_plain(response: bytes | None) -> tuple[str, str]:
    """User and password; a wish to act for someone else must name the same user. Raises DecodeError."""
    parts = (response or b"").split(b"\x00")
    try:
        on_behalf, user, password = (part.decode() for part in parts)
    except ValueError:
        raise DecodeError("a PLAIN response is not three texts with a zero between them") from None
    if on_behalf not in ("", user):
        raise DecodeError("PLAIN on behalf of someone else")
    return user, password
