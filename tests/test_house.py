"""The law of the house: who may import whom, sizes, and what never appears. See ARCHITECTURE.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "hubbub"
MODULES = sorted(SRC.rglob("*.py"))

NEVER = {
    "wire": {"broker", "engine", "front", "cli", "config", "server", "telemetry", "clock", "chance", "tls"},
    "engine": {"broker", "front", "wire", "cli", "config", "server", "telemetry", "clock", "chance", "tls"},
    "broker": {"wire", "front", "cli", "config", "server", "telemetry", "tls"},
    "front": {"cli", "config", "server", "tls"},
    "telemetry": {"cli", "config", "server", "wire", "engine", "front"},
}
ENGINE_CONTRACT = {"hubbub.engine.log"}
IMPURE = {"asyncio", "time", "random", "os", "socket", "logging", "threading", "secrets"}
WAIST = {"broker/namespace.py"}
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 600


def name_of(path: Path) -> str:
    return str(path.relative_to(SRC))


def imports(path: Path) -> set[str]:
    """Absolute names of all modules imported, those only for types included."""
    package = ("hubbub", *path.relative_to(SRC).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module} if node.module else {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_layers(path):
    layer = path.relative_to(SRC).parts[0].removesuffix(".py")
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("hubbub.")}
    assert not ours & NEVER.get(layer, set())
    engines = {name for name in imports(path) if name.startswith("hubbub.engine.")}
    if layer in ("broker", "front"):
        assert engines <= ENGINE_CONTRACT
    doors = {name.split(".")[2] for name in imports(path) if name.startswith("hubbub.front.")}
    if layer == "front" and len(path.relative_to(SRC).parts) > 2:
        assert doors <= {path.relative_to(SRC).parts[1], "http"}


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(SRC).parts[0] in ("wire", "broker")], ids=name_of
)
def test_purity(path):
    if name_of(path) not in WAIST:
        assert not {name.split(".")[0] for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_shape(path):
    text = path.read_text()
    tree = ast.parse(text)
    if path.name != "__init__.py" or text.strip():
        assert ast.get_docstring(tree), "a module opens with what it is"
    assert text.count("\n") <= MODULE_LINES_MAX
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, node.name
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)


def test_only_the_clock_asks_for_the_time():
    """The command line and the token helpers of a person may; the server may not."""
    asked = re.compile(r"\btime\.time(_ns)?\(|datetime\.now\(|datetime\.utcnow\(")
    found = {name_of(p) for p in MODULES if asked.search(p.read_text())}
    assert {name for name in found if not name.startswith("cli/")} <= {"clock.py", "tls.py"}


def test_functions_are_short():
    sizes = sorted(
        node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    assert sizes[len(sizes) // 2] < 10
    assert sizes[len(sizes) * 9 // 10] < 30


def test_no_private_vocabulary():
    names = {part for path in MODULES for part in path.relative_to(SRC).with_suffix("").parts}
    assert not names & {"manager", "helper", "helpers", "util", "utils", "common", "base", "impl"}
