"""`hubbub bench`: how fast a server is, seen from a client.

Closed loop: each connection has a bounded number of requests under way (one over HTTP), so rates are what
this many clients get, and latencies are not those of an overloaded server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import click

from .client import Client, Failure, as_json, connection, fail, protocol, segment, show_table
from .web import Web

BATCH_TYPE = b"application/vnd.microsoft.servicebus.json"


@click.command()
@connection
@click.option("--entity", default="events", show_default=True, help="Event hub or queue to load.")
@click.option(
    "--mode", type=click.Choice(["send", "batch", "lock", "latency"]), default="send", show_default=True
)
@click.option("--clients", default=16, show_default=True)
@click.option("--size", default=256, show_default=True, help="Body bytes.")
@click.option("--batch", default=100, show_default=True, help="Messages per request in mode batch.")
@click.option("--duration", default=5.0, show_default=True, help="Seconds.")
@click.option("--window", default=50, show_default=True, help="AMQP: sends under way per client.")
@protocol
@as_json
def bench(text: str, ca: str | None, plain: bool, **options: Any) -> None:
    """Load a server and report rate and latency.

    \b
    send     single messages              batch    batches of them
    lock     send, peek-lock, complete    latency  event hub: from send to a waiting reader
    """
    client = Client(text, ca)
    began = time.perf_counter()
    with _clock(options["duration"]):
        if options["protocol"] == "amqp":
            from .amqp_bench import measure
            from .over_amqp import run

            times, errors = run(measure(client.target, ca, options))
        elif client.target.secure:
            fail("over HTTP, bench speaks no TLS; use UseDevelopmentEmulator=true, or --protocol amqp.", 2)
        else:
            times, errors = asyncio.run(_run(client, options))
    if not times:
        fail(f"no request succeeded ({errors} failed)", 1)
    result = _result(options, sorted(times), errors, time.perf_counter() - began)
    if plain:
        click.echo(json.dumps(result))
    else:
        show_table("results", tuple(result), [tuple(result.values())])


@contextlib.contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """A bar on a terminal that tells how long it still takes."""
    if not sys.stderr.isatty() or seconds < 1:
        yield
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=seconds)
        began, ended = time.perf_counter(), threading.Event()

        def advance() -> None:
            while not ended.wait(0.1):
                bar.update(task, completed=min(seconds, time.perf_counter() - began))

        ticker = threading.Thread(target=advance, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()


def _result(options: dict[str, Any], times: list[float], errors: int, seconds: float) -> dict[str, Any]:
    each = options["batch"] if options["mode"] == "batch" else 1

    def percentile(share: float) -> float:
        return round(times[min(len(times) - 1, int(len(times) * share))] * 1000, 3)

    rate = len(times) * each / seconds
    return {
        "mode": options["mode"],
        "protocol": options["protocol"],
        "clients": 1 if options["mode"] == "latency" else options["clients"],
        "messages_per_second": round(rate),
        "megabytes_per_second": round(rate * options["size"] / 1e6, 2),
        "p50_ms": percentile(0.5),
        "p90_ms": percentile(0.9),
        "p95_ms": percentile(0.95),
        "p99_ms": percentile(0.99),
        "p999_ms": percentile(0.999),
        "max_ms": round(times[-1] * 1000, 3),
        "errors": errors,
    }


async def _run(client: Client, options: dict[str, Any]) -> tuple[list[float], int]:
    times: list[float] = []
    errors = 0
    until = time.perf_counter() + options["duration"]
    work = {"send": _send, "batch": _send, "lock": _lock, "latency": _latency}[options["mode"]]

    async def one() -> None:
        nonlocal errors
        link = await Web.open(client)
        while time.perf_counter() < until:
            start = time.perf_counter()
            if await work(link, options):
                times.append(time.perf_counter() - start)
            else:
                errors += 1
                await asyncio.sleep(0.01)
        link.close()

    count = 1 if options["mode"] == "latency" else options["clients"]
    try:
        await asyncio.gather(*(one() for _ in range(count)))
    except Failure as error:
        fail(str(error), error.code, error.hint)
    return times, errors


async def _send(link: Web, options: dict[str, Any]) -> bool:
    body, kind = b"x" * options["size"], b"text/plain"
    if options["mode"] == "batch":
        element = '{"Body":"' + "x" * options["size"] + '"}'
        body, kind = ("[" + ",".join([element] * options["batch"]) + "]").encode(), BATCH_TYPE
    status, _, _ = await link.request("POST", f"/{options['entity']}/messages", body, kind)
    return status == 201


async def _lock(link: Web, options: dict[str, Any]) -> bool:
    """A message sent, locked and completed; any waiting message will do."""
    entity = options["entity"]
    await link.request("POST", f"/{entity}/messages", b"x" * options["size"])
    status, head, _ = await link.request("POST", f"/{entity}/messages/head?timeout=5")
    if status != 201:
        return False
    at = head.index(b"Location: ") + 10
    location = head[at : head.index(b"\r\n", at)].decode()
    path = "/" + location.split("://", 1)[1].partition("/")[2]
    return (await link.request("DELETE", path))[0] == 200


async def _latency(link: Web, options: dict[str, Any]) -> bool:
    """Until an event that was sent can be read: durable, answered and seen."""
    hub = segment(options["entity"])
    place = f"/_hubbub/api/v1/hubs/{hub}/partitions/0"
    _, _, body = await link.request("GET", f"/_hubbub/api/v1/hubs/{hub}")
    last = json.loads(body)["partitions"][0]["lastEnqueuedSequenceNumber"]
    await link.request("POST", f"/{options['entity']}/partitions/0/messages", b"x" * options["size"])
    status, _, body = await link.request("GET", f"{place}/events?from=seq:{last}&count=1&wait=5")
    return status == 200 and len(json.loads(body)) == 1
