"""The ledger against a naive model, and every state × every input."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hubbub.broker.ledger import (
    AVAILABLE,
    CLAIMED,
    DEFERRED,
    LOCKED,
    SCHEDULED,
    STRETCH,
    SWEPT_PER_TIMER,
    TIMERS_PER_TURN,
    Ledger,
    Note,
    decode_note,
)

T = b"t" * 16


class Log:
    """The little a ledger asks of a log."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.durable = 1
        self.bytes = 0

    @property
    def count(self) -> int:
        return len(self.live)

    def alive(self, sequence):
        return sequence in self.live

    def next_alive(self, sequence):
        return min((s for s in self.live if s >= sequence), default=None)


def ledger(*sequences: int) -> Ledger:
    log = Log()
    log.live |= set(sequences)
    log.durable = max(sequences, default=0) + 1
    return Ledger(log)


def test_messages_come_in_order_and_are_held():
    book = ledger(1, 2, 3)
    assert book.next_available(0) == 1
    book.lock(1, T, 100)
    assert book.next_available(0) == 2
    assert book.held(T, 99).sequence == 1
    assert book.held(T, 100) is None
    assert book.held(b"other", 0) is None


def test_a_lock_that_runs_out_gives_the_message_back_once_more_counted():
    book = ledger(1, 2)
    book.lock(1, T, 100)
    assert book.next_deadline() == 100
    ((entry, expired),) = book.due(100)
    assert (entry.sequence, expired, entry.state) == (1, False, LOCKED)
    book.release(entry)
    assert book.next_available(100) == 1
    assert book.lock(1, b"u" * 16, 200).deliveries == 2


def test_a_claimed_message_is_nobodys():
    book = ledger(1)
    entry = book.lock(1, T, 100)
    book.claim(entry)
    assert book.held(T, 0) is None
    assert book.next_available(0) is None
    assert list(book.due(1000)) == []
    book.unclaim(entry)
    assert book.held(T, 0) is entry


def test_taking_that_fails_changes_nothing():
    book = ledger(1)
    entry = book.take(1)
    assert (entry.state, book.next_available(0)) == (CLAIMED, None)
    book.unclaim(entry)
    assert (entry.deliveries, book.next_available(0)) == (0, 1)


def test_schedules_and_ends():
    book = ledger(1, 2)
    book.note(Note(1, SCHEDULED, until=50))
    book.note(Note(2, AVAILABLE, expires=80))
    assert book.next_available(0) == 2
    assert [(e.sequence, x) for e, x in book.due(50)] == [(1, False)]
    assert book.next_available(50) == 1
    assert [(e.sequence, x) for e, x in book.due(80)] == [(2, True)]
    assert book.next_available(80) == 1


def test_loading_takes_the_newest_note_and_names_the_stale():
    book = ledger(1, 2)
    notes = [
        (0, Note(1, LOCKED, 1, 100, T)),
        (1, Note(7, LOCKED, 1, 100, b"u" * 16)),
        (2, Note(1, DEFERRED, 1)),
    ]
    assert sorted(book.load(notes)) == [0, 1]
    assert book.entries[1].state == DEFERRED
    assert 7 not in book.entries
    assert book.held(T, 0) is None


def test_a_long_stretch_of_scheduled_messages_is_passed_at_once():
    """Unless some of it is not durable: it may fail, and its sequence be another's."""
    book = ledger(*range(1, 10 * STRETCH))
    looked = []
    next_alive = book._log.next_alive
    book._log.next_alive = lambda sequence: looked.append(sequence) or next_alive(sequence)
    for sequence in range(2, 10 * STRETCH - 1):
        book.note(Note(sequence, SCHEDULED, until=50 if sequence == 3000 else 90))
    assert book.next_available(0) == 1
    book.lock(1, T, 1000)
    book._log.durable = 8 * STRETCH + 5
    assert book.next_available(0) == 10 * STRETCH - 1
    assert len(looked) < 4 * STRETCH
    assert not set(range(2 * STRETCH, 8 * STRETCH)) & set(looked)
    assert set(range(8 * STRETCH, 9 * STRETCH)) <= set(looked)
    assert not book._barred.keys() - {9}
    list(book.due(50))
    assert book.next_available(50) == 3000
    while book.next_deadline() <= 90:
        list(book.due(90))
    found = []
    while (sequence := book.next_available(90)) is not None:
        found.append(book.lock(sequence, b"%16d" % sequence, 1000).sequence)
    assert found == [*sorted({*range(2, 10 * STRETCH)} - {10 * STRETCH - 1}), 10 * STRETCH - 1]


def test_a_scheduled_message_that_never_came_to_be_bars_nothing():
    book = ledger(*range(1, 2 * STRETCH))
    for sequence in range(1, 3 * STRETCH):
        book.note(Note(sequence, SCHEDULED, until=90))
    for sequence in range(2 * STRETCH, 3 * STRETCH):
        book.undo(book.entries[sequence])
    book._log.live |= set(range(2 * STRETCH, 3 * STRETCH))
    book._log.durable = 3 * STRETCH
    assert book.next_available(0) == 2 * STRETCH


def test_timers_that_mean_nothing_any_more_go_a_few_at_a_time():
    """Many locks come and go beside some messages that wait for their end."""
    book = ledger(*range(1, 5001))
    for n in range(1, 101):
        book.note(Note(n, SCHEDULED, until=90_000 + n))
        book.note(Note(n + 100, AVAILABLE, expires=80_000 - n))
    most, steps, first_in_old = 0, [], 0
    for n in range(201, 5001):
        before = len(book._old_timers)
        entry = book.lock(n, n.to_bytes(16, "big"), 50_000 + n)
        book.forget(entry)
        most = max(most, len(book._timers) + len(book._old_timers))
        if n % 20 == 0 and book._old_timers:
            assert book.next_deadline() == min(book._timers + book._old_timers)[0]
            first_in_old += min(book._old_timers) < min(book._timers, default=(1 << 62, 0))
        if before:
            steps.append(before - len(book._old_timers))
    assert most < 5 * 201 + 64
    assert max(steps) == SWEPT_PER_TIMER
    assert first_in_old
    moments = []
    while (moment := book.next_deadline()) is not None:
        moments += [(moment, entry.sequence) for entry, _ in book.due(moment)]
    assert moments == [(80_000 - n, 100 + n) for n in range(100, 0, -1)] + [
        (90_000 + n, n) for n in range(1, 101)
    ]


def test_timers_that_mean_nothing_any_more_are_passed_a_turn_at_a_time():
    """All of one moment, and all but the last of messages that are gone."""
    book = ledger(*range(1, 3 * TIMERS_PER_TURN + 1))
    for sequence in range(1, 3 * TIMERS_PER_TURN + 1):
        book.note(Note(sequence, AVAILABLE, expires=90))
    for sequence in range(1, 3 * TIMERS_PER_TURN):
        book.forget(book.entries[sequence])
    assert [list(book.due(90)) for _ in range(2)] == [[], []]
    assert book.next_deadline() == 90
    assert [(entry.sequence, expired) for entry, expired in book.due(90)] == [(3 * TIMERS_PER_TURN, True)]
    assert book.next_deadline() is None


def test_a_message_that_is_abandoned_all_the_time_has_one_timer_for_its_end():
    book = ledger(1)
    book.note(Note(1, AVAILABLE, expires=10_000_000))
    for n in range(1000):
        book.release(book.lock(1, T, 100 + n))
    assert [timer for timer in book._timers + book._old_timers if timer[0] == 10_000_000] == [(10_000_000, 1)]
    found = []
    for entry, expired in book.due(10_000_000):
        found.append((entry.sequence, expired))
        book.forget(entry)
    assert found == [(1, True)]


VERBS = {
    "lock": lambda b, e: b.lock(e.sequence, b"n" * 16, 500),
    "claim": lambda b, e: b.claim(e),
    "release": lambda b, e: b.release(e),
    "defer": lambda b, e: b.defer(e),
    "forget": lambda b, e: b.forget(e),
    "renew": lambda b, e: b.renew(e, 900),
}
AFTER = {"lock": LOCKED, "claim": CLAIMED, "release": AVAILABLE, "defer": DEFERRED, "renew": LOCKED}


@pytest.mark.parametrize("state", [AVAILABLE, LOCKED, DEFERRED, SCHEDULED])
@pytest.mark.parametrize("verb", VERBS)
def test_every_state_and_every_verb(state, verb):
    """The state after, the sums, and that the note of it rebuilds it."""
    book = ledger(1)
    entry = book.note(
        Note(1, state, 1, 300 if state in (LOCKED, SCHEDULED) else 0, T if state == LOCKED else b"")
    )
    VERBS[verb](book, entry)
    if verb == "forget":
        assert book.entries == {}
        assert book.by_token == {}
        assert sum(book.numbers) == 0
        return
    assert entry.state == AFTER[verb]
    assert sum(book.numbers) == 1
    assert book.numbers[entry.state] == 1
    assert (entry.token != b"") == (entry.token in book.by_token)
    if verb != "claim":
        again = ledger(1)
        again.load([(0, decode_note(entry.record()))])
        twin = again.entries[1]
        assert (twin.state, twin.deliveries, twin.until, twin.token) == (
            entry.state,
            entry.deliveries,
            entry.until,
            entry.token,
        )


class Machine(RuleBasedStateMachine):
    """Random histories beside a naive model: a dictionary of what each message is."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.book = Ledger(self.log)
        self.model: dict[int, tuple[str, int]] = {}
        self.expires: dict[int, int] = {}
        self.tokens: dict[int, bytes] = {}
        self.now = 1000
        self.next = 1

    @rule(ttl=st.sampled_from([0, 0, 50, 200]), delay=st.sampled_from([0, 0, 60]))
    def send(self, ttl, delay):
        sequence, self.next = self.next, self.next + 1
        visible = self.now + delay
        if ttl or delay:
            state = SCHEDULED if delay else AVAILABLE
            self.book.note(
                Note(sequence, state, 0, visible if delay else 0, b"", visible + ttl if ttl else 0)
            )
        self.log.live.add(sequence)
        self.log.durable = self.next
        self.model[sequence] = ("scheduled", visible) if delay else ("available", 0)
        self.expires[sequence] = visible + ttl if ttl else 0

    def available(self):
        return [
            s
            for s, (state, _) in sorted(self.model.items())
            if state == "available" and not 0 < self.expires[s] <= self.now
        ]

    @rule()
    def receive(self):
        expected = self.available()
        sequence = self.book.next_available(self.now)
        assert sequence == (expected[0] if expected else None)
        if sequence is not None:
            token = self.now.to_bytes(8, "big") + sequence.to_bytes(8, "big")
            self.book.lock(sequence, token, self.now + 30)
            self.model[sequence] = ("locked", self.now + 30)
            self.tokens[sequence] = token

    def holders(self):
        return [s for s, (state, until) in self.model.items() if state == "locked" and until > self.now]

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), how=st.sampled_from(["complete", "unlock", "defer", "renew", "fail"]))
    def settle(self, data, how):
        sequence = data.draw(st.sampled_from(self.holders()))
        entry = self.book.held(self.tokens[sequence], self.now)
        if how == "renew":
            self.book.renew(entry, self.now + 30)
            self.model[sequence] = ("locked", self.now + 30)
            return
        self.book.claim(entry)
        if how == "fail":
            self.book.unclaim(entry)
        elif how == "complete":
            self.log.live.discard(sequence)
            self.book.forget(entry)
            del self.model[sequence]
        elif how == "unlock":
            self.book.release(entry)
            self.model[sequence] = ("available", 0)
        else:
            self.book.defer(entry)
            self.model[sequence] = ("deferred", 0)

    @rule(by=st.integers(1, 100))
    def time_passes(self, by):
        self.now += by
        for entry, expired in self.book.due(self.now):
            if expired:
                self.log.live.discard(entry.sequence)
                self.book.forget(entry)
            elif entry.state == LOCKED:
                self.book.release(entry)
        for sequence, (state, until) in list(self.model.items()):
            if state in ("locked", "scheduled") and until <= self.now:
                self.model[sequence] = ("available", 0)
        for sequence in [s for s, (state, _) in self.model.items() if state != "locked"]:
            if 0 < self.expires[sequence] <= self.now:
                del self.model[sequence]
                self.log.live.discard(sequence)
                if sequence in self.book.entries:
                    self.book.forget(self.book.entries[sequence])

    @invariant()
    def agree(self):
        expected = self.available()
        assert self.book.next_available(self.now) == (expected[0] if expected else None)
        states = [state for state, _ in self.model.values()]
        counts = self.book.counts()
        assert counts.locked == states.count("locked")
        assert counts.deferred == states.count("deferred")
        assert counts.scheduled == states.count("scheduled")


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
