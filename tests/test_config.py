"""Configuration: what files and variables say arrives; what cannot be meant is refused, by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hubbub.broker.access import ALL_RIGHTS, Right
from hubbub.broker.entity import ConsumerGroup, EventHub, Queue, Subscription, Topic
from hubbub.config import Config, ConfigError, finished, keys_of, load, swt_key_of
from live import running

DOCS = Path(__file__).parents[1] / "docs" / "configuration.md"

EVENT_HUBS = """{
  // What the Event Hubs emulator starts with.
  "UserConfig": {
    "NamespaceConfig": [
      {
        "Type": "EventHub",
        "Name": "emulatorNs1",
        "Entities": [
          {"Name": "eh1", "PartitionCount": "2", "ConsumerGroups": [{"Name": "cg1"}, {"Name": "$default"}]},
          {"Name": "eh2", "PartitionCount": 4, "ConsumerGroups": []}, /* both spellings of numbers */
        ]
      }
    ],
    "LoggingConfig": {"Type": "File"}
  }
}"""
SERVICE_BUS = """{
  "UserConfig": {
    "Namespaces": [
      {
        "Name": "sbemulatorns",
        "Queues": [
          {
            "Name": "queue.1", // with everything
            "Properties": {
              "DeadLetteringOnMessageExpiration": false,
              "DefaultMessageTimeToLive": "PT1H",
              "DuplicateDetectionHistoryTimeWindow": "PT20S",
              "ForwardDeadLetteredMessagesTo": "",
              "ForwardTo": "",
              "LockDuration": "PT1M",
              "MaxDeliveryCount": 3,
              "RequiresDuplicateDetection": false,
              "RequiresSession": false
            }
          }
        ],
        "Topics": [
          {
            "Name": "topic.1",
            "Properties": {"DefaultMessageTimeToLive": "PT1H", "RequiresDuplicateDetection": false},
            "Subscriptions": [
              {
                "Name": "subscription.3",
                "Properties": {"LockDuration": "PT1M", "MaxDeliveryCount": 3, "ForwardTo": ""}
              },
              {
                "Name": "subscription.1",
                "Properties": {"LockDuration": "PT1M"},
                "Rules": [
                  {
                    "Name": "app-prop-filter-1",
                    "Properties": {
                      "FilterType": "Correlation",
                      "CorrelationFilter": {
                        "ContentType": "application/text", "CorrelationId": "id1", "Label": "subject1",
                        "MessageId": "msgid1", "ReplyTo": "someQueue", "ReplyToSessionId": "sessionId",
                        "SessionId": "session1", "To": "xyz", "Properties": {"prop3": "value3"}
                      }
                    }
                  },
                  {
                    "Name": "sql-1",
                    "Properties": {
                      "FilterType": "Sql",
                      "SqlFilter": {"SqlExpression": "sys.MessageId = '123456' AND userProp1 = 'value1'"},
                      "Action": {"SqlExpression": "SET sys.To = 'Entity'"}
                    }
                  }
                ]
              }
            ]
          }
        ]
      }
    ],
    "Logging": {"Type": "File"}
  }
}"""


def loaded(tmp_path, text, name="hubbub.toml", **environment):
    path = tmp_path / name
    path.write_text(text)
    return finished(load(str(path)), environment)


def refused(tmp_path, text, name="hubbub.toml", **environment):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, name, **environment)
    return str(caught.value)


def test_defaults():
    config = finished(Config(), {})
    assert (config.host, config.port, config.data) == ("127.0.0.1", 5300, ".hubbub")
    (namespace,) = config.namespaces
    assert [key.primary for key in namespace.keys] == ["SAS_KEY_VALUE"]
    assert [entity.path for entity in namespace.entities] == [
        "events", "queue", "topic", "topic/subscriptions/subscription",
    ]  # fmt: skip


def test_the_documented_example(tmp_path):
    text = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.S)[1]
    config = loaded(tmp_path, text)
    (namespace,) = config.namespaces
    found = {entity.path: entity for entity in namespace.entities}
    assert isinstance(found["telemetry"], EventHub)
    assert (found["telemetry"].partition_count, found["telemetry"].retention) == (8, 3 * 86_400_000)
    assert isinstance(found["jobs"], Queue)
    assert (found["jobs"].lock_duration, found["jobs"].deliveries_max) == (30_000, 5)
    assert found["jobs"].authorization_rules[0].rights == ("Listen",)
    assert isinstance(found["news"], Topic)
    assert isinstance(found["news/subscriptions/all"], Subscription)
    assert sum(isinstance(entity, ConsumerGroup) for entity in namespace.entities) == 2
    assert namespace.swt_issuers == (("device", "change me"),)
    assert config.jwt is not None
    assert config.limits_of().timeout_max == 240_000
    assert config.http_limits().idle_timeout == 120_000
    assert config.http_limits().connections_max == 16_384
    written = set(re.findall(r"^#? ?(\w+) = ", text.split("[limits]")[0], re.M))
    fields = set(Config.__dataclass_fields__) - {"namespaces", "jwt", "limits", "http", "file", "ready_file"}
    assert fields - {"segment_bytes", "allow_well_known_key"} == written, "every option is documented"


def test_the_event_hubs_emulators_file(tmp_path):
    config = loaded(tmp_path, EVENT_HUBS, "Config.json")
    (namespace,) = config.namespaces
    assert namespace.name == "emulatorns1"
    hubs = {e.path: e.partition_count for e in namespace.entities if isinstance(e, EventHub)}
    assert hubs == {"eh1": 2, "eh2": 4}
    assert [e.name for e in namespace.entities if isinstance(e, ConsumerGroup)] == ["cg1"]


def test_the_service_bus_emulators_file(tmp_path):
    config = loaded(tmp_path, SERVICE_BUS, "Config.json")
    queue, topic, subscription, filtered, first, second = config.namespaces[0].entities
    assert filtered.path == "topic.1/subscriptions/subscription.1"
    assert (first.filter.system["Label"], first.filter.properties) == (
        "subject1",
        {"prop3": ("string", "value3")},
    )
    assert len(first.filter.system) == 8
    assert second.filter.expression.startswith("sys.MessageId")
    assert second.action == "SET sys.To = 'Entity'"
    assert (queue.path, queue.lock_duration, queue.deliveries_max) == ("queue.1", 60_000, 3)
    assert (queue.default_ttl, queue.duplicate_window, queue.forward_to) == (3_600_000, 20_000, "")
    assert topic.default_ttl == 3_600_000
    assert (subscription.path, subscription.deliveries_max) == ("topic.1/subscriptions/subscription.3", 3)


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("prot = 1", ["'prot'", "Did you mean 'port'?"]),
        ("port = '1'", ["'port'", "'1'"]),
        ("memory = 1", ["'memory'", "bool"]),
        ("[limits]\ntimeout = 1", ["'timeout'", "timeout_max"]),
        ("[limits]\ntimeout_max = -1", ["timeout_max"]),
        ("[http]\nheaders = 1", ["'headers'", "Did you mean 'headers_max'?"]),
        ("[http]\nheaders_max = 0", ["headers_max", "at least 1"]),
        ("[http]\nconnections_max = 5", ["connections_max"]),
        ("\n".join(f"[[keys]]\nname = 'k{n}'\nprimary = 'p'" for n in range(13)), ["13 keys", "12"]),
        ("[[queue]]\nname = 'q'\nlock_duration = '30'", ["lock_duration", "PT30S"]),
        ("[[queue]]\nname = 'q'\nlock_duraton = 'PT1S'", ["lock_duraton", "Did you mean 'lock_duration'?"]),
        ("[[queue]]\nname = 'q'\nlock_duration = 'PT10M'", ["'q'", "5"]),
        ("[[queue]]\nname = 'q'\ndeliveries_max = 'ten'", ["'q'", "deliveries_max"]),
        ("[[queue]]\nname = 'a//b'", ["a//b"]),
        ("[[queue]]\nname = 'a'\n[[queue]]\nname = 'A'", ["'a' stands twice"]),
        ("[[hub]]\nname = 'b'\n[[queue]]\nname = 'b'", ["'b' stands twice"]),
        ("[[namespace]]\nname = 'n'\n[[namespace]]\nname = 'N'", ["namespaces", "'n'"]),
        ("[[hub]]\nname = 'h'\npartition_count = 99", ["'h'", "PartitionCount", "1..32"]),
        ("queue = 'q'", ["'queue'", "list of tables"]),
        ("[[keys]]\nname = 'a'", ["'primary'"]),
        ("[[keys]]\nname = 'a'\nprimary = 'b'\nrights = ['Sned']", ["Listen, Send, Manage"]),
        ("[[issuer]]\nname = 'a'", ["'password'"]),
        ("auth = 'none'", ["'keys' or 'open'"]),
        ("profile = 'huge'", ["basic"]),
        ("tls = 'files'", ["--tls-cert"]),
        ("host = '0.0.0.0'", ["well-known", "HUBBUB_KEYS"]),
        ("host = '0.0.0.0'\nauth = 'open'", ["loopback"]),
        ("host = '127.example.org'\nauth = 'open'", ["loopback"]),
        ("= 1", ["TOML"]),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(tmp_path, text, hints):
    message = refused(tmp_path, text)
    assert all(hint in message for hint in hints), message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.83.12.7", "::1"])
def test_addresses_that_only_this_machine_reaches(tmp_path, host):
    assert loaded(tmp_path, f"host = '{host}'\nauth = 'open'").host == host


def test_other_files(tmp_path):
    assert "emulator" in refused(tmp_path, "{}", "Config.json")
    assert "emulator" in refused(tmp_path, "not json", "Config.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "none.toml"))


def test_keys_of_the_environment(tmp_path):
    config = loaded(tmp_path, "host = '0.0.0.0'", HUBBUB_KEYS="root:a; app-send:b:c;sensor-listen:d")
    root, send, listen = config.namespaces[0].keys
    assert (root.name, root.keys, send.keys) == ("root", ("a",), ("b", "c"))
    assert (root.rights, send.rights, listen.rights) == (ALL_RIGHTS, Right.SEND, Right.LISTEN)
    with pytest.raises(ConfigError, match="name:key"):
        keys_of("nokey")


def test_a_key_that_is_no_base64_still_signs_web_tokens():
    assert swt_key_of("SAS_KEY_VALUE") != "SAS_KEY_VALUE"
    assert swt_key_of("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").startswith("AAECAw")


def test_an_emulators_file_starts_with_its_rules(tmp_path):
    (tmp_path / "Config.json").write_text(SERVICE_BUS)
    with running(tmp_path, "--memory", "--config", "Config.json") as live:
        for matching in ("value1", "other"):
            live.call(
                "POST",
                "/topic.1/messages",
                b"x",
                BrokerProperties='{"MessageId":"123456"}',
                userProp1=f'"{matching}"',
            )
        path = "/topic.1/subscriptions/subscription.1/messages/head?timeout=0"
        status, headers, _ = live.call("DELETE", path)
        assert (status, json.loads(headers["BrokerProperties"])["To"]) == (200, "Entity")
        assert live.call("DELETE", path)[0] == 204
        assert live.call("DELETE", path.replace(".1/m", ".3/m"))[0] == 200
