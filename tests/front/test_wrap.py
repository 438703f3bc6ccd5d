"""The WRAP token endpoint (rest.md §2.2.1)."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.broker.access import Authority, Gate, Grant, Right, acs_issuer, signing_key
from hubbub.front.rest.wrap import Response, wrap_response

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
HOST = "contoso.servicebus.windows.net"
AUTHORITY = Authority("contoso", frozenset({"contoso", HOST, "localhost"}))
NOW = 1_700_000_000_123
ISSUERS = {
    "owner": ("pa+ss/wörd=", Right.LISTEN | Right.MANAGE | Right.SEND),
    "sender": ("secret", Right.SEND),
    "unset": ("", Right.SEND),
}


class NoRules:
    def rules(self, path: str) -> tuple[()]:
        return ()


def ask(body: bytes, **options: object) -> Response:
    settings: dict[str, object] = {
        "issuers": ISSUERS, "authority": AUTHORITY, "signing_key": signing_key(KEY), "now": NOW, **options,
    }  # fmt: skip
    return wrap_response(body, **settings)  # type: ignore[arg-type]


def form(name: str = "owner", password: str = "pa+ss/wörd=", scope: str = f"http://{HOST}/") -> bytes:
    return urlencode({"wrap_name": name, "wrap_password": password, "wrap_scope": scope}).encode()


def use(token: str, host: bytes = b"", now: int = NOW) -> Grant:
    gate = Gate(AUTHORITY, NoRules(), {acs_issuer("contoso"): KEY})
    return gate.grant(f'WRAP access_token="{token}"'.encode(), host, now)


def test_a_token_that_the_gate_accepts() -> None:
    status, headers, body = ask(form())
    assert status == 200
    assert dict(headers) == {
        "Content-Type": "application/x-www-form-urlencoded; charset=us-ascii",
        "Cache-Control": "no-cache, no-store",
        "Pragma": "no-cache",
        "Expires": "-1",
        "X-Content-Type-Options": "nosniff",
    }
    fields = parse_qs(body.decode("ascii"), strict_parsing=True)
    assert set(fields) == {"wrap_access_token", "wrap_access_token_expires_in"}
    assert fields["wrap_access_token_expires_in"] == ["10799"]
    token = fields["wrap_access_token"][0]
    assert token.startswith(
        "net.windows.servicebus.action=Listen%2CManage%2CSend&Audience=http%3A%2F%2Fcontoso."
    )
    granted = use(token)
    assert granted.rights == Right.LISTEN | Right.MANAGE | Right.SEND
    assert granted.scope == ""
    # What is promised is never more than what is left.
    assert 10_799_000 <= granted.expires - NOW <= 10_800_000


def test_rights_scope_and_lifetime() -> None:
    _, _, body = ask(form("sender", "secret", f"http://{HOST}/T1"), lifetime_s=60)
    fields = parse_qs(body.decode())
    assert fields["wrap_access_token_expires_in"] == ["59"]
    granted = use(fields["wrap_access_token"][0])
    assert (granted.scope, granted.rights) == ("t1", Right.SEND)


def test_the_host_of_the_request_is_this_namespace() -> None:
    body = form(scope="http://hubbub/q")
    assert ask(body)[0] == 400
    status, _, answer = ask(body, request_host=b"hubbub:8080")
    assert status == 200
    assert use(parse_qs(answer.decode())["wrap_access_token"][0], b"hubbub:8080").scope == "q"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("owner", "wrong"),
        ("nobody", "secret"),
        ("nobody", "nobody"),
        ("sender", "pa+ss/wörd="),
        ("Owner", "secret"),
    ],
)
def test_wrong_name_and_wrong_password_are_told_alike(name: str, password: str) -> None:
    assert ask(form(name, password)) == ask(form("stranger", "x"))
    assert ask(form(name, password))[0] == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"wrap_name=owner",
        b"wrap_name",
        form("", "x"),
        form("unset", ""),
        form(scope=""),
        form() + b"&wrap_name=sender",
        form() + b"&",
        form() + b"&x=" + b"x" * 20_000,
        b"\xff\xfe",
    ],
)
def test_malformed_forms(body: bytes) -> None:
    status, headers, text = ask(body)
    assert status == 400
    assert dict(headers)["Content-Type"].startswith("text/plain")
    assert text.startswith(b"Error:Code:400:SubCode:T0:Detail:The ")


def test_other_fields_do_not_matter() -> None:
    assert ask(form() + b"&wrap_other=1")[0] == 200


def test_an_unset_password_opens_nothing() -> None:
    assert ask(form("unset", " "))[0] == 401


@pytest.mark.parametrize("scope", ["http://fabrikam.servicebus.windows.net/", "x", "/", "http://"])
def test_scopes_elsewhere(scope: str) -> None:
    assert ask(form(scope=scope))[0] == 400
    assert ask(form("owner", "wrong", scope))[0] == 401, "a stranger learns nothing about scopes"


@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda text: form(scope="contoso/" + text)))
def test_anything(body: bytes) -> None:
    status, _, answer = ask(body)
    assert status in (200, 400, 401)
    if status == 200:
        use(parse_qs(answer.decode("ascii"), keep_blank_values=True)["wrap_access_token"][0])
