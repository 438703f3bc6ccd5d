"""Shared access signatures, scopes and the refusals of rest.md §2.4."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from hmac import digest
from urllib.parse import quote, quote_plus

import pytest

from broker.access_kit import AUTHORITY, FAR, HOST, KEY, NOW, OTHER_KEY, Rules, contoso, gate, refused, sas
from hubbub.broker.access import (
    ALL_RIGHTS,
    OPEN,
    Action,
    Authority,
    Grant,
    Right,
    SharedKey,
    rights_of,
    sas_token,
    scope_path,
    split_resource,
    verify,
)
from hubbub.broker.access.resource import ENTITY_PATH_CHARS_MAX, prefixes

VECTORS = [  # rest.md §2.1.5
    (
        "https%3a%2f%2fcontoso.servicebus.windows.net%2fhub1",
        "/B7qAhKnWoLL6X3ksHUXLsRhFZsg9yo32vdh9cdNXIA=",
        "hub1",
    ),
    (
        "https%3A%2F%2Fcontoso.servicebus.windows.net%2Fhub1",
        "HMscI4AzgylvTFQoadODH4dpqOM4o2RI/bvneDfyn/U=",
        "hub1",
    ),
    ("contoso.servicebus.windows.net", "pgGeZ212z7DB41mCpo8lqGLkANGvf9UGcDAJVWSocJU=", ""),
    ("contoso", "/D0m5PU+Fs1DuBXai9pCpVvsnSyBIyHLNHAGooYCvC4=", ""),
    (
        "https%3A%2F%2Fcontoso.servicebus.windows.net%2Fhub1%2Fpublishers%2Fdev-01",
        "s51mGwhqrrxOF7TBryLH7o0hw84i2Ru2j+G8+I8oN/0=",
        "hub1/publishers/dev-01",
    ),
]


def grant(header: bytes | str, host: bytes = b"", now: int = NOW) -> Grant:
    raw = header.encode() if isinstance(header, str) else header
    return gate().grant(raw, host, now)


def signed(sr: str, key: str = KEY, se: object = FAR, joint: str = "\n") -> str:
    return b64encode(digest(key.encode(), f"{sr}{joint}{se}".encode(), sha256)).decode()


class TestVectors:
    @pytest.mark.parametrize(("sr", "sig", "scope"), VECTORS)
    def test_documented_tokens_verify(self, sr: str, sig: str, scope: str) -> None:
        granted = grant(sas(sr, sig))
        assert granted == Grant("sas", scope, ALL_RIGHTS, FAR * 1000, "RootManageSharedAccessKey")

    def test_case_18_19_a_publishers_token_is_for_that_publisher(self) -> None:
        granted = grant(sas(*VECTORS[4][:2]))
        granted.require("hub1/publishers/dev-01/messages", Right.SEND, NOW)
        refused(40104, granted.require, "hub1/publishers/dev-02/messages", Right.SEND, NOW)
        refused(40104, granted.require, "hub1/messages", Right.SEND, NOW)

    def test_case_42_fields_in_any_order_and_case(self) -> None:
        sr, sig, _ = VECTORS[0]
        text = f"sharedaccesssignature SIG={quote(sig)}&se={FAR}&Skn=RootManageSharedAccessKey&sr={sr}"
        assert grant(text).scope == "hub1"

    def test_case_44_signature_without_escapes(self) -> None:
        sr, sig, _ = VECTORS[3]
        assert "+" in sig
        assert "/" in sig
        for text in (sig, sig.replace("+", " ")):
            header = f"SharedAccessSignature sr={sr}&sig={text}&se={FAR}&skn=RootManageSharedAccessKey"
            assert grant(header).scope == ""

    def test_mint_and_verify_agree(self) -> None:
        for uri, scope in ((f"https://{HOST}/Hub1/Ünï côde", "hub1/ünï côde"), (f"sb://{HOST}/q/", "q")):
            granted = grant(sas_token(uri, "RootManageSharedAccessKey", OTHER_KEY, FAR))
            assert granted.scope == scope

    def test_case_41_a_proxy_rewrote_the_escapes(self) -> None:
        sr, sig, _ = VECTORS[0]
        for rewritten in (
            sr.replace("%3a%2f%2f", "%3A%2F%2F").replace("%2f", "%2F"),
            "https://" + HOST + "/hub1",
        ):
            assert grant(sas(rewritten, sig)).scope == "hub1"

    def test_rule_name_encoded_twice(self) -> None:
        ring = Rules({"": (SharedKey("na me+x", ALL_RIGHTS, KEY),)})
        once = quote("na me+x", safe="")
        for skn in (once, quote(once, safe="")):
            header = sas("contoso", signed("contoso"), skn=skn)
            assert gate(ring=ring).grant(header, b"", NOW).key_name == "na me+x"


class TestRefusals:
    """Every row of rest.md §2.4 that a SAS token or any header can meet, in the order of the checks."""

    @pytest.mark.parametrize("header", [b"", b"  ", b"\t"])
    def test_case_35_missing(self, header: bytes) -> None:
        text = refused(40102, grant, header)
        assert text == "MissingToken: The authorization header was not found."

    @pytest.mark.parametrize(
        "header",
        [
            "Basic x",
            '"SharedAccessSignature sr=contoso&sig=x&se=1&skn=x"',
            "SharedAccessSignature",
            "SharedAccessSignature ",
            "SharedAccessSignature sr",
            "SharedAccessSignature sr=contoso&sig=x&se=1",
            "SharedAccessSignature sr=contoso&sig=x&skn=1",
            "SharedAccessSignature sr=contoso&se=1&skn=1",
            "SharedAccessSignature sig=x&se=1&skn=1",
            "SharedAccessSignature sr=&sig=x&se=1&skn=x",
            "SharedAccessSignature sr=contoso&sig=x&se=1&skn=x&",
            "SharedAccessSignature sr=contoso&sr=contoso&sig=x&se=1&skn=x",
            "SharedAccessSignature sr=contoso&SR=contoso&sig=x&se=1&skn=x",
            *(
                f"SharedAccessSignature sr=contoso&sig=x&se={se}&skn=x"
                for se in ("x", "1.5", "-1", "0x10", "1e9", "٣", " 1", str(2**63), "9" * 5000)
            ),
            "Bearer ",
            "Nonsense",
            "SharedAccessSignature sr=" + "a" * 40_000,
        ],
    )
    def test_case_36_malformed(self, header: str) -> None:
        assert refused(40105, grant, header) == (
            "MalformedToken: The credentials contained in the authorization header are not in the WRAP"
            " format."
        )

    def test_a_credential_is_bounded(self) -> None:
        fits = sas_token(f"{HOST}/{'x' * 15_000}", "RootManageSharedAccessKey", KEY, FAR)
        assert grant(fits).rights == ALL_RIGHTS
        refused(40105, grant, sas_token(f"{HOST}/{'x' * 17_000}", "RootManageSharedAccessKey", KEY, FAR))

    def test_case_37_signature(self) -> None:
        sr, sig, _ = VECTORS[0]
        for wrong in ("A" + sig[1:], sig[:-2] + "B=", sig.rstrip("="), "x", "ü"):
            text = refused(40103, grant, sas(sr, wrong))
            assert text == "InvalidSignature: The token has an invalid signature."

    def test_the_signature_covers_resource_and_expiry(self) -> None:
        sr, sig, _ = VECTORS[0]
        refused(40103, grant, sas(sr, sig, FAR + 1))
        refused(40103, grant, sas(sr.replace("hub1", "hub2"), sig))

    def test_c7_line_feed_and_the_text_of_the_key(self) -> None:
        refused(40103, grant, sas("contoso", signed("contoso", joint="\r\n")))
        decoded = b64encode(digest(bytes(range(32)), f"contoso\n{FAR}".encode(), sha256)).decode()
        refused(40103, grant, sas("contoso", decoded))

    def test_unknown_rule(self) -> None:
        refused(40103, grant, sas("contoso", signed("contoso"), skn="nobody"))
        # The stand-in for an unknown rule has a key that everyone can read here: it must not open anything.
        refused(40103, grant, sas("contoso", signed("contoso", "nobody"), skn="nobody"))
        refused(40103, grant, sas("contoso", signed("contoso", "nobody"), skn="%20"))

    def test_a_rule_without_keys_opens_nothing(self) -> None:
        sr = quote_plus(f"https://{HOST}/hub1")
        refused(40103, grant, sas(sr, signed(sr, ""), skn="keyless"))
        refused(40103, grant, sas(sr, signed(sr, ""), skn="sendonly"))

    def test_a_rule_signs_only_at_and_below_its_place(self) -> None:
        assert (
            grant(sas_token(f"https://{HOST}/hub1/publishers/x", "sendonly", OTHER_KEY, FAR)).rights
            == Right.SEND
        )
        for place in ("", "/hub2", "/hub10", "/deep"):
            refused(40103, grant, sas_token(f"https://{HOST}{place}", "sendonly", OTHER_KEY, FAR))

    def test_case_38_expired(self) -> None:
        header = sas_token(HOST, "RootManageSharedAccessKey", KEY, NOW // 1000).encode()
        assert grant(header, now=NOW - 1).expires == NOW
        assert refused(40106, grant, header, now=NOW) == "ExpiredToken: The token is expired."

    @pytest.mark.parametrize("se", [1403736877, 1456197782, 0])
    def test_the_documents_examples_have_expired(self, se: int) -> None:
        refused(40106, grant, sas(HOST, signed(HOST, se=se), se))

    def test_case_39_audience(self) -> None:
        granted = grant(sas_token(f"https://{HOST}/hub2", "RootManageSharedAccessKey", KEY, FAR))
        assert refused(40104, granted.require, "hub1/messages", Right.SEND, NOW) == (
            "InvalidAudience: The authorization header contains a token with a wrong audience."
        )

    @pytest.mark.parametrize(
        "sr", ["https://fabrikam.servicebus.windows.net/hub1", "fabrikam", "hub1", "/hub1", "://"]
    )
    def test_another_namespace(self, sr: str) -> None:
        header = sas_token(sr, "RootManageSharedAccessKey", KEY, FAR)
        refused(40104, grant, header)
        refused(40104, grant, header, b"elsewhere:80")

    def test_order_of_checks(self) -> None:
        other = "https://fabrikam.servicebus.windows.net/hub1"
        past = NOW // 1000 - 1
        refused(40105, grant, f"SharedAccessSignature sr={other}&sig=x&skn=x&se=")
        refused(40103, grant, sas_token(other, "RootManageSharedAccessKey", "wrong", past))
        refused(40106, grant, sas_token(other, "RootManageSharedAccessKey", KEY, past))
        refused(40104, grant, sas_token(other, "RootManageSharedAccessKey", KEY, FAR))
        sender = grant(sas_token(f"https://{HOST}/hub1", "sendonly", OTHER_KEY, FAR))
        refused(40106, sender.require, "hub2", Right.LISTEN, FAR * 1000)
        refused(40104, sender.require, "hub2", Right.LISTEN, NOW)
        refused(40100, sender.require, "hub1", Right.LISTEN, NOW)

    @pytest.mark.parametrize(
        ("right", "action", "text"),
        [
            (Right.SEND, None, "Authorization failed for specified action: Send."),
            (Right.LISTEN, None, "Authorization failed for specified action: Listen."),
            (Right.MANAGE, None, "Manage,EntityRead claims required for this operation."),
            (Right.MANAGE, Action.READ, "Manage,EntityRead claims required for this operation."),
            (Right.MANAGE, Action.WRITE, "Authorization failed for specified action: Manage,EntityWrite."),
            (Right.MANAGE, Action.DELETE, "Authorization failed for specified action: Manage,EntityDelete."),
            (
                Right.SEND,
                "Unauthorized: publisher 'x' is revoked.",
                "Unauthorized: publisher 'x' is revoked.",
            ),
        ],
    )
    def test_case_40_80_right(self, right: Right, action: Action | str | None, text: str) -> None:
        granted = Grant("sas", "", ALL_RIGHTS & ~right, FAR * 1000, "x")
        assert refused(40100, granted.require, "hub1", right, NOW, action) == text
        Grant("sas", "", right, FAR * 1000, "x").require("hub1", right, NOW, action)

    def test_any_of_several_rights_will_do(self) -> None:
        granted = Grant("sas", "", Right.LISTEN, FAR * 1000, "x")
        granted.require("q", Right.MANAGE | Right.LISTEN, NOW)
        refused(40100, granted.require, "q", Right.MANAGE | Right.SEND, NOW)


class TestResources:
    @pytest.mark.parametrize(
        ("uri", "host", "path"),
        [
            ("contoso", "contoso", ""),
            ("contoso.servicebus.windows.net", HOST, ""),
            (f"https://{HOST}", HOST, ""),
            (f"HTTPS://{HOST.upper()}./", HOST, ""),
            (f"sb://{HOST}:5671/Hub1/ConsumerGroups/$Default", HOST, "hub1/consumergroups/$default"),
            (f"amqps://user:pass@{HOST}:5671//hub1//", HOST, "hub1"),
            (f"http://{HOST}/hub1?api-version=2014-01#x", HOST, "hub1"),
            (f"http://{HOST}?x=/y", HOST, ""),
            ("contoso/hub1", "contoso", "hub1"),
            ("localhost:5811/hub1", "localhost", "hub1"),
            ("sb://localhost:5811/hub1/Partitions/3", "localhost", "hub1/partitions/3"),
            ("sb://[::1]:5672/q", "::1", "q"),
            ("[::1]", "::1", ""),
            ("::1", "::1", ""),
            (f"sb://{HOST}/q/$management", HOST, "q"),
            (f"sb://{HOST}/q/%24Management/", HOST, "q"),
            (f"sb://{HOST}/$management", HOST, ""),
            (f"sb://{HOST}/q/%24DeadLetterQueue", HOST, "q/$deadletterqueue"),
            (f"sb://{HOST}/hub1/publishers/a%2Bb", HOST, "hub1/publishers/a+b"),
            ("", "", ""),
            ("://", "", ""),
            ("a/b://c", "a", "b:/c"),
        ],
    )
    def test_split(self, uri: str, host: str, path: str) -> None:
        assert split_resource(uri) == (host, path)

    @pytest.mark.parametrize(
        ("scope", "path", "covered"),
        [
            ("", "", True),
            ("", "anything/at/all", True),
            ("hub", "hub", True),
            ("hub", "hub/messages", True),
            ("hub", "hub2", False),
            ("hub", "hub2/messages", False),
            ("hub", "", False),
            ("hub/publishers/dev-01", "hub/publishers/dev-01/messages", True),
            ("hub/publishers/dev-01", "hub/publishers/dev-011/messages", False),
            ("hub/publishers/dev-01", "hub/publishers", False),
            ("hub/messages", "hub/messages/head", True),
            ("hub", "other/hub", False),
        ],
    )
    def test_scope_is_a_prefix_by_segments(self, scope: str, path: str, covered: bool) -> None:
        assert Grant("sas", scope, ALL_RIGHTS, FAR, "x").covers(path) is covered

    def test_prefixes(self) -> None:
        assert prefixes("a/b/c") == ["a/b/c", "a/b", "a", ""]
        assert prefixes("") == [""]

    def test_prefixes_are_bounded(self) -> None:
        found = prefixes("x/" * 20_000 + "x")
        assert len(found) <= ENTITY_PATH_CHARS_MAX // 2 + 2
        assert max(map(len, found)) <= ENTITY_PATH_CHARS_MAX
        assert found[-2:] == ["x", ""]
        assert prefixes("y" * 400) == [""]

    def test_an_escaped_escape_is_decoded_as_often_as_it_was_encoded(self) -> None:
        uri = f"https://{HOST}/hub1/publishers/dev%2541"
        for raw in (quote(uri, safe=""), quote(uri), uri):
            header = sas(raw, signed(raw))
            assert grant(header).scope == "hub1/publishers/dev%41", raw

    def test_a_blank_may_be_a_plus(self) -> None:
        raw = quote_plus(f"https://{HOST}/hub1/publishers/dev 1")
        assert "+" in raw
        assert grant(sas(raw, signed(raw))).scope == "hub1/publishers/dev 1"

    def test_the_rule_sits_on_the_longest_prefix_that_is_an_entity(self) -> None:
        uri = f"sb://{HOST}/Deep/er/Queue/Subscriptions/s1/$DeadLetterQueue"
        granted = grant(sas_token(uri, "deep", KEY, FAR))
        assert granted.scope == "deep/er/queue/subscriptions/s1/$deadletterqueue"
        refused(40103, grant, sas_token(f"sb://{HOST}/deep/er", "deep", KEY, FAR))

    def test_the_nearest_rule_of_a_name_that_fits_wins(self) -> None:
        ring = contoso()
        ring.by_path[""] = (SharedKey("sendonly", ALL_RIGHTS, KEY),)
        uri = f"https://{HOST}/hub1"
        near = gate(ring=ring).grant(sas_token(uri, "sendonly", OTHER_KEY, FAR).encode(), b"", NOW)
        far = gate(ring=ring).grant(sas_token(uri, "sendonly", KEY, FAR).encode(), b"", NOW)
        assert (near.rights, far.rights) == (Right.SEND, ALL_RIGHTS)

    def test_the_host_of_the_request_denotes_the_namespace(self) -> None:
        header = sas_token("sb://hubbub:8080/q", "RootManageSharedAccessKey", KEY, FAR).encode()
        refused(40104, grant, header)
        assert grant(header, b"Hubbub:9999").scope == "q"

    def test_authority_reads_audiences(self) -> None:
        assert AUTHORITY.path("sb://LOCALHOST:5811/Hub/$management") == "hub"
        refused(40104, AUTHORITY.path, "sb://elsewhere/hub")
        assert AUTHORITY.path("sb://elsewhere/hub", "elsewhere") == "hub"
        assert not Authority("x", frozenset()).denotes("", "")

    def test_scope_path(self) -> None:
        assert scope_path("//Hub1///Messages/") == "hub1/messages"


def test_verify_takes_text() -> None:
    token = sas_token(HOST, "RootManageSharedAccessKey", KEY, FAR)
    assert verify(token, authority=AUTHORITY, ring=contoso(), now=NOW).scheme == "sas"
    refused(40102, verify, "", authority=AUTHORITY, ring=contoso(), now=NOW)
    refused(40105, verify, "\ud800", authority=AUTHORITY, ring=contoso(), now=NOW)
    refused(40103, verify, token[:-1] + "\ud800", authority=AUTHORITY, ring=contoso(), now=NOW)


def test_rights_of() -> None:
    assert rights_of(["Listen", " send ", "MANAGE"]) == ALL_RIGHTS == OPEN.rights
    assert rights_of(["Execute", ""]) == Right(0)
