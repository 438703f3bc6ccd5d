"""Why a rule wants a message or not: every term of its filter with what it was worth, and which one decided.

Not here: any logic of its own. Each term is asked by the very function that delivery asks for the whole, once
more for every level it stands in; the answers of AND and OR are only read. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from .letter import FilterError, Letter, Value, system_name
from .sql import Action, Term
from .values import truth

_JOINED = frozenset(("and", "or", "not"))
_SEEN = frozenset(("property", "newid"))


class Seen(NamedTuple):
    """A property, parameter or function as the filter names it, and its value; None is unknown."""

    name: str
    value: Value


class Finding(NamedTuple):
    """What one term was worth. `outcome`: true, false or unknown (None); None too if there is an `error`."""

    text: str
    outcome: bool | None
    error: str
    note: str
    """Why it is unknown; else empty."""
    reached: bool
    """Whether delivery would look at it at all: what stands before it may have decided."""
    decides: bool
    """Whether the whole filter is worth what it is because of this."""
    seen: tuple[Seen, ...]
    parts: tuple[Finding, ...]
    """Of AND, OR and NOT."""


class Change(NamedTuple):
    """What one statement of an action does. With an `error` it does nothing, and nothing follows it."""

    statement: str
    name: str
    before: Value
    after: Value
    error: str


def explain_filter(term: Term, letter: Letter) -> Finding:
    return _examined(term, letter, True, True)


def _examined(term: Term, letter: Letter, reached: bool, decides: bool) -> Finding:
    outcome, error = _asked(term, letter)
    if term.kind not in _JOINED:
        seen = _seen(term, letter)
        note = "" if outcome is not None or error else _note(term, seen)
        return Finding(term.text, outcome, error, note, reached, decides, seen, ())
    answers = [_asked(part, letter) for part in term.parts]
    end, deciding = _deciders(term.kind, outcome, error, answers)
    parts = tuple(
        _examined(part, letter, reached and nth < end, decides and nth in deciding)
        for nth, part in enumerate(term.parts)
    )
    return Finding(term.text, outcome, error, "", reached, decides, (), parts)


def _asked(term: Term, letter: Letter) -> tuple[bool | None, str]:
    try:
        return truth(term.evaluate(letter)), ""
    except FilterError as failed:
        return None, str(failed)


def _deciders(
    kind: str, outcome: bool | None, error: str, answers: list[tuple[bool | None, str]]
) -> tuple[int, set[int]]:
    """How many parts are looked at, and which of these the outcome comes from."""
    decisive = kind == "or"
    if kind != "not":
        for nth, (value, failed) in enumerate(answers):
            if failed or value is decisive:
                return nth + 1, {nth}
    if outcome is None and not error:
        return len(answers), {nth for nth, (value, _) in enumerate(answers) if value is None}
    return len(answers), set(range(len(answers)))


def _seen(term: Term, letter: Letter) -> tuple[Seen, ...]:
    """Everything the term looks up, each once, in the order of its text."""
    found: dict[str, Value] = {}
    waiting = [term]
    while waiting:
        one = waiting.pop()
        waiting += reversed(one.parts)
        if one.kind in _SEEN:
            try:
                found.setdefault(one.text, one.evaluate(letter))
            except FilterError:
                continue  # There is no such thing, as the error of the term says.
    return tuple(Seen(name, value) for name, value in found.items())


def _note(term: Term, seen: tuple[Seen, ...]) -> str:
    """Why it is unknown."""
    unknown = [one.name for one in seen if one.value is None]
    if unknown:
        return f"{', '.join(unknown)} {'has' if len(unknown) == 1 else 'have'} no value"
    if term.kind == "test":
        return "values of these types cannot be compared"
    return "it is no boolean"


def explain_action(action: Action, letter: Letter) -> list[Change]:
    """What each statement does to the letter, which is changed. Ends behind the first that fails."""
    found: list[Change] = []
    for statement in action.statements:
        name, before = _read(letter, statement.scope, statement.name)
        try:
            statement.run(letter)
        except FilterError as error:
            found.append(Change(statement.text, name, before, before, str(error)))
            break
        found.append(Change(statement.text, name, before, _read(letter, statement.scope, name)[1], ""))
    return found


def _read(letter: Letter, scope: str, name: str) -> tuple[str, Value]:
    """The property as the message spells it, and its value."""
    if scope == "user":
        name = letter.spelled(name)
        return name, letter.user_value(name)
    try:
        known = system_name(name.removeprefix("sys."))
    except FilterError:
        return f"sys.{name}", None
    return f"sys.{known}", letter.system.get(known)
