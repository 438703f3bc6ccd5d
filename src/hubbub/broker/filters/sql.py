"""The SQL of subscription rules: filters (a predicate) and actions (SET and REMOVE).

Grammar (SQL filter and SQL action syntax pages of the service):

    predicate   NOT p | p AND p | p OR p | ( p ) | e (= <> != > >= < <=) e | property IS [NOT] NULL
                | e [NOT] IN ( e, … ) | e [NOT] LIKE e [ESCAPE e] | EXISTS ( property )
    expression  constant | property | @parameter | newid() | property(e) | p(e)
                | e (+ - * / %) e | + e | - e | ( e )
    property    [sys. | user.] name, where name is plain, [delimited] or "quoted"
    action      SET property = e | REMOVE property, several one after the other, with or without ';'

Besides the grammar a property, a parameter, TRUE and FALSE may stand where a predicate is wanted. Logic is
three-valued: what touches an unknown value is unknown (None), unless AND and OR know better; a message is
taken only if the predicate is true. An unknown system property and arithmetic that cannot be done raise
FilterError. Bounded: text, nesting and statements.
"""

from __future__ import annotations

import operator
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from .letter import SYSTEM_NAMES, FilterError, Letter, Value, system_name
from .values import FINDABLE, compared, contained, escaping, like, negated, reckoned, signed, truth

CHARS_MAX = 1024
DEPTH_MAX = 64
STATEMENTS_MAX = 32

Evaluate = Callable[[Letter], Value]
NewId = Callable[[int], uuid.UUID]
"""What newid() is worth where it stands as this token."""


class SqlError(ValueError):
    """The text is not a filter or action; says what is wrong and where."""


class Demand(NamedTuple):
    """A property that must equal one of the values, or a predicate is not true."""

    scope: str
    """sys or user."""
    name: str
    values: tuple[Value, ...]


class Term(NamedTuple):
    """A piece of an expression: its own text, how to evaluate it, and what it is made of."""

    text: str
    evaluate: Evaluate
    kind: str
    """and, or, not, test (true or not in itself); property, truth (of either sort); value, newid, sum."""
    parts: tuple[Term, ...] = ()
    demands: tuple[Demand, ...] = ()
    sure: bool = True
    """It never raises FilterError."""
    names: tuple[str, str] | None = None
    """Scope and name of the property, if it is no more than one."""
    constant: tuple[Value, ...] = ()
    """The value, if it is no more than one."""


CONDITIONS = frozenset(("and", "or", "not", "test"))
VALUES = frozenset(("value", "newid", "sum"))


class Statement(NamedTuple):
    """SET or REMOVE: its own text, what it does, and to which property (`scope` is sys or user)."""

    text: str
    run: Callable[[Letter], None]
    scope: str
    name: str


class Action:
    """What the statements do to a letter, in order."""

    __slots__ = ("statements",)

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = tuple(statements)

    def __call__(self, letter: Letter) -> None:
        for statement in self.statements:
            statement.run(letter)


class Token(NamedTuple):
    kind: str
    """number, string, name, quoted, parameter, operator, end."""
    text: str
    start: int
    end: int


_TOKENS = re.compile(
    r"""\s*(?:
      (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<string>'(?:[^']|'')*')
    | (?P<parameter>@[^\W\d]\w*)
    | (?P<name>[^\W\d]\w*)
    | (?P<quoted>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")
    | (?P<operator><>|!=|>=|<=|[-+*/%=<>(),.;])
    )""",
    re.X,
)
_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FUNCTIONS = frozenset(("EXISTS", "NEWID", "PROPERTY", "P"))
_RESERVED = frozenset(
    (
        *("AND", "OR", "NOT", "IS", "NULL", "IN", "LIKE", "ESCAPE", "EXISTS"),
        *("TRUE", "FALSE", "SET", "REMOVE"),
    )
)


def fresh(at: int) -> uuid.UUID:
    """A new one each time."""
    return uuid.uuid4()


def parse_filter(text: str, parameters: Mapping[str, Value] | None = None, newid: NewId = fresh) -> Term:
    """The predicate as a term that evaluates to True, False or None. Raises SqlError."""
    parser = _Parser(text, parameters or {}, newid)
    term = _condition(parser.predicate())
    parser.expect_end()
    if term.kind in CONDITIONS:
        return term
    return Term(term.text, lambda letter: truth(term.evaluate(letter)), "truth", (term,), sure=term.sure)


def parse_action(text: str, parameters: Mapping[str, Value] | None = None, newid: NewId = fresh) -> Action:
    """Raises SqlError."""
    parser = _Parser(text, parameters or {}, newid)
    statements = [parser.statement()]
    while True:
        parser.take(";")
        if parser.at_end():
            break
        parser.take(",")
        statements.append(parser.statement())
    if len(statements) > STATEMENTS_MAX:
        raise SqlError(f"an action may have no more than {STATEMENTS_MAX} statements, not {len(statements)}")
    return Action(statements)


def tokens_of(text: str) -> list[Token]:
    if len(text) > CHARS_MAX:
        raise SqlError(f"the expression has {len(text)} characters; {CHARS_MAX} are allowed")
    found: list[Token] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = _TOKENS.match(text, position)
        if match is None:
            raise SqlError(f"character {position + 1} ({text[position:].lstrip()[:1]!r}) cannot stand here")
        kind = match.lastgroup or ""
        found.append(Token(kind, match[kind], match.start(kind), match.end()))
        position = match.end()
    return [*found, Token("end", "", len(text), len(text))]


class _Parser:
    """Recursive descent; every method leaves the position behind what it read."""

    def __init__(self, text: str, parameters: Mapping[str, Value], newid: NewId) -> None:
        self._text = text
        self._tokens = tokens_of(text)
        self._at = 0
        self._depth = 0
        self._parameters = parameters
        self._newid = newid

    # Tokens.

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _word(self, ahead: int = 0) -> str:
        token = self._tokens[min(self._at + ahead, len(self._tokens) - 1)]
        return _upper(token.text) if token.kind in ("name", "operator") else ""

    def take(self, word: str) -> bool:
        if self._word() == word:
            self._at += 1
            return True
        return False

    def _need(self, word: str) -> None:
        if not self.take(word):
            raise self._unexpected(f"'{word}'")

    def at_end(self) -> bool:
        return self._peek().kind == "end"

    def expect_end(self) -> None:
        if not self.at_end():
            raise self._unexpected("the end")

    def _unexpected(self, wanted: str) -> SqlError:
        token = self._peek()
        found = f"'{token.text}'" if token.text else "nothing more"
        return SqlError(f"character {token.start + 1}: {wanted} was expected, but there is {found}")

    def _made(self, start: int, kind: str, evaluate: Evaluate, *parts: Term, sure: bool = True) -> Term:
        sure = sure and all(part.sure for part in parts)
        return Term(self._text_from(start), evaluate, kind, parts, sure=sure)

    def _fixed(self, start: int, kind: str, value: Value) -> Term:
        return self._made(start, kind, lambda letter: value)._replace(constant=(value,))

    def _text_from(self, start: int) -> str:
        first, last = self._tokens[start], self._tokens[self._at - 1]
        return self._text[first.start : last.end]

    def _nested(self, read: Callable[[], Term]) -> Term:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise SqlError(f"the expression is nested deeper than {DEPTH_MAX}")
        term = read()
        self._depth -= 1
        return term

    # Predicates. What stands in brackets may be either kind, so values and predicates share one descent.

    def predicate(self) -> Term:
        return self._nested(self._alternatives)

    def _alternatives(self) -> Term:
        start, terms = self._at, [self._conjunction()]
        while self.take("OR"):
            terms.append(self._conjunction())
        return self._joined(start, "or", terms)

    def _conjunction(self) -> Term:
        start, terms = self._at, [self._negation()]
        while self.take("AND"):
            terms.append(self._negation())
        return self._joined(start, "and", terms)

    def _joined(self, start: int, kind: str, terms: list[Term]) -> Term:
        """AND and OR: one may decide, whatever the others are."""
        if len(terms) == 1:
            return terms[0]
        evaluates = tuple(_condition(term).evaluate for term in terms)
        decisive = kind == "or"
        otherwise = not decisive

        def evaluate(letter: Letter) -> Value:
            found: Value = otherwise
            for one in evaluates:
                value = one(letter)
                if value is decisive:
                    return decisive
                if value is not otherwise:
                    found = None
            return found

        demands = () if decisive else tuple(demand for term in terms for demand in term.demands)
        return self._made(start, kind, evaluate, *terms)._replace(demands=demands)

    def _negation(self) -> Term:
        start = self._at
        count = 0
        while self.take("NOT"):
            count += 1
        term = self._comparison()
        if not count:
            return term
        inner = _condition(term).evaluate
        if count % 2 == 0:
            return self._made(start, "and", lambda letter: truth(inner(letter)), term)
        return self._made(start, "not", lambda letter: negated(truth(inner(letter))), term)

    def _comparison(self) -> Term:
        start = self._at
        left = self._sum()
        word = self._word()
        if word in _COMPARISONS:
            self._at += 1
            right = self._sum()
            a, b, compare = _value(left).evaluate, _value(right).evaluate, _COMPARISONS[word]
            term = self._test(start, lambda letter: compared(compare, a(letter), b(letter)), left, right)
            equal = demanded(left, right) or demanded(right, left) if word == "=" else ()
            return term._replace(demands=equal)
        if word == "IS":
            return self._is_null(start, _value(left))
        invert = word == "NOT" and self._word(1) in ("IN", "LIKE")
        if invert:
            self._at += 1
        if self.take("IN"):
            return self._in(start, _value(left), invert)
        if self.take("LIKE"):
            return self._like(start, _value(left), invert)
        return left

    def _test(self, start: int, evaluate: Evaluate, *parts: Term, sure: bool = True) -> Term:
        return self._made(start, "test", evaluate, *parts, sure=sure)

    def _is_null(self, start: int, left: Term) -> Term:
        self._need("IS")
        invert = self.take("NOT")
        self._need("NULL")
        inner = left.evaluate
        return self._test(start, lambda letter: (inner(letter) is None) is not invert, left)

    def _in(self, start: int, left: Term, invert: bool) -> Term:
        self._need("(")
        items = [_value(self._sum())]
        while self.take(","):
            items.append(_value(self._sum()))
        self._need(")")
        a, rest = left.evaluate, [item.evaluate for item in items]

        def evaluate(letter: Letter) -> Value:
            found = contained(a(letter), [item(letter) for item in rest])
            return negated(found) if invert else found

        return self._test(start, evaluate, left, *items)._replace(
            demands=() if invert else demanded(left, *items)
        )

    def _like(self, start: int, left: Term, invert: bool) -> Term:
        parts = [left, _value(self._sum())]
        a, p = left.evaluate, parts[1].evaluate
        e: Evaluate = _no_escape
        if self.take("ESCAPE"):
            parts.append(_value(self._sum()))
            given = parts[2].evaluate
            e = lambda letter: escaping(given(letter))  # noqa: E731

        def evaluate(letter: Letter) -> Value:
            found = like(a(letter), p(letter), e(letter))
            return negated(found) if invert else found

        return self._test(start, evaluate, *parts, sure=_is_pattern(*parts[1:]))

    # Values.

    def _sum(self) -> Term:
        start = self._at
        term = self._product()
        while self._word() in ("+", "-"):
            term = self._arithmetic(start, term, self._product)
        return term

    def _product(self) -> Term:
        start = self._at
        term = self._signed()
        while self._word() in ("*", "/", "%"):
            term = self._arithmetic(start, term, self._signed)
        return term

    def _arithmetic(self, start: int, left: Term, read: Callable[[], Term]) -> Term:
        sign = self._word()
        self._at += 1
        right = read()
        a, b = _value(left).evaluate, _value(right).evaluate
        return self._made(
            start, "sum", lambda letter: reckoned(sign, a(letter), b(letter)), left, right, sure=False
        )

    def _signed(self) -> Term:
        start = self._at
        minus = False
        while self._word() in ("+", "-"):
            minus ^= self._word() == "-"
            self._at += 1
        first = self._at
        term = self._primary()
        if start == first:
            return term
        inner, sign = _value(term).evaluate, "-" if minus else "+"
        if minus and term.kind == "value" and type(term.constant[0]) is not str:
            return self._fixed(start, "sum", -term.constant[0])
        return self._made(start, "sum", lambda letter: signed(sign, inner(letter)), term, sure=False)

    def _primary(self) -> Term:
        start = self._at
        token = self._peek()
        if self.take("("):
            term = self.predicate()
            self._need(")")
            return term._replace(text=self._text_from(start))
        if token.kind in ("number", "string"):
            value = self._constant(token)
            self._at += 1
            return self._fixed(start, "value", value)
        if token.kind == "parameter":
            return self._parameter(start, token)
        word = self._word()
        if word in ("TRUE", "FALSE", "NULL"):
            self._at += 1
            return self._fixed(start, "truth", {"TRUE": True, "FALSE": False, "NULL": None}[word])
        if word in _FUNCTIONS and self._word(1) == "(":
            return self._function(start, word)
        return self._read(start, *self._property())

    def _read(self, start: int, read: Evaluate, scope: str, name: str) -> Term:
        sure = scope == "user" or name.lower() in SYSTEM_NAMES
        return self._made(start, "property", read, sure=sure)._replace(names=(scope, name))

    def _constant(self, token: Token) -> Value:
        if token.kind == "string":
            return token.text[1:-1].replace("''", "'")
        value = int(token.text) if token.text.isdigit() else float(token.text)
        # The least whole number is written as a sign and one more than the greatest.
        most = 1 << 63 if self._at and self._tokens[self._at - 1].text == "-" else (1 << 63) - 1
        if value == inf or (isinstance(value, int) and value > most):
            raise SqlError(f"character {token.start + 1}: {token.text:.30} is too large for a number")
        return value

    def _parameter(self, start: int, token: Token) -> Term:
        self._at += 1
        if token.text not in self._parameters:
            raise SqlError(f"character {token.start + 1}: the parameter {token.text} has no value")
        return self._fixed(start, "property", self._parameters[token.text])

    def _function(self, start: int, word: str) -> Term:
        self._at += 2
        if word == "EXISTS":
            return self._exists(start)
        if word == "NEWID":
            self._need(")")
            return self._made(start, "newid", lambda letter: self._newid(start))
        name = _value(self._nested(self._sum))
        self._need(")")
        inner = name.evaluate
        return self._made(start, "property", lambda letter: _named(letter, inner(letter)), name, sure=False)

    def _exists(self, start: int) -> Term:
        read, scope, name = self._property()
        inner = self._read(start + 2, read, scope, name)
        self._need(")")
        if scope == "user":
            return self._test(start, lambda letter: letter.spelled(name) in letter.user, inner)
        return self._test(start, lambda letter: read(letter) is not None, inner)

    def _property(self) -> tuple[Evaluate, str, str]:
        """How to read it, its scope and its name."""
        name = self._name()
        scope = "user"
        if self.take("."):
            scope, name = name.lower(), self._name()
            if scope not in ("sys", "user"):
                raise SqlError(f"the scope '{scope}' is unknown; it must be sys or user")
        if scope == "user":
            return lambda letter: letter.user_value(name), scope, name
        known = SYSTEM_NAMES.get(name.lower())
        if known is None:
            # An error when it is evaluated, as the service says; what stands before it may decide.
            return lambda letter: system_name(name), scope, name
        return lambda letter: letter.system.get(known), scope, name

    def _name(self) -> str:
        token = self._peek()
        if token.kind == "quoted":
            self._at += 1
            close = token.text[-1]
            return token.text[1:-1].replace(close * 2, close)
        if token.kind != "name" or _upper(token.text) in _RESERVED:
            raise self._unexpected("a property or a value")
        self._at += 1
        return token.text

    # Actions.

    def statement(self) -> Statement:
        start = self._at
        if self.take("REMOVE"):
            _, scope, name = self._property()
            put = _setter(scope, name)
            return Statement(self._text_from(start), lambda letter: put(letter, None), scope, name)
        self._need("SET")
        _, scope, name = self._property()
        self._need("=")
        put, value = _setter(scope, name), _value(self._nested(self._sum)).evaluate
        return Statement(self._text_from(start), lambda letter: put(letter, value(letter)), scope, name)


def _upper(text: str) -> str:
    """Some letters that are not ASCII become ASCII in upper case, and would make a name a keyword."""
    return text.upper() if text.isascii() else text


def _condition(term: Term) -> Term:
    if term.kind in VALUES:
        raise SqlError(f"a condition was expected, but '{term.text:.60}' is a value")
    return term


def _value(term: Term) -> Term:
    if term.kind in CONDITIONS:
        raise SqlError(f"a value was expected, but '{term.text:.60}' is a condition")
    return term


def _named(letter: Letter, name: Value) -> Value:
    """What property(name) is worth."""
    if name is None:
        return None
    if not isinstance(name, str):
        raise FilterError(f"property() needs the name of a property as a text, not {name}")
    return letter.user_value(name)


def demanded(subject: Term, *items: Term) -> tuple[Demand, ...]:
    """What it takes for a property to equal one of several constants; nothing if it is not that."""
    if subject.names is None or not all(item.constant for item in items):
        return ()
    values = tuple(value for item in items for value in item.constant if value is not None)
    if not all(type(value) in FINDABLE for value in values):
        return ()
    return (Demand(*subject.names, values),)


def _is_pattern(pattern: Term, *escapes: Term) -> bool:
    """Whether LIKE can always use it."""
    if not pattern.constant or not all(escape.constant for escape in escapes):
        return False
    try:
        like("", pattern.constant[0], *(escaping(escape.constant[0]) for escape in escapes))
    except FilterError:
        return False
    return True


def _no_escape(letter: Letter) -> Value:
    return ""


def _setter(scope: str, name: str) -> Callable[[Letter, Value], None]:
    if scope == "sys":
        return lambda letter, value: letter.set_system(name, value)
    return lambda letter, value: letter.set_user(name, value)


__all__ = [
    "Action",
    "Demand",
    "FilterError",
    "SqlError",
    "Statement",
    "Term",
    "demanded",
    "parse_action",
    "parse_filter",
]
