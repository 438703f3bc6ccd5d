"""A RabbitMQ node of Debian's package, in a folder of its own, on loopback, pinned to core 0."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rig import pinned

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PORT, DISTRIBUTION_PORT, NAMES_PORT = 18_083, 18_084, 18_085
USER = "guest"


@contextlib.contextmanager
def rabbit(folder: Path) -> Iterator[int]:
    """Its AMQP port. The node names server is started here too, so that none outlives the run."""
    home = Path(tempfile.mkdtemp(dir=folder, prefix="rabbit-"))
    (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{PORT}\n")
    (home / "enabled_plugins").write_text("[rabbitmq_amqp1_0].\n")
    environment = {
        **os.environ,
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(NAMES_PORT),
        "RABBITMQ_NODENAME": "bench@localhost",
        "RABBITMQ_DIST_PORT": str(DISTRIBUTION_PORT),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    with open(home / "out", "wb") as out:
        names = subprocess.Popen(["epmd"], env=environment, stdout=out, stderr=out)
        # A session of its own: the script starts the node as a child, and both must go.
        node = subprocess.Popen(
            [*pinned(0), str(PROGRAM)], env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        _answers(node, home)
        yield PORT
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(60)
        names.terminate()
        names.wait()


def _answers(node: subprocess.Popen[bytes], home: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        assert node.poll() is None, (home / "out").read_text()
        time.sleep(0.1)
    raise AssertionError("RabbitMQ does not answer")
