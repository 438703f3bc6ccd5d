"""Whatever arrives, the answer is a Grant or Unauthorized; and no mutation of a token gains anything."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.access_kit import AUTHORITY, FAR, HOST, ISSUER, KEY, NOW, OTHER_KEY, contoso, gate
from hubbub.broker.access import (
    Gate,
    Grant,
    Unauthorized,
    cbs_credential,
    sas_token,
    scope_path,
    signing_key,
    split_resource,
    swt_token,
)
from hubbub.broker.access.explain import explain

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
@settings(max_examples=5 * settings().max_examples)
def test_anything(header: bytes, host: bytes) -> None:
    assert isinstance(outcome(GATE, header, host), Grant | Unauthorized)


@given(
    st.sampled_from([b"SharedAccessSignature ", b"WRAP access_token=", b"Bearer ", b"WRAP_access_token="]),
    SOUP,
)
@settings(max_examples=5 * settings().max_examples)
def test_anything_behind_a_scheme(scheme: bytes, rest: bytes) -> None:
    assert isinstance(outcome(GATE, scheme + rest), Grant | Unauthorized)


@given(st.text(max_size=60))
@settings(max_examples=5 * settings().max_examples)
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
@settings(max_examples=5 * settings().max_examples)
def test_a_mutated_token_grants_the_same_or_nothing(header: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(header) - 1))
    removed = data.draw(st.integers(0, 3))
    mutant = header[:position] + data.draw(st.binary(max_size=3)) + header[position + removed :]
    found = outcome(gate(), mutant)
    assert isinstance(found, Unauthorized) or found == GATE.grant(header, b"", NOW)


@given(st.text(max_size=40))
@settings(max_examples=5 * settings().max_examples)
def test_any_uri(uri: str) -> None:
    host, path = split_resource(uri)
    assert "/" not in host
    assert not path.startswith("/")
    assert not path.endswith("/")
    assert "//" not in path


SEGMENT = st.text(min_size=1, max_size=8).filter(lambda text: "/" not in text and not text.startswith("$"))


@given(st.lists(SEGMENT, max_size=4), st.lists(SEGMENT, max_size=4))
@settings(max_examples=5 * settings().max_examples)
def test_a_minted_token_covers_exactly_what_is_below_it(scope: list[str], path: list[str]) -> None:
    uri = f"sb://{HOST}/" + quote("/".join(scope))
    granted = GATE.grant(sas_token(uri, ROOT, KEY, FAR).encode(), b"", NOW)
    below = [segment.lower() for segment in path]
    wanted = [segment.lower() for segment in scope]
    assert granted.covers(scope_path("/".join(path))) == (below[: len(wanted)] == wanted)
    assert granted.covers(scope_path("/".join(scope + path)))
