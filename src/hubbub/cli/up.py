"""`hubbub up`: flags, environment and file become one Config; then the server runs."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import click

from ..broker.entity import AnyEntity, EventHub, Queue, Subscription, Topic, subscription_path
from ..broker.errors import BrokerError
from ..config import OFF, Config, ConfigError, NamespaceConfig, environment, finished, load
from .client import fail


class _Flag(click.Option):
    """A flag with a variable for each of its long names: --tls-host is HUBBUB_TLS_HOST."""

    def __init__(self, *names: Any, **settings: Any) -> None:
        super().__init__(*names, **settings)
        long = [name[2:] for name in self.opts if name.startswith("--")]
        self.envvar = [f"HUBBUB_{name.upper().replace('-', '_')}" for name in long]

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        # Kubernetes sets HUBBUB_PORT=tcp://… beside a service named hubbub; that is not meant for us.
        return None if value and value.startswith("tcp://") else value


_flag = functools.partial(click.option, cls=_Flag)


class _Port(click.ParamType):  # type: ignore[type-arg] # older click has no type argument
    """A port number, 0 for a free one, or `off`."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "off":
            return OFF
        if not value.isdecimal() or int(value) > 65535:
            self.fail(f"'{value}' is not a port from 1 to 65535, 0 for a free one, or off.", param, ctx)
        return int(value)


PORT = _Port()


@click.command()
@_flag("--config", "file", type=click.Path(), help="hubbub.toml, or Config.json of an Azure emulator.")
@_flag("--host", help="Address to listen on. [127.0.0.1]")
@_flag("--port", "--http-port", "port", type=PORT, help="HTTP port; 0: a free one; off. [5300]")
@_flag("--https-port", type=PORT, help="HTTPS port when TLS is on. [5343]")
@_flag("--amqp-port", type=PORT, help="AMQP port; every port speaks HTTP and AMQP. [5672]")
@_flag("--amqps-port", type=PORT, help="AMQPS port when TLS is on. [5671]")
@_flag("--data", type=click.Path(), help="Folder for what must survive. [./.hubbub]")
@_flag("--memory", is_flag=True, default=None, help="Keep nothing on disk.")
@_flag("--hub", "hubs", multiple=True, metavar="NAME[:PARTITIONS]", help="Create an event hub.")
@_flag("--queue", "queues", multiple=True, metavar="NAME", help="Create a queue.")
@_flag("--topic", "topics", multiple=True, metavar="NAME[/SUBSCRIPTION]", help="Create a topic.")
@_flag("--auth", type=click.Choice(["keys", "open"]), help="open: no tokens needed; loopback only.")
@_flag("--allow-well-known-key", is_flag=True, default=None, help="Allow the emulators' key in public.")
@_flag("--tls", type=click.Choice(["off", "auto", "files"]), help="auto: a local CA. [off]")
@_flag("--tls-cert", type=click.Path(), help="Certificate chain (PEM); implies --tls files.")
@_flag("--tls-key", type=click.Path(), help="Private key (PEM).")
@_flag(
    "--tls-host", "tls_hosts", multiple=True, metavar="NAME", help="Another name for the auto certificate."
)
@_flag("--limits", "profile", type=click.Choice(["basic", "standard", "premium", "none"]), help="[standard]")
@_flag("--log-format", type=click.Choice(["text", "json"]), help="[text]")
@_flag("-q", "--quiet", is_flag=True, help="No access log.")
@_flag("-v", "--verbose", count=True, help="Log more; twice: everything.")
@_flag("--ready-file", type=click.Path(), help="Written as JSON once the server is ready.")
def up(**flags: Any) -> None:
    """Start the server in the foreground (also: hubbub serve).

    \b
    hubbub up                             a starter set of entities, data in ./.hubbub
    hubbub up --memory --hub telemetry:8  one event hub, nothing on disk
    hubbub up --config Config.json        what the official emulators would start
    """
    try:
        config = _config(flags)
    except ConfigError as error:
        fail(str(error), 2)
    _run(config, flags["verbose"])


def _config(flags: dict[str, Any]) -> Config:
    config = load(flags["file"]) if flags["file"] else Config()
    names = {field.name for field in dataclasses.fields(Config)}
    given = {name: value for name, value in flags.items() if name in names and value not in (None, ())}
    if flags["quiet"]:
        given["access_log"] = False
    if given.get("tls_cert") or given.get("tls_key"):
        given.setdefault("tls", "files")
    config = dataclasses.replace(config, **given)
    entities = _entities(flags)
    if entities:
        first, *rest = config.namespaces or (NamespaceConfig(),)
        first = dataclasses.replace(first, entities=(*first.entities, *entities))
        config = dataclasses.replace(config, namespaces=(first, *rest))
    return finished(config, environment())


def _entities(flags: dict[str, Any]) -> list[AnyEntity]:
    found: dict[str, AnyEntity] = {}
    for text in flags["hubs"]:
        name, _, count = text.partition(":")
        if count and not count.isdigit():
            raise ConfigError(f"--hub {text}: '{count}' is not a number of partitions.")
        found.setdefault(name.lower(), EventHub(path=name, partition_count=int(count or 4)))
    for name in flags["queues"]:
        found.setdefault(name.lower(), Queue(path=name))
    for text in flags["topics"]:
        topic, _, name = text.rpartition("/") if "/" in text else (text, "", "")
        found.setdefault(topic.lower(), Topic(path=topic))
        if name:
            path = subscription_path(topic, name)
            found.setdefault(path.lower(), Subscription(path=path, topic=topic, name=name))
    try:
        for entity in found.values():
            entity.validate()
    except BrokerError as error:
        raise ConfigError(str(error)) from None
    return list(found.values())


def _run(config: Config, verbose: int) -> None:
    import logging

    from ..engine.log import EngineError
    from ..server import PortTaken, Ready, run
    from ..telemetry import set_up_logging

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    set_up_logging(config.log_format, level)

    def announce(ready: Ready) -> None:
        click.echo(_block(ready, config))

    try:
        code = run(config, announce)
    except (EngineError, ConfigError, ValueError) as error:
        fail(str(error), 1)
    except PortTaken as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.filename or 'the system'}: {error.strerror or error}.", 1)
    raise SystemExit(code)


def _block(ready: Any, config: Config) -> str:
    lines = [f" hubbub {ready.version}  ready in {ready.seconds * 1000:.0f} ms"]
    lines += [f"   {scheme:<9} {url}" for scheme, url in ready.urls.items()]
    lines.append(f"   connect   {ready.connection_string}")
    for number, entity in enumerate(ready.entities[:12]):
        lines.append(f"   {'entities' if number == 0 else '        '}  {entity}")
    if len(ready.entities) > 12:
        lines.append(f"             and {len(ready.entities) - 12} more")
    lines.append(f"   data      {ready.data}")
    if config.auth == "open":
        lines.append("   auth      OPEN: everybody on this machine may do everything")
    lines.append(f" Ctrl-C stops it (pid {os.getpid()})")
    return "\n".join(lines)
