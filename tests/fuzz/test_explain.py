"""Whatever anybody asks to have explained: an answer, or a sentence on what is wrong. Nothing else."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.broker.entity import Rule, Subscription, Topic
from hubbub.broker.errors import BrokerError
from hubbub.broker.filters import SqlFilter
from hubbub.broker.limits import PROFILES
from hubbub.broker.namespace import Namespace
from hubbub.clock import ManualClock
from hubbub.engine.memory import MemoryEngine
from hubbub.front.api.explain import answer
from hubbub.front.letters import Letters

RULES = {
    "a": ("a = 1 OR b LIKE '%x_' OR c - d > e", "SET a = a + a; SET sys.TimeToLive = b; REMOVE c"),
    "b": ("NOT (sys.TimeToLive > a) AND sys.ExpiresAtUtc IS NOT NULL OR property(b) IN (a, c)", "SET b = '' + c SET sys.SessionId = d"),
    "c": ("1=1", "SET x = a - b; SET y = a / b; SET sys.ScheduledEnqueueTimeUtc = c"),
}  # fmt: skip


async def topic():
    namespace = Namespace("ns", MemoryEngine(), ManualClock(), PROFILES["standard"], letters=Letters())
    await namespace.create(Topic(path="t"))
    path = "t/subscriptions/s"
    await namespace.create(Subscription(path=path, topic="t", name="s"))
    for name, (sql, action) in RULES.items():
        rule = Rule(
            path=f"{path}/rules/{name}",
            subscription=path,
            name=name,
            filter=SqlFilter(expression=sql),
            action=action,
        )
        await namespace.create(rule)
    return namespace


@pytest.fixture(scope="module")
def namespace():
    return asyncio.run(topic())


KINDS = ["string", "boolean", "int", "long", "double", "decimal", "dateTime", "duration", "guid", "nix"]
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["P999999999D", "P10675199D", "PT1S", "-P1D", "0001-01-01", "9999-12-31T23:59:59.999999-14:00", "2026-01-02", "1e999", "nan", "-inf",
     "9223372036854775807", "true", str(uuid.UUID(int=7)), "x" * 200, "\ud800"]
)  # fmt: skip
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
PROPERTY = (
    PLAIN
    | st.fixed_dictionaries({"type": st.sampled_from(KINDS), "value": TEXTS})
    | st.lists(PLAIN, max_size=2)
)
FIELDS = st.dictionaries(
    st.sampled_from(["subject", "messageId", "sessionId", "timeToLive", "scheduledEnqueueTimeUtc", "body", "bodyBase64", "to", "state", "nix"]),
    TEXTS | PLAIN,
    max_size=4,
)  # fmt: skip
PROPERTIES = st.dictionaries(st.sampled_from("abcdeA") | st.text(max_size=3), PROPERTY, max_size=5)
MESSAGE = st.tuples(FIELDS, PROPERTIES | PLAIN).map(lambda pair: pair[0] | {"properties": pair[1]}) | PLAIN
FROM = st.fixed_dictionaries({"subscription": TEXTS, "sequenceNumber": PLAIN}) | PLAIN
ASKED = (
    st.fixed_dictionaries(
        {"message": MESSAGE}, optional={"subscription": st.sampled_from(["s", "", "x"]) | PLAIN}
    )
    | st.fixed_dictionaries({"from": FROM})
    | st.dictionaries(st.sampled_from(["message", "from", "subscription", "nix"]), PLAIN, max_size=3)
)


@settings(max_examples=4 * settings().max_examples)
@given(ASKED.map(lambda asked: json.dumps(asked).encode()) | st.binary(max_size=20))
def test_any_question(namespace, body):
    try:
        found = answer(namespace, "t", body, 1_700_000_000_000, uuid.UUID(int=5))
    except BrokerError as refused:
        assert len(str(refused)) > 10
        return
    (one,) = found["subscriptions"]
    assert len(one["rules"]) == 4
    assert one["copies"] == len(one["messages"])
    assert one["copies"] + len(one["deadLetters"]) >= 1
    json.dumps(found, allow_nan=False)
