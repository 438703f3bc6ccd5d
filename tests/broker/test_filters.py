"""The language of rules against the documented grammar, three-valued logic, and whatever anybody types."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.broker.errors import Invalid
from hubbub.broker.filters import (
    CorrelationFilter,
    FilterError,
    Letter,
    SqlError,
    SqlFilter,
    compile_action,
    compile_filter,
    parse_action,
    parse_filter,
)

SYSTEM = {"MessageId": "m1", "Label": "news", "CorrelationId": None, "SessionId": "s", "To": "you"}
USER = {
    "n": 5,
    "x": 2.5,
    "name": "O'Neil",
    "yes": True,
    "no": False,
    "Color": "blue",
    "with space": "w",
    "a]b": 1,
    "day": datetime(2026, 1, 2, tzinfo=UTC),
    "id": uuid.UUID(int=7),
    "raw": b"\1",
    "percent": "100%",
    "long": "aaaaaaaaaa",
}


def letter():
    return Letter(SYSTEM, USER)


def value(text, **parameters):
    return parse_filter(text, {f"@{k}": v for k, v in parameters.items()}).evaluate(letter())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1=1", True), ("1=0", False), ("1 <> 1", False), ("1 != 2", True), ("2 >= 2", True), ("2 < 2", False),
        ("n = 5", True), ("n = 5.0", True), ("x > 2", True), ("n > 'a'", None), ("missing = 1", None),
        ("yes = TRUE", True), ("no = false", True), ("yes", True), ("no", False), ("n", None),
        ("name = 'O''Neil'", True), ("name = 'o''neil'", False), ("user.Color = 'blue'", True),
        ("COLOR = 'blue'", True), ("[with space] = 'w'", True), ('"with space" = \'w\'', True), ("[a]]b] = 1", True),
        ("sys.Label = 'news'", True), ("SYS.label = 'news'", True), ("sys.Subject = 'news'", True),
        ("sys.CorrelationId IS NULL", True), ("sys.Label IS NOT NULL", True), ("missing IS NULL", True),
        ("EXISTS(n)", True), ("EXISTS(missing)", False), ("NOT EXISTS(missing)", True), ("exists(sys.To)", True),
        ("n IN (1, 5)", True), ("n IN (1, 2)", False), ("n NOT IN (1, 2)", True), ("missing IN (1)", None),
        ("n IN (1, missing)", None), ("n NOT IN (5, missing)", False), ("Color IN ('red','blue')", True),
        ("Color LIKE 'bl%'", True), ("Color LIKE 'b_ue'", True), ("Color LIKE 'bl'", False), ("Color NOT LIKE 'r%'", True),
        ("percent LIKE '100!%' ESCAPE '!'", True), ("Color LIKE 'blu!%' ESCAPE '!'", False), ("missing LIKE '%'", None),
        ("n + 1 = 6", True), ("n - 1 * 2 = 3", True), ("(n - 1) * 2 = 8", True), ("n / 2 = 2", True), ("n % 3 = 2", True),
        ("-n = -5", True), ("- - n = 5", True), ("+n = 5", True), ("x / 2 = 1.25", True), ("1e2 = 100", True), (".5 < 1", True),
        ("-7 / 2 = -3", True), ("-7 % 2 = -1", True), ("missing + 1 = 1", None), ("'a' + 'b' = 'ab'", True),
        ("missing = 1 OR n = 5", True), ("missing = 1 AND n = 4", False), ("missing = 1 AND n = 5", None),
        ("missing = 1 OR n = 4", None), ("NOT missing = 1", None), ("NOT n = 4 AND n = 5", True), ("NOT NOT n = 5", True),
        ("n = 4 OR n = 5 AND x = 2.5", True), ("(n = 5 OR n = 4) AND x = 1", False), ("NOT (n = 5 OR missing = 1)", False),
        ("id = '00000000-0000-0000-0000-000000000007'", True), ("NULL IS NULL", True), ("NULL = NULL", None),
        ("property(n) = 5", True), ("p([with space]) = 'w'", True), ("newid() IS NOT NULL", True), ("n = @five", True),
        ("day = @day", True), ("raw = 'x'", None), ("n=5and x>1", True),
    ],
)  # fmt: skip
def test_predicates(text, expected):
    assert value(text, five=5, day=datetime(2026, 1, 2, tzinfo=UTC)) is expected


@pytest.mark.parametrize(
    "text",
    ["", "n =", "= 5", "n = 5 5", "n = 'open", "(n = 5", "n IN ()", "n IN 5", "n LIKE", "sys. = 1", "other.n = 1",
     "n IS 5", "AND", "n = @none", "n == 5", "SELECT 1", "n = 5;", "# = 1", "[open = 1", "EXISTS n", "(" * 65 + "n" + ")" * 65,
     "n = '" + "x" * 1024 + "'"],
)  # fmt: skip
def test_what_is_no_predicate(text):
    with pytest.raises(SqlError) as caught:
        parse_filter(text)
    assert str(caught.value)
    with pytest.raises(Invalid, match="not valid"):
        compile_filter(SqlFilter(expression=text))


@pytest.mark.parametrize(
    "text", ["sys.Nothing = 1", "n / 0 = 1", "n % 0 = 1", "n + 'a' = 1", "-name = 1", "9223372036854775807 + 1 = 0",
             "name LIKE 'a' ESCAPE 'ab'", "name LIKE 'a!' ESCAPE '!'"]
)  # fmt: skip
def test_what_cannot_be_evaluated(text):
    with pytest.raises(FilterError):
        value(text)


def test_likes_of_many_wildcards_are_quick():
    assert value("long LIKE '" + "%a" * 8 + "%b'") is False
    assert value("long LIKE '" + "%" * 900 + "'") is True


class TestActions:
    def test_set_and_remove(self):
        subject = letter()
        parse_action("SET sys.To = 'Entity'; SET n = n + 1; REMOVE color; SET new = sys.Label;")(subject)
        assert subject.system["To"] == "Entity"
        assert (subject.user["n"], subject.user["new"], "Color" in subject.user) == (6, "news", False)
        assert subject.changed_user == {"n": 6, "Color": None, "new": "news"}
        assert subject.changed_system == {"To": "Entity"}

    def test_a_copy_is_apart(self):
        first = letter()
        second = first.copy()
        parse_action("SET n = 1")(first)
        assert second.user["n"] == 5

    @pytest.mark.parametrize(
        "text", ["", "SET", "SET n", "SET n =", "REMOVE", "n = 5", "SET n = 5 REMOVE x", "SET n = 1;" * 33]
    )
    def test_what_is_no_action(self, text):
        with pytest.raises(SqlError):
            parse_action(text)
        with pytest.raises(Invalid):
            compile_action(text, {})

    @pytest.mark.parametrize(
        "text",
        ["SET sys.SequenceNumber = 1", "SET sys.None_ = 1", "REMOVE sys.LockToken", "SET n = name * 2"],
    )
    def test_what_cannot_be_done(self, text):
        with pytest.raises(FilterError):
            parse_action(text)(letter())


class TestCorrelation:
    def test_all_must_be_equal(self):
        def matches(**fields):
            return compile_filter(CorrelationFilter(**fields)).evaluate(letter())

        assert matches(system={"MessageId": "m1", "Label": "news"}, properties={"n": ("int", "5")})
        assert not matches(system={"MessageId": "m1", "Label": "NEWS"})
        assert not matches(system={"CorrelationId": "x"})
        assert not matches(properties={"missing": ("int", "1")})
        assert not matches(properties={"n": ("string", "5")})

    def test_what_is_none(self):
        for wanted in (CorrelationFilter(), CorrelationFilter(system={"DeliveryCount": "1"})):
            with pytest.raises(Invalid):
                compile_filter(wanted)


WORDS = st.sampled_from(
    [
        "n",
        "x",
        "name",
        "missing",
        "sys.Label",
        "user.n",
        "[with",
        "space]",
        "1",
        "2.5",
        "'a'",
        "'%'",
        "@p",
        "AND",
        "OR",
        "NOT",
        "IS",
        "NULL",
        "IN",
        "LIKE",
        "ESCAPE",
        "EXISTS",
        "(",
        ")",
        ",",
        "=",
        "<>",
        "<",
        "+",
        "-",
        "*",
        "/",
        "%",
        ";",
        "SET",
        "REMOVE",
    ]
)


@settings(max_examples=8 * settings().max_examples)
@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(max_size=30))
def test_any_text(text):
    for parse in (parse_filter, parse_action):
        try:
            found = parse(text, {"@p": 1})
            found.evaluate(letter()) if parse is parse_filter else found(letter())
        except (SqlError, FilterError) as error:
            assert str(error)


ATOMS = st.sampled_from([("n = 5", True), ("n = 4", False), ("missing = 1", None)])


def both(left, right, word):
    (a, x), (b, y) = left, right
    if word == "AND":
        found = False if x is False or y is False else None if x is None or y is None else True
    else:
        found = True if x is True or y is True else None if x is None or y is None else False
    return f"({a} {word} {b})", found


TREES = st.recursive(
    ATOMS,
    lambda t: (
        st.builds(both, t, t, st.sampled_from(["AND", "OR"]))
        | t.map(lambda pair: (f"NOT ({pair[0]})", None if pair[1] is None else not pair[1]))
    ),
    max_leaves=12,
)


@settings(max_examples=4 * settings().max_examples)
@given(TREES)
def test_three_valued_logic(tree):
    text, expected = tree
    if len(text) <= 1024:
        assert value(text) is expected
