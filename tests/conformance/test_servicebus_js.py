"""The official JavaScript Service Bus client, unmodified, against a real server process."""

from __future__ import annotations

import json

import js
import pytest

from hubbub.broker.access import sas_token
from live import FAR, ROOT, WELL_KNOWN, running

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
    "signature",
    "changes",
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
    "sessions": {
        "held": "SessionCannotBeLocked",
        "next": "b",
        "none": "ServiceTimeout",
        "first": "a0",
        "second": "a1",
        "renewed": True,
        "state": {"step": 2},
        "kept": {"step": 2},
        "left": 0,
    },
    "signature": "signed",
    "changes": {"n": 2, "kept": "k", "added": "a"},
    "changes over http": [{"n": 2, "kept": "k", "added": "a"}, ("2", '"k"', '"a"'), ('"why"', '"b"')],
    "errors": {"absent": "MessagingEntityNotFound", "large": "MessageSizeExceeded"},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    queues = [word for name in QUEUES for word in ("--queue", name)]
    with running(tmp_path_factory.mktemp("js"), "--memory", "--topic", "topic/some", *queues) as live:
        body = json.dumps({"requiresSession": True}).encode()
        assert live.call("PUT", "/_hubbub/api/v1/queues/sessions", body)[0] == 201
        endpoint = live.connection_string.split(";")[0]
        token = sas_token("sb://localhost/", ROOT, WELL_KNOWN, FAR)
        signed = f"{endpoint};SharedAccessSignature={token};UseDevelopmentEmulator=true"
        found = js.run("servicebus.mjs", live.connection_string, signed)
        found["changes over http"] = {"value": changes(live)}
        return found


def changes(live):
    """The queue of that name as our own API and REST show it: what one client changed all others see."""
    listed = json.loads(live.call("GET", "/_hubbub/api/v1/queues/changes/messages")[2])
    first = live.call("DELETE", "/changes/messages/head")[1]
    letter = live.call("DELETE", "/changes/$DeadLetterQueue/messages/head")[1]
    return [
        listed[0]["properties"],
        tuple(first.get(name) for name in ("n", "kept", "added")),
        tuple(letter.get(name) for name in ("DeadLetterReason", "added")),
    ]


@pytest.mark.parametrize("check", EXPECTED)
def test_check(results, check):
    assert results[check].get("value") == EXPECTED[check], results[check].get("error")
