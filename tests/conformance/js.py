"""The official JavaScript clients: installed once per checkout, run in a process of Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "js"


def installed() -> None:
    """Skips where there is no Node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    modules = FOLDER / "node_modules"
    if not all((modules / name).exists() for name in ("@azure/event-hubs", "@azure/service-bus", "rhea")):
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(command, cwd=FOLDER, check=True, timeout=300, capture_output=True)


def run(script: str, *arguments: str, **env: str) -> dict[str, dict]:
    """By check: {"value": …} or {"error": {"name", "code", "message"}}."""
    installed()
    done = subprocess.run(
        ["node", script, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=90, env=env or None
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {line["check"]: line for line in map(json.loads, done.stdout.splitlines())}
