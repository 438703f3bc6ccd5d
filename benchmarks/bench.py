"""Speed and size, as ratios to references measured in the same run.

    python benchmarks/bench.py [--only WORD] [--seconds 4] [--json] [--save]

This is the run; what is measured stands in `rows_http`, `rows_amqp` and `rows_servicebus`. Rows whose tools
are missing say so.
The server is a real process, pinned to one core, its clients to another; references are measured the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rig import Row
from rows_amqp import AmqpRows
from rows_http import HttpRows
from rows_servicebus import ServiceBusRows
from rows_time import TimeRows

GROUPS: tuple[Any, ...] = (HttpRows, AmqpRows, ServiceBusRows, TimeRows)
NAMES = [name for group in GROUPS for name in group.NAMES]


def measure(only: str | None, seconds: float, show: Callable[[Row], None]) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        for group in GROUPS:
            bench = group(Path(folder).resolve(), seconds)
            for name in group.NAMES:
                if only and name != only:
                    continue
                missing = bench.needs(name)
                for row in [Row(name, None, "", missing)] if missing else getattr(bench, name)():
                    rows.append(row)
                    show(row)
    return rows


def _line(row: Row) -> None:
    value = "-" if row.value is None else f"{row.value:.3g}"
    verdict = {True: "ok", False: "MISSED", None: "skipped"}[row.holds()]
    print(f"{row.what:<58} {value:>8}  {row.bound:<7} {verdict:<8} {row.note}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="Keep the result in benchmarks/results.")
    options = parser.parse_args()
    rows = measure(options.only, options.seconds, (lambda row: None) if options.json else _line)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "rows": [row._asdict() | {"holds": row.holds()} for row in rows],
    }
    if options.json:
        print(json.dumps(result, indent=2))
    if options.save:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"{result['date']}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
