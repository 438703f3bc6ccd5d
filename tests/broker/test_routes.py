"""Routes against asking every rule of every subscription, and what they spare."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.broker.filters import ActiveRule, CorrelationFilter, FilterError, Letter, SqlFilter, activate
from hubbub.broker.routes import Routes

TAKE_ALL = ActiveRule("all", None, None)
GUID = uuid.UUID(int=0xABCDEF)
BIG = 1 << 60
TEXTS = f"""
    region = 'a' | 'b' = region | REGION = 'a' AND n > 1 | n = 1 | n = 1.0 | n = -1 | yes = TRUE
    region IN ('a', 'b') | region IN ('a', n) | region NOT IN ('a') | NOT region = 'a' | region = NULL
    region = 'a' OR n = 1 | (region = 'a') AND NOT n = 1 | sys.Label = 'x' AND region = 'b' | n > 0
    id = '{GUID}' | id = '{str(GUID).upper()}' | region LIKE 'a%' AND n = 1 | property('region') = 'a'
    region = 'a' AND n / 0 = 1 | n + 1 = 2 | sys.Nothing = 'a' | region = 'a' AND n LIKE 'a' ESCAPE n
    region <> 'a' | EXISTS (region) | 1=0 | @p = region | n = n | -n = 1 | region = 'a' AND id = id
    n = {BIG} | n = {BIG + 1} | n = {BIG}.0 | n = +1 | n = -'a' | n = -(1) | n IN (1, 'a', NULL, TRUE)
    n = -(-9223372036854775808) | n = - -9223372036854775808 | n = -9223372036854775808
    NOT NOT region = 'a' | region = 'a' AND property(n) = 1 | yes AND region = 'a' | region LIKE '%!' ESCAPE '!'
""".replace("\n", "|").split("|")
SQL = st.sampled_from([text for text in map(str.strip, TEXTS) if text]).map(
    lambda text: activate("r", SqlFilter(expression=text, parameters={"@p": ("string", "b")}), "", {})
)
CORRELATION = st.builds(
    lambda system, user: activate("r", CorrelationFilter(system=system, properties=user), "", {}),
    st.dictionaries(st.sampled_from(["Label", "To"]), st.sampled_from(["x", "a"]), max_size=2),
    st.dictionaries(
        st.sampled_from(["region", "n", "id"]),
        st.sampled_from([("string", "a"), ("int", "1"), ("guid", str(GUID)), ("boolean", "true")]),
        min_size=1,
        max_size=2,
    ),
)
LETTERS = st.builds(
    Letter,
    st.dictionaries(st.sampled_from(["Label", "To"]), st.sampled_from(["x", "a", None])),
    st.dictionaries(
        st.sampled_from(["region", "Region", "n", "N", "id", "yes"]),
        st.sampled_from(
            [
                "a",
                "b",
                "abc",
                1,
                -1,
                1.0,
                True,
                None,
                GUID,
                str(GUID),
                b"a",
                float("nan"),
                BIG + 1,
                float(BIG),
            ]
        ),
    ),
)


def wanted(rule, letter):
    """Whether a rule takes the letter or fails on it: both have consequences."""
    try:
        return rule.matches is None or rule.matches(letter) is True
    except FilterError:
        return True


@given(st.lists(st.lists(SQL | CORRELATION | st.just(TAKE_ALL), max_size=3), max_size=8), LETTERS)
def test_nobody_is_passed_over(rules, letter):
    routes = Routes(rules)
    found = routes.concerned(letter)
    assert found == sorted(set(found))
    for number, own in enumerate(rules):
        if own and all(rule == TAKE_ALL for rule in own):
            assert number in routes.blind
            assert number not in found
        elif any(wanted(rule, letter) for rule in own):
            assert number in found
    assert routes.looks or not found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("region = 'a'", False), ("'a' = region AND n > 1", False), ("n > 1 AND region IN ('a', 'c')", False),
        ("region = 'a' AND x LIKE 'b%'", False), ("n = -1", False), ("sys.Label = 'y'", False),
        ("region = 'b'", True), ("region = 'b' AND n > 1", True), ("region IN ('a', 'b')", True),
        # What may fail must be asked, and what is not simply an equation.
        ("region = 'a' AND n + 1 > 1", True), ("region = 'a' AND sys.Nothing = 1", True),
        ("region = 'a' OR n = 1", True), ("NOT region = 'a'", True), ("region = 'a' AND x LIKE y", True),
    ],
)  # fmt: skip
def test_who_must_look(text, found):
    routes = Routes([[activate("r", SqlFilter(expression=text), "", {})]])
    assert routes.concerned(Letter({"Label": "x"}, {"region": "b", "n": 1})) == ([0] if found else [])


def test_a_subscription_is_found_by_each_of_its_rules():
    rules = [activate("r", SqlFilter(expression=f"region = '{name}'"), "", {}) for name in "ab"]
    routes = Routes([rules, [], [TAKE_ALL], [TAKE_ALL, rules[0]], [rules[1]]])
    assert routes.blind == [2]
    assert routes.concerned(Letter({}, {"region": "a"})) == [0, 3]
    assert routes.concerned(Letter({}, {"Region": "b"})) == [0, 3, 4]
    assert routes.concerned(Letter({}, {})) == [3]
