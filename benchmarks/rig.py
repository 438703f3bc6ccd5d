"""What every row needs: a line of the table, a server of our own, clients to load it, and which core a program
runs on.

Servers of any kind have core 0, whoever loads them has core 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

KEY_NAME, KEY = "RootManageSharedAccessKey", "SAS_KEY_VALUE"
MILLION = 1_000_000
ROUNDS = 3


class Row(NamedTuple):
    """One line of the table. `value` is a ratio, seconds or megabytes; `bound` what it must keep."""

    what: str
    value: float | None
    bound: str
    note: str

    def holds(self) -> bool | None:
        if self.value is None:
            return None
        limit = float(self.bound[2:])
        return self.value >= limit if self.bound.startswith(">=") else self.value <= limit


def pinned(core: int) -> list[str]:
    """What to put before a command so that it keeps to one core."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


class Server:
    """A hubbub process on a free port, pinned to core 0."""

    def __init__(self, folder: Path, *flags: str, data: str = "data") -> None:
        ready = folder / f"ready-{time.monotonic_ns()}.json"
        command = [*pinned(0), sys.executable, "-m", "hubbub", "up", "--port", "0", "-q"]
        command += ["--ready-file", str(ready), "--data", str(folder / data), *flags]
        began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not ready.exists():
            time.sleep(0.002)
            assert self.process.poll() is None, "the server did not start"
        self.seconds = time.perf_counter() - began
        self.port = int(json.loads(ready.read_text())["http"].rpartition(":")[2])

    def megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def processor_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@contextlib.contextmanager
def running(folder: Path, *flags: str, data: str | None = None) -> Iterator[Server]:
    """What it stored goes with it, unless `data` names a folder for it."""
    name = data or f"data-{time.monotonic_ns()}"
    server = Server(folder, *flags, data=name)
    try:
        yield server
    finally:
        server.stop()
        if data is None:
            shutil.rmtree(folder / name, ignore_errors=True)


def load(file: Path, program: str, *arguments: object) -> str:
    """Runs a client program of `file` to its end on core 1; what it printed."""
    command = [*pinned(1), sys.executable, str(file), program, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def rate(file: Path, program: str, *arguments: object) -> float:
    return float(load(file, program, *arguments))


def alternating(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Medians of several rounds, taken in turn, so that a machine's mood meets both."""
    pairs = [(ours(), theirs()) for _ in range(ROUNDS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)
