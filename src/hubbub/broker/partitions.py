"""Event-hub partitions: which one an event goes to, and where a reader starts. Pure."""

from __future__ import annotations

from typing import NamedTuple

from .errors import Invalid

_M = 0xFFFFFFFF


def choose(key: str, count: int) -> int:
    """The partition of a key, as the service's clients compute it: Jenkins' lookup3 over UTF-8, the low
    16 bits of c xor b as a signed number, truncated remainder (AMQP reference 3.3)."""
    c, b = lookup3(key.encode())
    low = (c ^ b) & 0xFFFF
    signed = low - 0x10000 if low & 0x8000 else low
    return abs(signed) % count


def lookup3(data: bytes) -> tuple[int, int]:
    """Bob Jenkins' hashlittle2 with both seeds 0: (c, b)."""
    length = len(data)
    a = b = c = (0xDEADBEEF + length) & _M
    offset = 0
    while length - offset > 12:
        a, b, c = (x + y & _M for x, y in zip((a, b, c), _words(data, offset), strict=True))
        a, b, c = _mix(a, b, c)
        offset += 12
    if length == offset:
        return c, b
    a, b, c = (x + y & _M for x, y in zip((a, b, c), _words(data, offset), strict=True))
    return _final(a, b, c)


def _words(data: bytes, offset: int) -> tuple[int, int, int]:
    block = data[offset : offset + 12].ljust(12, b"\0")
    return (
        int.from_bytes(block[:4], "little"),
        int.from_bytes(block[4:8], "little"),
        int.from_bytes(block[8:], "little"),
    )


def _rotate(x: int, k: int) -> int:
    return (x << k | x >> (32 - k)) & _M


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for k in (4, 6, 8, 16, 19, 4):
        a = (a - c & _M) ^ _rotate(c, k)
        c = c + b & _M
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> tuple[int, int]:
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotate(b, k) & _M
        a, b, c = b, c, a
    # Seven steps rotate the names by one: what was c is now b's successor.
    return b, a


def partition_number(text: str, count: int) -> int:
    """The number of a partition id. Raises Invalid if the hub has no such partition."""
    plain = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
    if not plain or len(text) > 9 or int(text) >= count:
        raise Invalid(
            "The specified partition is invalid for an EventHub partition sender or receiver."
            f" It should be between 0 and {count - 1}."
        )
    return int(text)


class Start(NamedTuple):
    """Where reading begins: exactly one of the fields, `inclusive` for sequence, offset and time."""

    sequence: int | None = None
    offset: str | None = None
    enqueued: int | None = None
    earliest: bool = False
    latest: bool = False
    inclusive: bool = False
