"""An older release of the official Event Hubs client, unmodified, against a real server process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import older

from live import environment, running

HERE = Path(__file__).parent
RELEASE = "5.11"


def test_the_older_release(tmp_path):
    front = older.installed("azure-eventhub", RELEASE)
    flags = ("--hub", "events", "--tls", "auto", "--https-port", "0", "--data", str(tmp_path), "--memory")
    with running(tmp_path, *flags) as live:
        endpoint = live.ready["https"].replace("https://127.0.0.1", "sb://localhost")
        text = live.connection_string.replace("UseDevelopmentEmulator=true;", "")
        done = subprocess.run(
            [sys.executable, "older_eventhubs.py", text, endpoint, str(tmp_path / "tls/ca.pem")],
            cwd=HERE,
            env=environment(PYTHONPATH=str(front)),
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("version").startswith(RELEASE)
    assert found == {
        "ids": ["0", "1", "2", "3"],
        "last": 2,
        "all": ["a", "b", "c"],
        "behind": ["c"],
        "websocket": ["over a socket"],
        "async": ["async"],
        "refused": "AuthenticationError",
    }
