"""`trust`: how each kind of client is told to trust the local authority of `--tls auto`."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import NamedTuple

import click

from .client import as_json, data_folder, fail


class Habit(NamedTuple):
    """How one kind of client finds the authorities it trusts. In `how`, {ca} is the authority alone,
    {bundle} all others besides."""

    client: str
    how: str


HABITS = (
    Habit("azure-eventhub, azure-servicebus (Python)", 'pass connection_verify="{ca}" to the client'),
    Habit("Celery and others that cannot pass it", 'cat {ca} >> "$(python -m certifi)"'),
    Habit("Python (ssl, httpx), Go, OpenSSL, .NET on Linux", "SSL_CERT_FILE={bundle}"),
    Habit("requests, azure-core, the administration client", "REQUESTS_CA_BUNDLE={bundle}"),
    Habit("Node.js, @azure/*", "NODE_EXTRA_CA_CERTS={ca}"),
    Habit("curl", "CURL_CA_BUNDLE={bundle}, or curl --cacert {ca}"),
    Habit("Java", "keytool -importcert -cacerts -noprompt -alias hubbub -file {ca}"),
    Habit(
        "Debian and Ubuntu, whole system",
        "sudo cp {ca} /usr/local/share/ca-certificates/hubbub.crt && sudo update-ca-certificates",
    ),
    Habit(
        "macOS, whole system",
        "sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain {ca}",
    ),
    Habit("Windows, whole system", "certutil -addstore -f Root {ca}"),
)
VARIABLES = {
    "SSL_CERT_FILE": "bundle",
    "REQUESTS_CA_BUNDLE": "bundle",
    "CURL_CA_BUNDLE": "bundle",
    "NODE_EXTRA_CA_CERTS": "ca",
}


@click.command()
@data_folder
@click.option("--pem", is_flag=True, help="Print the authority's certificate.")
@click.option("--shell", is_flag=True, help="Print variables for eval, and make the bundle they name.")
@as_json
def trust(data: str, pem: bool, shell: bool, plain: bool) -> None:
    """Print, or export, the local authority for each SDK's habit.

    \b
    hubbub trust                     what to do for which client
    hubbub trust --pem > ca.pem      the certificate itself
    eval "$(hubbub trust --shell)"   this shell's programs trust it
    """
    from ..tls import ensure_authority

    try:
        ca = ensure_authority(Path(data) / "tls")[0].absolute()
    except (OSError, ValueError) as error:
        fail(f"the authority in {data} cannot be used: {error}", 1)
    places = {"ca": str(ca), "bundle": str(ca.with_name("bundle.pem"))}
    if pem:
        click.echo(ca.read_text(), nl=False)
        return
    _write_bundle(ca, Path(places["bundle"]))
    if shell:
        for name, place in VARIABLES.items():
            click.echo(f"export {name}='{places[place]}'")
    elif plain:
        habits = {habit.client: habit.how.format(**places) for habit in HABITS}
        click.echo(json.dumps({**places, "clients": habits}, indent=2))
    else:
        click.echo(f"The local authority: {ca}\nWith all public ones besides: {places['bundle']}\n")
        for habit in HABITS:
            click.echo(f"{click.style(habit.client, bold=True)}\n    {habit.how.format(**places)}")


def _write_bundle(ca: Path, bundle: Path) -> None:
    """What the system trusts, and the local authority: most variables replace, they do not add."""
    paths = ssl.get_default_verify_paths()
    places = [Path(p) for p in (paths.cafile, paths.openssl_cafile, *_BUNDLES) if p and os.path.isfile(p)]
    public = next((place.read_text() for place in places if place != bundle), "")
    bundle.write_text(f"{public.rstrip()}\n{ca.read_text()}".lstrip())


_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
