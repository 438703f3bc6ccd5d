"""Values of rule expressions: comparing, reckoning and matching, with unknown (None) among them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

from .letter import FilterError, Value

EMPTY_PATTERN = ""
_NUMBER, _TEXT, _OTHER = "number", "text", "other"


def _kind(value: Value) -> object:
    if isinstance(value, bool):
        return bool
    if isinstance(value, (int, float)):
        return _NUMBER
    if isinstance(value, str):
        return _TEXT
    for known in (datetime, timedelta, UUID, bytes):
        if isinstance(value, known):
            return known
    return _OTHER


def truth(value: Value) -> bool | None:
    """A predicate's value; what is no truth value is unknown."""
    return value if isinstance(value, bool) else None


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def compared(compare: Callable[[Value, Value], bool], left: Value, right: Value) -> bool | None:
    """Unknown if a side is, or if the two are of kinds that cannot be compared."""
    if left is None or right is None:
        return None
    kinds = _kind(left), _kind(right)
    if kinds in ((UUID, _TEXT), (_TEXT, UUID)):
        left, right = str(left).lower(), str(right).lower()
    elif kinds[0] != kinds[1] or _OTHER in kinds:
        return None
    return compare(left, right)


def contained(value: Value, items: Sequence[Value]) -> bool | None:
    """IN: true if equal to one; unknown if the value is, or if none is equal and one is unknown."""
    if value is None:
        return None
    found = [compared(operator.eq, value, item) for item in items]
    if True in found:
        return True
    return None if None in found and None in items else False


def like(value: Value, pattern: Value, escape: Value) -> bool | None:
    if value is None or pattern is None or escape is None:
        return None
    if not all(isinstance(part, str) for part in (value, pattern, escape)):
        return None
    return _pattern(pattern, escape).fullmatch(value) is not None


@lru_cache(1024)
def _pattern(pattern: str, escape: str) -> re.Pattern[str]:
    if len(escape) > 1:
        raise FilterError("the escape character of LIKE must be one character")
    parts = []
    literal = False
    for char in pattern:
        if literal:
            parts.append(re.escape(char))
            literal = False
        elif char == escape:
            literal = True
        elif char == "%":
            # Runs count as one, or a pattern of many would take for ever.
            if parts[-1:] != [".*"]:
                parts.append(".*")
        else:
            parts.append("." if char == "_" else re.escape(char))
    if literal:
        raise FilterError("the pattern of LIKE ends in the escape character")
    return re.compile("".join(parts), re.S)


_OPERATIONS: dict[str, Callable[[Value, Value], Value]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def reckoned(sign: str, left: Value, right: Value) -> Value:
    """Raises FilterError for what cannot be reckoned, and for numbers out of bounds."""
    if left is None or right is None:
        return None
    kinds = _kind(left), _kind(right)
    if kinds == (_TEXT, _TEXT) and sign == "+":
        return left + right
    if kinds != (_NUMBER, _NUMBER):
        raise FilterError(f"'{sign}' cannot be done with {type(left).__name__} and {type(right).__name__}")
    try:
        if sign in "/%" and isinstance(left, int) and isinstance(right, int):
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            found: Value = quotient if sign == "/" else left - right * quotient
        else:
            found = _OPERATIONS[sign](left, right)
    except (ZeroDivisionError, OverflowError):
        raise FilterError(f"'{sign}' of {left} and {right} has no value") from None
    if isinstance(found, int) and not -(2**63) <= found < 2**63:
        raise FilterError(f"'{sign}' of {left} and {right} is out of range")
    return found
