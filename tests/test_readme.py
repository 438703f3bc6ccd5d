"""The README's code blocks are run, as they stand, against a real server process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.S)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
TOML = re.findall(r"```toml\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`hubbub up` on a free port, and an environment in which `hubbub` means this checkout."""
    folder = tmp_path_factory.mktemp("readme")
    script = folder / "hubbub"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hubbub "$@"\n')
    script.chmod(0o755)
    environment = dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}")
    ready = folder / "ready.json"
    arguments = ["up", "--port", "0", "--data", str(folder / "data"), "--ready-file", str(ready), "-q"]
    process = subprocess.Popen([sys.executable, "-m", "hubbub", *arguments], env=environment, cwd=folder)
    for _ in range(200):
        if ready.exists():
            break
        time.sleep(0.05)
    told = json.loads(ready.read_text())
    port = told["http"].rpartition(":")[2]
    environment["HUBBUB_CONNECTION_STRING"] = told["connection_string"]
    yield environment, port
    process.terminate()
    assert process.wait(15) == 0


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.strip().splitlines()[0][:50])
def test_shell_block(server, block, tmp_path):
    environment, port = server
    script = "set -e\n" + block.replace("localhost:5300", f"localhost:{port}")
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for expected in re.findall(r"^# (HTTP/1.1 .*)$", block, re.M):
        assert expected in done.stdout


@pytest.mark.parametrize("block", PYTHON)
def test_python_block(server, block, tmp_path):
    environment, port = server
    script = block.replace("sb://localhost;", f"sb://localhost:{port};")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+|hello", done.stdout.strip())


@pytest.mark.parametrize("block", TOML)
def test_configuration_block(block, tmp_path):
    from hubbub.config import load

    path = tmp_path / "hubbub.toml"
    path.write_text(block)
    (namespace,) = load(str(path)).namespaces
    assert [entity.path for entity in namespace.entities] == ["orders", "telemetry"]


def test_there_are_blocks():
    assert len(SHELL) >= 6
    assert len(TOML) >= 1
