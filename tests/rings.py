"""Both implementations of the ring, and rings to try them on."""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from waiting import until

from epsagon_fast.protocol import NO_TRACE
from epsagon_fast.queue import _pure, _ring, layout, ring

TRACE = bytes(range(16))


class Twin(NamedTuple):
    """One implementation."""

    name: str
    mapping: Any
    producer: Any
    consumer: Any
    checksummed: bool

    def ring(self, folder: Path, capacity: int = 1024, start: int = 0) -> int:
        """Return a descriptor of a new ring whose head and tail stand at `start`. Its name is free again."""
        directory = os.open(folder, os.O_RDONLY)
        try:
            fd = ring.create(directory, "a.ring", capacity, pid=1, start_time=2, checksummed=self.checksummed)
            os.unlink("a.ring", dir_fd=directory)
        finally:
            os.close(directory)
        for slot in (layout.HEAD, layout.TAIL):
            os.pwrite(fd, struct.pack("=Q", start), slot)
        return fd

    def ends(self, folder: Path, capacity: int = 1024, start: int = 0) -> tuple[Any, Any]:
        """Return the producer and the consumer of a new ring."""
        fd = self.ring(folder, capacity, start)
        try:
            return self.producer(fd), self.consumer(fd)
        finally:
            os.close(fd)


COMPILED = Twin("compiled", _ring.Mapping, _ring.Producer, _ring.Consumer, False)
REFERENCE = Twin("reference", _pure.PureMapping, _pure.PureProducer, _pure.PureConsumer, True)
TWINS = (COMPILED, REFERENCE)


def payloads(consumer: Any, limit_bytes: int = 1 << 30) -> list[bytes]:
    """Read and commit."""
    records = consumer.read(limit_bytes)
    consumer.commit()
    return [record[4] for record in records]


def fill(producer: Any, kind: int, length: int = 0) -> int:
    """Push records of one kind until one is refused for lack of room; return how many went in."""
    count = 0
    while (code := producer.push(kind, 0, NO_TRACE, bytes(length))) in (ring.PUSHED, ring.LOOK):
        count += 1
    assert code == ring.FULL
    return count


def in_child(work: Callable[[], Any]) -> int:
    """Fork a child that does `work` and exits with what it returns (0 for None, 99 if it raised); return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = int(work() or 0)
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """Return a child's exit code, negative for a signal; a child that is late is killed."""

    def ended() -> tuple[int, int] | None:
        found = os.waitpid(pid, os.WNOHANG)
        return found if found[0] else None

    try:
        _, status = until(ended, f"child {pid} ends", pause_s=0.001)
    except AssertionError:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(status)


@contextmanager
def child(work: Callable[[], Any]) -> Iterator[int]:
    """Run `work` in a forked child, which is killed at the end if it is still there; give its pid."""
    pid = in_child(work)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
