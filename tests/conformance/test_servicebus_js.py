"""The official JavaScript Service Bus client, unmodified, against a real server process."""

from __future__ import annotations

import js
import pytest

from live import running

QUEUES = (
    "complete",
    "abandon",
    "defer",
    "dead",
    "schedule",
    "renew",
    "drain",
    "subscribe",
    "thousands",
    "errors",
)
EXPECTED = {
    "complete": {
        "body": {"k": [1, "x"]},
        "subject": "s",
        "applicationProperties": {"n": 1},
        "deliveryCount": 0,
        "id": 32,
        "left": 0,
    },
    "abandon": 2,
    "defer": {"body": "later", "state": "deferred", "gone": "MessageNotFound"},
    "deadLetter": ["bad", "why", "because", "dead"],
    "schedule": {"states": ["scheduled", "scheduled"], "twice": "MessageNotFound"},
    "renew": True,
    "drain": {"count": 0, "quick": True},
    "subscribe": {"same": True, "left": 0},
    "thousands": {"found": 12_000, "bounded": True},
    "rules": {
        "rules": [["big", "size > 5"], ["blue", "s"]],
        "twice": "MessagingEntityAlreadyExists",
        "found": [[1, {"size": 9, "grown": 1, "RuleName": "big"}], [3, {"color": "blue"}]],
    },
    "errors": {"absent": "MessagingEntityNotFound", "large": "MessageSizeExceeded"},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    queues = [word for name in QUEUES for word in ("--queue", name)]
    with running(tmp_path_factory.mktemp("js"), "--memory", "--topic", "topic/some", *queues) as live:
        yield js.run("servicebus.mjs", live.connection_string)


@pytest.mark.parametrize("check", EXPECTED)
def test_check(results, check):
    assert results[check].get("value") == EXPECTED[check], results[check].get("error")
