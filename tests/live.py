"""A hubbub process of its own, as a user starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hubbub.broker.access import sas_token

ROOT, WELL_KNOWN = "RootManageSharedAccessKey", "SAS_KEY_VALUE"
FAR = 4_102_444_800


def own_address() -> str:
    """A loopback address where the standard ports are free: some clients cannot be told of another port."""
    number = os.getpid() & 0xFFFF
    return f"127.77.{number >> 8}.{number & 255}"


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
    source = str(Path(__file__).parents[1] / "src")
    return {**kept, "PYTHONPATH": source, "COLUMNS": "120", **changes}


class Live:
    """`ready` is what the ready file says; `log` is where standard error goes."""

    def __init__(self, folder: Path, *flags: str, **env: str) -> None:
        number = time.monotonic_ns()
        self.folder = folder
        self.log = folder / f"log-{number}"
        self.out = folder / f"out-{number}"
        ready = folder / f"ready-{number}.json"
        command = [sys.executable, "-m", "hubbub", "up", "--port", "0", "--ready-file", str(ready)]
        with open(self.log, "wb") as log, open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                [*command, *flags], stdout=out, stderr=log, env=environment(**env), cwd=folder
            )
        for _ in range(1000):
            if ready.exists():
                break
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        self.ready = json.loads(ready.read_text())
        self.port = int(self.ready["http"].rpartition(":")[2])

    @property
    def connection_string(self) -> str:
        return self.ready["connection_string"]

    def call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        key: str = WELL_KNOWN,
        name: str = ROOT,
        auth: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        token = sas_token("sb://localhost/", name, key, FAR) if auth is None else auth
        sent = {"Host": "localhost", "Authorization": token, **headers}
        connection.request(method, target, body, {k.replace("_", "-"): v for k, v in sent.items() if v})
        response = connection.getresponse()
        found = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(folder: Path, *flags: str, **env: str) -> Iterator[Live]:
    live = Live(folder, *flags, **env)
    try:
        yield live
    finally:
        live.kill()


def hubbub(*arguments: str, feed: str | None = None, cwd: Path | None = None, **env: str):
    """One command to its end; a CompletedProcess with text."""
    return subprocess.run(
        [sys.executable, "-m", "hubbub", *arguments],
        input=feed if feed is not None else "",
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**env),
        cwd=cwd,
    )
