"""Rules of subscriptions as AMQP values, both ways (AMQP reference 4.8)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ...broker.entity import Rule, Subscription, rule_path
from ...broker.errors import Invalid
from ...broker.filters import CorrelationFilter, Filter, SqlFilter, Typed
from ...broker.namespace import Namespace
from ...wire.amqp.types import Described, Int, Long, Timestamp, Ulong

RULE, EMPTY_ACTION, SQL_ACTION = Ulong(0x13700000004), Ulong(0x13700000005), Ulong(0x13700000006)
SQL_FILTER, TRUE_FILTER, FALSE_FILTER = Ulong(0x1370000006), Ulong(0x1370000007), Ulong(0x1370000008)
CORRELATION_FILTER = Ulong(0x1370000009)
LEVEL = Int(20)

_NAMES = {
    "correlation-id": "CorrelationId",
    "message-id": "MessageId",
    "to": "To",
    "reply-to": "ReplyTo",
    "label": "Label",
    "session-id": "SessionId",
    "reply-to-session-id": "ReplyToSessionId",
    "content-type": "ContentType",
}
"""Members of a correlation filter's map, in the order of its described list."""


def path_of(subscription: Subscription, name: str) -> str:
    return rule_path(subscription.path, name)


def all_of(namespace: Namespace, subscription: Subscription) -> list[Rule]:
    return namespace.entities(Rule, subscription.path)


def read(subscription: Subscription, name: str, description: Any) -> Rule:
    """A rule of the map in a request. Raises Invalid."""
    if not isinstance(description, dict):
        raise Invalid("'rule-description' must be a map.")
    action = description.get("sql-rule-action")
    return Rule(
        path=path_of(subscription, name),
        subscription=subscription.path,
        name=name,
        filter=_filter(description),
        action=_expression(action) if isinstance(action, dict) else "",
    )


def _filter(description: dict[Any, Any]) -> Filter:
    sql, correlation = description.get("sql-filter"), description.get("correlation-filter")
    if isinstance(sql, dict):
        return SqlFilter(expression=_expression(sql))
    if not isinstance(correlation, dict):
        raise Invalid("A rule needs a 'sql-filter' or a 'correlation-filter'.")
    system = {theirs: str(correlation[ours]) for ours, theirs in _NAMES.items() if correlation.get(ours)}
    wanted = correlation.get("properties") or {}
    if not isinstance(wanted, dict):
        raise Invalid("The 'properties' of a correlation filter must be a map.")
    properties = {str(k): _typed(str(k), v) for k, v in wanted.items()}
    return CorrelationFilter(system=system, properties=properties)


def _expression(found: dict[Any, Any]) -> str:
    expression = found.get("expression")
    if not isinstance(expression, str):
        raise Invalid("A SQL filter or action needs an 'expression'.")
    return str(expression)


def _typed(name: str, value: Any) -> Typed:
    """A value with the name of its XML schema type, as rules keep them."""
    if isinstance(value, bool):
        return "boolean", "true" if value else "false"
    if isinstance(value, Timestamp):
        raise Invalid(f"The property '{name}' has a type that correlation filters cannot compare here.")
    if isinstance(value, int):
        return ("int" if -(2**31) <= value < 2**31 else "long"), str(int(value))
    if isinstance(value, float):
        return "double", repr(float(value))
    if isinstance(value, (str, UUID)):
        return ("guid" if isinstance(value, UUID) else "string"), str(value)
    raise Invalid(f"The property '{name}' has a type that correlation filters cannot compare.")


def written(rule: Rule) -> Described:
    action = Described(SQL_ACTION, [rule.action, LEVEL]) if rule.action else Described(EMPTY_ACTION, [])
    return Described(RULE, [_written_filter(rule.filter), action, rule.name, Timestamp(rule.created)])


def _written_filter(found: Filter) -> Described:
    if isinstance(found, CorrelationFilter):
        values = [found.system.get(theirs) for theirs in _NAMES.values()]
        properties = {name: _value(typed) for name, typed in found.properties.items()}
        return Described(CORRELATION_FILTER, [*values, properties])
    plain = "".join(found.expression.split())
    if not found.parameters and plain in ("1=1", "1=0"):
        return Described(TRUE_FILTER if plain == "1=1" else FALSE_FILTER, [])
    return Described(SQL_FILTER, [found.expression, LEVEL])


def _value(typed: Typed) -> Any:
    kind, text = typed
    if kind == "boolean":
        return text in ("true", "1")
    if kind in ("int", "short", "byte"):
        return Int(text)
    if kind == "long":
        return Long(text)
    return float(text) if kind in ("double", "float") else text
