"""An older release of the official Service Bus client, unmodified, against a real server process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import older
import pytest

from live import environment, own_address, running

RELEASE = "7.11"
EXPECTED = {
    "sends_and_receives": {
        "first": ["one", "s", "id", [["n", "1"], ["t", "b'x'"]], 0],
        "order": True,
        "left": [],
        "large": "MessageSizeExceededError",
    },
    "settles_four_ways": {
        "again": ["b", 1],
        "deferred": "c",
        "gone": "MessageNotFoundError",
        "left": [],
        "dead": [["d", "why", "because"]],
    },
    "schedules_and_peeks": {
        "peeked": [["now", "ACTIVE"], ["a", "SCHEDULED"], ["b", "SCHEDULED"]],
        "left": ["b"],
        "twice": "MessageNotFoundError",
    },
    "deletes_at_once": [["x", "y"], []],
    "holds_sessions": {
        "order": ["b0", "b1", "b2"],
        "state": [None, "half way"],
        "renewed": True,
        "held": "SessionCannotBeLockedError",
        "free": "a",
    },
    "renews_locks": {"again": [], "count": 0},
    "subscribes": {
        "all": [["1", False], ["9", False]],
        "big": [["9", True]],
        "red": [["1", False]],
    },
    "administers": {
        "changed": [3, 30.0],
        "counts": [0, 0],
        "gone": "ResourceNotFoundError",
        "twice": "ResourceExistsError",
    },
    "refuses": {
        "absent": "MessagingEntityNotFoundError",
        "unknown": "ServiceBusAuthenticationError",
        "session": "ServiceBusError",
    },
    "over_a_web_socket": ["over a socket"],
    "through_async": ["0", "1", "2"],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    front = older.installed("azure-servicebus", RELEASE)
    host = own_address()
    flags = ("--memory", "--tls", "auto", "--https-port", "0", "--data", str(folder))
    flags += ("--host", host, "--tls-host", host, "--allow-well-known-key", "--amqps-port", "5671")
    with running(folder, *flags) as live:
        authority = str(folder / "tls/ca.pem")
        port = live.ready["https"].rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "older_servicebus.py", host, port, authority],
            cwd=Path(__file__).parent,
            # Its administration client cannot be told of an authority in any other way.
            env=environment(PYTHONPATH=str(front), REQUESTS_CA_BUNDLE=authority),
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_release(results):
    assert results["version"]["value"].startswith(RELEASE)


@pytest.mark.parametrize("check", EXPECTED)
def test_check(results, check):
    assert results[check].get("value") == EXPECTED[check], results[check].get("error")
