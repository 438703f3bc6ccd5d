"""Which messages a rule of a subscription wants, and what its action makes of them. Pure."""

from .explain import Change, Finding, Seen, explain_action, explain_filter
from .letter import SYSTEM_NAMES, FilterError, Letter, Value
from .rules import (
    CORRELATED,
    ActiveRule,
    CorrelationFilter,
    Filter,
    SqlFilter,
    Typed,
    activate,
    compile_action,
    compile_filter,
    values_of,
)
from .sql import Action, Demand, NewId, SqlError, Statement, Term, parse_action, parse_filter
from .values import FINDABLE, sought, text_of

__all__ = [
    "CORRELATED",
    "FINDABLE",
    "SYSTEM_NAMES",
    "Action",
    "ActiveRule",
    "Change",
    "CorrelationFilter",
    "Demand",
    "Filter",
    "FilterError",
    "Finding",
    "Letter",
    "NewId",
    "Seen",
    "SqlError",
    "SqlFilter",
    "Statement",
    "Term",
    "Typed",
    "Value",
    "activate",
    "compile_action",
    "compile_filter",
    "explain_action",
    "explain_filter",
    "parse_action",
    "parse_filter",
    "sought",
    "text_of",
    "values_of",
]
