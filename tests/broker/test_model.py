"""Random histories against the naive model of `model.py`, which also runs by itself for as long as one likes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from broker.model import STEPS, Pair, walk
from hubbub.broker import ledger


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch):
    """Short enough that the walks pass whole ones."""
    monkeypatch.setattr(ledger, "STRETCH", 4)


STEP = st.one_of(*(st.tuples(st.just(name), *map(st.sampled_from, values)) for name, values in STEPS.items()))


class Sessions(RuleBasedStateMachine):
    sessions = True

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(self.sessions)

    @rule(step=STEP)
    def step(self, step):
        self.pair.step(*step)

    def teardown(self):
        self.pair.loop.close()


class Plain(Sessions):
    sessions = False


Sessions.TestCase.settings = Plain.TestCase.settings = settings(
    max_examples=max(100, settings().max_examples // 10), stateful_step_count=50, deadline=None
)
TestSessions = Sessions.TestCase
TestPlain = Plain.TestCase


@pytest.mark.parametrize("sessions", [True, False])
def test_long_walks(sessions):
    """Every kind of step comes to something many times over: a walk that cannot do a thing tests nothing."""
    pair = walk(sessions, steps=10_000, seed=3, every=2)
    only_sessions = {"accept", "release", "set_state"}
    for name in [*STEPS, "served_waiter"]:
        if sessions or name not in only_sessions:
            assert pair.done[name] >= 3, name
