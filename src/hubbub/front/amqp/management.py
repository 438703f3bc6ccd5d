"""The `$management` node of Event Hubs: READ of a hub or a partition (AMQP reference 3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...broker.errors import BrokerError, Invalid
from ...broker.partitions import partition_number
from ...wire.amqp.types import Array, Int, Long, Timestamp
from .errors import condition_of, text_of
from .requests import Request, Respond, Response

if TYPE_CHECKING:
    from .peer import Peer

_STATUS = {"amqp:not-found": 404, "amqp:unauthorized-access": 401}


def answer(peer: Peer, request: Request, respond: Respond) -> None:
    try:
        respond(Response(200, "OK", _read(peer, request.application)))
    except BrokerError as error:
        condition = condition_of(error)
        respond(Response(_STATUS.get(condition, 400), text_of(error), None, condition))


def _read(peer: Peer, application: dict[str, Any]) -> dict[str, Any]:
    kind, name = application.get("type"), application.get("name")
    if application.get("operation") != "READ" or not isinstance(name, str):
        raise Invalid("The operation must be READ, with the name of an event hub.")
    token = application.get("security_token")
    peer.require_any(name.strip("/").lower(), token if isinstance(token, str) else None)
    hub = peer.namespace.hub(name.strip("/"))
    if kind == "com.microsoft:eventhub":
        return {
            "name": hub.entity.path,
            "type": kind,
            "created_at": Timestamp(hub.entity.created),
            "partition_count": Int(len(hub.partitions)),
            "partition_ids": Array(str(number) for number in range(len(hub.partitions))),
            "georeplication_factor": Int(1),
        }
    if kind != "com.microsoft:partition":
        raise Invalid(f"The type '{kind!s:.60}' cannot be read.")
    number = partition_number(str(application.get("partition", "")), len(hub.partitions))
    found = hub.describe(number)
    return {
        "name": hub.entity.path,
        "type": kind,
        "partition": str(number),
        "begin_sequence_number": Long(found.begin_sequence),
        "last_enqueued_sequence_number": Long(found.last_sequence),
        "last_enqueued_offset": found.last_offset,
        "last_enqueued_time_utc": Timestamp(found.last_enqueued),
        "is_partition_empty": found.count == 0,
    }
