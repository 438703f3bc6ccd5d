"""The gate: its memory, rotation of keys, CBS tokens and SASL PLAIN."""

from __future__ import annotations

import pytest

from broker.access_kit import AUTHORITY, FAR, HOST, ISSUER, KEY, NOW, OTHER_KEY, Rules, contoso, gate, refused
from hubbub.broker.access import (
    ALL_RIGHTS,
    NEVER,
    OPEN,
    Grant,
    Right,
    SharedKey,
    cbs_credential,
    sas_token,
    signing_key,
    swt_token,
)
from hubbub.broker.access import (
    gate as gate_module,
)

ROOT = "RootManageSharedAccessKey"


def root(resource: str = HOST, key: str = KEY, expires_s: int = FAR) -> bytes:
    return sas_token(resource, ROOT, key, expires_s).encode()


class Counting(Rules):
    """A key ring that counts how often it is asked."""

    asked = 0

    def rules(self, path: str) -> tuple[SharedKey, ...]:
        self.asked += 1
        return self.by_path.get(path, ())


class Bearer:
    """Accepts the token `good.good.good`, ten minutes long, and counts."""

    verified = 0

    def verify(self, token: str, now: int) -> Grant:
        self.verified += 1
        assert token == "good.good.good"
        return Grant("bearer", "", Right.SEND, NOW + 600_000, "someone")


class TestMemory:
    def test_a_token_is_verified_once(self) -> None:
        ring = Counting(contoso().by_path)
        subject = gate(ring=ring)
        first = subject.grant(root(), b"localhost:80", NOW)
        asked = ring.asked
        assert asked > 0
        for host in (b"", b"localhost", b"elsewhere", b"CONTOSO"):
            assert subject.grant(root(), host, NOW) is first
        assert ring.asked == asked

    def test_expired_entries_are_not_used(self) -> None:
        subject = gate()
        header = root(expires_s=NOW // 1000 + 1)
        subject.grant(header, b"", NOW)
        refused(40106, subject.grant, header, b"", NOW + 1000)

    def test_refusals_are_not_remembered(self) -> None:
        ring = Rules()
        subject = gate(ring=ring)
        refused(40103, subject.grant, root(), b"", NOW)
        ring.by_path.update(contoso().by_path)
        assert subject.grant(root(), b"", NOW).rights == ALL_RIGHTS

    def test_rotation(self) -> None:
        ring = contoso()
        subject = gate(ring=ring)
        old, new = root(key=KEY), root(key=OTHER_KEY)
        assert subject.grant(old, b"", NOW) == subject.grant(new, b"", NOW)
        ring.by_path[""] = (SharedKey(ROOT, ALL_RIGHTS, OTHER_KEY, "fresh"),)
        subject.forget()
        refused(40103, subject.grant, old, b"", NOW)
        assert subject.grant(new, b"", NOW).key_name == ROOT

    def test_forget_takes_older_entries_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate_module, "REMEMBERED_MAX", 1)
        ring = contoso()
        subject = gate(ring=ring)
        for resource in ("contoso/a", "contoso/b"):
            subject.grant(root(resource), b"", NOW)
        ring.by_path.clear()
        assert subject.grant(root("contoso/a"), b"", NOW).scope == "a"
        subject.forget()
        for resource in ("contoso/a", "contoso/b"):
            refused(40103, subject.grant, root(resource), b"", NOW)

    def test_the_memory_is_bounded_and_keeps_what_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate_module, "REMEMBERED_MAX", 8)
        ring = Counting(contoso().by_path)
        subject = gate(ring=ring)
        used = root("contoso/used")
        subject.grant(used, b"", NOW)
        for number in range(100):
            subject.grant(root(f"contoso/{number}"), b"", NOW)
            asked = ring.asked
            subject.grant(used, b"", NOW)
            assert ring.asked == asked, "what is used all the time is never verified again"
        assert len(subject._here) + len(subject._older) <= 16

    def test_a_token_for_the_host_of_the_request_counts_there_only(self) -> None:
        subject = gate()
        header = root("sb://hubbub:8080/q")
        for _ in range(2):
            assert subject.grant(header, b"hubbub:8080", NOW).scope == "q"
            refused(40104, subject.grant, header, b"localhost", NOW)
            refused(40104, subject.grant, header, b"", NOW)
            refused(40104, subject.grant, header, b"evil", NOW)

    def test_bearer_tokens_are_looked_at_again_after_a_minute(self) -> None:
        bearer = Bearer()
        subject = gate(jwt=bearer)
        for later in (0, 59_999, 60_000, 119_999):
            subject.grant(b"Bearer good.good.good", b"", NOW + later)
        assert bearer.verified == 2
        refused(40103, gate().grant, b"Bearer good.good.good", b"", NOW)

    @pytest.mark.parametrize("header", [b"", b"nonsense", b"SharedAccessSignature x", b"Bearer x.y.z"])
    def test_an_open_gate(self, header: bytes) -> None:
        granted = gate(open=True).grant(header, b"", NOW)
        assert granted is OPEN
        granted.require("any/path", Right.MANAGE, NEVER - 1)


class TestCbs:
    """amqp.md §2.2: by the look of the token, whatever type the client gave it."""

    def test_schemes(self) -> None:
        subject = gate(jwt=Bearer())
        swt = swt_token(ISSUER, HOST, ["Send"], FAR, signing_key(KEY))
        for token, scheme in (
            (root().decode(), "sas"),
            (" " + root().decode(), "sas"),
            ("good.good.good", "bearer"),
            ("Bearer good.good.good", "bearer"),
            (swt, "wrap"),
            (f'WRAP access_token="{swt}"', "wrap"),
        ):
            assert subject.cbs(token, b"", NOW).scheme == scheme
        refused(40102, subject.cbs, "", b"", NOW)
        assert cbs_credential("") == ""

    @pytest.mark.parametrize(
        ("sr", "audience"),
        [
            ("sb://localhost:5811/hub", "sb://localhost:5811/hub"),
            ("sb://localhost:5811/hub", "sb://localhost:5811/hub/ConsumerGroups/$Default/Partitions/0"),
            ("sb://localhost/hub/consumergroups/cg", "sb://localhost/Hub/ConsumerGroups/cg/Partitions/0"),
            ("sb://localhost/hub/$management", "sb://localhost/hub"),
            ("sb://localhost/q/$DeadLetterQueue", "sb://localhost/q/$deadletterqueue/$management"),
            ("sb://localhost/t/Subscriptions/s", "amqps://contoso/t/subscriptions/s/$management"),
            ("sb://localhost", "sb://localhost/anything"),
        ],
    )
    def test_audiences(self, sr: str, audience: str) -> None:
        granted = gate().cbs(root(sr).decode(), b"", NOW)
        granted.require(AUTHORITY.path(audience), Right.LISTEN, NOW)

    def test_audience_of_another_entity(self) -> None:
        granted = gate().cbs(root("sb://localhost/hub/consumergroups/a").decode(), b"", NOW)
        refused(
            40104, granted.require, AUTHORITY.path("sb://localhost/hub/consumergroups/b"), Right.LISTEN, NOW
        )


class TestPlain:
    def test_name_and_key(self) -> None:
        for key in (KEY, OTHER_KEY):
            assert gate().plain(ROOT, key) == Grant("plain", "", ALL_RIGHTS, NEVER, ROOT)

    def test_a_rule_of_an_entity_is_for_that_entity(self) -> None:
        granted = gate().plain("sendonly", OTHER_KEY, ("", "q", "hub1"))
        assert (granted.scope, granted.rights) == ("hub1", Right.SEND)
        refused(40103, gate().plain, "sendonly", OTHER_KEY)

    @pytest.mark.parametrize(
        ("name", "password"),
        [(ROOT, ""), (ROOT, "x"), ("", KEY), ("nobody", KEY), ("keyless", ""), (ROOT, "\ud800"), (ROOT, "ü")],
    )
    def test_refused(self, name: str, password: str) -> None:
        refused(40103, gate().plain, name, password, ("", "hub1"))

    def test_open(self) -> None:
        assert gate(open=True).plain("x", "y") is OPEN
