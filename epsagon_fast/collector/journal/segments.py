"""The journal's files: written at the end of the youngest, deleted from the oldest on.

A segment is a file `journal-<16 digits>`, see frames.py. No path is used: the folder may be moved or deleted under us.
"""

import errno
import os
import re
from collections.abc import Container, Iterable, Iterator, Set
from contextlib import suppress

import epsagon_fast.private as private
from epsagon_fast.collector.bounds import LARGEST_JOURNAL_BYTES
from epsagon_fast.collector.journal.frames import MAGIC
from epsagon_fast.patterns import pattern
from epsagon_fast.queue.names import CORRUPT, JOURNAL_NAME, journal_name

SEGMENT_BYTES = 4 * 1024 * 1024

_ASIDE = pattern(rf"{JOURNAL_NAME.pattern}{re.escape(CORRUPT)}")
_IOV_MAX = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 1024
# O_APPEND: after a partial write was cut off, the next one goes to the new end.
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND


class Segment:
    """One file."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.size_bytes = 0
        # Traces that have records here and are not settled.
        self.pinned: set[bytes] = set()

    @property
    def name(self) -> str:
        """The file's name."""
        return journal_name(self.number)

    def needed_by(self, alive: Container[bytes]) -> bool:
        """Say whether a trace in `alive` has records here. Those that are looked at before and are not in it let go."""
        while self.pinned:
            trace_id = self.pinned.pop()
            if trace_id in alive:
                # One is enough: with very many open traces a look at all of them, each second, took a third of a core.
                self.pinned.add(trace_id)
                return True
        return False

    @property
    def name_aside(self) -> str:
        """The name of a file that has what is wrong with this one."""
        return self.name + CORRUPT


class Segments:
    """The segments in one folder, oldest first.

    `dir_fd` is the folder, and stays the caller's. `segment_bytes` is the size that a segment exceeds only if a single
    write does; it may change. Nothing is created before the first write. A segment that was found is never written to.
    """

    def __init__(self, dir_fd: int, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self._dir_fd = dir_fd
        self._all: list[Segment] = []
        # The descriptor of the last one while it is written.
        self._fd: int | None = None
        self._number = 0
        # True after a failed write whose bytes could not be cut off.
        self._torn = False

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Segment:
        return self._all[index]

    @property
    def size_bytes(self) -> int:
        """Bytes in all of them."""
        return sum(segment.size_bytes for segment in self._all)

    def find(self) -> list[Segment]:
        """Return the segments that the folder has, without their sizes; `take_in` is for those that can be read."""
        names = os.listdir(self._dir_fd)
        found = sorted(_numbers(JOURNAL_NAME, names))
        # No number is used twice while a file bears it, so no file that is set aside replaces another.
        self._number = max([*found, *_numbers(_ASIDE, names)], default=0)
        return [Segment(number) for number in found]

    def take_in(self, segment: Segment) -> None:
        """Count a segment that was found, which is younger than all before it, among ours."""
        self._all.append(segment)

    def read(self, segment: Segment) -> bytes:
        """Return what a segment's file holds. Raises OSError."""
        with open(private.open_file(segment.name, os.O_RDONLY, dir_fd=self._dir_fd), "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            # A larger file is not ours. It may be a sparse one, which would fill the memory.
            if size_bytes > LARGEST_JOURNAL_BYTES:
                raise OSError(errno.EFBIG, f"a segment of {size_bytes} bytes")
            return file.read(LARGEST_JOURNAL_BYTES)

    def set_aside(self, segment: Segment) -> None:
        """Give a file that cannot be read its other name."""
        with suppress(OSError):
            os.rename(segment.name, segment.name_aside, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)

    def copy_aside(self, segment: Segment, data: bytes) -> None:
        """Write a part of a segment to a file of its own. With no space for that it is lost."""
        with suppress(OSError), open(private.open_file(segment.name_aside, _CREATE, dir_fd=self._dir_fd), "wb") as file:
            file.write(data)

    def truncate(self, segment: Segment) -> None:
        """Cut a file down to its segment's size."""
        # If this fails, the next collector finds the same fault and stops at the same place.
        with suppress(OSError):
            fd = private.open_file(segment.name, os.O_WRONLY, dir_fd=self._dir_fd)
            try:
                os.ftruncate(fd, segment.size_bytes)
            finally:
                os.close(fd)

    def write(self, buffers: list[bytes]) -> Segment:
        """Write at the end of one segment, and return it. Raises OSError; then nothing of it is in the segment."""
        if self._torn:
            self._cut_back()
        fd = self._open_for(sum(map(len, buffers)))
        segment = self._all[-1]
        try:
            segment.size_bytes += _write_all(fd, buffers if segment.size_bytes else [MAGIC, *buffers])
        except BaseException:
            self._torn = True
            with suppress(OSError):
                self._cut_back()
            raise
        if segment.size_bytes > self.segment_bytes:
            # A segment that is written cannot be deleted, so it must not grow.
            self.stop_writing()
        return segment

    def unpin(self, trace_ids: Set[bytes]) -> None:
        """Let go of all records of these traces."""
        for segment in self._all:
            segment.pinned -= trace_ids

    def let_go(self, trace_ids: Iterable[bytes]) -> set[bytes]:
        """Let go of all records of traces; return those of which there were any."""
        found = set[bytes]()
        for segment in self._all:
            pinned = segment.pinned.intersection(trace_ids)
            segment.pinned -= pinned
            found |= pinned
        return found

    def stop_writing(self) -> None:
        """Let go of the file. The next write begins another one."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def delete_unpinned(self) -> None:
        """Delete the oldest segments up to the first that a trace needs or that is written."""
        whole = self._all if self._fd is None else self._all[:-1]
        for segment in whole[:]:
            if segment.pinned:
                return
            try:
                os.unlink(segment.name, dir_fd=self._dir_fd)
            except FileNotFoundError:
                pass
            except OSError:
                # No younger one may go before it.
                return
            self._all.remove(segment)

    def _open_for(self, size_bytes: int) -> int:
        """Return the descriptor of the segment that the next bytes belong to."""
        if self._fd is not None:
            filled = self._all[-1].size_bytes
            if not filled or filled + size_bytes <= self.segment_bytes:
                return self._fd
            self.stop_writing()
        # Counted before the file is made, so that the next try passes by a name that is taken.
        self._number += 1
        segment = Segment(self._number)
        self._fd = private.open_file(segment.name, _CREATE, dir_fd=self._dir_fd)
        self._all.append(segment)
        return self._fd

    def _cut_back(self) -> None:
        """Remove a partial write. All of it is written again, so its first frames, if whole, would come twice."""
        assert self._fd is not None
        os.ftruncate(self._fd, self._all[-1].size_bytes)
        self._torn = False


def _numbers(pattern: re.Pattern[str], names: list[str]) -> list[int]:
    return [int(match[1]) for match in map(pattern.fullmatch, names) if match]


def _write_all(fd: int, buffers: list[bytes]) -> int:
    """Write all buffers; return the sum of their lengths."""
    total = 0
    for at in range(0, len(buffers), _IOV_MAX):
        part = buffers[at : at + _IOV_MAX]
        length = sum(map(len, part))
        written = os.writev(fd, part)
        if written < length:
            rest = memoryview(b"".join(part))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]
        total += length
    return total
