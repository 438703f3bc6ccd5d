"""Which subscriptions of a topic must look at a message: those it could concern, found by its values.

Most rules demand a certain value of some property, and are found by that; so a message costs what the rules
cost that may want it, however many others there are. Pure, and only an index: a rule that is found may still
say no, and one that is not found would have said no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller

from .filters import FINDABLE, ActiveRule, Demand, Letter, Value, sought


class Routes:
    """Made anew when rules change. Subscriptions are numbered by their place in `rules`."""

    __slots__ = ("_curious", "_tables", "blind")

    def __init__(self, rules: Sequence[Sequence[ActiveRule]]) -> None:
        self.blind: list[int] = []
        """Those that take everything as it is."""
        self._curious: list[int] = []
        """Those that must look at everything."""
        self._tables: dict[tuple[str, str], _Table] = {}
        for number, own in enumerate(rules):
            if own and all(rule.matches is None and rule.act is None for rule in own):
                self.blind.append(number)
            elif all(rule.demands for rule in own):
                for rule in own:
                    self._table(rule.demands[0]).enter(rule.demands[0].values, number)
            else:
                self._curious.append(number)

    @property
    def looks(self) -> bool:
        """Whether anybody looks into messages at all."""
        return bool(self._curious or self._tables)

    def concerned(self, letter: Letter) -> list[int]:
        """Those that must look at the letter, in order."""
        found = set(self._curious)
        for table in self._tables.values():
            found.update(table.find(letter))
        return sorted(found)

    def _table(self, demand: Demand) -> _Table:
        key = demand.scope, demand.name
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = _Table(demand.scope, demand.name)
        return table


class _Table:
    """Those that demand something of one property, by the value."""

    __slots__ = ("_all", "_by_value", "_read")

    def __init__(self, scope: str, name: str) -> None:
        verb = "system_value" if scope == "sys" else "user_value"
        self._read: Callable[[Letter], Value] = methodcaller(verb, name)
        self._by_value: dict[Value, list[int]] = {}
        self._all: list[int] = []

    def enter(self, values: Sequence[Value], number: int) -> None:
        self._all.append(number)
        for value in values:
            self._by_value.setdefault(sought(value), []).append(number)

    def find(self, letter: Letter) -> Sequence[int]:
        value = self._read(letter)
        if value is None:
            return ()
        # Others, such as a UUID, may equal a text that is spelled in another way.
        return self._by_value.get(sought(value), ()) if type(value) in FINDABLE else self._all
