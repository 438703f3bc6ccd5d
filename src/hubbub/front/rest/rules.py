"""Filters and actions of rules as XML, both ways (REST reference 7.6).

Not here: the description around them (`descriptions`), what they mean (`broker.filters`).
"""

from __future__ import annotations

from typing import Any

from ...broker.entity import Rule
from ...broker.errors import Invalid
from ...broker.filters import CORRELATED, CorrelationFilter, Filter, SqlFilter, Typed
from .atom import Element, tag, text_of

SCHEMA = "http://www.w3.org/2001/XMLSchema"
LEVEL = "<CompatibilityLevel>20</CompatibilityLevel>"
PARAMETERS_MAX = 256
_EXPRESSIONS = {"TrueFilter": "1=1", "FalseFilter": "1=0"}


def read_rule(element: Element) -> dict[str, Any]:
    """The fields of a Rule that a RuleDescription gives. Raises Invalid."""
    values: dict[str, Any] = {}
    found = element.child("Filter")
    if found is not None and (found.type or found.children):
        values["filter"] = _read_filter(found)
    action = element.child("Action")
    if action is not None and (action.type or action.children) and action.type != "EmptyRuleAction":
        if action.type not in ("SqlRuleAction", "SqlFilterAction"):
            raise Invalid(f"SubCode=40000. '{action.type or 'nothing':.60}' is not a type of rule action.")
        values["action"] = action.get("SqlExpression")
        values["action_parameters"] = _read_values(action.child("Parameters"))
    return values


def _read_filter(found: Element) -> Filter:
    if found.type in _EXPRESSIONS:
        # Its own expression is only decoration, and the official client's false filter says 1=1.
        return SqlFilter(expression=_EXPRESSIONS[found.type])
    if found.type in ("SqlFilter", "SqlFilterExpression"):
        parameters = _read_values(found.child("Parameters"))
        return SqlFilter(expression=found.get("SqlExpression"), parameters=parameters)
    if found.type == "CorrelationFilter":
        system = {name: found.get(name) for name in CORRELATED if found.get(name)}
        return CorrelationFilter(system=system, properties=_read_values(found.child("Properties")))
    raise Invalid(f"SubCode=40000. '{found.type or 'nothing':.60}' is not a type of filter.")


def _read_values(element: Element | None) -> dict[str, Typed]:
    found: dict[str, Typed] = {}
    for item in element.children if element is not None else ():
        parts = {child.name: child for child in item.children}
        if "Key" not in parts or "Value" not in parts:
            raise Invalid("SubCode=40000. A parameter or property of a rule needs a Key and a Value.")
        found[parts["Key"].text] = (parts["Value"].type or "string", parts["Value"].text)
    if len(found) > PARAMETERS_MAX:
        raise Invalid(f"SubCode=40000. A rule may have no more than {PARAMETERS_MAX} parameters.")
    return found


def write_filter(rule: Rule) -> str:
    wanted = rule.filter
    if isinstance(wanted, CorrelationFilter):
        names = "".join(tag(name, wanted.system[name]) for name in CORRELATED if name in wanted.system)
        inner = names + _written("Properties", wanted.properties)
        return f'<Filter i:type="CorrelationFilter">{inner}</Filter>'
    kind = "SqlFilter"
    if not wanted.parameters:
        plain = "".join(wanted.expression.split())
        kind = next((name for name, text in _EXPRESSIONS.items() if text == plain), kind)
    inner = tag("SqlExpression", wanted.expression) + LEVEL + _written("Parameters", wanted.parameters)
    return f'<Filter i:type="{kind}">{inner}</Filter>'


def write_action(rule: Rule) -> str:
    if not rule.action:
        return '<Action i:type="EmptyRuleAction"/>'
    inner = tag("SqlExpression", rule.action) + LEVEL + _written("Parameters", rule.action_parameters)
    return f'<Action i:type="SqlRuleAction">{inner}</Action>'


def _written(name: str, values: dict[str, Typed]) -> str:
    if not values:
        return ""
    inner = ""
    for key, (kind, text) in values.items():
        # The type is one of a few known names: the rule was validated.
        opening = f'<Value i:type="d6p1:{kind}" xmlns:d6p1="{SCHEMA}">'
        pair = f"{tag('Key', key)}{opening}{text_of(text)}</Value>"
        inner += f"<KeyValueOfstringanyType>{pair}</KeyValueOfstringanyType>"
    return f"<{name}>{inner}</{name}>"
