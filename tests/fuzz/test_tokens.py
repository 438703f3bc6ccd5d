"""Whatever arrives as a credential, the answer is a Grant or Unauthorized; no mutation of a token gains anything.

All three schemes: shared access signatures, simple web tokens, and JSON web tokens, whose header, claims and
key set are made up and then honestly signed, since nothing else gets past the signature.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access_kit import AUTHORITY, FAR, HOST, ISSUER, KEY, NOW, OTHER_KEY, contoso, gate
from hubbub.broker.access import (
    ALL_RIGHTS,
    NO_RIGHTS,
    Gate,
    Grant,
    Right,
    Unauthorized,
    cbs_credential,
    sas_token,
    scope_path,
    signing_key,
    split_resource,
    swt_token,
)
from hubbub.broker.access.explain import explain
from hubbub.front.jwt import AUDIENCES, SECONDS_MAX, SKEW_MS, JwtVerifier

EXAMPLES = settings.default.max_examples
GATE = gate()
ROOT = "RootManageSharedAccessKey"
SAS = sas_token(f"https://{HOST}/hub1", "sendonly", OTHER_KEY, FAR).encode()
SWT = swt_token(ISSUER, f"http://{HOST}/t1", ["Send"], FAR, signing_key(KEY))
WRAP = f'WRAP access_token="{SWT}"'.encode()

FRAMES = (
    b"SharedAccessSignature ",
    b"WRAP ",
    b"Bearer ",
    b"WRAP_",
    b"access_token=",
    b"://",
    b"[",
    b"@",
    b":",
)
FIELDS = (b"sr=", b"sig=", b"se=", b"skn=", b"&HMACSHA256=", b"ExpiresOn=", b"Issuer=", b"Audience=")
MARKS = (
    b"&",
    b"=",
    b"%",
    b"%3d",
    b"%2",
    b"%zz",
    b"+",
    b'"',
    b"\x93",
    b"\xe2\x80\x9c",
    b"\xff",
    b"\x00",
    b" ",
)
VALUES = (b"4102444800", b"contoso", b"https%3a%2f%2f", HOST.encode(), ROOT.encode(), ISSUER.encode())
PIECES = st.sampled_from((*FRAMES, *FIELDS, *MARKS, *VALUES, SAS[22:], SWT.encode()))
SOUP = st.lists(PIECES | st.binary(max_size=4), max_size=24).map(b"".join)


def outcome(subject: Gate, header: bytes, host: bytes = b"") -> Grant | Unauthorized:
    try:
        return subject.grant(header, host, NOW)
    except Unauthorized as refused:
        return refused


@given(SOUP, st.sampled_from([b"", b"localhost", b"\xff", b"[", b":::"]))
@settings(max_examples=EXAMPLES * 4)
def test_anything(header: bytes, host: bytes) -> None:
    assert isinstance(outcome(GATE, header, host), Grant | Unauthorized)


@given(
    st.sampled_from([b"SharedAccessSignature ", b"WRAP access_token=", b"Bearer ", b"WRAP_access_token="]),
    SOUP,
)
@settings(max_examples=EXAMPLES * 4)
def test_anything_behind_a_scheme(scheme: bytes, rest: bytes) -> None:
    assert isinstance(outcome(GATE, scheme + rest), Grant | Unauthorized)


@given(st.text(max_size=60))
@settings(max_examples=EXAMPLES * 2)
def test_any_text_as_cbs_token_or_plain_credential(text: str) -> None:
    for call in (
        lambda: GATE.cbs(text, b"", NOW),
        lambda: GATE.plain(text, text),
        lambda: GATE.plain(ROOT, text),
    ):
        try:
            assert isinstance(call(), Grant)
        except Unauthorized:
            pass
    assert all(check.text for check in explain(text, authority=AUTHORITY, ring=contoso(), now=NOW))
    assert cbs_credential(cbs_credential(text)) == cbs_credential(text)


@given(st.sampled_from([SAS, WRAP]), st.data())
@settings(max_examples=EXAMPLES * 5)
def test_a_mutated_token_grants_the_same_or_nothing(header: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(header) - 1))
    removed = data.draw(st.integers(0, 3))
    mutant = header[:position] + data.draw(st.binary(max_size=3)) + header[position + removed :]
    found = outcome(gate(), mutant)
    assert isinstance(found, Unauthorized) or found == GATE.grant(header, b"", NOW)


@given(st.text(max_size=40))
@settings(max_examples=EXAMPLES * 3)
def test_any_uri(uri: str) -> None:
    host, path = split_resource(uri)
    assert "/" not in host
    assert not path.startswith("/")
    assert not path.endswith("/")
    assert "//" not in path


SEGMENT = st.text(min_size=1, max_size=8).filter(lambda text: "/" not in text and not text.startswith("$"))


@given(st.lists(SEGMENT, max_size=4), st.lists(SEGMENT, max_size=4))
@settings(max_examples=EXAMPLES * 3)
def test_a_minted_token_covers_exactly_what_is_below_it(scope: list[str], path: list[str]) -> None:
    uri = f"sb://{HOST}/" + quote("/".join(scope))
    granted = GATE.grant(sas_token(uri, ROOT, KEY, FAR).encode(), b"", NOW)
    below = [segment.lower() for segment in path]
    wanted = [segment.lower() for segment in scope]
    assert granted.covers(scope_path("/".join(path))) == (below[: len(wanted)] == wanted)
    assert granted.covers(scope_path("/".join(scope + path)))


@given(st.integers() | st.text(max_size=6), st.sampled_from(["sr", "se", "skn", "sig"]))
@settings(max_examples=EXAMPLES * 2)
def test_any_value_of_a_field(value: int | str, field: str) -> None:
    """Signed for the value it has, where that can be."""
    expires = value if isinstance(value, int) and field == "se" else FAR
    text = sas_token(f"https://{HOST}/hub1", "sendonly", OTHER_KEY, expires)
    fields = dict(part.split("=", 1) for part in text.partition(" ")[2].split("&"))
    if field != "se" or isinstance(value, str):
        fields[field] = quote(str(value))
    header = ("SharedAccessSignature " + "&".join(f"{k}={v}" for k, v in fields.items())).encode()
    found = outcome(GATE, header)
    assert isinstance(found, Unauthorized) or found.expires > NOW
    assert all(check.text for check in explain(header.decode(), authority=AUTHORITY, ring=contoso(), now=NOW))


# JSON web tokens.

SIGNER = generate_private_key(65537, 2048)
PUBLIC: dict[str, Any] = pyjwt.algorithms.RSAAlgorithm.to_jwk(SIGNER.public_key(), as_dict=True)
KEY_SET = {"keys": [{**PUBLIC, "kid": "one", "use": "sig"}]}
VERIFIER = JwtVerifier(KEY_SET, principals={"sender": Right.SEND})
JWT_GATE = gate(jwt=VERIFIER)
HEADER = {"alg": "RS256", "kid": "one", "typ": "JWT"}
CLAIMS = {"aud": AUDIENCES[0], "exp": NOW // 1000 + 600, "oid": "sender"}
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
NAMES = st.sampled_from(["aud", "exp", "nbf", "iat", "iss", "oid", "appid", "azp", "sub", "roles", "jti"])
ROLES = st.sampled_from(
    ["Azure Service Bus Data Owner", "azure event hubs data sender", "Manage", "listen", "x"]
)
USEFUL = st.one_of(
    st.tuples(st.just("exp"), st.integers(NOW // 1000 - 400, NOW // 1000 + 400) | st.floats(1.6e9, 1.8e9)),
    st.tuples(st.just("nbf"), st.sampled_from([0, 1e300, NOW // 1000, NOW // 1000 + 400, True, "0"])),
    st.tuples(
        st.just("aud"), st.sampled_from([*AUDIENCES, "x"]) | st.lists(st.sampled_from([*AUDIENCES, "x", 1]))
    ),
    st.tuples(st.just("roles"), ROLES | st.lists(ROLES | SCALARS, max_size=3)),
    st.tuples(st.just("oid"), st.sampled_from(["sender", "SENDER", "other", ["sender"]])),
)
CHANGES = st.lists(USEFUL | st.tuples(NAMES, VALUES), max_size=4).map(dict)


def part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(header: bytes, claims: bytes) -> str:
    text = part(header) + b"." + part(claims)
    return (text + b"." + part(SIGNER.sign(text, PKCS1v15(), SHA256()))).decode()


def verified(token: str, verifier: JwtVerifier = VERIFIER) -> Grant | Unauthorized:
    try:
        return verifier.verify(token, NOW)
    except Unauthorized as refused:
        return refused


def test_the_token_that_is_bent_is_good_as_it_is() -> None:
    granted = verified(signed(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode()))
    assert granted == Grant("bearer", "", Right.SEND, NOW + 600_000 + SKEW_MS, "sender")


@given(CHANGES, st.lists(NAMES, max_size=1))
@settings(max_examples=EXAMPLES * 3)
def test_any_claims_honestly_signed(changes: dict[str, Any], without: list[str]) -> None:
    claims = {name: value for name, value in (CLAIMS | changes).items() if name not in without}
    found = verified(signed(json.dumps(HEADER).encode(), json.dumps(claims).encode()))
    if isinstance(found, Unauthorized):
        assert 40100 < found.code <= 40110
        return
    assert found.scope == ""
    assert NO_RIGHTS <= found.rights <= ALL_RIGHTS
    assert NOW < found.expires <= SECONDS_MAX * 1000 + SKEW_MS
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    assert any(audience in AUDIENCES for audience in audiences)
    assert claims["exp"] * 1000 + SKEW_MS > NOW >= claims.get("nbf", 0) * 1000 - SKEW_MS - 1


HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5u", "cty", "zip"]),
    VALUES | st.sampled_from(["RS256", "none", "HS256", "ES256", "one", "two", "JWE"]),
)


@given(
    HEADERS,
    st.just(json.dumps(CLAIMS).encode())
    | VALUES.map(lambda v: json.dumps(v).encode())
    | st.binary(max_size=20),
)
@settings(max_examples=EXAMPLES * 2)
def test_any_header_and_any_payload_honestly_signed(header: dict[str, Any], payload: bytes) -> None:
    found = verified(signed(json.dumps({**HEADER, **header}).encode(), payload))
    if isinstance(found, Grant):
        assert json.loads(payload) == CLAIMS
        assert header.get("alg", "RS256") == "RS256"


@given(
    st.binary(max_size=30) | st.sampled_from([b"{" * 9000, b"[" * 9000, b"\xef\xbb\xbf{}", b"null", b"NaN"]),
    st.booleans(),
)
def test_any_bytes_as_header_or_claims(data: bytes, as_header: bool) -> None:
    good = json.dumps(CLAIMS).encode()
    token = signed(data, good) if as_header else signed(json.dumps(HEADER).encode(), data)
    assert isinstance(verified(token), Unauthorized)
    assert isinstance(outcome(JWT_GATE, b"Bearer " + token.encode()), Unauthorized)


@given(
    SOUP | st.binary(max_size=60), st.sampled_from([b"Bearer ", b"bearer\t", b"BEARER  ", b"Bearer a.b.c,"])
)
@settings(max_examples=EXAMPLES * 2)
def test_anything_at_a_gate_with_bearer_tokens(rest: bytes, scheme: bytes) -> None:
    assert isinstance(outcome(JWT_GATE, scheme + rest), Unauthorized)


@given(st.data())
@settings(max_examples=EXAMPLES * 2)
def test_a_mutated_bearer_token_grants_the_same_or_nothing(data: st.DataObject) -> None:
    token = signed(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode()).encode()
    position = data.draw(st.integers(0, len(token) - 1))
    removed = data.draw(st.integers(0, 3))
    mutant = token[:position] + data.draw(st.binary(max_size=3)) + token[position + removed :]
    found = outcome(gate(jwt=VERIFIER), b"Bearer " + mutant)
    assert isinstance(found, Unauthorized) or found == verified(token.decode())


ENTRY = st.dictionaries(
    st.sampled_from(["kty", "n", "e", "kid", "use", "alg", "d", "x5c"]), VALUES, max_size=4
).map(lambda changes: {**PUBLIC, **changes})


@given(VALUES | st.dictionaries(st.just("keys"), st.lists(ENTRY | VALUES, max_size=3)))
@settings(max_examples=EXAMPLES * 2)
def test_any_key_set(jwks: Any) -> None:
    token = signed(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode())
    try:
        verifier = JwtVerifier(
            jwks if isinstance(jwks, dict) else {"keys": jwks}, principals={"sender": Right.SEND}
        )
    except ValueError as error:
        said = str(error)
    else:
        said = "key set" if isinstance(verified(token, verifier), Grant | Unauthorized) else ""
    assert "key set" in said
