"""The ring: one process's records on their way to the collector, in a file that outlives the process.

It has one producer and one consumer, and each may die at any moment. Promises:

- A record becomes visible when it is whole (`head` is stored after it, with release order), so a killed producer leaves
  only whole records. The consumer copies first and checks the copy. Whatever bytes the file holds, it reads nothing
  outside the file and answers with records or with CorruptRing.
- `push` takes no lock, makes no system call, allocates nothing and runs no Python code: it may be called in a signal
  handler, a destructor or an at-fork hook.
- Room is kept for records that must not be refused: see FREE_SHIFTS and CLOSE_ROOM_BYTES in layout.py. A CLOSE whose
  OPEN was taken and the BYE always fit.
- A ring belongs to the process that made its Producer. In a forked child `push` answers FOREIGN and writes nothing.
- No descriptor is kept. The caller closes the one that it passed in.

The compiled classes and those in pure Python behave alike, except for speed and two things that Python cannot do. It
cannot order its stores, so its records have a CRC-32. Its push can be interrupted, so a push that comes in the middle
of another one leaves its record to that one, which counts it as queue_full if the ring has no room by then.
"""

import errno
import os
import struct
import time
from contextlib import suppress

from epsagon_fast.compiled import COMPILED, REFERENCE, implementation
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue import layout
from epsagon_fast.queue.layout import *  # noqa: F403

__all__ = ["IMPLEMENTATION", "Consumer", "Mapping", "Producer", "batch", "crc32", "create", "ids", "own_pid", "pack"]

# The errors of posix_fallocate where a filesystem or a C library does not support it.
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


IMPLEMENTATION: Final = implementation("ring")

if TYPE_CHECKING or IMPLEMENTATION == COMPILED:
    from epsagon_fast.queue._ring import Consumer, Mapping, Producer, batch, crc32, ids, own_pid, pack
else:
    from os import getpid as own_pid
    from zlib import crc32

    from epsagon_fast.queue._pure import PureConsumer as Consumer
    from epsagon_fast.queue._pure import PureMapping as Mapping
    from epsagon_fast.queue._pure import PureProducer as Producer
    from epsagon_fast.queue._pure import pure_batch as batch
    from epsagon_fast.queue._pure import pure_ids as ids
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

    All its blocks are reserved, so a full filesystem is an OSError here and no SIGBUS later. `checksummed`: the
    pure-Python Producer will fill the ring. On any failure the file is removed again.
    """
    layout.check_capacity(capacity_bytes)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    try:
        _reserve(fd, layout.HEADER_BYTES + capacity_bytes)
        fields = (layout.LAYOUT_VERSION, capacity_bytes, pid, start_time, int(checksummed), time.time_ns())
        os.pwrite(fd, struct.pack("=6Q", *fields), layout.VERSION)
        # The magic is written last: a reader that finds none knows that the file is unfinished.
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
        # macOS has no such function. All other errors (no space, over quota) are for the caller.
        if isinstance(error, OSError) and error.errno not in _NOT_SUPPORTED:
            raise
        _write_zeros(fd, size_bytes)


def _write_zeros(fd: int, size_bytes: int) -> None:
    zeros = bytes(65536)
    written = 0
    while written < size_bytes:
        written += os.pwrite(fd, zeros[: size_bytes - written], written)
