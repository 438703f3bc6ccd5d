"""Messages under way on a link, in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .performatives import State

if TYPE_CHECKING:
    from .link import Sender


class Delivery:
    """A message that came in. `payload` is the encoded message, all sections; `state` is not None inside a
    transaction; `format` is 0 or the code of a batch."""

    __slots__ = ("format", "id", "payload", "settled", "state", "tag")

    def __init__(
        self,
        id: int,
        tag: bytes,
        payload: bytes,
        settled: bool,
        state: State | None,
        format: int,
    ) -> None:
        self.id = id
        self.tag = tag
        self.payload = payload
        self.settled = settled
        self.state = state
        self.format = format


class Sent:
    """A message that goes out. `id` is None until its first frame is sent, `payload` is empty after its last;
    `state` goes along with it, `outcome` is what the peer said. `context` is the owner's."""

    __slots__ = (
        "context",
        "format",
        "id",
        "link",
        "outcome",
        "payload",
        "sent_bytes",
        "settled",
        "state",
        "tag",
    )

    def __init__(
        self,
        link: Sender,
        payload: bytes,
        tag: bytes,
        format: int,
        settled: bool,
        state: State | None,
        context: Any,
    ) -> None:
        self.link = link
        self.id: int | None = None
        self.payload = payload
        self.tag = tag
        self.format = format
        self.settled = settled
        self.state = state
        self.outcome: State | None = None
        self.context = context
        self.sent_bytes = 0
