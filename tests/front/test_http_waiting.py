"""Time and room on an HTTP connection: slow clients, silent clients, clients that leave, too many clients."""

from __future__ import annotations

import asyncio

import pytest

from front.http_peer import HOST, Peer, chunked, post
from hubbub.front.http.connection import HttpConnection
from hubbub.front.http.limits import HttpLimits

LIMITS = HttpLimits(
    header_timeout=10_000,
    body_timeout=10_000,
    body_rate_min=100,
    idle_timeout=60_000,
    write_timeout=30_000,
    write_buffer_bytes_max=1_000,
    body_bytes_max=1_000_000,
)


def later(request):
    """A handler that leaves the answer to the test."""


# Slow headers and bodies


@pytest.mark.parametrize("beginning", [b"P", b"POST /a", b"POST / HTTP/1.1\r\n", post()[:-1]])
def test_a_header_that_does_not_arrive_in_time(beginning):
    peer = Peer(limits=LIMITS)
    peer.send(beginning)
    peer.advance(9_000)
    assert peer.transport.output == b""
    peer.advance(2_000)
    assert [a.status for a in peer.answers] == [408]
    assert peer.ended


def test_a_header_that_drips_is_not_given_more_time():
    peer = Peer(limits=LIMITS)
    for byte in post(lines=b"X-Long: aaaaaaaaaaaaaaaaaaaa\r\n")[:12]:
        peer.send(bytes([byte]))
        peer.advance(1_000)
    assert [a.status for a in peer.answers] == [408]


def test_the_time_for_a_header_starts_with_its_first_byte():
    peer = Peer(limits=LIMITS)
    peer.advance(50_000)
    peer.send(b"POST")
    peer.advance(9_000)
    peer.send(post()[4:])
    assert [a.status for a in peer.answers] == [201]


def test_a_late_header_behind_a_waiting_request_is_refused_in_its_turn():
    peer = Peer(later, limits=LIMITS)
    peer.send(post() + b"POST")
    peer.advance(12_000)
    assert peer.transport.output == b""
    peer.requests[0].respond(201)
    assert [a.status for a in peer.answers] == [201, 408]
    assert peer.ended


@pytest.mark.parametrize("beginning", [post(b"x" * 100)[:-99], chunked(b"x" * 100)[:-50]])
def test_a_body_that_does_not_arrive_in_time(beginning):
    peer = Peer(limits=LIMITS)
    peer.send(beginning)
    peer.advance(8_000)
    assert peer.answers == []
    peer.advance(5_000)
    assert [a.status for a in peer.answers] == [408]
    assert peer.ended


def test_a_body_that_arrives_steadily_has_all_the_time_it_needs():
    peer = Peer(limits=LIMITS)
    peer.send(post(b"x" * 60_000)[:-60_000])
    for _ in range(300):
        peer.send(b"x" * 200)
        peer.advance(1_000)
    assert [a.status for a in peer.answers] == [201]


def test_a_body_that_arrives_too_slowly():
    peer = Peer(limits=LIMITS)
    peer.send(post(b"x" * 60_000)[:-60_000])
    for _ in range(60):
        peer.send(b"x" * 20)
        peer.advance(1_000)
    assert [a.status for a in peer.answers] == [408]


def test_a_client_that_was_told_to_go_on_and_does_not():
    peer = Peer(limits=LIMITS)
    peer.send(post(b"abc", lines=b"Expect: 100-continue\r\n")[:-3])
    peer.advance(12_000)
    assert [a.status for a in peer.answers] == [100, 408]


# Silence


def test_an_idle_connection_is_closed_without_a_word():
    peer = Peer(limits=LIMITS)
    peer.advance(59_000)
    assert not peer.ended
    peer.advance(2_000)
    assert peer.transport.output == b""
    assert peer.connection.lost


def test_idle_time_counts_from_the_last_answer():
    peer = Peer(limits=LIMITS)
    for _ in range(5):
        peer.advance(50_000)
        peer.send(post())
    assert len(peer.answers) == 5
    peer.advance(59_000)
    assert not peer.ended
    peer.advance(3_000)
    assert peer.connection.lost


def test_empty_lines_do_not_keep_a_connection_alive():
    peer = Peer(limits=LIMITS)
    for _ in range(70):
        peer.send(b"\r\n")
        peer.advance(1_000)
    assert peer.connection.lost


def test_an_idle_timeout_shorter_than_the_life_of_an_idle_reader():
    peer = Peer(limits=HttpLimits(idle_timeout=2_000))
    peer.send(post())
    peer.advance(4_000)
    assert peer.connection.lost


def test_a_waiting_request_has_no_deadline_of_ours():
    peer = Peer(later, limits=LIMITS)
    peer.send(post())
    peer.advance(3_600_000)
    peer.requests[0].respond(204)
    assert [a.status for a in peer.answers] == [204]
    assert not peer.ended


def test_an_idle_connection_is_small():
    peer = Peer(limits=LIMITS)
    assert peer.connection._reader is None
    peer.send(post())
    assert peer.connection._reader is not None
    peer.advance(7_000)
    assert peer.connection._reader is None
    assert not hasattr(peer.connection, "__dict__")
    assert HttpConnection.__basicsize__ <= 256
    peer.send(post())
    assert len(peer.answers) == 2


def test_there_is_no_sweep_without_connections():
    peer = Peer(limits=LIMITS)
    peer.leave()
    peer.advance(2_000)
    assert not peer.clock._timers
    peer.connect()
    peer.advance(61_000)
    assert peer.connection.lost


# Clients that do not read


def test_a_client_that_reads_nothing_is_dropped():
    peer = Peer(lambda r: r.respond(200, (), b"x" * 2_000), limits=LIMITS, slow=True)
    peer.send(post() * 3)
    assert len(peer.requests) == 1
    assert not peer.transport.reading
    peer.advance(29_000)
    assert not peer.transport.closing
    peer.advance(2_000)
    assert peer.transport.aborted
    assert peer.connection.lost


def test_a_client_that_reads_slowly_is_kept():
    peer = Peer(lambda r: r.respond(200, (), b"x" * 100_000), limits=LIMITS, slow=True)
    peer.send(post())
    for _ in range(10):
        peer.advance(25_000)
        peer.transport.backlog -= 5_000
    assert not peer.transport.closing


def test_the_next_request_waits_until_the_client_has_read():
    peer = Peer(lambda r: r.respond(200, (), b"x" * 2_000), limits=LIMITS, slow=True)
    peer.send(post() * 3 + b"POST / HT")
    for n in range(1, 4):
        assert len(peer.requests) == n
        peer.catch_up()
    assert peer.transport.reading
    peer.send(b"TP/1.1\r\n" + HOST + b"\r\n")
    assert len(peer.requests) == 4


def test_a_last_answer_that_nobody_reads_does_not_hold_the_connection():
    peer = Peer(limits=LIMITS)
    connection, transport = peer.connection, peer.transport
    connection.data_received(post(lines=b"Connection: close\r\n"))
    assert transport.closing
    assert not transport.aborted
    peer.clock.advance(32_000)
    assert transport.aborted


# Clients that leave


def test_a_client_that_leaves_is_noticed_once():
    left = []

    def handler(request):
        request.on_disconnect = lambda: left.append(request)

    peer = Peer(handler)
    peer.send(post())
    request = peer.requests[0]
    assert not request.disconnected
    peer.leave()
    assert left == [request]
    assert request.disconnected
    request.respond(201)
    request.respond_raw(b"")
    request.start_stream(200).write(b"x")
    assert peer.transport.output == b""
    with pytest.raises(RuntimeError):
        request.take_over(asyncio.Protocol)


def test_a_client_that_leaves_after_the_answer_is_not_reported():
    left = []

    def handler(request):
        request.on_disconnect = lambda: left.append(request)
        request.respond(201)

    peer = Peer(handler)
    peer.send(post())
    peer.leave()
    assert left == []


def test_a_client_that_leaves_during_a_stream_is_noticed():
    left = []

    def handler(request):
        request.on_disconnect = lambda: left.append(request)
        request.start_stream(200)

    peer = Peer(handler)
    peer.send(post())
    peer.leave()
    assert len(left) == 1


def test_requests_behind_the_one_a_client_left_are_not_handled():
    peer = Peer(later)
    peer.send(post() * 3)
    peer.leave()
    peer.requests[0].respond(201)
    assert len(peer.requests) == 1


def test_a_client_that_only_stops_sending_still_gets_its_answers():
    peer = Peer(later)
    peer.send(post() * 2)
    peer.shut()
    peer.requests[0].respond(201)
    peer.requests[1].respond(202)
    peer.pump()
    assert [a.status for a in peer.answers] == [201, 202]
    assert peer.connection.lost


def test_a_client_that_stops_sending_while_a_long_wait_is_on_counts_as_gone():
    left = []

    def handler(request):
        request.on_disconnect = lambda: left.append(request)

    peer = Peer(handler)
    peer.send(post())
    peer.shut()
    assert len(left) == 1


def test_a_wait_that_begins_after_the_client_stopped_sending_is_told():
    async def main():
        left = []
        peer = Peer(later)
        peer.send(post())
        peer.shut()
        peer.requests[0].on_disconnect = lambda: left.append(1)
        await asyncio.sleep(0)
        assert left == [1]

    asyncio.run(main())


@pytest.mark.parametrize("beginning", [b"", b"PO", post(b"abc")[:-1]])
def test_a_client_that_stops_in_the_middle(beginning):
    peer = Peer()
    peer.send(beginning)
    peer.shut()
    assert peer.connection.lost
    assert peer.requests == []
    assert peer.server.connections_open == 0


# Too many clients


def test_one_connection_too_many_is_told_so_and_closed():
    peer = Peer(limits=HttpLimits(connections_max=2))
    first = peer.connection
    peer.connect()
    peer.connect()
    assert [a.status for a in peer.answers] == [503]
    assert peer.ended
    peer.send(post())
    assert peer.requests == []
    assert peer.server.connections_refused == 1
    peer.advance(3_000)
    assert peer.connection.lost
    first.connection_lost(None)
    peer.connect()
    peer.send(post())
    assert [a.status for a in peer.answers] == [201]


def test_far_too_many_connections_are_dropped():
    peer = Peer(limits=HttpLimits(connections_max=1))
    for _ in range(500):
        peer.connect()
    assert peer.transport.aborted
    assert peer.server.connections_open < 200
    assert peer.server.connections_refused == 500


# The end of the server


def test_a_server_that_ends_closes_idle_connections_and_finishes_the_others():
    async def main():
        peer = Peer(later)
        busy, transport = peer.connection, peer.transport
        peer.send(post() * 2)
        peer.connect()
        idle = peer.connection
        peer.connect()
        used = peer.connection
        peer.send(post())
        peer.requests.pop().respond(201)
        draining = asyncio.ensure_future(peer.server.drain(10_000))
        await asyncio.sleep(0)
        for connection in (idle, used):
            assert connection.transport.closing
            connection.connection_lost(None)
        assert not transport.closing
        peer.requests[0].respond(201)
        assert b"Connection: close" in transport.output
        assert transport.closing
        assert len(peer.requests) == 1
        assert not draining.done()
        busy.connection_lost(None)
        await draining
        peer.connect()
        assert peer.transport.aborted

    asyncio.run(main())


def test_a_server_that_ends_refuses_and_streams_one_last_time():
    async def main():
        peer = Peer(later)
        peer.send(post())
        stream = peer.requests[0].start_stream(200)
        draining = asyncio.ensure_future(peer.server.drain(10_000))
        await asyncio.sleep(0)
        stream.write(b"last")
        assert not peer.ended
        stream.end()
        peer.pump()
        assert peer.connection.lost
        await draining

    asyncio.run(main())


def test_a_server_that_ends_does_not_wait_for_ever():
    async def main():
        peer = Peer(later)
        peer.send(post())
        draining = asyncio.ensure_future(peer.server.drain(10_000))
        await asyncio.sleep(0)
        peer.advance(9_000)
        assert not peer.transport.closing
        peer.advance(1_000)
        assert peer.transport.aborted
        await draining

    asyncio.run(main())


def test_a_server_without_connections_ends_at_once():
    async def main():
        peer = Peer()
        peer.leave()
        await peer.server.drain(10_000)

    asyncio.run(main())
