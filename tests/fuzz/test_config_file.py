"""The configuration file, in TOML and as the emulators' JSON: a usable configuration or a ConfigError.

Usable means: the namespaces it describes come to life, all entities in them, and again at the next start.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.config import Config, ConfigError, finished, load
from hubbub.engine.memory import MemoryEngine
from hubbub.server import Server, _ensure

EXAMPLES = settings.default.max_examples


def loaded(text: bytes, kind: str) -> Config | None:
    """The configuration, which works; None if it was refused with a reason that names the file."""
    with tempfile.NamedTemporaryFile(suffix=kind) as file:
        file.write(text)
        file.flush()
        try:
            config = load(file.name)
        except ConfigError as error:
            said = str(error)
            config = None
        if config is None:
            assert said.startswith(file.name + ": ")
            assert said[-1] in ".?", said
            return None
    try:
        config = finished(config, {})
    except ConfigError as error:
        said = str(error)
        assert said
        return None
    asyncio.run(live(config))
    return config


async def live(config: Config) -> None:
    """Everything the server does with a configuration but to listen, and to fetch keys."""
    engine, clock = MemoryEngine(), ManualClock()
    server = Server(config, clock)
    server.engine, server._jwt = engine, None
    for ns in config.namespaces:
        namespace = server._namespace(ns)
        try:
            await _ensure(namespace, ns)
        except ConfigError as error:
            # What only the namespace can know, such as its limits.
            said = str(error)
        else:
            said = f"namespace {ns.name}: "
            assert all(namespace.entity(entity.path) is not None for entity in ns.entities)
        assert said.startswith(f"namespace {ns.name}: ")
        again = Namespace(ns.name, engine, clock, config.limits_of())
        assert again._entities == namespace._entities


# TOML, written here from plain values, since the standard library only reads it.


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
STRINGS = st.one_of(
    TEXT,
    st.sampled_from(
        [
            "PT5S",
            "P1D",
            "P",
            "PT",
            "P9" + "9" * 300 + "D",
            "PT1.5S",
            "keys",
            "open",
            "auto",
            "files",
            "premium",
            "none",
            "0.0.0.0",
            "Send",
            "Manage",
            "AAECAwQFBgcICQoLDA0ODw==",
            "x" * 300,
            "a/b",
            "$Default",
            "messages",
            "é",
        ]
    ),
)
SCALARS = (
    STRINGS
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 1, -1, 4, 1024, 1 << 62, 1 << 64])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DURATIONS = st.sampled_from(["PT5S", "PT1M", "P1D", "P7D", "x"])
RIGHTS = st.lists(st.sampled_from(["Listen", "Send", "Manage", "x"]), max_size=3)


def table(
    required: dict[str, Any], optional: dict[str, Any], rare: list[str]
) -> st.SearchStrategy[dict[str, Any]]:
    """A table that may well be right, or has something odd in one place."""
    good = st.fixed_dictionaries(required, optional=optional)
    names = st.sampled_from([*required, *optional, *rare])
    return st.tuples(good, st.just({}) | st.dictionaries(names, VALUES, max_size=1)).map(
        lambda t: {**t[0], **t[1]}
    )


NAME = st.sampled_from(["a", "b", "events", "q/1", "A"]) | STRINGS
RULE = table({"name": NAME, "rights": RIGHTS, "primary": STRINGS}, {"secondary": STRINGS}, ["created", "x"])
KEY = table({"name": NAME, "primary": STRINGS}, {"rights": RIGHTS, "secondary": STRINGS}, ["x"])
QUEUE = table(
    {"name": NAME},
    {"lock_duration": DURATIONS, "deliveries_max": st.integers(0, 20), "requires_session": st.booleans()},
    [
        "path",
        "default_ttl",
        "size_mb_max",
        "status",
        "authorization_rules",
        "forward_to",
        "created",
        "user_metadata",
        "x",
    ],
)
SUBSCRIPTION = table(
    {"name": NAME}, {"lock_duration": DURATIONS, "deliveries_max": st.integers(1, 9)}, ["topic", "path", "x"]
)
TOPIC = table(
    {"name": NAME}, {"subscription": st.lists(SUBSCRIPTION, max_size=2)}, ["default_ttl", "size_mb_max", "x"]
)
HUB = table(
    {"name": NAME},
    {
        "partition_count": st.integers(1, 8),
        "retention": DURATIONS,
        "consumer_groups": st.lists(NAME, max_size=2),
        "authorization_rules": st.lists(RULE, max_size=2),
    },
    ["retention_bytes_max", "status", "x"],
)
ISSUER = table({"name": NAME, "password": STRINGS}, {}, ["x"])
PARTS = {
    "keys": st.lists(KEY, max_size=2),
    "queue": st.lists(QUEUE, max_size=2),
    "topic": st.lists(TOPIC, max_size=2),
    "hub": st.lists(HUB, max_size=2),
    "issuer": st.lists(ISSUER, max_size=1),
}
NAMESPACE = table({"name": NAME}, {**PARTS, "hosts": st.lists(STRINGS, max_size=2)}, ["swt_key", "x"])
LIMITS = table(
    {}, {"event_bytes_max": st.integers(0, 1 << 30), "topics_allowed": st.booleans()}, ["hubs_max", "x"]
)
JWT = table(
    {"jwks": STRINGS},
    {"audiences": st.lists(STRINGS, max_size=2), "principals": st.dictionaries(NAME, RIGHTS)},
    ["x"],
)
TOP = table(
    {},
    {
        **PARTS,
        "port": st.integers(0, 65535),
        "profile": st.sampled_from(["basic", "standard", "premium", "none"]),
        "memory": st.booleans(),
        "namespace": st.lists(NAMESPACE, max_size=2),
        "limits": LIMITS,
        "jwt": JWT,
    },
    [
        "host",
        "tls",
        "data",
        "auth",
        "segment_bytes",
        "log_format",
        "missing_status",
        "connections_max",
        "drain_seconds",
        "x",
    ],
)


@given(TOP | st.dictionaries(TEXT, VALUES))
@settings(max_examples=EXAMPLES * 3)
def test_any_table(top: dict[str, Any]) -> None:
    loaded("\n".join(f"{toml(name)} = {toml(value)}" for name, value in top.items()).encode(), ".toml")


# Config.json of the emulators.

PROPERTIES = table(
    {},
    {
        "LockDuration": DURATIONS,
        "DefaultMessageTimeToLive": DURATIONS,
        "MaxDeliveryCount": st.integers(1, 10),
        "RequiresSession": st.booleans(),
        "ForwardTo": st.just(""),
    },
    [
        "DuplicateDetectionHistoryTimeWindow",
        "RequiresDuplicateDetection",
        "ForwardDeadLetteredMessagesTo",
        "x",
    ],
)
FILTER = st.just(
    {"Name": "r", "Properties": {"FilterType": "Sql", "SqlFilter": {"SqlExpression": "1=1"}}}
) | table({"Name": NAME}, {"Properties": VALUES}, ["x"])
BUS_SUB = table({"Name": NAME}, {"Properties": PROPERTIES, "Rules": st.lists(FILTER, max_size=2)}, ["x"])
BUS_QUEUE = table({"Name": NAME}, {"Properties": PROPERTIES}, ["x"])
BUS_TOPIC = table(
    {"Name": NAME}, {"Properties": PROPERTIES, "Subscriptions": st.lists(BUS_SUB, max_size=2)}, ["x"]
)
BUS = table(
    {"Name": NAME},
    {"Queues": st.lists(BUS_QUEUE, max_size=2), "Topics": st.lists(BUS_TOPIC, max_size=2)},
    ["x"],
)
GROUP = table({"Name": st.sampled_from(["cg1", "$default"]) | NAME}, {}, ["x"])
BUS_HUB = table(
    {"Name": NAME, "PartitionCount": st.integers(1, 8) | st.sampled_from(["2", "x", 0, 1.5])},
    {"ConsumerGroups": st.lists(GROUP, max_size=2)},
    ["x"],
)
HUBS = table({"Name": NAME}, {"Type": st.just("EventHub"), "Entities": st.lists(BUS_HUB, max_size=2)}, ["x"])
USER = table(
    {},
    {"Namespaces": st.lists(BUS, max_size=2), "NamespaceConfig": st.lists(HUBS, max_size=2)},
    ["Logging", "x"],
)
EMULATOR = table({"UserConfig": USER}, {}, ["x"])


@given(EMULATOR | VALUES)
@settings(max_examples=EXAMPLES * 3)
def test_any_emulator_configuration(value: Any) -> None:
    loaded(json.dumps(value).encode(), ".json")


GOOD = {
    ".toml": b"""# all there is
port = 5300
profile = "premium"
[limits]
event_bytes_max = 1000
[[keys]]
name = "RootManageSharedAccessKey"
primary = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
[[queue]]
name = "q"
lock_duration = "PT5S"
[[topic]]
name = "t"
[[topic.subscription]]
name = "s"
[[hub]]
name = "h"
partition_count = 2
consumer_groups = ["g"]
[[namespace]]
name = "other"
[[namespace.queue]]
name = "q"
""",
    ".json": b"""{ // as the emulator's own
  "UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [{"Name": "queue.1", "Properties":
  {"LockDuration": "PT1M", "MaxDeliveryCount": 3, "ForwardTo": ""}}], "Topics": [{"Name": "topic.1",
  "Subscriptions": [{"Name": "s", "Rules": []}]}]}], /* and hubs */ "NamespaceConfig": [{"Type": "EventHub",
  "Name": "emulatorNs1", "Entities": [{"Name": "eh1", "PartitionCount": "2", "ConsumerGroups": [{"Name": "cg1"},]}]}]}}
""",
}
FRAGMENTS = st.sampled_from(
    [
        *(
            b"[",
            b"]",
            b"{",
            b"}",
            b'"',
            b"=",
            b",",
            b"\n",
            b"#",
            b"//",
            b"/*",
            b"*/",
            b"\\",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
        ),
        *(
            b"[[queue]]\n",
            b"[namespace]\n",
            b"[x]\n",
            b"name = 1\n",
            b"9" * 5000,
            b"nan",
            b"inf",
            b"1979-05-27",
            b"true",
            b"null",
        ),
        *(b"[" * 3000, b'{"a":' * 3000, b"a." * 2000 + b"b = 1\n", b"0x" + b"f" * 40),
    ]
)
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 900), st.integers(0, 30), FRAGMENTS | st.binary(max_size=4)), max_size=3
)


@given(st.sampled_from(sorted(GOOD)), MUTATIONS)
@settings(max_examples=EXAMPLES * 3)
def test_a_bent_file(kind: str, mutations: list[tuple[int, int, bytes]]) -> None:
    text = GOOD[kind]
    for where, removed, fragment in mutations:
        at = where % (len(text) + 1)
        text = text[:at] + fragment + text[at + removed :]
    loaded(text, kind)


@given(st.binary(max_size=60) | st.lists(FRAGMENTS | st.binary(max_size=4), max_size=12).map(b"".join))
def test_any_bytes(text: bytes) -> None:
    for kind in GOOD:
        loaded(text, kind)


def test_the_files_that_are_bent_are_good_as_they_are() -> None:
    for kind, text in GOOD.items():
        config = loaded(text, kind)
        assert config is not None
        assert sum(len(ns.entities) for ns in config.namespaces) >= 5
