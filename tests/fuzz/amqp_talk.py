"""Random conversations of an AMQP client that knows the protocol and keeps to it only mostly.

A `Talk` is a list of frames drawn from one seed. Most are right, so that a conversation gets far; any can be on
the wrong channel or handle, have a field of the wrong type, lack some or have too many, or be cut or flipped.
"""

from __future__ import annotations

import struct
import uuid
from random import Random
from typing import Any

from hubbub.broker.access import sas_token
from hubbub.wire.amqp.frames import AMQP_HEADER, HEARTBEAT, SASL_HEADER, frame
from hubbub.wire.amqp.message import (
    APPLICATION_PROPERTIES,
    HEADER,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    data_section,
    list_section,
    map_section,
    value_section,
)
from hubbub.wire.amqp.performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Composite,
    Coordinator,
    Declare,
    Declared,
    Detach,
    Discharge,
    Disposition,
    End,
    Error,
    Flow,
    Modified,
    Open,
    Received,
    Rejected,
    Released,
    SaslInit,
    Source,
    Target,
    TransactionalState,
    Transfer,
)
from hubbub.wire.amqp.sasl import encode_plain
from hubbub.wire.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    encode,
)

BATCH_FORMAT = 0x80013700
CONSUMER = "hub/ConsumerGroups/$Default/Partitions/0"
COORDINATOR = "$coordinator"
ADDRESSES = (
    *(
        "hub",
        "hub/Partitions/0",
        "hub/Partitions/7",
        "hub/Publishers/p",
        CONSUMER,
        CONSUMER,
        "queue",
        "queue",
    ),
    *(
        COORDINATOR,
        COORDINATOR,
        "queue/$DeadLetterQueue",
        "sessions",
        "topic",
        "topic/Subscriptions/s",
        "$cbs",
        "$cbs",
        "$management",
    ),
    *("queue/$management", "sessions/$management", "topic/Subscriptions/s/$management", "nowhere", "", "/"),
    *(
        "nowhere/$management",
        "amqps://contoso.servicebus.windows.net/hub",
        "hub/ConsumerGroups/x/Partitions/0",
    ),
)
SELECTORS = (
    *("amqp.annotation.x-opt-offset > '-1'", "amqp.annotation.x-opt-offset > '@latest'"),
    *("amqp.annotation.x-opt-sequence-number >= '0'", "amqp.annotation.x-opt-enqueued-time > '0'"),
    *("amqp.annotation.x-opt-sequence-number > '--5'", "amqp.annotation.x-opt-enqueued-time > '\u00b2'"),
    *("amqp.annotation.x-opt-sequence-number > '%s'" % ("9" * 5000), "1 = 1", ""),
    *("amqp.annotation.x-opt-offset > '%s'" % ("9" * 400), "amqp.annotation.x-opt-offset > '-99'"),
)
VERBS = (
    *(
        "renew-lock",
        "update-disposition",
        "peek-message",
        "receive-by-sequence-number",
        "batch-delete-messages",
    ),
    *("renew-session-lock", "get-session-state", "set-session-state", "get-message-sessions"),
    *("schedule-message", "cancel-scheduled-message", "add-rule", "remove-rule", "enumerate-rules"),
)
MEMBERS = (
    *("lock-tokens", "disposition-status", "properties-to-modify", "deadletter-reason", "session-id"),
    *("deadletter-description", "from-sequence-number", "message-count", "receiver-settle-mode"),
    *(
        "sequence-numbers",
        "enqueued-time-utc",
        "messages",
        "session-state",
        "last-updated-time",
        "skip",
        "top",
    ),
    *("rule-name", "rule-description"),
)
_TEXTS = ("", "x", "hub", "completed", "\u00e9\U0001f600", "'", "9" * 30, "s" * 200)
_NUMBERS = (0, 1, 2, 5, 100, 255, 256, 65535, 2**31 - 1)


class Talk:
    """`frames` are bytes as they go out, one after the other. `broken` says how many in a hundred are harmed."""

    def __init__(
        self,
        seed: int,
        *,
        mechanism: str | None,
        user: str,
        password: str,
        key: str,
        tokens: list[uuid.UUID],
        now: int,
    ) -> None:
        """`tokens`: of messages that are locked. `now`: for tokens that are put and moments that are named."""
        self.chance = Random(seed)
        self.broken = self.chance.choice((0, 0, 1, 3, 15))
        self.now = now
        self.key = key
        self.tokens = tokens or [uuid.UUID(int=7)]
        self.delivery = 0
        self.links: dict[int, tuple[bool, str]] = {}  # by handle: whether it receives, and from or to where
        self.frames = self._greeting(mechanism, user, password)
        self.frames += [
            frame(0, 0, Begin(None, 0, self._one(0, 1, 2048, 65536, 65536), 65536).encode()),
            *(self._attach(address) for address in ("$cbs", *self.chance.sample(ADDRESSES, 2))),
            *((self._control(),) if self._rarely(30) else ()),
            *(self._step() for _ in range(self.chance.randrange(4, 60))),
        ]

    def pieces(self) -> list[bytes]:
        """The same bytes, cut elsewhere."""
        data, found = b"".join(self.frames), []
        while data:
            size = self._one(1, 7, 100, 1000, len(data))
            found.append(data[:size])
            data = data[size:]
        return found

    def _one(self, *choices: Any) -> Any:
        return self.chance.choice(choices)

    def _rarely(self, percent: int) -> bool:
        return self.chance.randrange(100) < percent

    def _greeting(self, mechanism: str | None, user: str, password: str) -> list[bytes]:
        size = self._one(None, 512, 65536, 1 << 20)
        opening = Open("c", self._one("contoso.servicebus.windows.net", "localhost", None), size)
        frames = [AMQP_HEADER, self._frame(opening, 0)]
        if mechanism is None:
            return frames
        response = encode_plain(user, password) if mechanism == "PLAIN" else b""
        init = frame(1, 0, SaslInit(mechanism, response, "contoso").encode())
        return [SASL_HEADER, init, *frames]

    def _step(self) -> bytes:
        act = self.chance.choices(
            (
                *(self._attach, self._transfer, self._flow, self._disposition, self._detach, self._begin),
                *(self._end, self._heartbeat, self._odd, self._request, self._control),
            ),
            weights=(16, 22, 14, 12, 3, 2, 1, 2, 1, 32, 8),
        )[0]
        data = act()
        if self._rarely(self.broken // 4):
            return self._harm(data)
        return data

    # Frames.

    def _frame(self, performative: Composite, channel: int | None = None, payload: bytes = b"") -> bytes:
        values = performative._values()
        if self._rarely(self.broken):
            match self._one("field", "short", "long", "kind"):
                case "field":
                    values[self.chance.randrange(len(values))] = self.value()
                case "short":
                    values = values[: self.chance.randrange(len(values) + 1)]
                case "long":
                    values = [*values, self.value()]
                case "kind":
                    return frame(0, self._channel(channel), encode(self.value()))
        body = b"\0\x53" + bytes((performative.CODE,)) + encode(values) + payload
        return frame(0, self._channel(channel), body)

    def _channel(self, channel: int | None) -> int:
        if channel is not None:
            return channel
        return self._one(1, 2, 4999, 5000, 65535) if self._rarely(self.broken // 4) else 0

    def _handle(self, *suited: int) -> int:
        """One of those that suit; any other if there is none."""
        if not self.links or self._rarely(self.broken):
            return self._one(0, 1, 7, 255, 256, 2**32 - 1)
        return self.chance.choice(suited or tuple(self.links))

    def _attach(self, address: str = "") -> bytes:
        """Both ends of a request node come together, as no client asks without reading the answer."""
        address = address or self.chance.choice(ADDRESSES)
        if address.endswith(("$cbs", "$management")):
            return self._attached(address, True) + self._grant() + self._attached(address, False)
        role = address != COORDINATOR and self._one(True, False)
        return self._attached(address, role) + (self._grant() if role else b"")

    def _grant(self) -> bytes:
        """Credit for the link that was attached last."""
        return frame(0, 0, Flow(0, 65536, self.delivery, 65536, next(reversed(self.links)), 0, 100).encode())

    def _attached(self, address: str, role: bool) -> bytes:
        handle = (
            next(n for n in range(999) if n not in self.links)
            if not self._rarely(self.broken)
            else self._one(0, 1, 7, 255, 256)
        )
        self.links.pop(handle, None)
        self.links[handle] = role, address
        source, target = Source(address if role else "c"), Target("c" if role else address)
        if role:
            source.filter = self._filter(address)
        properties = {
            Symbol(name): self.value()
            for name in (
                *("com.microsoft:epoch", "com.microsoft:timeout", "com.microsoft:producer-id"),
                *("com.microsoft:producer-epoch", "com.microsoft:producer-sequence-number"),
            )
            if self._rarely(15)
        }
        capabilities = self._one(
            None,
            None,
            ["com.microsoft:idempotent-producer"],
            ["com.microsoft:enable-receiver-runtime-metric"],
        )
        end: Any = Coordinator(["amqp:local-transactions"]) if address == COORDINATOR else target
        return self._frame(
            Attach(
                self._one("a", "b", f"link-{handle}"), handle, role, self._one(None, 0, 1, 2, 9),
                self._one(None, 0, 1), source, end, initial_delivery_count=self._one(None, 0, 2**32 - 1),
                max_message_size=self._one(None, 0, 1, 1 << 20, 2**64 - 1),
                desired_capabilities=capabilities, properties=properties or None,
            )
        )  # fmt: skip

    def _filter(self, address: str) -> dict[Any, Any] | None:
        wanted = "session" if address == "sessions" else "selector" if address == CONSUMER else "none"
        match self._one("none", wanted, wanted, "value"):
            case "selector":
                selector = Described(Ulong(0x137000000A), self.chance.choice(SELECTORS))
                return {Symbol("apache.org:selector-filter:string"): selector}
            case "session":
                return {Symbol("com.microsoft:session-filter"): self._one(None, "s0", "s1", self.value())}
            case "value":
                name = self._one("apache.org:selector-filter:string", "com.microsoft:session-filter", "x")
                return {Symbol(name): self.value()}
        return None

    def _flow(self) -> bytes:
        handle = None if self._rarely(10) else self._handle()
        return self._frame(
            Flow(
                self._one(0, self.delivery, None), self._one(0, 1, 5, 2048, 65536, 2**32 - 1),
                self._one(0, self.delivery), 65536, handle, self._one(0, 0, None, 3, 2**32 - 1),
                self._one(0, 1, 10, 1000, 2**32 - 1, None), drain=self._rarely(15), echo=self._rarely(15),
            )
        )  # fmt: skip

    def _transfer(self, payload: bytes | None = None, suited: tuple[int, ...] = ()) -> bytes:
        self.delivery += not self._rarely(self.broken)
        batch = payload is None and self._rarely(20)
        if payload is None:
            payload = self.message()
            suited = self._to("hub", "queue", "sessions", "topic", "hub/Partitions/0", "hub/Publishers/p")
        if batch:
            payload = b"".join(data_section(self.message()) for _ in range(self.chance.randrange(4)))
        state = self._state() if self._rarely(5) else None
        if COORDINATOR not in self._places(suited) and self._to(COORDINATOR) and self._rarely(40):
            state = TransactionalState(self._transaction())
        return self._frame(
            Transfer(
                self._handle(*suited), (self.delivery - 1) % 2**32, self._one(b"t", b"", b"t" * 33),
                self._one(BATCH_FORMAT, 0) if batch else self._one(0, 0, 0, None, 77), self._one(False, True, None),
                self._rarely(8), state=state, resume=self._rarely(2), aborted=self._rarely(2),
            ),
            payload=payload,
        )  # fmt: skip

    def _control(self) -> bytes:
        """Begins or ends a transaction."""
        end = Discharge(self._transaction(), self._one(True, False))
        asked: Composite = self._one(Declare(), Declare(), end, end, self._one(Declared(b"t0"), Accepted()))
        value = value_section(Described(Ulong(asked.CODE), asked._values()))
        attach = b"" if self._to(COORDINATOR) else self._attach(COORDINATOR)
        return attach + self._transfer(value, self._to(COORDINATOR))

    def _transaction(self) -> bytes:
        return bytes(self._one(b"t0", b"t0", b"t1", b"t2", b"", b"x" * 300))

    def _places(self, handles: tuple[int, ...]) -> list[str]:
        return [self.links[handle][1] for handle in handles]

    def _to(self, *addresses: str) -> tuple[int, ...]:
        """Handles of links on which we send."""
        return tuple(h for h, (role, address) in self.links.items() if not role and address in addresses)

    def _disposition(self) -> bytes:
        first = self._one(0, 1, 2, max(0, self.delivery - 1), 2**32 - 1)
        last = self._one(None, first, (first + 3) % 2**32, 2**32 - 1)
        return self._frame(
            Disposition(self._one(True, True, False), first, last, self._one(True, False), self._state())
        )

    def _state(self) -> Any:
        error = Error(
            self._one("com.microsoft:dead-letter", "x"), "d", {Symbol("DeadLetterReason"): self.value()}
        )
        changes = {Symbol("n"): self.value()}
        return self._one(
            *(None, Accepted(), Accepted(), Released(), Rejected(), Rejected(error), Received(1, 2)),
            *(Modified(True, False), Modified(True, True, changes)),
            *(
                TransactionalState(
                    self._transaction(), self._one(Accepted(), Released(), None, Rejected(error))
                )
                for _ in range(4)
            ),
        )

    def _detach(self) -> bytes:
        handle = self._handle()
        if not self._rarely(10):
            self.links.pop(handle, None)
        return self._frame(Detach(handle, self._one(True, False)))

    def _begin(self) -> bytes:
        return self._frame(
            Begin(self._one(None, None, None, 9), self._one(0, 2**32 - 1), 100, 100), self._one(1, 2, 3, 4999)
        )

    def _end(self) -> bytes:
        if self._rarely(50):
            return self._frame(End(), 1)
        self.links = {}
        return self._frame(End(), 0) + frame(0, 0, Begin(None, 0, 65536, 65536).encode())

    def _heartbeat(self) -> bytes:
        return HEARTBEAT

    def _odd(self) -> bytes:
        """What has no place in an open connection."""
        return self._one(
            self._frame(Open("again"), 0),
            self._frame(Close(self._one(None, Error("x", "y"))), 0),
            self._frame(Declare(None)),
            frame(1, 0, SaslInit("PLAIN").encode()),
            frame(7, 0, b""),
            SASL_HEADER,
            AMQP_HEADER,
            struct.pack(">IBBH", self._one(0, 7, 65537, 2**32 - 1), 2, 0, 0),
            self.chance.randbytes(self.chance.randrange(1, 50)),
        )

    def _harm(self, data: bytes) -> bytes:
        changed = bytearray(data)
        at = self.chance.randrange(len(changed))
        match self._one("flip", "cut", "grow", "swap"):
            case "flip":
                changed[at] ^= 1 << self.chance.randrange(8)
            case "cut":
                del changed[at:]
            case "grow":
                changed[at:at] = self.chance.randbytes(self.chance.randrange(1, 20))
            case "swap":
                changed[at] = self.chance.randrange(256)
        return bytes(changed)

    # Messages.

    def message(self) -> bytes:
        parts = [data_section(self.chance.randbytes(self._one(0, 3, 300, 3000)))]
        if self._rarely(30):
            parts.insert(
                0, list_section(PROPERTIES, [self.value() for _ in range(self.chance.randrange(15))])
            )
        if self._rarely(30):
            names = (
                *("x-opt-partition-key", "x-opt-scheduled-enqueue-time", "x-opt-via-partition-key", "other"),
                *("com.microsoft:producer-id", "com.microsoft:producer-epoch"),
                *("com.microsoft:producer-sequence-number", "x-opt-sequence-number"),
            )
            annotations = {Symbol(name): self.value() for name in names if self._rarely(30)}
            parts.insert(0, map_section(MESSAGE_ANNOTATIONS, annotations))
        if self._rarely(20):
            parts.insert(0, list_section(HEADER, [self.value() for _ in range(self.chance.randrange(7))]))
        if self._rarely(30):
            said = self.value() if self._rarely(10) else {name: self.value() for name in ("a", "b", "c")}
            parts.insert(-1, b"\0St" + encode(said))
        if self._rarely(10):
            parts.append(value_section(self.value()))
        payload = b"".join(parts)
        return self._harm(payload) if payload and self._rarely(self.broken) else payload

    def _scheduled(self) -> bytes:
        annotations = {
            Symbol("x-opt-scheduled-enqueue-time"): Timestamp(self.now + self._one(-1, 10, 60_000))
        }
        return map_section(MESSAGE_ANNOTATIONS, annotations) + data_section(b"later")

    def _request(self) -> bytes:
        """To `$cbs` or a management node, if the link is one."""
        match self._one("token", "read", "operation", "operation", "operation"):
            case "token":
                nodes = ("$cbs",)
                token = sas_token(
                    "sb://contoso/", "RootManageSharedAccessKey", self.key, self.now // 1000 + 60
                )
                said = {"operation": "put-token", "type": "jwt", "name": self._one("sb://contoso/", "x")}
                body: Any = self._one(token, token, token[:-9], "jwt", self.value())
            case "read":
                nodes = ("$management",)
                kind = self._one("com.microsoft:eventhub", "com.microsoft:partition", self.value())
                said = {"operation": "READ", "name": self._one("hub", "hub", "x"), "type": kind}
                said |= {"partition": self._one("0", "9", self.value())} if self._rarely(50) else {}
                body = None
            case _:
                verb = self.chance.choice(VERBS)
                nodes = self._nodes(verb)
                said = {"operation": "com.microsoft:" + verb}
                body = self._operation()
        if self._rarely(self.broken):
            said[self.chance.choice(tuple(said))] = self.value()
        properties = list_section(PROPERTIES, [self._one("id", 7, uuid.UUID(int=7), self.value())])
        payload = properties + map_section(APPLICATION_PROPERTIES, said) + value_section(body)
        before = b"" if self._to(*nodes) else self._attach(nodes[0])
        return before + self._transfer(payload, self._to(*nodes))

    def _nodes(self, verb: str) -> tuple[str, ...]:
        """Where it is understood, or now and then elsewhere."""
        if self._rarely(10):
            return tuple(address for address in ADDRESSES if address.endswith("/$management"))
        if "rule" in verb:
            return ("topic/Subscriptions/s/$management",)
        if "session" in verb:
            return ("sessions/$management",)
        return ("queue/$management",)

    def _operation(self) -> Any:
        if self._rarely(self.broken):
            return self.value()
        right = {
            "lock-tokens": Array(self.chance.sample(self.tokens, self._one(1, len(self.tokens)))),
            "disposition-status": self._one("completed", "abandoned", "defered", "suspended", "x"),
            "from-sequence-number": Long(0),
            "message-count": Int(3),
            "receiver-settle-mode": Uint(1),
            "sequence-numbers": Array([Long(self._one(0, 3, 3, 12))]),
            "enqueued-time-utc": Timestamp(self.now),
            "messages": [
                {"message": self._scheduled() if self._rarely(70) else self.message(), "message-id": "m"}
            ],
            "session-id": self._one("s0", "s1", "s2"),
            "last-updated-time": Timestamp(0),
            "skip": Int(0),
            "top": Int(10),
            "rule-name": self._one("r", "$Default", "a/b", ""),
            "rule-description": self._rule(),
        }
        for name in MEMBERS:
            if self._rarely(2):
                right[name] = self.value()
            elif self._rarely(2):
                right.pop(name, None)
        if self._rarely(50):
            right.pop("session-id", None)
        return right

    def _rule(self) -> Any:
        return self._one(
            {"sql-filter": {"expression": self._one("1=1", "a = ", "sys.Label LIKE '%'")}},
            {
                "sql-filter": {"expression": "1=1"},
                "sql-rule-action": {"expression": self._one("SET a = 1", "?")},
            },
            {"correlation-filter": {"label": "x", "properties": {"a": self.value()}}},
            {"correlation-filter": {"properties": self.value()}},
            {"sql-filter": self.value()},
        )

    # Values.

    def value(self, depth: int = 2) -> Any:
        """A value of any type."""
        number, text = self.chance.choice(_NUMBERS), self.chance.choice(_TEXTS)
        plain = (
            *(None, True, False, text, Symbol("sym"), text.encode(), uuid.UUID(int=number), Char("c")),
            *(Ubyte(number & 255), Ushort(number & 65535), Uint(number), Ulong(number), Ulong(2**64 - 1)),
            *(Byte(-1), Short(-1), Int(-number), Long(-number), Long(2**63 - 1), Long(-(2**63))),
            *(Float(1.5), float("nan"), float("inf"), Timestamp(number), Timestamp(2**63 - 1), Timestamp(-1)),
            Decimal(b"1234"),
        )
        if depth == 0 or self._rarely(70):
            return self.chance.choice(plain)
        inner = [self.value(depth - 1) for _ in range(self.chance.randrange(4))]
        return self._one(
            inner,
            dict.fromkeys(("k", "l"), inner),
            {Symbol(f"s{n}"): value for n, value in enumerate(inner)},
            Array([Long(number)] * len(inner)),
            Array([text] * len(inner)),
            Array([[text]] * len(inner)),
            Described(self._one(Ulong(number), Symbol("what:ever")), inner),
        )
