"""Explanations against what they explain: evaluation of filters, and delivery by a topic."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.broker.entity import Rule, Subscription, Topic
from hubbub.broker.errors import Invalid, NotFound
from hubbub.broker.explain import RULES_MAX, explain_rule, explain_topic, newids_from
from hubbub.broker.filters import (
    CorrelationFilter,
    FilterError,
    Letter,
    Seen,
    SqlFilter,
    compile_filter,
    explain_filter,
    parse_action,
    parse_filter,
)
from hubbub.broker.limits import PROFILES
from hubbub.broker.message import Message
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine
from hubbub.front.letters import Letters
from hubbub.wire.amqp.message import APPLICATION_PROPERTIES, map_section, properties_section

NEWID = uuid.UUID(int=7)
USER = {"colour": "red", "size": 5, "flag": True, "text": "5"}


def letter():
    return Letter({"Label": "news"}, USER)


def found(text, **parameters):
    return explain_filter(parse_filter(text, {f"@{k}": v for k, v in parameters.items()}), letter())


def leaves(finding):
    return [leaf for part in finding.parts for leaf in leaves(part)] if finding.parts else [finding]


def told(finding):
    """(text, outcome, how it stands): > decides, . is not reached."""
    return [
        (leaf.text, leaf.outcome, ">" if leaf.decides else "" if leaf.reached else ".")
        for leaf in leaves(finding)
    ]


class TestFilters:
    def test_every_term_is_told(self):
        one = found("colour = 'red' AND size > 9 OR sys.Label LIKE 'n%' OR size = 1")
        assert (one.outcome, one.error, one.reached, one.decides) == (True, "", True, True)
        assert told(one) == [
            ("colour = 'red'", True, ""),
            ("size > 9", False, ""),
            ("sys.Label LIKE 'n%'", True, ">"),
            ("size = 1", False, "."),
        ]
        assert [part.text for part in one.parts] == [
            "colour = 'red' AND size > 9",
            "sys.Label LIKE 'n%'",
            "size = 1",
        ]
        assert leaves(one)[1].seen == (Seen("size", 5),)

    @pytest.mark.parametrize(
        ("text", "outcome", "marks"),
        [
            ("colour = 'red' AND size = 5", True, ">>"), ("colour = 'x' AND size = 5", False, ">."), ("size = 4 OR colour = 'x'", False, ">>"),
            ("missing = 1 AND size = 5", None, ">-"), ("missing = 1 AND size = 4", False, "->"), ("missing = 1 OR size = 5", True, "->"),
            ("missing = 1 OR size = 4 OR nix = 1", None, ">->"), ("NOT (colour = 'x' AND size = 5)", True, ">."), ("NOT NOT flag", True, ">"),
            ("(size = 4 OR size = 5) AND (flag OR size = 1)", True, "->>."), ("size = 4 AND (size = 5 OR size = 1)", False, ">.."), ("size", None, ">"),
        ],
    )  # fmt: skip
    def test_who_decides(self, text, outcome, marks):
        one = found(text)
        assert one.outcome is outcome
        assert "".join(mark or "-" for _, _, mark in told(one)) == marks

    def test_errors_end_it(self):
        one = found("size = 4 OR size / 0 = 1 OR colour = 'red'")
        assert (one.outcome, "no value" in one.error) == (None, True)
        assert told(one) == [
            ("size = 4", False, ""),
            ("size / 0 = 1", None, ">"),
            ("colour = 'red'", True, "."),
        ]
        assert leaves(one)[1].error == one.error
        assert found("size = 5 OR size / 0 = 1").error == ""
        nothing = found("sys.Nothing = size")
        assert ("not a system property" in nothing.error, nothing.seen) == (True, (Seen("size", 5),))

    @pytest.mark.parametrize(
        ("text", "note"),
        [
            ("missing = 1", "missing has no value"), ("missing = nix", "missing, nix have no value"), ("text > 3", "values of these types cannot be compared"),
            ("size", "it is no boolean"), ("size LIKE 'a'", "values of these types cannot be compared"), ("size = 5", ""), ("size = 4", ""),
        ],
    )  # fmt: skip
    def test_why_it_is_unknown(self, text, note):
        assert found(text).note == note

    def test_what_it_saw(self):
        one = found("size * 2 + [size] > @least AND property('co' + 'lour') IN (colour, 'x')", least=3)
        assert leaves(one)[0].seen == (Seen("size", 5), Seen("[size]", 5), Seen("@least", 3))
        assert leaves(one)[1].seen == (Seen("property('co' + 'lour')", "red"), Seen("colour", "red"))
        term = compile_filter(SqlFilter(expression="newid() <> newid()"), newids_from(NEWID))
        one = explain_filter(term, letter())
        assert (one.outcome, one.seen) == (True, (Seen("newid()", NEWID),))
        assert explain_filter(term, letter()) == one

    def test_correlation(self):
        wanted = CorrelationFilter(
            system={"Label": "news"}, properties={"size": ("int", "4"), "text": ("int", "5")}
        )
        one = explain_filter(compile_filter(wanted), letter())
        assert told(one) == [
            ("sys.Label = 'news'", True, ""),
            ("size = 4", False, ">"),
            ("text = 5", False, "."),
        ]
        assert leaves(one)[1].seen == (Seen("size", 5),)

    def test_long_ones(self):
        assert len(leaves(found("size=4 OR " * 100 + "size=5"))) == 101
        assert found("size" + "+size" * 190 + " > 5").outcome is True
        assert found("NOT (" * 60 + "flag" + ")" * 60).outcome is True


class TestActions:
    def test_changes_in_order(self):
        act = parse_action(
            "SET Size = Size + 1; REMOVE colour; SET new = size; SET sys.Subject = 'x'; REMOVE missing"
        )
        subject = letter()
        one = explain_rule("r", parse_filter("size = 5"), act, subject, "SET …")
        assert [(c.name, c.before, c.after, c.error) for c in one.changes] == [
            ("size", 5, 6, ""),
            ("colour", "red", None, ""),
            ("new", None, 6, ""),
            ("sys.Label", "news", "x", ""),
            ("missing", None, None, ""),
        ]
        assert (subject.user, subject.changed_user, one.error) == (USER, {}, "")

    def test_nothing_follows_a_failure(self):
        act = parse_action("SET a = 1; SET sys.Nothing = 2; SET b = 3")
        one = explain_rule("r", parse_filter("1=1"), act, letter())
        assert [(c.statement, bool(c.error)) for c in one.changes] == [
            ("SET a = 1", False),
            ("SET sys.Nothing = 2", True),
        ]
        assert one.error == one.changes[1].error

    @pytest.mark.parametrize("text", ["size = 4", "missing = 1", "size / 0 = 1"])
    def test_no_match_no_action(self, text):
        assert explain_rule("r", parse_filter(text), parse_action("SET a = 1"), letter()).changes == ()


LEAF = st.sampled_from(["t", "f", "u", "e"])
TREES = st.recursive(
    LEAF,
    lambda tree: (
        st.tuples(st.sampled_from(["AND", "OR"]), st.lists(tree, min_size=2, max_size=4))
        | st.tuples(st.just("NOT"), st.lists(tree, min_size=1, max_size=1))
    ),
    max_leaves=10,
)


def written(tree, names):
    """The text; each leaf gets a property of its own, and (name, what it is worth) goes to `names`."""
    if isinstance(tree, str):
        name = f"p{len(names)}"
        names.append((name, tree))
        return f"p{len(names) - 1} / 1 = 1"
    word, parts = tree
    texts = [written(part, names) for part in parts]
    return f"NOT ({texts[0]})" if word == "NOT" else f"({f' {word} '.join(texts)})"


WORTH = {"t": 1, "f": 0, "u": None, "e": "a text cannot be divided"}


def valued(names):
    return Letter({}, {name: WORTH[kind] for name, kind in names})


def outcome_of(term, subject):
    try:
        return term.evaluate(subject), ""
    except FilterError as error:
        return None, str(error)


@settings(max_examples=4 * settings().max_examples)
@given(TREES, st.data())
def test_explanations_are_true(tree, data):
    names = []
    text = written(tree, names)
    if len(text) > 1024:
        return
    term = parse_filter(text)
    one = explain_filter(term, valued(names))
    assert (one.outcome, one.error) == outcome_of(term, valued(names))
    marked = leaves(one)
    assert [leaf.text.strip("(").split()[0] for leaf in marked] == [name for name, _ in names]
    assert any(leaf.decides for leaf in marked)
    assert all(leaf.reached for leaf in marked if leaf.decides)
    # What is not reached could be anything at all.
    other = [
        (name, kind if leaf.reached else data.draw(LEAF))
        for (name, kind), leaf in zip(names, marked, strict=True)
    ]
    assert outcome_of(term, valued(other)) == (one.outcome, one.error)
    # Where the filter is true or false, so could all that does not decide, but for errors on the way.
    if one.outcome is not None:
        other = [
            (name, kind if leaf.decides else data.draw(LEAF.filter(lambda kind: kind != "e")))
            for (name, kind), leaf in zip(names, marked, strict=True)
        ]
        # An earlier one may decide in its place, with the same outcome.
        assert outcome_of(term, valued(other))[0] is one.outcome


# Topics.


def message(**fields):
    payload = properties_section(subject="news") + map_section(APPLICATION_PROPERTIES, USER)
    return Message(payload, **fields)


class World:
    """A topic with subscriptions, whose rules are (filter, action); some have sessions."""

    def __init__(self):
        self.clock = ManualClock()
        self.ns = Namespace("ns", MemoryEngine(), self.clock, PROFILES["standard"], letters=Letters())

    async def make(self, subscriptions, **fields):
        await self.ns.create(Topic(path="t"))
        for name, rules in subscriptions.items():
            path = f"t/subscriptions/{name}"
            await self.ns.create(Subscription(path=path, topic="t", name=name, **fields))
            for old in self.ns.entities(Rule, path):
                await self.ns.delete(old.path)
            for nth, (wanted, action) in enumerate(rules):
                rule = Rule(
                    path=f"{path}/rules/r{nth}",
                    subscription=path,
                    name=f"r{nth}",
                    filter=wanted if isinstance(wanted, CorrelationFilter) else SqlFilter(expression=wanted),
                    action=action,
                )
                await self.ns.create(rule)
        return self

    def explain(self, subject, name="", topic="t"):
        return explain_topic(self.ns, topic, subject, self.clock.now(), NEWID, name)

    async def sent(self, subject):
        """By subscription: the payloads it got, and those of its dead letters."""
        sent = asyncio.get_running_loop().create_future()
        self.ns.send("t", [subject], self.clock.now(), sent.set_result)
        assert await asyncio.wait_for(sent, 5) is None
        return {
            one.name: tuple(
                [delivery.message.payload for delivery in self.ns.peek(one.path, 0, 100, dead)]
                for dead in (False, True)
            )
            for one in self.ns.entities(Subscription, "t")
        }


def run(main):
    asyncio.run(main())


FILTERS = st.sampled_from(
    ["1=1", "1=0", "size = 5", "size = 4", "missing = 1", "size / 0 = 1", "sys.Label = 'news'", "sys.Nix = 1", "text > 3",
     "newid() = newid()", CorrelationFilter(system={"Label": "news"}), CorrelationFilter(properties={"size": ("int", "4")})]
)  # fmt: skip
ACTIONS = st.sampled_from(
    [
        "",
        "",
        "SET a = 1",
        "SET sys.Label = 'x'",
        "SET sys.SessionId = 's'",
        "REMOVE colour",
        "SET sys.Nix = 1",
    ]
)
RULES = st.lists(st.tuples(FILTERS, ACTIONS), max_size=4)


@given(RULES, RULES, st.booleans(), st.booleans())
def test_what_is_told_is_what_is_done(first, second, sessions, buries):
    async def main():
        subscriptions = {"a": first, "b": second}
        world = await World().make(
            subscriptions, requires_session=sessions, dead_letter_on_filter_error=buries
        )
        told = {
            one.subscription: ([m.payload for m in one.copies], [m.payload for m in one.dead])
            for one in world.explain(message())
        }
        assert world.ns.counts("t").active == 0
        assert told == await world.sent(message())

    run(main)


def test_copies():
    """The documented arithmetic: one for all rules without an action, one for each with."""

    async def main():
        rules = [
            ("size = 5", ""),
            ("flag", ""),
            ("size = 5", "SET a = 1"),
            ("1=1", "SET b = 2"),
            ("size = 1", "SET c = 3"),
        ]
        world = await World().make({"s": rules, "none": []})
        none, one = world.explain(message())
        assert (none.subscription, none.rules, none.copies, none.dead) == ("none", [], (), ())
        assert [rule.filter.outcome for rule in one.rules] == [True, True, True, True, False]
        assert (len(one.copies), len(one.dead)) == (3, 0)
        assert [change.after for rule in one.rules for change in rule.changes] == [1, 2]
        assert [x.subscription for x in world.explain(message(), "S")] == ["s"]

    run(main)


def test_what_is_not_there_or_too_much():
    async def main():
        world = await World().make({"s": [("1=1", "")]})
        for arguments in (("nix", "t"), ("", "nix"), ("", "t/subscriptions/s")):
            with pytest.raises(NotFound):
                world.explain(message(), *arguments)
        fanout = world.ns.topics["t"]
        key = "t/subscriptions/s"
        (active,) = fanout.rules[key].values()
        fanout.rules[key] |= {f"x{n}": active for n in range(RULES_MAX)}
        with pytest.raises(Invalid, match="at once"):
            world.explain(message())

    run(main)
