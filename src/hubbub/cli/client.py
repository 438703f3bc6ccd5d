"""What the client commands share: the connection string, requests, errors and tables."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import click

DEFAULT_STRING = (
    "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;"
    "UseDevelopmentEmulator=true;"
)
EXIT_BY_STATUS = {401: 4, 403: 1, 404: 3, 410: 3, 409: 6, 412: 6, 429: 8, 503: 8}
TOKEN_SECONDS = 3600
HINTS = {
    3: "`hubbub hub ls`, `queue ls` and `topic ls` list what is there; `create` makes it."
    " What a topic passed on is in TOPIC/subscriptions/NAME.",
    4: "Check the key and its rights: `hubbub connstr` prints the connection string in use.",
    8: "Wait and try again, or send less at a time.",
}
"""What to do, by exit code, where the server only says what it refuses."""
_F = TypeVar("_F", bound=Callable[..., Any])


class Failure(Exception):
    """What ends a command. `code`: the exit code. `lost`: a connection has gone, but another may stand.
    `hint`: what to do, where the text does not say."""

    def __init__(self, text: str, code: int, *, lost: bool = False, hint: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.lost = lost
        self.hint = hint


def fail(text: str, code: int, hint: str = "") -> NoReturn:
    """One red line on standard error, perhaps one on what to do, and the exit code."""
    click.secho(f"error: {text}", fg="red", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    raise SystemExit(code)


@dataclass(frozen=True, slots=True)
class Target:
    """What a connection string says. Without a port there, `port` is HTTP's and `amqp_port` AMQP's own."""

    host: str
    port: int
    amqp_port: int
    secure: bool
    key_name: str
    key: str
    signature: str
    entity: str


def parse(text: str) -> Target:
    """A connection string of the SDKs. Ends the program if it is not one."""
    pairs = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, _, value = part.partition("=")
        pairs[name.lower()] = value
    endpoint = urlsplit(pairs.get("endpoint", ""))
    if not endpoint.hostname:
        fail("the connection string has no Endpoint=sb://HOST. `hubbub connstr` prints a good one.", 2)
    emulator = pairs.get("usedevelopmentemulator", "").lower() == "true"
    secure = endpoint.scheme == "https" or not (emulator or endpoint.scheme == "http")
    try:
        port = endpoint.port
    except ValueError as error:
        fail(f"the connection string's Endpoint has no good port: {error}.", 2)
    return Target(
        endpoint.hostname,
        port or (443 if secure else 5300),
        port or (5671 if secure else 5672),
        secure,
        pairs.get("sharedaccesskeyname", ""),
        pairs.get("sharedaccesskey", ""),
        pairs.get("sharedaccesssignature", ""),
        pairs.get("entitypath", ""),
    )


def tls(target: Target, ca: str | None) -> ssl.SSLContext | None:
    """How to speak to the server; None in the clear. Ends the program if the CA file cannot be used."""
    if not target.secure:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        fail(f"--ca {ca}: {error.strerror or error}. `hubbub trust --pem` prints hubbub's own.", 2)


def unreachable(target: Target, port: int, error: OSError | None) -> str:
    """Why nobody answers at that port, and what to do."""
    where = f"{target.host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = f"the certificate of {where} is not trusted ({error.verify_message})"
        return f"{why}. Name its authority with --ca; `hubbub trust` says where hubbub's own is."
    if isinstance(error, ssl.SSLError):
        why = f"{where} does not speak TLS ({error.reason or error})"
        return f"{why}. A server without TLS wants UseDevelopmentEmulator=true in the connection string."
    number = error.errno or 0 if error else 0
    # asyncio wraps the system's words into its own.
    why = f" ({os.strerror(number) if number > 0 else error.strerror or error})" if error else ""
    return f"no hubbub answers at {where}{why}. Start one with `hubbub up`."


class Client:
    """Requests to one server over one kept connection."""

    def __init__(self, text: str, ca: str | None = None) -> None:
        self.target = parse(text)
        self.ca = ca
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        """A signature for the whole namespace, made anew before it ends."""
        if self.target.signature:
            return self.target.signature
        if time.time() > self._until - 60:
            from ..broker.access import sas_token

            self._until = time.time() + TOKEN_SECONDS
            resource = f"sb://{self.target.host}/"
            self._token = sas_token(resource, self.target.key_name, self.target.key, int(self._until))
        return self._token

    def open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            target = self.target
            context = tls(target, self.ca)
            if context is not None:
                self._connection = http.client.HTTPSConnection(
                    target.host, target.port, context=context, timeout=320
                )
            else:
                self._connection = http.client.HTTPConnection(target.host, target.port, timeout=320)
        return self._connection

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The response, unread. Ends the program if the server cannot be reached."""
        while True:
            connection = self.open()
            reused = connection.sock is not None
            try:
                connection.request(method, path, body, {"Authorization": self.token(), **(headers or {})})
                return connection.getresponse()
            except (http.client.BadStatusLine, BrokenPipeError, ConnectionResetError):
                # A kept connection may have been closed meanwhile; a fresh one has no such excuse.
                self._connection = None
                if not reused:
                    self._unreachable(None)
            except OSError as error:
                self._unreachable(error)
            except ValueError:
                fail("an option holds what no HTTP header may: letters beyond Latin-1, or an end of line.", 2)

    def call(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a success. Ends the program otherwise, with the server's words."""
        response = self.request(method, path, body, headers)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException):
            fail(
                f"{self.target.host}:{self.target.port} broke off in the middle of its answer. Try again.", 7
            )
        if response.status >= 400:
            code = EXIT_BY_STATUS.get(response.status, 1)
            fail(f"{response.status} {said(content)}", code, HINTS.get(code, ""))
        return response.status, dict(response.getheaders()), content

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the JSON API."""
        data = b"" if body is None else json.dumps(body).encode()
        _, _, content = self.call(method, f"/_hubbub/api/v1/{path}", data)
        return json.loads(content)

    def _unreachable(self, error: OSError | None) -> NoReturn:
        fail(unreachable(self.target, self.target.port, error), 7)


def said(content: bytes) -> str:
    """The text of an error body, XML or JSON."""
    text = content.decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        found = re.search(r"<Detail>(.*?)</Detail>", text, re.S)
        return found[1] if found else text


def segment(path: str) -> str:
    """An entity path as one URL segment."""
    return quote(path, safe="")


def connection(command: _F) -> _F:
    """The options that say which server is meant."""
    command = click.option("--ca", type=click.Path(), envvar="HUBBUB_CA", help="CA file for https.")(command)
    return click.option(
        "-c",
        "--connection-string",
        "text",
        envvar=["HUBBUB_CONNECTION_STRING", "AZURE_SERVICEBUS_CONNECTION_STRING"],
        default=DEFAULT_STRING,
        help="Which server. [a local hubbub]",
    )(command)


protocol = click.option("--protocol", type=click.Choice(["http", "amqp"]), default="http", show_default=True)
data_folder = click.option(
    "--data",
    default=".hubbub",
    show_default=True,
    envvar="HUBBUB_DATA",
    type=click.Path(),
    help="The data folder.",
)
as_json = click.option("--json", "plain", is_flag=True, help="Machine-readable output.")


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal, aligned plain text in a pipe."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    table = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    empty = True
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
        empty = False
    if empty:
        console.print(f"no {title}")
    else:
        console.print(table)
