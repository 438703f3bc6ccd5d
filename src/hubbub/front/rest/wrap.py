"""The WRAP v0.9 token endpoint: a name and a password for a simple web token (rest.md §2.2.1).

    POST /WRAPv0.9/    wrap_name=<issuer>&wrap_password=<key>&wrap_scope=<http URI>      (form)
    200                wrap_access_token=<URL-encoded SWT>&wrap_access_token_expires_in=<seconds>

Not here: routing, and the reading of the tokens. The old Access Control Service, where clients went for
these, was closed in 2018; this stands in for it on the same host. Rules: a token is for a scope on this
namespace; a wrong name and a wrong password are told alike, in the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import quote

from hubbub.broker.access import NO_RIGHTS, Authority, Right, Unauthorized, acs_issuer, swt_token
from hubbub.broker.access.resource import decode_form, host_name

LIFETIME_S = 10_800
FORM_BYTES_MAX = 16 * 1024
FORM_TYPE = "application/x-www-form-urlencoded; charset=us-ascii"
TEXT_TYPE = "text/plain; charset=us-ascii"

Response = tuple[int, tuple[tuple[str, str], ...], bytes]
"""Status, headers, body."""

_FIELDS = ("wrap_name", "wrap_password", "wrap_scope")
_NO_STORE = (
    ("Cache-Control", "no-cache, no-store"),
    ("Pragma", "no-cache"),
    ("Expires", "-1"),
    ("X-Content-Type-Options", "nosniff"),
)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def wrap_response(
    form: bytes,
    *,
    issuers: Mapping[str, tuple[str, Right]],
    authority: Authority,
    signing_key: bytes,
    now: int,
    request_host: bytes = b"",
    lifetime_s: int = LIFETIME_S,
) -> Response:
    """The answer to a token request; `now` is ms, `signing_key` the decoded key of the namespace's issuer.

    `issuers` maps a name to its password and the rights it may have. 200 with a token; 400 for a malformed
    form or a scope that is not on this namespace; 401 for an unknown name or a wrong password.
    """
    try:
        fields = _form(form)
        rights = _rights(fields, issuers)
        _check_scope(fields["wrap_scope"], authority, host_name(request_host.decode("latin-1")))
    except _Refused as refused:
        return _refusal(refused.status, refused.text)
    actions = [(right.name or "").capitalize() for right in Right if right & rights]
    expires_s = now // 1000 + lifetime_s
    token = swt_token(acs_issuer(authority.namespace), fields["wrap_scope"], actions, expires_s, signing_key)
    # One second less than was asked for, as in the service's answers: never more than what is left.
    body = f"wrap_access_token={quote(token, safe='')}&wrap_access_token_expires_in={lifetime_s - 1}"
    return 200, (("Content-Type", FORM_TYPE), *_NO_STORE), body.encode("ascii")


def _form(body: bytes) -> dict[str, str]:
    if len(body) > FORM_BYTES_MAX:
        raise _Refused(400, f"The form is over {FORM_BYTES_MAX} bytes.")
    fields: dict[str, str] = {}
    for pair in body.strip().split(b"&"):
        name, mark, value = pair.partition(b"=")
        text = decode_form(name)
        if not mark or text in fields:
            raise _Refused(
                400, "The body must be a form of wrap_name, wrap_password and wrap_scope, once each."
            )
        fields[text] = decode_form(value)
    if missing := [field for field in _FIELDS if not fields.get(field)]:
        raise _Refused(400, f"The form lacks {', '.join(missing)}.")
    return fields


def _rights(fields: Mapping[str, str], issuers: Mapping[str, tuple[str, Right]]) -> Right:
    known = issuers.get(fields["wrap_name"])
    password, rights = known or ("nobody", NO_RIGHTS)
    fits = compare_digest(
        password.encode("utf-8", "replace"), fields["wrap_password"].encode("utf-8", "replace")
    )
    if known is None or not fits:
        raise _Refused(401, "The issuer name or its password is wrong.")
    return rights


def _check_scope(scope: str, authority: Authority, request_host: str) -> None:
    try:
        authority.path(scope, request_host)
    except Unauthorized:
        raise _Refused(
            400, f"The wrap_scope must be a URI on this namespace, for example http://{authority.namespace}/."
        ) from None


def _refusal(status: int, text: str) -> Response:
    # The shape of the old service's errors, which its clients show as they are.
    body = f"Error:Code:{status}:SubCode:T0:Detail:{text}"
    return status, (("Content-Type", TEXT_TYPE), *_NO_STORE), body.encode("ascii", "replace")
