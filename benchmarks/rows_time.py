"""The rows of time: how late locks, session locks, schedules and times to live are with a million of them pending,
also after a restart; and how long others wait while a million are due at one moment.

The clients are programs of `time_load`. What counts is the worst, not the median: a timer is early or late.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import rig
from rig import MILLION, Row, running

LOAD = Path(__file__).parent / "time_load.py"
CONFIG = """
queue = [
  { name = "scheduled" }, { name = "held", lock_duration = "PT5M" },
  { name = "fleeting", dead_letter_on_expiration = true },
  { name = "brief", lock_duration = "PT1S", deliveries_max = 1000000 },
  { name = "seats", lock_duration = "PT1S", requires_session = true },
]
"""
HELD = MILLION // 5
SLACK = 10
"""Seconds between the last message that comes and the moment of all of them."""

load = partial(rig.load, LOAD)
rate = partial(rig.rate, LOAD)


class TimeRows:
    NAMES = ("timers", "moment")

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = 3 * seconds

    @staticmethod
    def needs(name: str) -> str | None:
        """What is missing for a row: nothing ever is."""
        return None

    def timers(self) -> Iterator[Row]:
        """Of the million, four in ten are scheduled, four have a time to live, and two are locked."""
        config = self._config()
        with running(self.folder, "--config", config, data="timers") as server:
            rate("pile", server.port, "held", HELD, "plain", 0)
            rate("pile", server.port, "scheduled", 2 * HELD, "scheduled", 0)
            rate("pile", server.port, "fleeting", 2 * HELD, "ending", 0)
            rate("hold", server.port, "held", HELD)
            worst = load("probe", server.port, self.seconds).strip()
            megabytes = server.megabytes()
        yield _lateness("a timer beside a million, worst, ms", worst, f"{megabytes:.0f} MB")
        with running(self.folder, "--config", config, data="timers") as server:
            worst = load("probe", server.port, self.seconds).strip()
        yield _lateness("... after a restart", worst, f"ready in {server.seconds:.1f} s")

    def moment(self) -> Iterator[Row]:
        """Half of them scheduled for that moment, half with a time to live that ends then, as dead letters."""
        for kind, queue, what in (
            ("scheduled", "scheduled", "a million come due at once"),
            ("ending", "fleeting", "a million expire at once"),
        ):
            with running(self.folder, "--config", self._config()) as server:
                found = rate("pile", server.port, "held", HELD, kind, 0)
                length = 1.5 * MILLION / found + SLACK
                due = int((time.time() + length) * 1000)
                rate("pile", server.port, queue, MILLION, kind, due)
                ahead = due / 1000 - time.time()
                assert ahead > 2, "the messages came too late"
                before, _ = map(float, load("watch", server.port, due - 1_000).split())
                slowest, usual = map(float, load("watch", server.port, due + 20_000).split())
            note = f"99 % within {usual:.1f} ms; slowest before, {before:.1f} ms"
            yield Row(f"slowest answer while {what}, ms", slowest, "<=50", note)

    def _config(self) -> str:
        path = self.folder / "time.toml"
        path.write_text(CONFIG)
        return str(path)


def _lateness(what: str, worst: str, note: str) -> Row:
    figures = [float(part.rpartition(" ")[2]) for part in worst.split(", ")]
    return Row(what, max(figures), "<=50", f"{worst}; {note}")
