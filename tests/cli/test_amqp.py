"""`send`, `tail` and `bench` over AMQP, against a real server process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from live import environment, hubbub, running


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("cli"), "--memory", "--tls", "auto", "--hub", "events:2", "--hub", "quiet:1",
                 "--queue", "queue") as live:  # fmt: skip
        yield live


def cli(live, *arguments, connection=None, **rest):
    return hubbub(*arguments, HUBBUB_CONNECTION_STRING=connection or live.connection_string, **rest)


def test_send_and_tail(live):
    sent = cli(
        live,
        "send",
        "events",
        "a {{n}}",
        "--count",
        "3",
        "--partition",
        "1",
        "-p",
        "k=v",
        "--protocol",
        "amqp",
        "--json",
    )
    assert json.loads(sent.stdout)["sent"] == 3
    sent = cli(
        live,
        "send",
        "events",
        "b {{n}}",
        "--count",
        "50",
        "--batch",
        "20",
        "--partition-key",
        "key",
        "--protocol",
        "amqp",
    )
    assert sent.returncode == 0, sent.stderr
    for protocol in ("amqp", "http"):
        seen = cli(
            live, "tail", "events", "--from", "start", "--count", "53", "--protocol", protocol, "--json"
        )
        events = [json.loads(line) for line in seen.stdout.splitlines()]
        first = [e for e in events if e["body"].startswith("a ")]
        assert [(e["partition"], e["body"], e["properties"]) for e in first] == [
            ("1", f"a {n}", {"k": "v"}) for n in range(3)
        ]
        keyed = [e for e in events if e.get("partitionKey") == "key"]
        assert sorted(e["body"] for e in keyed) == sorted(f"b {n}" for n in range(50))
        assert len({e["partition"] for e in keyed}) == 1
    behind = cli(
        live,
        "tail",
        "events",
        "--partition",
        "1",
        "--from",
        "seq:0",
        "--count",
        "2",
        "--protocol",
        "amqp",
        "--json",
    )
    assert [json.loads(line)["sequenceNumber"] for line in behind.stdout.splitlines()] == [1, 2]


def test_send_to_a_queue(live):
    sent = cli(
        live,
        "send",
        "queue",
        "x {{n}}",
        "--count",
        "5",
        "--label",
        "l",
        "--message-id",
        "m{{n}}",
        "--protocol",
        "amqp",
    )
    assert sent.returncode == 0, sent.stderr
    got = cli(live, "receive", "queue", "--count", "5", "--json")
    found = [json.loads(line) for line in got.stdout.splitlines()]
    assert [(m["body"], m["brokerProperties"]["MessageId"]) for m in found] == [
        (f"x {n}", f"m{n}") for n in range(5)
    ]


def test_over_tls(live):
    secure = live.connection_string.replace("UseDevelopmentEmulator=true;", "")
    ca = str(live.folder / ".hubbub/tls/ca.pem")
    sent = cli(live, "send", "quiet", "over tls", "--protocol", "amqp", "--ca", ca, connection=secure)
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["send", "absent", "x"], 3, "could not be found"),
        (["tail", "absent", "--count", "1"], 3, "could not be found"),
        (["tail", "events", "--from", "yesterday"], 2, "seq:NUMBER"),
        (["send", "events", "x", "--partition", "9"], 1, "partition"),
    ],
)
def test_what_goes_wrong(live, arguments, code, hint):
    done = cli(live, *arguments, "--protocol", "amqp")
    assert (done.returncode, hint in done.stderr) == (code, True), done.stderr


def test_who_is_not_let_in(live):
    wrong = live.connection_string.replace("SAS_KEY_VALUE", "nonsense")
    assert cli(live, "send", "events", "x", "--protocol", "amqp", connection=wrong).returncode == 4
    nowhere = live.connection_string.replace(str(live.port), "1")
    done = cli(live, "tail", "events", "--protocol", "amqp", connection=nowhere)
    assert (done.returncode, "hubbub up" in done.stderr) == (7, True)


@pytest.mark.parametrize("mode", ["send", "batch", "latency", "lock"])
def test_bench(live, mode):
    entity = "queue" if mode == "lock" else "events"
    done = cli(
        live,
        "bench",
        "--mode",
        mode,
        "--entity",
        entity,
        "--clients",
        "2",
        "--duration",
        "0.3",
        "--protocol",
        "amqp",
        "--json",
    )
    found = json.loads(done.stdout)
    assert found["errors"] == 0
    assert found["messages_per_second"] > 0
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["p99_ms"] <= found["p999_ms"] <= found["max_ms"]


def test_tail_goes_on_after_a_restart(tmp_path):
    flags = ("--data", str(tmp_path / "data"), "--hub", "events:1")
    with running(tmp_path, *flags) as live:
        port = str(live.port)
        tail = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "hubbub",
                "tail",
                "events",
                "--from",
                "start",
                "--count",
                "4",
                "--json",
                "--protocol",
                "amqp",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(HUBBUB_CONNECTION_STRING=live.connection_string),
        )
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(tail.stdout), daemon=True)
        reading.start()
        cli(live, "send", "events", "x", "--count", "2", "--protocol", "amqp")
        for _ in range(1000):
            if len(lines) == 2:
                break
            time.sleep(0.01)
        live.stop(signal.SIGKILL)
    # The same port: what a client of a restarted server finds.
    with running(tmp_path, *flags, "--port", port) as live:
        assert cli(live, "send", "events", "y", "--count", "2", "--protocol", "amqp").returncode == 0
        assert tail.wait(20) == 0, tail.stderr.read()
        reading.join(5)
    assert [json.loads(line)["sequenceNumber"] for line in lines] == [0, 1, 2, 3]
