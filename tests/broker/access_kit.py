"""A namespace `contoso` with rules, for the tests of access control. Keys are those of rest.md §2.1.5."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import pytest

from hubbub.broker.access import ALL_RIGHTS, Authority, Gate, Right, SharedKey, Unauthorized, acs_issuer

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER_KEY = "b3RoZXIga2V5LCBvdGhlciBrZXksIG90aGVyIGtleS4="
HOST = "contoso.servicebus.windows.net"
NOW = 1_700_000_000_000
FAR = 4_102_444_800
AUTHORITY = Authority("contoso", frozenset({"contoso", HOST, "localhost", "127.0.0.1", "::1"}))
ISSUER = acs_issuer("contoso")


class Rules:
    """A key ring one can change."""

    def __init__(self, rules: dict[str, tuple[SharedKey, ...]] | None = None) -> None:
        self.by_path = {} if rules is None else rules

    def rules(self, path: str) -> Sequence[SharedKey]:
        return self.by_path.get(path, ())


def contoso() -> Rules:
    return Rules(
        {
            "": (SharedKey("RootManageSharedAccessKey", ALL_RIGHTS, KEY, OTHER_KEY),),
            "hub1": (
                SharedKey("sendonly", Right.SEND, OTHER_KEY),
                SharedKey("listenonly", Right.LISTEN, KEY),
                SharedKey("keyless", ALL_RIGHTS, "", ""),
            ),
            "deep/er/queue": (SharedKey("deep", ALL_RIGHTS, KEY),),
        }
    )


def gate(**options: object) -> Gate:
    settings: dict[str, object] = {"swt_issuers": {ISSUER: KEY}, **options}
    return Gate(AUTHORITY, settings.pop("ring", None) or contoso(), **settings)  # type: ignore[arg-type]


def sas(sr: str, sig: str, se: object = FAR, skn: str = "RootManageSharedAccessKey") -> bytes:
    return f"SharedAccessSignature sr={sr}&sig={quote(sig, safe='')}&se={se}&skn={skn}".encode()


def refused(code: int, call: object, *arguments: object, **options: object) -> str:
    """Calls, and gives the text of the refusal, which must have this sub-code."""
    with pytest.raises(Unauthorized) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    assert caught.value.code == code, caught.value.text
    return caught.value.text
