"""Counters and logs for the people who run it. Called by the doors and the server only.

Counts are plain integers in slots, read when somebody asks. Names follow Azure Monitor's. Nothing here
ever sees a token: the access log has the path without its query.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .broker.entity import EventHub, Queue, Subscription, Topic

if TYPE_CHECKING:
    from .broker.node import Broker

ENTITIES_MAX = 2_000
"""Entities with series of their own; beyond that they are counted together."""
LINES_MAX = 20_000
FLUSH_SECONDS = 0.05


class Connections(Protocol):
    """What a door can say of its connections."""

    connections_total: int
    connections_refused: int

    @property
    def connections_open(self) -> int: ...


class Answered(Protocol):
    """A request as its line in the access log needs it. `received` in ms; `note` is what went wrong."""

    method: bytes
    path: bytes
    received: int
    note: str

    @property
    def peer(self) -> str: ...


class Counters:
    """What one entity has seen since the start."""

    __slots__ = (
        "incoming_bytes",
        "incoming_messages",
        "outgoing_bytes",
        "outgoing_messages",
        "requests",
        "server_errors",
        "successful",
        "throttled",
        "user_errors",
    )

    def __init__(self) -> None:
        self.requests = self.successful = self.user_errors = self.server_errors = self.throttled = 0
        self.incoming_messages = self.outgoing_messages = 0
        self.incoming_bytes = self.outgoing_bytes = 0


_SERIES = (
    ("IncomingRequests", "requests", "Requests received"),
    ("SuccessfulRequests", "successful", "Requests answered with success"),
    ("UserErrors", "user_errors", "Requests refused for a fault of the client"),
    ("ServerErrors", "server_errors", "Requests failed for a fault of the server"),
    ("ThrottledRequests", "throttled", "Requests refused because the server is busy or full"),
    ("IncomingMessages", "incoming_messages", "Events and messages accepted"),
    ("OutgoingMessages", "outgoing_messages", "Messages delivered"),
    ("IncomingBytes", "incoming_bytes", "Bytes of request bodies"),
    ("OutgoingBytes", "outgoing_bytes", "Bytes of responses"),
)


class Meter:
    """All counters of a server; `text` is the Prometheus exposition."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.http: Connections | None = None
        self._by_entity: dict[tuple[str, str], Counters] = {}

    def of(self, namespace: str, entity: str) -> Counters:
        """The counters of an entity; "" is what belongs to none."""
        key = (namespace, entity)
        counters = self._by_entity.get(key)
        if counters is None:
            if len(self._by_entity) >= ENTITIES_MAX:
                key = (namespace, "(others)")
            counters = self._by_entity.setdefault(key, Counters())
        return counters

    def answered(self, counters: Counters, status: int, received: int, sent: int) -> None:
        counters.requests += 1
        counters.incoming_bytes += received
        counters.outgoing_bytes += sent
        if status < 400:
            counters.successful += 1
        elif status in (429, 503):
            counters.throttled += 1
        elif status < 500:
            counters.user_errors += 1
        else:
            counters.server_errors += 1

    def text(self) -> str:
        """Prometheus text format 0.0.4."""
        lines: list[str] = []
        for name, slot, help_text in _SERIES:
            lines += _head(f"hubbub_{name}_total", "counter", help_text)
            for (namespace, entity), counters in self._by_entity.items():
                labels = _labels(namespace=namespace, entity=entity)
                lines.append(f"hubbub_{name}_total{labels} {getattr(counters, slot)}")
        lines += self._connections()
        lines += self._contents()
        return "\n".join(lines) + "\n"

    def _connections(self) -> list[str]:
        if self.http is None:
            return []
        opened, refused = self.http.connections_total, self.http.connections_refused
        return [
            *_head("hubbub_ActiveConnections", "gauge", "Open connections"),
            f"hubbub_ActiveConnections {self.http.connections_open}",
            *_head("hubbub_ConnectionsOpened_total", "counter", "Connections opened"),
            f"hubbub_ConnectionsOpened_total {opened}",
            *_head("hubbub_ConnectionsRefused_total", "counter", "Connections over the limit"),
            f"hubbub_ConnectionsRefused_total {refused}",
        ]

    def _contents(self) -> list[str]:
        rows: list[tuple[str, dict[str, int]]] = []
        for namespace in self._broker.namespaces.values():
            topics = namespace.entities(Topic)
            receivers = namespace.entities(Queue) + [
                s for topic in topics for s in namespace.entities(Subscription, topic.path)
            ]
            for entity in receivers[:ENTITIES_MAX]:
                counts = namespace.counts(entity.path)
                values = {
                    "Messages": counts.active + counts.scheduled + counts.dead_letter + counts.deferred,
                    "ActiveMessages": counts.active,
                    "DeadletteredMessages": counts.dead_letter,
                    "ScheduledMessages": counts.scheduled,
                    "Size": counts.size_bytes,
                }
                rows.append((_labels(namespace=namespace.name, entity=entity.path), values))
            for hub in namespace.entities(EventHub)[:ENTITIES_MAX]:
                logs = namespace.hub(hub.path).partitions
                size = {"Messages": sum(log.count for log in logs), "Size": sum(log.bytes for log in logs)}
                rows.append((_labels(namespace=namespace.name, entity=hub.path), size))
        lines: list[str] = []
        for name in ("Messages", "ActiveMessages", "DeadletteredMessages", "ScheduledMessages", "Size"):
            lines += _head(f"hubbub_{name}", "gauge", f"{name} now (Size in bytes)")
            lines += [f"hubbub_{name}{labels} {values[name]}" for labels, values in rows if name in values]
        return lines


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(**labels: str) -> str:
    quoted = (
        name + '="' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        for name, value in labels.items()
    )
    return "{" + ",".join(quoted) + "}"


class AccessLog:
    """One line a request, written by a thread of its own so that a stuck reader stops nobody; what does
    not fit in the queue is dropped and counted."""

    def __init__(self, stream: TextIO, form: str) -> None:
        self._stream = stream  # Held, or its descriptor could be closed under the thread.
        self._descriptor = stream.fileno()
        self._json = form == "json"
        self._lines: deque[tuple[Any, ...]] = deque(maxlen=LINES_MAX)
        self.dropped = 0
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._write_lines, name="hubbub-access", daemon=True)
        self._thread.start()

    def line(self, request: Answered, status: int, received: int, sent: int, seconds: float) -> None:
        lines = self._lines
        if len(lines) >= LINES_MAX:
            self.dropped += 1
            return
        peer, note = request.peer, request.note
        lines.append((request.received, status, request.method, request.path, received, seconds, peer, note))

    def close(self) -> None:
        self._ending = True
        self._wake.set()
        self._thread.join(1)

    def _write_lines(self) -> None:
        while not self._ending:
            self._wake.wait(FLUSH_SECONDS)
            self._flush()

    def _flush(self) -> None:
        form = _json_line if self._json else _text_line
        while self._lines:
            count = min(len(self._lines), 200)
            text = "".join(form(*self._lines.popleft()) for _ in range(count)).encode("utf-8", "replace")
            while text and not (self._ending and not _writable(self._descriptor)):
                try:
                    text = text[os.write(self._descriptor, text) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [], 1)
                except OSError:
                    return


def _writable(descriptor: int) -> bool:
    return bool(select.select([], [descriptor], [], 0.2)[1])


def _text_line(
    received: int, status: int, method: bytes, path: bytes, size: int, seconds: float, peer: str, note: str
) -> str:
    moment = datetime.fromtimestamp(received / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    where = ascii(path.decode("latin-1").lstrip("/"))[1:-1]
    verb = method.decode("latin-1")
    line = f"{moment}  {status}  {verb:<6}  {where}  {size} B  {seconds * 1000:.1f} ms  {peer}"
    # Escaped, since a client chooses the path, and errors repeat what it sent.
    return f"{line}  {ascii(note)[1:-1]}\n" if note else line + "\n"


def _json_line(
    received: int, status: int, method: bytes, path: bytes, size: int, seconds: float, peer: str, note: str
) -> str:
    fields = {
        "time": datetime.fromtimestamp(received / 1000, UTC).isoformat(timespec="milliseconds"),
        "kind": "access",
        "status": status,
        "method": method.decode("latin-1"),
        "path": path.decode("latin-1"),
        "bytes": size,
        "milliseconds": round(seconds * 1000, 3),
        "peer": peer,
    }
    return json.dumps(fields | {"note": note} if note else fields) + "\n"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "kind": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up_logging(form: str, level: int) -> None:
    """Everything but access lines, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s  %(levelname)s  %(name)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonFormatter() if form == "json" else text)
    root = logging.getLogger("hubbub")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
