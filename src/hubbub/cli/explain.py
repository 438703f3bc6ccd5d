"""`explain`: why a subscription gets a message or not, by the rules of a topic or by a filter given here.

A bare filter needs no server: it is evaluated on the spot, by the code that delivers.
"""

from __future__ import annotations

import json
import re
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import click

from .client import Client, as_json, connection, fail, segment

_PLACES = {
    "message_id": "messageId",
    "correlation_id": "correlationId",
    "subject": "subject",
    "to": "to",
    "reply_to": "replyTo",
    "session": "sessionId",
    "content_type": "contentType",
    "partition_key": "partitionKey",
}
_TYPED = re.compile(
    r"(.+):(string|boolean|int|long|short|byte|double|float|decimal|dateTime|duration|guid)", re.S
)
_COLORS = {"true": "green", "false": "red", "unknown": "yellow", "error": "magenta"}


@click.command()
@click.argument("topic", required=False)
@connection
@click.option("--subscription", metavar="NAME", help="This one alone.")
@click.option("--filter", "sql", metavar="SQL", help="Explain this filter instead; no server is asked.")
@click.option("--action", metavar="SQL", help="With --filter: what its rule would do.")
@click.option("--parameter", "parameters", multiple=True, metavar="@NAME=VALUE", help="With --filter.")
@click.option(
    "-p", "--property", "properties", multiple=True, metavar="NAME[:TYPE]=VALUE", help="User property."
)
@click.option("--subject", "--label", "subject", help="Also called the label.")
@click.option("--message-id")
@click.option("--correlation-id")
@click.option("--session", help="The session id.")
@click.option("--to")
@click.option("--reply-to")
@click.option("--content-type")
@click.option("--partition-key")
@click.option("--ttl", type=click.FloatRange(min=0, min_open=True), help="Seconds to live.")
@click.option(
    "--file", "file", metavar="FILE", help="A message as `peek --json` shows it; - is standard input."
)
@click.option(
    "--sequence", type=click.IntRange(min=0), help="The message with this number in --subscription."
)
@click.option("--dead-letter", is_flag=True, help="With --sequence: among its dead letters.")
@as_json
def explain(topic: str | None, text: str, ca: str | None, plain: bool, **options: Any) -> None:
    """Say which rules of TOPIC match a message, term by term, what their actions do to it, and how many
    copies each subscription gets. Nothing is sent. Exit code 5 if nobody gets any.

    \b
    hubbub explain orders -p colour=red -p size=5 --subject new
    hubbub explain orders --subscription urgent --sequence 7 --dead-letter
    hubbub explain --filter "size > 3 AND due < @now" -p size=5 -p due:dateTime=2026-01-02 \\
        --parameter @now:dateTime=2026-02-01

    A VALUE is a number, true, false or null if JSON says so, else a text; TYPE says it exactly, as in
    size:string=5.
    """
    if (topic is None) == (options["sql"] is None):
        fail("name a topic, or give a filter with --filter.", 2)
    if topic is None:
        _alone(options, plain)
        return
    if options["action"] or options["parameters"]:
        fail("--action and --parameter go with --filter; the rules of a topic have their own.", 2)
    asked: dict[str, Any] = {"subscription": options["subscription"] or ""} | _subject(options)
    found = Client(text, ca).json("POST", f"topics/{segment(topic)}/explain", asked)
    if plain:
        click.echo(json.dumps(found, indent=2))
    else:
        for line in _lines(found):
            click.echo(line)
    if not any(one["copies"] for one in found["subscriptions"]):
        raise SystemExit(5)


# The message.


def _subject(options: dict[str, Any]) -> dict[str, Any]:
    """A message that is there, or one that is described."""
    if options["sequence"] is None:
        return {"message": _message(options)}
    if not options["subscription"]:
        fail("--sequence needs the --subscription that has the message.", 2)
    place = {
        "subscription": options["subscription"],
        "sequenceNumber": options["sequence"],
        "deadLetter": options["dead_letter"],
    }
    return {"from": place}


def _message(options: dict[str, Any]) -> dict[str, Any]:
    """The file's, with the options over it."""
    message = _file(options["file"]) if options["file"] else {}
    message |= {name: options[key] for key, name in _PLACES.items() if options[key] is not None}
    if options["ttl"] is not None:
        message["timeToLive"] = f"PT{options['ttl']:f}S"
    pairs = dict(map(_pair, options["properties"]))
    if pairs:
        message["properties"] = {**(message.get("properties") or {}), **pairs}
    return message


def _file(name: str) -> dict[str, Any]:
    try:
        if name == "-":
            found = json.load(sys.stdin)
        else:
            with open(name, encoding="utf-8") as file:
                found = json.load(file)
    except OSError as error:
        fail(f"{name}: {error.strerror}", 2)
    except ValueError as error:
        fail(f"{name} is not JSON: {error}.", 2)
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        fail(f"{name} must hold one message, a JSON object.", 2)
    return found


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail(f"'{text}' must be NAME=VALUE.", 2)
    typed = _TYPED.fullmatch(name)
    if typed:
        return typed[1], {"type": typed[2], "value": value}
    try:
        found = json.loads(value)
    except ValueError:
        return name, value
    return name, value if isinstance(found, (dict, list)) else found


# A filter by itself.


def _alone(options: dict[str, Any], plain: bool) -> None:
    from ..broker.errors import Invalid

    if options["subscription"] or options["sequence"] is not None:
        fail("--subscription and --sequence go with a topic, not with --filter.", 2)
    try:
        found, message = _explained(options)
    except Invalid as error:
        fail(str(error).removeprefix("SubCode=40000. "), 2)
    except UnicodeEncodeError:
        fail("a value is not UTF-8, and no message can have it.", 2)
    if plain:
        click.echo(json.dumps({"message": message, "rule": found}, indent=2))
    else:
        for line in _rule_lines(found, 0):
            click.echo(line)
    if not found["matched"] or found["error"]:
        raise SystemExit(5)


def _explained(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rule and the message, in the shapes of the API. Raises Invalid."""
    from ..broker.explain import explain_rule, newids_from
    from ..broker.filters import SqlFilter, compile_action, compile_filter
    from ..front.api.explain import message_of, rule, seen_message
    from ..front.letters import Letters

    parameters = dict(map(_parameter, options["parameters"]))
    newids = newids_from(uuid.uuid4())
    term = compile_filter(SqlFilter(expression=options["sql"], parameters=parameters), newids)
    text = options["action"] or ""
    action = compile_action(text, parameters, newids) if text else None
    letters = Letters()
    now = int(time.time() * 1000)
    letter = letters.open(message_of(_message(options), letters), now)
    return rule(explain_rule("filter", term, action, letter, text)), seen_message(letter)


def _parameter(text: str) -> tuple[str, tuple[str, str]]:
    name, value = _pair(text)
    if isinstance(value, dict):
        found = (value["type"], value["value"])
    elif isinstance(value, bool):
        found = ("boolean", str(value).lower())
    elif isinstance(value, (int, float)):
        found = ("long" if isinstance(value, int) else "double", str(value))
    else:
        found = ("string", str(value))
    return f"@{name.removeprefix('@')}", found


# For human eyes.


def _lines(found: dict[str, Any]) -> Iterator[str]:
    if not found["subscriptions"]:
        yield f"{found['topic']} has no subscriptions"
    for one in found["subscriptions"]:
        copies, dead = one["copies"], one["deadLetters"]
        told = f"{copies or 'no'} {'copy' if copies == 1 else 'copies'}"
        if copies and one["forwardTo"]:
            told += f", going on to {one['forwardTo']}"
        if dead:
            told += f", {len(dead)} to the dead letters ({dead[0]['deadLetterReason']})"
        yield f"{click.style(one['name'], bold=True)}: {told}"
        if not one["rules"]:
            yield "  it has no rules, and gets nothing"
        for rule in one["rules"]:
            yield from _rule_lines(rule, 1)


def _rule_lines(rule: dict[str, Any], depth: int) -> Iterator[str]:
    outcome = rule["filter"]["outcome"]
    verdict = {"true": "matches", "false": "does not match", "error": "cannot be evaluated"}
    told = verdict.get(outcome, "does not match, for it is unknown")
    yield f"{'  ' * depth}rule {rule['name']} {click.style(told, fg=_COLORS[outcome])}"
    yield from _term_lines(rule["filter"], depth + 1)
    for change in rule["changes"]:
        if change["error"]:
            told = f"{click.style('error', fg='magenta')}: {change['error']}"
        else:
            told = f"{change['property']}: {_value(change['before'])} -> {_value(change['after'])}"
        yield f"{'  ' * (depth + 1)}does      {change['statement']}    {told}"


def _term_lines(term: dict[str, Any], depth: int) -> Iterator[str]:
    """A mark before what decides; what is not reached is in brackets."""
    outcome = term["outcome"]
    shown = f"{outcome:<9}"
    if not term["reached"]:
        shown = f"{f'({outcome})':<9}"
    saw = ", ".join(f"{name} is {_value(value)}" for name, value in term["saw"].items() if value)
    why = "; ".join(filter(None, (saw, term["error"] or term["note"])))
    mark = ">" if term["decides"] and not term["terms"] else " "
    color = _COLORS[outcome] if term["reached"] else None
    line = f"{'  ' * depth}{mark} {click.style(shown, fg=color)} {term['text']}"
    yield f"{line}    {why}" if why else line
    for part in term["terms"]:
        yield from _term_lines(part, depth + 1)


def _value(value: dict[str, Any] | None) -> str:
    if value is None:
        return "nothing"
    shown = value["value"]
    if value["type"] == "string":
        return f"'{shown}'"
    return f"{str(shown).lower() if isinstance(shown, bool) else shown} ({value['type']})"
