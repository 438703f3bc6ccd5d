"""Every port speaks everything; each can be moved or closed; clients can be told to trust the authority."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hubbub.broker.access import sas_token
from live import ROOT, WELL_KNOWN, environment, hubbub, running

TOKEN = sas_token("sb://localhost/", ROOT, WELL_KNOWN, 4_102_444_800)
HEADERS = {"Authorization": TOKEN, "Content-Type": "text/plain"}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    ports = ["--amqp-port", "0", "--https-port", "0", "--amqps-port", "0"]
    name = ["--tls-host", "something.servicebus.windows.net"]
    with running(folder, "--data", "data", "--tls", "auto", *ports, *name) as live:
        yield live


def trusting(live) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(live.folder / "data/tls/ca.pem"))


@pytest.mark.parametrize("scheme", ["http", "amqp", "https", "amqps"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("protocol", ["http", "amqp"])
def test_every_port_speaks_every_protocol(secure, scheme, tls, protocol):
    if not tls and scheme in ("https", "amqps"):
        pytest.skip("these two are for TLS alone")
    with socket.create_connection(("127.0.0.1", port_of(secure.ready[scheme])), timeout=10) as plug:
        if tls:
            plug = trusting(secure).wrap_socket(plug, server_hostname="localhost")
        if protocol == "amqp":
            plug.sendall(b"AMQP\3\1\0\0")
            assert plug.recv(8) == b"AMQP\3\1\0\0"
        else:
            plug.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert plug.recv(12) == b"HTTP/1.1 200"
        plug.close()


def test_a_host_name_of_azure_reaches_this_server(secure):
    """A host entry is enough for an app without any emulator switch."""
    name = "something.servicebus.windows.net"
    with socket.create_connection(("127.0.0.1", port_of(secure.ready["https"])), timeout=10) as plain:
        plug = trusting(secure).wrap_socket(plain, server_hostname=name)
        connection = http.client.HTTPConnection(name)
        connection.sock = plug
        token = sas_token(f"https://{name}/events", ROOT, WELL_KNOWN, 4_102_444_800)
        connection.request("POST", "/events/messages", b"x", HEADERS | {"Authorization": token})
        assert connection.getresponse().status == 201
        connection.close()


def test_a_broken_handshake_harms_nobody_else(secure):
    port = secure.port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plug:
        plug.sendall(b"\x16\x03\x01garbage")
        assert plug.recv(100)[:1] in (b"", b"\x15")
    with socket.create_connection(("127.0.0.1", port)):
        assert secure.call("POST", "/events/messages", b"x")[0] == 201


def test_a_byte_at_a_time(secure):
    with socket.create_connection(("127.0.0.1", secure.port), timeout=10) as plug:
        for byte in b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n":
            plug.sendall(bytes([byte]))
            time.sleep(0.001)
        assert plug.recv(12) == b"HTTP/1.1 200"


def test_ports_that_are_off(tmp_path):
    with running(tmp_path, "--memory", "--amqp-port", "off") as live:
        assert live.call("GET", "/health", auth="")[0] == 200
    done = hubbub("up", "--memory", "--port", "off", "--amqp-port", "off")
    assert done.returncode == 1
    assert "Every port is off" in done.stderr
    done = hubbub("up", "--memory", "--port", "70000")
    assert done.returncode == 2
    assert "not a port from 1 to 65535" in done.stderr


def test_a_port_that_is_taken(tmp_path):
    with running(tmp_path, "--memory", "--amqp-port", "0") as other:
        taken = port_of(other.ready["amqp"])
        done = hubbub("up", "--memory", "--port", "0", "--amqp-port", str(taken))
        assert done.returncode == 1
        assert f"127.0.0.1:{taken} cannot be used" in done.stderr
        assert "--amqp-port 0" in done.stderr


def test_without_a_port_for_http(tmp_path):
    ready = tmp_path / "ready.json"
    flags = ["--memory", "--port", "off", "--amqp-port", "0", "--ready-file", str(ready), "-q"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hubbub", "up", *flags], env=environment(), stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(1000):
            if ready.exists():
                break
            time.sleep(0.01)
        found = json.loads(ready.read_text())
        assert (found["http"], found["https"]) == (None, None)
        assert f"localhost:{port_of(found['amqp'])};" in found["connection_string"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("form", ["pem", "shell", "json", "text"])
def test_trust(secure, form):
    flags = {"pem": ["--pem"], "shell": ["--shell"], "json": ["--json"], "text": []}[form]
    done = hubbub("trust", "--data", "data", *flags, cwd=secure.folder)
    assert done.returncode == 0, done.stderr
    ca = (secure.folder / "data/tls/ca.pem").read_text()
    if form == "pem":
        assert done.stdout == ca
    elif form == "json":
        found = json.loads(done.stdout)
        assert Path(found["ca"]).read_text() == ca
        assert Path(found["bundle"]).read_text().endswith(ca)
        assert "NODE_EXTRA_CA_CERTS" in found["clients"]["Node.js, @azure/*"]
    elif form == "text":
        assert "REQUESTS_CA_BUNDLE" in done.stdout
    else:
        url = f"https://localhost:{secure.port}/health"
        got = subprocess.run(
            ["sh", "-c", f"{done.stdout}\ncurl -s -o /dev/null -w '%{{http_code}}' {url}"],
            capture_output=True,
            text=True,
        )
        assert got.stdout == "200", got.stderr
