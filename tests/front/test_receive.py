"""Receives over HTTP against clients that go away: nothing is lost, nothing stays locked (REST reference 3.8, 3.9).

The races are made by hand: what happens within one turn of the event loop is called in each order.
"""

from __future__ import annotations

import json
import re

import pytest

from front.http_peer import MemoryTransport, parse_answers
from house import House, request
from hubbub.broker.message import Message
from hubbub.front.rest.properties import compose

POLL = {"peek-lock": b"POST", "receive-and-delete": b"DELETE"}


@pytest.fixture
def house():
    house = House()
    yield house
    house.close()


@pytest.fixture(params=POLL)
def method(request):
    return POLL[request.param]


class Client:
    """One connection that polls the queue."""

    def __init__(self, house: House, method: bytes, *, secure: bool = False, timeout: int = 60) -> None:
        self.connection = house.http.protocol(secure)()
        self.transport = MemoryTransport(self.connection)
        self.connection.connection_made(self.transport)
        self.connection.data_received(request(method, b"/queue/messages/head?timeout=%d" % timeout))

    @property
    def answers(self):
        return parse_answers(self.transport.output)

    def end(self) -> None:
        """FIN came: the loop tells, and closes if told to."""
        if not self.connection.eof_received():
            self.transport.close()

    def reset(self) -> None:
        """RST came: the loop knows that the transport is closing, the connection is told in the next turn."""
        self.transport.closing = True

    def lose(self) -> None:
        self.connection.connection_lost(None)


def send(house: House, *bodies: bytes) -> None:
    messages: list[Message] = [compose(body, None, {}, {}, f"{n:032}") for n, body in enumerate(bodies)]
    house.namespace.send("queue", messages, house.clock.now(), lambda error: None)


def waiting(house: House) -> int:
    return len(house.namespace.receiver("queue").waiting)


async def assert_untouched(house: House, body: bytes = b"precious") -> None:
    """The message is there for the next client, as if nobody had asked before."""
    counts = house.namespace.counts("queue")
    assert (counts.active, counts.locked) == (1, 0)
    assert waiting(house) == 0
    other = Client(house, b"POST")
    await house._settle()
    (answer,) = other.answers
    assert (answer.status, answer.body) == (201, body)
    assert json.loads(answer.headers["BrokerProperties"])["DeliveryCount"] == 1


GOING = {
    "ended": lambda client: client.end(),
    "ended and lost": lambda client: (client.end(), client.lose()),
    "reset": lambda client: client.reset(),
    "reset and lost": lambda client: (client.reset(), client.lose()),
}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("how", GOING)
def test_a_client_that_left_gets_and_locks_nothing(house, method, how, secure):
    async def main():
        client = Client(house, method, secure=secure)
        assert waiting(house) == 1
        GOING[how](client)
        send(house, b"precious")
        await house._settle()
        assert client.answers == []
        await assert_untouched(house)

    house.runner.run(main())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("how", GOING)
def test_a_message_of_the_same_turn(house, method, how, secure):
    """It is on its way to the disk when the client goes, and durable before anybody was told."""

    async def main():
        client = Client(house, method, secure=secure)
        send(house, b"precious")
        GOING[how](client)
        await house._settle()
        assert client.answers == []
        await assert_untouched(house)

    house.runner.run(main())


def test_who_waits_behind_one_that_left_is_served(house, method):
    async def main():
        clients = [Client(house, method) for _ in range(5)]
        clients[0].reset()
        clients[2].end()
        clients[3].lose()
        send(house, b"a", b"b")
        await house._settle()
        assert [[a.body for a in c.answers] for c in clients] == [[], [b"a"], [], [], [b"b"]]
        for client in clients:
            client.lose()
        assert waiting(house) == 0

    house.runner.run(main())


def test_the_first_to_come_after_the_answer_is_a_redelivery(house):
    """Once it was written, nobody can know whether it was read: the lock runs its time."""

    async def main():
        client = Client(house, b"POST")
        send(house, b"x")
        await house._settle()
        assert client.answers[0].status == 201
        client.reset()
        client.lose()
        assert house.namespace.counts("queue").locked == 1
        house.clock.advance(60_000)
        other = Client(house, b"POST")
        await house._settle()
        assert json.loads(other.answers[0].headers["BrokerProperties"])["DeliveryCount"] == 2

    house.runner.run(main())


def test_the_time_and_the_message_come_together(house, method):
    """One answer, whichever was first; the message is not lost."""

    async def main():
        client = Client(house, method, timeout=5)
        send(house, b"precious")
        house.clock.advance(5_000)
        await house._settle()
        assert [a.status for a in client.answers] == [204]
        await assert_untouched(house)

    house.runner.run(main())


def test_a_poll_is_not_ended_by_what_comes_behind_it(house, method):
    async def main():
        client = Client(house, method)
        client.connection.data_received(request(b"POST", b"/hub/messages", b"behind"))
        send(house, b"x")
        await house._settle()
        found = [a.status for a in client.answers]
        assert found == [201 if method == b"POST" else 200, 201]

    house.runner.run(main())


def test_polls_behind_one_whose_client_left_never_begin(house, method):
    async def main():
        client = Client(house, method)
        client.connection.data_received(request(method, b"/queue/messages/head") * 3)
        client.lose()
        send(house, b"precious")
        await house._settle()
        await assert_untouched(house)

    house.runner.run(main())


def test_a_queue_that_goes_ends_the_wait(house, method):
    async def main():
        client = Client(house, method)
        await house.namespace.delete("queue")
        await house._settle()
        assert [a.status for a in client.answers] == [204]
        client.connection.data_received(request(method, b"/queue/messages/head"))
        assert [a.status for a in client.answers] == [204, 404]

    house.runner.run(main())


def test_many_come_and_go_and_each_message_is_got_once(house):
    """Every third client hangs up, some within the turn in which a message comes."""

    async def main():
        got, sent = [], 0
        for n in range(60):
            clients = [Client(house, b"DELETE") for _ in range(3)]
            send(house, b"%d" % sent, b"%d" % (sent + 1))
            sent += 2
            list(GOING.values())[n % 4](clients[n % 3])
            await house._settle()
            found = [a.body for client in clients for a in client.answers if a.status == 200]
            assert found == [b"%d" % (sent - 2), b"%d" % (sent - 1)]
            got += found
            for client in clients:
                client.lose()
        assert got == [b"%d" % n for n in range(120)]
        assert house.namespace.counts("queue").active == waiting(house) == 0

    house.runner.run(main())


SETTLING = {b"PUT": 200, b"POST": 200, b"DELETE": 200}


@pytest.mark.parametrize("verb", SETTLING)
@pytest.mark.parametrize("spelling", ["sequence", "id", "dashed", "upper token", "plain token"])
def test_spellings_of_what_is_settled(house, verb, spelling):
    async def main():
        client = Client(house, b"POST")
        send(house, b"x")
        await house._settle()
        broker = json.loads(client.answers[0].headers["BrokerProperties"])
        token, name = broker["LockToken"], str(broker["SequenceNumber"])
        if spelling == "id":
            name = broker["MessageId"]
        elif spelling == "dashed":
            name = re.sub(r"(.{8})(.{4})(.{4})(.{4})(.{12})", r"\1-\2-\3-\4-\5", broker["MessageId"])
        elif spelling == "upper token":
            token = token.upper()
        elif spelling == "plain token":
            token = token.replace("-", "")
        target = f"/queue/messages/{name}/{token}".encode()
        client.connection.data_received(request(verb, target.replace(b"/" + name.encode(), b"/other")))
        client.connection.data_received(request(verb, target))
        await house._settle()
        answers = client.answers[1:]
        assert [a.status for a in answers] == [404, 200]
        assert answers[1].body == b""
        assert answers[1].headers["Content-Type"] == "application/xml; charset=utf-8"

    house.runner.run(main())
