"""The journal's files: written at the end of the youngest, deleted from the oldest on.

A segment is a file `journal-<16 digits>`, see frames.py. No path is used: the folder may be moved or deleted under us.

A file of which nothing is needed any more is used again for the next segment. Its pages are there already, and the
folder stays as it is: after each change of it the collector looks for new rings. So a segment's number may be higher
than that in its file's name, and tells which one is older.
"""

import errno
import os
import re
from collections.abc import Container, Iterable, Iterator, Set
from contextlib import suppress
from io import BufferedReader

import epsagon_fast.private as private
from epsagon_fast.collector.bounds import LARGEST_JOURNAL_BYTES
from epsagon_fast.collector.journal.frames import (
    HEAD_BYTES,
    MAGIC,
    RETIRED,
    Encoded,
    encode_head,
    numbered,
    parse_head,
)
from epsagon_fast.collector.journal.written import Written
from epsagon_fast.patterns import pattern
from epsagon_fast.queue.names import CORRUPT, JOURNAL_NAME, journal_name

SEGMENT_BYTES = 4 * 1024 * 1024
# Files kept for the next segments. Answers come in bursts, so several segments may be needed no more at a time.
SPARES = 3

_ASIDE = pattern(rf"{JOURNAL_NAME.pattern}{re.escape(CORRUPT)}")
_IOV_MAX = os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 1024
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Segment:
    """One file, or the last part of its life. `file_number`: the one in its name."""

    def __init__(self, number: int, file_number: int) -> None:
        self.number = number
        self.file_number = file_number
        self.size_bytes = 0
        # How long the file was when this segment began in it.
        self.old_bytes = 0
        # Whether this process began it.
        self.is_own = False
        # Traces that have records here and are not settled.
        self.pinned: set[bytes] = set()

    @property
    def name(self) -> str:
        """The file's name."""
        return journal_name(self.file_number)

    def written(self, frames: Iterable[Encoded]) -> list[bytes | memoryview]:
        """Return frames as they are written behind what is here."""
        number = self.number if self.old_bytes else 0
        buffers = [piece for frame in frames for piece in numbered(frame, number)]
        if self.size_bytes:
            return buffers
        return [encode_head(number, self.old_bytes) if number else MAGIC, *buffers]

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
    write does; it may change. `written` knows what a successor must find. Nothing is created before the first write. A
    segment that was found is never written to.
    """

    def __init__(self, dir_fd: int, segment_bytes: int, written: Written) -> None:
        self.segment_bytes = segment_bytes
        self.written = written
        self._dir_fd = dir_fd
        self._all: list[Segment] = []
        # The descriptor of the last one while it is written.
        self._fd: int | None = None
        # The files in which the next ones begin, and what was in them last; none: a new file is made.
        self._spares: list[tuple[int, Segment]] = []
        self._number = 0
        # What it was at the last `tidy`.
        self._tidied_number = 0
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
        return sum([segment.size_bytes for segment in self._all])

    def find(self) -> list[Segment]:
        """Return the segments that the folder has, without their sizes; `take_in` is for those that can be read."""
        names = os.listdir(self._dir_fd)
        found = [self._found(number) for number in sorted(_numbers(JOURNAL_NAME, names))]
        # No number is used twice while a file bears it, so no file that is set aside replaces another.
        self._number = max([*(each.number for each in found), *_numbers(_ASIDE, names)], default=0)
        return sorted(found, key=lambda segment: segment.number)

    def take_in(self, segment: Segment) -> None:
        """Count a segment that was found, which is younger than all before it, among ours."""
        self._all.append(segment)

    def read(self, segment: Segment) -> bytes:
        """Return what a segment's file holds. Raises OSError."""
        with self._open(segment) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            # A larger file is not ours. It may be a sparse one, which would fill the memory.
            if size_bytes > LARGEST_JOURNAL_BYTES:
                raise OSError(errno.EFBIG, f"a segment of {size_bytes} bytes")
            return file.read(LARGEST_JOURNAL_BYTES)

    def set_aside(self, segment: Segment) -> None:
        """Give a file that cannot be read its other name."""
        self.written.forget(segment.file_number)
        with suppress(OSError):
            os.rename(segment.name, segment.name_aside, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)

    def copy_aside(self, segment: Segment, data: bytes) -> None:
        """Write a part of a segment to a file of its own. With no space for that it is lost."""
        with suppress(OSError), open(private.open_file(segment.name_aside, _CREATE, dir_fd=self._dir_fd), "wb") as file:
            file.write(data)

    def truncate(self, segment: Segment) -> None:
        """Cut a file down to its segment's size."""
        self.written.cut(segment.file_number, segment.size_bytes)
        # If this fails, the next collector finds the same fault and stops at the same place.
        with suppress(OSError):
            fd = private.open_file(segment.name, os.O_WRONLY, dir_fd=self._dir_fd)
            try:
                os.ftruncate(fd, segment.size_bytes)
            finally:
                os.close(fd)

    def write(self, frames: list[Encoded]) -> Segment:
        """Write at the end of one segment, and return it. Raises OSError; then nothing of it is in the segment."""
        if self._torn:
            self._cut_back()
        fd = self._open_for(sum(len(start) + len(rest) for start, rest in frames))
        segment = self._all[-1]
        try:
            segment.size_bytes += _write_all(fd, segment.written(frames))
        except BaseException:
            self._torn = True
            with suppress(OSError):
                self._cut_back()
            raise
        self.written.set(segment.file_number, segment.size_bytes)
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
            segment = self._all[-1]
            if segment.size_bytes < segment.old_bytes:
                # If this fails, a successor finds something torn, and sets it aside.
                with suppress(OSError):
                    os.ftruncate(self._fd, segment.size_bytes)
            os.close(self._fd)
            self._fd = None

    def miss(self) -> list[str]:
        """Let go of the files that somebody deleted; return the names of those that were no spare ones.

        What is written to such a file, through its descriptor, is gone with it.
        """
        for spare in self._spares[:]:
            fd, last = spare
            if not self._is_there(last):
                self._spares.remove(spare)
                os.close(fd)
        missing = [segment for segment in self._all if not self._is_there(segment)]
        if missing and missing[-1] is self._all[-1]:
            self.stop_writing()
            self._torn = False
        for segment in missing:
            self.written.forget(segment.file_number)
            self._all.remove(segment)
        return [segment.name for segment in missing]

    def tidy(self) -> None:
        """Let go of the spare files, if none was needed since the last call."""
        if self._number == self._tidied_number:
            self.drop_spares()
        self._tidied_number = self._number

    def drop_spares(self) -> None:
        """Delete the spare files."""
        while self._spares:
            fd, last = self._spares.pop()
            os.close(fd)
            with suppress(OSError):
                os.unlink(last.name, dir_fd=self._dir_fd)

    def delete_unpinned(self) -> None:
        """Delete the oldest segments up to the first that a trace needs or that is written."""
        whole = self._all if self._fd is None else self._all[:-1]
        for segment in whole[:]:
            if segment.pinned:
                return
            self.written.forget(segment.file_number)
            try:
                if not self._retire(segment):
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
        segment = Segment(self._number, self._number)
        segment.is_own = True
        if self._spares:
            self._fd, last = self._spares.pop()
            segment.file_number, segment.old_bytes = last.file_number, last.size_bytes
        else:
            self._fd = private.open_file(segment.name, _CREATE, dir_fd=self._dir_fd)
        self._all.append(segment)
        return self._fd

    def _retire(self, segment: Segment) -> bool:
        """Keep a segment's file as a spare one; False: it has to be deleted.

        Its head goes at once. The marks of its traces stand in younger segments, and may go before the file is used.
        """
        # Of another process's file it is not known what was set aside under its name.
        if len(self._spares) >= SPARES or not segment.is_own or segment.size_bytes > self.segment_bytes:
            return False
        with suppress(OSError):
            fd = private.open_file(segment.name, os.O_WRONLY, dir_fd=self._dir_fd)
            try:
                is_kept = os.pwrite(fd, RETIRED, 0) == len(RETIRED)
            except BaseException:
                os.close(fd)
                raise
            if is_kept:
                # It may have been shorter than what stands there now.
                segment.size_bytes = max(segment.size_bytes, len(RETIRED))
                self._spares.append((fd, segment))
                return True
            os.close(fd)
        return False

    def _found(self, file_number: int) -> Segment:
        """Return a segment that a file of the folder holds, with its number."""
        segment = Segment(file_number, file_number)
        with suppress(OSError, ValueError), self._open(segment) as file:
            head = parse_head(file.read(HEAD_BYTES))
            segment.number = head.number if head is not None and head.number else file_number
        return segment

    def _is_there(self, segment: Segment) -> bool:
        return os.access(segment.name, os.F_OK, dir_fd=self._dir_fd)

    def _open(self, segment: Segment) -> BufferedReader:
        return open(private.open_file(segment.name, os.O_RDONLY, dir_fd=self._dir_fd), "rb")

    def _cut_back(self) -> None:
        """Remove a partial write. All of it is written again, so its first frames, if whole, would come twice."""
        assert self._fd is not None
        size_bytes = self._all[-1].size_bytes
        os.ftruncate(self._fd, size_bytes)
        os.lseek(self._fd, size_bytes, os.SEEK_SET)
        self._torn = False


def _numbers(pattern: re.Pattern[str], names: list[str]) -> list[int]:
    return [int(match[1]) for match in map(pattern.fullmatch, names) if match]


def _write_all(fd: int, buffers: list[bytes | memoryview]) -> int:
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
