"""The composition root: builds the engine, the namespaces and the doors; starts and stops them in order.

The only module that knows all layers. `run` is the whole life of a server process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from . import __version__
from .broker.access import SharedKey, acs_issuer, signing_key
from .broker.entity import AnyEntity, EventHub, Queue, Rule, Subscription, Topic, targets_of
from .broker.errors import AlreadyExists, BrokerError
from .broker.namespace import Namespace
from .broker.node import Broker
from .clock import Clock, SystemClock
from .config import OFF, Config, ConfigError, NamespaceConfig, environment, finished, load, swt_key_of
from .engine.log import Engine, EngineError
from .front.amqp.server import AmqpServer
from .front.amqp.websocket import accept, is_websocket
from .front.api import Api, Probe
from .front.http.request import Request
from .front.http.server import HttpServer
from .front.letters import Letters
from .front.listener import Listener, Silence, Sniffer
from .front.rest.door import RestDoor, RestOptions
from .front.rest.management import Management
from .front.rest.wrap import wrap_response
from .telemetry import AccessLog, Meter

if TYPE_CHECKING:
    import ssl

    from .front.jwt import JwtVerifier

log = logging.getLogger("hubbub")

KEPT_FREE_BYTES = 32 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt

HTTP_PORT, AMQP_PORT, HTTPS_PORT, AMQPS_PORT = 5300, 5672, 5343, 5671
LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))
"""Names of this machine, which mean the first namespace unless another one claims them."""
KEYS_PERIOD = 2.0
"""Seconds between looks at the configuration file for new keys."""


def _reason(error: OSError) -> str:
    """The system's words for it, without what asyncio wraps around them."""
    import ssl

    if isinstance(error, ssl.SSLError):
        return f"not a certificate and its key in PEM form ({error.reason or error})"
    number = error.errno or 0
    return os.strerror(number).lower() if number > 0 else error.strerror or str(error)


class PortTaken(Exception):
    """A port that was asked for cannot be had."""

    def __init__(self, where: str, scheme: str, error: OSError) -> None:
        flag = "--port" if scheme == "http" else f"--{scheme}-port"
        super().__init__(
            f"{where} cannot be used: {_reason(error)}. Another one: {flag} 0 picks a free port."
        )


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started server tells the world."""

    version: str
    seconds: float
    urls: dict[str, str]
    """By scheme: http, amqp, and https, amqps if TLS is on. Every port speaks all of them."""
    connection_string: str
    entities: tuple[str, ...]
    data: str


class Server:
    """Everything that runs. `start` and `stop` once each."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self._listeners: list[Listener] = []
        self._keys_task: asyncio.Task[None] | None = None
        self._urls: dict[str, str] = {}

    async def start(self) -> Ready:
        """Raises EngineError, ConfigError, OSError."""
        began = time.perf_counter()
        config = self.config
        self.engine = _engine(config)
        self._jwt = _jwt(config)
        if self._jwt is not None:
            await self._jwt.refresh()
        self.namespaces = [self._namespace(ns) for ns in config.namespaces]
        for namespace, ns in zip(self.namespaces, config.namespaces, strict=True):
            await _ensure(namespace, ns)
        self.broker = Broker(self.engine, self.clock, self.namespaces)
        self.meter = Meter(self.broker)
        self.access = AccessLog(sys.stderr, config.log_format) if config.access_log else None
        self.api = api = Api(self.broker, self.meter, Probe(self.engine, self.clock), self.clock, __version__)
        options = RestOptions(config.missing_status, config.cors, self._wrap, self._websocket)
        self.door = RestDoor(self.broker, self.clock, Management(self.clock), api, options, self.meter)
        self.http = HttpServer(
            self.door.handle,
            self.door.admit,
            self.door.error_response,
            config.http_limits(),
            self.clock,
            self._on_complete,
        )
        self.meter.http = self.http
        self.amqp = AmqpServer(self.broker, self.clock, self.meter, connections_max=config.connections_max)
        self._silence = Silence(config.connections_max)
        await self._listen()
        self.broker.start()
        if config.file:
            self._keys_task = asyncio.create_task(self._watch_keys())
        return self._ready(time.perf_counter() - began)

    async def stop(self) -> None:
        """Answers what is in work, flushes what waits, gives up the data folder."""
        for listener in self._listeners:
            listener.close()
        if self._keys_task is not None:
            self._keys_task.cancel()
        self.broker.stop()
        self.api.stop()
        await self.amqp.drain()
        await self.http.drain(int(self.config.drain_seconds * 1000))
        await self.engine.close()
        if self.access is not None:
            self.access.close()

    def rotate(self, keys: dict[str, tuple[SharedKey, ...]]) -> None:
        """New keys for namespaces, by name; tokens of old ones stop working at once."""
        for namespace in self.namespaces:
            if namespace.name in keys and namespace.keys != keys[namespace.name]:
                namespace.keys = keys[namespace.name]
                namespace.changed()
                self.amqp.rotated(namespace)
                log.info("the keys of namespace %s have changed", namespace.name)

    def _namespace(self, ns: NamespaceConfig) -> Namespace:
        others = {host for other in self.config.namespaces if other is not ns for host in other.hosts}
        hosts = {ns.name, f"{ns.name}.servicebus.windows.net", *LOCAL_HOSTS.difference(others), *ns.hosts}
        return Namespace(
            ns.name,
            self.engine,
            self.clock,
            self.config.limits_of(),
            hosts=frozenset(hosts),
            keys=ns.keys,
            swt_issuers={acs_issuer(ns.name): _swt_key(ns)},
            jwt=self._jwt,
            open=self.config.auth == "open",
            letters=Letters(),
        )

    def _wrap(self, namespace: Namespace, form: bytes, host: bytes, now: int) -> Any:
        ns = next(ns for ns in self.config.namespaces if ns.name == namespace.name)
        first = namespace.keys[0]
        issuers = {"owner": (first.primary, first.rights)}
        issuers |= {name: (password, first.rights) for name, password in ns.swt_issuers}
        return wrap_response(
            form,
            issuers=issuers,
            authority=namespace.gate.authority,
            signing_key=signing_key(_swt_key(ns)),
            now=now,
            request_host=host,
        )

    async def _listen(self) -> None:
        """Opens the ports that were asked for, and the usual ones that are free."""
        config = self.config
        context = self._tls_context()
        usual = config.port in (HTTP_PORT, OFF)
        wanted = {"http": config.port, "amqp": _or(config.amqp_port, AMQP_PORT if usual else OFF)}
        if context is not None:
            wanted["https"] = _or(config.https_port, HTTPS_PORT)
            usual = usual and config.https_port in (None, HTTPS_PORT, OFF)
            wanted["amqps"] = _or(config.amqps_port, AMQPS_PORT if usual else OFF)
        elif any(port not in (None, OFF) for port in (config.https_port, config.amqps_port)):
            log.warning("no port for TLS alone is opened: TLS is off; --tls auto turns it on")
        for scheme, port in wanted.items():
            if port != OFF:
                await self._open(scheme, port, context, tls_only=scheme in ("https", "amqps"))
        if not self._urls:
            raise ConfigError("Every port is off: leave at least one of http, https, amqp and amqps on.")

    async def _open(self, scheme: str, port: int, context: ssl.SSLContext | None, *, tls_only: bool) -> None:
        config = self.config
        listener = Listener(
            self._sniffer(False), self._sniffer(True), self._silence, context, tls_only=tls_only
        )
        try:
            await listener.open(config.host, port)
        except OSError as error:
            asked = scheme == "http" or getattr(config, f"{scheme}_port") is not None
            if asked:
                raise PortTaken(f"{config.host}:{port}", scheme, error) from error
            others = ", ".join(self._urls.values())
            log.warning("%s port %s is taken; %s is spoken at %s as well", scheme, port, scheme, others)
            return
        self._listeners.append(listener)
        host = f"[{config.host}]" if ":" in config.host else config.host
        self._urls[scheme] = f"{scheme}://{host}:{listener.port}"

    def _tls_context(self) -> ssl.SSLContext | None:
        config = self.config
        if config.tls == "off":
            return None
        from . import tls

        cert, key = config.tls_cert, config.tls_key
        if config.tls == "auto":
            names = [f"{ns.name}.servicebus.windows.net" for ns in config.namespaces]
            names += [host for ns in config.namespaces for host in ns.hosts]
            folder = Path(config.data) / "tls"
            cert, key = map(str, tls.ensure_certificate(folder, [config.host, *names, *config.tls_hosts]))
        try:
            return tls.server_context(Path(cert), Path(key))
        except OSError as error:
            raise ConfigError(
                f"{cert} with the key {key} cannot be used for TLS: {_reason(error)}."
            ) from error

    def _websocket(self, request: Request) -> bool:
        return is_websocket(request) and accept(request, self.amqp.protocol)

    def _sniffer(self, secure: bool) -> Callable[[], Sniffer]:
        """Every port speaks HTTP and AMQP."""
        http = self.http.protocol(secure)
        return lambda: Sniffer(http, self.amqp.protocol, self._silence)

    def _on_complete(self, request: Any, status: int, received: int, sent: int, seconds: float) -> None:
        self.meter.answered(self.door.counters_of(request), status, received, sent)
        if self.access is not None:
            self.access.line(request, status, received, sent, seconds)

    async def _watch_keys(self) -> None:
        """Keys change without a restart when the file does."""
        path = self.config.file
        seen = os.stat(path).st_mtime_ns
        while True:
            await asyncio.sleep(KEYS_PERIOD)
            with contextlib.suppress(OSError):
                if (changed := os.stat(path).st_mtime_ns) != seen:
                    seen = changed
                    self.reload_keys()

    def reload_keys(self) -> None:
        """Reads the keys again, from the file if there is one, and from the environment."""
        try:
            config = load(self.config.file) if self.config.file else self.config
            config = finished(config, environment())
        except ConfigError as error:
            log.error("the keys stay as they are: %s", error)
            return
        self.rotate({ns.name: ns.keys for ns in config.namespaces})

    def _ready(self, seconds: float) -> Ready:
        config = self.config
        first = config.namespaces[0].keys[0]
        connection = (
            f"Endpoint=sb://{self._endpoint()};SharedAccessKeyName={first.name};"
            f"SharedAccessKey={first.primary};UseDevelopmentEmulator=true;"
        )
        data = "in memory: gone when this ends" if config.memory else os.path.abspath(config.data)
        return Ready(__version__, seconds, dict(self._urls), connection, tuple(self._summary()), data)

    def _endpoint(self) -> str:
        """Host and port for connection strings; without a port, clients take the usual ones."""
        config = self.config
        host = "localhost" if config.host in ("127.0.0.1", "::1", "0.0.0.0", "::") else config.host  # noqa: S104
        ports = {scheme: int(url.rpartition(":")[2]) for scheme, url in self._urls.items()}
        if ports.get("http") == HTTP_PORT and ports.get("amqp") == AMQP_PORT:
            return host
        return f"{host}:{ports.get('http') or ports.get('amqp') or next(iter(ports.values()))}"

    def _summary(self) -> list[str]:
        lines = []
        for ns in self.namespaces:
            lines += [f"hub {e.path} ({e.partition_count} partitions)" for e in ns.entities(EventHub)]
            lines += [f"queue {e.path}" for e in ns.entities(Queue)]
            for topic in ns.entities(Topic):
                names = ", ".join(s.name for s in ns.entities(Subscription, topic.path))
                lines.append(f"topic {topic.path} ({names or 'no subscription'})")
        return lines


def _engine(config: Config) -> Engine:
    if config.memory:
        from .engine.memory import MemoryEngine

        return MemoryEngine()
    from .engine.file import FileEngine

    try:
        return FileEngine(config.data, segment_bytes=config.segment_bytes)
    except OSError as error:
        where = "" if error.filename in (None, config.data) else f"{error.filename}: "
        why = "it is a file" if os.path.isfile(config.data) else f"{where}{_reason(error)}"
        raise EngineError(
            f"the data folder {config.data} cannot be used: {why}. Choose another with --data."
        ) from error


def _jwt(config: Config) -> JwtVerifier | None:
    if config.jwt is None:
        return None
    from .front.jwt import AUDIENCES, JwtVerifier

    jwt = config.jwt
    from .broker.access import rights_of

    return JwtVerifier(
        jwt.jwks,
        audiences=jwt.audiences or AUDIENCES,
        issuers=jwt.issuers,
        principals={name: rights_of(rights) for name, rights in jwt.principals},
    )


def _swt_key(ns: NamespaceConfig) -> str:
    return ns.swt_key or swt_key_of(ns.keys[0].primary)


async def _ensure(namespace: Namespace, ns: NamespaceConfig) -> None:
    """Creates what the configuration names and is not there yet; what is there stays as it is."""
    missing = [entity for entity in ns.entities if namespace.entity(entity.path) is None]
    ring: list[AnyEntity] = []
    while missing:
        entity = missing.pop(_next_of(namespace, missing))
        if not all(map(namespace.entity, targets_of(entity))):
            ring.append(entity)
            entity = replace(entity, forward_to="", forward_dead_letters_to="")
        rules = (e for e in ns.entities if isinstance(e, Rule) and e.subscription == entity.path)
        with contextlib.suppress(AlreadyExists):
            await _made(entity, namespace.create(entity, next(rules, None)))
    for entity in ring:
        await _made(entity, namespace.update(entity))
    for entity in ns.entities:
        there = namespace.entity(entity.path)
        if type(there) is not type(entity) and there is not None:
            kind, wanted = there.noun.lower(), entity.noun.lower()
            raise ConfigError(f"'{entity.path}' is a {kind} already; it cannot be a {wanted} as configured.")


async def _made(entity: AnyEntity, making: Awaitable[object]) -> None:
    try:
        await making
    except AlreadyExists:
        raise
    except BrokerError as error:
        raise ConfigError(f"'{entity.path}' cannot be made as configured: {error}") from error


def _next_of(namespace: Namespace, missing: list[AnyEntity]) -> int:
    """Which one comes next: after its parent, and after what it forwards to, unless they form a ring."""

    def born(entity: AnyEntity) -> bool:
        return not entity.parent or namespace.entity(entity.parent) is not None

    for free in (True, False):
        for n, entity in enumerate(missing):
            if born(entity) and (not free or all(map(namespace.entity, targets_of(entity)))):
                return n
    return 0


def _or(port: int | None, usual: int) -> int:
    return usual if port is None else port


def run(config: Config, announce: Callable[[Ready], None]) -> int:
    """Serves until SIGTERM or SIGINT, then drains. Returns the exit code."""
    # The flush thread must get the interpreter soon after its fdatasync returns.
    sys.setswitchinterval(0.001)
    _keep_freed_memory()
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.run(_serve(config, announce))
    return asyncio.run(_serve(config, announce))


def _keep_freed_memory() -> None:
    """Batches and flushes of a megabyte come and go. Left alone, the GNU C library gives such memory back to
    the system at once and asks for it anew, page by page, which costs more than what is done with it."""
    with contextlib.suppress(AttributeError, OSError):  # Another C library, or none to be found.
        adjust = ctypes.CDLL(None).mallopt
        adjust(_TRIM_THRESHOLD, KEPT_FREE_BYTES)
        adjust(_MMAP_THRESHOLD, KEPT_FREE_BYTES)


async def _serve(config: Config, announce: Callable[[Ready], None]) -> int:
    server = Server(config)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload_keys)
    ready = await server.start()
    announce(ready)
    if config.ready_file:
        _write_ready(config.ready_file, ready)
    _calm_the_collector()
    await stopping.wait()
    await server.stop()
    return 0


def _calm_the_collector() -> None:
    """Thousands of requests in flight are many young objects and no garbage: looking through them, and
    through everything older, on every few hundred allocations took a third of the time. The middle ones are
    few, or a look through millions of them, where messages come and stay, would keep all others waiting."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 200)


def _write_ready(path: str, ready: Ready) -> None:
    """Appears whole or not at all, since somebody waits for it."""
    text = json.dumps(
        {
            "http": ready.urls.get("http"),
            "https": ready.urls.get("https"),
            # Every port speaks it.
            "amqp": ready.urls.get("amqp") or ready.urls.get("http", "").replace("http", "amqp", 1) or None,
            "amqps": ready.urls.get("amqps")
            or ready.urls.get("https", "").replace("https", "amqps", 1)
            or None,
            "connection_string": ready.connection_string,
            "version": ready.version,
            "pid": os.getpid(),
        }
    )
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"the ready file {path} cannot be written: {_reason(error)}.") from error
