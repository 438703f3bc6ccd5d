"""Bearer and simple web tokens over AMQP: the official client with a token credential, and put-token by hand."""

from __future__ import annotations

import time

import entra
import pytest
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError
from entra import Credential, configure

from hubbub.broker.access import acs_issuer, signing_key, swt_token
from live import WELL_KNOWN, running

WRITER, READER = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"
AUDIENCE = "https://eventhubs.azure.net/"
PRINCIPALS = {WRITER: ["Send", "Listen"], READER: ["Listen"]}


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    configure(folder, PRINCIPALS, '[[hub]]\nname = "events"')
    flags = ("--config", "hubbub.toml", "--tls", "auto", "--https-port", "0", "--data", str(folder / "data"))
    with running(folder, *flags) as live:
        yield live


def bearer(principal: str, seconds: int = 600, audience: str = AUDIENCE) -> str:
    return entra.bearer(principal, seconds, audience)


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
