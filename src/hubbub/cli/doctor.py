"""`hubbub doctor`: is this machine, and what is stored on it, in order?"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import click

from .client import as_json, data_folder

FLUSHES = 50
SLOW_FLUSH_MS = 10.0
ROOM_BYTES = 1 << 30
FILES_MIN = 4096


class Finding(NamedTuple):
    """One line of the report: OK, WARN or FIX, and what to do."""

    level: str
    check: str
    text: str


@click.command()
@data_folder
@click.option("--port", default=5300, show_default=True)
@click.option("--config", "file", type=click.Path(), envvar="HUBBUB_CONFIG", help="A configuration to check.")
@as_json
def doctor(data: str, port: int, file: str | None, plain: bool) -> None:
    """Check this machine and its data; exit code 1 if something must be fixed."""
    found = [*_machine(port), *_disk(data), *_journal(data), *_configuration(file)]
    if plain:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    colors = {"OK": "green", "WARN": "yellow", "FIX": "red"}
    for finding in () if plain else found:
        level = click.style(f"{finding.level:<5}", fg=colors[finding.level])
        click.echo(f"{level}{finding.check:<10} {finding.text}")
    raise SystemExit(any(finding.level == "FIX" for finding in found))


def _machine(port: int) -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding("OK" if good else "FIX", "python", f"{platform.python_version()} (3.11 or newer is needed)")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            yield Finding("OK", "port", f"{port} is free")
        except OSError:
            yield Finding(
                "WARN", "port", f"{port} is in use, perhaps by a running hubbub; --port 0 picks another"
            )
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_MIN:
        yield Finding("WARN", "files", f"only {soft} open files are allowed; raise it with: ulimit -n {hard}")
    else:
        yield Finding("OK", "files", f"{soft} open files are allowed")


def _disk(data: str) -> Iterator[Finding]:
    folder = os.path.abspath(data)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    why = _unusable(folder)
    if why:
        yield Finding("FIX", "data", f"{folder} {why}; choose another folder with --data")
        return
    free = shutil.disk_usage(folder).free
    level = "OK" if free > ROOM_BYTES else "WARN"
    yield Finding(level, "space", f"{free / (1 << 30):.1f} GiB are free in {os.path.abspath(folder)}")
    flush = _flush_ms(folder)
    level = "OK" if flush < SLOW_FLUSH_MS else "WARN"
    yield Finding(
        level, "flush", f"a small write + fdatasync takes {flush:.2f} ms (median); sends wait for it"
    )


def _unusable(folder: str) -> str:
    """Why nothing can be stored there; empty: it can."""
    if not os.path.isdir(folder):
        return "is no folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"


def _flush_ms(folder: str) -> float:
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FLUSHES):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 300)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def _journal(data: str) -> Iterator[Finding]:
    if not os.path.isdir(data):
        if not os.path.exists(data):
            yield Finding("OK", "journal", f"{data} does not exist yet")
        return
    import fcntl

    from ..engine.recovery import verify

    lock = os.path.join(data, "LOCK")
    if os.path.exists(lock):
        with open(lock, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield Finding(
                    "OK", "journal", f"in use by a running hubbub (pid {file.read().strip()}); not read"
                )
                return
    try:
        problems = list(verify(data))
    except OSError as error:
        problems = [f"{error.filename or data} cannot be read: {error.strerror}"]
    for problem in problems:
        yield Finding("FIX", "journal", problem)
    if not problems:
        yield Finding("OK", "journal", f"every record in {os.path.abspath(data)} is what was written")


def _configuration(file: str | None) -> Iterator[Finding]:
    from ..config import Config, ConfigError, environment, finished, load

    try:
        finished(load(file) if file else Config(), environment())
        yield Finding("OK", "config", f"{file or 'the defaults and the environment'} can be used")
    except ConfigError as error:
        yield Finding("FIX", "config", str(error))
