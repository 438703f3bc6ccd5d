"""Quick ways for the three performatives that come by the thousand: transfer, disposition, flow.

They read and write the same bytes as `performatives.py`, which remains the truth: whatever looks unusual is
handed to it. What follows a transfer's tag, and a disposition's range, is the same few bytes over and over on
one connection, so its meaning is remembered by its bytes (`Tails`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast

from .performatives import (
    ACCEPTED,
    RELEASED,
    Disposition,
    Flow,
    Modified,
    Rejected,
    State,
    Transfer,
    composite,
)
from .types import DecodeError, decode

_U32 = struct.Struct(">I")
_U32_U32 = struct.Struct(">II")
_REMEMBERED_MAX = 64
_TAIL_BYTES_MAX = 24

TRANSFER = b"\x00\x53\x14"
DISPOSITION = b"\x00\x53\x15"
FLOW = b"\x00\x53\x13"


class Tails:
    """What one connection's recurring tails mean."""

    __slots__ = ("dispositions", "transfers")

    def __init__(self) -> None:
        self.transfers: dict[bytes, tuple[int, Transfer]] = {}
        self.dispositions: dict[bytes, tuple[int, Disposition]] = {}


def _list(data: bytes, offset: int, end: int) -> tuple[int, int, int]:
    """Count, first item and end of the list at `offset`; a count of 0 for what is better left to others."""
    code = data[offset]
    if code == 0xC0:
        count, start, stop = data[offset + 2], offset + 3, offset + 2 + data[offset + 1]
    elif code == 0xD0:
        size, count = _U32_U32.unpack_from(data, offset + 1)
        start, stop = offset + 9, offset + 5 + size
    else:
        return 0, 0, 0
    return (count, start, stop) if start <= stop <= end else (0, 0, 0)


def decode_transfer(
    data: bytes, start: int, end: int, tails: Tails
) -> tuple[int, int | None, bytes | None, Transfer, int]:
    """Handle, delivery id, tag, a Transfer to read the other fields from, and where the payload begins.
    `start` is the descriptor's offset. Raises DecodeError."""
    try:
        if data[start + 3] == 0xC0:
            stop, count, o = start + 5 + data[start + 4], data[start + 5], start + 6
        else:
            count, o, stop = _list(data, start + 3, end)
        code = data[o]
        if code == 0x52:
            handle, o = data[o + 1], o + 2
        elif code == 0x70:
            handle, o = _U32.unpack_from(data, o + 1)[0], o + 5
        elif code == 0x43:
            handle, o = 0, o + 1
        else:
            return _any_transfer(data, start, end)
        code = data[o]
        if code == 0x70:
            delivery_id, o = _U32.unpack_from(data, o + 1)[0], o + 5
        elif code == 0x52:
            delivery_id, o = data[o + 1], o + 2
        elif code == 0x43:
            delivery_id, o = 0, o + 1
        else:
            return _any_transfer(data, start, end)
        after = o + 2 + data[o + 1]
        if data[o] == 0xA0 and after <= stop <= end:
            known = tails.transfers.get(data[after:stop])
            if known is not None and known[0] == count:
                return handle, delivery_id, data[o + 2 : after], known[1], stop
            found = _any_transfer(data, start, end)
            tail = data[after:stop]
            if _memorable(tail, found[3], len(tails.transfers)):
                tails.transfers[tail] = (count, found[3])
            return found
    except (IndexError, struct.error):
        pass
    return _any_transfer(data, start, end)


def _memorable(tail: bytes, found: Transfer | Disposition, remembered: int) -> bool:
    """Whether a tail may be kept: few, short, and without what an owner could change or a stranger vary for
    ever."""
    state = found.state
    plain = state is None or state in _PLAIN_STATES
    return plain and len(tail) <= _TAIL_BYTES_MAX and remembered < _REMEMBERED_MAX


_PLAIN_STATES = [
    ACCEPTED, RELEASED, Rejected(),
    *(Modified(a, b) for a in (None, True, False) for b in (None, True, False)),
]  # fmt: skip


def _any_transfer(data: bytes, start: int, end: int) -> tuple[int, int | None, bytes | None, Transfer, int]:
    value, stop = decode(memoryview(data)[:end], start)
    found = cast(Transfer, composite(value))
    return found.handle, found.delivery_id, found.delivery_tag, found, stop


def decode_disposition(data: bytes, start: int, end: int, tails: Tails) -> tuple[bool, int, int, Disposition]:
    """Role, first, last, and a Disposition to read settled, state and batchable from. Raises DecodeError."""
    try:
        count, o, stop = _list(data, start + 3, end)
        if count > 3 and stop == end:
            role, o = _flag(data, o)
            first, o = _uint(data, o)
            last, o = _uint(data, o)
            if first is not None and role is not None:
                tail = data[o:stop]
                known = tails.dispositions.get(tail)
                if known is not None and known[0] == count:
                    return role, first, first if last is None else last, known[1]
                found = _any_disposition(data, start, end)
                if _memorable(tail, found[3], len(tails.dispositions)):
                    tails.dispositions[tail] = (count, found[3])
                return found
    except (IndexError, struct.error, ValueError):
        pass
    return _any_disposition(data, start, end)


def _any_disposition(data: bytes, start: int, end: int) -> tuple[bool, int, int, Disposition]:
    value, stop = decode(memoryview(data)[:end], start)
    found = cast(Disposition, composite(value))
    if stop != end:
        raise DecodeError("bytes follow a disposition")
    return found.role, found.first, found.first if found.last is None else found.last, found


def _uint(data: bytes, o: int) -> tuple[int | None, int]:
    """An unsigned number or null, and what follows. Raises ValueError for anything else."""
    code = data[o]
    if code == 0x52:
        return data[o + 1], o + 2
    if code == 0x70:
        return _U32.unpack_from(data, o + 1)[0], o + 5
    if code == 0x43:
        return 0, o + 1
    if code == 0x40:
        return None, o + 1
    raise ValueError("no unsigned number")


def decode_flow(data: bytes, start: int, end: int) -> Flow:
    """Raises DecodeError."""
    try:
        count, o, stop = _list(data, start + 3, end)
        if 4 <= count <= 11 and stop == end:
            numbers: list[int | None] = [None] * 8
            for i in range(min(count, 8)):
                numbers[i], o = _uint(data, o)
            drain: bool | None = False
            echo: bool | None = False
            if count > 8:
                drain, o = _flag(data, o)
            if count > 9:
                echo, o = _flag(data, o)
            if count > 10:
                o += data[o] == 0x40
            if o == stop and None not in numbers[1:4]:
                incoming_id, a, b, c, handle, delivery_count, credit, available = numbers
                return Flow(
                    incoming_id,
                    a or 0,
                    b or 0,
                    c or 0,
                    handle,
                    delivery_count,
                    credit,
                    available,
                    drain is True,
                    echo is True,
                )
    except (IndexError, struct.error, ValueError):
        pass
    value, stop = decode(memoryview(data)[:end], start)
    if stop != end:
        raise DecodeError("bytes follow a flow")
    return cast(Flow, composite(value))


def _flag(data: bytes, o: int) -> tuple[bool | None, int]:
    """A boolean of either form or null, and what follows. Raises ValueError for anything else."""
    code = data[o]
    if 0x40 <= code <= 0x42:
        return _FLAGS[code - 0x40], o + 1
    if code == 0x56 and data[o + 1] <= 1:
        return data[o + 1] == 1, o + 2
    raise ValueError("no boolean")


_FLAGS = (None, True, False)


# size, doff 2, type 0, channel, 00 53 14 c0, list size, 11 fields, 70 handle, 70 id, a0 tag size
_TRANSFER_HEAD = struct.Struct(">IHHIBBBIBIBB")
_TRANSFER_FIXED = _TRANSFER_HEAD.size + 12  # without the tag
_FRAME, _PLAIN_LIST = 0x0200, 0x005314C0


def transfer_tail(message_format: int, settled: bool, more: bool) -> bytes:
    """What follows the tag of a transfer without state."""
    flags = (b"\x41" if settled else b"\x42") + (b"\x41" if more else b"\x42")
    return b"\x70" + _U32.pack(message_format) + flags + b"\x40\x40\x40\x40\x40"


def transfer_overhead(tag: bytes) -> int:
    """Bytes of a frame with `tag` that are not payload."""
    return _TRANSFER_FIXED + len(tag)


def encode_transfer(
    channel: int, handle: int, delivery_id: int, tag: bytes, tail: bytes, payload_bytes: int
) -> bytes:
    """A frame up to its payload of that many bytes; `tail` as `transfer_tail` makes it."""
    size = len(tag)
    return (
        _TRANSFER_HEAD.pack(
            _TRANSFER_FIXED + size + payload_bytes, _FRAME, channel, _PLAIN_LIST, 25 + size, 11,
            0x70, handle, 0x70, delivery_id, 0xA0, size,
        )
        + tag
        + tail
    )  # fmt: skip


# size, from doff to the handle, id, head of the tag, tag, tail
_SETTLED = struct.Struct(">I16sI2sI12s")
SETTLED_OVERHEAD = _SETTLED.size
_Pack = Callable[[int, bytes, int, bytes, int, bytes], bytes]


def settled_transfers(channel: int, handle: int) -> tuple[_Pack, bytes, bytes, bytes]:
    """For frames of settled deliveries of one link, whose tags are their ids: how to make one up to its
    payload, of its size, the first constant, the id, the second, the id again, the third; and those three."""
    example = encode_transfer(channel, handle, 0, bytes(4), transfer_tail(0, True, False), 0)
    return _SETTLED.pack, example[4:20], example[24:26], example[30:]


# size, doff 2, type 0, channel, 00 53 15 c0, list size, 6 fields, role, 70 first, 70 last, settled
_DISPOSITION_HEAD = struct.Struct(">IHHIBBBBIBIB")
_ACCEPTED = b"\x00\x53\x24\x45"


def encode_state(state: State | None) -> bytes:
    """A delivery state as a field; b"@" (null) for None."""
    if state is ACCEPTED:
        return _ACCEPTED
    return b"\x40" if state is None else state.encode()


def encode_disposition(channel: int, role: bool, first: int, last: int, state: bytes) -> bytes:
    """A settled disposition frame; `state` as `encode_state` makes it."""
    size = len(state)
    if size > 200:
        body = b"".join(
            (DISPOSITION, b"\xd0", _U32_U32.pack(17 + size, 6), b"\x41" if role else b"\x42",
             b"\x70", _U32.pack(first), b"\x70", _U32.pack(last), b"\x41", state, b"\x42")
        )  # fmt: skip
        return struct.pack(">IHH", len(body) + 8, _FRAME, channel) + body
    return (
        _DISPOSITION_HEAD.pack(
            _DISPOSITION_HEAD.size + size + 1, _FRAME, channel, 0x005315C0, 14 + size, 6,
            0x41 if role else 0x42, 0x70, first, 0x70, last, 0x41,
        )
        + state
        + b"\x42"
    )  # fmt: skip


# size, doff 2, type 0, channel, 00 53 13 c0, list size, 11 fields, 70 and a number four times
_FLOW_HEAD = struct.Struct(">IHHIBBBIBIBIBI")
_FLOW_LINK = struct.Struct(
    ">BIBIBIBBBB"
)  # handle, delivery count, credit, available, drain, echo, properties
_FLOW_SESSION = b"\x40" * 4 + b"\x42\x42\x40"


def encode_flow(channel: int, window: tuple[int, int, int, int], link: bytes = _FLOW_SESSION) -> bytes:
    """A flow frame. `window`: next incoming id, incoming window, next outgoing id, outgoing window."""
    a, b, c, d = window
    size = len(link)
    return (
        _FLOW_HEAD.pack(
            _FLOW_HEAD.size + size,
            _FRAME,
            channel,
            0x005313C0,
            21 + size,
            11,
            0x70,
            a,
            0x70,
            b,
            0x70,
            c,
            0x70,
            d,
        )
        + link
    )


def flow_of_link(handle: int, delivery_count: int, credit: int, drain: bool) -> bytes:
    """The part of a flow that speaks of one link."""
    return _FLOW_LINK.pack(
        0x70, handle, 0x70, delivery_count, 0x70, credit, 0x40, 0x41 if drain else 0x42, 0x42, 0x40
    )
