"""`send`, `peek` and `receive`: messages by hand. Sending and receiving speak the public protocols and so
work against the real service too; looking without touching is Hubbub's own API."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

from .client import Client, as_json, connection, fail, protocol, segment

_BATCH = "application/vnd.microsoft.servicebus.json"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""Of a header (RFC 9110, 5.6.2)."""
PROGRESS_FROM = 100
"""Messages from which on a progress bar is worth its place."""


@click.command()
@click.argument("entity")
@click.argument("body", required=False)
@connection
@click.option(
    "--count",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="How many; {{n}} in BODY is the number.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Messages a second at the most.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Messages per request at the most.",
)
@click.option("--lines", is_flag=True, help="One message per line of standard input.")
@click.option("-p", "--property", "properties", multiple=True, metavar="NAME=VALUE", help="User property.")
@click.option("--partition", help="Event hubs: the partition.")
@click.option(
    "--partition-key", "--key", "partition_key", help="Messages of one key stay together, in order."
)
@click.option("--session", help="Service Bus: the session id.")
@click.option("--message-id", help="Templates work here too.")
@click.option("--label", help="The subject.")
@click.option("--ttl", type=float, help="Seconds to live.")
@click.option("--content-type", default="text/plain", show_default=True)
@protocol
@as_json
def send(entity: str, body: str | None, text: str, ca: str | None, plain: bool, **options: Any) -> None:
    """Send BODY to ENTITY (a queue, topic or event hub).

    \b
    hubbub send events '{"id": {{n}}, "at": "{{now}}"}' --count 1000
    hubbub send queue @file.json --content-type application/json
    printf 'a\\nb\\n' | hubbub send queue - --lines
    """
    client = Client(text, ca)
    partition = options["partition"]
    path = f"/{entity}{f'/partitions/{partition}' if partition else ''}/messages"
    began = time.monotonic()
    total, sent, size = _total(body, options), 0, 0
    with _progress(total) as advance, _told_how_far(lambda: sent):

        def posted(group: list[bytes]) -> None:
            nonlocal sent, size
            sent += len(group)
            size += sum(map(len, group))
            advance(len(group))

        if options["protocol"] == "amqp":
            from .over_amqp import made, piped, send_all

            if options["lines"]:
                groups = piped(sys.stdin.fileno(), options["batch"])
            else:
                groups = made(_groups(_bodies(body, options), options["batch"]))
            send_all(client.target, ca, entity, groups, _broker, options, posted)
        else:
            for group in _groups(_bodies(body, options), options["batch"]):
                _post(client, path, group, sent, options)
                posted(group)
                _pace(began, sent, options["rate"])
    seconds = time.monotonic() - began
    if plain:
        click.echo(json.dumps({"sent": sent, "bytes": size, "seconds": round(seconds, 3)}))
    else:
        click.echo(
            f"sent {sent} message{'s' * (sent != 1)} ({size} B) to {entity} in {seconds:.2f} s", err=True
        )


@contextlib.contextmanager
def _told_how_far(sent: Callable[[], int]) -> Iterator[None]:
    """Who must send the rest wants to know where it begins."""
    try:
        yield
    except SystemExit:
        if sent():
            click.echo(f"  {sent()} message{'s' * (sent() != 1)} had been accepted before.", err=True)
        raise


def _total(body: str | None, options: dict[str, Any]) -> int:
    return 0 if options["lines"] else int(options["count"])


def _bodies(body: str | None, options: dict[str, Any]) -> Iterator[bytes]:
    if options["lines"]:
        yield from (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
        return
    if body is None or body == "-":
        content = sys.stdin.buffer.read()
    elif body.startswith("@"):
        try:
            with open(body[1:], "rb") as file:
                content = file.read()
        except OSError as error:
            fail(f"{body[1:]}: {error.strerror}", 2)
    else:
        content = body.encode()
    for n in range(options["count"]):
        yield _filled(content.decode(errors="surrogateescape"), n).encode(errors="surrogateescape")


def _filled(template: str, n: int) -> str:
    if "{{" not in template:
        return template
    now = datetime.now(UTC).isoformat(timespec="milliseconds")  # The user's own clock is meant here.
    text = template.replace("{{n}}", str(n)).replace("{{now}}", now)
    while "{{uuid}}" in text:
        text = text.replace("{{uuid}}", str(uuid.uuid4()), 1)
    return text


def _groups(bodies: Iterator[bytes], most: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    for body in bodies:
        group.append(body)
        if len(group) >= most:
            yield group
            group = []
    if group:
        yield group


def _post(client: Client, path: str, group: list[bytes], first: int, options: dict[str, Any]) -> None:
    broker = [_broker(options, first + n) for n in range(len(group))]
    user = dict(item.partition("=")[::2] for item in options["properties"])
    if len(group) == 1 and all(map(_may_be_header, user.items())):
        headers = {"Content-Type": options["content_type"], **user}
        if broker[0]:
            headers["BrokerProperties"] = json.dumps(broker[0])
        client.call("POST", path, group[0], headers)
        return
    elements = []
    for body, properties in zip(group, broker, strict=True):
        try:
            element: dict[str, Any] = {"Body": body.decode()}
        except UnicodeDecodeError:
            fail(
                "over HTTP a batch, or a message whose properties cannot be headers, holds text alone, and"
                " this is none; use --protocol amqp.",
                2,
            )
        if properties:
            element["BrokerProperties"] = properties
        if user:
            element["UserProperties"] = user
        elements.append(element)
    client.call("POST", path, json.dumps(elements).encode(), {"Content-Type": _BATCH})


def _may_be_header(named: tuple[str, str]) -> bool:
    """Whether a property can travel as one; in a batch all can."""
    from ..front.rest.properties import EXCLUDED

    name, value = named
    plain = value.isascii() and value.isprintable() and value == value.strip()
    return plain and _NAME.fullmatch(name) is not None and name.lower().encode() not in EXCLUDED


def _broker(options: dict[str, Any], n: int) -> dict[str, Any]:
    members = {
        "PartitionKey": options["partition_key"],
        "SessionId": options["session"],
        "MessageId": options["message_id"],
        "Label": options["label"],
        "TimeToLive": options["ttl"],
    }
    return {
        name: _filled(value, n) if isinstance(value, str) else value
        for name, value in members.items()
        if value is not None
    }


def _pace(began: float, sent: int, rate: float | None) -> None:
    if rate:
        ahead = sent / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)


class _progress:
    """A bar on a terminal, for long work only."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        self._total = total

    def __enter__(self) -> Any:
        if self._total >= PROGRESS_FROM and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            task = self._bar.add_task("sending", total=self._total)
            return lambda n: self._bar.advance(task, n)
        return lambda n: None

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _place(entity: str, partition: str | None = None) -> str:
    """The API's address of a queue or of TOPIC/SUBSCRIPTION."""
    lower = entity.lower()
    if "/subscriptions/" in lower:
        at = lower.index("/subscriptions/")
        return f"subscriptions/{segment(entity[:at])}/{segment(entity[at + 15 :])}"
    return f"queues/{segment(entity)}"


@click.command()
@click.argument("entity")
@connection
@click.option("-n", "--count", default=10, show_default=True)
@click.option("--from", "start", default=0, help="First sequence number.")
@click.option("--dead-letter", is_flag=True, help="Look at the dead letters.")
@click.option("--partition", help="ENTITY is an event hub: look at this partition.")
@as_json
def peek(
    entity: str,
    text: str,
    ca: str | None,
    count: int,
    start: int,
    dead_letter: bool,
    partition: str | None,
    plain: bool,
) -> None:
    """Look at messages of a queue, TOPIC/subscriptions/NAME or event hub; nothing changes."""
    client = Client(text, ca)
    if partition is not None:
        place = f"hubs/{segment(entity)}/partitions/{segment(partition)}/events"
        found = client.json("GET", f"{place}?from=seq:{start}&inclusive=1&count={count}")
    else:
        dead = "&deadLetter=1" if dead_letter else ""
        found = client.json("GET", f"{_place(entity)}/messages?from={start}&count={count}{dead}")
    if plain:
        click.echo(json.dumps(found, indent=2))
    for message in () if plain else found:
        click.echo(line_of(message))
    if not found:
        if not plain:
            click.echo("nothing there", err=True)
        raise SystemExit(5)


def line_of(message: dict[str, Any]) -> str:
    """A message of the JSON API for human eyes."""
    body = message.get("body")
    shown = body if body is not None else f"(base64) {message.get('bodyBase64', '')}"
    marks = [f"#{message['sequenceNumber']}", str(message.get("enqueuedTimeUtc", ""))]
    if message.get("state") not in (None, "Active"):
        marks.append(message["state"].lower())
    if message.get("deadLetterReason"):
        marks.append(message["deadLetterReason"])
    if message.get("properties"):
        marks.append(json.dumps(message["properties"], ensure_ascii=False))
    return f"{'  '.join(marks)}  {shown}"


@click.command()
@click.argument("entity")
@connection
@click.option("-n", "--count", default=1, show_default=True)
@click.option("--wait", default=5, show_default=True, help="Seconds to wait for each.")
@click.option("--delete", is_flag=True, help="Receive-and-delete in one step.")
@click.option("--dead-letter", is_flag=True)
@as_json
def receive(
    entity: str,
    text: str,
    ca: str | None,
    count: int,
    wait: int,
    delete: bool,
    dead_letter: bool,
    plain: bool,
) -> None:
    """Receive messages from a queue or TOPIC/subscriptions/NAME and complete them."""
    client = Client(text, ca)
    path = f"/{entity}{'/$DeadLetterQueue' if dead_letter else ''}/messages/head?timeout={wait}"
    for n in range(count):
        status, headers, body = client.call("DELETE" if delete else "POST", path)
        if status == 204:
            if n == 0 and not plain:
                click.echo("nothing there", err=True)
            raise SystemExit(5 if n == 0 else 0)
        _print_received(headers, body, plain)
        if not delete:
            location = headers.get("Location", "")
            client.call("DELETE", "/" + location.split("://", 1)[-1].partition("/")[2])


def _print_received(headers: dict[str, str], body: bytes, plain: bool) -> None:
    if plain:
        properties = json.loads(headers.get("BrokerProperties", "{}"))
        shape = {"brokerProperties": properties, "body": body.decode(errors="replace")}
        click.echo(json.dumps(shape))
    else:
        sys.stdout.buffer.write(body + b"\n")
        sys.stdout.flush()
