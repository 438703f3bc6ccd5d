"""Kill -9, again and again: nothing acknowledged may be lost, nothing completed may come back.

Fault model: a real server process on one data folder is killed at a random moment (seeded) while writers
and receivers talk to it, then started again. The disk itself does not lie. A request without
an answer may or may not have happened; everything with an answer must have. Segments are small, so that many are
cleaned and removed meanwhile.

Writers send numbered bodies to every partition of a hub, to queues and to a topic, each alone on its target, so
that order can be checked: over HTTP one request at a time, over AMQP many under way. Receivers lock and
complete, or receive and delete, from the queues and the subscription. After each restart the whole history is
read back, over both, and compared.

    python tests/crash/crash.py --cycles 500
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import over_amqp
import service_bus
from over_http import Link, place

PARTITIONS = 6
AMQP_PARTITIONS = (4, 5)
AMQP_QUEUE = "amqp-queue"
QUEUES = ("queue", AMQP_QUEUE)
ROUND = 10
BATCH = "application/vnd.microsoft.servicebus.json"
SUBSCRIPTION = "topic/subscriptions/subscription"
SOURCES = (*QUEUES, SUBSCRIPTION)


class Server:
    """One life of the server process."""

    def __init__(self, folder: Path, number: int) -> None:
        ready = folder / f"ready-{number}.json"
        arguments = ["up", "--port", "0", "--data", str(folder / "data"), "--ready-file", str(ready), "-q"]
        arguments += [
            "--hub",
            f"events:{PARTITIONS}",
            "--hub",
            f"{over_amqp.MARKS}:1",
            "--topic",
            "topic/subscription",
        ]
        config = folder / "config.toml"
        config.write_text(service_bus.CONFIG)
        arguments += ["--config", str(config)]
        arguments += [word for queue in QUEUES for word in ("--queue", queue)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hubbub", *arguments], stdout=subprocess.DEVNULL
        )
        for _ in range(1000):
            if ready.exists():
                break
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode} instead of starting")
            time.sleep(0.01)
        self.port = int(json.loads(ready.read_text())["http"].rpartition(":")[2])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) == 0


class History:
    """What the clients know: what was acknowledged, what may have happened, what was completed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.acknowledged: dict[str, list[str]] = {}
        self.unsure: dict[str, set[str]] = {}
        self.completed: dict[str, set[str]] = {name: set() for name in SOURCES}
        self.maybe_completed: dict[str, set[str]] = {name: set() for name in SOURCES}
        self.taken_unseen: Counter[str] = Counter()
        """Receive-and-deletes whose answer was cut off: each may have taken one message with it."""
        self.numbers: Counter[str] = Counter()
        self.service_bus = service_bus.new_world()
        self.problems: list[str] = []


def write(history: History, port: int, target: str, chance: random.Random) -> None:
    """Sends numbered messages to one target until the server is gone."""
    link = Link(port)
    sent = history.acknowledged.setdefault(target, [])
    unsure = history.unsure.setdefault(target, set())
    while True:
        count = chance.choice((1, 1, 1, 7))
        bodies = []
        for _ in range(count):
            history.numbers[target] += 1
            bodies.append(f"{target}:{history.numbers[target]}")
        if count == 1:
            answer = link.request("POST", f"/{target}/messages", bodies[0].encode())
        else:
            batch = json.dumps([{"Body": body} for body in bodies]).encode()
            answer = link.request("POST", f"/{target}/messages", batch, BATCH)
        if answer is None:
            unsure.update(bodies)
            return
        if answer[0] == 201:
            sent.extend(bodies)
        else:
            history.problems.append(f"send to {target}: {answer[0]} {answer[2]!r}")
            return


def receive(history: History, port: int, source: str, chance: random.Random) -> None:
    """Locks and completes, unlocks, or receives and deletes, until the server is gone."""
    link = Link(port)
    while True:
        delete = chance.random() < 0.3
        answer = link.request("DELETE" if delete else "POST", f"/{source}/messages/head?timeout=1")
        if answer is None:
            history.taken_unseen[source] += delete
            return
        status, headers, content = answer
        if status == 204:
            continue
        body = content.decode()
        if body in history.completed[source]:
            history.problems.append(f"{body} came back after it was completed")
        if delete:
            history.completed[source].add(body)
            continue
        path = "/" + headers["Location"].split("://", 1)[1].partition("/")[2]
        verb = chance.choice(("DELETE", "DELETE", "DELETE", "PUT"))
        settled = link.request(verb, path)
        if verb == "DELETE":
            known = settled is not None and settled[0] == 200
            (history.completed if known else history.maybe_completed)[source].add(body)
        if settled is None:
            return


def check(history: History, port: int) -> None:
    """Reads everything back and compares."""
    link = Link(port)
    for number in range(PARTITIONS):
        target = f"events/partitions/{number}"
        found = _events(link, number)
        _compare(history, target, found)
        if number in AMQP_PARTITIONS and over_amqp.events(port, number, len(found)) != found:
            history.problems.append(f"{target}: AMQP and the JSON API tell different events")
    for source, target in (*((queue, queue) for queue in QUEUES), (SUBSCRIPTION, "topic")):
        _check_receiver(history, link, source, target)
    service_bus.check(history.service_bus, link, port)
    history.problems += history.service_bus.book.problems
    history.service_bus.book.problems.clear()


def _events(link: Link, number: int) -> list[str]:
    found: list[str] = []
    sequence = 0
    while True:
        path = f"/_hubbub/api/v1/hubs/events/partitions/{number}/events?from=seq:{sequence}&inclusive=1&count=1000"
        status, _, body = link.request("GET", path)
        assert status == 200, body
        events = json.loads(body)
        if not events:
            return found
        assert [e["sequenceNumber"] for e in events] == list(range(sequence, sequence + len(events)))
        found += [event["body"] for event in events]
        sequence += len(events)


def _compare(history: History, target: str, found: list[str]) -> None:
    """Every acknowledged event once and in order; an unsure one at most once; nothing else."""
    acknowledged = history.acknowledged.get(target, [])
    unsure = history.unsure.get(target, set())
    present = Counter(found)
    for body, times in present.items():
        if times > 1:
            history.problems.append(f"{body} is there {times} times")
    known = set(acknowledged)
    kept = [body for body in found if body in known]
    if kept != acknowledged:
        lost = [body for body in acknowledged if body not in present]
        history.problems.append(f"{target}: lost {lost[:3]} ({len(lost)}), or out of order")
    history.problems += [f"{body} is from nowhere" for body in present if body not in known | unsure]


def _check_receiver(history: History, link: Link, source: str, target: str) -> None:
    found = [message["body"] for dead in (False, True) for message in link.messages(source, dead)]
    present = Counter(found)
    completed = history.completed[source]
    for body, times in present.items():
        if times > 1:
            history.problems.append(f"{source}: {body} is there {times} times")
        if body in completed:
            history.problems.append(f"{source}: {body} is there although it was completed")
    gone = completed | history.maybe_completed[source] | present.keys()
    lost = [body for body in history.acknowledged.get(target, []) if body not in gone]
    if len(lost) > history.taken_unseen[source]:
        history.problems.append(f"{source}: {lost[:3]} ({len(lost)}) are lost")
    count = link.read(place(source))["messageCount"]
    if count != len(found):
        history.problems.append(f"{source}: the count is {count}, {len(found)} messages are there")


def cycle(history: History, folder: Path, number: int, chance: random.Random) -> None:
    """One life: check what the one before left, work, and die."""
    server = Server(folder, number)
    try:
        check(history, server.port)
        if number == 0:
            service_bus.prepare(server.port)
        work = [
            (over_amqp.write if n in AMQP_PARTITIONS else write, f"events/partitions/{n}")
            for n in range(PARTITIONS)
        ]
        work += [(write, "queue"), (write, "topic"), (receive, "queue"), (receive, SUBSCRIPTION)]
        work += [(over_amqp.write, AMQP_QUEUE), (over_amqp.receive, AMQP_QUEUE)]
        threads = [
            threading.Thread(target=act, args=(history, server.port, name, random.Random(chance.random())))
            for act, name in work
        ]
        threads.append(
            threading.Thread(
                target=service_bus.live,
                args=(history.service_bus, server.port, random.Random(chance.random())),
            )
        )
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0.05, 0.5))
    finally:
        server.kill()
    for thread in threads:
        thread.join(30)


def run(cycles: int, seed: int, show: bool = False) -> History:
    """All cycles, in rounds that each begin with an empty folder, since every check reads everything.

    Returns the sums over the rounds; `problems` says what went wrong.
    """
    chance = random.Random(seed)
    total = History()
    for first in range(0, cycles, ROUND):
        history = _round(min(ROUND, cycles - first), chance)
        total.problems += history.problems
        for sums, parts in ((total.acknowledged, history.acknowledged), (total.completed, history.completed)):
            for name, bodies in parts.items():
                sums[name] = [*sums.get(name, ()), *bodies]  # type: ignore[assignment]
        total.service_bus.book.done_of += history.service_bus.book.done_of
        if show:
            done = min(first + ROUND, cycles)
            sent = sum(map(len, total.acknowledged.values()))
            print(f"{done}/{cycles}: {sent} acknowledged, {len(total.problems)} problems", flush=True)
        if total.problems:
            break
    return total


def _round(cycles: int, chance: random.Random) -> History:
    history = History()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(cycles):
            cycle(history, folder, number, chance)
            if history.problems:
                break
        server = Server(folder, cycles)
        check(history, server.port)
        server.stop()
    return history


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    history = run(options.cycles, options.seed, show=True)
    total = sum(map(len, history.acknowledged.values()))
    done = sum(map(len, history.completed.values()))
    print(
        f"{options.cycles} cycles: {total} acknowledged, {done} completed, {len(history.problems)} problems"
    )
    print("Service Bus, acknowledged changes to:", dict(history.service_bus.book.done_of))
    for problem in history.problems[:20]:
        print("  " + problem)
    return bool(history.problems)


if __name__ == "__main__":
    sys.exit(main())
