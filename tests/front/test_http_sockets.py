"""HTTP over real sockets, on both event loops, plain and over TLS: what no pair in memory can show."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from front.http_peer import HOST, error_response, parse_answers, post
from hubbub.clock import SystemClock
from hubbub.front.http.limits import HttpLimits
from hubbub.front.http.server import HttpServer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request):
    """Runs a coroutine function to its end on one of the loops."""

    def run(main: Callable[[], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(main(), 30))

    return run


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """(server context, client context) around a certificate for localhost made for this run."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


@contextlib.asynccontextmanager
async def listening(handler, *, limits=None, context=None) -> AsyncIterator[tuple[HttpServer, int]]:
    server: HttpServer
    server = HttpServer(
        handler, None, lambda *a: error_response(server)(*a), limits or HttpLimits(), SystemClock()
    )
    factory = server.protocol(secure=context is not None)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(factory, "127.0.0.1", 0, ssl=context)
    try:
        yield server, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.drain(0)


def echo(request):
    request.respond(200, (), request.method + b" " + request.path + b" " + request.body)


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop run until a condition holds that no event tells of."""
    while not condition():
        await asyncio.sleep(0)


async def exchange(port: int, data: bytes) -> bytes:
    """Sends bytes and reads until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


def test_an_ordinary_client(run):
    async def main():
        async with listening(echo) as (server, port), aiohttp.ClientSession() as client:
            for body in (b"a", b"b" * 1_000_000, b""):
                async with client.post(f"http://127.0.0.1:{port}/hub", data=body) as answer:
                    assert await answer.read() == b"POST /hub " + body
                    assert answer.headers["Server"] == "Microsoft-HTTPAPI/2.0"

            async def pieces():
                for _ in range(10):
                    yield b"0123456789" * 1000

            async with client.put(f"http://127.0.0.1:{port}/x", data=pieces(), expect100=True) as answer:
                assert len(await answer.read()) == len(b"PUT /x ") + 100_000
            assert server.connections_total == 1

    run(main)


def test_an_ordinary_client_over_tls(run, tls):
    async def main():
        async with listening(echo, context=tls[0]) as (_, port), aiohttp.ClientSession() as client:
            for body in (b"a", b"b" * 1_000_000):
                async with client.post(f"https://localhost:{port}/hub", data=body, ssl=tls[1]) as answer:
                    assert await answer.read() == b"POST /hub " + body
                    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"

    run(main)


def test_a_refused_client_that_goes_on_sending_still_gets_the_refusal(run):
    async def main():
        limits = HttpLimits(body_bytes_max=1_000, linger_bytes_max=16 * 1024 * 1024)
        async with listening(echo, limits=limits) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(b"x" * 8_000_000))
            (answer,) = parse_answers(await reader.read())
            assert answer.status == 413
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            await until(lambda: not server.connections)

    run(main)


def test_a_refused_client_over_tls_sees_the_refusal_and_the_end(run, tls):
    async def main():
        limits = HttpLimits(linger_timeout=10, sweep_interval=10)
        async with listening(echo, limits=limits, context=tls[0]) as (_, port):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls[1], server_hostname="localhost"
            )
            writer.write(b"nonsense\r\n\r\n")
            (answer,) = parse_answers(await reader.read())
            assert (answer.status, answer.headers["Connection"]) == (400, "close")
            writer.close()

    run(main)


def test_a_client_that_leaves_during_a_long_wait(run):
    async def main():
        waiting, left = asyncio.Event(), asyncio.Event()

        def handler(request):
            request.on_disconnect = left.set
            waiting.set()

        async with listening(handler) as (server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post())
            await waiting.wait()
            writer.close()
            await left.wait()
            # The handler hears of it first.
            for _ in range(20):
                await asyncio.sleep(0)
            assert server.connections_open == 0

    run(main)


def test_a_client_that_stops_sending_gets_its_answer(run):
    async def main():
        def handler(request):
            asyncio.get_running_loop().call_later(0.01, request.respond, 201)

        async with listening(handler) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post())
            writer.write_eof()
            assert [a.status for a in parse_answers(await reader.read())] == [201]
            writer.close()

    run(main)


def test_a_slow_reader_stops_the_server_from_answering_ahead(run):
    async def main():
        handled = 0

        def handler(request):
            nonlocal handled
            handled += 1
            request.respond(200, (), b"x" * 1_000_000)

        async with listening(handler) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
            writer.write(post() * 49 + post(lines=b"Connection: close\r\n"))
            await asyncio.sleep(0.1)
            assert 0 < handled < 50, "kernel buffers hold a few of them, and only one waits in ours"
            received = await reader.read()
            assert received.count(b"HTTP/1.1 200 OK") == 50
            assert received.count(b"x") == 50_000_000
            writer.close()

    run(main)


def test_one_connection_too_many_is_told_so(run):
    async def main():
        async with listening(echo, limits=HttpLimits(connections_max=3)) as (server, port):
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            await until(lambda: server.connections_open == 3)
            (answer,) = parse_answers(await exchange(port, post()))
            assert answer.status == 503
            held[0][1].write(post())
            assert (await held[0][0].readline()).startswith(b"HTTP/1.1 200")
            for _, writer in held:
                writer.close()

    run(main)


def test_a_connection_changes_hands(run):
    class Upper(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data.upper())

        def eof_received(self):
            self.transport.close()

    async def main():
        def handler(request):
            switch = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
            asyncio.get_running_loop().call_later(0.01, request.take_over, Upper, switch)

        async with listening(handler) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst,"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            assert await reader.readexactly(6) == b"FIRST,"
            writer.write(b"second")
            writer.write_eof()
            assert await reader.read() == b"SECOND"
            writer.close()

    run(main)


def test_a_sniffed_connection_is_attached(run):
    async def main():
        async with listening(echo) as (server, _):

            class Sniffer(asyncio.Protocol):
                def connection_made(self, transport):
                    self.transport = transport

                def data_received(self, data):
                    server.protocol(secure=False)().attach(self.transport, data)

            listener = await asyncio.get_running_loop().create_server(Sniffer, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            writer.write(post(b"abc"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.write(post(b"def", lines=b"Connection: close\r\n"))
            assert (await reader.read()).endswith(b"POST /hub/messages def")
            writer.close()
            listener.close()

    run(main)


def test_a_streamed_answer_to_a_slow_client(run):
    async def main():
        written = asyncio.Event()
        tasks = []

        async def produce(stream):
            for _ in range(64):
                stream.write(b"x" * 100_000)
                await stream.drain()
            stream.end()
            written.set()

        def handler(request):
            tasks.append(asyncio.ensure_future(produce(request.start_stream(200))))

        async with listening(handler) as (_, port):
            url = f"http://127.0.0.1:{port}/tail"
            async with aiohttp.ClientSession(read_bufsize=2**14) as client, client.get(url) as answer:
                await asyncio.sleep(0.02)
                total = 0
                async for piece in answer.content.iter_any():
                    total += len(piece)
            assert total == 6_400_000
            await written.wait()

    run(main)


def test_a_server_drains_over_real_connections(run):
    async def main():
        requests = []
        async with listening(requests.append) as (server, port):
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
            busy = asyncio.ensure_future(exchange(port, post()))
            await until(lambda: requests and server.connections_open == 2)
            draining = asyncio.ensure_future(server.drain(10_000))
            assert await idle_reader.read() == b""
            assert not draining.done()
            requests[0].respond(201)
            (answer,) = parse_answers(await busy)
            assert (answer.status, answer.headers["Connection"]) == (201, "close")
            await draining
            idle_writer.close()

    run(main)


def test_many_idle_connections_do_not_hinder_a_busy_one(run):
    async def main():
        limits = HttpLimits(sweep_interval=10)
        async with listening(echo, limits=limits) as (server, port):
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(100):
                writer.write(post(b"abc"))
                assert (await reader.readuntil(b"abc")).startswith(b"HTTP/1.1 200")
            assert server.connections_open == 301
            for _, other in [*idle, (reader, writer)]:
                other.close()

    run(main)
