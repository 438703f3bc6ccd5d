"""What HTTP/1.1 input is refused, byte by byte: malformed, ambiguous, or beyond a limit.

A refusal must be an answer, the end of the connection, and nothing more: no handler sees the request, and
nothing behind it is taken for another one.
"""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from front.http_peer import HOST, Peer, chunked, post
from hubbub.front.http.limits import HttpLimits, Refusal

LINE = b"POST / HTTP/1.1\r\n" + HOST
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


def coded(coding: bytes) -> bytes:
    return LINE + coding + b"\r\n\r\n" + CHUNKS


def sized(length: bytes) -> bytes:
    return LINE + length + b"\r\n\r\nabcde"


def framed(chunks: bytes) -> bytes:
    return LINE + b"Transfer-Encoding: chunked\r\n\r\n" + chunks


MALFORMED = {
    "not http": b"hello\r\n\r\n",
    "a tls handshake": bytes.fromhex("16030100f8010000f40303") + bytes(100),
    "an amqp header": b"AMQP\x03\x01\x00\x00",
    "unknown method": b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    "lower case method": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab in the request line": b"GET\t/\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "blank after the version": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "two versions": b"GET / HTTP/1.1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "lower case version": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "relative target": b"GET hub/messages HTTP/1.1\r\n" + HOST + b"\r\n",
    "star for a method other than OPTIONS": b"POST * HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment in an absolute target": b"GET http://h/a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "another scheme": b"GET ftp://h/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute target without host": b"GET http:///a HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute target with a bad host": b"GET http://a:b:c/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "control character in the target": b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw utf-8 in the target": "GET /ä HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: h\n\n",
    "bare LF after a header": LINE + b"X: a\nY: b\r\n\r\n",
    "bare LF at the end": LINE + b"X: a\r\n\n",
    "bare CR in a header": LINE + b"X: a\rY: b\r\n\r\n",
    "doubled CR": LINE + b"X: a\r\r\n\r\n",
    "blank before a colon": LINE + b"X : a\r\n\r\n",
    "blank before the first name": b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
    "obs-fold": LINE + b"X: a\r\n b\r\n\r\n",
    "obs-fold by tab": LINE + b"X: a\r\n\tb\r\n\r\n",
    "obs-fold in a coding": coded(b"Transfer-Encoding:\r\n chunked"),
    "NUL in a value": LINE + b"X: a\0b\r\n\r\n",
    "NUL in a name": LINE + b"X\0: a\r\n\r\n",
    "control character in a value": LINE + b"X: a\x0bb\r\n\r\n",
    "no colon": LINE + b"X\r\n\r\n",
    "no name": LINE + b": a\r\n\r\n",
    "bad name": LINE + b"X(a): b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no host but an absolute target": b"GET http://h/ HTTP/1.1\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same host twice": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "two hosts in http/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host with user information": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "host with a bad port": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "host with a blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host list": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "host too long": b"GET / HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n\r\n",
    "length and coding": LINE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "coding and length": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKS,
    "two lengths": sized(b"Content-Length: 5\r\nContent-Length: 4"),
    "the same length twice": sized(b"Content-Length: 5\r\ncontent-length: 5"),
    "length with a sign": sized(b"Content-Length: +5"),
    "negative length": sized(b"Content-Length: -5"),
    "hexadecimal length": sized(b"Content-Length: 0x5"),
    "length list": sized(b"Content-Length: 5, 5"),
    "length with a blank": sized(b"Content-Length: 5 5"),
    "empty length": sized(b"Content-Length:"),
    "length beyond 64 bits": sized(b"Content-Length: 18446744073709551621"),
    "length with too many zeros": sized(b"Content-Length: " + b"0" * 5_000 + b"5"),
    "coding then identity": coded(b"Transfer-Encoding: chunked, identity"),
    "identity then coding": coded(b"Transfer-Encoding: identity, chunked"),
    "another coding first": coded(b"Transfer-Encoding: gzip, chunked"),
    "only identity": coded(b"Transfer-Encoding: identity"),
    "unknown coding": coded(b"Transfer-Encoding: xchunked"),
    "quoted coding": coded(b'Transfer-Encoding: "chunked"'),
    "coding behind a vertical tab": coded(b"Transfer-Encoding: \x0bchunked"),
    "empty coding": coded(b"Transfer-Encoding:"),
    "coding with a parameter": coded(b"Transfer-Encoding: chunked;a=b"),
    "coding and a comma": coded(b"Transfer-Encoding: chunked,"),
    "coding twice": coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "coding, then another": coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "coding, blank before the colon": coded(b"Transfer-Encoding : chunked"),
    "coding in http/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "hexadecimal prefix": framed(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a sign": framed(b"+3\r\nabc\r\n0\r\n\r\n"),
    "negative chunk size": framed(b"-3\r\nabc\r\n0\r\n\r\n"),
    "blank behind a chunk size": framed(b"3 \r\nabc\r\n0\r\n\r\n"),
    "blank before a chunk size": framed(b" 3\r\nabc\r\n0\r\n\r\n"),
    "empty chunk size": framed(b"\r\nabc\r\n0\r\n\r\n"),
    "chunk size beyond 64 bits": framed(b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "LF behind a chunk size": framed(b"3\nabc\r\n0\r\n\r\n"),
    "CR behind a chunk size": framed(b"3\rabc\r\n0\r\n\r\n"),
    "LF behind a chunk": framed(b"3\r\nabc\n0\r\n\r\n"),
    "nothing behind a chunk": framed(b"3\r\nabc0\r\n\r\n"),
    "chunk longer than its size": framed(b"3\r\nabcd\r\n0\r\n\r\n"),
    "LF in a chunk extension": framed(b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "LF behind the last chunk": framed(b"3\r\nabc\r\n0\n\r\n"),
    "LF at the end of the chunks": framed(b"3\r\nabc\r\n0\r\n\n"),
    "length in a trailer": chunked(b"abc", trailers=b"Content-Length: 30\r\n"),
    "coding in a trailer": chunked(b"abc", trailers=b"Transfer-Encoding: chunked\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("step", [0, 1])
def test_malformed_and_ambiguous_requests_are_refused(name, step):
    peer = Peer()
    peer.send(MALFORMED[name] + b"\r\n\r\n" + SMUGGLED, step=step)
    assert peer.requests == []
    (answer,) = peer.answers
    assert answer.status == 400
    assert answer.body
    assert answer.headers["Connection"] == "close"
    assert peer.ended


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (405, b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
        (505, b"GET / HTTP/2.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n"),
        (505, b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
        (505, b"GET /\r\n\r\n"),
    ],
)
def test_what_this_server_does_not_speak(status, data):
    peer = Peer()
    peer.send(data + SMUGGLED)
    assert [a.status for a in peer.answers] == [status]
    assert peer.requests == []
    assert peer.ended


def test_a_malformed_request_does_not_cost_the_answers_before_it():
    waiting = []
    peer = Peer(waiting.append)
    peer.send(post() + post() + sized(b"Content-Length: +5") + SMUGGLED)
    assert peer.answers == []
    waiting[0].respond(201)
    waiting[1].respond(202)
    peer.pump()
    assert [a.status for a in peer.answers] == [201, 202, 400]
    assert peer.ended
    assert len(waiting) == 2


def test_what_a_refused_client_still_sends_is_thrown_away_for_a_while():
    peer = Peer(limits=HttpLimits(linger_timeout=2_000, linger_bytes_max=1_000_000))
    peer.send(b"nonsense\r\n\r\n")
    assert peer.transport.eof_written
    peer.send(SMUGGLED * 100)
    assert not peer.transport.closing
    peer.advance(3_000)
    assert peer.connection.lost


def test_what_a_refused_client_still_sends_is_bounded():
    peer = Peer(limits=HttpLimits(linger_bytes_max=10_000))
    peer.send(b"nonsense\r\n\r\n")
    peer.send(b"x" * 10_000)
    assert not peer.transport.closing
    peer.send(b"x")
    assert peer.connection.lost


# h11 as a second opinion. We may be stricter than it, never understand anything differently.

TOKENS = st.sampled_from(
    [b"X", b"x-y", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Host", b"Connection"]
)
VALUES = st.sampled_from(b"|0|3|5|+3|03|3,3|chunked|Chunked|identity|h|h:80|close|a b|\xc3\xa4".split(b"|"))
SEPARATORS = st.sampled_from([b": ", b": ", b":", b":\t", b" : ", b":  "])
ENDS = st.sampled_from([b"\r\n"] * 8 + [b" \r\n", b"\n", b"\r", b"\r\n ", b"\0\r\n"])
FIELDS = st.tuples(TOKENS, SEPARATORS, VALUES, ENDS).map(b"".join) | st.just(b"Expect: 100-continue\r\n")
BODIES = st.sampled_from([b"", b"abc", CHUNKS, b"abcde", b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n", b"0\r\n\r\n"])
HEADS = st.lists(FIELDS, max_size=4).map(b"".join)
METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"])
MESSAGES = st.tuples(METHODS, st.sampled_from([b"1.1", b"1.1", b"1.0"]), HEADS, BODIES).map(
    lambda t: t[0] + b" /p?q HTTP/" + t[1] + b"\r\nHost: h\r\n" + t[2] + b"\r\n" + t[3]
)


def as_h11_sees_it(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(method, target, body) of each complete request, up to the first error or close."""
    seen: list[tuple[bytes, bytes, bytes]] = []
    # RFC 9112 §2.2 lets a server skip empty lines before a request; h11 does not, we do.
    while data := data.lstrip(b"\r\n"):
        server = h11.Connection(h11.SERVER)
        server.receive_data(data)
        request, body = None, b""
        try:
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if event in (h11.NEED_DATA, h11.PAUSED):
                    return seen
                if isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
        except h11.RemoteProtocolError:
            return seen
        seen.append((request.method, request.target, body))
        server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is not h11.DONE:
            return seen
        data = server.trailing_data[0]
    return seen


@given(st.lists(MESSAGES, min_size=1, max_size=3).map(b"".join), st.sampled_from([0, 1, 3]))
@example(post(b"abc") + post(b"d"), 0)
@settings(max_examples=400, deadline=None)
def test_no_request_is_understood_differently_from_h11(data, step):
    peer = Peer()
    peer.send(data, step=step)
    ours = [(r.method, r.target, r.body) for r in peer.requests]
    theirs = as_h11_sees_it(data)
    assert ours == theirs[: len(ours)]
    if len(ours) < len(theirs):
        assert peer.answers[-1].status == 400
        assert peer.ended


@given(st.binary(max_size=200), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_noise_is_survived(noise, step):
    peer = Peer()
    peer.send(noise, step=step)
    peer.send(post(b"abc") + noise, step=step)
    peer.advance(1_000_000)
    assert peer.connection.lost
    assert peer.server.connections_open == 0


# Bounds on the header

SMALL = HttpLimits(request_line_bytes_max=100, header_bytes_max=1_000, headers_max=10)


@pytest.mark.parametrize("step", [0, 1, 64])
@pytest.mark.parametrize(
    ("status", "data"),
    [
        (201, post(target=b"/" + b"a" * 99)),
        (414, post(target=b"/" + b"a" * 100)),
        (201, post(lines=b"X: y\r\n" * 8)),
        (431, post(lines=b"X: y\r\n" * 9)),
        (201, post(lines=b"X: " + b"y" * 800 + b"\r\n")),
        (431, post(lines=b"X: " + b"y" * 1_000 + b"\r\n")),
        (431, post(lines=b"X" * 1_000 + b": y\r\n")),
    ],
)
def test_bounds_on_the_header(status, data, step):
    peer = Peer(limits=SMALL)
    peer.send(data, step=step)
    assert [a.status for a in peer.answers] == [status]
    assert len(peer.requests) == (status == 201)
    assert peer.ended is (status != 201)


@pytest.mark.parametrize(
    ("status", "endless"),
    [
        (414, b"GET /" + b"a" * 200),
        (431, b"GET / HTTP/1.1\r\nX: " + b"y" * 2_000),
        (431, LINE + b"A: b\r\n" * 20),
    ],
)
def test_a_header_without_end_is_refused_before_it_ends(status, endless):
    peer = Peer(limits=SMALL)
    peer.send(endless, step=50)
    assert [a.status for a in peer.answers] == [status]
    assert peer.ended


def test_the_largest_header_that_the_ordinary_limits_allow():
    peer = Peer()
    lines = b"".join(b"Property-%03d: %b\r\n" % (n, b"v" * 330) for n in range(190))
    assert 64_000 < len(lines) < HttpLimits().header_bytes_max
    peer.send(post(lines=lines))
    assert peer.answers[0].status == 201
    peer.send(post(lines=lines + b"X: " + b"y" * 40_000 + b"\r\n"))
    assert peer.answers[1].status == 431


# Bounds on the body: refused before it is read

BODY_10 = HttpLimits(body_bytes_max=10, body_framing_bytes_max=100)


@pytest.mark.parametrize("step", [0, 1])
def test_a_body_over_the_limit_is_refused_before_it_is_read(step):
    peer = Peer(limits=BODY_10)
    peer.send(post(b"x" * 11)[:-11], step=step)
    (answer,) = peer.answers
    assert answer.status == 413
    assert b"10 bytes" in answer.body
    assert peer.ended


def test_a_body_at_the_limit_is_read():
    peer = Peer(limits=BODY_10)
    peer.send(post(b"x" * 10) + chunked(b"x" * 4, b"y" * 6))
    assert [a.status for a in peer.answers] == [201, 201]


def test_a_body_over_the_limit_is_refused_before_it_is_asked_for():
    peer = Peer(limits=BODY_10)
    peer.send(post(b"x" * 11, lines=b"Expect: 100-continue\r\n")[:-11])
    assert [a.status for a in peer.answers] == [413]


def test_a_chunked_body_is_refused_as_soon_as_it_exceeds_the_limit():
    peer = Peer(limits=BODY_10)
    data = chunked(b"x" * 6, b"y" * 5)
    peer.send(data[: data.index(b"yyyyy")])
    assert peer.answers == []
    peer.send(b"yyyyy")
    assert [a.status for a in peer.answers] == [413]
    assert peer.ended


def test_a_door_may_set_the_limit_of_each_request():
    peer = Peer(
        limits=BODY_10, admit=lambda r: 20 if r.path == b"/large" else 5 if r.path == b"/small" else None
    )
    peer.send(post(b"x" * 20, target=b"/large") + post(b"x" * 10) + post(b"x" * 5, target=b"/small"))
    assert [a.status for a in peer.answers] == [201, 201, 201]
    peer.send(post(b"x" * 6, target=b"/small"))
    assert peer.answers[3].status == 413
    assert b"5 bytes" in peer.answers[3].body


def test_a_door_may_refuse_before_the_body_is_read():
    seen = []

    def admit(request):
        seen.append((request.path, request.authorization, request.body))
        return Refusal(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")

    peer = Peer(admit=admit)
    peer.send(post(b"x" * 50, lines=b"Authorization: a\r\n")[:-50])
    assert seen == [(b"/hub/messages", b"a", b"")]
    (answer,) = peer.answers
    assert (answer.status, answer.body, answer.headers["Connection"]) == (401, b"no", "close")
    assert peer.requests == []
    assert peer.ended


def test_a_refusal_without_a_body_to_skip_keeps_the_connection():
    peer = Peer(admit=lambda r: Refusal(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"))
    peer.send(post() + b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert peer.transport.output.count(b"HTTP/1.1 401") == 2
    assert peer.transport.output.count(b"\r\n\r\nno") == 1, "an answer to HEAD has no body"
    assert not peer.ended


def test_a_door_that_fails_before_the_body_is_read_answers_500():
    peer = Peer(admit=lambda request: 1 // 0)
    peer.send(post(b"abc"))
    assert [a.status for a in peer.answers] == [500]
    assert peer.ended


def test_a_door_that_cannot_even_say_so_still_answers():
    peer = Peer()
    peer.server.error_response = lambda request, status, detail: 1 // 0
    peer.send(b"nonsense\r\n\r\n")
    assert [a.status for a in peer.answers] == [400]
    assert peer.ended


@pytest.mark.parametrize(
    "chunks",
    [
        b"1;" + b"x" * 20_000,
        b"0" * 20_000,
        b"1;a=bcdefghijklmnopqrstuvwxyz\r\nx\r\n" * 1_000,
        b"0\r\n" + b"X: y\r\n" * 5_000,
        b"0\r\nX: " + b"y" * 20_000,
    ],
)
@pytest.mark.parametrize("step", [100, 16_000])
def test_chunks_that_carry_too_much_besides_data(chunks, step):
    peer = Peer(limits=HttpLimits(body_framing_bytes_max=1_000))
    peer.send(framed(b""))
    peer.send(chunks * 2, step=step)
    assert [a.status for a in peer.answers] == [400]
    assert peer.ended


def test_small_chunks_are_not_mistaken_for_padding():
    peer = Peer(limits=HttpLimits(body_framing_bytes_max=100))
    peer.send(chunked(*[b"x"] * 5_000), step=100)
    assert peer.requests[0].body == b"x" * 5_000
