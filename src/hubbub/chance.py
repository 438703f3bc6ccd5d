"""Random GUIDs, as lock tokens and message ids: one call to the system for 256 of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

_SIZE = 16


def _guids() -> Iterator[bytes]:
    while True:
        page = os.urandom(256 * _SIZE)
        yield from (page[at : at + _SIZE] for at in range(0, len(page), _SIZE))


guid_bytes = _guids().__next__
"""The 16 bytes of a fresh one. For the loop's thread alone."""
