"""The SQL of subscription rules: filters (a predicate) and actions (SET and REMOVE).

Grammar (SQL filter and SQL action syntax pages of the service):

    predicate   NOT p | p AND p | p OR p | ( p ) | e (= <> != > >= < <=) e | property IS [NOT] NULL
                | e [NOT] IN ( e, … ) | e [NOT] LIKE e [ESCAPE e] | EXISTS ( property )
    expression  constant | property | @parameter | newid() | property(name) | p(name)
                | e (+ - * / %) e | + e | - e | ( e )
    property    [sys. | user.] name, where name is plain, [delimited] or "quoted"
    action      SET property = e | REMOVE property, several with ';'

Logic is three-valued: what touches an unknown value is unknown (None), unless AND and OR know better; a
message is taken only if the predicate is true. An unknown system property and arithmetic that cannot be
done raise FilterError. Bounded: text, nesting and terms.
"""

from __future__ import annotations

import operator
import re
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .letter import FilterError, Letter, Value
from .values import EMPTY_PATTERN, compared, contained, like, negated, reckoned, truth

CHARS_MAX = 1024
DEPTH_MAX = 64
STATEMENTS_MAX = 32

Evaluate = Callable[[Letter], Value]
NewId = Callable[[], uuid.UUID]


class SqlError(ValueError):
    """The text is not a filter or action; says what is wrong and where."""


class Term(NamedTuple):
    """A piece of an expression: its own text, how to evaluate it, and what it is made of."""

    text: str
    evaluate: Evaluate
    parts: tuple[Term, ...] = ()


class Token(NamedTuple):
    kind: str
    """number, string, name, quoted, parameter, operator, end."""
    text: str
    start: int
    end: int


_TOKENS = re.compile(
    r"""\s*(?:
      (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<string>'(?:[^']|'')*')
    | (?P<parameter>@[A-Za-z_]\w*)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<quoted>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")
    | (?P<operator><>|!=|>=|<=|[-+*/%=<>(),.;])
    )""",
    re.X | re.A,
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
_RESERVED = frozenset(
    (
        *("AND", "OR", "NOT", "IS", "NULL", "IN", "LIKE", "ESCAPE", "EXISTS"),
        *("TRUE", "FALSE", "SET", "REMOVE"),
    )
)


def parse_filter(text: str, parameters: Mapping[str, Value] | None = None, newid: NewId = uuid.uuid4) -> Term:
    """The predicate as a term that evaluates to True, False or None. Raises SqlError."""
    parser = _Parser(text, parameters or {}, newid)
    term = parser.predicate()
    parser.expect_end()
    return term._replace(evaluate=lambda letter: truth(term.evaluate(letter)))


def parse_action(
    text: str, parameters: Mapping[str, Value] | None = None, newid: NewId = uuid.uuid4
) -> Callable[[Letter], None]:
    """What the statements do to a letter, in order. Raises SqlError."""
    parser = _Parser(text, parameters or {}, newid)
    statements = [parser.statement()]
    while parser.take(";"):
        if parser.at_end():
            break
        statements.append(parser.statement())
    parser.expect_end()
    if len(statements) > STATEMENTS_MAX:
        raise SqlError(f"an action may have no more than {STATEMENTS_MAX} statements, not {len(statements)}")

    def act(letter: Letter) -> None:
        for statement in statements:
            statement(letter)

    return act


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
        return token.text.upper() if token.kind in ("name", "operator") else ""

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

    def _made(self, start: int, evaluate: Evaluate, *parts: Term) -> Term:
        first, last = self._tokens[start], self._tokens[self._at - 1]
        return Term(self._text[first.start : last.end], evaluate, parts)

    # Predicates. What stands in brackets may be either kind, so values and predicates share one descent.

    def predicate(self) -> Term:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise SqlError(f"the expression is nested deeper than {DEPTH_MAX}")
        start = self._at
        term = self._conjunction()
        while self.take("OR"):
            term = self._joined(start, term, self._conjunction(), True)
        self._depth -= 1
        return term

    def _conjunction(self) -> Term:
        start = self._at
        term = self._negation()
        while self.take("AND"):
            term = self._joined(start, term, self._negation(), False)
        return term

    def _joined(self, start: int, left: Term, right: Term, decisive: bool) -> Term:
        """AND and OR: one side may decide, whatever the other is."""
        a, b = left.evaluate, right.evaluate

        def evaluate(letter: Letter) -> Value:
            first = truth(a(letter))
            if first is decisive:
                return decisive
            second = truth(b(letter))
            if second is decisive:
                return decisive
            return None if first is None or second is None else not decisive

        return self._made(start, evaluate, left, right)

    def _negation(self) -> Term:
        start = self._at
        count = 0
        while self.take("NOT"):
            count += 1
        term = self._comparison()
        if not count:
            return term
        inner = term.evaluate
        if count % 2 == 0:
            return self._made(start, lambda letter: truth(inner(letter)), term)
        return self._made(start, lambda letter: negated(truth(inner(letter))), term)

    def _comparison(self) -> Term:
        start = self._at
        left = self._sum()
        word = self._word()
        if word in _COMPARISONS:
            self._at += 1
            right = self._sum()
            a, b, compare = left.evaluate, right.evaluate, _COMPARISONS[word]
            return self._made(start, lambda letter: compared(compare, a(letter), b(letter)), left, right)
        if word == "IS":
            return self._is_null(start, left)
        invert = word == "NOT" and self._word(1) in ("IN", "LIKE")
        if invert:
            self._at += 1
        if self.take("IN"):
            return self._in(start, left, invert)
        if self.take("LIKE"):
            return self._like(start, left, invert)
        return left

    def _is_null(self, start: int, left: Term) -> Term:
        self._need("IS")
        invert = self.take("NOT")
        self._need("NULL")
        inner = left.evaluate
        return self._made(start, lambda letter: (inner(letter) is None) is not invert, left)

    def _in(self, start: int, left: Term, invert: bool) -> Term:
        self._need("(")
        items = [self._sum()]
        while self.take(","):
            items.append(self._sum())
        self._need(")")
        a, rest = left.evaluate, [item.evaluate for item in items]

        def evaluate(letter: Letter) -> Value:
            found = contained(a(letter), [item(letter) for item in rest])
            return negated(found) if invert else found

        return self._made(start, evaluate, left, *items)

    def _like(self, start: int, left: Term, invert: bool) -> Term:
        pattern = self._sum()
        escape = self._sum() if self.take("ESCAPE") else EMPTY
        a, p, e = left.evaluate, pattern.evaluate, escape.evaluate

        def evaluate(letter: Letter) -> Value:
            found = like(a(letter), p(letter), e(letter))
            return negated(found) if invert else found

        return self._made(start, evaluate, left, pattern)

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
        a, b = left.evaluate, right.evaluate
        return self._made(start, lambda letter: reckoned(sign, a(letter), b(letter)), left, right)

    def _signed(self) -> Term:
        start = self._at
        minus = False
        while self._word() in ("+", "-"):
            minus ^= self._word() == "-"
            self._at += 1
        term = self._primary()
        if start == self._at - 1 or not minus:
            return term
        inner = term.evaluate
        return self._made(start, lambda letter: reckoned("-", 0, inner(letter)), term)

    def _primary(self) -> Term:
        start = self._at
        token = self._peek()
        if self.take("("):
            term = self.predicate()
            self._need(")")
            return self._made(start, term.evaluate, *term.parts)
        if token.kind in ("number", "string", "parameter"):
            self._at += 1
            value = self._constant(token)
            return self._made(start, lambda letter: value)
        word = self._word()
        if word in ("TRUE", "FALSE", "NULL"):
            self._at += 1
            value = {"TRUE": True, "FALSE": False, "NULL": None}[word]
            return self._made(start, lambda letter: value)
        if word in ("EXISTS", "NEWID", "PROPERTY", "P") and self._word(1) == "(":
            return self._function(start, word)
        read, _, _ = self._property()
        return self._made(start, read)

    def _constant(self, token: Token) -> Value:
        if token.kind == "string":
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            return int(token.text) if token.text.isdigit() else float(token.text)
        if token.text not in self._parameters:
            raise SqlError(f"character {token.start + 1}: the parameter {token.text} has no value")
        return self._parameters[token.text]

    def _function(self, start: int, word: str) -> Term:
        self._at += 2
        if word == "NEWID":
            self._need(")")
            return self._made(start, lambda letter: self._newid())
        read, scope, name = self._property()
        self._need(")")
        if word == "EXISTS" and scope == "user":
            return self._made(start, lambda letter: letter.spelled(name) in letter.user)
        if word == "EXISTS":
            return self._made(start, lambda letter: read(letter) is not None)
        return self._made(start, read)

    def _property(self) -> tuple[Evaluate, str, str]:
        """How to read it, its scope and its name."""
        name = self._name()
        scope = "user"
        if self.take("."):
            scope, name = name.lower(), self._name()
            if scope not in ("sys", "user"):
                raise SqlError(f"the scope '{scope}' is unknown; it must be sys or user")
        if scope == "sys":
            return lambda letter: letter.system_value(name), scope, name
        return lambda letter: letter.user_value(name), scope, name

    def _name(self) -> str:
        token = self._peek()
        if token.kind == "quoted":
            self._at += 1
            close = token.text[-1]
            return token.text[1:-1].replace(close * 2, close)
        if token.kind != "name" or token.text.upper() in _RESERVED:
            raise self._unexpected("a property or a value")
        self._at += 1
        return token.text

    # Actions.

    def statement(self) -> Callable[[Letter], None]:
        if self.take("REMOVE"):
            _, scope, name = self._property()
            put = _setter(scope, name)
            return lambda letter: put(letter, None)
        self._need("SET")
        _, scope, name = self._property()
        self._need("=")
        put, value = _setter(scope, name), self._sum().evaluate
        return lambda letter: put(letter, value(letter))


EMPTY = Term("", lambda letter: EMPTY_PATTERN)


def _setter(scope: str, name: str) -> Callable[[Letter, Value], None]:
    if scope == "sys":
        return lambda letter, value: letter.set_system(name, value)
    return lambda letter, value: letter.set_user(name, value)


__all__ = ["FilterError", "SqlError", "Term", "parse_action", "parse_filter"]
