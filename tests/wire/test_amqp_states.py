"""Every state meets every input: connection, session, link. A cell says what goes back over the wire."""

from __future__ import annotations

from hubbub.wire.amqp.connection import Connection
from hubbub.wire.amqp.frames import AMQP_HEADER, HEARTBEAT, SASL, SASL_HEADER, frame
from hubbub.wire.amqp.performatives import (
    ACCEPTED,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    Source,
    Target,
    Transfer,
)
from wire.amqp_kit import Notes, frames

OPEN = Open("peer")
INIT = frame(SASL, 0, SaslInit("ANONYMOUS", b"x", "h").encode())
PLAIN = frame(SASL, 0, SaslInit("PLAIN", b"\0user\0secret", "h").encode())


def amqp(performative, payload=b"", channel=0):
    return frame(0, channel, performative.encode() + payload)


def told(connection, header_due=False):
    """What the connection writes, in short: names, and conditions behind a colon."""
    data = connection.take()
    words = []
    while data[:4] == b"AMQP":
        words.append("sasl" if data[4] else "amqp")
        data = data[8:]
    for _, performative, _ in frames(data):
        name = "beat" if performative is None else performative.NAME.split(":")[1]
        error = getattr(performative, "error", None)
        code = getattr(performative, "code", None)
        words.append(
            f"{name}:{error.condition.split(':', 1)[1]}" if error else f"{name}{'' if code is None else code}"
        )
    return " ".join(words) or "-"


def judge(test, table, inputs, start):
    """Run each cell: a line is a state and what it answers to each input, in the order of the first line."""
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    assert head[1:] == list(inputs), "the table names every input"
    for state, *cells in lines:
        for name, expected in zip(head[1:], cells, strict=True):
            connection, notes = start(state)
            connection.take()
            connection.receive(inputs[name])
            got = (told(connection) + (" END" if connection.finished else "")).removeprefix("- ")
            assert got == expected, f"{test}: {name} in state {state!r}"
            assert notes.over == connection.finished
            connection.eof()
            assert notes.over == 1, "closed is told exactly once"
            assert notes.open_links == 0, "every link's end is told"
            connection.receive(inputs[name])
            assert connection.take() == b""


# --- connection

CONNECTION = """
state    | sasl header   | amqp header    | http      | init      | plain     | open  | heartbeat | begin | attach | close | unknown | junk size
new      | sasl sasl-mechanisms | amqp    | sasl END  | sasl END  | sasl END  | sasl END | sasl END | sasl END | sasl END | sasl END | sasl END | sasl END
sasl     | END           | END            | END       | sasl-outcome0 | sasl-outcome0 | END | END | END | END | END | END | END
judging  | -             | -              | -         | -         | -         | -     | -         | -     | -      | -     | -       | -
secured  | amqp END      | amqp           | amqp END  | amqp END  | amqp END  | amqp END | amqp END | amqp END | amqp END | amqp END | amqp END | amqp END
header   | F             | F              | F         | F         | F         | open  | -         | I     | I      | I     | D       | F
opened   | f             | f              | f         | f         | f         | i     | -         | begin | n      | close END | d   | f
closing  | -             | -              | -         | -         | -         | -     | -         | -     | -      | END   | -       | -
closed   | END           | END            | END       | END       | END       | END   | END       | END   | END    | END   | END     | END
"""
SHORT = {
    "f": "close:connection:framing-error", "i": "close:illegal-state", "n": "close:not-allowed", "d": "close:decode-error",
}  # fmt: skip
CONNECTION_INPUTS = {
    "sasl header": SASL_HEADER, "amqp header": AMQP_HEADER, "http": b"GET / HTTP/1.1\r\n\r\n", "init": INIT,
    "plain": PLAIN, "open": amqp(OPEN), "heartbeat": HEARTBEAT, "begin": amqp(Begin(None, 0, 9, 9)),
    "attach": amqp(Attach("a", 0, False, source=Source(), target=Target("q"))), "close": amqp(Close()),
    "unknown": frame(0, 0, b"\x00\x53\x99\x45"), "junk size": b"\xff\xff\xff\xff\x02\0\0\0",
}  # fmt: skip


def connection_in(state):
    notes = Notes(password=None if state == "judging" else "secret")
    connection = Connection(notes, container_id="server")
    steps = {
        "new": [],
        "sasl": [SASL_HEADER],
        "judging": [SASL_HEADER, PLAIN],
        "secured": [SASL_HEADER, INIT],
        "header": [AMQP_HEADER],
        "opened": [AMQP_HEADER, amqp(OPEN)],
        "closing": [AMQP_HEADER, amqp(OPEN)],
        "closed": [AMQP_HEADER, amqp(OPEN), amqp(Close())],
    }
    for step in steps[state]:
        connection.receive(step)
    if state == "closing":
        connection.close("test:over", "enough")
    return connection, notes


def spelled(table):
    lines = []
    for line in table.strip().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        full = {key.upper(): f"open {text}" for key, text in SHORT.items()} | SHORT
        lines.append("|".join([cells[0], *(full.get(cell, cell) for cell in cells[1:])]))
    return "\n".join(lines)


def test_connection():
    judge("connection", spelled(CONNECTION), CONNECTION_INPUTS, connection_in)


# --- session, on channel 3

SESSION = """
state   | begin | attach      | flow | flow 7 | transfer 7 | disposition | detach 7 | end
none    | begin | n           | n    | n      | n          | n           | n        | n
begun   | i     | attach flow | flow | u      | u          | -           | u        | end
ending  | i     | -           | -    | -      | -          | -           | -        | -
ended   | begin | -           | -    | -      | -          | -           | -        | -
"""
SESSION_INPUTS = {
    name: amqp(performative, channel=3)
    for name, performative in {
        "begin": Begin(None, 0, 9, 9),
        "attach": Attach("a", 7, False, source=Source(), target=Target("q")),
        "flow": Flow(0, 9, 0, 9, echo=True),
        "flow 7": Flow(0, 9, 0, 9, 7, 0, 5),
        "transfer 7": Transfer(7, 0, b"t", 0),
        "disposition": Disposition(True, 0, 5, True, ACCEPTED),
        "detach 7": Detach(7, True),
        "end": End(),
    }.items()
}
SHORT["u"] = "end:session:unattached-handle"


def session_in(state):
    connection, notes = connection_in("opened")
    if state != "none":
        connection.receive(SESSION_INPUTS["begin"])
    if state == "ending":
        notes.sessions[0].end("test:over")
    if state == "ended":
        connection.receive(SESSION_INPUTS["end"])
    return connection, notes


def test_session():
    judge("session", spelled(SESSION), SESSION_INPUTS, session_in)


# --- link, handle 7: the peer sends (in) or receives (out)

LINK = """
state     | attach in | attach out | flow  | flow echo | transfer    | more   | aborted | wrong id | disposition | detach
asked in  | h         | h          | -     | -         | r           | r      | r       | r        | -           | attach detach
asked out | h         | h          | -     | -         | u           | u      | u       | u        | -           | attach detach
in        | h         | h          | -     | flow      | disposition | -      | -       | disposition | -        | detach
partial   | h         | h          | -     | flow      | disposition | -      | -       | x        | -           | detach
out       | h         | h          | -     | flow      | u           | u      | u       | u        | -           | detach
detaching | h         | h          | -     | -         | -           | -      | -       | -        | -           | -
refused   | h         | h          | -     | -         | -           | -      | -       | -        | -           | -
gone      | attach flow | attach   | -     | -         | u           | u      | u       | u        | -           | -
"""
SHORT["h"] = "end:session:handle-in-use"
SHORT["r"] = "attach detach:link:transfer-limit-exceeded"
SHORT["x"] = "end:invalid-field"
LINK_INPUTS = {
    name: amqp(performative, b"payload" if isinstance(performative, Transfer) else b"", channel=3)
    for name, performative in {
        "attach in": Attach("a", 7, False, source=Source(), target=Target("q")),
        "attach out": Attach("a", 7, True, source=Source("q"), target=Target()),
        "flow": Flow(0, 9, 0, 9, 7, 0, 5),
        "flow echo": Flow(0, 9, 0, 9, 7, 0, 5, echo=True),
        "transfer": Transfer(7, 0, b"t", 0),
        "more": Transfer(7, 0, b"t", 0, more=True),
        "aborted": Transfer(7, 0, b"t", 0, aborted=True),
        "wrong id": Transfer(7, 99, b"t", 0),
        "disposition": Disposition(True, 0, 5, False, ACCEPTED),
        "detach": Detach(7, True),
    }.items()
}


def link_in(state):
    connection, notes = session_in("begun")
    notes.answer = not state.startswith("asked") and state != "refused"
    connection.receive(LINK_INPUTS["attach out" if "out" in state else "attach in"])
    if state == "partial":
        connection.receive(LINK_INPUTS["more"])
    if state in ("detaching", "refused"):
        link = notes.links[0]
        link.detach("test:over") if state == "detaching" else link.refuse("amqp:not-found")
        notes.open_links -= 1
    if state == "gone":
        connection.receive(LINK_INPUTS["detach"])
    return connection, notes


def test_link():
    judge("link", spelled(LINK), LINK_INPUTS, link_in)


# --- the side that asks

CLIENT = """
state   | sasl header | amqp header | mechanisms | few mechanisms | outcome 0  | outcome 1 | init | open | close
new     | -           | END         | END        | END            | END        | END       | END  | END  | END
sasl    | END         | END         | sasl-init  | END            | amqp open  | END       | END  | END  | END
secured | END         | -           | END        | END            | END        | END       | END  | END  | END
opening | f           | f           | f          | f              | f          | f         | f    | -    | i
opened  | f           | f           | f          | f              | f          | f         | f    | i    | close END
"""
OUTCOMES = [frame(SASL, 0, b"\x00\x53\x44\xc0\x04\x02\x50" + bytes((code,)) + b"\x40") for code in (0, 1)]
CLIENT_INPUTS = {
    "sasl header": SASL_HEADER,
    "amqp header": AMQP_HEADER,
    "mechanisms": frame(SASL, 0, SaslMechanisms(["PLAIN", "ANONYMOUS"]).encode()),
    "few mechanisms": frame(SASL, 0, SaslMechanisms(["PLAIN"]).encode()),
    "outcome 0": OUTCOMES[0],
    "outcome 1": OUTCOMES[1],
    "init": INIT,
    "open": amqp(OPEN),
    "close": amqp(Close()),
}


def client_in(state):
    notes = Notes()
    connection = Connection.client(notes, container_id="client")
    steps = [SASL_HEADER, OUTCOMES[0], AMQP_HEADER, amqp(OPEN)]
    for step in steps[: ["new", "sasl", "secured", "opening", "opened"].index(state)]:
        connection.receive(step)
    return connection, notes


def test_client():
    judge("client", spelled(CLIENT), CLIENT_INPUTS, client_in)
