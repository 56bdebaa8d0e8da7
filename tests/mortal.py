"""A collector that may die at any system call of its journal, for models of what a successor finds."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from epsagon_fast.collector.journal import segments as segments_module
from epsagon_fast.collector.journal.frames import RETIRED
from epsagon_fast.collector.journal.segments import Segments

# What befalls a collector and then its successors: how many calls it still makes, how much of a write in hand is done.
# Often the one that comes next dies too, or before it has done anything.
CRASHES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3) | st.integers(0, 800)), max_size=3)


def segment_paths(folder: Path) -> list[Path]:
    """Return a journal's files, by name, without those that are kept for the next segments."""
    paths = sorted(folder.glob("journal-" + "[0-9]" * 16))
    return [path for path in paths if not (path.is_file() and path.read_bytes().startswith(RETIRED[:8]))]


class Crash(BaseException):
    """The collector is dead; nothing in it may catch this."""


class Kernel:
    """Stands in for `os`: the process may die at any call, in the middle of a write too, and the disk may be full."""

    def __init__(self) -> None:
        self.calls_left: int | None = None
        self.torn_bytes = 0
        self.space_bytes: int | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(os, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return value(*args, **kwargs)

        return call

    def step(self) -> None:
        if self.calls_left is not None:
            if self.calls_left == 0:
                raise Crash
            self.calls_left -= 1

    def writev(self, fd: int, buffers: Sequence[bytes]) -> int:
        data = b"".join(buffers)
        if self.calls_left == 0:
            os.write(fd, data[: self.torn_bytes])
            self.torn_bytes = 0
        self.step()
        if self.space_bytes is not None and self.space_bytes < len(data):
            os.write(fd, data[: self.space_bytes])
            raise OSError(errno.ENOSPC, "no space")
        return os.writev(fd, buffers)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if self.calls_left == 0:
            os.pwrite(fd, data[: self.torn_bytes], offset)
            self.torn_bytes = 0
        self.step()
        return os.pwrite(fd, data, offset)

    def close(self, fd: int) -> None:
        # Also if it is dead: a dead process's files are closed for it.
        os.close(fd)


def bury(segments: Segments) -> None:
    """Close a dead collector's files."""
    if segments._fd is not None:
        os.close(segments._fd)
        segments._fd = None
    while segments._spares:
        os.close(segments._spares.pop()[0])


@contextmanager
def instead_of_os(kernel: Kernel) -> Iterator[None]:
    """Let the journal call this kernel."""
    segments_module.os = kernel  # type: ignore[assignment]
    try:
        yield
    finally:
        segments_module.os = os
