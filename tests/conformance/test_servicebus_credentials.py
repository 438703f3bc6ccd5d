"""Every kind of credential of the official Service Bus client, blocking and asynchronous, over TLS on its
standard port and over WebSockets, against a real server process whose authority it is told of."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode, TransportType
from azure.servicebus.aio import ServiceBusClient as AsyncClient
from azure.servicebus.exceptions import (
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
    ServiceBusConnectionError,
)
from entra import AsyncCredential, Credential, bearer, configure

from hubbub.broker.access import sas_token
from live import FAR, ROOT, WELL_KNOWN, hubbub, own_address, running

OWNER, READER = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"
HOST = own_address()
KINDS = ("key", "signature", "token", "connection string", "signature in the string")
WAYS = ("tls", "web socket")
QUEUES = [f"{way}-{kind}-{form}" for way in WAYS for kind in KINDS for form in ("blocking", "async")]


def name_of(text: str) -> str:
    return text.replace(" ", "-")


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("credentials")
    configure(folder, {OWNER: ["Send", "Listen"], READER: ["Listen"]})
    flags = ["--config", "hubbub.toml", "--tls", "auto", "--data", "data", "--queue", "queue"]
    flags += ["--host", HOST, "--tls-host", HOST, "--allow-well-known-key"]
    flags += ["--https-port", "0", "--amqps-port", "5671"]
    for queue in QUEUES:
        flags += ["--queue", name_of(queue)]
    with running(folder, *flags) as live:
        live.authority = str(folder / "ca.pem")
        told = hubbub("trust", "--data", str(folder / "data"), "--pem")
        (folder / "ca.pem").write_text(told.stdout)
        yield live


def signature(path: str = "", key: str = WELL_KNOWN, expiry: int = FAR) -> str:
    return sas_token(f"sb://{HOST}/{path}", ROOT, key, expiry)


def reached(live, way: str) -> dict:
    options = {"connection_verify": live.authority, "retry_total": 0}
    if way == "web socket":
        port = live.ready["https"].rpartition(":")[2]
        options |= {
            "transport_type": TransportType.AmqpOverWebsocket,
            "custom_endpoint_address": f"sb://{HOST}:{port}",
        }
    return options


def opened(live, way: str, kind: str, form: str = "blocking"):
    client, token = (ServiceBusClient, Credential) if form == "blocking" else (AsyncClient, AsyncCredential)
    options = reached(live, way)
    if "string" in kind:
        key = f"SharedAccessKeyName={ROOT};SharedAccessKey={WELL_KNOWN}"
        found = f"SharedAccessSignature={signature()}" if "signature" in kind else key
        return client.from_connection_string(f"Endpoint=sb://{HOST}/;{found}", **options)
    credential = {
        "key": AzureNamedKeyCredential(ROOT, WELL_KNOWN),
        "signature": AzureSasCredential(signature()),
        "token": token(bearer(OWNER)),
    }[kind]
    return client(HOST, credential, **options)


def there_and_back(client, queue: str) -> list[str]:
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client, client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("x"))
        with client.get_queue_receiver(queue, receive_mode=mode) as receiver:
            # Asking the management node needs the token too.
            peeked = receiver.peek_messages(1)
            return [str(message) for message in [*peeked, *receiver.receive_messages(1, 10)]]


async def there_and_back_async(client, queue: str) -> list[str]:
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    async with client, client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("x"))
        async with client.get_queue_receiver(queue, receive_mode=mode) as receiver:
            peeked = await receiver.peek_messages(1)
            return [str(message) for message in [*peeked, *await receiver.receive_messages(1, 10)]]


@pytest.fixture(scope="module")
def outcomes(live):
    """By queue: what came, or what was raised. All at once, for links open and close slowly."""

    def run(queue: str):
        way, kind, form = queue.split("-")
        try:
            client = opened(live, way, kind, form)
            if form == "blocking":
                return there_and_back(client, name_of(queue))
            return asyncio.run(there_and_back_async(client, name_of(queue)))
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(QUEUES)) as pool:
        return dict(zip(QUEUES, pool.map(run, QUEUES), strict=True))


@pytest.mark.parametrize("queue", QUEUES)
def test_a_good_credential(outcomes, queue):
    assert outcomes[queue] == ["x", "x"]


@pytest.mark.parametrize(
    ("credential", "error"),
    [
        (AzureNamedKeyCredential(ROOT, "d3Jvbmc="), ServiceBusAuthenticationError),
        (AzureNamedKeyCredential("nobody", WELL_KNOWN), ServiceBusAuthenticationError),
        (AzureSasCredential(signature(expiry=int(time.time()) - 60)), ServiceBusAuthenticationError),
        (AzureSasCredential(signature("elsewhere")), ServiceBusAuthorizationError),
        (Credential(bearer(READER)), ServiceBusAuthorizationError),
        (Credential(bearer(OWNER, seconds=-600)), ServiceBusAuthenticationError),
        (Credential(bearer(OWNER, audience="https://elsewhere")), ServiceBusAuthenticationError),
        (Credential("garbage"), ServiceBusAuthenticationError),
    ],
    ids=["wrong key", "no such key", "expired", "elsewhere", "reader", "old token", "audience", "garbage"],
)
def test_a_credential_that_does_not_do(live, credential, error):
    with ServiceBusClient(HOST, credential, **reached(live, "tls")) as client, pytest.raises(error):
        client.get_queue_sender("queue").__enter__()


def test_a_server_that_is_not_trusted(live):
    options = {**reached(live, "tls"), "connection_verify": None}
    credential = AzureNamedKeyCredential(ROOT, WELL_KNOWN)
    with ServiceBusClient(HOST, credential, **options) as client, pytest.raises(ServiceBusConnectionError):
        client.get_queue_sender("queue").__enter__()
