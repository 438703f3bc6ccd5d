"""The official JavaScript Event Hubs client, unmodified, against a real server process."""

from __future__ import annotations

import js
import pytest

from hubbub.broker.access import sas_token
from live import FAR, ROOT, WELL_KNOWN, running

HUBS = (
    *("send", "batches", "keys", "positions", "latest"),
    *("metrics", "properties", "owners", "idempotent", "errors"),
)
EXPECTED = {
    "sendAndRead": {
        "body": {"k": [1, "x"]},
        "properties": {"n": 1, "s": "t"},
        "contentType": "application/json",
        "messageId": "m",
        "correlationId": "c",
        "sequenceNumber": 0,
        "offset": "0",
        "fresh": True,
    },
    "batches": {"size": 1024 * 1024, "ordered": True},
    "partitionKeys": 1,
    "positions": {
        "offset": [3],
        "offsetInclusive": [2, 3],
        "sequence": [2, 3],
        "time": [0, 1, 2, 3],
    },
    "latest": ["new"],
    "metrics": {"sequenceNumber": 1, "offset": "1"},
    "properties": {
        "name": "properties",
        "partitionIds": ["0", "1", "2", "3"],
        "isEmpty": True,
        "lastEnqueuedSequenceNumber": -1,
        "beginningSequenceNumber": 0,
    },
    "owners": {
        "code": "ReceiverDisconnectedError",
        "weaker": "ReceiverDisconnectedError",
        "got": ["for the owner"],
    },
    "idempotent": {"found": [1, 10, 2, 20, 3], "stolen": "ProducerDisconnectedError", "last": 4},
    "buffered": 99,
    "large": 0,
    "signature": 0,
    "close": True,
    "errors": {
        "hub": "MessagingEntityNotFoundError",
        "partition": "ArgumentOutOfRangeError",
        "large": "MessageTooLargeError",
        "key": "UnauthorizedError",
    },
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    hubs = [word for name in HUBS for word in ("--hub", name)]
    with running(tmp_path_factory.mktemp("js"), "--memory", *hubs) as live:
        token = sas_token("sb://localhost/", ROOT, WELL_KNOWN, FAR)
        endpoint = live.connection_string.split(";")[0]
        signed = f"{endpoint};SharedAccessSignature={token};UseDevelopmentEmulator=true"
        yield js.run("eventhubs.mjs", live.connection_string, signed)


@pytest.mark.parametrize("check", EXPECTED)
def test_check(results, check):
    assert results[check].get("value") == EXPECTED[check], results[check].get("error")
