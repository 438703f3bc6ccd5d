"""A whole server in memory, and the judge of everything it says: no sockets, no waiting.

`House` is the composition root with its listeners left out. `converse` joins one client to it, lets hours of
its clock pass, and holds every answer against what is documented; `settle` asks whether the house is sound
afterwards: it still serves, it logged no mistake of its own, and it stored what it accepted and no more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from conformance.world import KEY, contoso
from front.http_peer import MemoryTransport
from hubbub.broker.access import sas_token
from hubbub.broker.entity import AuthorizationRule, EventHub, Queue, Subscription, Topic
from hubbub.broker.errors import Invalid
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.config import Config
from hubbub.front.http.request import Request
from hubbub.front.rest.route import segments_of, target_of
from hubbub.server import Server

HOST = "contoso.servicebus.windows.net"
ROOT = sas_token(HOST, "RootManageSharedAccessKey", KEY, 4102444800).encode()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# REST reference 5.2 and the bounds of the HTTP layer. 500 is documented too, and is always our mistake.
STATUSES = frozenset(
    (200, 201, 204, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 417, 431, 503, 505)
)
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ((?:[\t\x20-\x7e\x80-\xff])*)")
_DETAIL = re.compile(
    r"(?s).* TrackingId:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}_[GB]\d+, SystemTracker:.*,"
    r" Timestamp:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
)
_SINGLE = {b"content-length", b"content-type", b"date", b"server", b"location", b"brokerproperties", b"etag"}


def configuration() -> Config:
    rules = (AuthorizationRule(name="sendonly", rights=("Send",), primary=KEY),)
    entities = (
        EventHub(path="hub1", partition_count=2, authorization_rules=rules),
        EventHub(path="alive", partition_count=1),
        Queue(path="q1", lock_duration=5000, deliveries_max=2),
        Queue(path="dup", requires_duplicate_detection=True, dead_letter_on_expiration=True),
        Queue(path="sess", requires_session=True),
        Queue(path="off", status="SendDisabled"),
        Topic(path="t1"),
        Subscription(path="t1/subscriptions/s1", topic="t1", name="s1"),
    )
    config = contoso(cors=True)
    (namespace,) = config.namespaces
    import dataclasses

    return dataclasses.replace(config, namespaces=(dataclasses.replace(namespace, entities=entities),))


CONFIG = configuration()


class House(Server):
    """A server nobody can reach but who is in the room."""

    def __init__(self) -> None:
        self.time = ManualClock()
        super().__init__(CONFIG, self.time)
        self.answered: list[tuple[Request, int, int]] = []
        self.faults = _Faults()

    async def _listen(self) -> None:
        self._urls = {"http": "http://127.0.0.1:0"}

    async def open(self) -> House:
        await self.start()
        logging.getLogger("hubbub").addHandler(self.faults)
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, what: self.faults.seen.append(str(what))
        )
        count = self.http.on_complete

        def complete(request: Request, status: int, received: int, sent: int, seconds: float) -> None:
            self.answered.append((request, status, sent))
            assert count is not None
            count(request, status, received, sent, seconds)

        self.http.on_complete = complete
        self.logs = self._stores()
        self.starts = {name: sum(log.next for log in logs) for name, logs in self.logs.items()}
        return self

    def close(self) -> None:
        logging.getLogger("hubbub").removeHandler(self.faults)

    def _stores(self) -> dict[str, list[Any]]:
        """The logs in which sends to an entity are counted."""
        ns = self.namespaces[0]
        found = {path: list(hub.partitions) for path, hub in ns.hubs.items()}
        found |= {path: [topic.log] for path, topic in ns.topics.items()}
        queues = [queue.key for queue in ns.entities(Queue)]
        return found | {path: [ns.receivers[path].log] for path in queues}

    async def converse(self, pieces: Sequence[bytes], *, seconds: int = 400, shut: bool = False) -> bytes:
        """One client says `pieces` and then waits; returns what it heard, already judged."""
        connection = self.http.protocol(False)()
        transport = MemoryTransport(connection)
        connection.connection_made(transport)
        before = len(self.answered)
        for piece in pieces:
            await self._until_reading(transport)
            if transport.closing or not transport.reading:
                break
            connection.data_received(piece)
        await _ticks()
        if shut and not transport.closing and not connection.eof_received():
            transport.close()
        for _ in range(seconds // 10):
            if transport.closing:
                break
            self.time.advance(10_000)
            await _ticks(2)
        transport.closing = True
        connection.connection_lost(None)
        await _ticks()
        judge(transport.output, [a for a in self.answered[before:] if a[0].connection is connection])
        return transport.output

    async def _until_reading(self, transport: MemoryTransport) -> None:
        await _ticks(1)
        for _ in range(300):
            if transport.closing or transport.reading:
                return
            self.time.advance(1_000)
            await _ticks()

    async def settle(self) -> None:
        """The house is sound: it serves others, saw no mistake of its own, stored what it accepted."""
        body = b"still there"
        heard = await self.converse([request(b"POST", b"/alive/messages", body)], seconds=10)
        assert heard.startswith(b"HTTP/1.1 201 "), heard
        self._reload()
        assert self.faults.seen == []
        accepted = self._accepted()
        for name, logs in self._stores().items():
            if name not in self.logs or any(a is not b for a, b in zip(logs, self.logs[name], strict=True)):
                continue  # Deleted, and perhaps made anew.
            stored = sum(log.next for log in logs) - self.starts[name]
            if name == "dup":
                assert stored <= accepted.get(name, 0)
            else:
                assert stored == accepted.get(name, 0), name

    def _reload(self) -> None:
        """Whatever was accepted can be read again at the next start."""
        old = self.namespaces[0]
        new = Namespace(old.name, self.engine, ManualClock(), old.limits)
        assert new._entities == old._entities

    def _accepted(self) -> dict[str, int]:
        """Messages by entity, of the sends that were told so."""
        found: dict[str, int] = {}
        for req, status, _ in self.answered:
            try:
                target = target_of(segments_of(req.path))
            except Invalid:
                continue
            if target.kind != "send" or req.method != b"POST" or status not in (200, 201):
                continue
            count = 1
            if req.content_type.partition(b";")[0].strip().lower().endswith(b"vnd.microsoft.servicebus.json"):
                count = len(json.loads(req.body.removeprefix(b"\xef\xbb\xbf")))
            found[target.entity] = found.get(target.entity, 0) + count
        return found


class _Faults(logging.Handler):
    """What the server logs as its own mistakes."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter().format(record))


async def _ticks(count: int = 12) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def request(method: bytes, target: bytes, body: bytes = b"", *headers: bytes, auth: bytes = ROOT) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + HOST.encode()]
    lines += [b"Authorization: " + auth] if auth else []
    lines += [*headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


# The judge.


def judge(output: bytes, answered: list[tuple[Request, int, int]]) -> None:
    """Everything a connection said is the answers it accounts for, each as documented."""
    at = 0
    for req, status, sent in answered:
        while output.startswith(CONTINUE, at):
            at += len(CONTINUE)
        if status == 499:
            continue  # The client left; a stream may have begun.
        assert len(output) >= at + sent, "an answer was not written whole"
        judge_answer(req, status, output[at : at + sent])
        at += sent
    while output.startswith(CONTINUE, at):
        at += len(CONTINUE)
    if output[at:]:
        assert [status for _, status, _ in answered[-1:]] == [499]
        assert b"\r\nTransfer-Encoding: chunked\r\n" in output[at:]


def judge_answer(req: Request, status: int, raw: bytes) -> None:
    head, separator, body = raw.partition(b"\r\n\r\n")
    assert separator
    first, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    assert match is not None, first
    assert int(match[1]) == status
    assert status in STATUSES, raw
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        assert field is not None, line
        name = field[1].lower()
        assert name not in fields or name not in _SINGLE, line
        fields[name] = field[2]
    assert fields[b"server"] == b"Microsoft-HTTPAPI/2.0"
    assert b"date" in fields
    if req.method == b"HEAD" or status == 204:
        assert body == b""
    elif fields.get(b"transfer-encoding") != b"chunked":
        assert len(body) == int(fields[b"content-length"]), raw
        judge_body(req, status, fields.get(b"content-type", b""), body)


def judge_body(req: Request, status: int, kind: bytes, body: bytes) -> None:
    if status >= 400:
        judge_error(status, kind, body)
    elif kind.startswith(b"application/json"):
        json.loads(body)
    elif (
        (req.method in (b"GET", b"PUT") or (status == 200 and req.method == b"POST"))
        and kind.startswith((b"application/xml", b"application/atom"))
        and body
    ):
        ElementTree.fromstring(body)


def judge_error(status: int, kind: bytes, body: bytes) -> None:
    if kind.startswith(b"application/json"):
        error = json.loads(body)["error"]
        assert error.keys() == {"code", "message"}
        assert error["message"]
    elif kind.startswith(b"text/plain"):
        assert body.startswith(b"Error:Code:%d:SubCode:" % status)
    else:
        assert kind == b"application/xml; charset=utf-8"
        root = ElementTree.fromstring(body)
        assert root.tag == "Error"
        assert [child.tag for child in root] == ["Code", "Detail"]
        assert root.findtext("Code") == str(status)
        assert _DETAIL.fullmatch(root.findtext("Detail") or ""), body
