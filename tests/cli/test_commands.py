"""The command line against a real server, as a user would work with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hubbub import __version__
from live import environment, hubbub, running


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running(tmp_path_factory.mktemp("cli"), "--memory") as live:
        yield live


@pytest.fixture
def run(live):
    def run(*arguments, code=0, feed=None):
        done = hubbub(*arguments, feed=feed, HUBBUB_CONNECTION_STRING=live.connection_string)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def queue(run, request):
    """A queue of the test's own."""
    name = f"cli-{request.node.name.replace('[', '-').replace(']', '').replace('_', '-')}"[:50]
    run("queue", "create", name)
    return name


def data(done):
    return json.loads(done.stdout)


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


class TestEntities:
    @pytest.mark.parametrize("kind", ["queue", "topic", "hub"])
    def test_create_list_show_remove(self, run, kind):
        name = f"life-of-a-{kind}"
        assert data(run(kind, "create", name, "--json"))["path"] == name
        assert "exists already" in run(kind, "create", name, code=6).stderr
        assert name in [entity["path"] for entity in data(run(kind, "ls", "--json"))]
        assert name in run(kind, "ls").stdout
        assert data(run(kind, "show", name, "--json"))["path"] == name
        assert name in run(kind, "show", name).stdout
        assert "--yes" in run(kind, "rm", name, code=2).stderr
        run(kind, "rm", name, "--yes")
        assert run(kind, "show", name, code=3).stderr

    def test_subscriptions(self, run):
        run("topic", "create", "news")
        run("subscription", "create", "news/all", "-s", "lockDuration=PT30S")
        assert data(run("subscription", "show", "news/all", "--json"))["lockDuration"] == "PT30S"
        assert [s["name"] for s in data(run("subscription", "ls", "news", "--json"))] == ["all"]
        run("subscription", "rm", "news/all", "--yes")
        assert data(run("subscription", "ls", "news", "--json")) == []

    def test_subscriptions_of_all_topics(self, run):
        for name in ("one", "other"):
            run("topic", "create", f"all-{name}")
            run("subscription", "create", f"all-{name}/sub-{name}")
        found = {(s["topicName"], s["name"]) for s in data(run("subscription", "ls", "--json"))}
        assert {("all-one", "sub-one"), ("all-other", "sub-other")} <= found
        assert "no topic 'nope'" in run("subscription", "ls", "nope", code=3).stderr
        run("queue", "ls", "one", code=2)

    def test_partitions(self, run):
        run("hub", "create", "of-parts", "--set", "partitionCount=2")
        shown = run("hub", "show", "of-parts").stdout
        assert "PARTITION  FIRST  LAST" in shown

    def test_options_are_checked(self, run):
        assert "5' minutes" in run("queue", "create", "bad", "-s", "lockDuration=PT10M", code=1).stderr
        assert "NAME=VALUE" in run("queue", "create", "bad", "-s", "nonsense", code=2).stderr
        assert run("queue", "create", "a//b/messages", code=1).stderr


class TestMessages:
    def test_texts_of_all_kinds(self, run, queue):
        """Also as properties that could not be HTTP headers."""
        run("send", queue, "жизнь 🎉", "-p", "ключ=🎉", "-p", "host=a b", "-p", "n=x\r\ny: z")
        line = run("peek", queue).stdout
        assert "жизнь 🎉" in line
        assert '{"ключ": "🎉", "host": "a b", "n": "x\\r\\ny: z"}' in line

    def test_what_no_header_may_hold(self, run, queue):
        for text in ("text/плайн", "a\r\nb: c"):
            assert "HTTP header" in run("send", queue, "x", "--content-type", text, code=2).stderr

    def test_send_peek_receive(self, run, queue):
        run("send", queue, "hello {{n}}", "--count", "3", "-p", "colour=red", "--message-id", "m{{n}}")
        seen = data(run("peek", queue, "--json"))
        assert [message["body"] for message in seen] == ["hello 0", "hello 1", "hello 2"]
        assert seen[0]["properties"] == {"colour": "red"}
        assert "hello 1" in run("peek", queue).stdout
        got = lines(run("receive", queue, "-n", "2", "--json"))
        assert [m["body"] for m in got] == ["hello 0", "hello 1"]
        assert "hello 2" in run("receive", queue, "--delete").stdout
        assert data(run("peek", queue, "--json", code=5)) == []

    def test_nothing_there(self, run, queue):
        began = time.monotonic()
        run("receive", queue, "--wait", "1", code=5)
        assert 0.9 < time.monotonic() - began < 5

    def test_standard_input(self, run, queue):
        run("send", queue, "-", feed="one body\nof two lines")
        run("send", queue, "-", "--lines", "--batch", "2", feed="a\nb\nc\n")
        bodies = [m["body"] for m in data(run("peek", queue, "--json"))]
        assert bodies == ["one body\nof two lines", "a", "b", "c"]

    def test_a_file(self, run, queue, tmp_path):
        (tmp_path / "body.json").write_text('{"a": 1}')
        run("send", queue, f"@{tmp_path}/body.json", "--content-type", "application/json")
        assert data(run("peek", queue, "--json"))[0]["body"] == '{"a": 1}'
        assert "missing.json" in run("send", queue, "@missing.json", code=2).stderr

    def test_rate(self, run, queue):
        began = time.monotonic()
        run("send", queue, "x", "--count", "5", "--rate", "10")
        assert time.monotonic() - began > 0.35

    def test_purge(self, run, queue):
        run("send", queue, "x", "--count", "7")
        assert data(run("queue", "purge", queue, "--yes", "--json")) == {"deleted": 7}
        assert data(run("peek", queue, "--json", code=5)) == []

    def test_hubs(self, run):
        run("hub", "create", "cli-hub", "-s", "partitionCount=2")
        run("send", "cli-hub", "to one", "--partition", "1")
        run("send", "cli-hub", "by key {{n}}", "--partition-key", "k", "--count", "2")
        assert "to one" in run("peek", "cli-hub", "--partition", "1").stdout
        tailed = lines(run("tail", "cli-hub", "--from", "start", "-n", "3", "--json"))
        assert sorted(event["body"] for event in tailed) == ["by key 0", "by key 1", "to one"]

    def test_missing_entities_and_servers(self, run, live):
        assert "nowhere" in run("send", "nowhere", "x", code=3).stderr
        run("peek", "nowhere", code=3)
        run("receive", "nowhere", code=3)
        run("tail", "nowhere", "-n", "1", code=3)
        gone = live.connection_string.replace(str(live.port), "1")
        assert "localhost:1" in run("send", "queue", "x", "-c", gone, code=7).stderr
        wrong = live.connection_string.replace("SAS_KEY_VALUE", "wrong")
        assert "signature" in run("send", "queue", "x", "-c", wrong, code=4).stderr
        assert run("send", "queue", "x", "-c", "nonsense", code=2).stderr

    def test_too_large(self, run, queue, tmp_path):
        (tmp_path / "big").write_bytes(b"x" * 300_000)
        assert run("send", queue, f"@{tmp_path}/big", code=1).stderr


def spawn(live, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "hubbub", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(HUBBUB_CONNECTION_STRING=live.connection_string, PYTHONFAULTHANDLER="1"),
        text=True,
        # Who was started in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process):
    """The exit code; a process that does not end says where it stands."""
    try:
        return process.wait(20)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        pytest.fail(process.communicate()[1])


class TestStreams:
    def test_tail_follows_and_ctrl_c_ends_it(self, live, run):
        run("hub", "create", "followed", "-s", "partitionCount=1")
        run("send", "followed", "before")
        tail = spawn(live, "tail", "followed", "--json", "--from", "start")
        assert json.loads(tail.stdout.readline())["body"] == "before"
        run("send", "followed", "after")
        assert json.loads(tail.stdout.readline())["body"] == "after"
        tail.send_signal(signal.SIGINT)
        assert ended(tail) == 130
        assert "Traceback" not in tail.stderr.read()

    def test_a_pipe_that_closes(self, live, run, queue):
        run("send", queue, "x" * 1000, "--count", "300", "--batch", "100")
        peek = spawn(live, "peek", queue, "-n", "300", "--json")
        os.close(os.dup(peek.stdout.fileno()))
        peek.stdout.close()
        peek.wait(20)
        assert "Traceback" not in peek.stderr.read()
        assert "BrokenPipe" not in peek.stderr.read()


class TestCredentials:
    def test_connstr(self, run, live):
        assert run("connstr").stdout.strip() == live.connection_string
        assert run("connstr", "--eventhub", "events").stdout.strip().endswith(";EntityPath=events;")

    def test_sas(self, run, live):
        token = run("sas", "new", "queue").stdout.strip()
        assert live.call("POST", "/queue/messages", b"x", auth=token)[0] == 201
        assert live.call("POST", "/events/messages", b"x", auth=token)[0] == 401
        assert "queue" in run("sas", "explain", token).stdout
        assert run("sas", "explain", token.replace("sig=", "sig=AA"), code=4).stdout

    def test_wrap(self, run, live):
        token = run("wrap", "new").stdout.strip()
        assert token.startswith('WRAP access_token="')
        assert live.call("POST", "/queue/messages", b"x", auth=token)[0] == 201


class TestTools:
    def test_version_and_help(self, run):
        assert run("--version").stdout == f"hubbub {__version__}\n"
        assert "Exit codes" in run("--help").stdout
        assert "No such command" in run("seend", code=2).stderr

    @pytest.mark.parametrize("mode", ["send", "batch", "lock", "latency"])
    def test_bench(self, run, mode):
        entity = "queue" if mode == "lock" else "events"
        found = data(
            run("bench", "--mode", mode, "--entity", entity, "--duration", "0.3", "--clients", "2", "--json")
        )
        assert found["mode"] == mode
        assert all(isinstance(v, (int, float, str)) for v in found.values())
        assert any(isinstance(v, (int, float)) and v > 0 for v in found.values())

    def test_doctor(self, run, tmp_path):
        checks = data(run("doctor", "--data", str(tmp_path / "none"), "--port", "0", "--json"))
        assert checks
        assert {"level", "check", "text"} == set(checks[0])
        (tmp_path / "file").write_text("")
        elsewhere = {"HUBBUB_DATA": str(tmp_path / "file")}
        assert f"FIX  data       {tmp_path / 'file'} is no folder" in hubbub("doctor", **elsewhere).stdout
        assert str(tmp_path / "file") in hubbub("trust", **elsewhere).stderr
        for place in ("file", "file/below"):
            done = run("doctor", "--data", str(tmp_path / place), "--port", "0", "--json", code=1)
            assert ("FIX", "data") in {(one["level"], one["check"]) for one in data(done)}
        (tmp_path / "bad.toml").write_text("prot = 1")
        done = run("doctor", "--data", str(tmp_path / "none"), "--config", str(tmp_path / "bad.toml"), code=1)
        assert "port" in done.stdout
