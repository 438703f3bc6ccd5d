"""Older releases of the official Python clients, each in a folder of its own beside the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def installed(package: str, release: str) -> Path:
    """The folder to put in front of all others, so that `package` is what it was in `release`."""
    folder = Path(__file__).with_name(f".{package}-{release}")
    if not (folder / "azure").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*install, f"{package}=={release}.*"], check=True, timeout=120)
    return folder
