"""Simple web tokens (rest.md §2.2), cases 49, 50 and 55 as far as they are access control."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from hmac import digest
from urllib.parse import quote, quote_plus

import pytest

from broker.access_kit import AUTHORITY, FAR, HOST, ISSUER, KEY, NOW, OTHER_KEY, contoso, gate, refused
from hubbub.broker.access import ALL_RIGHTS, Gate, Grant, Right, signing_key, swt_token

SIGNED = (  # rest.md §2.2.3
    "net.windows.servicebus.action=Listen%2cManage%2cSend&http%3a%2f%2fschemas.microsoft.com%2faccesscontrolservice"
    "%2f2010%2f07%2fclaims%2fidentityprovider=https%3a%2f%2fcontoso-sb.accesscontrol.windows.net%2f"
    "&Audience=http%3a%2f%2fcontoso.servicebus.windows.net%2f&ExpiresOn=4102444800"
    "&Issuer=https%3a%2f%2fcontoso-sb.accesscontrol.windows.net%2f"
)
VECTOR = SIGNED + "&HMACSHA256=" + quote("aOOzpPX9oZMW7K/vlb6GOnym9j+ZfYrzGnuJZJxSjXo=", safe="")
ALL = ("Listen", "Manage", "Send")


def grant(token: str | bytes, now: int = NOW) -> Grant:
    raw = token if isinstance(token, bytes) else f'WRAP access_token="{token}"'.encode()
    return gate().grant(raw, b"", now)


def token(
    audience: str = f"http://{HOST}/",
    actions: Iterable[str] = ALL,
    expires_s: int = FAR,
    issuer: str = ISSUER,
) -> str:
    return swt_token(issuer, audience, actions, expires_s, signing_key(KEY))


def sign(claims: str) -> str:
    signature = b64encode(digest(signing_key(KEY), claims.encode(), sha256))
    return f"{claims}&HMACSHA256={quote_plus(signature)}"


def test_the_vector() -> None:
    assert grant(VECTOR) == Grant("wrap", "", ALL_RIGHTS, FAR * 1000, ISSUER)


@pytest.mark.parametrize(
    "header",
    [
        b'WRAP access_token="%s"',
        b"WRAP access_token=%s",
        b'wrap Access_Token = "%s"',
        b"WRAP access_token=\xe2\x80\x9d%s\xe2\x80\x9d",
        b"WRAP access_token=\xe2\x80\x9c%s\xe2\x80\x9d",
        b"WRAP access_token=\x93%s\x94",
        b"WRAP access_token=\x94%s\x94",
        b'WRAP access_token=%s"',
        b'WRAP_access_token="%s"',
        b'  WRAP   access_token="%s"  ',
    ],
)
def test_case_50_c4_quoting(header: bytes) -> None:
    assert grant(header % VECTOR.encode()).rights == ALL_RIGHTS


def test_a_token_still_encoded_once_more() -> None:
    lower_hex = "".join(f"%{ord(mark):02x}" if mark in "%=&+/" else mark for mark in VECTOR)
    for outer in (quote(VECTOR, safe=""), lower_hex):
        assert grant(outer).rights == ALL_RIGHTS


class TestRefusals:
    def test_case_55_changed_claim(self) -> None:
        refused(40103, grant, VECTOR.replace("Listen%2c", ""))
        refused(40103, grant, VECTOR.replace("4102444800", "4102444801"))
        refused(40103, grant, VECTOR.replace("%2f", "%2F"))

    def test_case_55_expired(self) -> None:
        text = token(expires_s=NOW // 1000)
        assert grant(text, NOW - 1).expires == NOW
        refused(40106, grant, text, NOW)

    def test_case_55_other_audience(self) -> None:
        refused(40104, grant, token("http://fabrikam.servicebus.windows.net/"))

    def test_case_55_no_signature(self) -> None:
        assert refused(40110, grant, SIGNED).startswith("SignatureNotFound: ")
        assert refused(40110, grant, SIGNED + "&HMACSHA256=").startswith("SignatureNotFound: ")

    @pytest.mark.parametrize(
        ("name", "code", "text"),
        [
            ("Audience", 40107, "AudienceNotFound: "),
            ("ExpiresOn", 40108, "ExpiresOnNotFound: "),
            ("Issuer", 40109, "IssuerNotFound: "),
        ],
    )
    def test_missing_claims(self, name: str, code: int, text: str) -> None:
        kept = [pair for pair in SIGNED.split("&") if not pair.startswith(name + "=")]
        assert refused(code, grant, sign("&".join(kept))).startswith(text)
        assert refused(code, grant, sign("&".join([*kept, name + "="]))).startswith(text)

    @pytest.mark.parametrize(
        "header",
        [
            b"WRAP",
            b"WRAP access_token",
            b"WRAP access_token=",
            b'WRAP access_token=""',
            b"WRAP token=a=b&HMACSHA256=x",
            b"WRAP access_token=abc",
            b"WRAP access_token=a=b&c&HMACSHA256=x",
            b"WRAP access_token=HMACSHA256=x",
            b"WRAP access_token=&HMACSHA256=x",
            b'"WRAP access_token=a=b"',
        ],
    )
    def test_malformed(self, header: bytes) -> None:
        refused(40105, grant, header)

    @pytest.mark.parametrize("expires", ["x", "1.5", "-1", str(2**63), "9" * 5000, "%D9%A3"])
    def test_expiry_is_a_64_bit_number(self, expires: str) -> None:
        refused(40105, grant, sign(SIGNED.replace("4102444800", expires)))

    def test_the_signature_is_last_and_claims_are_single(self) -> None:
        refused(40105, grant, VECTOR + "&Audience=x")
        refused(40105, grant, sign(SIGNED + "&Audience=http%3a%2f%2fcontoso%2f"))

    def test_other_issuer_or_key(self) -> None:
        refused(40103, grant, token(issuer="https://fabrikam-sb.accesscontrol.windows.net/"))
        refused(40103, grant, swt_token(ISSUER, HOST, ALL, FAR, signing_key(OTHER_KEY)))
        refused(40103, grant, swt_token("x", HOST, ALL, FAR, bytes(32)))
        refused(40103, grant, swt_token(ISSUER, HOST, ALL, FAR, KEY.encode()))

    def test_c9_without_a_configured_issuer(self) -> None:
        refused(40103, Gate(AUTHORITY, contoso()).grant, f"WRAP access_token={VECTOR}".encode(), b"", NOW)


class TestClaims:
    @pytest.mark.parametrize(
        ("actions", "rights"),
        [
            ("net.windows.servicebus.action=Send", Right.SEND),
            ("net.windows.servicebus.action=Listen%2C+Send", Right.SEND | Right.LISTEN),
            (
                "net.windows.servicebus.action=Listen&net.windows.servicebus.action=Send",
                Right.SEND | Right.LISTEN,
            ),
            ("net.windows.servicebus.action=", Right(0)),
            ("x=Send", Right(0)),
        ],
    )
    def test_actions(self, actions: str, rights: Right) -> None:
        assert grant(sign(SIGNED.replace(SIGNED.split("&")[0], actions))).rights == rights

    def test_audience_is_a_scope(self) -> None:
        granted = grant(token(f"http://{HOST}/T1"))
        granted.require("t1/messages", Right.SEND, NOW)
        refused(40104, granted.require, "t2/messages", Right.SEND, NOW)

    @pytest.mark.parametrize("issuer", [ISSUER.upper(), ISSUER.rstrip("/")])
    def test_issuer_in_any_case_with_or_without_slash(self, issuer: str) -> None:
        assert grant(token(issuer=issuer)).key_name == issuer


@pytest.mark.parametrize("text", ["", "not base64!", "AAEC", "ü"])
def test_signing_keys_are_checked_when_configured(text: str) -> None:
    with pytest.raises(ValueError, match="SWT signing key"):
        Gate(AUTHORITY, contoso(), {ISSUER: text})
