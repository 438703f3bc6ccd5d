"""Bearer and simple web tokens over AMQP: the official client with a token credential, and put-token by hand."""

from __future__ import annotations

import json
import time

import jwt as pyjwt
import pytest
from azure.core.credentials import AccessToken
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from hubbub.broker.access import acs_issuer, signing_key, swt_token
from live import WELL_KNOWN, running

KEY = generate_private_key(65537, 2048)
WRITER, READER = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"
CONFIG = """
memory = true
[jwt]
jwks = "keys.json"
[jwt.principals]
"{writer}" = ["Send", "Listen"]
"{reader}" = ["Listen"]
[[hub]]
name = "events"
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    public = pyjwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig"}]}))
    (folder / "hubbub.toml").write_text(CONFIG.format(writer=WRITER, reader=READER))
    flags = ("--config", "hubbub.toml", "--tls", "auto", "--https-port", "0", "--data", str(folder / "data"))
    with running(folder, *flags) as live:
        yield live


class Credential:
    """What azure-identity would be."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        return AccessToken(self.text, int(time.time()) + 600)


def bearer(principal: str, seconds: int = 600, audience: str = "https://eventhubs.azure.net/") -> str:
    claims = {"aud": audience, "exp": int(time.time()) + seconds, "oid": principal}
    return pyjwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "k"})


def simple(rights: list[str]) -> str:
    from hubbub.config import swt_key_of

    key = signing_key(swt_key_of(WELL_KNOWN))
    return swt_token(acs_issuer("hubbub"), "http://localhost/", rights, int(time.time()) + 600, key)


def send(live, text: str) -> None:
    client = EventHubProducerClient(
        "localhost",
        "events",
        Credential(text),
        retry_total=0,
        custom_endpoint_address=live.ready["https"].replace("https://127.0.0.1", "sb://localhost"),
        connection_verify=str(live.folder / "data/tls/ca.pem"),
    )
    with client:
        client.send_batch([EventData("x")], partition_id="0")


@pytest.mark.parametrize("text", [bearer(WRITER), simple(["Send"])], ids=["bearer", "simple"])
def test_a_good_token(live, text):
    send(live, text)


@pytest.mark.parametrize(
    "text",
    [
        bearer(READER),
        bearer("33333333-0000-0000-0000-000000000000"),
        bearer(WRITER, seconds=-600),
        bearer(WRITER, audience="https://elsewhere/"),
        bearer(WRITER)[:-8] + "AAAAAAAA",
        simple(["Listen"]),
        "garbage",
    ],
    ids=["reader", "nobody", "expired", "elsewhere", "forged", "listener", "garbage"],
)
def test_a_token_that_does_not_do(live, text):
    with pytest.raises(EventHubError):
        send(live, text)
