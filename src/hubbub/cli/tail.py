"""`hubbub tail`: the events of a hub as they come, through lost connections.

What is followed is fixed when the first connection stands: `end` becomes the last event of each partition
then, so that nothing is missed while a connection is made anew. How events come is for the feeds: over HTTP
here, over AMQP in `over_amqp`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import click

from .client import Client, Failure, as_json, connection, fail, protocol, segment
from .messages import line_of
from .web import Web

PAUSES = (0.2, 0.5, 1, 2, 5)
"""Seconds before it connects again, the last one for ever."""
Show = Callable[[str, dict[str, Any]], object]


class Enough(Exception):
    """As many events were shown as were asked for."""


class Tail:
    """What was seen, partition by partition. `standing`: connections on which all were followed."""

    def __init__(
        self, hub: str, partitions: tuple[str, ...], start: str, left: int | None, show: Show
    ) -> None:
        self.hub = hub
        self._partitions = partitions
        self.standing = 0
        self._start = start
        self._left = left
        self._show = show
        self._seen: dict[str, int] = {}

    def choose(self, there: list[str]) -> list[str]:
        """The partitions to follow. Raises Failure if one is not there."""
        for number in self._partitions:
            if number not in there:
                raise Failure(f"{self.hub} has no partition {number}; it has {', '.join(there)}.", 3)
        return list(dict.fromkeys(self._partitions)) or there

    def start(self, number: str, last: int) -> str:
        """Where to begin in a partition whose last event is `last` (-1: it has none)."""
        seen = self._seen.get(number)
        if seen is None and self._start == "end":
            seen = self._seen[number] = last
        if seen is None:
            return self._start
        if seen > last:
            text = f"partition {number} has begun anew; following it from its start"
            click.secho(text, fg="yellow", err=True)
            seen = self._seen[number] = -1
        return "start" if seen < 0 else f"seq:{seen}"

    def take(self, number: str, event: dict[str, Any]) -> None:
        """Shows an event. Raises Enough with the last one."""
        if self._left == 0:
            raise Enough
        self._show(number, event)
        self._seen[number] = event["sequenceNumber"]
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise Enough


async def keep_on(tail: Tail, feed: Callable[[Tail], Awaitable[None]]) -> None:
    """Follows until there were enough. Raises Failure if the first connection fails, or where another would
    fare no better."""
    tries = 0
    while True:
        before = tail.standing
        try:
            await feed(tail)
        except Enough:
            return
        except Failure as error:
            if not tail.standing or not (error.lost or error.code in (7, 8)):
                raise
            click.secho(f"{error}; connecting again", fg="yellow", err=True)
        tries = tries + 1 if tail.standing == before else 0
        await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])


async def first_end(work: list[asyncio.Future[None]]) -> None:
    """Until the first of them ends; raises what it raises, and cancels the others."""
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        # If there is enough, that counts, whatever else happened.
        for ended in sorted(done, key=lambda each: not isinstance(each.exception(), Enough)):
            ended.result()
    finally:
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def over_http(client: Client, tail: Tail) -> None:
    """Follows over one set of connections, one for each partition."""
    web = await Web.open(client)
    try:
        shape = await web.json(f"hubs/{segment(tail.hub)}")
    finally:
        web.close()
    last = {p["id"]: p["lastEnqueuedSequenceNumber"] for p in shape["partitions"]}
    starts = {number: tail.start(number, last[number]) for number in tail.choose(list(last))}
    tail.standing += 1
    await first_end([asyncio.ensure_future(_stream(client, tail, *each)) for each in starts.items()])


async def _stream(client: Client, tail: Tail, number: str, start: str) -> None:
    web = await Web.open(client)
    place = f"hubs/{segment(tail.hub)}/partitions/{segment(number)}/events?from={segment(start)}&stream=1"
    try:
        async for block in web.lines(place):
            for line in block.split(b"\n"):
                tail.take(number, json.loads(line))
    finally:
        web.close()


def start_of(text: str) -> tuple[str, str]:
    """The kind and the value of a `--from`: start, end, seq, offset or time (in milliseconds). Raises
    ValueError with what to say."""
    kind, colon, value = text.partition(":")
    kind = {"sequence": "seq"}.get(kind, kind)
    if kind in ("start", "end") and not colon:
        return kind, ""
    if kind == "seq" and re.fullmatch(r"\d{1,19}", value, re.ASCII):
        return kind, value
    if kind == "offset" and value and "'" not in value:
        return kind, value
    if kind == "time":
        try:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return kind, str(int(moment.timestamp() * 1000))
        except (ValueError, OverflowError):
            """Told below."""
    raise ValueError(
        f"'{text}' is no place in a hub. "
        "Say start, end, seq:NUMBER, offset:OFFSET or time:2026-01-31T12:00:00Z."
    )


def _place(ctx: click.Context, param: click.Parameter, text: str) -> str:
    try:
        kind, _ = start_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return f"seq:{text.partition(':')[2]}" if kind == "seq" else text


@click.command()
@click.argument("hub")
@connection
@click.option("--partition", multiple=True, help="Only these partitions.")
@click.option(
    "--from",
    "start",
    default="end",
    show_default=True,
    callback=_place,
    help="start, end, or behind seq:N, offset:X or time:ISO.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--group", default="$Default", show_default=True, help="AMQP: the consumer group.")
@protocol
@as_json
def tail(text: str, ca: str | None, plain: bool, **options: Any) -> None:
    """Follow an event hub live: all its partitions, as events come.

    Goes on behind the last event shown when a connection is lost and made anew.
    """
    client = Client(text, ca)

    def show(number: str, event: dict[str, Any]) -> None:
        click.echo(json.dumps({"partition": number, **event}) if plain else f"{number}  {line_of(event)}")

    following = Tail(options["hub"], options["partition"], options["start"], options["count"], show)
    if options["protocol"] == "amqp":
        from .over_amqp import follow

        feed = follow(client.target, ca, options["group"])
    else:

        async def feed(tail: Tail) -> None:
            await over_http(client, tail)

    try:
        asyncio.run(keep_on(following, feed))
    except Failure as error:
        fail(str(error), error.code, error.hint)
