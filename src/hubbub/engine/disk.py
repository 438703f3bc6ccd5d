"""The few calls by which the file engine touches the disk, in one place so that tests can break them."""

from __future__ import annotations

import errno
import fcntl
import os

from .log import Owned

FULL_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

PIECE_BYTES = 64 << 10
"""Of one write call. Larger ones make some kernels (seen with Linux 6.18 and ext4) take page cache in large
folios, which cost ten times as much to fill."""


class Disk:
    """Plain files. Every method may raise OSError."""

    def create(self, path: str, size: int) -> int:
        """A new file with `size` bytes of space set aside, so that later writes cannot lack it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            os.unlink(path)
            raise
        return descriptor

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view[:PIECE_BYTES], offset)
            view, offset = view[written:], offset + written

    def flush(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def flush_folder(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def create(disk: Disk, path: str, size: int, least: int) -> tuple[int, int]:
    """(descriptor, size) of a new file: of `least` where there is no room for `size`. Raises OSError."""
    try:
        return disk.create(path, size), size
    except OSError as error:
        if error.errno not in FULL_ERRNOS or least >= size:
            raise
        return disk.create(path, least), least


def own(path: str) -> int:
    """The lock of the data folder, held while the descriptor is open. Raises Owned."""
    descriptor = os.open(os.path.join(path, "LOCK"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Owned(
            f"another hubbub (pid {owner}) uses {path}. Stop it, or give this one its own folder with --data"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
