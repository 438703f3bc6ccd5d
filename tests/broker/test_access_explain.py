"""`explain`: each mistake is named, and what to do about it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from hmac import digest
from urllib.parse import quote, quote_plus

import pytest

from broker.access_kit import AUTHORITY, FAR, HOST, ISSUER, KEY, NOW, OTHER_KEY, contoso, refused
from hubbub.broker.access import (
    Grant,
    Right,
    Unauthorized,
    sas_token,
    signing_key,
    swt_token,
    verify,
)
from hubbub.broker.access.explain import Check, explain

ROOT = "RootManageSharedAccessKey"
URI = f"https://{HOST}/Hub1"
SR = quote_plus(URI)


def checks(token: str, **options: object) -> list[Check]:
    settings: dict[str, object] = {"authority": AUTHORITY, "ring": contoso(), "now": NOW, **options}
    return explain(token, **settings)  # type: ignore[arg-type]


def failed(token: str, **options: object) -> dict[str, str]:
    return {check.check: check.text for check in checks(token, **options) if not check.ok}


def token(sig: bytes, sr: str = SR, skn: str = ROOT) -> str:
    return f"SharedAccessSignature sr={sr}&sig={quote(sig, safe='')}&se={FAR}&skn={skn}"


def mac(key: bytes, text: str) -> bytes:
    return digest(key, text.encode(), sha256)


def test_a_good_token_passes_every_check() -> None:
    found = checks(sas_token(URI, ROOT, KEY, FAR), path="hub1/messages", right=Right.SEND)
    assert [check.check for check in found] == [
        "scheme", "fields", "rule", "signature", "expiry", "audience", "path", "right",
    ]  # fmt: skip
    assert all(check.ok for check in found)


LINE = f"{SR}\n{FAR}"


@pytest.mark.parametrize(
    ("sig", "words"),
    [
        (b64encode(mac(bytes(range(32)), LINE)), "Base64-decoded before signing"),
        (b64encode(mac(KEY.encode(), f"{SR}\r\n{FAR}")), "CR LF"),
        (b64encode(mac(KEY.encode(), f"{SR.lower()}\n{FAR}")), "lower-cased"),
        (b64encode(mac(KEY.encode(), SR)), "Only the URI was signed"),
        (mac(KEY.encode(), LINE).hex().encode(), "hexadecimal"),
        (b64encode(mac(KEY.encode() + b"\n", LINE)), "line end"),
        (b64encode(mac(KEY.encode(), f"{SR}%2f\n{FAR}")), "slash at its end"),
        (b"nonsense", "Compare the key"),
    ],
)
def test_usual_mistakes_in_signing_are_recognised(sig: bytes, words: str) -> None:
    assert words in failed(token(sig))["signature"]


def test_the_key_of_another_rule() -> None:
    found = failed(sas_token(URI, "listenonly", OTHER_KEY, FAR))
    assert "the rule 'sendonly', but skn names 'listenonly'" in found["signature"]


@pytest.mark.parametrize(
    ("text", "check", "words"),
    [
        ("", "scheme", "There is no token"),
        ("  ", "scheme", "There is no token"),
        ("Basic x", "scheme", "no known scheme"),
        ('"SharedAccessSignature sr=x&sig=y"', "scheme", "Remove the quotes"),
        ("SharedAccessSignature sr=x&sig=y", "fields", "Missing: se, skn"),
        ("SharedAccessSignature sr=x&sig=y&se=soon&skn=z", "fields", "not a number"),
        (sas_token(URI, "nobody", KEY, FAR), "rule", "Rules there: sendonly, listenonly, keyless, Root"),
        (sas_token(URI, ROOT, KEY, 1403736877), "expiry", "expired at 2014-06-25T22:54:37Z"),
        (sas_token("sb://elsewhere/hub1", ROOT, KEY, FAR), "audience", "'elsewhere' is not this namespace"),
        (sas_token(f"{URI}/publishers/a", ROOT, KEY, FAR), "path", "does not cover 'hub1/messages'"),
        (sas_token(URI, "listenonly", KEY, FAR), "right", "Send is needed, but the token has Listen"),
    ],
)
def test_each_failure_is_named(text: str, check: str, words: str) -> None:
    found = failed(text, path="hub1/messages", right=Right.SEND)
    assert words in found[check]


def test_milliseconds_are_suspected() -> None:
    found = {check.check: check.text for check in checks(sas_token(URI, ROOT, KEY, FAR * 1000))}
    assert "milliseconds" in found["expiry"]


def test_wrap() -> None:
    keys = {ISSUER.rstrip("/"): signing_key(KEY)}
    good = f'WRAP access_token="{swt_token(ISSUER, URI, ["Send"], FAR, signing_key(KEY))}"'
    assert failed(good, issuers=keys, path="hub1", right=Right.SEND) == {}
    assert "No signing key is configured" in failed(good)["signature"]
    assert (
        "not made with this issuer's key" in failed(good.replace("Send", "Listen"), issuers=keys)["signature"]
    )
    assert "SignatureNotFound" in failed("WRAP access_token=a=b")["claims"]


def test_bearer() -> None:
    class Verifier:
        def verify(self, token: str, now: int) -> Grant:
            if token != "good":
                raise Unauthorized(40103, "InvalidSignature: no")
            return Grant("bearer", "", Right.LISTEN, FAR * 1000, "someone")

    assert "No key set" in failed("Bearer good")["signature"]
    assert failed("Bearer good", bearer=Verifier()) == {}
    assert failed("Bearer bad", bearer=Verifier()) == {"verdict": "InvalidSignature: no"}
    assert "Send is needed" in failed("Bearer good", bearer=Verifier(), right=Right.SEND)["right"]


@pytest.mark.parametrize("sr", [HOST, URI, "contoso", "elsewhere", "", "a b"])
@pytest.mark.parametrize("key", [KEY, OTHER_KEY, "wrong"])
@pytest.mark.parametrize("expires", [FAR, 1])
def test_explain_and_verify_agree(sr: str, key: str, expires: int) -> None:
    text = sas_token(sr, ROOT, key, expires)
    if failed(text):
        with pytest.raises(Unauthorized):
            verify(text, authority=AUTHORITY, ring=contoso(), now=NOW)
    else:
        verify(text, authority=AUTHORITY, ring=contoso(), now=NOW)


def test_a_bare_scheme() -> None:
    refused(40105, verify, "Bearer", authority=AUTHORITY, ring=contoso(), now=NOW)
