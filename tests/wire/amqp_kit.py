"""Two ends of an AMQP connection in memory, and a handler that writes down what it is told."""

from __future__ import annotations

from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.frames import FrameReader
from hubbub.wire.amqp.performatives import Source, Target, Transfer, composite
from hubbub.wire.amqp.types import decode


class Notes:
    """A handler that keeps every event, and accepts what it is asked unless told otherwise."""

    def __init__(self, credit=100, keep=True, answer=True, password="secret", settle=True):
        self.events = []
        self.links = []
        self.sessions = []
        self.deliveries = []
        self.outcomes = []
        self.credit, self.keep, self.answer, self.password, self.auto = credit, keep, answer, password, settle
        self.open_links = 0
        self.over = 0

    def note(self, name, *rest):
        self.events.append((name, *rest))

    def names(self):
        return [event[0] for event in self.events]

    def of(self, name):
        return [event for event in self.events if event[0] == name]

    def authenticate(self, connection, mechanism, user, password):
        self.note("authenticate", mechanism, user, password)
        if self.password is not None:
            connection.authenticated(password == self.password)

    def opened(self, connection):
        self.note("opened")

    def begun(self, session):
        self.note("begun", session)
        self.sessions.append(session)

    def attach(self, link):
        self.note("attach", link)
        self.links.append(link)
        self.open_links += 1
        if self.answer:
            self.accept(link)

    def accept(self, link, **how):
        link.accept(**how)
        if link.role and self.credit:
            link.grant(self.credit, keep=self.keep)

    def attached(self, link):
        self.note("attached", link)
        self.open_links += 1
        if link.role and self.credit and not link.refused:
            link.grant(self.credit, keep=self.keep)

    def flow(self, link):
        self.note("flow", link)

    def delivery(self, link, delivery):
        self.note("delivery", link, delivery)
        self.deliveries.append(delivery)
        if self.auto:
            link.settle(delivery)

    def disposition(self, link, deliveries, state, settled):
        self.note("disposition", link, list(deliveries), state, settled)
        self.outcomes += [(sent, state) for sent in deliveries]

    def detached(self, link, error, closed):
        self.note("detached", link, error, closed)
        self.open_links -= 1

    def ended(self, session, error):
        self.note("ended", session, error)

    def closed(self, connection, error):
        self.note("closed", error)
        self.over += 1


def pump(a, b, cut=None, rounds=10000):
    """Carry bytes both ways until both are silent; `cut(size)` says how many bytes go in one piece."""
    for _ in range(rounds):
        moved = False
        for source, target in ((a, b), (b, a)):
            data = source.take()
            moved = moved or bool(data)
            while data:
                size = cut(len(data)) if cut else len(data)
                target.receive(data[:size])
                data = data[size:]
        if not moved:
            return
    raise AssertionError("the two ends never fall silent")


def pair(server_notes=None, client_notes=None, server=None, client=None, mechanism="ANONYMOUS"):
    """A server and a client, opened."""
    server_notes, client_notes = server_notes or Notes(), client_notes or Notes()
    s = Connection(server_notes, container_id="server", **(server or {}))
    c = Connection.client(client_notes, container_id="client", mechanism=mechanism, **(client or {}))
    pump(c, s)
    assert "opened" in server_notes.names()
    assert "opened" in client_notes.names()
    return s, c, server_notes, client_notes


def linked(server_notes=None, client_notes=None, **how):
    """A pair with a link each way; the client's sender and the server's."""
    s, c, sn, cn = pair(server_notes, client_notes, **how)
    session = c.begin()
    up = session.sender("up", Target("q"))
    session.receiver("down", Source("q"))
    pump(c, s)
    down = next(link for link in sn.links if not link.role)
    return s, c, sn, cn, up, down


def frames(data, header=False):
    """The performatives in bytes, as (channel, performative, payload)."""
    reader = FrameReader(1 << 30)
    reader.header_due = header
    reader.feed(data)
    found = []
    while (frame := reader.next()) is not None:
        kind, channel, body, start, end = frame
        if kind == 2:
            found.append((channel, body[start:end], b""))
        elif start == end:
            found.append((channel, None, b""))
        else:
            value, stop = decode(body[:end], start)
            performative = composite(value)
            found.append((channel, performative, body[stop:end]))
            assert stop == end or isinstance(performative, Transfer)
    return found
