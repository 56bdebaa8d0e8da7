"""The ring: one process's records on their way to the collector, in a file that outlives the process.

One producer and one consumer, each of which may die at any moment. Promises:

- A record becomes visible when it is whole (`head` is stored with release after it), so a killed producer leaves whole
  records only. The consumer copies first and validates the copy: whatever bytes lie in the file, it reads nothing
  outside it and answers with records or with CorruptRing.
- `push` takes no lock, makes no system call, allocates nothing and runs no Python code: it may be called in a signal
  handler, a destructor or an at-fork hook.
- Room is kept for what must not be refused: see FREE_SHIFTS and CLOSE_ROOM_BYTES in layout.py. A CLOSE after its OPEN
  and the BYE always fit.
- A ring belongs to the process that made its Producer. In a forked child `push` answers FOREIGN and writes nothing.
- No descriptor is kept; the caller closes the one it handed in.

The compiled classes and those in pure Python are interchangeable but for speed and two things that Python cannot do:
order its stores (so records carry a CRC-32), and be uninterruptible (so a re-entered push is left with the push
that it interrupted, and if the ring has no room by then, it is counted as queue_full there).
"""

import errno
import os
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from epsagon_fast.compiled import COMPILED, REFERENCE, implementation
from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue import layout
from epsagon_fast.queue.layout import *  # noqa: F403

__all__ = ["IMPLEMENTATION", "Consumer", "Mapping", "Producer", "create", "own_pid", "pack"]

# What posix_fallocate answers where a filesystem or a C library has none.
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


IMPLEMENTATION: Final = implementation("ring")

if TYPE_CHECKING or IMPLEMENTATION == COMPILED:
    from epsagon_fast.queue._ring import Consumer, Mapping, Producer, own_pid, pack
else:
    from os import getpid as own_pid

    from epsagon_fast.queue._pure import PureConsumer as Consumer
    from epsagon_fast.queue._pure import PureMapping as Mapping
    from epsagon_fast.queue._pure import PureProducer as Producer
    from epsagon_fast.queue._pure import pure_pack as pack


def create(
    dir_fd: int,
    name: str,
    capacity_bytes: int,
    *,
    pid: int,
    start_time: int,
    checksummed: bool = IMPLEMENTATION == REFERENCE,
) -> int:
    """Create an empty ring in a folder and return a descriptor of its file, which the caller closes.

    All its blocks are reserved: a full filesystem shows here as OSError, not later as SIGBUS. `checksummed` says that
    the pure-Python Producer will fill it. On any failure the file is removed again.
    """
    layout.check_capacity(capacity_bytes)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    try:
        _reserve(fd, layout.HEADER_BYTES + capacity_bytes)
        fields = (layout.LAYOUT_VERSION, capacity_bytes, pid, start_time, int(checksummed), time.time_ns())
        os.pwrite(fd, struct.pack("=6Q", *fields), layout.VERSION)
        # Last: a reader that meets the file before this knows that it is unfinished.
        os.pwrite(fd, struct.pack("=Q", layout.MAGIC_VALUE), layout.MAGIC)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            os.unlink(name, dir_fd=dir_fd)
        raise
    return fd


def _reserve(fd: int, size_bytes: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except (AttributeError, OSError) as error:
        let_pass(error)
        # macOS has no such function. All else (no space, over quota) is the caller's to know.
        if isinstance(error, OSError) and error.errno not in _NOT_SUPPORTED:
            raise
        _write_zeros(fd, size_bytes)


def _write_zeros(fd: int, size_bytes: int) -> None:
    zeros = bytes(65536)
    written = 0
    while written < size_bytes:
        written += os.pwrite(fd, zeros[: size_bytes - written], written)
