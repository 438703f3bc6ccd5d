"""Which messages a rule of a subscription wants, and what its action makes of them. Pure."""

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
)
from .sql import SqlError, Term, parse_action, parse_filter

__all__ = [
    "CORRELATED",
    "SYSTEM_NAMES",
    "ActiveRule",
    "CorrelationFilter",
    "Filter",
    "FilterError",
    "Letter",
    "SqlError",
    "SqlFilter",
    "Term",
    "Typed",
    "Value",
    "activate",
    "compile_action",
    "compile_filter",
    "parse_action",
    "parse_filter",
]
