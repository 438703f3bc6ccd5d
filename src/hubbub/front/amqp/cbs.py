"""The `$cbs` node: tokens for a connection, put before links are attached (AMQP reference 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...broker.access import Unauthorized
from .address import path_of
from .errors import text_of
from .requests import Request, Respond, Response

if TYPE_CHECKING:
    from .peer import Peer


def answer(peer: Peer, request: Request, respond: Respond) -> None:
    respond(_put(peer, request))


def _put(peer: Peer, request: Request) -> Response:
    application = request.application
    name, token = application.get("name"), request.body
    if application.get("operation") != "put-token":
        return Response(400, "The operation must be put-token.", None, "amqp:not-implemented")
    if not isinstance(name, str) or not isinstance(token, str):
        return Response(400, "put-token needs a name and a token.", None, "amqp:invalid-field")
    try:
        peer.put_token(path_of(name).lower(), token)
    except Unauthorized as error:
        peer.refused(f"token for {path_of(name)!r}", text_of(error))
        return Response(401, text_of(error), None, "amqp:unauthorized-access")
    return Response(202, "Accepted")
