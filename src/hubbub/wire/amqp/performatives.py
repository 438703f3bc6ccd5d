"""Performatives, termini, delivery states and errors as classes (specification 2.7, 2.8, 3.4, 3.5, 4.5, 5.3).

Encoding writes every field, nulls included, and descriptors as `00 53 code`: one of the clients that must be
served indexes fields by position and knows no other form. Decoding takes every legal form: short lists,
symbolic descriptors, any width. Transfers, dispositions and flows have a quicker way, in `hot.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from .types import Array, DecodeError, Described, Symbol, Ubyte, Uint, Ulong, Ushort, encode

C = TypeVar("C", bound="Composite")


class Kind(NamedTuple):
    """How a field of one type goes to the wire and what it must be when it comes from there."""

    to_wire: Callable[[Any], Any]
    from_wire: Callable[[Any], Any]


class Field(NamedTuple):
    name: str
    kind: Kind
    required: bool = False


class Composite:
    """A described list with named fields."""

    __slots__ = ()
    CODE: ClassVar[int]
    NAME: ClassVar[str]
    FIELDS: ClassVar[tuple[Field, ...]]

    def encode(self) -> bytes:
        """With descriptor, in full length. Raises TypeError, struct.error or OverflowError for values that
        do not fit their field."""
        return b"\x00\x53" + bytes((self.CODE,)) + encode(self._values())

    def _values(self) -> list[Any]:
        return [
            None if (value := getattr(self, name)) is None else kind.to_wire(value)
            for name, kind, _ in self.FIELDS
        ]

    @classmethod
    def from_list(cls: type[C], values: Any) -> C:
        """From the decoded list, which may be shorter. Raises DecodeError."""
        if not isinstance(values, list) or len(values) > len(cls.FIELDS):
            raise DecodeError(f"{cls.NAME} is not a list of up to {len(cls.FIELDS)} fields")
        fields: dict[str, Any] = {}
        for (name, kind, required), value in zip(cls.FIELDS, values, strict=False):
            if value is not None:
                try:
                    fields[name] = kind.from_wire(value)
                except (TypeError, ValueError) as error:
                    raise DecodeError(f"{cls.NAME}.{name}: {error}") from None
            elif required:
                raise DecodeError(f"{cls.NAME}.{name} is mandatory")
        for name, _, required in cls.FIELDS[len(values) :]:
            if required:
                raise DecodeError(f"{cls.NAME}.{name} is mandatory")
        return cls(**fields)


def _number(wrap: Callable[[int], int], bits: int) -> Kind:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
            raise TypeError(f"{value!r} is not an unsigned number of {bits} bits")
        return int(value)

    return Kind(wrap, check)


def _plain(kind: type, wrap: Callable[[Any], Any] = lambda v: v) -> Kind:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{type(value).__name__} where {kind.__name__} is due")
        return value

    return Kind(wrap, check)


def _symbols_to_wire(value: Any) -> Any:
    """One of the clients reads empty arrays wrongly: none is ever sent."""
    values = [value] if isinstance(value, str) else value
    return Array(Symbol(item) for item in values) or None


def _symbols_from_wire(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise TypeError("symbols are due")
    return list(values)


def _symbol_keys(value: dict[Any, Any]) -> dict[Any, Any]:
    return {Symbol(key) if type(key) is str else key: item for key, item in value.items()}


def _nested_to_wire(value: Any) -> Any:
    return Described(Ulong(value.CODE), value._values()) if isinstance(value, Composite) else value


def _nested(*codes: int, strange: bool = True) -> Kind:
    """One of these composites. A `strange` one, of a kind nobody here knows, stays Described: whoever reads
    it decides."""

    def check(value: Any) -> Any:
        if not isinstance(value, Described):
            raise TypeError("a described list is due")
        kind = CLASSES.get(value.descriptor)
        if kind is None and strange:
            return value
        if kind is None:
            raise TypeError(f"{value.descriptor!r} is not known")
        if kind.CODE not in codes:
            raise TypeError(f"{kind.NAME} is out of place")
        return kind.from_list(value.value)

    return Kind(_nested_to_wire, check)


UBYTE, USHORT, UINT, ULONG = _number(Ubyte, 8), _number(Ushort, 16), _number(Uint, 32), _number(Ulong, 64)
BOOLEAN, STRING, BINARY = _plain(bool), _plain(str), _plain(bytes)
SYMBOL = _plain(str, Symbol)
SYMBOLS = Kind(_symbols_to_wire, _symbols_from_wire)
MAP = _plain(dict)
PROPERTIES = _plain(dict, _symbol_keys)
SOURCE, TARGET, ERROR = _nested(0x28), _nested(0x29, 0x30), _nested(0x1D, strange=False)
STATE = _nested(0x23, 0x24, 0x25, 0x26, 0x27, 0x33, 0x34)


@dataclass(slots=True)
class Error(Composite):
    condition: str = ""
    description: str | None = None
    info: dict[Any, Any] | None = None
    CODE = 0x1D
    NAME = "amqp:error:list"
    FIELDS = (Field("condition", SYMBOL, True), Field("description", STRING), Field("info", PROPERTIES))


@dataclass(slots=True)
class Open(Composite):
    container_id: str = ""
    hostname: str | None = None
    max_frame_size: int | None = None
    channel_max: int | None = None
    idle_time_out: int | None = None
    outgoing_locales: list[str] | None = None
    incoming_locales: list[str] | None = None
    offered_capabilities: list[str] | None = None
    desired_capabilities: list[str] | None = None
    properties: dict[Any, Any] | None = None
    CODE = 0x10
    NAME = "amqp:open:list"
    FIELDS = (
        Field("container_id", STRING, True),
        Field("hostname", STRING),
        Field("max_frame_size", UINT),
        Field("channel_max", USHORT),
        Field("idle_time_out", UINT),
        Field("outgoing_locales", SYMBOLS),
        Field("incoming_locales", SYMBOLS),
        Field("offered_capabilities", SYMBOLS),
        Field("desired_capabilities", SYMBOLS),
        Field("properties", PROPERTIES),
    )


@dataclass(slots=True)
class Begin(Composite):
    remote_channel: int | None = None
    next_outgoing_id: int = 0
    incoming_window: int = 0
    outgoing_window: int = 0
    handle_max: int | None = None
    offered_capabilities: list[str] | None = None
    desired_capabilities: list[str] | None = None
    properties: dict[Any, Any] | None = None
    CODE = 0x11
    NAME = "amqp:begin:list"
    FIELDS = (
        Field("remote_channel", USHORT),
        Field("next_outgoing_id", UINT, True),
        Field("incoming_window", UINT, True),
        Field("outgoing_window", UINT, True),
        Field("handle_max", UINT),
        Field("offered_capabilities", SYMBOLS),
        Field("desired_capabilities", SYMBOLS),
        Field("properties", PROPERTIES),
    )


@dataclass(slots=True)
class Source(Composite):
    address: Any = None
    durable: int | None = None
    expiry_policy: str | None = None
    timeout: int | None = None
    dynamic: bool | None = None
    dynamic_node_properties: dict[Any, Any] | None = None
    distribution_mode: str | None = None
    filter: dict[Any, Any] | None = None
    default_outcome: Any = None
    outcomes: list[str] | None = None
    capabilities: list[str] | None = None
    CODE = 0x28
    NAME = "amqp:source:list"
    FIELDS = (
        Field("address", STRING),
        Field("durable", UINT),
        Field("expiry_policy", SYMBOL),
        Field("timeout", UINT),
        Field("dynamic", BOOLEAN),
        Field("dynamic_node_properties", PROPERTIES),
        Field("distribution_mode", SYMBOL),
        Field("filter", MAP),
        Field("default_outcome", STATE),
        Field("outcomes", SYMBOLS),
        Field("capabilities", SYMBOLS),
    )


@dataclass(slots=True)
class Target(Composite):
    address: Any = None
    durable: int | None = None
    expiry_policy: str | None = None
    timeout: int | None = None
    dynamic: bool | None = None
    dynamic_node_properties: dict[Any, Any] | None = None
    capabilities: list[str] | None = None
    CODE = 0x29
    NAME = "amqp:target:list"
    FIELDS = (
        Field("address", STRING),
        Field("durable", UINT),
        Field("expiry_policy", SYMBOL),
        Field("timeout", UINT),
        Field("dynamic", BOOLEAN),
        Field("dynamic_node_properties", PROPERTIES),
        Field("capabilities", SYMBOLS),
    )


@dataclass(slots=True)
class Coordinator(Composite):
    """The target of a link that controls transactions."""

    capabilities: list[str] | None = None
    CODE = 0x30
    NAME = "amqp:coordinator:list"
    FIELDS = (Field("capabilities", SYMBOLS),)


@dataclass(slots=True)
class Attach(Composite):
    """`role` is that of the peer who sends the frame: True for a receiver."""

    name: str = ""
    handle: int = 0
    role: bool = False
    snd_settle_mode: int | None = None
    rcv_settle_mode: int | None = None
    source: Source | Described | None = None
    target: Target | Coordinator | Described | None = None
    unsettled: dict[Any, Any] | None = None
    incomplete_unsettled: bool | None = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: list[str] | None = None
    desired_capabilities: list[str] | None = None
    properties: dict[Any, Any] | None = None
    CODE = 0x12
    NAME = "amqp:attach:list"
    FIELDS = (
        Field("name", STRING, True),
        Field("handle", UINT, True),
        Field("role", BOOLEAN, True),
        Field("snd_settle_mode", UBYTE),
        Field("rcv_settle_mode", UBYTE),
        Field("source", SOURCE),
        Field("target", TARGET),
        Field("unsettled", MAP),
        Field("incomplete_unsettled", BOOLEAN),
        Field("initial_delivery_count", UINT),
        Field("max_message_size", ULONG),
        Field("offered_capabilities", SYMBOLS),
        Field("desired_capabilities", SYMBOLS),
        Field("properties", PROPERTIES),
    )


@dataclass(slots=True)
class Flow(Composite):
    """`next_incoming_id` is None before the sender has seen a begin; `handle` None for a whole session."""

    next_incoming_id: int | None = None
    incoming_window: int = 0
    next_outgoing_id: int = 0
    outgoing_window: int = 0
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool = False
    echo: bool = False
    properties: dict[Any, Any] | None = None
    CODE = 0x13
    NAME = "amqp:flow:list"
    FIELDS = (
        Field("next_incoming_id", UINT),
        Field("incoming_window", UINT, True),
        Field("next_outgoing_id", UINT, True),
        Field("outgoing_window", UINT, True),
        Field("handle", UINT),
        Field("delivery_count", UINT),
        Field("link_credit", UINT),
        Field("available", UINT),
        Field("drain", BOOLEAN),
        Field("echo", BOOLEAN),
        Field("properties", PROPERTIES),
    )


@dataclass(slots=True)
class Transfer(Composite):
    """The frame's payload follows the performative and is no part of it."""

    handle: int = 0
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool = False
    rcv_settle_mode: int | None = None
    state: Any = None
    resume: bool = False
    aborted: bool = False
    batchable: bool = False
    CODE = 0x14
    NAME = "amqp:transfer:list"
    FIELDS = (
        Field("handle", UINT, True),
        Field("delivery_id", UINT),
        Field("delivery_tag", BINARY),
        Field("message_format", UINT),
        Field("settled", BOOLEAN),
        Field("more", BOOLEAN),
        Field("rcv_settle_mode", UBYTE),
        Field("state", STATE),
        Field("resume", BOOLEAN),
        Field("aborted", BOOLEAN),
        Field("batchable", BOOLEAN),
    )


@dataclass(slots=True)
class Disposition(Composite):
    """`role` is that of the peer who sends the frame: True for the receiver of the deliveries."""

    role: bool = False
    first: int = 0
    last: int | None = None
    settled: bool = False
    state: Any = None
    batchable: bool = False
    CODE = 0x15
    NAME = "amqp:disposition:list"
    FIELDS = (
        Field("role", BOOLEAN, True),
        Field("first", UINT, True),
        Field("last", UINT),
        Field("settled", BOOLEAN),
        Field("state", STATE),
        Field("batchable", BOOLEAN),
    )


@dataclass(slots=True)
class Detach(Composite):
    handle: int = 0
    closed: bool = False
    error: Error | None = None
    CODE = 0x16
    NAME = "amqp:detach:list"
    FIELDS = (Field("handle", UINT, True), Field("closed", BOOLEAN), Field("error", ERROR))


@dataclass(slots=True)
class End(Composite):
    error: Error | None = None
    CODE = 0x17
    NAME = "amqp:end:list"
    FIELDS = (Field("error", ERROR),)


@dataclass(slots=True)
class Close(Composite):
    error: Error | None = None
    CODE = 0x18
    NAME = "amqp:close:list"
    FIELDS = (Field("error", ERROR),)


@dataclass(slots=True)
class Received(Composite):
    section_number: int = 0
    section_offset: int = 0
    CODE = 0x23
    NAME = "amqp:received:list"
    FIELDS = (Field("section_number", UINT, True), Field("section_offset", ULONG, True))


@dataclass(slots=True)
class Accepted(Composite):
    CODE = 0x24
    NAME = "amqp:accepted:list"
    FIELDS = ()


@dataclass(slots=True)
class Rejected(Composite):
    error: Error | None = None
    CODE = 0x25
    NAME = "amqp:rejected:list"
    FIELDS = (Field("error", ERROR),)


@dataclass(slots=True)
class Released(Composite):
    CODE = 0x26
    NAME = "amqp:released:list"
    FIELDS = ()


@dataclass(slots=True)
class Modified(Composite):
    delivery_failed: bool | None = None
    undeliverable_here: bool | None = None
    message_annotations: dict[Any, Any] | None = None
    CODE = 0x27
    NAME = "amqp:modified:list"
    FIELDS = (
        Field("delivery_failed", BOOLEAN),
        Field("undeliverable_here", BOOLEAN),
        Field("message_annotations", MAP),
    )


@dataclass(slots=True)
class Declare(Composite):
    """The value of a message to a coordinator that begins a transaction."""

    global_id: Any = None
    CODE = 0x31
    NAME = "amqp:declare:list"
    FIELDS = (Field("global_id", Kind(lambda v: v, lambda v: v)),)


@dataclass(slots=True)
class Discharge(Composite):
    """The value of a message to a coordinator that ends a transaction."""

    txn_id: bytes = b""
    fail: bool = False
    CODE = 0x32
    NAME = "amqp:discharge:list"
    FIELDS = (Field("txn_id", BINARY, True), Field("fail", BOOLEAN))


@dataclass(slots=True)
class Declared(Composite):
    txn_id: bytes = b""
    CODE = 0x33
    NAME = "amqp:declared:list"
    FIELDS = (Field("txn_id", BINARY, True),)


@dataclass(slots=True)
class TransactionalState(Composite):
    txn_id: bytes = b""
    outcome: Any = None
    CODE = 0x34
    NAME = "amqp:transactional-state:list"
    FIELDS = (Field("txn_id", BINARY, True), Field("outcome", STATE))


@dataclass(slots=True)
class SaslMechanisms(Composite):
    mechanisms: list[str] | None = None
    CODE = 0x40
    NAME = "amqp:sasl-mechanisms:list"
    FIELDS = (Field("mechanisms", SYMBOLS, True),)


@dataclass(slots=True)
class SaslInit(Composite):
    mechanism: str = ""
    initial_response: bytes | None = None
    hostname: str | None = None
    CODE = 0x41
    NAME = "amqp:sasl-init:list"
    FIELDS = (
        Field("mechanism", SYMBOL, True),
        Field("initial_response", BINARY),
        Field("hostname", STRING),
    )


@dataclass(slots=True)
class SaslChallenge(Composite):
    challenge: bytes = b""
    CODE = 0x42
    NAME = "amqp:sasl-challenge:list"
    FIELDS = (Field("challenge", BINARY, True),)


@dataclass(slots=True)
class SaslResponse(Composite):
    response: bytes = b""
    CODE = 0x43
    NAME = "amqp:sasl-response:list"
    FIELDS = (Field("response", BINARY, True),)


@dataclass(slots=True)
class SaslOutcome(Composite):
    """`code` 0 is success, 1 failed credentials, 2 a failure of the system."""

    code: int = 0
    additional_data: bytes | None = None
    CODE = 0x44
    NAME = "amqp:sasl-outcome:list"
    FIELDS = (Field("code", UBYTE, True), Field("additional_data", BINARY))


Outcome = Accepted | Rejected | Released | Modified
State = Received | Outcome | Declared | TransactionalState
ACCEPTED, RELEASED = Accepted(), Released()

_ALL: tuple[type[Composite], ...] = (
    Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close, Error,
    Received, Accepted, Rejected, Released, Modified, Source, Target, Coordinator,
    Declare, Discharge, Declared, TransactionalState,
    SaslMechanisms, SaslInit, SaslChallenge, SaslResponse, SaslOutcome,
)  # fmt: skip
# By code and by symbolic name: a descriptor is either.
CLASSES: dict[Any, type[Composite]] = {key: kind for kind in _ALL for key in (kind.CODE, kind.NAME)}


def composite(value: Any) -> Composite:
    """The composite a decoded Described stands for. Raises DecodeError, also for unknown descriptors."""
    try:
        kind = CLASSES.get(value.descriptor) if isinstance(value, Described) else None
    except TypeError:
        kind = None
    if kind is None:
        raise DecodeError("no performative, state or terminus of this descriptor is known")
    return kind.from_list(value.value)
