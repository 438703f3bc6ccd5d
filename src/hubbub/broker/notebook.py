"""The notes of one receiver: when a state is written down, and which note of a message counts.

Rules:
1. A lock is noted a moment after it was taken, if it still holds: most messages are settled before anything
   needs to be written, and a lock that is lost in a crash costs a redelivery and no more.
2. Every other state is noted before it counts. The newest note of a message counts and buries the last one.

Not here: what a note says (ledger), and what follows from it (receiver).
"""

from __future__ import annotations

from ..clock import Clock, Timer
from ..engine.log import Done, Engine, EngineError, Log, Put
from .ledger import CLAIMED, Entry, Ledger, Note, encode_note

NOTES_DELAY = 50
"""Milliseconds a lock lives in memory only: a message settled sooner costs no note."""


class Notebook:
    """Writes to `log`. The entries are the ledger's."""

    __slots__ = ("_clock", "_engine", "_ledger", "_timer", "_unwritten", "log")

    def __init__(self, log: Log, ledger: Ledger, engine: Engine, clock: Clock) -> None:
        self.log = log
        self._ledger = ledger
        self._engine = engine
        self._clock = clock
        self._unwritten: dict[int, Entry] = {}
        """Locked messages whose notes are not written yet."""
        self._timer: Timer | None = None

    def soon(self, entry: Entry, now: int) -> None:
        """A note of a lock, if it lasts."""
        self._unwritten[entry.sequence] = entry
        if self._timer is None:
            self._timer = self._clock.call_at(now + NOTES_DELAY, self.write)

    def drop(self) -> None:
        """What is unwritten stays so."""
        self._unwritten = {}

    def write(self) -> None:
        """The locks that still hold, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries = self._ledger.entries
        # Those that came free count too: with a session, locks may end at any time.
        held = [e for e in self._unwritten.values() if e.state != CLAIMED and entries.get(e.sequence) is e]
        self._unwritten = {}
        if not held:
            return
        puts, dead, old = [], [], []
        first = self.log.next
        for at, entry in enumerate(held, first):
            puts.append(Put(self.log, entry.record()))
            old.append(entry.note)
            if entry.note >= 0:
                dead.append((self.log, entry.note))
            entry.note = at

        def noted(error: EngineError | None) -> None:
            # A failed append gives its sequences to others.
            for n, entry in enumerate(held if error is not None else ()):
                if entry.note == first + n:
                    entry.note = old[n]

        self._engine.append(puts, self._clock.now(), noted, dead=dead)

    def put(self, entry: Entry, note: Note, now: int, done: Done) -> None:
        """Writes the state that will be; the entry points to it only when it is durable."""
        at, old = self.log.next, entry.note
        self._unwritten.pop(entry.sequence, None)

        def noted(error: EngineError | None) -> None:
            if error is None:
                if entry.note != old:
                    # Another was on its way: the newest counts.
                    self.bury(min(entry.note, at))
                entry.note = max(entry.note, at)
            done(error)

        dead = ((self.log, old),) if old >= 0 else ()
        self._engine.append((Put(self.log, encode_note(note)),), now, noted, dead=dead)

    def bury(self, at: int) -> None:
        """A note that no longer counts."""
        self._engine.append([], self._clock.now(), _ignore, dead=((self.log, at),))


def _ignore(error: EngineError | None) -> None:
    """It is found again at the next restart."""
