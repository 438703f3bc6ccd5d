"""The batch parser: messages as many as elements, in order, or Invalid; nothing else."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from hubbub.broker.errors import Invalid
from hubbub.broker.limits import PROFILES
from hubbub.front.rest.batch import parse
from hubbub.front.rest.scale import Scale
from hubbub.wire.amqp.message import body_bytes, split

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    ("Body", "body", "BrokerProperties", "UserProperties", "IsBodyBase64", "isbodybase64", "Other")
)
BATCHES = st.lists(st.dictionaries(MEMBERS, JSON, max_size=5), max_size=6)


def attempt(data):
    try:
        return parse(data, lambda: "stamp", Scale(PROFILES["standard"], events=False))
    except Invalid as error:
        assert str(error)
        return None


@given(st.binary(max_size=200))
def test_any_bytes(data):
    attempt(data)


@given(BATCHES)
def test_any_batch(batch):
    messages = attempt(json.dumps(batch).encode())
    assert messages is None or len(messages) == len(batch)


@given(BATCHES.filter(bool), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_mutated_batches(batch, at, junk):
    data = json.dumps(batch).encode()
    at = min(at, len(data))
    attempt(data[:at] + junk + data[at:])
    attempt(data[:at])


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8), st.booleans())
def test_bodies_arrive_in_order(bodies, encoded):
    elements = [
        {"Body": base64.b64encode(b.encode()).decode(), "IsBodyBase64": True} if encoded else {"Body": b}
        for b in bodies
    ]
    messages = parse(json.dumps(elements).encode(), lambda: None, Scale(PROFILES["standard"], events=True))
    assert [body_bytes(split(m.payload).body).decode() for m in messages] == bodies


def test_nesting_is_bounded():
    assert attempt(b"[" * 100_000) is None
    assert attempt(b'[{"Body":' + b"[" * 50_000 + b"]" * 50_000 + b"}]") is None
