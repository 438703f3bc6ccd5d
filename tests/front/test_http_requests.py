"""HTTP/1.1 requests in, answers out: what a door sees and what a client gets, on a sound connection."""

from __future__ import annotations

import asyncio

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from front.http_peer import HOST, Peer, chunked, parse_answers, post
from hubbub.front.http.limits import HttpLimits, Refusal
from hubbub.front.http.response import http_date


def later(request):
    """A handler that leaves the answer to the test."""


def test_the_fields_of_a_request():
    peer = Peer()
    peer.send(
        b"POST /hub%2Fa/messages?timeout=60&x=?y HTTP/1.1\r\n"
        b"hOsT: ns.example:8080\r\n"
        b"authorization: first\r\n"
        b"Authorization: second\r\n"
        b"Content-TYPE: \t text/xml  \r\n"
        b"brokerProperties: {}\r\n"
        b"Content-Length: 3\r\n"
        b"\r\n"
        b"abc"
    )
    (request,) = peer.requests
    assert request.method == b"POST"
    assert request.target == b"/hub%2Fa/messages?timeout=60&x=?y"
    assert (request.path, request.query) == (b"/hub%2Fa/messages", b"timeout=60&x=?y")
    assert request.host == b"ns.example:8080"
    assert request.authorization == b"first"
    assert request.content_type == b"text/xml"
    assert request.body == b"abc"
    assert request.headers[4] == (b"brokerProperties", b"{}")
    assert request.header(b"brokerproperties") == b"{}"
    assert request.header(b"missing") is None
    assert request.header_all(b"authorization") == [b"first", b"second"]
    assert (request.peer, request.secure) == ("192.0.2.7:4711", False)
    assert request.received == peer.clock.now()
    assert request.keep_alive


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"/", b"h", b"/", b""),
        (b"/a?", b"h", b"/a", b""),
        (b"//a//b/", b"h", b"//a//b/", b""),
        (b"/a?b=http://x/y", b"h", b"/a", b"b=http://x/y"),
        (
            b"https://ns.servicebus.windows.net/hub/messages",
            b"ns.servicebus.windows.net",
            b"/hub/messages",
            b"",
        ),
        (b"HTTP://NS.example:80/a/%20b?c=d", b"NS.example:80", b"/a/%20b", b"c=d"),
        (b"http://user:secret@ns.example/a", b"ns.example", b"/a", b""),
        (b"http://ns.example", b"ns.example", b"/", b""),
        (b"http://ns.example?x=1", b"ns.example", b"/", b"x=1"),
        (b"http://[::1]:8080/a", b"[::1]:8080", b"/a", b""),
    ],
)
def test_targets_in_origin_and_absolute_form(target, host, path, query):
    peer = Peer()
    peer.send(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    (request,) = peer.requests
    assert (request.host, request.path, request.query) == (host, path, query)


def test_options_of_the_whole_server():
    peer = Peer()
    peer.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
    assert peer.requests[0].path == b"*"


def test_an_answer_carries_the_standing_headers():
    peer = Peer(lambda request: request.respond(200, ((b"ETag", b"1"),), b"body"))
    peer.send(post())
    (answer,) = peer.answers
    assert answer.status == 200
    assert answer.body == b"body"
    assert answer.headers == {
        "Date": "Tue, 14 Nov 2023 22:13:20 GMT",
        "Server": "Microsoft-HTTPAPI/2.0",
        "ETag": "1",
        "Content-Length": "4",
    }


def test_the_date_moves_with_the_clock():
    peer = Peer()
    peer.send(post())
    peer.advance(1_000)
    peer.send(post())
    assert [a.headers["Date"][-6:] for a in peer.answers] == ["20 GMT", "21 GMT"]


def test_dates_are_written_as_http_wants_them():
    assert http_date(784_111_777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_an_answer_over_tls_asks_for_tls_in_future():
    peer = Peer(secure=True)
    peer.send(post())
    assert peer.answers[0].headers["Strict-Transport-Security"] == "max-age=31536000"
    assert peer.requests[0].secure


def test_an_answer_to_head_has_the_length_and_no_body():
    peer = Peer(lambda request: request.respond(200, (), b"four"))
    peer.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
    head, separator, body = peer.transport.output.partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert separator
    assert body == b""


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_has_no_length(status):
    peer = Peer(lambda request: request.respond(status, (), b"ignored"))
    peer.send(post())
    assert "Content-Length" not in peer.answers[0].headers


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_cannot_split_the_answer(value):
    failures = []

    def handler(request):
        try:
            request.respond(200, ((b"Location", value),))
        except ValueError as error:
            failures.append(error)

    peer = Peer(handler)
    peer.send(post() + post())
    assert [a.status for a in peer.answers] == [500, 500]
    assert len(failures) == 2


def test_a_second_answer_is_a_mistake_of_ours():
    peer = Peer(later)
    peer.send(post())
    request = peer.requests[0]
    request.respond(201)
    with pytest.raises(RuntimeError, match="answered twice"):
        request.respond(201)
    with pytest.raises(RuntimeError, match="answered twice"):
        request.start_stream(200)
    assert [a.status for a in peer.answers] == [201]


def test_a_handler_that_fails_answers_500_and_the_connection_goes_on():
    def handler(request):
        if request.path == b"/bad":
            raise KeyError("bad")
        request.respond(201)

    peer = Peer(handler)
    peer.send(post(target=b"/bad") + post(target=b"/good"))
    assert [a.status for a in peer.answers] == [500, 201]


# Keep-alive


@pytest.mark.parametrize(
    ("version", "lines", "stays", "says"),
    [
        (b"1.1", b"", True, None),
        (b"1.1", b"Connection: keep-alive\r\n", True, None),
        (b"1.1", b"Connection: close\r\n", False, "close"),
        (b"1.1", b"Connection: foo, Close\r\n", False, "close"),
        (b"1.0", b"", False, "close"),
        (b"1.0", b"Connection: keep-alive\r\n", True, "keep-alive"),
    ],
)
def test_whether_the_connection_stays_open(version, lines, stays, says):
    peer = Peer(lambda request: request.respond_raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    peer.send(b"GET / HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n")
    assert peer.answers[0].headers.get("Connection") == says
    assert peer.requests[0].keep_alive is stays
    assert peer.ended is not stays


def test_http_1_0_needs_no_host():
    peer = Peer()
    peer.send(b"GET /a HTTP/1.0\r\n\r\n")
    assert peer.requests[0].host == b""


def test_nothing_after_a_last_request_is_read():
    peer = Peer()
    peer.send(post(lines=b"Connection: close\r\n") + post(target=b"/smuggled"))
    assert len(peer.requests) == len(peer.answers) == 1
    assert peer.ended


def test_empty_lines_before_a_request_are_skipped():
    peer = Peer()
    peer.send(b"\r\n\r\n" + post())
    assert len(peer.requests) == 1


# Pipelining


def test_pipelined_requests_are_handled_one_at_a_time_and_answered_in_order():
    peer = Peer(later)
    peer.send(b"".join(post(b"%d" % n) for n in range(5)))
    for n in range(5):
        assert [r.body for r in peer.requests] == [b"%d" % m for m in range(n + 1)]
        peer.requests[n].respond(200, (), b"answer %d" % n)
    assert [a.body for a in peer.answers] == [b"answer %d" % n for n in range(5)]


def test_reading_stops_when_too_many_requests_wait_and_goes_on_when_there_is_room():
    peer = Peer(later, limits=HttpLimits(pipeline_depth_max=4))
    peer.send(post() * 10_000)
    assert not peer.transport.reading
    answered = 0
    while answered < 10_000:
        assert len(peer.requests) == answered + 1
        peer.requests[answered].respond(201)
        answered += 1
        held = len(peer.connection._reader.ready)
        assert held < 4 + 16 * 1024 / len(post()) + 1
    assert peer.transport.reading
    assert len(peer.answers) == 10_000


def test_reading_stops_when_the_waiting_bodies_are_too_large():
    peer = Peer(later, limits=HttpLimits(pipeline_bytes_max=100_000))
    peer.send(post(b"x" * 60_000))
    peer.send(post(b"y" * 60_000))
    assert peer.transport.reading
    peer.send(post(b"z" * 60_000))
    assert not peer.transport.reading
    peer.requests[0].respond(201)
    peer.requests[1].respond(201)
    assert peer.transport.reading
    peer.requests[2].respond(201)
    assert len(peer.answers) == 3


def test_ten_thousand_pipelined_requests_answered_at_once_do_not_nest():
    peer = Peer()
    peer.send(post() * 10_000)
    assert len(peer.answers) == 10_000


# Bodies


def test_a_chunked_body_is_joined_and_its_extensions_and_trailers_are_dropped():
    peer = Peer()
    peer.send(
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n"
        b'3;name=value;quoted="a b"\r\nabc\r\n00a\r\n0123456789\r\n'
        b"0\r\nX-Trailer: t\r\nAuthorization: u\r\n\r\n" + post(b"next")
    )
    first, second = peer.requests
    assert first.body == b"abc0123456789"
    assert first.header(b"x-trailer") is None
    assert first.authorization == b""
    assert second.body == b"next"
    assert second.header(b"x-trailer") is None


def test_a_trailer_cannot_change_the_connection():
    peer = Peer()
    peer.send(chunked(b"a", trailers=b"Connection: upgrade\r\nUpgrade: websocket\r\n") + post())
    assert [r.upgrade for r in peer.requests] == [False, False]


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_where_the_reads_end_does_not_matter(bodies, step):
    stream = b"".join(post(b) + chunked(*(c for c in (b[:3], b[3:]) if c)) for b in bodies)
    peer = Peer()
    peer.send(stream, step=step)
    assert [r.body for r in peer.requests] == [b for b in bodies for _ in "12"]
    assert len(peer.answers) == 2 * len(bodies)


def test_a_body_arriving_in_many_pieces():
    body = bytes(range(256)) * 4096
    peer = Peer()
    peer.send(post(body), step=5000)
    peer.send(post(body))
    assert [r.body for r in peer.requests] == [body, body]


# Expect: 100-continue

EXPECT = b"Expect: 100-Continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_client_that_waits_is_told_to_go_on():
    peer = Peer()
    head, _, body = post(b"abc", lines=EXPECT).partition(b"abc")
    peer.send(head)
    assert peer.transport.output == CONTINUE
    peer.send(b"abc" + body)
    assert [a.status for a in peer.answers] == [100, 201]


def test_a_client_that_waits_before_a_chunked_body_is_told_to_go_on():
    peer = Peer()
    request = chunked(b"abc", lines=EXPECT)
    end = request.index(b"\r\n\r\n") + 4
    peer.send(request[:end])
    assert peer.transport.output == CONTINUE
    peer.send(request[end:])
    assert peer.requests[0].body == b"abc"


def test_a_client_that_does_not_wait_is_not_told():
    peer = Peer()
    peer.send(post(b"abc", lines=EXPECT))
    assert [a.status for a in peer.answers] == [201]


def test_a_client_that_has_begun_its_body_is_not_told():
    peer = Peer()
    request = post(b"abc", lines=EXPECT)
    peer.send(request[:-2])
    assert peer.transport.output == b""
    peer.send(request[-2:])
    assert [a.status for a in peer.answers] == [201]


def test_a_client_without_a_body_is_not_told():
    peer = Peer()
    peer.send(post(b"", lines=EXPECT))
    assert [a.status for a in peer.answers] == [201]


def test_an_http_1_0_client_is_not_told():
    peer = Peer()
    peer.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert peer.transport.output == b""
    peer.send(b"abc")
    assert [a.status for a in peer.answers] == [201]


def test_to_go_on_is_said_only_after_the_answers_before_it():
    peer = Peer(later)
    peer.send(post() + post(b"abc", lines=EXPECT)[:-3])
    assert peer.transport.output == b""
    peer.requests[0].respond(201)
    assert [a.status for a in peer.answers] == [201, 100]
    peer.send(b"abc")
    peer.requests[1].respond(202)
    assert [a.status for a in peer.answers] == [201, 100, 202]


def test_a_refused_client_is_not_told_to_go_on():
    peer = Peer(admit=lambda request: Refusal(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"))
    peer.send(post(b"abc", lines=EXPECT)[:-3])
    assert [a.status for a in peer.answers] == [401]
    assert peer.ended


def test_another_expectation_is_refused():
    peer = Peer()
    peer.send(post(b"abc", lines=b"Expect: 200-ok\r\n"))
    assert [a.status for a in peer.answers] == [417]
    assert not peer.requests


# Streams


def stream_events(output: bytes) -> list[h11.Event]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(output)
    events = []
    while (event := client.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        events.append(event)
    return events


def test_a_streamed_answer():
    peer = Peer(later)
    peer.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n" + post())
    stream = peer.requests[0].start_stream(200, ((b"Content-Type", b"text/event-stream"),))
    stream.write(b"one")
    stream.write(b"")
    stream.write(b"two")
    assert len(peer.requests) == 1
    assert stream.open
    stream.end()
    assert not stream.open
    stream.end()
    stream.write(b"late")
    response, *data, end = stream_events(peer.transport.output)
    assert response.status_code == 200
    assert b"".join(bytes(d.data) for d in data) == b"onetwo"
    assert isinstance(end, h11.EndOfMessage)
    assert len(peer.requests) == 2


def test_a_streamed_answer_to_http_1_0_ends_with_the_connection():
    peer = Peer(later)
    peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    stream = peer.requests[0].start_stream(200)
    stream.write(b"one")
    assert not peer.ended
    stream.end()
    peer.pump()
    head, _, body = peer.transport.output.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"chunked" not in head
    assert body == b"one"
    assert peer.ended


def test_a_streamed_answer_to_head_has_no_body():
    peer = Peer(later)
    peer.send(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
    stream = peer.requests[0].start_stream(200)
    stream.write(b"one")
    stream.end()
    assert peer.transport.output.endswith(b"\r\n\r\n")
    assert not peer.ended


def test_a_stream_cannot_be_answered_again():
    peer = Peer(later)
    peer.send(post())
    peer.requests[0].start_stream(200)
    with pytest.raises(RuntimeError, match="answered twice"):
        peer.requests[0].respond(200)


def test_a_stream_whose_handler_fails_is_broken_off():
    def handler(request):
        request.start_stream(200).write(b"half")
        raise KeyError("bad")

    peer = Peer(handler)
    peer.send(post())
    assert peer.transport.aborted


def test_a_stream_waits_for_a_slow_client():
    async def main():
        peer = Peer(later, slow=True, limits=HttpLimits(write_buffer_bytes_max=1000))
        peer.send(post())
        stream = peer.requests[0].start_stream(200)
        await stream.drain()
        stream.write(b"x" * 2000)
        assert stream.paused
        waiting = asyncio.ensure_future(stream.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        peer.catch_up()
        await waiting
        assert not stream.paused
        stream.write(b"x" * 2000)
        waiting = asyncio.ensure_future(stream.drain())
        await asyncio.sleep(0)
        peer.leave()
        await waiting
        assert not stream.open
        stream.write(b"dropped")
        stream.end()

    asyncio.run(main())


# Upgrades

UPGRADE = (
    b"GET /$servicebus/websocket HTTP/1.1\r\n"
    + HOST
    + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"<" + data + b">")


def test_a_websocket_handshake_takes_the_connection_over_with_the_bytes_behind_it():
    peer = Peer(lambda request: request.take_over(Echo, SWITCH))
    peer.send(UPGRADE + b"early")
    assert peer.requests[0].upgrade
    peer.send(b"later")
    assert peer.transport.output == SWITCH + b"<early><later>"
    assert peer.server.connections_open == 0


@pytest.mark.parametrize("step", [0, 1, 40_000])
def test_a_connection_may_be_taken_over_later(step):
    peer = Peer(later)
    early = b"e" * 50_000
    peer.send(UPGRADE + early, step=step)
    assert not peer.transport.reading
    peer.requests[0].take_over(Echo, SWITCH)
    assert peer.transport.reading
    assert peer.transport.output.replace(b"<", b"").replace(b">", b"") == SWITCH + early


def test_a_declined_handshake_leaves_an_ordinary_connection():
    peer = Peer(later)
    peer.send(UPGRADE + post(b"abc"))
    peer.requests[0].respond(400)
    assert peer.requests[1].body == b"abc"
    peer.requests[1].respond(201)
    assert [a.status for a in peer.answers] == [400, 201]
    assert peer.transport.reading


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(
            b"abc",
            lines=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        ),
        chunked(b"a", b"bc", lines=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        post(b"abc", lines=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        post(b"abc", lines=EXPECT + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_an_offer_to_upgrade_an_ordinary_request_is_ignored(request_bytes, step):
    peer = Peer()
    peer.send(request_bytes * 2 + post(b"next"), step=step)
    assert [r.body for r in peer.requests] == [b"abc", b"abc", b"next"]
    assert not any(r.upgrade for r in peer.requests)
    assert [a.status for a in peer.answers if a.status != 100] == [201, 201, 201]
    with pytest.raises(RuntimeError, match="take over"):
        peer.requests[0].take_over(Echo)


def test_an_ignored_offer_does_not_open_a_way_past_the_end():
    peer = Peer()
    offer = post(b"abc", lines=b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n")
    peer.send(offer + post(target=b"/smuggled"))
    assert [r.body for r in peer.requests] == [b"abc"]
    assert peer.ended


def test_an_ignored_offer_before_a_large_chunked_body():
    peer = Peer(limits=HttpLimits(body_framing_bytes_max=1_000))
    body = b"x" * 100_000
    peer.send(chunked(body, lines=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"))
    assert peer.requests[0].body == body


def test_an_offer_to_upgrade_a_bodiless_request_is_ignored():
    peer = Peer()
    peer.send((b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n") * 3)
    assert len(peer.requests) == 3


def test_a_connection_with_first_bytes_already_read():
    peer = Peer()
    other = peer.server.protocol(secure=False)()
    other.attach(peer.transport, post(b"abc"))
    assert peer.transport.protocol is other
    assert peer.requests[0].body == b"abc"
    assert parse_answers(peer.transport.output)[0].status == 201


# Reports


def test_every_answer_is_reported():
    reports = []
    peer = Peer(
        later,
        admit=lambda r: (
            Refusal(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            if r.path == b"/closed"
            else None
        ),
        on_complete=lambda request, *figures: reports.append((request.path, *figures)),
    )
    request = post(b"abc")
    peer.send(request)
    peer.advance(1_500)
    peer.requests[0].respond(201)
    (path, status, bytes_in, bytes_out, seconds) = reports.pop()
    assert (path, status, seconds) == (b"/hub/messages", 201, 1.5)
    assert bytes_out == len(peer.transport.output)
    assert bytes_in == 3
    peer.send(post(target=b"/closed"))
    assert reports.pop()[:2] == (b"/closed", 401)
    peer.send(post())
    peer.leave()
    assert reports.pop()[:2] == (b"/hub/messages", 499)
    peer.connect()
    peer.send(b"nonsense\r\n\r\n")
    assert reports.pop()[:2] == (b"", 400)
    assert (peer.server.requests_total, peer.server.requests_refused) == (3, 2)
    assert peer.server.connections_total == 2


def test_a_report_that_fails_hurts_nobody():
    peer = Peer(on_complete=lambda *_: 1 // 0)
    peer.send(post() + post())
    assert len(peer.answers) == 2
