"""A configuration file is understood, or refused with a ConfigError that names the file."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.config import ConfigError, finished, keys_of, load

SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.sampled_from(("events", "PT1M", "127.0.0.1", "keys", "none", "", "a/b", "Listen", "1979-05-27"))
    | st.text(max_size=6)
)
NAMES = st.sampled_from(
    (
        *(
            "host",
            "port",
            "tls",
            "data",
            "memory",
            "auth",
            "profile",
            "limits",
            "jwt",
            "namespace",
            "keys",
            "queue",
        ),
        *(
            "topic",
            "hub",
            "issuer",
            "name",
            "path",
            "primary",
            "rights",
            "subscription",
            "consumer_groups",
            "hosts",
        ),
        *(
            "partition_count",
            "lock_duration",
            "default_ttl",
            "deliveries_max",
            "retention",
            "authorization_rules",
        ),
        *(
            "timeout_max",
            "event_bytes_max",
            "principals",
            "password",
            "status",
            "UserConfig",
            "Namespaces",
            "Name",
        ),
        *(
            "NamespaceConfig",
            "Entities",
            "PartitionCount",
            "ConsumerGroups",
            "Queues",
            "Topics",
            "Properties",
        ),
        *("Subscriptions", "Rules", "MaxDeliveryCount", "LockDuration", "Type", "x"),
    )
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=4), max_leaves=12
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=5)


def attempt(folder, name, text):
    path = Path(folder, name)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        config = finished(load(str(path)), {})
        config.limits_of()
        return config
    except ConfigError as error:
        assert str(error)
        return None


def toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value).replace("e+", "e")
    return json.dumps(value)


@settings(max_examples=5 * settings().max_examples)
@given(table=TABLES)
def test_toml_tables(tmp_path_factory, table):
    text = "".join(f"{json.dumps(k)} = {toml(v)}\n" for k, v in table.items())
    attempt(tmp_path_factory.getbasetemp(), "hubbub.toml", text)


@settings(max_examples=5 * settings().max_examples)
@given(inner=TABLES)
def test_emulator_files(tmp_path_factory, inner):
    attempt(tmp_path_factory.getbasetemp(), "Config.json", json.dumps({"UserConfig": inner}))


@given(data=st.text(max_size=80), name=st.sampled_from(("hubbub.toml", "Config.json")))
def test_any_text(tmp_path_factory, data, name):
    attempt(tmp_path_factory.getbasetemp(), name, data)


@given(st.text(max_size=40))
def test_any_keys(text):
    try:
        keys_of(text)
    except ConfigError as error:
        assert "HUBBUB_KEYS" in str(error)
