"""The AMQP codec: what goes in comes out, of the same type; what is not AMQP raises DecodeError and nothing else."""

from __future__ import annotations

import math
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.wire.amqp import message, types
from hubbub.wire.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal,
    DecodeError,
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
    decode,
    encode,
    skip,
)


def whole(kind, low, high):
    return st.integers(low, high).map(kind)


FLOATS = st.floats(width=32, allow_nan=False).map(Float)
SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    whole(Ubyte, 0, 255),
    whole(Ushort, 0, 2**16 - 1),
    whole(Uint, 0, 2**32 - 1),
    whole(Ulong, 0, 2**64 - 1),
    whole(Byte, -128, 127),
    whole(Short, -(2**15), 2**15 - 1),
    whole(Int, -(2**31), 2**31 - 1),
    whole(Long, -(2**63), 2**63 - 1),
    whole(Timestamp, -(2**63), 2**63 - 1),
    FLOATS,
    st.floats(allow_nan=False),
    st.characters(codec="utf-8").map(Char),
    st.sampled_from([4, 8, 16]).flatmap(lambda n: st.binary(min_size=n, max_size=n)).map(Decimal),
    st.uuids(),
    st.binary(max_size=300),
    st.text(max_size=300),
    st.text(alphabet=st.characters(max_codepoint=127), max_size=300).map(Symbol),
)
KEYS = st.one_of(st.text(max_size=5), whole(Ulong, 0, 2**64 - 1), st.text("abc", max_size=3).map(Symbol))


def one_type(values):
    """Arrays of each type there is."""
    kinds = [
        st.booleans(), whole(Ubyte, 0, 255), whole(Uint, 0, 2**32 - 1), whole(Ulong, 0, 2**64 - 1),
        whole(Int, -(2**31), 2**31 - 1), whole(Long, -(2**63), 2**63 - 1), whole(Timestamp, 0, 2**62), FLOATS,
        st.text(max_size=300), st.binary(max_size=300), st.text("xyz", max_size=4).map(Symbol), st.uuids(),
        st.lists(values, max_size=3), st.dictionaries(KEYS, values, max_size=3),
        st.lists(st.text(max_size=3), max_size=3).map(Array),
        st.text(max_size=3).map(lambda t: Described(Symbol("a:b"), t)),
    ]  # fmt: skip
    return st.one_of([st.lists(kind, max_size=5).map(Array) for kind in kinds])


VALUES = st.recursive(
    SIMPLE,
    lambda values: st.one_of(
        st.lists(values, max_size=6),
        st.dictionaries(KEYS, values, max_size=6),
        one_type(values),
        st.builds(Described, st.one_of(whole(Ulong, 0, 2**64 - 1), st.text("abc:").map(Symbol)), values),
    ),
    max_leaves=12,
)


def same(a, b):
    """Equal, and of equal types all the way down; a plain int comes back as Long."""
    if type(a) is int:
        return type(b) is Long and a == b
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items())) if a else b == {}
    if isinstance(a, tuple):
        return all(map(same, a, b))
    if isinstance(a, Described):
        return same(a.descriptor, b.descriptor) and same(a.value, b.value)
    return a == b


@given(VALUES, st.binary(max_size=3), st.binary(max_size=3))
@settings(max_examples=400, deadline=None)
def test_round_trip(value, before, after):
    data = encode(value)
    for buffer in (before + data + after, memoryview(before + data + after)):
        back, end = decode(buffer, len(before))
        assert same(value, back)
        assert end == len(before) + len(data) == skip(buffer, len(before))
    assert encode(back) == data


@given(st.one_of(st.binary(max_size=60), VALUES.map(encode)), st.data())
@settings(max_examples=600, deadline=None)
def test_anything_but_a_value_is_a_decode_error(data, draw):
    """Random bytes, and good ones with a byte changed or cut short."""
    if data and draw.draw(st.booleans()):
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes((draw.draw(st.integers(0, 255)),)) + data[at + 1 :]
    elif data:
        data = data[: draw.draw(st.integers(0, len(data) - 1))]
    for read in (
        decode,
        skip,
        message.split,
        message.section_value,
        message.body_bytes,
        message.data_sections,
    ):
        try:
            read(data, 0) if read in (decode, skip) else read(data)
        except DecodeError:
            pass


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_what_decodes_encodes_and_decodes_the_same(data):
    """A client's filter is echoed: all that can come can go."""
    try:
        value, end = decode(data)
    except DecodeError:
        return
    back, _ = decode(encode(value))
    assert repr(back) == repr(value) or (isinstance(value, float) and math.isnan(value))
    assert end <= len(data)


FORMS = {
    "40": None, "41": True, "42": False, "5601": True, "5600": False, "50ff": Ubyte(255), "60ffff": Ushort(65535),
    "43": Uint(0), "52ff": Uint(255), "70ffffffff": Uint(2**32 - 1), "44": Ulong(0), "53ff": Ulong(255),
    "80ffffffffffffffff": Ulong(2**64 - 1), "51ff": Byte(-1), "61ffff": Short(-1), "54ff": Int(-1),
    "71ffffffff": Int(-1), "55ff": Long(-1), "81ffffffffffffffff": Long(-1), "723f800000": Float(1.0),
    "823ff0000000000000": 1.0, "7400000001": Decimal(b"\0\0\0\1"), "730001f600": Char("\U0001f600"),
    "83ffffffffffffffff": Timestamp(-1), "98" + "11" * 16: uuid.UUID("11" * 16), "a00161": b"a",
    "b00000000161": b"a", "a10161": "a", "b10000000161": "a", "a30161": Symbol("a"), "b30000000161": Symbol("a"),
    "45": [], "c00100": [], "c0020141": [True], "d0000000050000000141": [True], "c10100": {},
    "c104025201 41": {Uint(1): True},
    "e00402500102": Array([Ubyte(1), Ubyte(2)]), "f000000007000000025001 02": Array([Ubyte(1), Ubyte(2)]),
    "e00901 00a30161a3 026262": Array([Described(Symbol("a"), Symbol("bb"))]),
    "005324 45": Described(Ulong(0x24), []),
}  # fmt: skip


NO_VALUES = [
    "", "00", "57", "5602", "b0ffffffff", "a102c328", "a301ff", "7300110000", "c1020141", "e0050043", "f0", "7000",
    "c0030141", "c003014141", "00a10161", "e003 01 57 00", "c10402 4540 41",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_every_constructor(text):
    data = bytes.fromhex(text)
    value, end = decode(data)
    assert same(FORMS[text], value)
    assert end == len(data)


@pytest.mark.parametrize("text", NO_VALUES)
def test_what_is_no_value(text):
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(text))


def test_nesting_is_bounded():
    value = []
    for _ in range(types.NESTING_MAX - 1):
        value = [value]
    assert decode(encode(value))[0] == value
    with pytest.raises(DecodeError, match="nested too deep"):
        decode(encode([value]))


def test_few_bytes_never_become_many_values():
    inner = b"\xf0" + struct.pack(">II", 5, 60000) + b"\x40"
    bomb = b"\xd0" + struct.pack(">II", 4 + len(inner) * 1000, 1000) + inner * 1000
    with pytest.raises(DecodeError, match="more items than it has bytes"):
        decode(bomb)


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, Array([1, "a"])])
def test_what_amqp_has_no_type_for(value):
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("value", [Uint(-1), Uint(2**32), Ubyte(256), Ulong(2**64), 2**63])
def test_numbers_out_of_range(value):
    with pytest.raises((struct.error, OverflowError, ValueError)):
        encode(value)
