"""An application that nobody here wrote: Celery, whose workers and clients speak to a real server process.

Its broker URL is `azureservicebus://NAME:KEY@HOST`, and Celery offers no option for ports, certificates or
a server without TLS. So everything goes as a user has it: `--tls auto`, the authority added to the
certificates of `certifi` (a copy of them here), and either the URL of a local server, or a namespace's own
name, which the machine resolves. The server has a loopback address to itself, because the port for AMQP
with TLS can only be the usual one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from azure.servicebus.management import ServiceBusAdministrationClient

from live import ROOT, WELL_KNOWN, Live, hubbub

pytest.importorskip("celery", reason="Celery is not installed; pip install '.[test]' brings it")

HERE = Path(__file__).parent
AMQPS, HTTPS = 5671, 5343
PATIENCE = 30

RESOLVER = '''"""What /etc/hosts and a redirection of port 443 would do on this machine."""
import os, socket
name, address, port = os.environ["RESOLVES"].split()
system = socket.getaddrinfo
def getaddrinfo(host, service, *rest, **more):
    if host in (name, name.encode()):
        host, service = address, int(port) if service == 443 else service
    return system(host, service, *rest, **more)
socket.getaddrinfo = getaddrinfo
'''


def lonely_address() -> str:
    """A loopback address on which nobody has the ports."""
    number = os.getpid()
    for step in range(50):
        address = f"127.{64 + step}.{number >> 8 & 255}.{number & 255}"
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (AMQPS, HTTPS):
                probe = stack.enter_context(socket.socket())
                probe.bind((address, port))
            return address
    raise AssertionError("no loopback address is free")


class House:
    """A server, a folder, and Celery processes that know both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = lonely_address()
        self.namespace = "contoso.servicebus.windows.net"
        self.live = self._start()
        self.site = folder / "site"
        shutil.copytree(Path(certifi.__file__).parent, self.site / "certifi")
        self.bundle = self.site / "certifi/cacert.pem"
        with self.bundle.open("a") as file:
            file.write(hubbub("trust", "--data", str(folder / "data"), "--pem").stdout)
        (self.site / "sitecustomize.py").write_text(RESOLVER)
        (folder / "results").mkdir()
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self) -> Live:
        flags = ("--host", self.address, "--https-port", str(HTTPS), "--amqps-port", str(AMQPS))
        tls = ("--tls", "auto", "--tls-host", self.namespace)
        return Live(self.folder, *flags, *tls, "--data", str(self.folder / "data"))

    def restart(self) -> None:
        """As after a power cut."""
        self.live.kill()
        self.live = self._start()

    @property
    def broker(self) -> str:
        return f"azureservicebus://{ROOT}:{WELL_KNOWN}@{self.address}:{HTTPS}/.net"

    def environment(self, **more: str) -> dict[str, str]:
        path = [str(self.site), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "REQUESTS_CA_BUNDLE": str(self.bundle),
            "CELERY_BROKER": self.broker,
            "CELERY_RESULTS": str(self.folder / "results"),
            "RESOLVES": f"{self.namespace} {self.address} {HTTPS}",
            **more,
        }

    def command(self, *arguments: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "celery_tasks", *arguments],
            env=self.environment(**more),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def worker(self, name: str, queues: str, *flags: str, **more: str):
        """A `celery worker` from when it is ready; yields its process."""
        ready, log = self.folder / f"{name}.ready", self.folder / f"{name}.log"
        ready.unlink(missing_ok=True)
        arguments = ["worker", "-n", f"{name}@here", "-Q", queues, "-l", "info", "--pool", "solo", *flags]
        with log.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "celery_tasks", *arguments],
                env=self.environment(**more),
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            until(lambda: b"ready." in log.read_bytes() or worker.poll() is not None)
            assert worker.poll() is None, log.read_text()
            yield worker
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    def left(self, queue: str) -> int:
        """How many messages the queue has, locked ones too."""
        client = ServiceBusAdministrationClient.from_connection_string(
            f"Endpoint=sb://{self.address}:{HTTPS};SharedAccessKeyName={ROOT};SharedAccessKey={WELL_KNOWN}"
        )
        with client:
            return client.get_queue_runtime_properties(queue).total_message_count


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("celery"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(house.bundle))
        for name, value in house.environment().items():
            if name != "PYTHONPATH":
                patch.setenv(name, value)
        yield house
    house.live.kill()


@pytest.fixture(scope="module")
def tasks(house):
    """The application as a program sees it that calls tasks."""
    tasks = importlib.import_module("celery_tasks")
    yield tasks
    tasks.app.close()


@pytest.fixture(scope="module")
def workers(house):
    # A worker looks into its queues by turns, a second each: the first one is the quick one.
    with (
        house.worker("first", "celery"),
        house.worker("second", "mail,reports.daily", "--pool", "prefork", "--concurrency", "1"),
    ):
        yield


def got(result, **options):
    return result.get(timeout=PATIENCE, interval=0.02, **options)


def test_results(workers, tasks):
    assert [got(result) for result in [tasks.add.delay(n, 1) for n in range(5)]] == [1, 2, 3, 4, 5]


def test_a_task_that_fails(workers, tasks):
    with pytest.raises(LookupError, match="nothing there"):
        got(tasks.broken.delay())


def test_arguments_that_need_several_frames(workers, tasks):
    assert got(tasks.size.delay("x" * 150_000)) == 150_000


def test_chain(workers, tasks):
    assert got((tasks.add.s(1, 2) | tasks.add.s(3) | tasks.add.s(4))()) == 10


def test_countdown_and_eta(workers, tasks):
    now = time.time()
    later = tasks.moment.apply_async(countdown=1)
    latest = tasks.moment.apply_async(eta=datetime.now(UTC) + timedelta(seconds=1.5))
    assert got(later) >= now + 1
    assert got(latest) >= now + 1.5


def test_retries(workers, tasks):
    assert got(tasks.flaky.delay(2)) == 2


def test_retries_come_to_an_end(workers, tasks):
    with pytest.raises(ConnectionError, match="not yet"):
        got(tasks.flaky.delay(9))


def test_routes(workers, tasks):
    assert got(tasks.mail.delay()) == ["second@here", "mail"]
    assert got(tasks.report.delay()) == ["second@here", "reports.daily"]
    assert got(tasks.mail.apply_async(queue="celery")) == ["first@here", "celery"]


def test_what_is_done_is_gone(house, workers, tasks):
    until(lambda: [house.left(queue) for queue in ("celery", "mail", "reports.daily")] == [0, 0, 0])


def test_purge(house, tasks):
    for number in range(25):
        tasks.add.apply_async((number, number), queue="idle")
    assert house.left("idle") == 25
    assert "25 messages" in house.command("purge", "-f", "-Q", "idle")
    assert house.left("idle") == 0


def test_a_killed_worker_loses_no_task(house, tasks):
    diary = house.folder / "killed"
    result = tasks.lengthy.apply_async((str(diary), 600), queue="fragile")
    with house.worker("victim", "fragile") as victim:
        until(diary.exists)
        victim.kill()
    with house.worker("heir", "fragile"):
        assert got(result) == "done"
        first, second = (line.split() for line in diary.read_text().splitlines())
        assert first[0] == second[0]
        # Nobody gives the message back for the dead worker: its lock has to end.
        assert float(second[1]) - float(first[1]) > tasks.LOCK_SECONDS - 2
        until(lambda: house.left("fragile") == 0)


def test_a_task_longer_than_its_lock(house, tasks):
    diary = house.folder / "renewed"
    result = tasks.lengthy.apply_async((str(diary), tasks.LOCK_SECONDS + 2), queue="patient")
    with house.worker("one", "patient", CELERY_RENEWS="1"), house.worker("other", "patient"):
        assert got(result) == "done"
        until(lambda: house.left("patient") == 0)
    assert len(diary.read_text().splitlines()) == 1


def test_the_server_is_killed_and_comes_back(house, workers, tasks):
    before = [tasks.add.apply_async((number, 0), queue="kept") for number in range(3)]
    house.restart()
    assert house.left("kept") == 3
    assert got(tasks.mail.delay()) == ["second@here", "mail"]
    with house.worker("late", "kept"):
        assert sorted(map(got, before)) == [0, 1, 2]


def test_by_the_name_of_a_namespace(house, tasks):
    broker = f"azureservicebus://{ROOT}:{WELL_KNOWN}@{house.namespace.partition('.')[0]}"
    number = house.command(
        "call", "celery_tasks.add", "--args", "[20, 3]", "--queue", "named", CELERY_BROKER=broker
    )
    with house.worker("named", "named", CELERY_BROKER=broker):
        assert got(tasks.app.AsyncResult(number.split()[-1])) == 23
