"""Run in a process of its own, with an older azure-servicebus in front: what it does, and prints as JSON.

That release knows no emulator: it speaks TLS, on the standard port or over a WebSocket. Its links open and
close slowly, so that all checks run at once, each with entities of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import azure.servicebus
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.aio import ServiceBusClient as AsyncClient
from azure.servicebus.management import (
    CorrelationRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
)

HOST, HTTPS_PORT, AUTHORITY = sys.argv[1:]
KEY = "SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE"
CONNECTION = f"Endpoint=sb://{HOST};{KEY}"
WAIT = 10
AND_DELETE = ServiceBusReceiveMode.RECEIVE_AND_DELETE
admin = ServiceBusAdministrationClient.from_connection_string(f"Endpoint=sb://{HOST}:{HTTPS_PORT};{KEY}")


def connect(kind=ServiceBusClient, text=CONNECTION, **options):
    return kind.from_connection_string(text, connection_verify=AUTHORITY, retry_total=0, **options)


def connect_web(kind=ServiceBusClient):
    endpoint = f"sb://{HOST}:{HTTPS_PORT}"
    return connect(kind, transport_type=TransportType.AmqpOverWebsocket, custom_endpoint_address=endpoint)


client = connect()


def send(queue, *bodies, **properties):
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage(body, **properties) for body in bodies])


def take(receiver, count=1, wait=WAIT):
    return receiver.receive_messages(count, max_wait_time=wait)


def dead_letters(queue):
    with client.get_queue_receiver(
        queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER, receive_mode=AND_DELETE
    ) as receiver:
        return [(str(m), m.dead_letter_reason, m.dead_letter_error_description) for m in take(receiver)]


def raised(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return type(error).__name__
    return None


def texts(messages):
    return [str(message) for message in messages]


def sends_and_receives(queue):
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(
            ServiceBusMessage("one", subject="s", message_id="id", application_properties={"n": 1, "t": "x"})
        )
        batch = sender.create_message_batch()
        for n in range(50):
            batch.add_message(ServiceBusMessage(f"m{n}"))
        sender.send_messages(batch)
        large = raised(sender.send_messages, ServiceBusMessage("x" * 2_000_000))
    with client.get_queue_receiver(queue, prefetch_count=20) as receiver:
        (first,) = take(receiver)
        receiver.complete_message(first)
        rest = []
        while len(rest) < 50 and (found := take(receiver, 50)):
            rest += found
            for message in found:
                receiver.complete_message(message)
        left = take(receiver, 1, 0.5)
    properties = sorted((name.decode(), str(value)) for name, value in first.application_properties.items())
    return {
        "first": [str(first), first.subject, first.message_id, properties, first.delivery_count],
        "order": texts(rest) == [f"m{n}" for n in range(50)],
        "left": texts(left),
        "large": large,
    }


def settles_four_ways(queue):
    send(queue, "a", "b", "c", "d")
    with client.get_queue_receiver(queue) as receiver:
        a, b, c, d = take(receiver, 4)
        receiver.complete_message(a)
        receiver.abandon_message(b)
        receiver.defer_message(c)
        receiver.dead_letter_message(d, reason="why", error_description="because")
        (again,) = take(receiver)
        receiver.renew_message_lock(again)
        receiver.complete_message(again)
        (deferred,) = receiver.receive_deferred_messages([c.sequence_number])
        receiver.complete_message(deferred)
        return {
            "again": [str(again), again.delivery_count],
            "deferred": str(deferred),
            "gone": raised(receiver.receive_deferred_messages, [c.sequence_number]),
            "left": texts(receiver.peek_messages(9)),
            "dead": dead_letters(queue),
        }


def schedules_and_peeks(queue):
    far = datetime.now(UTC) + timedelta(hours=1)
    send(queue, "now")
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        first, second = sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], far)
        peeked = [(str(m), m.state.name) for m in receiver.peek_messages(9)]
        sender.cancel_scheduled_messages(first)
        return {
            "peeked": peeked,
            "left": texts(receiver.peek_messages(9, sequence_number=first)),
            "twice": raised(sender.cancel_scheduled_messages, [first, second]),
        }


def deletes_at_once(queue):
    send(queue, "x", "y")
    with client.get_queue_receiver(queue, receive_mode=AND_DELETE) as receiver:
        return [texts(take(receiver, 2)), texts(receiver.peek_messages(1))]


def holds_sessions(queue):
    with client.get_queue_sender(queue) as sender:
        for n in range(3):
            for session in "ab":
                sender.send_messages(ServiceBusMessage(f"{session}{n}", session_id=session))
    with client.get_queue_receiver(queue, session_id="b") as receiver:
        state = receiver.session
        before = state.get_state()
        state.set_state("half way")
        renewed = state.renew_lock() >= datetime.now(UTC) + timedelta(seconds=50)
        messages = take(receiver, 3)
        receiver.defer_message(messages[0])
        for message in messages[1:]:
            receiver.complete_message(message)
        (deferred,) = receiver.receive_deferred_messages(messages[0].sequence_number)
        receiver.complete_message(deferred)
        held = raised(client.get_queue_receiver(queue, session_id="b").__enter__)
        with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT) as other:
            free = other.session.session_id
        after = state.get_state().decode()
    return {
        "order": texts(messages),
        "state": [before, after],
        "renewed": renewed,
        "held": held,
        "free": free,
    }


def renews_locks(queue):
    """Longer than the lock, which is of the shortest."""
    send(queue, "x")
    with client.get_queue_receiver(queue) as receiver, AutoLockRenewer() as renewer:
        (message,) = take(receiver)
        renewer.register(receiver, message, max_lock_renewal_duration=30)
        nothing = take(receiver, 1, 6)
        receiver.complete_message(message)
        return {"again": texts(nothing), "count": message.delivery_count}


def subscribes(topic):
    admin.create_topic(topic)
    for name in ("all", "big", "red"):
        admin.create_subscription(topic, name)
    for name, rule, action in (
        ("big", SqlRuleFilter("size > 5"), SqlRuleAction("SET grown = TRUE")),
        ("red", CorrelationRuleFilter(label="s", properties={"color": "red"}), None),
    ):
        admin.delete_rule(topic, name, "$Default")
        admin.create_rule(topic, name, "r", filter=rule, action=action)
    with client.get_topic_sender(topic) as sender:
        for size, color in ((1, "red"), (9, "blue")):
            sender.send_messages(
                ServiceBusMessage(
                    f"{size}", subject="s", application_properties={"size": size, "color": color}
                )
            )
    found = {}
    for name, count in (("all", 2), ("big", 1), ("red", 1)):
        with client.get_subscription_receiver(topic, name, receive_mode=AND_DELETE) as receiver:
            messages = take(receiver, count)
            found[name] = [(str(m), b"grown" in m.application_properties) for m in messages]
    return found


def administers(queue):
    properties = admin.get_queue(queue)
    properties.max_delivery_count = 3
    properties.lock_duration = timedelta(seconds=30)
    admin.update_queue(properties)
    after = admin.get_queue(queue)
    counts = admin.get_queue_runtime_properties(queue)
    admin.delete_queue(queue)
    return {
        "changed": [after.max_delivery_count, after.lock_duration.total_seconds()],
        "counts": [counts.total_message_count, counts.active_message_count],
        "gone": raised(admin.get_queue, queue),
        "twice": raised(admin.create_topic, "subscribes"),
    }


def refuses(queue):
    with connect(text=CONNECTION.replace("SAS_KEY_VALUE", "d3Jvbmc=")) as stranger:
        unknown = raised(stranger.get_queue_sender(queue).__enter__)
    return {
        "absent": raised(client.get_queue_receiver("absent").__enter__),
        "unknown": unknown,
        "session": raised(client.get_queue_receiver(queue, session_id="s").__enter__),
    }


def over_a_web_socket(queue):
    with connect_web() as other:
        with other.get_queue_sender(queue) as sender:
            sender.send_messages(ServiceBusMessage("over a socket"))
        with other.get_queue_receiver(queue, receive_mode=AND_DELETE) as receiver:
            return texts(take(receiver))


def through_async(queue):
    """Without a WebSocket this release sets options of its socket that Linux refuses on loopback."""

    async def main():
        async with connect_web(AsyncClient) as other:
            async with other.get_queue_sender(queue) as sender:
                await sender.send_messages([ServiceBusMessage(f"{n}") for n in range(3)])
            async with other.get_queue_receiver(queue, max_wait_time=WAIT) as receiver:
                found = []
                async for message in receiver:
                    await receiver.complete_message(message)
                    found.append(str(message))
                    if len(found) == 3:
                        return found
        return found

    return asyncio.run(main())


QUEUES = {"holds_sessions": {"requires_session": True}, "renews_locks": {"lock_duration": "PT5S"}}
CHECKS = (
    renews_locks,
    sends_and_receives,
    settles_four_ways,
    schedules_and_peeks,
    deletes_at_once,
    holds_sessions,
    subscribes,
    refuses,
    over_a_web_socket,
    through_async,
)


def done(check):
    try:
        if check is not subscribes:
            admin.create_queue(check.__name__, **QUEUES.get(check.__name__, {}))
        return {"value": check(check.__name__)}
    except Exception:
        return {"error": traceback.format_exc()}


def main() -> None:
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        found = dict(zip((check.__name__ for check in CHECKS), pool.map(done, CHECKS), strict=True))
    found["administers"] = done(administers)
    found["version"] = {"value": azure.servicebus.__version__}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
