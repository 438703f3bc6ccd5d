"""Values of rule expressions: comparing, reckoning, matching and converting, with unknown (None) among them.

The service binds operators as C# does (SQL filter syntax, operator binding): numbers widen to double,
division of integers cuts off, a remainder has the sign of what is divided, doubles have infinities, `+`
with a text joins texts, and a moment less a moment is a length of time.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

Value = Any
"""None (unknown), bool, int, float, str, bytes, datetime, timedelta or UUID; exactly, no subclass."""


class FilterError(Exception):
    """A rule could not be evaluated on a message; the message may be dead-lettered for it."""


PATTERN_CHARS_MAX = 1024
"""A pattern may come out of a message; its sender must not choose how long it takes to compile."""
FINDABLE = frozenset((str, int, float, bool))
"""Types whose values can be looked up by `sought`."""
_NUMBER = "number"
_KINDS: dict[type, object] = {
    **{kind: kind for kind in (bool, str, datetime, timedelta, UUID, bytes)},
    int: _NUMBER,
    float: _NUMBER,
}
_ORDERED = frozenset((_NUMBER, str, datetime, timedelta))
"""Kinds that have more than equal and unequal."""
_INT64 = range(-(2**63), 2**63)
SPAN_MAX = timedelta(microseconds=(2**63 - 1) // 10)
"""A length of time has 64 bits of 100 ns."""
TEXT_CHARS_MAX = 32_768
"""Of what `+` joins: a property holds no more, and copies must not grow without bound."""


def truth(value: Value) -> bool | None:
    """A predicate's value; what is no truth value is unknown."""
    return value if value is True or value is False else None


def negated(value: bool | None) -> bool | None:
    return None if value is None else not value


def compared(compare: Callable[[Value, Value], bool], left: Value, right: Value) -> bool | None:
    """Unknown if a side is, or if the two are of kinds that cannot be compared in this way."""
    if left is None or right is None:
        return None
    a, b = type(left), type(right)
    if a is not b:
        if _KINDS.get(a) is _NUMBER and _KINDS.get(b) is _NUMBER:
            return compare(float(left), float(right))
        if {a, b} != {UUID, str}:
            return None
        left, right = str(left).lower(), str(right).lower()
        a = UUID
    if _KINDS.get(a) not in _ORDERED and compare is not operator.eq and compare is not operator.ne:
        return None
    return compare(left, right) if a in _KINDS else None


def sought(value: Value) -> Value:
    """What is the same for all values that are equal to this one, of types in FINDABLE."""
    return float(value) if type(value) is int else value


def contained(value: Value, items: Sequence[Value]) -> bool | None:
    """IN: true if equal to one; unknown if the value is, or if none is equal and one is unknown."""
    if value is None:
        return None
    found = [compared(operator.eq, value, item) for item in items]
    if True in found:
        return True
    return None if None in found and None in items else False


def like(value: Value, pattern: Value, escape: Value = "") -> bool | None:
    """`escape`: one character, or empty where there is no ESCAPE."""
    if type(value) is not str or type(pattern) is not str or type(escape) is not str:
        return None
    if len(pattern) > PATTERN_CHARS_MAX:
        raise FilterError(f"the pattern of LIKE has more than {PATTERN_CHARS_MAX} characters")
    return _pattern(pattern, escape).fullmatch(value) is not None


def escaping(escape: Value) -> Value:
    """What stands behind ESCAPE. Raises FilterError unless it is one character or unknown."""
    if escape is not None and (type(escape) is not str or len(escape) != 1):
        raise FilterError("the escape character of LIKE must be one character")
    return escape


@lru_cache(1024)
def _pattern(pattern: str, escape: str) -> re.Pattern[str]:
    """Each piece between two wildcards is taken where it is first found and never looked for again: else a
    pattern of many wildcards would take for ever on a text that almost matches."""
    first, *rest = _pieces(pattern, escape)
    if not rest:
        return re.compile(first, re.S)
    *inner, last = rest
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in inner if piece) + ".*" + last, re.S)


def _pieces(pattern: str, escape: str) -> list[str]:
    """What stands between the `%`, as regular expressions."""
    pieces = [""]
    literal = False
    for char in pattern:
        if literal:
            pieces[-1] += re.escape(char)
            literal = False
        elif char == escape:
            literal = True
        elif char == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if char == "_" else re.escape(char)
    if literal:
        raise FilterError("the pattern of LIKE ends in the escape character")
    return pieces


def reckoned(sign: str, left: Value, right: Value) -> Value:
    """Raises FilterError for what cannot be reckoned, and for numbers out of bounds."""
    if left is None or right is None:
        return None
    try:
        if _KINDS.get(type(left)) is _NUMBER and _KINDS.get(type(right)) is _NUMBER:
            found = _integers(sign, left, right) if type(left) is type(right) is int else None
            return _doubles(sign, float(left), float(right)) if found is None else found
        if sign == "+" and (type(left) is str or type(right) is str):
            return _bounded(text_of(left) + text_of(right))
        return _bounded(_TIMES[type(left), sign, type(right)](left, right))
    except KeyError:
        names = f"{_noun(left)} and {_noun(right)}"
        raise FilterError(f"'{sign}' cannot be done with {names}") from None
    except (ZeroDivisionError, OverflowError):
        raise FilterError(f"'{sign}' of {left} and {right} has no value") from None


def signed(sign: str, value: Value) -> Value:
    """A sign before a value. Raises FilterError for what has none."""
    if value is None:
        return None
    if _KINDS.get(type(value)) is not _NUMBER and type(value) is not timedelta:
        raise FilterError(f"'{sign}' cannot be done with {_noun(value)}")
    return _bounded(value if sign == "+" else -value)


_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "%": lambda a, b: abs(a) % abs(b) * (1 if a >= 0 else -1),
}
_DOUBLES: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else a * math.copysign(math.inf, b),
    "%": lambda a, b: math.nan if not b or math.isinf(a) else math.fmod(a, b),
}
_TIMES: dict[tuple[type, str, type], Callable[[Value, Value], Value]] = {
    (datetime, "-", datetime): operator.sub,
    (datetime, "+", timedelta): operator.add,
    (datetime, "-", timedelta): operator.sub,
    (timedelta, "+", timedelta): operator.add,
    (timedelta, "-", timedelta): operator.sub,
}


def _integers(sign: str, left: int, right: int) -> Value:
    return _bounded(_INTEGERS[sign](left, right))


def _doubles(sign: str, left: float, right: float) -> float:
    return _DOUBLES[sign](left, right)


def _bounded(value: Value) -> Value:
    """Whole numbers and lengths of time have 64 bits, texts that are made an end. Raises FilterError."""
    if type(value) is int and value not in _INT64:
        raise FilterError(f"{value} is out of range: whole numbers have 64 bits")
    if type(value) is timedelta and abs(value) > SPAN_MAX:
        raise FilterError(f"{value} is out of range: lengths of time have 64 bits of 100 ns")
    if type(value) is str and len(value) > TEXT_CHARS_MAX:
        raise FilterError(f"the joined text has more than {TEXT_CHARS_MAX} characters")
    return value


# Texts and other types.

_NOUNS: dict[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "a text",
    datetime: "a moment",
    timedelta: "a length of time",
    UUID: "a GUID",
    bytes: "bytes",
}
_INFINITE = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
_DIGITS = re.compile(r"[+-]?\d{1,20}", re.A)
_SPAN = re.compile(r"(-)?(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2}(?:\.\d{1,7})?))?", re.A)


def _noun(value: Value) -> str:
    return _NOUNS.get(type(value), "a value of another type")


def text_of(value: Value) -> str:
    """As .NET writes it, but for moments, which are ISO 8601. Raises FilterError for bytes."""
    if type(value) is str:
        return value
    if type(value) is float:
        return _INFINITE.get(repr(value)) or repr(value).removesuffix(".0")
    if type(value) is timedelta:
        return _span_text(value)
    if type(value) is datetime:
        return value.isoformat().replace("+00:00", "Z")
    if type(value) is bytes or type(value) not in _NOUNS:
        raise FilterError(f"{_noun(value)} cannot be made a text")
    return str(value)


def _span_text(value: timedelta) -> str:
    """[-][d.]hh:mm:ss[.fffffff]"""
    whole, micros = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    days, rest = divmod(whole, 86_400)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    fraction = f".{micros:06}0" if micros else ""
    return f"{'-' if value < timedelta() else ''}{f'{days}.' if days else ''}{text}{fraction}"


def moment_of(text: str) -> datetime:
    """ISO 8601; without a zone it is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def span_of(text: str) -> timedelta:
    """[-][d.]hh:mm[:ss[.f]] as .NET reads it. Raises ValueError."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError
    sign, days, hours, minutes, seconds = match.groups()
    length = timedelta(int(days or 0), float(seconds or 0), 0, 0, int(minutes), int(hours))
    return -length if sign else length


def _truth_of(text: str) -> bool:
    return {"true": True, "false": False}[text.strip().lower()]


def _number_of(text: str) -> int:
    if _DIGITS.fullmatch(text.strip()) is None:
        raise ValueError
    return int(text)


def _double_of(text: str) -> float:
    if "_" in text:
        raise ValueError
    return float(text)


_OUT_OF_TEXT: dict[type, Callable[[str], Value]] = {
    bool: _truth_of,
    int: _number_of,
    float: _double_of,
    datetime: moment_of,
    timedelta: span_of,
    UUID: UUID,
}


def converted(value: Value, kind: type) -> Value:
    """The value as one of another type (SQL action syntax: SET converts if that is possible). Raises
    FilterError if it is not."""
    if value is None or type(value) is kind:
        return value
    try:
        if kind is str:
            return text_of(value)
        if type(value) is str:
            return _bounded(_OUT_OF_TEXT[kind](value))
        if kind is float and type(value) is int:
            return float(value)
        if kind is int and type(value) is float:
            return _bounded(round(value))
    except (KeyError, ValueError, OverflowError):
        pass
    raise FilterError(f"{_noun(value)} cannot be made {_NOUNS.get(kind, 'that')}")
