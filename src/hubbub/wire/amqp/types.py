"""The AMQP 1.0 type system: values to bytes and back (specification part 1).

Exact types are kept where Python has none of its own by small subclasses of int, float and str; a plain
int encodes as long, a plain float as double, str as string, bytes as binary. Decoding never raises
anything but DecodeError, and is bounded: nesting, and counts by the bytes that are left.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any

NESTING_MAX = 64
EMPTY_ITEMS_MAX = 64  # items of no bytes in one array: a few bytes must not become a million values


class DecodeError(ValueError):
    """The bytes are not an AMQP value."""


class Ubyte(int): ...


class Ushort(int): ...


class Uint(int): ...


class Ulong(int): ...


class Byte(int): ...


class Short(int): ...


class Int(int): ...


class Long(int): ...


class Timestamp(int):
    """Milliseconds since 1970 UTC."""


class Float(float):
    """32 bits."""


class Symbol(str):
    """ASCII, from a constrained domain."""

    __slots__ = ()


class Char(str):
    """One character."""

    __slots__ = ()


class Decimal(bytes):
    """A decimal32, 64 or 128 as its 4, 8 or 16 raw bytes."""


class Array(list[Any]):
    """Values of one type."""


class Described:
    """A value with a descriptor."""

    __slots__ = ("descriptor", "value")

    def __init__(self, descriptor: Any, value: Any) -> None:
        self.descriptor = descriptor
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Described) and (self.descriptor, self.value) == (
            other.descriptor,
            other.value,
        )

    def __hash__(self) -> int:
        return hash(self.descriptor)

    def __repr__(self) -> str:
        return f"Described({self.descriptor!r}, {self.value!r})"


Buffer = bytes | memoryview
_U16, _U32, _U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")
_I16, _I32, _I64 = struct.Struct(">h"), struct.Struct(">i"), struct.Struct(">q")
_F32, _F64 = struct.Struct(">f"), struct.Struct(">d")
_U32_U32 = struct.Struct(">II")
_U8_U8 = struct.Struct(">BB")

# Decoding: (buffer, offset behind the constructor, nesting left) -> (value, next offset).
_Decoder = Callable[[Buffer, int, int], tuple[Any, int]]


def _constant(value: Any) -> _Decoder:
    return lambda b, o, n: (value, o)


def _fixed(unpack: struct.Struct, wrap: Callable[[Any], Any]) -> _Decoder:
    read, size = unpack.unpack_from, unpack.size
    return lambda b, o, n: (wrap(read(b, o)[0]), o + size)


def _small(wrap: Callable[[Any], Any], signed: bool) -> _Decoder:
    if signed:
        return lambda b, o, n: (wrap(b[o] - 256 if b[o] > 127 else b[o]), o + 1)
    return lambda b, o, n: (wrap(b[o]), o + 1)


def _raw(size: int, wrap: Callable[[bytes], Any]) -> _Decoder:
    def decode_raw(b: Buffer, o: int, n: int) -> tuple[Any, int]:
        return wrap(_take(b, o, size)), o + size

    return decode_raw


def _take(b: Buffer, o: int, size: int) -> bytes:
    if o + size > len(b):
        raise DecodeError(f"the value at {o} needs {size} bytes, {len(b) - o} are left")
    return bytes(b[o : o + size])


def _variable(wide: bool, wrap: Callable[[bytes], Any]) -> _Decoder:
    def decode_variable(b: Buffer, o: int, n: int) -> tuple[Any, int]:
        size, o = (_U32.unpack_from(b, o)[0], o + 4) if wide else (b[o], o + 1)
        return wrap(_take(b, o, size)), o + size

    return decode_variable


def _frame(b: Buffer, o: int, wide: bool) -> tuple[int, int, int]:
    """Count, first offset and end of a compound value."""
    if wide:
        size, count = _U32_U32.unpack_from(b, o)
        start, end = o + 8, o + 4 + size
    else:
        size, count = _U8_U8.unpack_from(b, o)
        start, end = o + 2, o + 1 + size
    if end > len(b) or end < start:
        raise DecodeError(f"the compound value at {o} is longer than the buffer")
    return count, start, end


def _list(wide: bool) -> _Decoder:
    def decode_list(b: Buffer, o: int, n: int) -> tuple[Any, int]:
        count, o, end = _frame(b, o, wide)
        if count > end - o:
            raise DecodeError("a list claims more items than it has bytes")
        values, o = _items(b, o, n, count)
        return values, _exactly(o, end)

    return decode_list


def _map(wide: bool) -> _Decoder:
    def decode_map(b: Buffer, o: int, n: int) -> tuple[Any, int]:
        count, o, end = _frame(b, o, wide)
        if count % 2 or count > end - o:
            raise DecodeError("a map has an odd or impossible number of items")
        values, o = _items(b, o, n, count)
        try:
            found = dict(zip(values[::2], values[1::2], strict=True))
        except TypeError:
            raise DecodeError("a map key is a compound value") from None
        return found, _exactly(o, end)

    return decode_map


def _items(b: Buffer, o: int, n: int, count: int) -> tuple[list[Any], int]:
    """So many values, and the offset behind them. As `_decode`, but without a call for each."""
    if count and n <= 1:
        raise DecodeError("values are nested too deep")
    values: list[Any] = []
    for _ in range(count):
        decoder = _DECODERS[b[o]]
        if decoder is None:
            raise DecodeError(f"unknown type {b[o]:#04x} at {o}")
        value, o = decoder(b, o + 1, n - 1)
        values.append(value)
    return values, o


def _array(wide: bool) -> _Decoder:
    def decode_array(b: Buffer, o: int, n: int) -> tuple[Any, int]:
        count, o, end = _frame(b, o, wide)
        descriptor = None
        code = b[o]
        o += 1
        if code == 0:
            descriptor, o = _decode(b, o, n - 1)
            code = b[o]
            o += 1
        decoder = _DECODERS[code]
        if code == 0 or decoder is None:
            raise DecodeError(f"an array of unknown type {code:#04x}")
        if count > end - o and count > EMPTY_ITEMS_MAX:
            raise DecodeError("an array claims more items than it has bytes")
        if n <= 0:
            raise DecodeError("values are nested too deep")
        values = Array()
        for _ in range(count):
            value, o = decoder(b, o, n - 1)
            values.append(value if descriptor is None else Described(descriptor, value))
        return values, _exactly(o, end)

    return decode_array


def _exactly(o: int, end: int) -> int:
    if o != end:
        raise DecodeError("a compound value does not fill its size")
    return o


def _described(b: Buffer, o: int, n: int) -> tuple[Any, int]:
    descriptor, o = _decode(b, o, n - 1)
    value, o = _decode(b, o, n - 1)
    return Described(descriptor, value), o


def _boolean(b: Buffer, o: int, n: int) -> tuple[Any, int]:
    if b[o] > 1:
        raise DecodeError(f"a boolean of value {b[o]}")
    return b[o] == 1, o + 1


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _short_text(b: Buffer, o: int, n: int) -> tuple[Any, int]:
    end = o + 1 + b[o]
    if end > len(b):
        raise DecodeError(f"the text at {o} is longer than the buffer")
    return str(b[o + 1 : end], "utf-8"), end


def _symbol(data: bytes) -> Symbol:
    return Symbol(data.decode("ascii"))


def _char(data: bytes) -> Char:
    return Char(chr(_U32.unpack(data)[0]))


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


_TABLE: dict[int, _Decoder] = {
    0x00: _described, 0x40: _constant(None), 0x41: _constant(True), 0x42: _constant(False), 0x56: _boolean,
    0x50: _small(Ubyte, False), 0x60: _fixed(_U16, Ushort),
    0x43: _constant(Uint(0)), 0x52: _small(Uint, False), 0x70: _fixed(_U32, Uint),
    0x44: _constant(Ulong(0)), 0x53: _small(Ulong, False), 0x80: _fixed(_U64, Ulong),
    0x51: _small(Byte, True), 0x61: _fixed(_I16, Short),
    0x54: _small(Int, True), 0x71: _fixed(_I32, Int), 0x55: _small(Long, True), 0x81: _fixed(_I64, Long),
    0x72: _fixed(_F32, Float), 0x82: _fixed(_F64, float),
    0x74: _raw(4, Decimal), 0x84: _raw(8, Decimal), 0x94: _raw(16, Decimal),
    0x73: _raw(4, _char), 0x83: _fixed(_I64, Timestamp), 0x98: _raw(16, _uuid),
    0xA0: _variable(False, bytes), 0xB0: _variable(True, bytes),
    0xA1: _short_text, 0xB1: _variable(True, _text),
    0xA3: _variable(False, _symbol), 0xB3: _variable(True, _symbol),
    0x45: lambda b, o, n: ([], o), 0xC0: _list(False), 0xD0: _list(True),
    0xC1: _map(False), 0xD1: _map(True), 0xE0: _array(False), 0xF0: _array(True),
}  # fmt: skip
_DECODERS: list[_Decoder | None] = [_TABLE.get(code) for code in range(256)]


def _decode(b: Buffer, o: int, nesting: int) -> tuple[Any, int]:
    decoder = _DECODERS[b[o]]
    if decoder is None:
        raise DecodeError(f"unknown type {b[o]:#04x} at {o}")
    if nesting <= 0:
        raise DecodeError("values are nested too deep")
    return decoder(b, o + 1, nesting)


def decode(buffer: Buffer, offset: int = 0) -> tuple[Any, int]:
    """The value at `offset` and the offset behind it. Raises DecodeError."""
    try:
        return _decode(buffer, offset, NESTING_MAX)
    except DecodeError:
        raise
    except (IndexError, struct.error):
        raise DecodeError("the buffer ends inside a value") from None
    except UnicodeDecodeError as error:
        what = "a symbol" if error.encoding == "ascii" else "a text"
        raise DecodeError(f"{what} holds bytes that are not {error.encoding.upper()}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def skip(buffer: Buffer, offset: int) -> int:
    """The offset behind the value at `offset`, by its size alone. Raises DecodeError."""
    try:
        code = buffer[offset]
        offset += 1
        while code == 0:
            offset = skip(buffer, offset)
            code = buffer[offset]
            offset += 1
        width = code >> 4
        if width in _FIXED_SIZES:
            end = offset + _FIXED_SIZES[width]
        elif width in (0xA, 0xC, 0xE):
            end = offset + 1 + buffer[offset]
        elif width in (0xB, 0xD, 0xF):
            end = offset + 4 + int(_U32.unpack_from(buffer, offset)[0])
        else:
            raise DecodeError(f"unknown type {code:#04x}")
    except (IndexError, struct.error, RecursionError):
        raise DecodeError("the buffer ends inside a value") from None
    if end > len(buffer):
        raise DecodeError("the buffer ends inside a value")
    return end


_FIXED_SIZES = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16}


def _encode_variable(narrow: int, data: bytes) -> bytes:
    if len(data) < 256:
        return _U8_U8.pack(narrow, len(data)) + data
    return bytes((narrow + 0x10,)) + _U32.pack(len(data)) + data


def _encode_compound(narrow: int, count: int, body: bytes) -> bytes:
    if len(body) < 255 and count < 256:
        return bytes((narrow, len(body) + 1, count)) + body
    return bytes((narrow + 0x10,)) + _U32_U32.pack(len(body) + 4, count) + body


def _encode_int(value: int) -> bytes:
    if -128 <= value <= 127:
        return b"\x55" + value.to_bytes(1, "big", signed=True)
    return b"\x81" + _I64.pack(value)


def _encode_list(values: list[Any]) -> bytes:
    if not values:
        return b"\x45"
    # Most fields of most performatives are null.
    body = b"".join([b"\x40" if value is None else encode(value) for value in values])
    return _encode_compound(0xC0, len(values), body)


def _encode_map(values: dict[Any, Any]) -> bytes:
    body = b"".join(encode(item) for pair in values.items() for item in pair)
    return _encode_compound(0xC1, 2 * len(values), body)


def _encode_array(values: Array) -> bytes:
    """Items must be of one type; the widest constructor of the type serves all."""
    items = [_widest(value) for value in values]
    constructors = {constructor for constructor, _ in items}
    if len(constructors) > 1:
        raise TypeError("an array holds one type only")
    body = (constructors.pop() if constructors else b"\x40") + b"".join(data for _, data in items)
    return b"\xf0" + _U32_U32.pack(len(body) + 4, len(values)) + body


_WIDE_NUMBERS: dict[type, tuple[bytes, struct.Struct]] = {
    Uint: (b"\x70", _U32), Ulong: (b"\x80", _U64), Int: (b"\x71", _I32), Long: (b"\x81", _I64),
    int: (b"\x81", _I64),
}  # fmt: skip


def _widest(value: Any) -> tuple[bytes, bytes]:
    """Constructor and data of an item, of a width that takes any value of the type."""
    kind = type(value)
    if kind in _WIDE_NUMBERS:
        code, packer = _WIDE_NUMBERS[kind]
        return code, packer.pack(value)
    if kind is bool:
        return b"\x56", b"\x01" if value else b"\x00"
    if kind is Described:
        code, data = _widest(value.value)
        return b"\x00" + encode(value.descriptor) + code, data
    if kind in (list, dict):
        parts = value if kind is list else [part for pair in value.items() for part in pair]
        body = b"".join(map(encode, parts))
        return b"\xd0" if kind is list else b"\xd1", _U32_U32.pack(len(body) + 4, len(parts)) + body
    if kind in (bytes, str, Symbol):
        data = value if kind is bytes else value.encode("ascii" if kind is Symbol else "utf-8")
        code = b"\xb0" if kind is bytes else b"\xb3" if kind is Symbol else b"\xb1"
        return code, _U32.pack(len(data)) + data
    encoded = encode(value)
    return encoded[:1], encoded[1:]


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda v: b"\x40",
    bool: lambda v: b"\x41" if v else b"\x42",
    int: _encode_int,
    Long: _encode_int,
    Ubyte: lambda v: b"\x50" + v.to_bytes(1, "big"),
    Ushort: lambda v: b"\x60" + _U16.pack(v),
    Uint: lambda v: b"\x43" if v == 0 else b"\x52" + bytes((v,)) if v < 256 else b"\x70" + _U32.pack(v),
    Ulong: lambda v: b"\x44" if v == 0 else b"\x53" + bytes((v,)) if v < 256 else b"\x80" + _U64.pack(v),
    Byte: lambda v: b"\x51" + v.to_bytes(1, "big", signed=True),
    Short: lambda v: b"\x61" + _I16.pack(v),
    Int: lambda v: (
        b"\x54" + v.to_bytes(1, "big", signed=True) if -128 <= v <= 127 else b"\x71" + _I32.pack(v)
    ),
    Timestamp: lambda v: b"\x83" + _I64.pack(v),
    Float: lambda v: b"\x72" + _F32.pack(v),
    float: lambda v: b"\x82" + _F64.pack(v),
    Char: lambda v: b"\x73" + _U32.pack(ord(v)),
    Decimal: lambda v: {4: b"\x74", 8: b"\x84", 16: b"\x94"}[len(v)] + bytes(v),
    uuid.UUID: lambda v: b"\x98" + v.bytes,
    bytes: lambda v: _encode_variable(0xA0, v),
    str: lambda v: _encode_variable(0xA1, v.encode()),
    Symbol: lambda v: _encode_variable(0xA3, v.encode("ascii")),
    list: _encode_list,
    dict: _encode_map,
    Array: _encode_array,
    Described: lambda v: b"\x00" + encode(v.descriptor) + encode(v.value),
}


def encode(value: Any) -> bytes:
    """The shortest encoding of the value's exact type. Raises TypeError for types AMQP has not,
    struct.error or OverflowError for numbers out of their type's range."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"AMQP has no type for {type(value).__name__}")
    return encoder(value)
