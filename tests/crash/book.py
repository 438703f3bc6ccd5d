"""Where each message may be: what its clients were told, and what they were told nothing of.

A change of places is begun, then done or refused. If the server goes in between, it may have happened or not,
but for all its messages alike: that is what a batch, a topic's copies and a transaction have in common. After
a restart `faults` compares with what is there, and `accept` takes that for known.

A place is an entity and a state. Some are left without anybody's doing (schedules, ends of time to live, too
many deliveries): `drifts` says to where.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

Place = tuple[str, str]
ACTIVE, DEFERRED, SCHEDULED, DEAD = "active", "deferred", "scheduled", "dead"
NOWHERE: Place = ("", "never sent")
GONE: Place = ("", "gone")
LATE = 2_000
"""How long after its moment a scheduled message may still be seen as such, ms: the server may just start."""


class Change:
    """Messages on their way to other places, all or none."""

    __slots__ = ("after", "before")

    def __init__(self, before: dict[str, set[Place]], after: dict[str, Place]) -> None:
        self.before = before
        self.after = after


class Book:
    def __init__(self, drifts: Mapping[Place, Place] | None = None) -> None:
        self.may: dict[str, set[Place]] = {}
        """Where each message may be, by its key."""
        self.due: dict[str, int] = {}
        """When scheduled messages become active, ms."""
        self.drifts = dict(drifts or {})
        self.done_of: Counter[str] = Counter()
        """How many changes to each state were acknowledged."""
        self.problems: list[str] = []
        self.trails: defaultdict[str, list[str]] = defaultdict(list)
        """What happened to each message, for who must find out why."""
        self._open: list[Change] = []

    # What clients do.

    def begin(self, after: dict[str, Place]) -> Change:
        change = Change({key: set(self.may.get(key, {NOWHERE})) for key in after}, after)
        for key, place in after.items():
            self.may.setdefault(key, {NOWHERE}).add(place)
            self._note(key, f"to {place}")
        self._open.append(change)
        return change

    def done(self, change: Change) -> None:
        """It was acknowledged. Others may have taken its messages further meanwhile."""
        self._open.remove(change)
        for key, place in change.after.items():
            self.may[key] -= change.before[key] - {place}
            self.done_of[place[1]] += 1
            self._note(key, f"is at {place}")

    def refused(self, change: Change) -> None:
        """The server said that it has not happened. Others may have come first, and gone on."""
        self._open.remove(change)
        for key, place in change.after.items():
            self._note(key, f"not to {place}")
            if place not in change.before[key] and change.before[key] <= self.may[key]:
                self.may[key].discard(place)

    def seen(self, key: str, place: Place, now: int) -> None:
        """A message came from there."""
        self._note(key, f"came from {place}")
        if place not in self._reached(key, now):
            self.problems.append(f"{key} came from {place}, but may be at {sorted(self.may.get(key, ()))}")
        self.may[key] = {place}

    def is_at(self, key: str, place: Place) -> bool:
        """Whether it is known to be there."""
        return self.may.get(key) == {place}

    # After a restart.

    def faults(self, found: Mapping[str, list[Place]], now: int) -> list[str]:
        """What of the things that are there must not be so."""
        faults = [f"{key} is from nowhere" for key in found if key not in self.may]
        for key in self.may:
            places = found.get(key, [])
            if len(places) > 1:
                faults.append(f"{key} is in {len(places)} places: {places}")
            elif self._absent(key) is None and not places:
                faults.append(f"{key} is lost: it may be at {sorted(self.may[key])}")
            elif places and places[0] not in self._reached(key, now):
                faults.append(f"{key} is at {places[0]}, but may be at {sorted(self.may[key])}")
            elif places and places[0][1] == SCHEDULED and self.due.get(key, now) + LATE < now:
                faults.append(f"{key} is still scheduled, {now - self.due[key]} ms late")
        return faults + [f"half of a change: {text}" for text in self._halves(found, now)]

    def accept(self, found: Mapping[str, list[Place]]) -> None:
        """From now on this is known."""
        for key in self.may:
            self._note(key, "restart")
            places = found.get(key, [])
            self.may[key] = {places[0] if places else self._absent(key) or GONE}
        self._open = []

    def _note(self, key: str, text: str) -> None:
        self.trails[key].append(f"{time.time():.3f} {text}")

    def _absent(self, key: str) -> Place | None:
        return next((place for place in (GONE, NOWHERE) if place in self.may[key]), None)

    def _halves(self, found: Mapping[str, list[Place]], now: int) -> Iterable[str]:
        for change in self._open:
            happened = {
                key: (found.get(key) or [self._absent(key)])[0] not in self._drifted(key, before, now)
                for key, before in change.before.items()
            }
            if len(set(happened.values())) > 1:
                yield str(happened)

    def _reached(self, key: str, now: int) -> set[Place]:
        return self._drifted(key, self.may.get(key, set()), now)

    def _drifted(self, key: str, places: Iterable[Place], now: int) -> set[Place]:
        """Those places, and where a message gets from there by itself."""
        reached = set(places)
        for place in list(reached):
            if place[1] == SCHEDULED and self.due.get(key, 0) <= now:
                place = (place[0], ACTIVE)
                reached.add(place)
            while (place := self.drifts.get(place, place)) not in reached:
                reached.add(place)
        return reached
