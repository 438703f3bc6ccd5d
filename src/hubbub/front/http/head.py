"""The header of a request: the few fields this layer acts on, and the checks llhttp leaves to its caller.

Not here: bounds on size (`reader`), what the other fields mean (the doors).

What would let two readers of the same bytes see different requests is refused, never repaired (RFC 9112
§3.2, §6.1, §11.2): a transfer coding other than exactly `chunked`, any in HTTP/1.0, a missing, second or
malformed Host, a version that is neither 1.0 nor 1.1, and CONNECT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubbub.front.http.request import Request
from hubbub.front.http.response import CLOSE, KEEP_ALIVE
from hubbub.front.http.target import BadTarget, is_host, split_target

_SLASH: Final = 0x2F

_OTHER: Final = 0
_HOST: Final = 1
_AUTHORIZATION: Final = 2
_CONTENT_TYPE: Final = 3
_CONTENT_LENGTH: Final = 4
_TRANSFER_ENCODING: Final = 5
_EXPECT: Final = 6
_CONNECTION: Final = 7

_KNOWN: Final = {
    b"host": _HOST,
    b"authorization": _AUTHORIZATION,
    b"content-type": _CONTENT_TYPE,
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"expect": _EXPECT,
    b"connection": _CONNECTION,
}
# Spellings seen so far, so that a name is folded once and not in every request. Bounded: clients choose
# the names. Host values that were found valid are remembered in the same way.
_SPELLINGS_MAX: Final = 1024
_SPELLING_BYTES_MAX: Final = 32
_HOSTS_MAX: Final = 1024
_HOST_BYTES_MAX: Final = 255
_fields: dict[bytes, int] = {}
_hosts: set[bytes] = set()

# 2**64 has twenty digits; more are leading zeros or a length nobody can have.
_LENGTH_DIGITS_MAX: Final = 20


class BadRequest(Exception):
    """The request cannot be served by this layer; carries the status and a text for the client."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def read_head(request: Request, keep_alive: bool, version: Callable[[], str]) -> None:
    """Fills in what the version, the header fields and the target say. Raises BadRequest.

    keep_alive: the parser's judgement. `version` tells "1.1" and the like; it is asked only if the answer
    does not follow, since without a Connection field only HTTP/1.1 keeps a connection.
    """
    hosts = 0
    connection = False
    for name, value in request.headers:
        field = _fields.get(name)
        if field is None:
            field = _field_of(name)
        if field == _OTHER:
            continue
        if field == _HOST:
            hosts += 1
            request.host = value
        elif field == _AUTHORIZATION:
            request.authorization = request.authorization or value
        elif field == _CONTENT_TYPE:
            request.content_type = request.content_type or value
        elif field == _CONNECTION:
            connection = True
        else:
            _apply_framing(request, field, value)
    if connection or not keep_alive:
        _apply_version(request, keep_alive, version())
    if hosts != 1 or request.host not in _hosts:
        _check_host(request, hosts)
    if request.target[0] == _SLASH and b"#" not in request.target:
        request.path, _, request.query = request.target.partition(b"?")
    else:
        _apply_target(request)


def _apply_version(request: Request, keep_alive: bool, version: str) -> None:
    if version not in ("1.0", "1.1"):
        raise BadRequest(505, "The HTTP version is not supported.")
    request.keep_alive = keep_alive
    request.announce = b"" if keep_alive else CLOSE
    if version == "1.0":
        if request.chunked:
            raise BadRequest(400, "Transfer-Encoding is not allowed in an HTTP/1.0 request.")
        request.http10 = True
        request.expect = b""  # RFC 9110 §10.1.1: an HTTP/1.0 client cannot mean it.
        request.announce = KEEP_ALIVE if keep_alive else CLOSE


def _field_of(name: bytes) -> int:
    field = _KNOWN.get(name.lower(), _OTHER)
    if len(_fields) < _SPELLINGS_MAX and len(name) <= _SPELLING_BYTES_MAX:
        _fields[name] = field
    return field


def _apply_framing(request: Request, field: int, value: bytes) -> None:
    if field == _CONTENT_LENGTH:
        if not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX or request.content_length is not None:
            raise BadRequest(400, "The Content-Length header is invalid.")
        request.content_length = int(value)
    elif field == _TRANSFER_ENCODING:
        if value.lower() != b"chunked" or request.chunked:
            raise BadRequest(400, "The only supported Transfer-Encoding is chunked.")
        request.chunked = True
    else:
        request.expect = value


def _check_host(request: Request, hosts: int) -> None:
    """RFC 9112 §3.2: exactly one valid Host; HTTP/1.0 may do without."""
    host = request.host
    if hosts > 1:
        raise BadRequest(400, "The request has more than one Host header.")
    if hosts == 0 and request.http10:
        return
    if len(host) > _HOST_BYTES_MAX or not is_host(host):
        raise BadRequest(400, "The Host header is missing or invalid.")
    if len(_hosts) < _HOSTS_MAX:
        _hosts.add(host)


def _apply_target(request: Request) -> None:
    if request.method == b"CONNECT":
        raise BadRequest(405, "The method CONNECT is not supported.")
    try:
        authority, request.path, request.query = split_target(request.method, request.target)
    except BadTarget as error:
        raise BadRequest(400, str(error)) from error
    # RFC 9112 §3.2.2: the authority of an absolute target replaces what Host says.
    request.host = authority or request.host
