"""What the people who run it see: metrics that are true, lines that tell enough and no secret."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hubbub.telemetry import AccessLog
from live import running


def numbers(live):
    """(metric, entity) → value."""
    text = live.call("GET", "/metrics")[2].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            found[sample.name.removeprefix("hubbub_"), sample.labels.get("entity", "")] = sample.value
    return found


def test_metrics_count_what_happened(tmp_path):
    with running(tmp_path, "--memory", "-q") as live:
        for _ in range(3):
            live.call("POST", "/queue/messages", b"x" * 10)
        batch = b'[{"Body":"a"},{"Body":"b"},{"Body":"c"}]'
        kind = "application/vnd.microsoft.servicebus.json"
        live.call("POST", "/events/messages", batch, Content_Type=kind)
        live.call("DELETE", "/queue/messages/head")
        live.call("POST", "/queue/messages", b"x", auth="SharedAccessSignature nonsense")
        live.call("POST", "/queue/messages", b"x", BrokerProperties="{bad")
        live.call("POST", "/nowhere/messages", b"x")
        found = numbers(live)
    assert found["IncomingMessages_total", "queue"] == 3
    assert found["IncomingMessages_total", "events"] == 3
    assert found["OutgoingMessages_total", "queue"] == 1
    assert found["IncomingRequests_total", "queue"] == 5, "one was refused before its entity was known"
    assert found["SuccessfulRequests_total", "queue"] == 4
    assert found["UserErrors_total", "queue"] == 1
    assert found["UserErrors_total", ""] == 2
    assert found["IncomingBytes_total", "events"] == len(batch)
    assert found["ActiveMessages", "queue"] == 2
    assert found["Messages", "events"] == 3
    assert found["Size", "queue"] > 20
    assert found["ServerErrors_total", ""] == found["ThrottledRequests_total", ""] == 0
    assert found["ActiveConnections", ""] >= 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_error_and_its_line_share_a_tracking_id(tmp_path, form):
    with running(tmp_path, "--memory", "--log-format", form) as live:
        live.call("POST", "/queue/messages?timeout=60", b"hello")
        body = live.call("POST", "/queue/messages?x=secret", b"", auth="WRAP secret")[2].decode()
        tracking = re.search(r"TrackingId:([0-9a-f-]{36}\w*)", body)[1]
        assert live.stop() == 0
        good, bad, *_ = live.log.read_text().splitlines()
    assert tracking in bad
    assert "secret" not in good + bad
    if form == "json":
        line = json.loads(good)
        assert (line["status"], line["method"], line["path"], line["bytes"]) == (
            201,
            "POST",
            "/queue/messages",
            5,
        )
        assert json.loads(bad)["status"] == 401
    else:
        assert re.match(
            r"\d\d:\d\d:\d\d\.\d{3}  201  POST    queue/messages  5 B  \d+\.\d ms  127\.0\.0\.1:\d+$", good
        )


class _Request:
    received = 1_700_000_000_000
    method, path, peer, note = b"POST", b"/\x1b[31m\r\nx", "192.0.2.1:1", "bad\r\nline"


def test_a_client_cannot_forge_lines(tmp_path):
    with open(tmp_path / "log", "w") as stream:
        log = AccessLog(stream, "text")
        log.line(_Request(), 400, 0, 0, 0.0)
        log.close()
    (line,) = (tmp_path / "log").read_bytes().splitlines()
    assert b"\x1b" not in line


def test_a_reader_that_is_stuck_stops_nobody():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(write, "w") as stream:
        log = AccessLog(stream, "text")
        began = time.monotonic()
        for _ in range(30_000):
            log.line(_Request(), 200, 0, 0, 0.0)
        assert time.monotonic() - began < 2
        assert log.dropped > 0
        log.close()
        assert time.monotonic() - began < 5
    os.close(read)
