"""The process as a whole: what it refuses to start with, how its keys change, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
import urllib.request

import pytest

from live import ROOT, WELL_KNOWN, hubbub, running

NEW = "bmV3LWtleS1uZXcta2V5LW5ldy1rZXktbmV3LWtleSE="
OTHER = "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXkhISE="


def until(true, seconds=10):
    for _ in range(int(seconds * 100)):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never became true")


class TestStart:
    def test_the_ready_block_and_file(self, tmp_path):
        with running(tmp_path, "--queue", "jobs", "--hub", "telemetry:8", "--topic", "news/all") as live:
            assert set(live.ready) >= {"http", "connection_string", "version", "pid"}
            assert live.ready["pid"] == live.process.pid
            where = f"localhost:{live.port}"
            assert live.connection_string == (
                f"Endpoint=sb://{where};SharedAccessKeyName={ROOT};SharedAccessKey={WELL_KNOWN};"
                "UseDevelopmentEmulator=true;"
            )
            until(lambda: "Ctrl-C" in live.out.read_text())
            block = live.out.read_text()
            for part in (
                "ready in",
                "hub telemetry (8 partitions)",
                "queue jobs",
                "topic news (all)",
                ".hubbub",
            ):
                assert part in block
            assert live.call("POST", "/jobs/messages", b"x")[0] == 201
            assert live.call("POST", "/events/messages", b"x")[0] == 404, "flags replace the starter set"

    def test_the_starter_set(self, tmp_path):
        with running(tmp_path, "--memory") as live:
            for path in ("events", "queue", "topic"):
                assert live.call("POST", f"/{path}/messages", b"x")[0] == 201
            assert live.call("DELETE", "/topic/subscriptions/subscription/messages/head")[0] == 200
            assert not (tmp_path / ".hubbub").exists()

    def test_what_is_there_as_something_else(self, tmp_path):
        with running(tmp_path, "--queue", "jobs") as live:
            live.stop()
        done = hubbub("up", "--port", "0", "--hub", "jobs", cwd=tmp_path)
        assert done.returncode != 0
        assert "'jobs' is a queue already" in done.stderr

    def test_an_unknown_flag_and_a_bad_name(self, tmp_path):
        done = hubbub("up", "--hubb", "x", cwd=tmp_path)
        assert done.returncode == 2
        assert "--hub" in done.stderr
        done = hubbub("up", "--hub", "x:many", cwd=tmp_path)
        assert (done.returncode, "not a number of partitions" in done.stderr) == (2, True)
        done = hubbub("up", "--queue", "a/messages/b", cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr

    def test_a_port_in_use(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = hubbub("up", "--memory", "--port", str(port), cwd=tmp_path)
        assert done.returncode == 1
        assert f"127.0.0.1:{port} cannot be used" in done.stderr
        assert "--port 0" in done.stderr

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--config", "lost.toml", "--memory"], "'q' cannot be made as configured: SubCode=40400."),
            (
                ["--tls-cert", "no", "--tls-key", "none"],
                "no with the key none cannot be used for TLS: no such",
            ),
            (["--tls-cert", "file", "--tls-key", "file"], "not a certificate and its key in PEM form"),
            (
                ["--data", "file"],
                "the data folder file cannot be used: it is a file. Choose another with --data",
            ),
            (["--data", "file/x"], "the data folder file/x cannot be used: not a directory"),
            (["--ready-file", "none/ready", "--memory"], "the ready file none/ready cannot be written"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path, flags, said):
        (tmp_path / "lost.toml").write_text("[[queue]]\nname = 'q'\nforward_to = 'nobody'\n")
        (tmp_path / "file").write_text("x")
        done = hubbub("up", "--port", "0", *flags, cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_the_environment(self, tmp_path):
        """Each flag has a variable of its own name; those that Kubernetes sets beside a service are not ours."""
        (tmp_path / "some.toml").write_text("memory = true\n[[queue]]\nname = 'q'\n")
        service = {"HUBBUB_HTTP_PORT": "tcp://10.0.0.1:80", "HUBBUB_AMQP_PORT": "tcp://10.0.0.1:5672"}
        ours = {"HUBBUB_CONFIG": "some.toml", "HUBBUB_HUB": "h:2 i", "HUBBUB_LIMITS": "none"}
        with running(tmp_path, **service, **ours) as live:
            until(lambda: "Ctrl-C" in live.out.read_text())
            block = live.out.read_text()
            for part in ("queue q", "hub h (2 partitions)", "hub i (4 partitions)", "in memory"):
                assert part in block

    def test_a_port_for_tls_without_tls(self, tmp_path):
        with running(tmp_path, "--memory", "--https-port", "0") as live:
            assert live.ready["https"] is None
            assert "--tls auto turns it on" in live.log.read_text()

    def test_a_data_folder_has_one_owner(self, tmp_path):
        with running(tmp_path) as live:
            done = hubbub("up", "--port", "0", cwd=tmp_path)
            assert done.returncode == 1
            assert f"another hubbub (pid {live.process.pid})" in done.stderr
            assert "--data" in done.stderr

    def test_damage_is_told_and_nothing_is_touched(self, tmp_path):
        with running(tmp_path) as live:
            for n in range(3):
                assert live.call("POST", "/queue/messages", b"precious %d" % n)[0] == 201
            assert live.stop() == 0
        journal = tmp_path / ".hubbub" / "00000001.journal"
        data = journal.read_bytes()
        at = data.index(b"precious 0")
        journal.write_bytes(data[:at] + b"P" + data[at + 1 :])
        before = journal.read_bytes()
        done = hubbub("up", "--port", "0", cwd=tmp_path)
        assert done.returncode == 1
        assert "00000001.journal: offset" in done.stderr
        assert journal.read_bytes() == before


class TestSafety:
    def test_the_well_known_key_stays_private(self, tmp_path):
        done = hubbub("up", "--memory", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path)
        assert done.returncode == 2
        assert "well-known" in done.stderr
        assert "HUBBUB_KEYS" in done.stderr

    def test_open_is_for_loopback(self, tmp_path):
        done = hubbub("up", "--memory", "--host", "0.0.0.0", "--auth", "open", HUBBUB_KEYS=f"a:{NEW}")
        assert done.returncode == 2
        assert "loopback" in done.stderr

    @pytest.mark.parametrize("flags", [["--allow-well-known-key"], []], ids=["allowed", "own key"])
    def test_public_when_it_is_meant(self, tmp_path, flags):
        env = {} if flags else {"HUBBUB_KEYS": f"{ROOT}:{NEW}"}
        with running(tmp_path, "--memory", "--host", "0.0.0.0", *flags, **env) as live:
            assert live.call("POST", "/queue/messages", b"x", key=WELL_KNOWN if flags else NEW)[0] == 201
            if not flags:
                assert live.call("POST", "/queue/messages", b"x")[0] == 401

    def test_open_needs_no_token(self, tmp_path):
        with running(tmp_path, "--memory", "--auth", "open") as live:
            assert live.call("POST", "/queue/messages", b"x", auth="")[0] == 201

    def test_no_secret_in_any_log(self, tmp_path):
        with running(tmp_path, "--memory", "-vv", HUBBUB_KEYS=f"{ROOT}:{NEW}:{OTHER}") as live:
            live.call("POST", "/queue/messages", b"x", key=NEW)
            live.call("POST", "/queue/messages", b"x", key="wrong key wrong key")
            live.call("POST", "/queue/messages", b"x", auth='WRAP access_token="secret-looking"')
            live.call(
                "POST", "/WRAPv0.9/", b"wrap_name=owner&wrap_password=hunter2hunter2&wrap_scope=x", auth=""
            )
            live.stop()
            text = live.log.read_text()
        assert text.count("queue/messages") >= 3
        for secret in (NEW, OTHER, "sig=", "secret-looking", "hunter2", "wrap_password"):
            assert secret not in text


class TestKeys:
    def test_rotation_by_the_file_and_by_signal(self, tmp_path):
        file = tmp_path / "hubbub.toml"

        def write(primary, secondary=""):
            file.write_text(
                f'memory = true\n[[keys]]\nname = "{ROOT}"\nprimary = "{primary}"\nsecondary = "{secondary}"\n'
                '[[queue]]\nname = "queue"\n'
            )

        def works(key):
            return live.call("POST", "/queue/messages", b"x", key=key)[0] == 201

        write(NEW)
        with running(tmp_path, "--config", str(file)) as live:
            assert works(NEW)
            assert not works(OTHER)
            write(OTHER, NEW)
            until(lambda: works(OTHER))
            assert works(NEW), "the old key is the second one now"
            write(OTHER)
            live.process.send_signal(signal.SIGHUP)
            until(lambda: not works(NEW))
            file.write_text("this is [no toml")
            live.process.send_signal(signal.SIGHUP)
            until(lambda: "the keys stay as they are" in live.log.read_text())
            assert works(OTHER)


class TestEnd:
    def test_sigterm_answers_what_is_in_work(self, tmp_path):
        with running(tmp_path) as live:
            answers = []
            poll = threading.Thread(
                target=lambda: answers.append(live.call("POST", "/queue/messages/head?timeout=30")[0])
            )
            poll.start()
            until(lambda: b"hubbub_" in live.call("GET", "/metrics")[2])
            time.sleep(0.2)
            assert live.stop() == 0
            poll.join(10)
            assert answers == [204]

    def test_who_waits_for_events_does_not_hold_it_up(self, tmp_path):
        with running(tmp_path, "--memory") as live:
            events = "/_hubbub/api/v1/hubs/events/partitions/0/events?from=end"
            answers = []
            waiting = [
                threading.Thread(target=lambda query=query: answers.append(live.call("GET", events + query)))
                for query in ("&wait=60", "&stream=1")
            ]
            for one in waiting:
                one.start()
            until(lambda: b"hubbub_ActiveConnections 3" in live.call("GET", "/metrics")[2])
            time.sleep(0.2)
            began = time.monotonic()
            assert live.stop(signal.SIGINT) == 0
            assert time.monotonic() - began < 5
            for one in waiting:
                one.join(10)
            assert sorted((status, body) for status, _, body in answers) == [(200, b""), (200, b"[]")]

    def test_sigint_and_what_was_sent_is_there_again(self, tmp_path):
        with running(tmp_path) as live:
            assert live.call("POST", "/queue/messages", b"kept")[0] == 201
            assert live.call("POST", "/queue/messages/head")[0] == 201
            assert live.stop(signal.SIGINT) == 0
        with running(tmp_path) as live:
            counts = json.loads(live.call("GET", "/_hubbub/api/v1/queues/queue")[2])
            assert counts["lockedMessageCount"] == 1, "the lock holds over a restart"


class TestTls:
    def test_auto(self, tmp_path):
        with running(tmp_path, "--tls", "auto", "--https-port", "0") as live:
            ca = next((tmp_path / ".hubbub" / "tls").glob("*ca*.pem"))
            context = ssl.create_default_context(cafile=str(ca))
            with urllib.request.urlopen(f"{live.ready['https']}/health", context=context) as answer:
                assert answer.status == 200
                assert answer.headers["Strict-Transport-Security"]
            assert all(os.stat(key).st_mode & 0o077 == 0 for key in ca.parent.glob("*key*"))
