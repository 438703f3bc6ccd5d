"""The configuration: every option declared once, from flags, environment and file to plain values.

Precedence: flags, then HUBBUB_* variables, then the file, then the defaults here. Only the command line
and the server import this; every other layer gets plain values.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from .broker.access import SharedKey, rights_of
from .broker.constraints import check_limits
from .broker.entity import (
    FOREVER,
    RULES_MAX,
    AnyEntity,
    AuthorizationRule,
    ConsumerGroup,
    EventHub,
    Queue,
    Rule,
    Subscription,
    Topic,
    consumer_group_path,
    rule_path,
    subscription_path,
)
from .broker.errors import Invalid
from .broker.filters import CORRELATED, CorrelationFilter, Filter, SqlFilter
from .broker.limits import PROFILES, Limits
from .front.http.limits import HttpLimits

WELL_KNOWN_NAME = "RootManageSharedAccessKey"
WELL_KNOWN_KEY = "SAS_KEY_VALUE"
"""The official emulators' own, and therefore no secret."""

OFF = -1
"""A port that is not opened."""
LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}|::1|localhost")


class ConfigError(Exception):
    """The configuration cannot be used; the text says where, what and what to do."""


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """How Entra tokens are checked: where the keys are, and what principals may do."""

    jwks: str
    audiences: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()
    principals: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceConfig:
    """One namespace. `swt_issuers`: (issuer name, password), besides `owner` with the first key."""

    name: str = "hubbub"
    hosts: tuple[str, ...] = ()
    keys: tuple[SharedKey, ...] = ()
    swt_issuers: tuple[tuple[str, str], ...] = ()
    swt_key: str = ""
    """Base64 key that signs simple web tokens; default: the first key."""
    entities: tuple[AnyEntity, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    host: str = "127.0.0.1"
    port: int = 5300
    """For HTTP first of all, though every port speaks everything. Ports: 0 picks a free one, OFF none."""
    https_port: int | None = None
    amqp_port: int | None = None
    amqps_port: int | None = None
    """None: the usual port if it is free and the other ports are the usual ones."""
    tls: str = "off"
    """off, auto (a local CA of our own) or files."""
    tls_cert: str = ""
    tls_key: str = ""
    tls_hosts: tuple[str, ...] = ()
    """Further names and addresses for the certificate of `auto`."""
    data: str = ".hubbub"
    memory: bool = False
    segment_bytes: int = 64 << 20
    auth: str = "keys"
    allow_well_known_key: bool = False
    namespaces: tuple[NamespaceConfig, ...] = ()
    jwt: JwtConfig | None = None
    profile: str = "standard"
    limits: tuple[tuple[str, int], ...] = ()
    http: tuple[tuple[str, int], ...] = ()
    """Bounds of HTTP connections, by their names in HttpLimits."""
    log_format: str = "text"
    access_log: bool = True
    missing_status: int = 410
    cors: bool = False
    connections_max: int = 16_384
    ready_file: str = ""
    drain_seconds: float = 10.0
    file: str = ""
    """Where this came from, if from a file; its keys are read again when it changes."""

    def limits_of(self) -> Limits:
        return replace(PROFILES[self.profile], **dict(self.limits))  # type: ignore[arg-type]

    def http_limits(self) -> HttpLimits:
        return HttpLimits(connections_max=self.connections_max, **dict(self.http))


def well_known() -> SharedKey:
    return SharedKey(WELL_KNOWN_NAME, rights_of(["Listen", "Send", "Manage"]), WELL_KNOWN_KEY)


def swt_key_of(key: str) -> str:
    """The Base64 key that signs simple web tokens: a rule's key itself if it can be one, else made from it,
    since the emulators' well-known key is no Base64."""
    try:
        if len(base64.b64decode(key, validate=True)) >= 16:
            return key
    except (binascii.Error, ValueError):
        pass
    return base64.b64encode(hashlib.sha256(key.encode()).digest()).decode()


def starter_entities(limits: Limits) -> tuple[AnyEntity, ...]:
    """What is there so that the first curl works."""
    found = (EventHub(path="events", partition_count=4), Queue(path="queue"))
    if not limits.topics_allowed:
        return found
    return (
        *found,
        Topic(path="topic"),
        Subscription(path="topic/subscriptions/subscription", topic="topic", name="subscription"),
    )


def finished(config: Config, environment: dict[str, str]) -> Config:
    """Fills what is left open and refuses what is not safe. Raises ConfigError."""
    keys = keys_of(environment.get("HUBBUB_KEYS", ""))
    namespaces = config.namespaces or (NamespaceConfig(),)
    namespaces = tuple(replace(ns, keys=keys or ns.keys or (well_known(),)) for ns in namespaces)
    config = replace(config, namespaces=namespaces)
    _check(config)
    if not any(ns.entities for ns in namespaces):
        first = replace(namespaces[0], entities=starter_entities(config.limits_of()))
        config = replace(config, namespaces=(first, *namespaces[1:]))
    return config


def _check(config: Config) -> None:
    public = LOOPBACK.fullmatch(config.host) is None
    if config.auth not in ("keys", "open"):
        raise ConfigError(f"auth is '{config.auth}'; it must be 'keys' or 'open'.")
    if config.auth == "open" and public:
        raise ConfigError(
            f"--auth open lets everybody in and is for loopback only; {config.host} is public. Use keys."
        )
    known = any(WELL_KNOWN_KEY in key.keys for ns in config.namespaces for key in ns.keys)
    if public and known and not config.allow_well_known_key:
        raise ConfigError(
            f"{config.host} is a public address and the key is the well-known one. Set HUBBUB_KEYS to keys of"
            " your own, or say --allow-well-known-key if this network is closed."
        )
    if twice := _twice(ns.name for ns in config.namespaces):
        raise ConfigError(f"Two namespaces are named '{twice}'.")
    for ns in config.namespaces:
        if len(ns.keys) > RULES_MAX:
            raise ConfigError(f"namespace '{ns.name}' has {len(ns.keys)} keys; {RULES_MAX} are allowed.")
    if config.profile not in PROFILES:
        raise ConfigError(f"limits is '{config.profile}'; it must be one of {', '.join(PROFILES)}.")
    for path, error in ((e.path, _beyond(e, config, ns)) for ns in config.namespaces for e in ns.entities):
        if error:
            raise ConfigError(f"'{path}': {error}")
    if config.tls == "files" and not (config.tls_cert and config.tls_key):
        raise ConfigError("TLS with files needs both --tls-cert and --tls-key.")


def _twice(names: Iterable[str]) -> str:
    """One that is there more than once, or nothing."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _beyond(entity: AnyEntity, config: Config, ns: NamespaceConfig) -> str:
    """What the limits say against it; mostly nothing."""
    try:
        check_limits(entity, config.limits_of(), ns.name)
    except Invalid as error:
        return str(error)
    return ""


def keys_of(text: str) -> tuple[SharedKey, ...]:
    """`name:key[:second key];…`; the rights of all but the root rule follow from its name's last part:
    listen, send or manage, else all. Raises ConfigError."""
    keys = []
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, rest = item.partition(":")
        primary, _, secondary = rest.partition(":")
        if not name or not primary:
            raise ConfigError("HUBBUB_KEYS must be name:key[:second key], several with ';' between them.")
        words = re.findall(r"listen|send|manage", name.lower())
        rights = words if words and "manage" not in words else ["Listen", "Send", "Manage"]
        keys.append(SharedKey(name, rights_of(rights), primary, secondary))
    return tuple(keys)


# Files.


def load(path: str) -> Config:
    """A hubbub.toml, or the Config.json of either official emulator. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: byte {error.start} cannot be read.") from None
    if path.endswith(".json"):
        return replace(_emulator(path, text), file=path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from None
    return replace(_Reader(path).config(table), file=path)


_PLAIN = {
    "host": str,
    "tls": str,
    "tls_cert": str,
    "tls_key": str,
    "data": str,
    "memory": bool,
    "segment_bytes": int,
    "auth": str,
    "allow_well_known_key": bool,
    "profile": str,
    "log_format": str,
    "access_log": bool,
    "missing_status": int,
    "cors": bool,
    "connections_max": int,
    "ready_file": str,
    "drain_seconds": float,
}
_PORTS = {
    "port": "port",
    "http_port": "port",
    **{f"{p}_port": f"{p}_port" for p in ("https", "amqp", "amqps")},
}
"""What a port is called in a file, and here."""
_SHAPES = {
    **dict.fromkeys(("limits", "http", "jwt", "principals"), "a table"),
    **dict.fromkeys(("namespace", "keys", "issuer", "queue", "topic", "hub"), "a list of tables"),
    **dict.fromkeys(("subscription", "authorization_rules"), "a list of tables"),
    **dict.fromkeys(
        ("hosts", "tls_hosts", "audiences", "issuers", "rights", "consumer_groups"), "a list of texts"
    ),
}
_ITEMS = {"a list of tables": dict, "a list of texts": str}
_RIGHTS = ("Listen", "Send", "Manage")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_DURATIONS = frozenset(
    ("lock_duration", "default_ttl", "duplicate_window", "auto_delete_on_idle", "retention")
)


def duration(text: str, where: str) -> int:
    """An ISO 8601 duration in ms; ten thousand years and more are for ever. Raises ConfigError."""
    match = _DURATION.fullmatch(text)
    if match is None or text in ("P", "PT"):
        raise ConfigError(f"{where}: '{text}' is not a duration like PT30S, PT1H or P7D.")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return min(FOREVER, round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000))


@dataclass(slots=True)
class _Reader:
    """Turns a TOML table into a Config, naming the place of every mistake."""

    path: str
    _names: dict[str, str] = field(default_factory=dict)

    def config(self, table: dict[str, Any]) -> Config:
        known = ["limits", "http", "jwt", "namespace", "keys", "queue", "topic", "hub", "issuer", "tls_hosts"]
        self._known(table, [*_PLAIN, *_PORTS, *known], "")
        values = {name: self._plain(name, table[name]) for name in _PLAIN if name in table}
        values |= {ours: self._port(name, table[name]) for name, ours in _PORTS.items() if name in table}
        values["tls_hosts"] = tuple(table.get("tls_hosts", ()))
        if "limits" in table:
            values["limits"] = self._bounds(table["limits"], PROFILES["standard"], Limits.__slots__, "limits")
        if "http" in table:
            names = [name for name in HttpLimits.__slots__ if name != "connections_max"]
            values["http"] = self._bounds(table["http"], HttpLimits(), names, "http")
            for name, value in values["http"]:
                if value < 1:
                    raise ConfigError(f"{self.path}: http: '{name}' must be at least 1, not {value}.")
        if "jwt" in table:
            values["jwt"] = self._jwt(table["jwt"])
        tables = table.get("namespace", [])
        own: dict[str, Any] = {
            name: table[name] for name in ("keys", "queue", "topic", "hub", "issuer") if name in table
        }
        namespaces = [self._namespace(item, f"namespace[{n}]") for n, item in enumerate(tables)]
        if own:
            namespaces.insert(0, self._namespace(dict(own, name="hubbub"), "top level"))
        values["namespaces"] = tuple(namespaces)
        return Config(**values)

    def _known(self, table: Any, names: list[str], where: str) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"{self.path}: {where} must be a table.")
        for name in table:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(names)}."
                raise ConfigError(f"{self.path}: '{name}' {f'in {where} ' if where else ''}is unknown.{hint}")
            self._shaped(name, table[name])

    def _shaped(self, name: str, value: Any) -> None:
        shape = _SHAPES.get(name)
        item = _ITEMS.get(shape or "")
        good = isinstance(value, dict) if item is None else isinstance(value, list)
        if shape is not None and not (good and all(isinstance(v, item or object) for v in value)):
            raise ConfigError(f"{self.path}: '{name}' must be {shape}, not {value!r:.60}.")

    def _bounds(
        self, table: dict[str, Any], usual: object, names: Iterable[str], where: str
    ) -> tuple[tuple[str, int], ...]:
        """Numbers, or what else is `usual`, none of them negative."""
        kinds = {name: type(getattr(usual, name)) for name in names}
        self._known(table, list(kinds), where)
        for name, value in table.items():
            if type(value) is not kinds[name] or value < 0:
                raise ConfigError(
                    f"{self.path}: {where}: '{name}' must be of type {kinds[name].__name__}, not {value!r}."
                )
        return tuple(sorted(table.items()))

    def _rights(self, names: Any, where: str) -> tuple[str, ...]:
        if not isinstance(names, list) or any(name not in _RIGHTS for name in names):
            raise ConfigError(
                f"{self.path}: {where}: rights must be of {', '.join(_RIGHTS)}, not {names!r:.60}."
            )
        return tuple(names)

    def _plain(self, name: str, value: Any) -> Any:
        kind = _PLAIN[name]
        if kind is float and isinstance(value, int):
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{self.path}: '{name}' must be of type {kind.__name__}, not {value!r}.")
        return value

    def _port(self, name: str, value: Any) -> int:
        if value == "off":
            return OFF
        if type(value) is not int or not 0 <= value <= 65535:
            raise ConfigError(
                f"{self.path}: '{name}' must be a port from 1 to 65535, 0 for a free one, or \"off\","
                f" not {value!r}."
            )
        return value

    def _jwt(self, table: dict[str, Any]) -> JwtConfig:
        self._known(table, ["jwks", "audiences", "issuers", "principals"], "jwt")
        found = table.get("principals", {}).items()
        principals = tuple((name, self._rights(rights, f"jwt principal '{name}'")) for name, rights in found)
        lists = {name: tuple(table.get(name, ())) for name in ("audiences", "issuers")}
        return JwtConfig(jwks=str(table.get("jwks", "")), principals=principals, **lists)

    def _namespace(self, table: dict[str, Any], where: str) -> NamespaceConfig:
        self._known(table, ["name", "hosts", "keys", "issuer", "swt_key", "queue", "topic", "hub"], where)
        entities: list[AnyEntity] = []
        for item in table.get("queue", []):
            entities.append(self._entity(Queue, item, f"{where} queue"))
        for item in table.get("topic", []):
            subscriptions = item.get("subscription", [])
            self._shaped("subscription", subscriptions)
            item = {name: value for name, value in item.items() if name != "subscription"}
            entities.append(self._entity(Topic, item, f"{where} topic"))
            for sub in subscriptions:
                name, topic = str(sub.get("name", "")), entities_path(item)
                place = {"path": subscription_path(topic, name), "topic": topic, "name": name}
                entities.append(self._entity(Subscription, sub, f"{where} subscription", place))
        for item in table.get("hub", []):
            groups = item.get("consumer_groups", [])
            self._shaped("consumer_groups", groups)
            item = {name: value for name, value in item.items() if name != "consumer_groups"}
            hub = self._entity(EventHub, item, f"{where} hub")
            entities.append(hub)
            entities += [_group(hub.path, str(name)) for name in groups]
        for item in table.get("issuer", []):
            self._known(item, ["name", "password"], f"{where} issuer")
            if not item.get("name") or not item.get("password"):
                raise ConfigError(f"{self.path}: an issuer in {where} needs 'name' and 'password'.")
        if twice := _twice(entity.key for entity in entities):
            raise ConfigError(f"{self.path}: '{twice}' stands twice in {where}; letter case does not count.")
        issuers = tuple((str(i["name"]), str(i["password"])) for i in table.get("issuer", []))
        return NamespaceConfig(
            name=str(table.get("name", "hubbub")).lower(),
            hosts=tuple(str(host).lower() for host in table.get("hosts", [])),
            keys=tuple(self._key(item, where) for item in table.get("keys", [])),
            swt_issuers=issuers,
            swt_key=str(table.get("swt_key", "")),
            entities=tuple(entities),
        )

    def _key(self, table: dict[str, Any], where: str) -> SharedKey:
        self._known(table, ["name", "rights", "primary", "secondary"], f"{where} keys")
        if not table.get("name") or not table.get("primary"):
            raise ConfigError(f"{self.path}: a key in {where} needs 'name' and 'primary'.")
        rights = rights_of(self._rights(table.get("rights", list(_RIGHTS)), f"{where} keys"))
        return SharedKey(str(table["name"]), rights, str(table["primary"]), str(table.get("secondary", "")))

    def _entity(
        self, kind: type[Any], table: dict[str, Any], where: str, place: dict[str, str] | None = None
    ) -> Any:
        fields = [*kind.__struct_fields__, "name"]
        self._known(table, [f for f in fields if f not in ("created", "updated", "topic")], where)
        values: dict[str, Any] = dict(place or {"path": entities_path(table)})
        for name, value in table.items():
            if name in _DURATIONS:
                value = duration(str(value), f"{self.path}: {where}: {name}")
            if name == "authorization_rules":
                value = tuple(self._rule(rule, where) for rule in value)
            if name != "name":
                values.setdefault(name, value)
        try:
            # Through msgspec, because a dataclass-like call would take any type for any field.
            entity = msgspec.convert(msgspec.to_builtins(kind(**values)), kind)
            entity.validate()
        except Exception as error:
            raise ConfigError(f"{self.path}: {where} '{values.get('path')}': {error}") from None
        return entity

    def _rule(self, table: dict[str, Any], where: str) -> AuthorizationRule:
        self._known(table, list(AuthorizationRule.__struct_fields__), f"{where} authorization_rules")
        rights = self._rights(table.get("rights", []), f"{where} authorization_rules")
        try:
            return msgspec.convert({**table, "rights": list(rights)}, AuthorizationRule)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{self.path}: {where} authorization_rules: {error}.") from None


def entities_path(table: dict[str, Any]) -> str:
    return str(table.get("path", table.get("name", "")))


def _group(hub: str, name: str) -> ConsumerGroup:
    return ConsumerGroup(path=consumer_group_path(hub, name), hub=hub, name=name)


# The official emulators' Config.json.

_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.S)
_TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')
_QUEUE_KEYS = {
    "LockDuration": "lock_duration",
    "DefaultMessageTimeToLive": "default_ttl",
    "DuplicateDetectionHistoryTimeWindow": "duplicate_window",
    "DeadLetteringOnMessageExpiration": "dead_letter_on_expiration",
    "MaxDeliveryCount": "deliveries_max",
    "RequiresDuplicateDetection": "requires_duplicate_detection",
    "RequiresSession": "requires_session",
    "ForwardTo": "forward_to",
    "ForwardDeadLetteredMessagesTo": "forward_dead_letters_to",
}


def _emulator(path: str, text: str) -> Config:
    plain = _COMMENT.sub(lambda m: m[1] or "", text)
    plain = _TRAILING.sub(lambda m: m[1] or "", plain)
    try:
        user = msgspec.json.decode(plain)["UserConfig"]
        hubs = user.get("NamespaceConfig", [])
        buses = user.get("Namespaces", [])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a Config.json of an Azure emulator: {error}.") from None
    if not hubs and not buses:
        raise ConfigError(f"{path}: UserConfig has neither Namespaces nor NamespaceConfig.")
    try:
        found = [_emulator_hubs(item) for item in hubs] + [_emulator_bus(path, item) for item in buses]
        for namespace in found:
            for entity in namespace.entities:
                entity.validate()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {error!r}") from None
    return Config(namespaces=tuple(found))


def _emulator_hubs(item: dict[str, Any]) -> NamespaceConfig:
    entities: list[AnyEntity] = []
    for hub in item.get("Entities", []):
        entities.append(EventHub(path=hub["Name"], partition_count=int(hub["PartitionCount"])))
        for group in hub.get("ConsumerGroups", []):
            if group["Name"].lower() != "$default":
                entities.append(_group(hub["Name"], group["Name"]))
    return NamespaceConfig(name=str(item["Name"]).lower(), entities=tuple(entities))


def _emulator_bus(path: str, item: dict[str, Any]) -> NamespaceConfig:
    entities: list[AnyEntity] = []
    for queue in item.get("Queues", []):
        entities.append(Queue(path=queue["Name"], **_emulator_properties(path, queue)))
    for topic in item.get("Topics", []):
        name = topic["Name"]
        entities.append(Topic(path=name, **_emulator_properties(path, topic)))
        for sub in topic.get("Subscriptions", []):
            values = _emulator_properties(path, sub)
            where = subscription_path(name, sub["Name"])
            entities.append(Subscription(path=where, topic=name, name=sub["Name"], **values))
            entities += [_emulator_rule(path, where, rule) for rule in sub.get("Rules", [])]
    return NamespaceConfig(name=str(item["Name"]).lower(), entities=tuple(entities))


def _emulator_properties(path: str, item: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in item.get("Properties", {}).items():
        ours = _QUEUE_KEYS.get(name)
        if ours is None or value in ("", None):
            continue
        values[ours] = duration(value, f"{path}: {name}") if ours in _DURATIONS else value
    return values


def _emulator_rule(path: str, subscription: str, item: dict[str, Any]) -> Rule:
    name, properties = str(item["Name"]), item.get("Properties", {})
    where = rule_path(subscription, name)
    action, parameters = properties.get("Action", {}), {}
    kind = str(properties.get("FilterType", "Sql")).lower()
    if kind == "sql":
        wanted: Filter = SqlFilter(expression=properties.get("SqlFilter", {}).get("SqlExpression", "1=1"))
    elif kind == "correlation":
        found = properties.get("CorrelationFilter", {})
        system = {
            _CORRELATED[n]: str(v) for n, v in found.items() if n in _CORRELATED and v not in ("", None)
        }
        parameters = {n: _typed(v) for n, v in (found.get("Properties") or {}).items()}
        wanted = CorrelationFilter(system=system, properties=parameters)
    else:
        raise ConfigError(
            f"{path}: rule '{where}': the filter type must be Sql or Correlation, not '{kind}'."
        )
    text = str(action.get("SqlExpression", ""))
    return Rule(path=where, subscription=subscription, name=name, filter=wanted, action=text)


_CORRELATED = {name: name for name in CORRELATED} | {"Subject": "Label"}


def _typed(value: Any) -> tuple[str, str]:
    """A JSON value as rules carry values."""
    if isinstance(value, bool):
        return "boolean", str(value).lower()
    kind = {int: "long", float: "double"}.get(type(value), "string")
    return kind, str(value)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("HUBBUB_")}
