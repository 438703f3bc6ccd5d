"""Every limit of REST reference 6, at its value and one above, on the profiles that differ in it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from house import House, request, statuses
from hubbub.broker.entity import (
    AuthorizationRule,
    ConsumerGroup,
    EventHub,
    Queue,
    Subscription,
    Topic,
    consumer_group_path,
    subscription_path,
)
from hubbub.broker.errors import BrokerError, QuotaExceeded
from hubbub.broker.limits import PROFILES
from hubbub.broker.receiver import Receiver

KB = 1024
BATCH = b"Content-Type: application/vnd.microsoft.servicebus.json"
MINUTE, DAY = 60_000, 86_400_000


@pytest.fixture
def house_of():
    made = []

    def house_of(profile="standard", **changes):
        made.append(House(replace(PROFILES[profile], **changes)))
        return made[-1]

    yield house_of
    for house in made:
        house.close()


def post(house, target, body=b"", *lines):
    """Status and body of one POST; fails if a refusal stored anything."""
    before = house.stored()
    output = house.talk(request(b"POST", target, body, *lines))
    (status,) = statuses(output)
    if status >= 400:
        assert house.stored() == before
    return status, output.partition(b"\r\n\r\n")[2].decode()


def grow(house, target, size_max, refused, *lines, make=lambda size: b"x" * size):
    """The largest accepted body is within a few hundred bytes below the limit; one above is refused."""
    assert post(house, target, make(size_max - 400), *lines)[0] == 201
    status, text = post(house, target, make(size_max + 1), *lines)
    assert status == refused
    assert str(size_max) in text


class TestSizes:
    @pytest.mark.parametrize(
        ("profile", "size"), [("basic", 256 * KB), ("standard", 1024 * KB), ("premium", 1024 * KB)]
    )
    def test_events(self, house_of, profile, size):
        house = house_of(profile)
        grow(house, b"/hub/messages", size, 413)
        assert post(house, b"/hub/partitions/0/messages", b"x" * (size + 1))[0] == 413

    @pytest.mark.parametrize(("profile", "size"), [("standard", 256 * KB), ("premium", 1024 * KB)])
    @pytest.mark.parametrize("target", [b"/queue/messages", b"/topic/messages"])
    def test_messages(self, house_of, profile, size, target):
        grow(house_of(profile), target, size, 403)

    @pytest.mark.parametrize(
        ("target", "size", "refused"),
        [(b"/queue/messages", 256 * KB, 403), (b"/hub/messages", 1024 * KB, 413)],
    )
    def test_a_batch_counts_as_one(self, house_of, target, size, refused):
        def batch(size):
            return json.dumps([{"Body": "x" * (size // 2)}] * 2).encode()

        grow(house_of(), target, size, refused, BATCH, make=batch)

    def test_a_queue_of_the_premium_tier_may_have_more(self, house_of):
        house = house_of("premium")
        run(house, house.namespace.create(Queue(path="big", message_kb_max=2048)))
        grow(house, b"/big/messages", 2048 * KB, 403)
        standard = house_of()
        with pytest.raises(BrokerError, match="Premium"):
            run(standard, standard.namespace.create(Queue(path="big", message_kb_max=2048)))

    def test_no_limit(self, house_of):
        house = house_of("none")
        assert post(house, b"/queue/messages", b"x" * (3 << 20))[0] == 201
        assert post(house, b"/hub/messages", b"x" * (3 << 20))[0] == 201

    def test_what_is_announced_too_large_is_refused_unread(self, house_of):
        house = house_of()
        head = request(b"POST", b"/queue/messages").replace(b"Content-Length: 0", b"Content-Length: 99999999")
        assert statuses(house.talk(head)) == [403]

    def test_chunked_bodies_are_bounded_too(self, house_of):
        house = house_of()
        head = request(b"POST", b"/queue/messages").replace(
            b"Content-Length: 0", b"Transfer-Encoding: chunked"
        )
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        before = house.stored()
        (status,) = statuses(house.talk(head, *[chunk] * 20, b"0\r\n\r\n"))
        assert status in (403, 413)
        assert house.stored() == before


class TestProperties:
    def test_one(self, house_of):
        house = house_of()
        assert post(house, b"/queue/messages", b"", b"Big: " + b'"' + b"x" * (32 * KB - 100) + b'"')[0] == 201
        status, text = post(house, b"/queue/messages", b"", b"Big: " + b'"' + b"x" * (32 * KB + 1) + b'"')
        assert (status, "'Big'" in text) == (403, True)

    def test_all(self, house_of):
        house = house_of()

        def lines(size):
            return [b"P%d: " % n + b'"' + b"x" * (size // 4) + b'"' for n in range(4)]

        assert post(house, b"/queue/messages", b"", *lines(64 * KB - 400))[0] == 201
        assert post(house, b"/queue/messages", b"", *lines(64 * KB + 400))[0] == 403

    def test_in_a_batch_as_well(self, house_of):
        house = house_of()
        elements = [{"Body": "a"}, {"Body": "b", "UserProperties": {"Big": "x" * (33 * KB)}}]
        assert post(house, b"/queue/messages", json.dumps(elements).encode(), BATCH)[0] == 403

    @pytest.mark.parametrize("name", ["MessageId", "SessionId", "PartitionKey"])
    def test_keys(self, house_of, name):
        house = house_of()
        for size, status in ((128, 201), (129, 400)):
            line = b"BrokerProperties: " + json.dumps({name: "k" * size}).encode()
            assert post(house, b"/queue/messages", b"", line)[0] == status

    def test_publishers(self, house_of):
        house = house_of()
        assert post(house, b"/hub/publishers/" + b"p" * 128 + b"/messages")[0] == 201
        assert post(house, b"/hub/publishers/" + b"p" * 129 + b"/messages")[0] == 400

    def test_a_larger_bound_by_configuration(self, house_of):
        house = house_of(property_bytes_max=48 * KB)
        assert post(house, b"/queue/messages", b"", b"Big: " + b'"' + b"x" * (40 * KB) + b'"')[0] == 201


def run(house, work):
    return house.runner.run(work)


def hub(**fields):
    return EventHub(path="new", **fields)


def queue(**fields):
    return Queue(path="new", **fields)


ENTITIES = [
    ("basic", lambda n: hub(partition_count=n), 32),
    ("standard", lambda n: hub(partition_count=n), 32),
    ("premium", lambda n: hub(partition_count=n), 100),
    ("none", lambda n: hub(partition_count=n), 1024),
    ("basic", lambda n: hub(retention=n * DAY), 1),
    ("standard", lambda n: hub(retention=n * DAY), 7),
    ("premium", lambda n: hub(retention=n * DAY), 90),
    ("standard", lambda n: queue(lock_duration=n * MINUTE), 5),
    ("standard", lambda n: queue(duplicate_window=n * DAY, requires_duplicate_detection=True), 7),
    ("standard", lambda n: queue(user_metadata="m" * n), 1024),
    ("standard", lambda n: Queue(path="q" * n), 260),
    ("standard", lambda n: hub(authorization_rules=rules(n)), 12),
    ("standard", lambda n: queue(authorization_rules=rules(n)), 12),
    ("premium", lambda n: queue(message_kb_max=n * 1024), 100),
]


def rules(count):
    return tuple(AuthorizationRule(name=f"r{n}", rights=("Listen",), primary=f"key{n}") for n in range(count))


@pytest.mark.parametrize(("profile", "make", "most"), ENTITIES)
def test_bounds_of_entities(house_of, profile, make, most):
    house = house_of(profile)
    with pytest.raises(BrokerError):
        run(house, house.namespace.create(make(most + 1)))
    run(house, house.namespace.create(make(most)))


@pytest.mark.parametrize("field", ["partition_count", "lock_duration", "deliveries_max", "size_mb_max"])
def test_nothing_is_below_its_least(house_of, field):
    house = house_of()
    make = hub if field == "partition_count" else queue
    with pytest.raises(BrokerError):
        run(house, house.namespace.create(make(**{field: 0})))


def test_auto_delete_on_idle_has_a_least(house_of):
    house = house_of()
    with pytest.raises(BrokerError):
        run(house, house.namespace.create(queue(auto_delete_on_idle=5 * MINUTE - 1)))


NUMBERS = [
    ("hubs_max", 3, lambda n: EventHub(path=f"h{n}", partition_count=1), 1),
    ("queues_and_topics_max", 4, lambda n: Queue(path=f"q{n}") if n % 2 else Topic(path=f"t{n}"), 2),
    ("subscriptions_max", 3, lambda n: Subscription(path=subscription_path("topic", f"n{n}"), topic="topic", name=f"n{n}"), 1),
    ("consumer_groups_max", 3, lambda n: ConsumerGroup(path=consumer_group_path("hub", f"g{n}"), hub="hub", name=f"g{n}"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("limit", "most", "make", "there"), NUMBERS, ids=[n[0] for n in NUMBERS])
def test_numbers_of_entities(house_of, limit, most, make, there):
    house = house_of(**{limit: most})
    for n in range(most - there):
        run(house, house.namespace.create(make(n)))
    with pytest.raises(QuotaExceeded):
        run(house, house.namespace.create(make(99)))


@pytest.mark.parametrize(
    ("profile", "limit", "value"),
    [
        ("basic", "consumer_groups_max", 1), ("standard", "consumer_groups_max", 20), ("premium", "consumer_groups_max", 100),
        ("basic", "hubs_max", 10), ("standard", "hubs_max", 10), ("standard", "queues_and_topics_max", 10_000),
        ("standard", "subscriptions_max", 2_000), ("standard", "receives_max", 5_000),
    ],
)  # fmt: skip
def test_documented_numbers(profile, limit, value):
    assert getattr(PROFILES[profile], limit) == value


def test_topics_need_more_than_basic(house_of):
    house = house_of("basic")
    with pytest.raises(BrokerError, match="Basic"):
        run(house, house.namespace.create(Topic(path="other")))


def test_a_full_queue(house_of):
    """MaxSizeInMegabytes: refused when what is stored has reached it."""
    house = house_of()
    assert post(house, b"/queue/messages", b"x")[0] == 201
    log = house.namespace.receivers["queue"].log
    log.bytes += 1024 << 20
    status, text = post(house, b"/queue/messages", b"x")
    assert (status, "maximum entity size" in text) == (403, True)
    log.bytes -= 1024 << 20
    assert post(house, b"/queue/messages", b"x")[0] == 201


def test_waiting_receives(house_of):
    house = house_of(receives_max=3)

    async def crowd():
        for _ in range(3):
            house.namespace.receiver("queue").receive(True, house.clock.now() + 60_000, lambda outcome: None)

    house.runner.run(crowd())
    assert post(house, b"/queue/messages/head?timeout=30")[0] == 503


def test_a_poll_is_no_longer_than_allowed(house_of, monkeypatch):
    house = house_of(timeout_max=5_000)
    waits = []
    receive = Receiver.receive

    def watched(self, lock, until, done):
        waits.append(until - house.clock.now())
        return receive(self, lock, until, done)

    monkeypatch.setattr(Receiver, "receive", watched)
    assert post(house, b"/queue/messages/head?timeout=86400")[0] == 204
    assert waits == [5_000]
