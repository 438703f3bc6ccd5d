"""Every limit of REST reference 6, at its value and one above, on the profiles that differ in it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from front.management_peer import entry_of
from house import House, request, statuses
from hubbub.broker.entity import (
    AuthorizationRule,
    ConsumerGroup,
    EventHub,
    Queue,
    Rule,
    Subscription,
    Topic,
    consumer_group_path,
    rule_path,
    subscription_path,
)
from hubbub.broker.errors import BrokerError, QuotaExceeded
from hubbub.broker.filters import CorrelationFilter, SqlFilter
from hubbub.broker.limits import PROFILES, Throttle
from hubbub.broker.receiver import Receiver
from hubbub.front.rest.scale import FURTHER_BYTES

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
    """A body as large as the limit is accepted; one byte more is refused, in the documented words."""
    assert post(house, target, make(size_max), *lines)[0] == 201
    status, text = post(house, target, make(size_max + 1), *lines)
    assert status == refused
    code = "SubCode=40300. " if refused == 403 else ""
    assert f"<Detail>{code}The message size (" in text
    assert f" bytes) exceeds the limit ({size_max} bytes). TrackingId:" in text


class TestSizes:
    @pytest.mark.parametrize(
        ("profile", "size"), [("basic", 256 * KB), ("standard", 1024 * KB), ("premium", 1024 * KB)]
    )
    def test_events(self, house_of, profile, size):
        house = house_of(profile)
        for target in (b"/hub/messages", b"/hub/partitions/0/messages", b"/hub/publishers/p/messages"):
            grow(house, target, size, 413)

    @pytest.mark.parametrize(
        ("profile", "target", "size"),
        [
            ("basic", b"/queue/messages", 256 * KB),
            ("standard", b"/queue/messages", 256 * KB),
            ("standard", b"/topic/messages", 256 * KB),
            ("premium", b"/queue/messages", 1024 * KB),
            ("premium", b"/topic/messages", 1024 * KB),
        ],
    )
    def test_messages(self, house_of, profile, target, size):
        grow(house_of(profile), target, size, 403, b"Content-Type: text/plain")

    @pytest.mark.parametrize("line", [b"Alert: Wind", b'BrokerProperties: {"Label":"Wind"}'])
    def test_properties_count_by_name_and_value(self, house_of, line):
        def make(size):
            return b"x" * (size - len("AlertWind"))

        grow(house_of(), b"/queue/messages", 256 * KB, 403, line, make=make)

    @pytest.mark.parametrize(
        ("target", "size", "refused"),
        [(b"/queue/messages", 256 * KB, 403), (b"/hub/messages", 1024 * KB, 413)],
    )
    def test_a_batch_counts_as_one(self, house_of, target, size, refused):
        def batch(size):
            half = (size - FURTHER_BYTES) // 2
            return json.dumps([{"Body": "x" * half}, {"Body": "y" * (size - FURTHER_BYTES - half)}]).encode()

        grow(house_of(), target, size, refused, BATCH, make=batch)

    def test_escapes_and_base64_do_not_count(self, house_of):
        house = house_of()
        for element in ({"Body": "\n" * 200 * KB}, {"Body": "eHh4" * (64 * KB), "IsBodyBase64": True}):
            body = json.dumps([element]).encode()
            assert len(body) > 256 * KB
            assert post(house, b"/queue/messages", body, BATCH)[0] == 201

    def test_many_small_ones_are_not_free(self, house_of):
        body = b"[" + b",".join([b"{}"] * 20_000) + b"]"
        assert post(house_of(), b"/queue/messages", body, BATCH)[0] == 403

    def test_a_queue_of_the_premium_tier_may_have_more(self, house_of):
        house = house_of("premium")
        run(house, house.namespace.create(Queue(path="big", message_kb_max=2048)))
        grow(house, b"/big/messages", 2048 * KB, 403)
        standard = house_of()
        with pytest.raises(BrokerError, match="Premium"):
            run(standard, standard.namespace.create(Queue(path="big", message_kb_max=2048)))

    def test_no_limit(self, house_of):
        for house in (house_of("none"), house_of(event_bytes_max=0, message_bytes_max=0)):
            assert post(house, b"/queue/messages", b"x" * (3 << 20))[0] == 201
            assert post(house, b"/hub/messages", b"x" * (3 << 20))[0] == 201

    @pytest.mark.parametrize(("target", "status"), [(b"/queue/messages", 403), (b"/hub/messages", 413)])
    @pytest.mark.parametrize("lines", [(), (BATCH,)], ids=["single", "batch"])
    @pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
    def test_what_is_announced_too_large_is_refused_unread(self, house_of, target, status, lines, again):
        house = house_of()
        if again:  # The route is known by now.
            assert post(house, target, b'[{"Body":"x"}]', *lines)[0] == 201
        head = request(b"POST", target, b"", *lines, b"Expect: 100-continue")
        output = house.talk(head.replace(b"Content-Length: 0", b"Content-Length: 99999999"))
        assert statuses(output) == [status]
        assert b"The message size (99999999 bytes) exceeds the limit" in output
        assert b"Connection: close" in output

    @pytest.mark.parametrize(
        ("target", "status", "size"),
        [(b"/queue/messages", 403, 256 * KB), (b"/hub/messages", 413, 1024 * KB)],
    )
    def test_chunked_bodies_are_bounded_too(self, house_of, target, status, size):
        house = house_of()
        head = request(b"POST", target).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        exact = [chunk] * (size // 65536)
        assert statuses(house.talk(head, *exact, b"0\r\n\r\n")) == [201]
        before = house.stored()
        output = house.talk(head, *exact, b"1\r\nx\r\n", b"0\r\n\r\n")
        assert statuses(output) == [status]
        assert f"exceeds the limit ({size} bytes)".encode() in output
        assert house.stored() == before


class TestProperties:
    def test_one(self, house_of):
        house = house_of()
        for size, status in ((32 * KB - 3, 201), (32 * KB - 2, 403)):
            found, text = post(house, b"/queue/messages", b"", b"Big: " + b"x" * size)
            assert found == status
        assert "SubCode=40300. The property 'Big' is 32769 bytes long; the limit is 32768 bytes." in text
        assert post(house, b"/hub/messages", b"", b"Big: " + b"x" * size)[0] == 201

    def test_text_counts_as_utf_8(self, house_of):
        house = house_of()
        for size, status in ((16 * KB - 1, 201), (16 * KB, 403)):
            assert post(house, b"/queue/messages", b"", b"B: " + "ä".encode() * size)[0] == status

    def test_a_broker_property_is_one_too(self, house_of):
        house = house_of()
        for size, status in ((32 * KB - 5, 201), (32 * KB - 4, 403)):
            line = b'BrokerProperties: {"Label":"' + b"x" * size + b'"}'
            assert post(house, b"/topic/messages", b"", line)[0] == status

    def test_all(self, house_of):
        house = house_of()
        for size, status in ((64 * KB - 8, 201), (64 * KB - 7, 403)):
            parts = [b"P%d: " % n + b"x" * (size // 4 + (n < size % 4)) for n in range(4)]
            found, text = post(house, b"/queue/messages", b"", *parts)
            assert found == status
        assert "The properties of a message are 65537 bytes long together; the limit is 65536 bytes." in text
        assert post(house, b"/hub/messages", b"", *parts)[0] == 201

    def test_how_many_are_what_http_allows(self, house_of):
        house = house_of()
        lines = [b"P%d: 1" % n for n in range(197)]
        assert post(house, b"/queue/messages", b"", *lines)[0] == 201
        assert post(house, b"/queue/messages", b"", *lines, b"Q: 1")[0] == 431

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
            assert post(house, b"/hub/messages", b"", line)[0] == status
            body = json.dumps([{"Body": "a"}, {"BrokerProperties": {name: "k" * size}}]).encode()
            assert post(house, b"/hub/messages", body, BATCH)[0] == status
        assert post(house_of(key_chars_max=0), b"/queue/messages", b"", line)[0] == 201

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
    ("standard", lambda n: Topic(path="t/" + "t" * (n - 2)), 260),
    ("standard", lambda n: EventHub(path="h" * n), 256),
    ("standard", lambda n: sub("s" * n), 50),
    ("standard", lambda n: group("g" * n), 50),
    ("standard", lambda n: rule("r" * n), 50),
    ("standard", lambda n: rule("r", filter=SqlFilter(expression="a=1" + " " * (n - 3))), 1024),
    ("standard", lambda n: rule("r", action="SET a=1;" * n), 32),
    ("standard", lambda n: hub(authorization_rules=rules(n)), 12),
    ("standard", lambda n: queue(authorization_rules=rules(n)), 12),
    ("premium", lambda n: queue(message_kb_max=n * 1024), 100),
]


def sub(name):
    return Subscription(path=subscription_path("topic", name), topic="topic", name=name)


def group(name):
    return ConsumerGroup(path=consumer_group_path("hub", name), hub="hub", name=name)


def rule(name, subscription="s", **fields):
    above = subscription_path("topic", subscription)
    return Rule(path=rule_path(above, name), subscription=above, name=name, **fields)


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
    ("subscriptions_max", 3, lambda n: sub(f"n{n}"), 1),
    ("consumer_groups_max", 3, lambda n: group(f"g{n}"), 1),
    ("sql_filters_max", 3, lambda n: rule(f"r{n}", filter=SqlFilter(expression="a=1")), 0),
    ("correlation_filters_max", 3, lambda n: rule(f"r{n}", filter=CorrelationFilter(system={"To": "x"})), 0),
]  # fmt: skip


@pytest.mark.parametrize(("limit", "most", "make", "there"), NUMBERS, ids=[n[0] for n in NUMBERS])
def test_numbers_of_entities(house_of, limit, most, make, there):
    house = house_of(**{limit: most})
    for n in range(most - there):
        run(house, house.namespace.create(make(n)))
    with pytest.raises(QuotaExceeded, match=f"maximum of {most} "):
        run(house, house.namespace.create(make(99)))
    run(house, house.namespace.delete(make(0).path))
    run(house, house.namespace.create(make(99)))


@pytest.mark.parametrize(("limit", "most", "make", "there"), NUMBERS, ids=[n[0] for n in NUMBERS])
def test_the_last_place_is_given_once(house_of, limit, most, make, there):
    """Two at a time, neither on the disk when the other asks."""
    house = house_of(**{limit: most})
    for n in range(most - there - 1):
        run(house, house.namespace.create(make(n)))

    async def both():
        return await asyncio.gather(
            *(house.namespace.create(make(n)) for n in (98, 99)), return_exceptions=True
        )

    outcomes = run(house, both())
    assert sorted(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == [False, True]


def test_filters_are_counted_by_topic(house_of):
    house = house_of(sql_filters_max=1, correlation_filters_max=0)
    create = house.namespace.create
    run(house, create(rule("first", filter=SqlFilter(expression="a=1"))))
    run(house, create(sub("other")))
    run(house, create(rule("all", "other")))
    run(house, create(rule("equal", "other", filter=CorrelationFilter(system={"To": "x"}))))
    sql = SqlFilter(expression="a=2")
    with pytest.raises(QuotaExceeded, match="SQL filters"):
        run(house, create(rule("second", "other", filter=sql)))
    with pytest.raises(QuotaExceeded, match="SQL filters"):
        run(house, house.namespace.update(rule("all", "other", filter=sql)))
    with pytest.raises(QuotaExceeded, match="SQL filters"):
        run(house, create(sub("third"), rule("$Default", "third", filter=sql)))
    run(house, house.namespace.update(rule("first", filter=sql)))


def test_what_a_client_reads_of_numbers(house_of):
    house = house_of(hubs_max=1, queues_and_topics_max=2, subscriptions_max=1, consumer_groups_max=1)
    for path, kind in (
        (b"/h2", "EventHubDescription"),
        (b"/q2", "QueueDescription"),
        (b"/t2", "TopicDescription"),
        (b"/topic/subscriptions/s2", "SubscriptionDescription"),
        (b"/hub/consumergroups/g", "ConsumerGroupDescription"),
    ):
        output = house.talk(request(b"PUT", path, entry_of(kind).encode()))
        assert statuses(output) == [403], kind
        assert b"<Detail>SubCode=40300. The maximum of " in output


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True), ("A-b.c_9", True), ("a/b/c", True), ("9", True),
        ("a b", False), ("a%2Bb", False), ("a*", False), ("\u00e4", False), ("-a", False), ("a.", False), ("a/messages", False),
    ],
)  # fmt: skip
def test_characters_of_names(house_of, name, good):
    target = f"/{name}".encode().replace(b" ", b"%20").replace("\u00e4".encode(), b"%C3%A4")
    output = house_of().talk(request(b"PUT", target, entry_of("QueueDescription").encode()))
    assert statuses(output) == [201 if good else 400]
    if not good and name != "a/messages":
        assert b"contains character(s) that is not allowed by Service Bus" in output


@pytest.mark.parametrize("size", [1024, 2048, 3072, 4096, 5120])
def test_sizes_of_queues(house_of, size):
    house = house_of()
    run(house, house.namespace.create(queue(size_mb_max=size)))
    with pytest.raises(BrokerError, match="MaxSizeInMegabytes"):
        run(house, house.namespace.update(queue(size_mb_max=size + 1)))


@pytest.mark.parametrize(
    ("profile", "limit", "value"),
    [
        ("basic", "consumer_groups_max", 1), ("standard", "consumer_groups_max", 20), ("premium", "consumer_groups_max", 100),
        ("basic", "hubs_max", 10), ("standard", "hubs_max", 10), ("standard", "queues_and_topics_max", 10_000),
        ("standard", "subscriptions_max", 2_000), ("standard", "receives_max", 5_000),
        ("standard", "sql_filters_max", 2_000), ("standard", "correlation_filters_max", 100_000),
        ("standard", "property_bytes_max", 32 * KB), ("standard", "properties_bytes_max", 64 * KB), ("standard", "key_chars_max", 128),
    ],
)  # fmt: skip
def test_documented_numbers(profile, limit, value):
    assert getattr(PROFILES[profile], limit) == value


def test_topics_need_more_than_basic(house_of):
    house = house_of("basic")
    with pytest.raises(BrokerError, match="Basic"):
        run(house, house.namespace.create(Topic(path="other")))


@pytest.mark.parametrize(
    ("target", "receiver"),
    [
        (b"/queue/messages", "queue"),
        (b"/queue/messages", "queue/$deadletterqueue"),
        (b"/topic/messages", "topic/subscriptions/s"),
        (b"/topic/messages", "topic/subscriptions/s/$deadletterqueue"),
    ],
)
def test_a_full_entity(house_of, target, receiver):
    """MaxSizeInMegabytes: refused when what is stored, dead letters among it, has reached it."""
    house = house_of()
    log = house.namespace.receivers[receiver].log
    assert post(house, target, b"x")[0] == 201
    before = sum(r.log.bytes for r in house.namespace.receivers.values())
    log.bytes += (1024 << 20) - before - 1
    assert post(house, target, b"x")[0] == 201
    status, text = post(house, target, b"x")
    path = target.decode().split("/")[1]
    assert status == 403
    assert f"SubCode=40300. The maximum entity size of '{path}' has been reached or exceeded." in text
    log.bytes -= 1024 << 20
    assert post(house, target, b"x")[0] == 201


def test_throughput_units(house_of):
    house = house_of(throughput_units=2)

    def batch(count):
        return json.dumps([{"Body": "x"}] * count).encode()

    assert post(house, b"/hub/messages", batch(1_999), BATCH)[0] == 201
    # A talk takes minutes of the clock, hence all in one.
    more = [
        request(b"POST", b"/hub/messages", batch(1_999), BATCH),
        *[request(b"POST", b"/hub/messages")] * 2,
    ]
    output = house.talk(*more)
    assert statuses(output) == [201, 201, 503]
    assert (
        b"SubCode=50002. The request was terminated because the namespace contoso is being throttled."
        in output
    )
    assert post(house, b"/hub/messages")[0] == 201
    full = [request(b"POST", b"/hub/messages", b"x" * (900 * KB))] * 4
    assert statuses(house.talk(*full)) == [201, 201, 201, 503]
    assert statuses(house.talk(*full[:3], request(b"POST", b"/queue/messages"))) == [201] * 4


class TestThrottle:
    def test_an_idle_second_is_saved_and_no_more(self):
        throttle = Throttle(1, now=0)
        assert throttle.take(1_000, 0, now=50_000)
        assert not throttle.take(1, 0, now=50_000)
        assert throttle.take(1, 0, now=50_001)
        assert not throttle.take(1, 0, now=50_001)

    def test_who_overdraws_waits(self):
        throttle = Throttle(1, now=0)
        assert throttle.take(1, 3 << 20, now=0)
        assert not throttle.take(1, 1, now=1_999)
        assert throttle.take(1, 1, now=2_001)

    def test_the_rate_holds_however_often_it_is_asked(self):
        throttle = Throttle(3, now=0)
        taken = sum(throttle.take(1, 1, now) for now in range(10_001) for _ in range(9))
        assert taken == 3 * 1_000 + 3 * 10_000

    def test_a_clock_that_goes_back_gains_nothing(self):
        throttle = Throttle(1, now=10_000)
        assert throttle.take(1_000, 0, now=10_000)
        for now in (0, 5_000, 10_000):
            assert not throttle.take(1, 0, now)
        assert throttle.take(1, 0, now=10_001)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0.001", 201), ("1e-9", 201), ("922337203685.47754", 201), ("1e300", 201), ("1" + "0" * 400, 201),
        ("0", 400), ("-1", 400), ("0.0", 400), ('"0"', 400), ("1e400", 400),
    ],
)  # fmt: skip
def test_time_to_live(house_of, text, status):
    house = house_of()
    found, body = post(house, b"/queue/messages", b"", b'BrokerProperties: {"TimeToLive":%b}' % text.encode())
    assert found == status, body


def test_waiting_receives(house_of):
    house = house_of(receives_max=3)

    async def crowd():
        for _ in range(3):
            house.namespace.receiver("queue").receive(True, house.clock.now() + 10**9, lambda outcome: None)

    house.runner.run(crowd())
    for method in (b"POST", b"DELETE"):
        output = house.talk(request(method, b"/queue/messages/head?timeout=30"))
        assert statuses(output) == [503]
        assert b"SubCode=50004. 3 receives wait on this entity already" in output
    assert post(house, b"/topic/subscriptions/s/messages/head?timeout=0")[0] == 204


def test_a_poll_is_no_longer_than_allowed(house_of, monkeypatch):
    house = house_of(timeout_max=5_000)
    waits = []
    receive = Receiver.receive

    def watched(self, lock, until, done):
        waits.append(until - house.clock.now())
        return receive(self, lock, until, done)

    monkeypatch.setattr(Receiver, "receive", watched)
    for query in (b"?timeout=86400", b"", b"?timeout=5", b"?Timeout=4&x=1", b"?timeout=0"):
        assert post(house, b"/queue/messages/head" + query)[0] == 204
    assert waits == [5_000, 5_000, 5_000, 4_000, 0]


@pytest.mark.parametrize("text", [b"-1", b"1.5", b"", b"x", b"1e3", b"+1", b"1000000000", b"%D9%A1"])
@pytest.mark.parametrize("target", [b"/queue/messages/head", b"/queue/messages", b"/hub/messages"])
def test_a_timeout_is_a_number_of_seconds(house_of, target, text):
    status, body = post(house_of(), target + b"?timeout=" + text)
    assert (status, "is not a number of seconds" in body) == (400, True)
