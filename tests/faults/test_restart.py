"""The server dies under load, again and again; the official clients come back by themselves and lose nothing."""

from __future__ import annotations

import signal
import threading
import time

from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError

from live import running

DEATHS = 3


class Load:
    """One producer and one consumer of the official client, in threads of their own."""

    def __init__(self, connection: str) -> None:
        retries = {"retry_total": 20, "retry_backoff_factor": 0.05, "retry_backoff_max": 0.2}
        self.producer = EventHubProducerClient.from_connection_string(
            connection, eventhub_name="events", **retries
        )
        self.consumer = EventHubConsumerClient.from_connection_string(
            connection, consumer_group="$Default", eventhub_name="events", **retries
        )
        self.acknowledged: list[str] = []
        self.received: list[str] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            try:
                self.producer.send_event(EventData(str(number)), partition_id="0")
                self.acknowledged.append(str(number))
            except EventHubError:
                """Not acknowledged: it may be there or not."""

    def _receive(self) -> None:
        self.consumer.receive(
            lambda _, event: self.received.append(event.body_as_str()),
            partition_id="0",
            starting_position="-1",
        )

    def wait_for(self, count: int) -> None:
        for _ in range(3000):
            if len(self.received) >= count and set(self.acknowledged) <= set(self.received):
                return
            time.sleep(0.01)
        raise AssertionError(f"{len(self.acknowledged)} sent, {len(self.received)} received")

    def stop(self) -> None:
        self.stopping.set()
        self.threads[0].join(60)
        self.wait_for(len(self.acknowledged))
        self.consumer.close()
        self.producer.close()
        self.threads[1].join(20)


def test_clients_come_back_by_themselves(tmp_path):
    flags = ("--data", str(tmp_path / "data"), "--hub", "events:1")
    with running(tmp_path, *flags) as live:
        port = str(live.port)
        load = Load(live.connection_string)
        load.wait_for(20)
        live.stop(signal.SIGKILL)
    for _ in range(DEATHS - 1):
        with running(tmp_path, *flags, "--port", port) as live:
            load.wait_for(len(load.received) + 20)
            live.stop(signal.SIGKILL)
    with running(tmp_path, *flags, "--port", port):
        load.wait_for(len(load.received) + 20)
        load.stop()
    # A consumer that comes back may see again what it had; the first time it sees them, they are in order.
    first = [int(body) for body in dict.fromkeys(load.received)]
    assert first == sorted(first)
    assert set(load.acknowledged) <= set(load.received)
