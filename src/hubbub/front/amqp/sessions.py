"""Sessions over AMQP: a receiving link that holds one (AMQP reference 4.2).

The session is asked for in the link's source, by name or as the next available one; the answer to the attach
names it and says how long it is held, and is kept back until there is one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ...broker.errors import Invalid, SessionRequired
from ...broker.receiver import Receiver
from ...broker.sessions import SessionLock
from ...wire.amqp.link import Sender
from ...wire.amqp.performatives import Source
from ...wire.amqp.types import Described, Long, Symbol
from .errors import SESSION_LOCK_LOST, condition_of, text_of
from .messages import KEY_CHARS_MAX
from .queues import Receiving

if TYPE_CHECKING:
    from .peer import Peer

FILTER = Symbol("com.microsoft:session-filter")
LOCKED_UNTIL = Symbol("com.microsoft:locked-until-utc")
TIMEOUT = "com.microsoft:timeout"
WAIT = 65_000
"""How long the next available session is waited for if the client does not say, ms."""
WAIT_MAX = 3_600_000
_TICKS_1970 = 621_355_968_000_000_000


def wanted(link: Sender) -> tuple[bool, str | None]:
    """Whether the link asks for a session, and which one; None: the next available. Raises Invalid for a name
    that no message can have."""
    filters = (link.source.filter if isinstance(link.source, Source) else None) or {}
    if FILTER not in filters:
        return False, None
    value = filters[FILTER]
    value = value.value if isinstance(value, Described) else value
    if value is None:
        return True, None
    if not isinstance(value, str) or len(value) > KEY_CHARS_MAX:
        raise Invalid(f"The session id must be a text of at most {KEY_CHARS_MAX} characters.")
    return True, str(value)


class Accepting:
    """A link that waits for its session; then its context is a Receiving."""

    def __init__(self, peer: Peer, link: Sender, source: Receiver, session: str | None) -> None:
        self.peer = peer
        self.link = link
        self.source = source
        self._gone = False
        if source.sessions is None:
            raise SessionRequired(f"'{source.path}' has no sessions: receive from it without one.")
        timeout = (link.attach.properties or {}).get(TIMEOUT)
        wait = min(timeout, WAIT_MAX) if isinstance(timeout, int) and timeout > 0 else WAIT
        self._waiter = source.sessions.accept(session, peer.now() + wait, self._accepted)
        if self._waiter is not None:
            self._waiter.left = lambda: self._gone

    def gone(self) -> None:
        self._gone = True
        if self._waiter is not None:
            self._waiter.cancel()

    def _accepted(self, outcome: SessionLock | Exception | None) -> None:
        link = self.link
        if isinstance(outcome, SessionLock):
            receiving = Holding(self.peer, link, self.source, outcome)
            link.context = receiving
            source = link.source
            assert isinstance(source, Source)
            filters: dict[Any, Any] = {**(source.filter or {}), FILTER: outcome.id}
            ticks = _TICKS_1970 + outcome.until * 10_000
            link.accept(
                source=dataclasses.replace(source, filter=filters), properties={LOCKED_UNTIL: Long(ticks)}
            )
            receiving.pump()
            return
        self.peer.drop(link)
        if outcome is None:
            link.refuse(TIMEOUT, "No session with messages became available in time.")
        else:
            link.refuse(condition_of(outcome), text_of(outcome))


class Holding(Receiving):
    """A receiver that holds a session for as long as its link lasts."""

    def __init__(self, peer: Peer, link: Sender, source: Receiver, lock: SessionLock) -> None:
        super().__init__(peer, link, source, lock)
        self.lock = lock
        lock.on_lost = self._lost

    def gone(self) -> None:
        super().gone()
        self.lock.release()

    def _lost(self) -> None:
        self._gone = True
        self.link.detach(SESSION_LOCK_LOST, "The session lock has expired. Accept the session anew.")
        self.peer.drop(self.link)
