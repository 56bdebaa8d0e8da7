"""The ids of the last traces that arrived, in a file of the folder. The sender that has the answer writes them at once.

The loop settles an answer in its next pass, up to a fifth of a second later. If it is killed before, the next collector
finds here which of the journal's traces it need not send again. Writing is memory access, so it costs no pass and no
system call. An id that was half written when its writer was killed belongs to no trace.
"""

import logging
import os
from collections.abc import Sequence

import epsagon_fast.private as private
from epsagon_fast.hints import Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.protocol import TRACE_ID_BYTES
from epsagon_fast.queue import ring
from epsagon_fast.queue.names import ARRIVED

log = logging.getLogger("epsagon_fast.collector")

# More than are answered from one pass to the next. What is more is sent again.
MOST_IDS: Final = 4096
SIZE_BYTES: Final = MOST_IDS * TRACE_ID_BYTES


class Arrived:
    """The mapped file. Without room for it nothing is noted. `folder_fd` stays the caller's, and open."""

    def __init__(self, folder_fd: int) -> None:
        self._folder_fd = folder_fd
        self._page: ring.Mapping | None = None
        self._inode = 0
        # Where the next id goes. What an earlier collector noted is needed only until this one has looked.
        self._next = 0
        self._map()

    def look(self) -> None:
        """Map another file if somebody deleted this one or cut it off: a write behind a file's end kills."""
        if self._page is not None and not self._is_whole():
            log.warning("%s was deleted or cut off, and is made again", ARRIVED)
            self._map()

    def note(self, trace_ids: Sequence[bytes]) -> None:
        """Write down traces that arrived. One thread at a time."""
        page = self._page
        if page is None:
            return
        at = self._next
        ids = b"".join(trace_ids[-MOST_IDS:])
        room = SIZE_BYTES - at
        page.write(at, ids[:room])
        if len(ids) > room:
            page.write(0, ids[room:])
        self._next = (at + len(ids)) % SIZE_BYTES

    def last(self) -> set[bytes]:
        """Return the traces that arrived last, and perhaps a few ids of none."""
        if self._page is None:
            return set()
        ids = self._page.copy(0, SIZE_BYTES)
        return {ids[at : at + TRACE_ID_BYTES] for at in range(0, SIZE_BYTES, TRACE_ID_BYTES)}

    def _map(self) -> None:
        try:
            fd = private.open_file(ARRIVED, os.O_RDWR | os.O_CREAT, dir_fd=self._folder_fd)
            try:
                self._inode = os.fstat(fd).st_ino
                _fill(fd)
                self._page = ring.Mapping(fd, SIZE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            let_pass(error)
            self._page = None
            log.warning("traces may come twice after a collector's death: %s", error.strerror)

    def _is_whole(self) -> bool:
        try:
            found = os.stat(ARRIVED, dir_fd=self._folder_fd, follow_symlinks=False)
        except OSError:
            return False
        return found.st_ino == self._inode and found.st_size >= SIZE_BYTES


def _fill(fd: int) -> None:
    """Write the whole file, as it is, because a write into a mapped hole of a full filesystem kills the process."""
    content = os.pread(fd, SIZE_BYTES, 0).ljust(SIZE_BYTES, b"\0")
    written = 0
    while written < SIZE_BYTES:
        written += os.pwrite(fd, content[written:], written)
