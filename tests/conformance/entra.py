"""What an identity service would do: keys that a server can be told of, signed tokens, credentials."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt as pyjwt
from azure.core.credentials import AccessToken
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

SIGNER = generate_private_key(65537, 2048)


def configure(folder: Path, principals: dict[str, list[str]], more: str = "") -> None:
    """Writes hubbub.toml for a server that takes tokens of these principals, and `more` of it."""
    public = pyjwt.algorithms.RSAAlgorithm.to_jwk(SIGNER.public_key(), as_dict=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig"}]}))
    lines = [f'"{name}" = {json.dumps(rights)}' for name, rights in principals.items()]
    text = ["memory = true", "[jwt]", 'jwks = "keys.json"', "[jwt.principals]", *lines, more]
    (folder / "hubbub.toml").write_text("\n".join(text))


def bearer(principal: str, seconds: int = 600, audience: str = "https://servicebus.azure.net") -> str:
    claims = {"aud": audience, "exp": int(time.time()) + seconds, "oid": principal}
    return pyjwt.encode(claims, SIGNER, algorithm="RS256", headers={"kid": "k"})


class Credential:
    """What azure-identity would be. `scopes` are those asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.scopes += scopes
        return AccessToken(self.text, int(time.time()) + 600)


class AsyncCredential(Credential):
    async def get_token(self, *scopes: str, **_: object) -> AccessToken:
        return super().get_token(*scopes)
