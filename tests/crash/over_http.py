"""The crash test's HTTP client: one request at a time on a kept connection, and readers of whole entities."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

from hubbub.broker.access import sas_token

TOKEN = sas_token("sb://localhost/", "RootManageSharedAccessKey", "SAS_KEY_VALUE", 4102444800)
PAGE = 1000


class Link:
    """One kept connection; None instead of an answer once the server is gone."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "text/plain"):
        headers = {"Authorization": TOKEN, "Content-Type": kind, "Host": "localhost"}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        except (OSError, http.client.HTTPException):
            return None

    def read(self, path: str) -> Any:
        """What the JSON API says there."""
        status, _, body = self.request("GET", f"/_hubbub/api/v1/{path}")
        assert status == 200, body
        return json.loads(body)

    def messages(self, entity: str, dead: bool = False) -> Iterator[dict[str, Any]]:
        """All that a queue or subscription holds, or its dead letters."""
        first = 0
        while True:
            query = f"from={first}&count={PAGE}" + ("&deadLetter=1" if dead else "")
            page = self.read(f"{place(entity)}/messages?{query}")
            yield from page
            if not page:
                return
            first = page[-1]["sequenceNumber"] + 1


def place(entity: str) -> str:
    """Where the JSON API has an entity."""
    topic, subscription, name = entity.partition("/subscriptions/")
    return f"subscriptions/{topic}/{name}" if subscription else f"queues/{entity}"
