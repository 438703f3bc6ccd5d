"""Bearer tokens (rest.md §2.3), cases 47 and 48, and the known attacks on JSON web tokens."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.broker.access import ALL_RIGHTS, Authority, Gate, Grant, Right, Unauthorized
from hubbub.front import jwt as subject
from hubbub.front.jwt import JwtVerifier

NOW = 1_700_000_000_000
SECONDS = NOW // 1000
SENDER = "11111111-2222-3333-4444-555555555555"
KEYS = {name: generate_private_key(65537, 2048) for name in ("one", "two")}


def jwk(kid: str, key: RSAPrivateKey | None = None) -> dict[str, Any]:
    public = pyjwt.algorithms.RSAAlgorithm.to_jwk((key or KEYS[kid]).public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig"}


def key_set(*kids: str) -> dict[str, Any]:
    return {"keys": [jwk(kid) for kid in kids]}


def token(kid: str | None = "one", key: str = "one", algorithm: str = "RS256", **claims: Any) -> str:
    body = {"aud": "https://servicebus.azure.net", "exp": SECONDS + 600, "oid": SENDER, **claims}
    headers = {} if kid is None else {"kid": kid}
    present = {name: value for name, value in body.items() if value is not None}
    return pyjwt.encode(present, KEYS[key], algorithm=algorithm, headers=headers)


def verifier(**options: Any) -> JwtVerifier:
    return JwtVerifier(options.pop("jwks", key_set("one")), principals={SENDER: Right.SEND}, **options)


def refused(code: int, text: str, now: int = NOW, **options: Any) -> str:
    with pytest.raises(Unauthorized) as caught:
        verifier(**options).verify(text, now)
    assert caught.value.code == code, caught.value.text
    return caught.value.text


class TestClaims:
    @pytest.mark.parametrize("service", ["servicebus", "eventhubs"])
    @pytest.mark.parametrize("slash", ["", "/"])
    def test_case_47_c31_audiences(self, service: str, slash: str) -> None:
        granted = verifier().verify(token(aud=f"https://{service}.azure.net{slash}"), NOW)
        assert granted == Grant("bearer", "", Right.SEND, NOW + 900_000, SENDER)

    def test_a_list_of_audiences(self) -> None:
        assert verifier().verify(token(aud=["x", "https://eventhubs.azure.net/"]), NOW).rights == Right.SEND

    @pytest.mark.parametrize(
        "aud", ["https://storage.azure.net", "", [], ["x"], "https://servicebus.azure.net//"]
    )
    def test_case_48_wrong_audience(self, aud: object) -> None:
        assert refused(40104, token(aud=aud)).startswith("InvalidAudience: ")

    def test_case_48_expiry_with_skew(self) -> None:
        text = token(exp=SECONDS)
        assert verifier().verify(text, NOW + 299_999).expires == NOW + 300_000
        assert refused(40106, text, NOW + 300_000).startswith("ExpiredToken: ")

    def test_not_yet_valid(self) -> None:
        text = token(nbf=SECONDS + 301)
        assert "not valid yet" in refused(40106, text)
        verifier().verify(text, NOW + 1000)

    def test_missing_claims(self) -> None:
        refused(40108, token(exp=None))
        refused(40107, token(aud=None))

    @pytest.mark.parametrize("exp", ["x", [], {}, 10**400, -(10**400), float("inf"), float("nan")])
    def test_moments_must_be_numbers(self, exp: object) -> None:
        claims = {"aud": "https://servicebus.azure.net", "exp": exp}
        refused(40105, raw_token({"alg": "RS256", "kid": "one"}, claims))

    def test_issuers(self) -> None:
        issuer = "https://sts.windows.net/tenant/"
        verifier(issuers=[issuer]).verify(token(iss=issuer), NOW)
        refused(40103, token(iss="https://sts.windows.net/other/"), issuers=[issuer])
        refused(40103, token(), issuers=[issuer])

    def test_order_signature_expiry_audience(self) -> None:
        refused(40103, token(key="two", exp=0, aud="x"))
        refused(40106, token(exp=0, aud="x"))
        refused(40104, token(aud="x"))


class TestRights:
    @pytest.mark.parametrize("claim", ["oid", "appid", "azp", "sub"])
    def test_principals(self, claim: str) -> None:
        granted = verifier().verify(token(**{"oid": None, claim: SENDER.upper()}), NOW)
        assert (granted.rights, granted.key_name) == (Right.SEND, SENDER.upper())

    def test_a_stranger_has_no_rights(self) -> None:
        granted = verifier().verify(token(oid="someone else"), NOW)
        with pytest.raises(Unauthorized, match="Manage,EntityRead"):
            granted.require("q", Right.MANAGE, NOW)

    @pytest.mark.parametrize(
        ("roles", "rights"),
        [
            (["Azure Event Hubs Data Owner"], ALL_RIGHTS),
            (["Azure Service Bus Data Receiver"], Right.LISTEN),
            (["Azure Event Hubs Data Sender", "Listen"], Right.SEND | Right.LISTEN),
            ("azure service bus data owner", ALL_RIGHTS),
            (["Manage", "Send"], Right.MANAGE | Right.SEND),
            (["Azure Storage Data Owner", "Owner", 7, None], Right(0)),
            ({"Send": 1}, Right(0)),
        ],
    )
    def test_roles(self, roles: object, rights: Right) -> None:
        assert verifier().verify(token(oid="x", roles=roles), NOW).rights == rights

    def test_principal_and_roles_add_up(self) -> None:
        assert verifier().verify(token(roles=["Listen"]), NOW).rights == Right.SEND | Right.LISTEN


def raw_token(header: object, claims: object, secret: RSAPrivateKey | bytes | None = None) -> str:
    """A token as nobody's library would make it."""
    if isinstance(claims, dict) and secret is None:
        return pyjwt.api_jws.encode(json.dumps(claims).encode(), KEYS["one"], "RS256", headers={"kid": "one"})
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signed = b".".join(parts)
    signature = hmac.digest(secret, signed, "sha256") if isinstance(secret, bytes) else b""
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


CLAIMS = {"aud": "https://servicebus.azure.net", "exp": SECONDS + 600, "oid": SENDER}


class TestAttacks:
    def test_changed_claims(self) -> None:
        header, _, signature = token().split(".")
        claims = (
            base64.urlsafe_b64encode(json.dumps({**CLAIMS, "roles": ["Manage"]}).encode())
            .rstrip(b"=")
            .decode()
        )
        assert refused(40103, f"{header}.{claims}.{signature}").startswith("InvalidSignature: ")

    def test_another_key(self) -> None:
        refused(40103, token(key="two"))
        refused(40103, token(kid=None, key="two"))

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 7, "HS256", "RS512", "PS256", "ES256"])
    def test_only_rs256(self, alg: object) -> None:
        with pytest.raises(Unauthorized):
            verifier().verify(raw_token({"alg": alg, "kid": "one"}, CLAIMS, b""), NOW)

    @pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
    def test_other_algorithms_of_the_same_key(self, algorithm: str) -> None:
        refused(40103, token(algorithm=algorithm))

    def test_the_public_key_as_an_hmac_secret(self) -> None:
        public = KEYS["one"].public_key()
        for secret in (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk("one")).encode(),
        ):
            refused(40103, raw_token({"alg": "HS256", "kid": "one"}, CLAIMS, secret))

    def test_keys_named_by_the_token_are_not_used(self) -> None:
        headers = {"kid": "two", "jwk": jwk("two"), "jku": "http://127.0.0.1:9/keys"}
        refused(40103, pyjwt.encode(CLAIMS, KEYS["two"], algorithm="RS256", headers=headers))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "ü.ü.ü",
            "\ud800.x.y",
            token().rpartition(".")[0],
        ],
    )
    def test_malformed(self, text: str) -> None:
        refused(40105, text.encode("utf-8", "replace").decode())

    def test_deeply_nested_json(self) -> None:
        deep = base64.urlsafe_b64encode(b"[" * 20_000).rstrip(b"=").decode()
        refused(40105, f"{deep}.{deep}.AA")

    def test_no_algorithm(self) -> None:
        refused(40103, "e30.e30.")

    @given(st.text(alphabet="abcdefgeyJ0123456789-_=.{}\u00fc", max_size=80))
    @settings(max_examples=200, deadline=None)
    def test_anything(self, text: str) -> None:
        with pytest.raises(Unauthorized):
            VERIFIER.verify(text, NOW)

    @given(st.data())
    @settings(max_examples=200, deadline=None)
    def test_a_mutated_token_grants_the_same_or_nothing(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(TOKEN) - 1))
        text = data.draw(st.text(alphabet="abcXYZ019-_=.", max_size=2))
        try:
            assert VERIFIER.verify(TOKEN[:position] + text + TOKEN[position + 1 :], NOW) == EXPECTED
        except Unauthorized:
            pass


VERIFIER = verifier()
TOKEN = token()
EXPECTED = VERIFIER.verify(TOKEN, NOW)


class TestKeySets:
    @pytest.mark.parametrize(
        "jwks", [{}, {"keys": []}, {"keys": [{"kty": "EC"}]}, {"keys": "x"}, {"keys": [7]}]
    )
    def test_a_set_without_a_usable_key(self, jwks: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="JWKS"):
            JwtVerifier(jwks)

    def test_unusable_keys_do_not_disturb(self) -> None:
        others = [
            {"kty": "RSA", "n": "!", "e": "AQAB"},
            {"kty": "oct", "k": "x"},
            {**jwk("two"), "use": "enc"},
        ]
        jwks = {"keys": [*others, {"kty": "RSA"}, jwk("one")]}
        assert verifier(jwks=jwks).verify(token(), NOW)
        refused(40103, token("two", "two"), jwks=jwks)

    def test_only_the_public_half_of_a_pair_is_kept(self) -> None:
        pair = pyjwt.algorithms.RSAAlgorithm.to_jwk(KEYS["one"], as_dict=True)
        assert verifier(jwks={"keys": [{**pair, "kid": "one"}]}).verify(token(), NOW)

    def test_without_kid_every_key_is_tried(self) -> None:
        assert verifier(jwks=key_set("one", "two")).verify(token(kid=None, key="two"), NOW)

    def test_a_file_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "jwks.json"
        path.write_text(json.dumps(key_set("one")))
        checked = verifier(jwks=str(path))
        checked.verify(token(), NOW)
        path.write_text(json.dumps(key_set("two")))
        os.utime(path, ns=(1, 1))
        checked.verify(token("two", "two"), NOW)
        with pytest.raises(Unauthorized):
            checked.verify(token(), NOW)

    def test_a_broken_or_missing_file_leaves_the_old_keys(self, tmp_path: Path) -> None:
        path = tmp_path / "jwks.json"
        path.write_text(json.dumps(key_set("one")))
        checked = verifier(jwks=path)
        for content in ("{", "[1]", '{"keys": []}'):
            path.write_text(content)
            checked.verify(token(), NOW)
        path.unlink()
        checked.verify(token(), NOW)
        with pytest.raises(OSError, match="jwks"):
            asyncio.run(checked.refresh())
        path.write_text(json.dumps(key_set("two")))
        checked.verify(token("two", "two"), NOW)

    def test_a_file_must_be_right_at_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nowhere"):
            verifier(jwks=tmp_path / "nowhere")
        (tmp_path / "x").write_text("not json")
        with pytest.raises(ValueError, match="not JSON"):
            verifier(jwks=tmp_path / "x")


class Issuer:
    """A server of key sets on loopback that counts its requests. It answers while it is `open`."""

    def __init__(self) -> None:
        self.body = json.dumps(key_set("one")).encode()
        self.status = 200
        self.requests = 0
        self.open = threading.Event()
        self.open.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                issuer.open.wait(5)
                self.send_response(issuer.status)
                self.send_header("Content-Length", str(len(issuer.body)))
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.close()


def settle(checked: JwtVerifier) -> None:
    """Waits for the fetch under way, if any."""
    thread = checked._source.thread  # type: ignore[attr-defined]
    if thread is not None:
        thread.join(5)


class TestUrls:
    def test_refresh_fetches_ahead(self, issuer: Issuer) -> None:
        checked = verifier(jwks=issuer.url)
        asyncio.run(checked.refresh())
        for later in (0, 1, 3_599_999):
            checked.verify(token(exp=SECONDS + 9000), NOW + later)
        settle(checked)
        assert issuer.requests == 1

    def test_without_refresh_the_first_token_starts_a_fetch_and_does_not_wait(self, issuer: Issuer) -> None:
        checked = verifier(jwks=issuer.url)
        issuer.open.clear()
        with pytest.raises(Unauthorized):
            checked.verify(token(), NOW)
        issuer.open.set()
        settle(checked)
        assert checked.verify(token(), NOW).rights == Right.SEND
        assert issuer.requests == 1

    def test_an_unknown_key_is_asked_for_at_most_once_a_minute(self, issuer: Issuer) -> None:
        checked = verifier(jwks=issuer.url)
        asyncio.run(checked.refresh())
        checked.verify(token(), NOW)
        issuer.body = json.dumps(key_set("two")).encode()
        for later, requests in ((0, 1), (59_999, 1), (60_000, 2), (60_001, 2)):
            try:
                checked.verify(token("two", "two"), NOW + later)
            except Unauthorized:
                pass
            settle(checked)
            assert issuer.requests == requests, later
        checked.verify(token("two", "two"), NOW + 60_001)
        with pytest.raises(Unauthorized):
            checked.verify(token(), NOW + 60_001)

    def test_keys_are_fetched_anew_after_an_hour_while_the_old_ones_serve(self, issuer: Issuer) -> None:
        checked = verifier(jwks=issuer.url)
        asyncio.run(checked.refresh())
        lasting = token(exp=SECONDS + 9000)
        checked.verify(lasting, NOW)
        issuer.status = 500
        checked.verify(lasting, NOW + 3_600_000)
        settle(checked)
        assert issuer.requests == 2
        assert checked.verify(lasting, NOW + 3_600_001), "a failed fetch does not lose the keys"

    @pytest.mark.parametrize("body", [b"not json", b'{"keys": []}', b" " * (subject.KEY_SET_BYTES_MAX + 1)])
    def test_bad_answers(self, issuer: Issuer, body: bytes) -> None:
        issuer.body = body
        checked = verifier(jwks=issuer.url)
        with pytest.raises(ValueError, match="key set"):
            asyncio.run(checked.refresh())
        with pytest.raises(Unauthorized):
            checked.verify(token(), NOW)
        settle(checked)

    def test_nobody_there(self, issuer: Issuer) -> None:
        url = issuer.url.replace("/keys", "")
        issuer.status = 404
        with pytest.raises(OSError, match="404"):
            asyncio.run(verifier(jwks=url).refresh())


def test_behind_the_gate() -> None:
    class NoRules:
        def rules(self, path: str) -> tuple[()]:
            return ()

    gate = Gate(Authority("contoso", frozenset({"contoso"})), NoRules(), jwt=verifier())
    granted = gate.grant(b"bearer  " + token().encode(), b"", NOW)
    granted.require("any/hub/messages", Right.SEND, NOW)
    with pytest.raises(Unauthorized, match="EntityRead"):
        granted.require("any/hub", Right.MANAGE, NOW)
    assert gate.cbs(token(), b"", NOW).scheme == "bearer"
