"""The rows of Service Bus: queues against RabbitMQ; topics, full queues and sessions against an empty, plain
queue; and a restart with very many messages.

The clients are programs of `servicebus_load`, each in a process of its own. What is compared runs in turn,
several times, and the medians are compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import rig
from rabbit import PROGRAM as RABBIT
from rabbit import USER, rabbit
from rig import KEY, KEY_NAME, MILLION, ROUNDS, Row, alternating, running

LOAD = Path(__file__).parent / "servicebus_load.py"
OWNER = (KEY_NAME, KEY)
MESSAGES_PER_SECOND = 10_000
"""How many a round has for each second that was asked for."""
SUBSCRIPTIONS, REGIONS = 100, 10
SESSIONS, EACH, RECEIVERS = 10_000, 10, 100
QUEUES = 1_000

rate = partial(rig.rate, LOAD)


class ServiceBusRows:
    NAMES = ("messages", "topic", "waiting", "sessions", "restart")

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.count = round(seconds * MESSAGES_PER_SECOND)

    @staticmethod
    def needs(name: str) -> str | None:
        """What is missing for a row, if anything."""
        return "rabbitmq-server not installed" if name == "messages" and not RABBIT.exists() else None

    def messages(self) -> Iterator[Row]:
        with rabbit(self.folder) as port, running(self.folder) as server:
            ours, theirs = _medians(
                (self._both(server.port, "queue"), self._both(port, "/queue/bench", (USER, USER)))
                for _ in range(ROUNDS)
            )
        yield _ratio("send single messages of 256 B / RabbitMQ", ours[0], theirs[0], ">=1")
        yield _ratio("receive and accept, prefetch 500 / RabbitMQ", ours[1], theirs[1], ">=0.8")

    def topic(self) -> Iterator[Row]:
        subscriptions = [_subscription(number) for number in range(SUBSCRIPTIONS)]
        config = self._config(
            Queues=[{"Name": "plain"}], Topics=[{"Name": "all", "Subscriptions": subscriptions}]
        )
        with running(self.folder, "--config", config) as server:
            ours, theirs = alternating(
                partial(rate, "send", server.port, "all", self.count // 4, "regional", *OWNER),
                partial(rate, "send", server.port, "plain", self.count // 4, "regional", *OWNER),
            )
        yield _ratio("send to 100 subscriptions, 10 match / to a queue", ours, theirs, ">=0.15")

    def waiting(self) -> Iterator[Row]:
        config = self._config(Queues=[{"Name": "full"}, {"Name": "empty"}])
        with running(self.folder, "--config", config) as server:
            rate("fill", server.port, "full", MILLION, 0, *OWNER)
            full, empty = _medians(
                (self._both(server.port, "full"), self._both(server.port, "empty")) for _ in range(ROUNDS)
            )
        yield _ratio("send to a queue with a million messages / empty", full[0], empty[0], ">=0.8")
        yield _ratio("receive from it / from an empty one", full[1], empty[1], ">=0.8")

    def sessions(self) -> Iterator[Row]:
        config = self._config(
            Queues=[{"Name": "plain"}, {"Name": "seated", "Properties": {"RequiresSession": True}}]
        )
        count = SESSIONS * EACH

        def seated(port: int) -> float:
            rate("fill", port, "seated", count, SESSIONS, *OWNER)
            return rate("sessions", port, "seated", count, RECEIVERS, *OWNER)

        def plain(port: int) -> float:
            rate("fill", port, "plain", count, 0, *OWNER)
            return rate("receive", port, "plain", count, *OWNER)

        with running(self.folder, "--config", config) as server:
            ours, theirs = alternating(partial(seated, server.port), partial(plain, server.port))
        yield _ratio("10 000 sessions, 100 receivers / a plain queue", ours, theirs, ">=0.4")

    def restart(self) -> Iterator[Row]:
        names = [f"q{number}" for number in range(QUEUES)]
        config = self._config(Queues=[{"Name": name} for name in names])
        with running(self.folder, "--config", config, data="restart") as server:
            rate("fill", server.port, ",".join(names), MILLION // QUEUES, 0, *OWNER)
        with running(self.folder, "--config", config, data="restart") as server:
            note = f"{server.megabytes():.0f} MB then"
        yield Row("restart with a million in 1 000 queues, s", server.seconds, "<=6", note)

    def _both(self, port: int, address: str, owner: tuple[str, str] = OWNER) -> tuple[float, float]:
        """Sends some, and receives as many; messages a second of each."""
        sent = rate("send", port, address, self.count, "plain", *owner)
        return sent, rate("receive", port, address, self.count, *owner)

    def _config(self, **entities: list[dict[str, Any]]) -> str:
        path = self.folder / "Config.json"
        path.write_text(json.dumps({"UserConfig": {"Namespaces": [{"Name": "bench", **entities}]}}))
        return str(path)


def _subscription(number: int) -> dict[str, Any]:
    """One that takes a tenth of what comes, by a filter of its own."""
    expression = f"region = 'r{number % REGIONS}' AND amount > {number}"
    rule = {
        "Name": "own",
        "Properties": {"FilterType": "Sql", "SqlFilter": {"SqlExpression": expression}},
    }
    return {"Name": f"s{number}", "Rules": [rule]}


def _medians(
    rounds: Iterator[tuple[tuple[float, float], tuple[float, float]]],
) -> list[list[float]]:
    """Of each figure of each side."""
    sides = zip(*rounds, strict=True)
    return [[statistics.median(figures) for figures in zip(*side, strict=True)] for side in sides]


def _ratio(what: str, ours: float, theirs: float, bound: str) -> Row:
    return Row(what, ours / theirs, bound, f"{ours:,.0f}/s against {theirs:,.0f}/s")
