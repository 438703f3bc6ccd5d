"""A client of the management of a namespace `contoso` in memory, past HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from xml.etree import ElementTree

from hubbub.broker.access import SharedKey, rights_of, sas_token
from hubbub.broker.errors import BrokerError
from hubbub.broker.limits import PROFILES
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine
from hubbub.front.http.request import Request
from hubbub.front.letters import Letters
from hubbub.front.rest.errors import XML, error_body, status_of, text_of
from hubbub.front.rest.management import Management
from hubbub.front.rest.route import segments_of

HOST = "contoso.servicebus.windows.net"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ROOT = "RootManageSharedAccessKey"
FAR = 4_102_444_800
A = "{http://www.w3.org/2005/Atom}"
SB = "{http://schemas.microsoft.com/netservices/2010/10/servicebus/connect}"
COUNTS = "{http://schemas.microsoft.com/netservices/2011/06/servicebus}"
ARRAYS = "{http://schemas.microsoft.com/2003/10/Serialization/Arrays}"
TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
ANY = {"If-Match": "*"}


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def xml(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body)

    @property
    def detail(self) -> str:
        """The text of an error before its trailer."""
        assert self.xml.findtext("Code") == str(self.status)
        return (self.xml.findtext("Detail") or "").partition(" TrackingId:")[0]

    def described(self) -> ElementTree.Element:
        content = self.xml.find(f"{A}content")
        assert content is not None
        return content[0]

    def value(self, name: str) -> str | None:
        return self.described().findtext(f"{SB}{name}")

    def titles(self) -> list[str]:
        return [entry.findtext(f"{A}title") or "" for entry in self.xml.findall(f"{A}entry")]


class Peer:
    """A client of the management of `contoso`, past HTTP."""

    def __init__(self, profile: str = "standard") -> None:
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        root = SharedKey(ROOT, rights_of(["Listen", "Send", "Manage"]), KEY)
        hosts = frozenset({"contoso", HOST})
        self.namespace = Namespace(
            "contoso",
            MemoryEngine(),
            self.clock,
            PROFILES[profile],
            hosts=hosts,
            keys=(root,),
            letters=Letters(),
        )
        self.management = Management(self.clock)
        self.token = sas_token(HOST, ROOT, KEY, FAR)

    def send(
        self, method: str, target: str, body: str | bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        request = Request(None, method.encode(), target.encode(), pairs)  # type: ignore[arg-type]
        path, _, query = target.partition("?")
        request.path, request.query, request.host = path.encode(), query.encode(), HOST.encode()
        request.body = body if isinstance(body, bytes) else body.encode()
        request.authorization = request.header(b"authorization") or self.token.encode()
        try:
            status, found, content = self.runner.run(self._handle(request))
        except BrokerError as error:
            status, found = status_of(error), (XML,)
            content = error_body(status, text_of(error, status), "t", "s", self.clock.now())
        return Answer(status, {k.decode(): v.decode() for k, v in found}, content)

    async def _handle(self, request: Request) -> Any:
        now = self.clock.now()
        grant = self.namespace.gate.grant(request.authorization, request.host, now)
        segments = segments_of(request.path)
        found = self.management.handle(request, self.namespace, grant, segments, now)
        return found if isinstance(found, tuple) else await found

    def put(self, target: str, kind: str, inner: str = "", headers: dict[str, str] | None = None) -> Answer:
        return self.send("PUT", target, entry_of(kind, inner), headers)

    def get(self, target: str) -> Answer:
        return self.send("GET", target)

    def close(self) -> None:
        self.runner.close()


def entry_of(kind: str, inner: str = "") -> str:
    return (
        f'<entry xmlns="{A[1:-1]}"><content type="application/xml"><{kind} xmlns="{SB[1:-1]}"'
        f' xmlns:i="{TYPE[1:-5]}">{inner}</{kind}></content></entry>'
    )
