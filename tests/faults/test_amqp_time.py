"""What time does to AMQP connections: tokens end, clients fall silent, nobody says who he is."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from amqp_house import ROOT, house

from hubbub.broker.access import SharedKey, rights_of
from hubbub.wire.amqp.message import data_section

CONSUMER = "hub/ConsumerGroups/$Default/Partitions/0"


@house
async def test_who_never_puts_a_token_is_closed(house):
    client = await house.client("ANONYMOUS", "", "")
    house.clock.advance(19_000)
    await client.run()
    assert not client.gone
    house.clock.advance(2_000)
    await client.run()
    assert set(client.conditions) == {"amqp:unauthorized-access"}
    assert client.gone


@house
async def test_without_a_token_nothing_is_attached(house):
    client = await house.client("ANONYMOUS", "", "")
    for address in ("hub", "queue", "hub/Partitions/0", "$management", "queue/$management"):
        await client.sender(address)
    await client.receiver(CONSUMER)
    await client.receiver("queue")
    assert client.conditions == ["amqp:unauthorized-access"] * 7
    assert not client.gone


@house
async def test_tokens_that_expire_mid_stream_take_their_links_with_them(house):
    client = await house.client("ANONYMOUS", "", "")
    await client.put_token(60)
    sender = await client.sender("hub/Partitions/0")
    consumer = await client.receiver(CONSUMER)
    queue = await client.receiver("queue")
    sender.send(data_section(b"x"), b"1")
    await client.run()
    assert len(client.notes.outcomes) == 2, "the token and the event were accepted"
    house.clock.advance(61_000)
    await client.run()
    assert client.conditions == ["amqp:unauthorized-access"] * 3
    assert not any(link.attached for link in (sender, consumer, queue))
    assert not client.gone
    await client.put_token(60)
    assert (await client.sender("hub/Partitions/0")).attached


@house
async def test_a_renewed_token_keeps_the_links(house):
    client = await house.client("ANONYMOUS", "", "")
    await client.put_token(60)
    sender = await client.sender("hub")
    for _ in range(5):
        house.clock.advance(50_000)
        await client.put_token(60)
    assert sender.attached
    assert client.conditions == []


@house
async def test_many_audiences(house):
    """A flood of tokens is refused, and those that were put still count."""
    client = await house.client("ANONYMOUS", "", "")
    sender = None
    for n in range(1005):
        await client.put_token(600, f"sb://contoso.servicebus.windows.net/{'hub' if n == 0 else n}")
        if n == 0:
            sender = await client.sender("hub")
    statuses = [d.payload for d in client.notes.deliveries]
    assert b"too many tokens" in statuses[-1]
    assert sum(b"too many tokens" in payload for payload in statuses) == 5
    assert sender.attached


@house
async def test_a_wrong_password(house):
    client = await house.client("PLAIN", ROOT, "wrong")
    assert client.notes.of("opened") == []
    assert client.gone


@house
async def test_a_client_that_falls_silent(house):
    """Half-open: the other end is gone and nobody said so."""
    client = await house.client()
    await client.receiver("queue")
    waiting = house.namespace.receivers["queue"].waiting
    assert len(waiting) == 1
    for _ in range(5):
        house.clock.advance(60_000)
        house.good.wire.tick(house.clock.now())
        await house.good.run()
    await client.run()
    assert client.gone
    assert len(waiting) == 0, "it holds no place in the queue"


@house
async def test_keys_that_change(house):
    client = await house.client()
    sender = await client.sender("hub")
    rights = rights_of(["Listen", "Send", "Manage"])
    old = house.namespace.keys
    house.namespace.keys = (SharedKey(ROOT, rights, "bmV3"),)
    house.namespace.changed()
    house.server.rotated(house.namespace)
    await client.run()
    await house.good.run()
    assert not sender.attached
    assert client.conditions == ["amqp:unauthorized-access"]
    house.namespace.keys = old
    house.namespace.changed()
    await house.renew()


@house
async def test_locks_outlive_a_client_and_end_with_time(house):
    queue = house.namespace.receivers["queue"]
    sender = await house.good.sender("queue")
    sender.send(data_section(b"x"), b"1")
    await house.good.run()
    client = await house.client()
    client.notes.auto = False
    await client.receiver("queue")
    assert len(client.notes.deliveries) == 1
    client.transport.abort()
    await client.run()
    assert queue.counts().locked == 1
    house.clock.advance(61_000)
    assert queue.counts() == queue.counts()._replace(active=1, locked=0)
