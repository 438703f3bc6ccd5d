"""Twenty cycles of kill -9 in the ordinary suite; `make crash CYCLES=500` runs as many as you like."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import crash


@pytest.mark.long
@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing():
    history = crash.run(20, seed=1)
    assert history.problems == []
    assert sum(map(len, history.acknowledged.values())) > 1000
    assert all(history.completed.values())
    done = history.service_bus.book.done_of
    assert all(done[state] > 5 for state in ("active", "gone", "dead", "deferred", "scheduled", "set")), done
