"""What rules are made of as values, and what they do as functions.

A rule has a filter and perhaps an action. Copies a subscription gets of one message: one for all rules
that match and have no action together, and one for each rule that matches and has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from operator import eq
from typing import NamedTuple
from uuid import UUID

import msgspec

from ..errors import Invalid
from .letter import Letter, Value
from .sql import Action, Demand, NewId, SqlError, Term, fresh, parse_action, parse_filter
from .values import FINDABLE, SPAN_MAX, compared, moment_of

Typed = tuple[str, str]
"""A value as rules carry it: the name of its XML schema type, and its text."""


class SqlFilter(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """`1=1` and `1=0` are the true and the false filter."""

    expression: str = "1=1"
    parameters: dict[str, Typed] = {}

    def always(self) -> bool:
        """Whether it takes everything."""
        return "".join(self.expression.split()) == "1=1"


class CorrelationFilter(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind"):
    """All that are given must be equal; `system` by the service's names, `properties` of the user."""

    system: dict[str, str] = {}
    properties: dict[str, Typed] = {}


Filter = SqlFilter | CorrelationFilter
CORRELATED = (
    "CorrelationId",
    "MessageId",
    "To",
    "ReplyTo",
    "Label",
    "SessionId",
    "ReplyToSessionId",
    "ContentType",
)
"""The system properties a correlation filter may name, in the service's order."""


def compile_filter(wanted: Filter, newid: NewId = fresh) -> Term:
    """Raises Invalid."""
    if isinstance(wanted, CorrelationFilter):
        return _correlation(wanted)
    try:
        return parse_filter(wanted.expression, values_of(wanted.parameters), newid)
    except SqlError as error:
        raise Invalid(
            f"SubCode=40000. The filter '{wanted.expression:.100}' is not valid: {error}."
        ) from None


def compile_action(text: str, parameters: dict[str, Typed], newid: NewId = fresh) -> Action:
    """Raises Invalid."""
    try:
        return parse_action(text, values_of(parameters), newid)
    except SqlError as error:
        raise Invalid(f"SubCode=40000. The action '{text:.100}' is not valid: {error}.") from None


class ActiveRule(NamedTuple):
    """A rule at work. `matches`: None takes everything; `act`: None changes nothing. Unless the `demands`
    are met, the rule takes no message, and does not fail."""

    name: str
    matches: Callable[[Letter], Value] | None
    act: Callable[[Letter], None] | None
    demands: tuple[Demand, ...] = ()


def activate(name: str, wanted: Filter, action: str, parameters: dict[str, Typed]) -> ActiveRule:
    """Raises Invalid."""
    act = compile_action(action, parameters) if action else None
    if isinstance(wanted, SqlFilter) and wanted.always():
        return ActiveRule(name, None, act)
    term = compile_filter(wanted)
    # One that may fail must be asked: the failure counts too.
    return ActiveRule(name, term.evaluate, act, term.demands if term.sure else ())


def values_of(typed: dict[str, Typed]) -> dict[str, Value]:
    """Raises Invalid for a text that is not of its type."""
    found = {}
    for name, (kind, text) in typed.items():
        try:
            found[name] = _READERS[kind](text)
        except (KeyError, ValueError, OverflowError):
            raise Invalid(f"SubCode=40000. '{text:.60}' of '{name:.60}' is no {kind:.20}.") from None
    return found


def _integer(text: str) -> int:
    """The official client calls all small numbers int, so that none is held to less than 64 bits."""
    number = int(text) if _INTEGER.fullmatch(text.strip()) else None
    if number is None or not -(1 << 63) <= number < 1 << 63:
        raise ValueError
    return number


def _length(text: str) -> timedelta:
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()[1:]):
        raise ValueError
    sign, days, hours, minutes, seconds = match.groups()
    length = timedelta(int(days or 0), float(seconds or 0), 0, 0, int(minutes or 0), int(hours or 0))
    if length > SPAN_MAX:
        raise ValueError
    return -length if sign else length


def _boolean(text: str) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]


_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_DURATION = re.compile(
    r"(-)?P(?:(\d{1,9})D)?(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,12})M)?(?:(\d{1,12}(?:\.\d{1,9})?)S)?)?", re.ASCII
)
_WHOLE = ("int", "long", "short", "byte", "unsignedInt", "unsignedLong", "unsignedShort", "unsignedByte")
_READERS: dict[str, Callable[[str], Value]] = {
    "string": str,
    "boolean": _boolean,
    **dict.fromkeys(_WHOLE, _integer),
    **dict.fromkeys(("double", "float", "decimal"), float),
    "dateTime": moment_of,
    "duration": _length,
    "guid": UUID,
}


def _correlation(wanted: CorrelationFilter) -> Term:
    unknown = set(wanted.system) - set(CORRELATED)
    if unknown:
        raise Invalid(f"SubCode=40000. A correlation filter has no '{min(unknown)}'.")
    if not wanted.system and not wanted.properties:
        raise Invalid("SubCode=40000. A correlation filter must name at least one property.")
    parts = [_equal(f"sys.{name}", name, value, True) for name, value in wanted.system.items()]
    plain = values_of(wanted.properties)
    parts += [_equal(name, name, value, False) for name, value in plain.items()]

    def evaluate(letter: Letter) -> Value:
        return all(part.evaluate(letter) for part in parts)

    demands = tuple(demand for part in parts for demand in part.demands)
    return Term(" AND ".join(part.text for part in parts), evaluate, "and", tuple(parts), demands)


def _equal(text: str, name: str, wanted: Value, system: bool) -> Term:
    def evaluate(letter: Letter) -> Value:
        value = letter.system_value(name) if system else letter.user_value(name)
        return compared(eq, value, wanted) is True

    read = Term(
        text, lambda letter: letter.system_value(name) if system else letter.user_value(name), "property"
    )
    demands = (Demand("sys" if system else "user", name, (wanted,)),) if type(wanted) in FINDABLE else ()
    return Term(f"{text} = {wanted!r}", evaluate, "test", (read,), demands)
