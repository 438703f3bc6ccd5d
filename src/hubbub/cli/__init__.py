"""The command line. Commands are imported when they are used, so that `--version` answers at once."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

COMMANDS = {
    "up": "up:up",
    "serve": "up:up",
    "connstr": "credentials:connstr",
    "sas": "credentials:sas",
    "wrap": "credentials:wrap",
    "send": "messages:send",
    "peek": "messages:peek",
    "receive": "messages:receive",
    "tail": "tail:tail",
    "explain": "explain:explain",
    "queue": "entities:queue",
    "topic": "entities:topic",
    "subscription": "entities:subscription",
    "hub": "entities:hub",
    "trust": "trust:trust",
    "bench": "bench:bench",
    "doctor": "doctor:doctor",
}
SUMMARIES = {
    "up": "Start the server in the foreground.",
    "connstr": "Print the connection string.",
    "sas": "Make or explain shared-access signatures.",
    "wrap": "Make WRAP tokens for old clients.",
    "send": "Send messages to a queue, topic or event hub.",
    "peek": "Look at messages without touching them.",
    "receive": "Receive messages and complete them.",
    "tail": "Follow an event hub.",
    "explain": "Say why a topic's subscriptions get a message or not.",
    "queue": "List, show, create, remove and purge queues.",
    "topic": "List, show, create and remove topics.",
    "subscription": "List, show, create, remove and purge subscriptions.",
    "hub": "List, show, create and remove event hubs.",
    "trust": "Print or export the local authority of --tls auto.",
    "bench": "Measure a server.",
    "doctor": "Check this machine and its data.",
}
EPILOG = """\b
Exit codes: 0 ok, 1 failed, 2 usage, 3 no such entity, 4 refused, 5 nothing there in time,
6 exists already or lock lost, 7 cannot reach the server, 8 throttled, 130 interrupted."""


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command: click.Command = getattr(import_module(f"hubbub.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Who reads us has enough, as `head` does. Nothing is left to be flushed into the broken pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from hubbub import __version__

        click.echo(f"hubbub {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def cli() -> None:
    """Hubbub: an open server for apps written against Azure Event Hubs and Azure Service Bus."""


def main() -> None:
    """The `hubbub` command."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
