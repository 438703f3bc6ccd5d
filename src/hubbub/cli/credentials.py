"""`connstr`, `sas` and `wrap`: what a client needs to be let in."""

from __future__ import annotations

import json
import time

import click

from .client import as_json, connection, fail, parse


@click.command()
@connection
@click.option("--eventhub", "--entity", "entity", help="Append EntityPath.")
def connstr(text: str, ca: str | None, entity: str | None) -> None:
    """Print the connection string to paste into an app."""
    parse(text)
    click.echo(text.rstrip(";") + ";" + (f"EntityPath={entity};" if entity else ""))


@click.group()
def sas() -> None:
    """Make or explain shared-access signatures."""


@sas.command()
@click.argument("resource", required=False, default="")
@connection
@click.option("--seconds", default=3600, show_default=True, help="How long it lasts.")
def new(resource: str, text: str, ca: str | None, seconds: int) -> None:
    """Print a signature for RESOURCE (an entity path or a URI; default: everything).

    \b
    curl -H "Authorization: $(hubbub sas new events)" ...
    """
    from ..broker.access import sas_token

    target = parse(text)
    uri = resource if "://" in resource else f"sb://{target.host}/{resource}"
    click.echo(sas_token(uri, target.key_name, target.key, int(time.time()) + seconds))


@sas.command()
@click.argument("token")
@connection
@as_json
def explain(token: str, text: str, ca: str | None, plain: bool) -> None:
    """Say check by check why TOKEN is accepted or not, against the key of the connection string."""
    from ..broker.access import ALL_RIGHTS, Authority, SharedKey
    from ..broker.access.explain import explain as examine

    target = parse(text)

    class Ring:
        def rules(self, path: str) -> list[SharedKey]:
            return [] if path else [SharedKey(target.key_name, ALL_RIGHTS, target.key)]

    hosts = frozenset({target.host.lower(), target.host.lower().split(".")[0]})
    checks = examine(token, authority=Authority(target.host, hosts), ring=Ring(), now=int(time.time() * 1000))
    if plain:
        click.echo(json.dumps([{"check": c.check, "ok": c.ok, "text": c.text} for c in checks]))
    for check in () if plain else checks:
        click.echo(f"{'ok ' if check.ok else 'BAD'}  {check.check:<12} {check.text}")
    if not all(check.ok for check in checks):
        raise SystemExit(4)


@click.group()
def wrap() -> None:
    """Make WRAP tokens for old clients."""


@wrap.command("new")
@connection
@click.option("--scope", help="Audience URI. [http://HOST/]")
@click.option("--namespace", default="hubbub", show_default=True)
@click.option("--key", help="Base64 signing key. [the connection string's key]")
@click.option("--seconds", default=3600, show_default=True)
def new_wrap(
    text: str, ca: str | None, scope: str | None, namespace: str, key: str | None, seconds: int
) -> None:
    """Print a header value: WRAP access_token="...".

    \b
    curl -H "Authorization: $(hubbub wrap new)" ...
    """
    from ..broker.access import acs_issuer, signing_key, swt_token
    from ..config import swt_key_of

    target = parse(text)
    try:
        secret = signing_key(key or swt_key_of(target.key))
    except ValueError as error:
        fail(str(error), 2)
    audience = scope or f"http://{target.host}/"
    rights = ["Listen", "Manage", "Send"]
    token = swt_token(acs_issuer(namespace), audience, rights, int(time.time()) + seconds, secret)
    click.echo(f'WRAP access_token="{token}"')
