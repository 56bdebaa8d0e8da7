"""The collector's log: stderr, which is a file in the folder, and is cut when it grows over a bound."""

import fcntl
import logging
import os
import stat
import sys

from epsagon_fast.foreign import escaped
from epsagon_fast.hints import Any
from epsagon_fast.pages import see

LIMIT_BYTES = 1024 * 1024
# The last bytes of the log, which stay when it is cut.
KEPT_BYTES = LIMIT_BYTES // 4


class _Plain(logging.Formatter):
    """Escapes control characters, so that no foreign text in a name or traceback begins a line or moves a cursor.

    A warning ends with the page that has a line for each of them.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        page = see("the collector's log") if record.levelno >= logging.WARNING else ""
        record.message = escaped(record.message) + page
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        # Indented, so that no line of an exception's text looks like a line of the log.
        return "\n".join("    " + escaped(line) for line in super().formatException(ei).split("\n"))


class BoundedLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr, and cuts the file behind it when it is too long, if it is opened for appending."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES, kept_bytes: int = KEPT_BYTES) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._limit_bytes = limit_bytes
        self._kept_bytes = kept_bytes

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        super().emit(record)
        try:
            fd = self.stream.fileno()
            found = os.fstat(fd)
            if found.st_size > self._limit_bytes and stat.S_ISREG(found.st_mode) and _appends(fd):
                self._cut(fd, found.st_size)
        except (OSError, ValueError):
            # The line is written. A log that cannot be cut must not stop anything.
            return

    def _cut(self, fd: int, size: int) -> None:
        last = _end_of(fd, size, self._kept_bytes)
        os.ftruncate(fd, 0)
        # The file is empty now, so this goes to its start; other writers append behind it.
        os.write(fd, b"(earlier lines were cut)\n" + last)


def _appends(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)


def _end_of(fd: int, size: int, kept_bytes: int) -> bytes:
    # Through /proc, because our descriptor is for writing only.
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            file.seek(size - kept_bytes)
            return file.read().partition(b"\n")[2]
    except OSError:
        return b""
