"""Run in a process of its own, with an older azure-eventhub in front: what it does, and prints as JSON.

That release knows no emulator: it speaks TLS, to an endpoint of one's own choice.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import azure.eventhub
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, TransportType
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumerClient
from azure.eventhub.aio import EventHubProducerClient as AsyncProducerClient
from azure.eventhub.exceptions import ConnectError, ConnectionLostError


def options(transport: str = "") -> dict:
    connection, endpoint, authority = sys.argv[1:]
    chosen = {"transport_type": TransportType.AmqpOverWebsocket} if transport else {}
    return {
        "conn_str": connection,
        "custom_endpoint_address": endpoint,
        "connection_verify": authority,
        "eventhub_name": "events",
        "retry_total": 0,
        **chosen,
    }


def send(bodies: list[str], partition: str, transport: str = "") -> None:
    with EventHubProducerClient.from_connection_string(**options(transport)) as producer:
        batch = producer.create_batch(partition_id=partition)
        for body in bodies:
            batch.add(EventData(body))
        producer.send_batch(batch)


def receive(count: int, partition: str, **receive_options) -> list[str]:
    found: list[str] = []
    client = EventHubConsumerClient.from_connection_string(consumer_group="$Default", **options())
    threading.Timer(15, client.close).start()

    def on_event(context, event):
        found.append(event.body_as_str())
        if len(found) >= count:
            threading.Thread(target=client.close).start()

    client.receive(on_event, partition_id=partition, **receive_options)
    return found


async def through_async() -> list[str]:
    found: list[str] = []
    async with AsyncProducerClient.from_connection_string(**options()) as producer:
        await producer.send_batch([EventData("async")], partition_id="2")
    client = AsyncConsumerClient.from_connection_string(consumer_group="$Default", **options())

    async def on_event(context, event):
        found.append(event.body_as_str())
        task.cancel()

    async with client:
        task = asyncio.create_task(client.receive(on_event, partition_id="2", starting_position="-1"))
        await asyncio.wait([task], timeout=15)
    return found


def refused() -> str:
    wrong = {**options(), "conn_str": sys.argv[1].replace("SAS_KEY_VALUE", "d3Jvbmc=")}
    try:
        with EventHubProducerClient.from_connection_string(**wrong) as producer:
            producer.send_batch([EventData("x")])
    except (ConnectError, ConnectionLostError, azure.eventhub.exceptions.AuthenticationError) as error:
        return type(error).__name__
    return "let in"


def main() -> None:
    send(["a", "b", "c"], "0")
    send(["over a socket"], "1", "websocket")
    with EventHubProducerClient.from_connection_string(**options()) as producer:
        ids = producer.get_partition_ids()
        last = producer.get_partition_properties("0")["last_enqueued_sequence_number"]
    found = {
        "version": azure.eventhub.__version__,
        "ids": ids,
        "last": last,
        "all": receive(3, "0", starting_position="-1"),
        "behind": receive(1, "0", starting_position=1),
        "websocket": receive(1, "1", starting_position="-1"),
        "async": asyncio.run(through_async()),
        "refused": refused(),
    }
    print(json.dumps(found))
    sys.stdout.flush()
    # Timers of clients that are closed already need not be waited for.
    __import__("os")._exit(0)


if __name__ == "__main__":
    main()
