"""The crash test's book-keeping: it must see what is wrong, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from book import ACTIVE, DEAD, GONE, LATE, SCHEDULED, Book

A, B, DEAD_A = ("a", ACTIVE), ("b", ACTIVE), ("a", DEAD)
NOW = 1_000_000


def sent(*keys: str) -> Book:
    book = Book()
    book.done(book.begin(dict.fromkeys(keys, A)))
    return book


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        ({"m": [A]}, None),
        ({}, "lost"),
        ({"m": [A, A]}, "2 places"),
        ({"m": [A, DEAD_A]}, "2 places"),
        ({"m": [B]}, "is at"),
        ({"m": [A], "n": [A]}, "nowhere"),
    ],
)
def test_what_was_acknowledged_is_there_once(found, fault):
    faults = sent("m").faults(found, NOW)
    assert (fault in faults[0]) if fault else not faults


def test_what_was_completed_stays_away():
    book = sent("m")
    change = book.begin({"m": GONE})
    assert book.faults({"m": [A]}, NOW) == book.faults({}, NOW) == []
    book.done(change)
    assert book.faults({}, NOW) == []
    assert "may be at" in book.faults({"m": [A]}, NOW)[0]
    book.seen("m", A, NOW)
    assert "came from" in book.problems[0]


def test_what_was_refused_has_not_happened():
    book = sent("m")
    book.refused(book.begin({"m": GONE}))
    assert "lost" in book.faults({}, NOW)[0]


def test_a_change_happens_whole_or_not_at_all():
    book = sent("m")
    book.begin({"m": B, "n": B, "o": B})
    assert book.faults({"m": [A]}, NOW) == []
    assert book.faults({key: [B] for key in "mno"}, NOW) == []
    for half in ({"m": [B], "n": [B]}, {"m": [A], "n": [B], "o": [B]}):
        assert "half" in book.faults(half, NOW)[-1]
    book.accept({"m": [A]})
    assert "may be at" in book.faults({"m": [A], "n": [B]}, NOW)[0]


def test_a_message_may_be_taken_further_before_its_send_is_acknowledged():
    book = Book()
    send = book.begin({"m": A, "n": A})
    book.seen("m", A, NOW)
    book.done(book.begin({"m": GONE}))
    assert "half" in book.faults({}, NOW)[0]
    assert book.faults({"n": [A]}, NOW) == []
    book.done(send)
    assert book.may["m"] == {GONE}
    assert book.problems == []


def test_scheduled_messages_come_in_time():
    book = Book()
    book.due["m"] = NOW
    book.done(book.begin({"m": ("a", SCHEDULED)}))
    assert book.faults({"m": [("a", SCHEDULED)]}, NOW - 1) == []
    assert book.faults({"m": [A]}, NOW) == []
    assert "may be at" in book.faults({"m": [A]}, NOW - 1)[0]
    assert "late" in book.faults({"m": [("a", SCHEDULED)]}, NOW + LATE + 1)[0]
    book.seen("m", A, NOW - 1)
    assert book.problems


def test_what_happens_by_itself():
    book = Book({A: DEAD_A})
    book.done(book.begin({"m": A}))
    assert book.faults({"m": [DEAD_A]}, NOW) == []
    assert book.faults({"m": [A]}, NOW) == []
    book.accept({"m": [DEAD_A]})
    assert book.faults({"m": [A]}, NOW) != []
