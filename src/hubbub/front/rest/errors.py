"""The REST door's one table from what went wrong to what the client reads (REST reference section 5)."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from ...broker.access import Unauthorized
from ...broker.errors import (
    AlreadyExists,
    BrokerError,
    Busy,
    Conflict,
    Disabled,
    Forwards,
    Invalid,
    LockLost,
    MessageNotFound,
    NotFound,
    OutOfSequence,
    ProducerStolen,
    PublisherRevoked,
    QuotaExceeded,
    SessionCannotBeLocked,
    SessionLockLost,
    SessionRequired,
    TooLarge,
)
from .atom import tag

XML = (b"Content-Type", b"application/xml; charset=utf-8")

STATUSES: dict[type[BaseException], int] = {
    Unauthorized: 401,
    PublisherRevoked: 401,
    Invalid: 400,
    SessionRequired: 400,
    Forwards: 400,
    NotFound: 404,
    LockLost: 404,
    SessionLockLost: 404,
    MessageNotFound: 404,
    AlreadyExists: 409,
    Conflict: 409,
    OutOfSequence: 409,
    ProducerStolen: 409,
    SessionCannotBeLocked: 409,
    QuotaExceeded: 403,
    Disabled: 403,
    TooLarge: 403,
    Busy: 503,
}


HTTP_SUBCODES = {400: "SubCode=40000. ", 500: "SubCode=50000. ", 503: "SubCode=50004. "}
"""What stands before the text of a refusal by HTTP itself; other statuses have no sub-code of the service."""


class HttpError(BrokerError):
    """A refusal with a status of its own, where the table's would not do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def wrong_verb(verb: bytes) -> Invalid:
    return Invalid(f"SubCode=40000. The specified HTTP verb ({verb.decode('latin-1')}) is not valid.")


_SUBCODES = ((Busy, 50004), (Disabled, 40301), (QuotaExceeded, 40300), (TooLarge, 40300))


def status_of(error: BaseException) -> int:
    if isinstance(error, HttpError):
        return error.status
    for kind in type(error).__mro__:
        if kind in STATUSES:
            return STATUSES[kind]
    return 500


def text_of(error: BaseException, status: int) -> str:
    """What the client reads. Of our own mistakes it learns no more than that there was one."""
    if status == 500:
        return "SubCode=50000. Internal Server Error"
    text = str(error)
    if text.startswith("SubCode"):
        return text
    return next((f"SubCode={code}. {text}" for kind, code in _SUBCODES if isinstance(error, kind)), text)


def tracking_id(where: str = "G") -> str:
    """A GUID with the mark of who raised the error: the gateway (G) or the broker (B)."""
    h = os.urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}_{where}0"


def error_body(status: int, text: str, tracking: str, tracker: str, now: int) -> bytes:
    """The Error element; `now` in ms."""
    moment = datetime.fromtimestamp(now // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    detail = f"{text} TrackingId:{tracking}, SystemTracker:{tracker}, Timestamp:{moment}"
    return f"<Error><Code>{status}</Code>{tag('Detail', detail)}</Error>".encode()
