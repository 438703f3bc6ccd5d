"""A topic at work: every subscription that wants a message gets its copies, all in one append.

The topic's own log holds no messages; it only counts, so that sequence numbers go on after a restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from ..engine.log import Engine, EngineError, Log, Put
from .deadletters import dead_letter
from .delivery import busy
from .errors import MessageNotFound
from .filters import ActiveRule, FilterError, Letter, Value
from .forwarding import Arrival
from .history import History, forget, remember
from .ledger import SCHEDULED, Counts, Entry
from .message import Message, decode_message
from .numbering import number_of, sequence_of
from .receiver import Receiver
from .routes import Routes

SIZE_LASTS = 1000
"""Milliseconds for which the sum of all copies is taken on, with what came since."""
TRIM_EVERY = 512
"""Numbers that the topic's own log gathers before they go."""
LAST = (1 << 48) - 1
"""Behind all numbers that a topic gives."""
RULE_NAME = "RuleName"
"""The property of a copy that an action made, which names its rule (topic filters page)."""
SCHEDULED_COPIES_READ_MAX = 5_000
"""Copies that are opened for one count: who asks how many there are must not keep all others waiting."""


class Letters(Protocol):
    """Who can open encoded messages. The broker itself never does."""

    def open(self, message: Message, now: int) -> Letter: ...

    def close(self, message: Message, letter: Letter) -> Message:
        """The message with the changes of the letter."""


class Fanout:
    """`subscriptions` and `rules` are for others to read."""

    __slots__ = (
        "_engine", "_routes", "_size", "_sized", "_targets", "_trimmed", "letters", "log", "partitioned",
        "rules", "subscriptions",
    )  # fmt: skip

    def __init__(self, log: Log, engine: Engine, letters: Letters | None, partitioned: bool = False) -> None:
        self.log = log
        self.partitioned = partitioned
        self._engine = engine
        self.letters = letters
        self.subscriptions: dict[str, Receiver] = {}
        self.rules: dict[str, dict[str, ActiveRule]] = {}
        """By subscription and rule. Without any, nothing is delivered."""
        self._routes: Routes | None = None
        """None: to be made anew, because something has changed."""
        self._targets: list[tuple[Receiver, list[ActiveRule]]] = []
        """What the numbers of the routes stand for."""
        self._size = self._sized = 0
        self._trimmed = log.first

    # What there is.

    def put(self, key: str, receiver: Receiver) -> None:
        """A subscription."""
        self.subscriptions[key] = receiver
        self._routes = None

    def put_rule(self, subscription: str, key: str, rule: ActiveRule) -> None:
        self.rules.setdefault(subscription, {})[key] = rule
        self._routes = None

    def drop(self, key: str) -> None:
        """A subscription and its rules."""
        self.subscriptions.pop(key, None)
        self.rules.pop(key, None)
        self._routes = None

    def drop_rule(self, subscription: str, key: str) -> None:
        self.rules.get(subscription, {}).pop(key, None)
        self._routes = None

    def number(self, sequence: int, message: Message) -> int:
        """What clients call a message of the topic by."""
        return number_of(sequence, message) if self.partitioned else sequence

    @property
    def size_bytes(self) -> int:
        """Of all copies."""
        return sum(receiver.size_bytes for receiver in self.subscriptions.values())

    def full(self, bytes_max: int, now: int) -> bool:
        """Whether the copies have so many bytes or more. They are added up once a second, and whenever
        what came since then could make the difference."""
        if self._size >= bytes_max or not 0 <= now - self._sized < SIZE_LASTS:
            self._size, self._sized = self.size_bytes, now
        return self._size >= bytes_max

    def counts(self) -> Counts:
        """The sums over all subscriptions, but a scheduled message counts once, however many get a copy."""
        parts = [receiver.counts() for receiver in self.subscriptions.values()]
        if not parts:
            return Counts()
        found = Counts(*(sum(values) for values in zip(*parts, strict=True)))
        scheduled = [part.scheduled for part in parts]
        return found._replace(scheduled=self._scheduled_messages(scheduled))

    def _scheduled_messages(self, copies: Sequence[int]) -> int:
        """`copies` by subscription. Of very many it is the least there can be, which is exact where one
        subscription takes everything."""
        most, total = max(copies), sum(copies)
        if most == total or total > SCHEDULED_COPIES_READ_MAX:
            return most
        receivers = self.subscriptions.values()
        return len({number for receiver in receivers for _, number in _scheduled(receiver)})

    def send(
        self,
        messages: Sequence[Message],
        history: History | None,
        now: int,
        done: Callable[[Exception | None], object],
    ) -> None:
        """Atomic over all messages and subscriptions. `done` as in Namespace.send."""
        first = self.log.next
        stamped = [
            msgspec.structs.replace(
                message, enqueued_sequence=message.enqueued_sequence or self.number(first + nth, message)
            )
            for nth, message in enumerate(messages)
        ]
        arrival = Arrival(now)
        arrival.puts.append(Put(self.log, b"", len(messages)))
        for receiver, copies in self._copies(stamped, now):
            arrival.add(receiver, copies)
        remember(history, messages, now, arrival.puts)
        self._size += sum(len(put.payload) for put in arrival.puts)

        def appended(error: EngineError | None) -> None:
            if error is not None:
                forget(history, messages)
            done(busy(error))

        trims: Sequence[tuple[Log, int]] = ()
        if first - self._trimmed >= TRIM_EVERY:
            trims, self._trimmed = ((self.log, first),), first
        arrival.append(self._engine, appended, trims)

    def cancel(self, sequences: Sequence[int], now: int, done: Callable[[Exception | None], object]) -> None:
        """Takes scheduled messages back from all subscriptions. Raises MessageNotFound."""
        wanted = dict.fromkeys(sequences)
        found = [
            (receiver, entry, number)
            for receiver in self.subscriptions.values()
            for entry, number in _scheduled_as(receiver, wanted)
        ]
        for missing in wanted.keys() - {number for _, _, number in found}:
            raise MessageNotFound(missing)
        for receiver, entry, _ in found:
            receiver.ledger.claim(entry)

        def cancelled(error: EngineError | None) -> None:
            for receiver, entry, _ in found:
                (receiver.ledger.forget if error is None else receiver.ledger.unclaim)(entry)
            done(busy(error))

        graves = [grave for receiver, entry, _ in found for grave in receiver.graves(entry)]
        self._engine.append([], now, cancelled, dead=graves)

    def _copies(self, messages: Sequence[Message], now: int) -> list[tuple[Receiver, Sequence[Message]]]:
        """What each receiver gets. A letter is opened once, and only if a rule needs to look."""
        routes = self._routes or self._made_routes()
        found: list[tuple[Receiver, Sequence[Message]]] = []
        for number in routes.blind:
            found += _placed(self._targets[number][0], messages, ())
        if not routes.looks:
            return found
        assert self.letters is not None
        opened: dict[int, tuple[list[Message], list[Letter]]] = {}
        for message in messages:
            letter = self.letters.open(message, now)
            for number in routes.concerned(letter):
                own, theirs = opened.setdefault(number, ([], []))
                own.append(message)
                theirs.append(letter)
        for number, (own, theirs) in opened.items():
            receiver, rules = self._targets[number]
            found += self.routed(receiver, rules, own, theirs)
        return found

    def _made_routes(self) -> Routes:
        self._targets = [
            (receiver, list(self.rules[key].values()))
            for key, receiver in self.subscriptions.items()
            if self.rules.get(key)
        ]
        self._routes = Routes([rules for _, rules in self._targets])
        return self._routes

    def routed(
        self,
        receiver: Receiver,
        rules: Sequence[ActiveRule],
        messages: Sequence[Message],
        letters: Sequence[Letter],
    ) -> list[tuple[Receiver, Sequence[Message]]]:
        """What one subscription and its dead letters get by these rules. Nothing is sent."""
        rule = rules[0]
        if len(rules) > 1 or rule.matches is None or rule.act is not None or receiver.sessions is not None:
            return _placed(receiver, *self._chosen(receiver, rules, messages, letters))
        # What most subscriptions are, by a shorter way.
        try:
            copies = _matching(rule.matches, messages, letters)
        except FilterError:
            return _placed(receiver, *self._chosen(receiver, rules, messages, letters))
        return [(receiver, copies)] if copies else []

    def _chosen(
        self,
        receiver: Receiver,
        rules: Sequence[ActiveRule],
        messages: Sequence[Message],
        letters: Sequence[Letter],
    ) -> tuple[list[Message], list[Message]]:
        """What one subscription gets, and what is buried because a rule could not be evaluated."""
        copies: list[Message] = []
        dead: list[Message] = []
        for message, letter in zip(messages, letters, strict=True):
            try:
                copies += self._applied(rules, message, letter)
            except FilterError as error:
                if receiver.terms().dead_letter_on_filter_error:
                    dead.append(_unfiltered(message, receiver.path, error))
        return copies, dead

    def _applied(self, rules: Sequence[ActiveRule], message: Message, letter: Letter) -> list[Message]:
        """One copy for all rules without an action, and one for each with. Raises FilterError."""
        assert self.letters is not None
        changed: list[Message] = []
        plain = False
        for rule in rules:
            if rule.matches is not None and rule.matches(letter) is not True:
                continue
            if rule.act is None:
                plain = True
                continue
            copy = letter.copy()
            rule.act(copy)
            copy.set_user(RULE_NAME, rule.name)
            changed.append(self.letters.close(message, copy))
        return [message, *changed] if plain else changed


def _matching(
    matches: Callable[[Letter], Value], messages: Sequence[Message], letters: Sequence[Letter]
) -> list[Message]:
    """Raises FilterError."""
    if len(letters) == 1:
        return [messages[0]] if matches(letters[0]) is True else []
    return [m for m, letter in zip(messages, letters, strict=True) if matches(letter) is True]


def _scheduled(receiver: Receiver) -> Iterator[tuple[Entry, int]]:
    """Scheduled copies, with the sequence numbers the topic gave."""
    for entry in list(receiver.ledger.entries.values()):
        if entry.state == SCHEDULED and (record := receiver.log.get(entry.sequence)) is not None:
            yield entry, decode_message(record.payload).enqueued_sequence


def _scheduled_as(receiver: Receiver, numbers: Iterable[int]) -> Iterator[tuple[Entry, int]]:
    """The scheduled copies that have these numbers of the topic. It gave them in the order in which they are
    here, so that few of a million must be read."""
    ledger, log = receiver.ledger, receiver.log
    known: dict[int, int] = {}

    def number_at(sequence: int) -> int:
        if sequence not in known:
            record = log.get(sequence)
            # One that is not durable yet is among the last.
            known[sequence] = LAST if record is None else decode_message(record.payload).enqueued_sequence
        return known[sequence]

    waiting = sorted(e.sequence for e in ledger.entries.values() if e.state == SCHEDULED)
    for number in numbers:
        at = bisect_left(waiting, sequence_of(number), key=lambda sequence: sequence_of(number_at(sequence)))
        while at < len(waiting) and number_at(waiting[at]) == number:
            yield ledger.entries[waiting[at]], number
            at += 1


def _placed(
    receiver: Receiver, copies: Sequence[Message], dead: Sequence[Message]
) -> list[tuple[Receiver, Sequence[Message]]]:
    """Where they go. Where messages are had by session, nobody could ever receive one without."""
    if receiver.sessions is not None and not all(message.session_id for message in copies):
        dead = [*dead, *(_unseated(m, receiver.path) for m in copies if not m.session_id)]
        copies = [message for message in copies if message.session_id]
    placed: list[tuple[Receiver, Sequence[Message]]] = [(receiver, copies)] if copies else []
    if dead and receiver.dead_letters is not None:
        placed.append((receiver.dead_letters, dead))
    return placed


def _unseated(message: Message, path: str) -> Message:
    text = "Session enabled entity doesn't allow a message whose session identifier is null."
    return dead_letter(message, path, "Session ID is null.", text)


def _unfiltered(message: Message, path: str, error: FilterError) -> Message:
    return dead_letter(message, path, "FilterEvaluationException", str(error))
