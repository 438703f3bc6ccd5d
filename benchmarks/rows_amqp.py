"""The rows of AMQP: the official producer, single transfers, replay, the codec, and connections that idle.

The clients and the references are programs of `amqp_load`, each in a process of its own. What is compared runs
in turn, several times, and the medians are compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import rig
from rabbit import PROGRAM as RABBIT
from rabbit import USER, rabbit
from rig import KEY, KEY_NAME, MILLION, ROUNDS, Row, Server, alternating, pinned, running

LOAD = Path(__file__).parent / "amqp_load.py"
HUB = "events/ConsumerGroups/$Default/Partitions/0"
IDLE_CONNECTIONS = 2000
IDLE_SECONDS = 60
IDLE_GROUPS = 13
IDLE_CONFIG = f"""
[[hub]]
name = "events"
partition_count = 32
consumer_groups = [{", ".join(f'"g{n}"' for n in range(IDLE_GROUPS))}]
"""


load = partial(rig.load, LOAD)
rate = partial(rig.rate, LOAD)


@contextlib.contextmanager
def reference(program: str, *arguments: object) -> Iterator[int]:
    """The port of a server program on core 0."""
    command = [*pinned(0), sys.executable, str(LOAD), program, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class AmqpRows:
    NAMES = ("batches", "transfers", "replay", "codec", "idle")

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds

    @staticmethod
    def needs(name: str) -> str | None:
        """What is missing for a row, if anything."""
        return "rabbitmq-server not installed" if name == "transfers" and not RABBIT.exists() else None

    def batches(self) -> Iterator[Row]:
        seconds = self.seconds / 2
        for anew, what, bound in ((True, "new batches", ">=0.6"), (False, "one batch again", ">=0.3")):
            with running(self.folder) as server, reference("sink") as sink:
                ours, theirs = alternating(
                    partial(rate, "azure", server.port, 1000, anew, seconds),
                    partial(rate, "azure", sink, 1000, anew, seconds),
                )
            note = f"{ours:,.0f} events/s against {theirs:,.0f} events/s"
            yield Row(f"azure-eventhub, {what} / bare acknowledgement", ours / theirs, bound, note)

    def transfers(self) -> Iterator[Row]:
        seconds, key = self.seconds / 2, (KEY_NAME, KEY)
        with rabbit(self.folder) as port, running(self.folder) as server:
            queue, theirs = alternating(
                lambda: rate("send", server.port, "queue", seconds, *key),
                lambda: rate("send", port, "/queue/bench", seconds, USER, USER),
            )
            hub = statistics.median(rate("send", server.port, "events", seconds, *key) for _ in range(ROUNDS))
        for name, ours in (("a queue", queue), ("a hub", hub)):
            note = f"{ours:,.0f}/s against {theirs:,.0f}/s"
            yield Row(f"single AMQP transfers to {name} / RabbitMQ", ours / theirs, ">=1", note)

    def replay(self) -> Iterator[Row]:
        key = (KEY_NAME, KEY)
        with running(self.folder, "--hub", "events:1", data="replay") as server:
            rate("fill", server.port, "events/Partitions/0", MILLION, 1000, *key)

            def plain() -> float:
                with reference("copy", self.folder / "replay") as port:
                    return rate("drink", port)

            ours, theirs = alternating(lambda: rate("replay", server.port, HUB, MILLION, *key), plain)
        note = f"{ours / 1e6:,.0f} MB/s against {theirs / 1e6:,.0f} MB/s"
        yield Row("replay of 1 million events / file to socket", ours / theirs, ">=0.3", note)

    def codec(self) -> Iterator[Row]:
        read, generally, write = map(float, load("codec").split())
        note = f"{read:.2f} us against {generally:.2f} us; written in {write:.2f} us"
        yield Row("read a 1 KB transfer / the general decoder", read / generally, "<=0.5", note)
        if shutil.which("valgrind"):
            counted = (_instructions(30) - _instructions(10)) / (20 * 200)
            yield Row("read and write it, thousand instructions", counted / 1000, "<=25", "by callgrind")

    def idle(self) -> Iterator[Row]:
        config = self.folder / "idle.toml"
        config.write_text(IDLE_CONFIG)
        with running(self.folder, "--config", str(config)) as server:
            before, quiet = server.megabytes(), _added(server)
            addresses = ",".join(
                f"events/ConsumerGroups/g{group}/Partitions/{partition}"
                for group in range(IDLE_GROUPS)
                for partition in range(32)
            )
            with _held("idle", server.port, IDLE_CONNECTIONS, addresses):
                each = (server.megabytes() - before) * 1024 / IDLE_CONNECTIONS
                busy = _added(server)
        yield Row("an idle AMQP connection with a receiver, KB", each, "<=60", f"of {IDLE_CONNECTIONS:,}")
        note = f"{quiet:.2f} s without them"
        yield Row(f"{IDLE_CONNECTIONS:,} of them, CPU seconds a minute", busy - quiet, "<=1", note)


def _instructions(rounds: int) -> int:
    """Of a whole process; two of them make a difference that is the codec's alone."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, str(LOAD)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*command, "codec-loop", str(rounds)], capture_output=True, text=True, check=True, env=environment
    )
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])  # type: ignore[index]


def _added(server: Server) -> float:
    """Processor seconds that the server takes in a minute."""
    began = server.processor_seconds()
    time.sleep(IDLE_SECONDS)
    return (server.processor_seconds() - began) * 60 / IDLE_SECONDS


@contextlib.contextmanager
def _held(program: str, *arguments: object) -> Iterator[None]:
    """A client program that has said that it is ready, until it is no longer needed."""
    command = [*pinned(1), sys.executable, str(LOAD), program, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
