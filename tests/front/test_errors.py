"""What goes wrong, and what the client reads of it (REST reference 5): one table, one shape, one log line."""

from __future__ import annotations

import logging
import re
from xml.etree import ElementTree

import pytest

from front.http_peer import HOST, MemoryTransport, parse_answers
from house import TOKEN, House, request
from hubbub.broker import errors
from hubbub.broker.access import Unauthorized
from hubbub.front.http.limits import HttpLimits
from hubbub.front.rest.errors import STATUSES, HttpError, error_body, status_of, text_of, tracking_id

TRAILER = re.compile(
    r"(.*) TrackingId:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}_[GB]\d+), SystemTracker:(\S*),"
    r" Timestamp:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)",
    re.S,
)
LINE = b"POST /hub/messages HTTP/1.1\r\n" + HOST + b"Authorization: " + TOKEN.encode() + b"\r\n"


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    # The command line switches this off when it sets up logging of its own.
    monkeypatch.setattr(logging.getLogger("hubbub"), "propagate", True)


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


class TestTable:
    KINDS = (
        (errors.Invalid("what"), 400, "what"),
        (errors.SessionRequired("what"), 400, "what"),
        (errors.Forwards(), 400, "Cannot create a message receiver on an entity with auto-forwarding enabled."),
        (errors.PublisherRevoked("what"), 401, "what"),
        (errors.NotFound("what"), 404, "what"),
        (errors.LockLost(), 404, "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."),
        (errors.SessionLockLost(), 404, "The session lock has expired on the message session. Accept the session anew."),
        (errors.SessionCannotBeLocked("s"), 409, "The requested session 's' cannot be accepted. It may be locked by another receiver."),
        (errors.MessageNotFound(7), 404, "The message with sequence number 7 could not be found."),
        (errors.AlreadyExists("what"), 409, "what"),
        (errors.Conflict("what"), 409, "what"),
        (errors.OutOfSequence(5, 4), 409, "The producer sequence number 5 is out of order: 4 is expected."),
        (errors.ProducerStolen(1, 2, 3), 409, "The producer 1 with epoch 2 was superseded by one with epoch 3. Make a new producer, or one with a higher owner level."),
        (errors.QuotaExceeded("what"), 403, "SubCode=40300. what"),
        (errors.TooLarge(5, 4), 403, "SubCode=40300. The message size (5 bytes) exceeds the limit (4 bytes)."),
        (errors.Disabled("what"), 403, "SubCode=40301. what"),
        (errors.Busy("what"), 503, "SubCode=50004. what"),
        (errors.Busy("SubCode=50002. what"), 503, "SubCode=50002. what"),
        (HttpError(412, "what"), 412, "what"),
        (KeyError("secret"), 500, "SubCode=50000. Internal Server Error"),
        (errors.BrokerError("secret"), 500, "SubCode=50000. Internal Server Error"),
    )  # fmt: skip

    @pytest.mark.parametrize(("error", "status", "text"), KINDS, ids=lambda v: type(v).__name__)
    def test_statuses_and_texts(self, error, status, text):
        assert (status_of(error), text_of(error, status)) == (status, text)

    def test_every_error_of_the_broker_has_a_status(self):
        kinds = [
            kind
            for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, errors.BrokerError)
        ]
        missing = {kind for kind in kinds if kind not in STATUSES} - {errors.BrokerError}
        assert not missing
        assert {type(error) for error, _, _ in self.KINDS} >= {*kinds}
        assert STATUSES[Unauthorized] == 401


class TestBody:
    def test_as_recorded(self):
        tracking = "d5299f2b-3008-4841-9727-51694629e1e4_G40"
        body = error_body(
            404,
            "No service is hosted at the specified address.",
            tracking,
            "contoso.servicebus.windows.net:nosuch",
            1_556_174_165_999,
        )
        assert body == (
            b"<Error><Code>404</Code><Detail>No service is hosted at the specified address."
            b" TrackingId:d5299f2b-3008-4841-9727-51694629e1e4_G40,"
            b" SystemTracker:contoso.servicebus.windows.net:nosuch, Timestamp:2019-04-25T06:36:05</Detail></Error>"
        )

    @pytest.mark.parametrize(
        "text", ["a<b>&c", "]]>", "\x00\x1b[31m", "\ud800", "ä€\U0001f600", "line\r\nline", "\ufffe"]
    )
    def test_any_text_is_well_formed(self, text):
        root = ElementTree.fromstring(error_body(400, text, "t", "s", 0))
        assert [child.tag for child in root] == ["Code", "Detail"]
        assert root.findtext("Detail").endswith(
            " TrackingId:t, SystemTracker:s, Timestamp:1970-01-01T00:00:00"
        )

    def test_tracking_ids_are_guids_and_new_each_time(self):
        found = {tracking_id() for _ in range(100)}
        assert len(found) == 100
        assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}_G0", one) for one in found)
        assert tracking_id("B").endswith("_B0")


def check(answer, status, caplog, path=None):
    """The answer has the service's shape, and its tracking id stands in the log. Returns the text."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/xml; charset=utf-8"
    assert answer.headers["Server"] == "Microsoft-HTTPAPI/2.0"
    assert "Date" in answer.headers
    root = ElementTree.fromstring(answer.body)
    assert (root.tag, root.findtext("Code")) == ("Error", str(status))
    text, tracking, tracker, _ = TRAILER.fullmatch(root.findtext("Detail")).groups()
    if path is not None:
        assert tracker == f"contoso.servicebus.windows.net:{path}"
    assert tracking in caplog.text
    return text


# Every refusal of HTTP itself. Texts are beginnings; a path of None: it was not understood so far.
REFUSALS = {
    "malformed request line": (b"hello\r\n\r\n", 400, "SubCode=40000. The request is malformed", None),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: h\n\n", 400, "SubCode=40000. The request is malformed", None),
    "two lengths": (LINE + b"Content-Length: 5\r\nContent-Length: 4\r\n\r\nabcde", 400, "SubCode=40000. ", None),
    "length and coding": (LINE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "SubCode=40000. ", None),
    "another coding": (LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "SubCode=40000. ", None),
    "no host": (b"GET /hub HTTP/1.1\r\n\r\n", 400, "SubCode=40000. The Host header", None),
    "two hosts": (b"GET /hub HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "SubCode=40000. The request has more", None),
    "obs-fold": (LINE + b"X: a\r\n b\r\n\r\n", 400, "SubCode=40000. ", None),
    "a chunk without size": (LINE + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "SubCode=40000. ", "hub/messages"),
    "connect": (b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", 405, "The method CONNECT", None),
    "a header that never ends": (LINE + b"X: ", 408, "The request header did not arrive", None),
    "a body that never comes": (LINE + b"Content-Length: 5\r\n\r\nab", 408, "The request body did not arrive", "hub/messages"),
    "a body over the limit": (LINE + b"Content-Length: 9999999\r\n\r\n", 413, "The message size (9999999 bytes) exceeds", "hub/messages"),
    "a form over the limit": (b"GET /_hubbub/info HTTP/1.1\r\n" + HOST + b"Content-Length: 9999999\r\n\r\n", 413, "The request body exceeds the limit", "_hubbub/info"),
    "a long target": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "The request target is too long", None),
    "another expectation": (LINE + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi", 417, "The only supported expectation", "hub/messages"),
    "many headers": (LINE + b"A: b\r\n" * 200 + b"\r\n", 431, "The request has too many header fields", None),
    "large headers": (LINE + b"A: " + b"x" * 200_000 + b"\r\n\r\n", 431, "The request header is too large", None),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "SubCode=40000. ", None),
    "http/2": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "The HTTP version is not supported", None),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_of_http_have_the_services_shape(house, caplog, name):
    data, status, begins, path = REFUSALS[name]
    caplog.set_level(logging.INFO, "hubbub")
    noted = []
    house.http.on_complete = lambda request, status, *_: noted.append((request.note, status))
    before = house.stored()
    (answer,) = parse_answers(house.talk(data))
    text = check(answer, status, caplog, path)
    assert text.startswith(begins)
    assert answer.headers["Connection"] == "close"
    # The access log tells the same, by the same id.
    (found,) = [note for note, code in noted if code == status]
    assert found.startswith(text)
    assert found.rpartition("TrackingId:")[2] in answer.body.decode()
    assert house.stored() == before


ANSWERS = [
    (request(b"POST", b"/hub/messages", auth=b"nonsense"), 401, "MalformedToken", "hub/messages"),
    (request(b"POST", b"/nosuch/messages"), 404, "SubCode=40400. 40400: Endpoint not found., Resource:sb://contoso.servicebus.windows.net/nosuch.", "nosuch/messages"),
    (request(b"POST", b"/hub/partitions/9/messages"), 400, "The specified partition is invalid", "hub/partitions/9/messages"),
    (request(b"GET", b"/queue/messages"), 400, "SubCode=40000. The specified HTTP verb (GET) is not valid.", "queue/messages"),
    (request(b"PUT", b"/queue/messages/head"), 400, "SubCode=40000. The specified HTTP verb (PUT) is not valid.", "queue/messages/head"),
    (request(b"GET", b"/queue/$DeadLetterQueue/messages/head"), 400, "SubCode=40000. The specified HTTP verb (GET) is not valid.", "queue/$DeadLetterQueue/messages/head"),
    (request(b"POST", b"/queue/messages", b"", b"BrokerProperties: {'a':1}"), 400, "The value '{'a':1}' of the HTTP header 'BrokerProperties' is invalid.", "queue/messages"),
    (request(b"DELETE", b"/queue/messages/1/30de5ab6-2c4b-4dd1-9af4-d0b7b1f7d3a2"), 404, "The lock supplied is invalid.", "queue/messages/1/30de5ab6-2c4b-4dd1-9af4-d0b7b1f7d3a2"),
    (request(b"DELETE", b"/nosuch"), 404, "No service is hosted at the specified address.", "nosuch"),
    (request(b"GET", b"/topic/subscriptions/nope"), 404, "Entity 'contoso:Topic:topic|nope' was not found.", "topic/subscriptions/nope"),
    (request(b"PUT", b"/queue", b"not xml"), 400, "SubCode=40000. The request body is not XML", "queue"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status", "begins", "path"), ANSWERS)
def test_refusals_of_operations_have_it_too(house, caplog, data, status, begins, path):
    caplog.set_level(logging.INFO, "hubbub")
    first, second = parse_answers(house.talk(data + request(b"POST", b"/hub/messages", b"still there")))
    assert check(first, status, caplog, path).startswith(begins)
    assert second.status == 201, "a refused operation does not cost the connection"


def test_head_is_told_without_a_body(house):
    output = house.talk(b"HEAD /hub/messages HTTP/1.1\r\n" + HOST + b"\r\n")
    assert output.startswith(b"HTTP/1.1 401 ")
    assert output.endswith(b"\r\n\r\n")


def test_a_mistake_of_ours_tells_the_log_and_not_the_client(house, caplog, monkeypatch):
    def broken(*_):
        raise RuntimeError("the secret reason")

    monkeypatch.setattr("hubbub.broker.namespace.Namespace.publish", broken)
    answer, after = parse_answers(house.talk(request() + request(b"POST", b"/queue/messages")))
    assert check(answer, 500, caplog, "hub/messages") == "SubCode=50000. Internal Server Error"
    assert b"secret" not in answer.body
    assert "the secret reason" in caplog.text
    assert after.status == 201


def connect(house):
    connection = house.http.protocol(False)()
    transport = MemoryTransport(connection)
    connection.connection_made(transport)
    return connection, transport


def test_hundreds_of_idle_connections_and_then_no_more(house, caplog):
    """The cap counts those that wait for nothing; one too many is told why and closed, and room is room again."""
    caplog.set_level(logging.INFO, "hubbub")
    house.http.limits = HttpLimits(connections_max=300)

    async def main():
        made = [connect(house) for _ in range(300)]
        for connection, _ in made:
            connection.data_received(request())
        await house._settle()
        assert all(transport.output.startswith(b"HTTP/1.1 201 ") for _, transport in made)
        refused, transport = connect(house)
        (answer,) = parse_answers(transport.output)
        text = check(answer, 503, caplog)
        assert text == "SubCode=50004. The server has too many open connections."
        assert answer.headers["Connection"] == "close"
        assert transport.eof_written
        refused.data_received(request())
        await house._settle()
        assert parse_answers(transport.output) == [answer], "it is not served"
        refused.connection_lost(None)
        made[0][0].connection_lost(None)
        newcomer, transport = connect(house)
        newcomer.data_received(request())
        await house._settle()
        assert transport.output.startswith(b"HTTP/1.1 201 ")
        assert house.http.connections_open == 300
        # Idle ones let go of their readers, and are closed when their time is over.
        house.clock.advance(10_000)
        assert all(connection._reader is None for connection, _ in made[1:])
        house.clock.advance(130_000)
        assert all(transport.closing for _, transport in made[1:])

    house.runner.run(main())
