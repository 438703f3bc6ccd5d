"""What a topic reckons about itself."""

from __future__ import annotations

from types import SimpleNamespace

from hubbub.broker.topic import SIZE_LASTS, Fanout


def test_how_full_it_is():
    receivers = [SimpleNamespace(size_bytes=40) for _ in range(2)]
    fanout = Fanout(SimpleNamespace(first=1), None, None)
    for number, receiver in enumerate(receivers):
        fanout.put(f"t/subscriptions/{number}", receiver)
    assert not fanout.full(81, 5_000)
    assert fanout.full(80, 5_000)
    # What has gone is seen when it could make the difference; what has come by other ways, soon.
    receivers[0].size_bytes = 30
    assert not fanout.full(80, 5_001)
    receivers[0].size_bytes = 60
    assert not fanout.full(100, 5_000 + SIZE_LASTS)
    assert fanout.full(100, 5_001 + SIZE_LASTS)
    # Also when the clock was set back.
    receivers[0].size_bytes = 1
    assert not fanout.full(100, 4_000)
    fanout.drop("t/subscriptions/1")
    assert fanout.full(1, 4_001)
    assert not fanout.full(2, 4_000 + SIZE_LASTS)
