"""`queue`, `topic`, `subscription`, `hub`: entities through the JSON API."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from .client import Client, as_json, connection, fail, segment, show_table

COLUMNS = {
    "queues": (
        ("queue", "path"),
        ("active", "activeMessageCount"),
        ("dead", "deadLetterMessageCount"),
        ("scheduled", "scheduledMessageCount"),
        ("locked", "lockedMessageCount"),
        ("bytes", "sizeInBytes"),
        ("status", "status"),
    ),
    "topics": (("topic", "path"), ("subscriptions", "subscriptionCount"), ("status", "status")),
    "subscriptions": (
        ("subscription", "name"),
        ("topic", "topicName"),
        ("active", "activeMessageCount"),
        ("dead", "deadLetterMessageCount"),
        ("scheduled", "scheduledMessageCount"),
        ("locked", "lockedMessageCount"),
        ("status", "status"),
    ),
    "hubs": (("hub", "path"), ("partitions", "partitionCount"), ("events", "events"), ("status", "status")),
}

PARTITION = (
    ("partition", "id"),
    ("first", "beginSequenceNumber"),
    ("last", "lastEnqueuedSequenceNumber"),
    ("last_offset", "lastEnqueuedOffset"),
    ("last_enqueued", "lastEnqueuedTimeUtc"),
    ("events", "eventCount"),
    ("bytes", "sizeInBytes"),
)


def _address(kind: str, path: str) -> str:
    """NAME, or TOPIC/NAME for a subscription."""
    if kind != "subscriptions":
        return f"{kind}/{segment(path)}"
    topic, slash, name = path.replace("/subscriptions/", "/").rpartition("/")
    if not slash:
        fail(f"'{path}' must be TOPIC/SUBSCRIPTION.", 2)
    return f"{kind}/{segment(topic)}/{segment(name)}"


def _group(kind: str, noun: str) -> click.Group:
    """The commands of one kind of entity."""

    @click.group(noun, help=f"List, show, create and remove {kind}.")
    def group() -> None:
        """Set below, since the text depends on the kind."""

    @group.command("ls")
    @connection
    @as_json
    def ls(text: str, ca: str | None, plain: bool, topic: str | None = None) -> None:
        """All of them, with counts."""
        _show_list(kind, _found(Client(text, ca), kind, topic), plain)

    if kind == "subscriptions":
        ls.params.append(click.Argument(["topic"], required=False))

    @group.command("show")
    @connection
    @as_json
    @click.argument("path")
    def show(text: str, ca: str | None, plain: bool, path: str) -> None:
        """One of them, whole."""
        found = Client(text, ca).json("GET", _address(kind, path))
        if plain:
            click.echo(json.dumps(found, indent=2))
            return
        partitions = found.pop("partitions", None)
        show_table("fields", ("field", "value"), [(k, v) for k, v in found.items() if v is not None])
        if partitions:
            _show_columns("partitions", PARTITION, partitions)

    @group.command("create")
    @connection
    @as_json
    @click.argument("path")
    @click.option("-s", "--set", "pairs", multiple=True, metavar="NAME=VALUE", help="lockDuration=PT30S, …")
    def create(text: str, ca: str | None, plain: bool, path: str, pairs: tuple[str, ...]) -> None:
        """Make one; it must not be there yet."""
        client, address = Client(text, ca), _address(kind, path)
        response = client.request("GET", f"/_hubbub/api/v1/{address}")
        response.read()
        if response.status == 200:
            fail(f"{noun} '{path}' exists already.", 6)
        made = client.json("PUT", address, dict(map(_pair, pairs)))
        click.echo(json.dumps(made, indent=2) if plain else f"created {noun} {path}")

    @group.command("rm")
    @connection
    @click.argument("path")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    def rm(text: str, ca: str | None, path: str, yes: bool) -> None:
        """Remove one with everything in it."""
        _ask(f"Remove {noun} '{path}' and everything in it?", yes)
        Client(text, ca).json("DELETE", _address(kind, path))
        click.echo(f"removed {noun} {path}")

    if kind in ("queues", "subscriptions"):
        _add_purge(group, kind)
    return group


def _found(client: Client, kind: str, topic: str | None) -> list[dict[str, Any]]:
    """All of one kind; of subscriptions, those of `topic`, or of every topic."""
    if kind != "subscriptions":
        return list(client.json("GET", kind))
    topics = [topic] if topic else [one["path"] for one in client.json("GET", "topics")]
    return [found for path in topics for found in client.json("GET", f"{kind}?topic={segment(path)}")]


def _add_purge(group: click.Group, kind: str) -> None:
    @group.command("purge")
    @connection
    @as_json
    @click.argument("path")
    @click.option("--dead-letter", is_flag=True, help="The dead letters instead.")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    def purge(text: str, ca: str | None, plain: bool, path: str, dead_letter: bool, yes: bool) -> None:
        """Delete all messages that nobody holds."""
        _ask(f"Delete all messages of '{path}'?", yes)
        query = "?deadLetter=1" if dead_letter else ""
        found = Client(text, ca).json("POST", f"{_address(kind, path)}/purge{query}")
        click.echo(json.dumps(found) if plain else f"deleted {found['deleted']} messages of {path}")


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("this deletes something and nobody is there to ask; say --yes.", 2)
    click.confirm(question, abort=True)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        fail(f"'{text}' must be NAME=VALUE.", 2)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show_list(kind: str, found: list[dict[str, Any]], plain: bool) -> None:
    for entity in found:
        if "partitions" in entity:
            entity["events"] = sum(p["eventCount"] for p in entity["partitions"])
    if plain:
        click.echo(json.dumps(found, indent=2))
        return
    _show_columns(kind, COLUMNS[kind], found)


def _show_columns(title: str, columns: tuple[tuple[str, str], ...], found: list[dict[str, Any]]) -> None:
    rows = [[one.get(field) for _, field in columns] for one in found]
    show_table(title, [column for column, _ in columns], rows)


queue = _group("queues", "queue")
topic = _group("topics", "topic")
subscription = _group("subscriptions", "subscription")
hub = _group("hubs", "hub")
