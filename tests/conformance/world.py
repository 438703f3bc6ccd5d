"""The fixture of the conformance cases: namespace `contoso` on a real server over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import threading
import time
from urllib.parse import quote

from hubbub.broker.access import SharedKey, rights_of, sas_token
from hubbub.broker.entity import AuthorizationRule, EventHub, Queue, Subscription, Topic
from hubbub.config import Config, NamespaceConfig, finished
from hubbub.server import Server

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ROOT = "RootManageSharedAccessKey"
HOST = "contoso.servicebus.windows.net"
AX = "application/atom+xml;type=entry;charset=utf-8"
BJ = "application/vnd.microsoft.servicebus.json"
SIGNED = (
    "net.windows.servicebus.action=Listen%2cManage%2cSend&http%3a%2f%2fschemas.microsoft.com%2faccesscontrolservice"
    "%2f2010%2f07%2fclaims%2fidentityprovider=https%3a%2f%2fcontoso-sb.accesscontrol.windows.net%2f&Audience="
    "http%3a%2f%2fcontoso.servicebus.windows.net%2f&ExpiresOn=4102444800&Issuer=https%3a%2f%2f"
    "contoso-sb.accesscontrol.windows.net%2f"
)
SWT = SIGNED + "&HMACSHA256=" + quote("aOOzpPX9oZMW7K/vlb6GOnym9j+ZfYrzGnuJZJxSjXo=", safe="")
WRAP = f'WRAP access_token="{SWT}"'
ENTRY = (
    "<entry xmlns='http://www.w3.org/2005/Atom'><content type='application/xml'><d>hi</d></content></entry>"
)


def vector(sr: str, sig: str, **fields: str) -> str:
    """A shared-access signature with the literal `sr` of a test vector."""
    parts = {"sr": sr, "sig": quote(sig, safe=""), "se": "4102444800", "skn": ROOT} | fields
    return "SharedAccessSignature " + "&".join(f"{name}={value}" for name, value in parts.items())


LOWER = vector(
    "https%3a%2f%2fcontoso.servicebus.windows.net%2fhub1", "/B7qAhKnWoLL6X3ksHUXLsRhFZsg9yo32vdh9cdNXIA="
)
UPPER = vector(
    "https%3A%2F%2Fcontoso.servicebus.windows.net%2Fhub1", "HMscI4AzgylvTFQoadODH4dpqOM4o2RI/bvneDfyn/U="
)
HOST_ONLY = vector(HOST, "pgGeZ212z7DB41mCpo8lqGLkANGvf9UGcDAJVWSocJU=")
SHORT = vector("contoso", "/D0m5PU+Fs1DuBXai9pCpVvsnSyBIyHLNHAGooYCvC4=")
PUBLISHER = vector(
    "https%3A%2F%2Fcontoso.servicebus.windows.net%2Fhub1%2Fpublishers%2Fdev-01",
    "s51mGwhqrrxOF7TBryLH7o0hw84i2Ru2j+G8+I8oN/0=",
)
SEND_ONLY = sas_token(f"https://{HOST}/hub1", "sendonly", KEY, 4102444800)
LISTEN_ONLY = sas_token(f"https://{HOST}/hub1", "listenonly", KEY, 4102444800)


class Reply:
    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def detail(self) -> str:
        return re.search("<Detail>(.*)</Detail>", self.text, re.S)[1]

    @property
    def broker(self) -> dict:
        return json.loads(self.headers["brokerproperties"])


class World:
    """A running server, and the means to talk to it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.server = Server(self.config)
        self.ready = await self.server.start()
        self.port = int(self.ready.urls["http"].rpartition(":")[2])
        self._started.set()
        await self._ending.wait()
        await self.server.stop()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(20)

    def call(
        self,
        method: str,
        target: str,
        auth: str | None = HOST_ONLY,
        body: bytes | str = b"",
        host: str = HOST,
        **headers: str,
    ) -> Reply:
        """One request on a connection of its own. Underscores in header names become dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body.encode() if isinstance(body, str) else body
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, "Content-Length": str(len(data)), **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if auth is not None:
            connection.putheader("Authorization", auth)
        connection.endheaders(data)
        response = connection.getresponse()
        reply = Reply(response.status, response.getheaders(), response.read())
        connection.close()
        return reply

    def raw(self, data: bytes, pause: float = 0) -> bytes:
        """Bytes in, bytes out, until the server is silent or closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as plug:
            plug.sendall(data)
            time.sleep(pause)
            plug.settimeout(1)
            received = b""
            try:
                while chunk := plug.recv(65536):
                    received += chunk
            except TimeoutError:
                pass
            return received

    def do(self, work):
        """Runs a coroutine function on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    @property
    def namespace(self):
        return self.server.namespaces[0]

    # What is in the hub.

    def ends(self) -> list[int]:
        return [log.durable for log in self.namespace.hub("hub1").partitions]

    def since(self, ends: list[int]) -> list[tuple[int, dict]]:
        """(partition, event) of what came after `ends`, through the JSON API."""
        found = []
        for number, end in enumerate(ends):
            path = f"/_hubbub/api/v1/hubs/hub1/partitions/{number}/events?from=seq:{end}&inclusive=1"
            found += [(number, event) for event in json.loads(self.call("GET", path).body)]
        return found

    def empty(self, *paths: str) -> None:
        for path in paths or ("q1", "t1/subscriptions/s1"):
            for receiver in (path, path + "/$deadletterqueue"):
                live = self.namespace.receivers[receiver]
                for entry in [e for e in live.ledger.entries.values() if e.state == 1]:
                    self.loop.call_soon_threadsafe(live.ledger.release, entry)
                self.do(self.namespace.purge(path, receiver.endswith("queue") and receiver != path))


def contoso(**changes) -> Config:
    """The fixture of the cases as a configuration."""
    rules = tuple(
        AuthorizationRule(name=name, rights=(right,), primary=KEY)
        for name, right in (("sendonly", "Send"), ("listenonly", "Listen"))
    )
    entities = (
        EventHub(path="hub1", partition_count=4, authorization_rules=rules),
        Queue(path="q1", lock_duration=5000),
        Topic(path="t1"),
        Subscription(path="t1/subscriptions/s1", topic="t1", name="s1"),
    )
    root = SharedKey(ROOT, rights_of(["Listen", "Send", "Manage"]), KEY)
    namespace = NamespaceConfig(name="contoso", keys=(root,), entities=entities)
    options = {"port": 0, "memory": True, "access_log": False, "namespaces": (namespace,)} | changes
    return finished(Config(**options), {})
