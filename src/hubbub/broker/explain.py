"""What a topic would do with a message: rule by rule, subscription by subscription. Nothing is sent.

Not here: any decision. Filters and actions are the functions of delivery, compiled from the same rules, and
how many copies there are is what the topic itself says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from .entity import Rule, Subscription, Topic
from .errors import Invalid, NotFound
from .filters import (
    Action,
    ActiveRule,
    Change,
    Finding,
    Letter,
    NewId,
    Term,
    compile_action,
    compile_filter,
    explain_action,
    explain_filter,
)
from .message import Message

if TYPE_CHECKING:
    from .namespace import Namespace
    from .topic import Fanout

RULES_MAX = 300
"""Rules that are explained at once: who asks must not keep all others waiting."""


class RuleFinding(NamedTuple):
    """What a rule makes of the message. `changes`: what its action does, if the filter is true."""

    name: str
    action: str
    filter: Finding
    changes: Sequence[Change]

    @property
    def error(self) -> str:
        """What could not be evaluated, if anything."""
        return self.filter.error or next((change.error for change in self.changes if change.error), "")


class Explanation(NamedTuple):
    """One subscription: its rules, the copies it gets, and what goes to its dead letters instead.
    `forward_to`: where the copies go on to by themselves, if anywhere."""

    subscription: str
    forward_to: str
    rules: Sequence[RuleFinding]
    copies: Sequence[Message]
    dead: Sequence[Message]


def explain_topic(
    namespace: Namespace, topic: str, message: Message, now: int, newid: UUID, subscription: str = ""
) -> list[Explanation]:
    """All subscriptions in order of their names, or the one named. Raises NotFound, Invalid.

    `newid`: what newid() is made from in all rules, so that what is told of a term holds for the whole.
    """
    entity = namespace.entity(topic)
    if not isinstance(entity, Topic):
        raise NotFound(f"There is no topic '{topic}'.")
    found = [
        one
        for one in namespace.entities(Subscription, entity.path)
        if one.name.lower() == (subscription or one.name).lower()
    ]
    if subscription and not found:
        raise NotFound(f"There is no subscription '{subscription}' of the topic '{entity.path}'.")
    fanout = namespace.topics[entity.key]
    count = sum(max(1, len(fanout.rules.get(one.key, ()))) for one in found)
    if count > RULES_MAX:
        raise Invalid(f"There are {count} rules; {RULES_MAX} are explained at once. Name one subscription.")
    letter = open_letter(fanout, message, now)
    return [_explained(namespace, fanout, one, message, letter, newid) for one in found]


def open_letter(fanout: Fanout, message: Message, now: int) -> Letter:
    """The message as the rules of the topic see it."""
    assert fanout.letters is not None
    return fanout.letters.open(message, now)


def _explained(
    namespace: Namespace,
    fanout: Fanout,
    subscription: Subscription,
    message: Message,
    letter: Letter,
    newid: UUID,
) -> Explanation:
    receiver = fanout.subscriptions[subscription.key]
    findings: list[RuleFinding] = []
    active: list[ActiveRule] = []
    newids = newids_from(newid)
    for key in fanout.rules.get(subscription.key, ()):
        rule = namespace.entity(key)
        assert isinstance(rule, Rule)
        term = compile_filter(rule.filter, newids)
        act = compile_action(rule.action, rule.action_parameters, newids) if rule.action else None
        findings.append(explain_rule(rule.name, term, act, letter, rule.action))
        active.append(ActiveRule(rule.name, term.evaluate, act))
    placed = dict(fanout.routed(receiver, active, [message], [letter])) if active else {}
    dead = () if receiver.dead_letters is None else placed.get(receiver.dead_letters, ())
    return Explanation(subscription.name, subscription.forward_to, findings, placed.get(receiver, ()), dead)


def newids_from(newid: UUID) -> NewId:
    """A different one for each newid() of an expression, but always the same for each."""
    return lambda at: UUID(int=newid.int ^ at)


def explain_rule(name: str, term: Term, act: Action | None, letter: Letter, action: str = "") -> RuleFinding:
    """One rule by itself. The letter stays as it is."""
    found = explain_filter(term, letter)
    changes = explain_action(act, letter.copy()) if act is not None and found.outcome is True else ()
    return RuleFinding(name, action, found, changes)
