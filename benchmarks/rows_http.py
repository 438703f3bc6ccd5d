"""The rows of HTTP: sends, batches, receives, many of everything, and the process itself.

The load is wrk's, or one plain connection where a latency is asked for.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.client
import os
import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from rig import KEY, KEY_NAME, MILLION, Row, pinned, running

from hubbub.broker.access import sas_token

TOKEN = sas_token("sb://localhost/", KEY_NAME, KEY, 4102444800)
BODY = '{ "DeviceId":"dev-01", "Temperature":"37.0" }'
BATCH = "[" + ",".join('{"Body":"Temperature 37.0"}' for _ in range(100)) + "]"
ATOM = "application/atom+xml;type=entry;charset=utf-8"
BATCH_TYPE = "application/vnd.microsoft.servicebus.json"
NODE_BIN = Path(__file__).parent / "node_modules" / ".bin"


def wrk(folder: Path, port: int, path: str, script: str, seconds: float, connections: int = 64) -> float:
    """Requests a second."""
    lua = folder / "load.lua"
    lua.write_text(script)
    command = [
        *pinned(1),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "20s",
        "-s",
        str(lua),
    ]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout:
        raise AssertionError(done.stdout)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]


def post(body: str, kind: str = ATOM) -> str:
    return (
        f'wrk.method="POST"\nwrk.body=[==[{body}]==]\nwrk.headers["Host"]="localhost"\n'
        f'wrk.headers["Content-Type"]="{kind}"\nwrk.headers["Authorization"]="{TOKEN}"\n'
    )


PAIRS = (
    'wrk.method="POST"\nlocal todo={}\n'
    f'local H={{["Host"]="localhost",["Authorization"]="{TOKEN}",["Content-Length"]="0"}}\n'
    "request=function()\n local p=table.remove(todo)\n"
    ' if p then return wrk.format("DELETE",p,H) end\n'
    ' return wrk.format("POST","/queue/messages/head?timeout=20",H)\nend\n'
    "response=function(status,headers,body)\n local l=headers['Location']\n"
    " if l then table.insert(todo,(l:gsub('^https?://[^/]+',''))) end\nend\n"
)


def spread(paths: list[str]) -> str:
    """Single sends that go round many targets."""
    lines = ",".join(f'"{path}"' for path in paths)
    return (
        post(BODY)
        + f"local P={{{lines}}}\nlocal n=0\nrequest=function()\n n=n%#P+1\n return wrk.format(nil,P[n])\nend\n"
    )


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[int]:
    port = 18_080
    conf = folder / "nginx.conf"
    conf.write_text(
        f"worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr;\n"
        "events { worker_connections 8192; }\n"
        f"http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder};"
        f" server {{ listen 127.0.0.1:{port} backlog=8192; location / {{ return 201; }} }} }}\n"
    )
    process = subprocess.Popen(
        [*pinned(0), "nginx", "-c", str(conf), "-p", str(folder)], stderr=subprocess.DEVNULL
    )
    time.sleep(0.5)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


# The public development account that Azurite ships with.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextlib.contextmanager
def peer(folder: Path, name: str, port: int, *arguments: str) -> Iterator[int]:
    """A node program of `benchmarks/node_modules`, pinned to core 0, answering on the port."""
    process = subprocess.Popen(
        [*pinned(0), str(NODE_BIN / name), *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def account_sas() -> str:
    """The query of a shared access signature for everything in Azurite's queues."""
    fields = {"sv": "2019-12-12", "ss": "q", "srt": "sco", "sp": "rwdlacup", "se": "2099-01-01T00:00:00Z"}
    signed = (ACCOUNT, *(fields[k] for k in ("sp", "ss", "srt")), "", fields["se"], "", "", fields["sv"], "")
    mac = hmac.digest(base64.b64decode(ACCOUNT_KEY), "\n".join(signed).encode(), "sha256")
    return urlencode(fields | {"sig": base64.b64encode(mac).decode()})


def azurite(folder: Path, seconds: float) -> float:
    """Queue put message, requests a second."""
    flags = ("--queuePort", "18081", "--silent", "--location", str(folder / "azurite"))
    with peer(folder, "azurite-queue", 18_081, *flags) as port:
        path, query = f"/{ACCOUNT}/events", account_sas()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"{path}?{query}", headers={"x-ms-version": "2019-12-12"})
        assert connection.getresponse().status == 201
        message = base64.b64encode(BODY.encode()).decode()
        script = (
            f'wrk.method="POST"\nwrk.body="<QueueMessage><MessageText>{message}</MessageText></QueueMessage>"\n'
            'wrk.headers["Content-Type"]="application/xml"\nwrk.headers["x-ms-version"]="2019-12-12"\n'
        )
        return wrk(folder, port, f"{path}/messages?{query}", script, seconds)


def kinesalite(folder: Path, seconds: float) -> float:
    """PutRecord, requests a second."""
    flags = ("--port", "18082", "--path", str(folder / "kinesalite"), "--createStreamMs", "0")
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Date": "20260101T000000Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/eu/kinesis/aws4_request, SignedHeaders=host, Signature=x",
    }
    with peer(folder, "kinesalite", 18_082, *flags) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        made = {**headers, "X-Amz-Target": "Kinesis_20131202.CreateStream"}
        connection.request("POST", "/", '{"StreamName":"events","ShardCount":4}', made)
        assert connection.getresponse().status == 200
        time.sleep(1)
        data = base64.b64encode(BODY.encode()).decode()
        lines = "".join(f'wrk.headers["{k}"]="{v}"\n' for k, v in headers.items())
        script = (
            f'wrk.method="POST"\n{lines}wrk.headers["X-Amz-Target"]="Kinesis_20131202.PutRecord"\n'
            f'wrk.body=[==[{{"StreamName":"events","PartitionKey":"p","Data":"{data}"}}]==]\n'
        )
        return wrk(folder, port, "/", script, seconds)


def bare_flush(folder: Path, size: int, count: int = 1000) -> float:
    """Median seconds of one write + fdatasync of `size` bytes."""
    times = []
    with open(folder / "bare", "wb", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(b"x" * size)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def sequential(port: int, count: int = 1500) -> float:
    """Median seconds of one send, over one connection, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    head = f"POST /events/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: {TOKEN}\r\n"
    request = f"{head}Content-Type: {ATOM}\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        connection.sock.sendall(request)
        assert connection.sock.recv(4096).startswith(b"HTTP/1.1 201")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def make_queue(port: int, name: str) -> None:
    """One whose quota a million messages do not reach."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    address, body = f"/_hubbub/api/v1/queues/{name}", b'{"maxSizeInMegabytes": 5120}'
    headers = {"Authorization": TOKEN, "Content-Type": "application/json"}
    connection.request("PUT", address, body, headers)
    assert connection.getresponse().status in (200, 201)


def fill(port: int, path: str, count: int, size: int) -> None:
    """Many messages of `size` bytes, in batches."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    batch = ("[" + ",".join('{"Body":"' + "x" * size + '"}' for _ in range(200)) + "]").encode()
    headers = {"Authorization": TOKEN, "Content-Type": BATCH_TYPE, "Host": "localhost"}
    for _ in range(count // 200):
        connection.request("POST", path, batch, headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 201


class HttpRows:
    """`single` is the measure of several."""

    NAMES = ("send", "peers", "batch", "latency", "pairs", "spread", "start", "size")

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self._single = 0.0

    def single(self) -> float:
        if not self._single:
            with running(self.folder) as server:
                wrk(self.folder, server.port, "/events/messages", post(BODY), 1)
                self._single = wrk(self.folder, server.port, "/events/messages", post(BODY), self.seconds)
        return self._single

    def send(self) -> Iterator[Row]:
        with nginx(self.folder) as port:
            static = wrk(self.folder, port, "/", post(BODY), self.seconds)
        single = self.single()
        note = f"{single:,.0f}/s against {static:,.0f}/s"
        yield Row("single durable sends / nginx static 201", single / static, ">=0.15", note)

    def peers(self) -> Iterator[Row]:
        single = self.single()
        for name, measure_peer, bound in (("azurite", azurite, ">=25"), ("kinesalite", kinesalite, ">=10")):
            rate = measure_peer(self.folder, self.seconds)
            note = f"{single:,.0f}/s against {rate:,.0f}/s"
            yield Row(f"single durable sends / {name}", single / rate, bound, note)

    def batch(self) -> Iterator[Row]:
        with running(self.folder) as server:
            path, script = "/events/messages", post(BATCH, BATCH_TYPE)
            events = 100 * wrk(self.folder, server.port, path, script, self.seconds)
        note = f"{events:,.0f} events/s"
        yield Row("events in batches of 100 / single sends", events / self.single(), ">=8", note)

    def latency(self) -> Iterator[Row]:
        with running(self.folder) as server:
            sequential(server.port, 200)
            send = sequential(server.port)
        bare = bare_flush(self.folder, 300)
        note = f"{send * 1e6:.0f} us against {bare * 1e6:.0f} us"
        yield Row("p50 of one connection / bare write + fdatasync", send / bare, "<=3", note)

    def pairs(self) -> Iterator[Row]:
        with running(self.folder) as server:
            fill(server.port, "/queue/messages", 200_000, 50)
            rate = wrk(self.folder, server.port, "/", PAIRS, self.seconds) / 2
        note = f"{rate:,.0f} pairs/s"
        yield Row("peek-lock + complete pairs / single sends", rate / self.single(), ">=0.25", note)

    def spread(self) -> Iterator[Row]:
        queues = [f"q{n}" for n in range(1000)]
        with running(self.folder, *(word for name in queues for word in ("--queue", name))) as server:
            one = wrk(self.folder, server.port, "/", spread(["/q0/messages"]), self.seconds)
            many = wrk(
                self.folder, server.port, "/", spread([f"/{q}/messages" for q in queues]), self.seconds
            )
        yield Row("1 000 queues / one", many / one, ">=0.7", f"{many:,.0f}/s against {one:,.0f}/s")
        with running(self.folder, "--hub", "events:32") as server:
            paths = [f"/events/partitions/{n}/messages" for n in range(32)]
            one = wrk(self.folder, server.port, "/", spread(paths[:1]), self.seconds)
            many = wrk(self.folder, server.port, "/", spread(paths), self.seconds)
        yield Row("32 partitions / one", many / one, ">=0.7", f"{many:,.0f}/s against {one:,.0f}/s")
        with running(self.folder) as server:
            path = "/events/messages"
            many = wrk(self.folder, server.port, path, post(BODY), self.seconds, connections=5000)
        yield Row("5 000 connections / 64", many / self.single(), ">=0.7", f"{many:,.0f}/s")

    def start(self) -> Iterator[Row]:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            with running(self.folder, "--memory") as server:
                sequential(server.port, 1)
                times.append(time.perf_counter() - began)
        yield Row("start to first 201, memory engine, s", statistics.median(times), "<=0.5", "median of 5")

    def size(self) -> Iterator[Row]:
        with running(self.folder, data="size") as server:
            idle = server.megabytes()
            yield Row("resident memory, idle, MB", idle, "<=60", "")
            make_queue(server.port, "large")
            fill(server.port, "/large/messages", MILLION, 1024)
            full = server.megabytes()
        yield Row("1 million queued 1 KB messages above idle, MB", full - idle, "<=400", "")
        with running(self.folder, data="size") as server:
            note = f"{server.megabytes():.0f} MB then"
        yield Row("restart with them to ready, s", server.seconds, "<=5", note)

    @staticmethod
    def needs(name: str) -> str | None:
        """What is missing for a row, if anything."""
        tools = {"send": ("wrk", "nginx"), "batch": ("wrk",), "pairs": ("wrk",), "spread": ("wrk",)}
        if name == "peers" and not (NODE_BIN / "azurite-queue").exists():
            return "azurite and kinesalite not installed"
        missing = [tool for tool in tools.get(name, ()) if shutil.which(tool) is None]
        return f"{' and '.join(missing)} not installed" if missing else None
