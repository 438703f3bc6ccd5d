"""Frames: bytes in any splits to frames, and frames to bytes (specification part 2.3).

    0        4      5      6         8            4*doff      size
    | size   | doff | type | channel | (ignored)  | body      |

A protocol header takes the place of a frame where one is due. No body is looked into here.
"""

from __future__ import annotations

import struct

from .errors import FrameError

AMQP, SASL, HEADER = 0, 1, 2  # HEADER is no type of the wire: it marks a protocol header
AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEARTBEAT = b"\x00\x00\x00\x08\x02\x00\x00\x00"
SASL_FRAME_BYTES_MAX = 512
FRAME_BYTES_MIN = 512  # every peer can read that much

_PREFIX = struct.Struct(">IBBH")
_unpack_prefix = _PREFIX.unpack_from


Frame = tuple[int, int, bytes, int, int]
"""Type, channel, data, and where in it the frame's body starts and ends; for HEADER the header's 8 bytes."""


class FrameReader:
    """Cuts a stream into frames. `header_due` says that the next 8 bytes are a protocol header."""

    __slots__ = ("_data", "_due", "_offset", "_pending", "frame_bytes_max", "header_due")

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.header_due = True
        self._data = b""
        self._offset = 0
        self._due = 8
        self._pending = bytearray()

    def feed(self, data: bytes) -> None:
        """More bytes, once `next` has returned None or not."""
        if self._offset < len(self._data):
            self._pending += memoryview(self._data)[self._offset :]
            self._data = b""
            self._offset = 0
        if self._pending:
            self._pending += data
            if len(self._pending) < self._due:
                return
            data = bytes(self._pending)
            self._pending = bytearray()
            self._due = 8
        self._data = data
        self._offset = 0

    @property
    def held_bytes(self) -> int:
        """What was fed and not yet read."""
        return len(self._pending) + len(self._data) - self._offset

    def next(self) -> Frame | None:
        """The next whole frame. Raises FrameError; nothing can be read after that."""
        data, offset = self._data, self._offset
        try:
            size, doff, kind, channel = _unpack_prefix(data, offset)
        except struct.error:
            self._due = 8
            return None
        end = offset + size
        if doff == 2 and 8 <= size <= self.frame_bytes_max and end <= len(data) and not self.header_due:
            self._offset = end
            return kind, channel, data, offset + 8, end
        return self._unusual(size, doff, kind, channel)

    def _unusual(self, size: int, doff: int, kind: int, channel: int) -> Frame | None:
        """What stands next is a header, no good frame, not whole yet, or has its body further behind."""
        data, offset = self._data, self._offset
        if self.header_due:
            self.header_due = False
            self._offset = offset + 8
            return HEADER, 0, data, offset, offset + 8
        if not 8 <= size <= self.frame_bytes_max:
            raise FrameError(f"a frame of {size} bytes, 8 to {self.frame_bytes_max} are agreed")
        if not 8 <= doff * 4 <= size:
            raise FrameError(f"a data offset of {doff} words in a frame of {size} bytes")
        if len(data) - offset < size:
            self._due = size
            return None
        self._offset = offset + size
        return kind, channel, data, offset + doff * 4, offset + size


def frame(kind: int, channel: int, body: bytes, payload_bytes: int = 0) -> bytes:
    """A frame up to the payload, if there is one."""
    return _PREFIX.pack(len(body) + payload_bytes + 8, 2, kind, channel) + body
