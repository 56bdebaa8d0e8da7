"""The bell: a FIFO in the folder with which a process wakes a collector that sleeps.

Pushing a record rings nothing. A process rings when it should not be kept waiting until the collector looks by itself:
its ring fills, it waits for an outcome, it ends, or it traces again after a rest. Before it rings it looks at the state
page, which says when the collector's next pass is.

Ringing never waits and never fails. It does nothing if no collector listens, if the FIFO is full (then it was rung
already), missing or not ours alone. No descriptor is kept, so a fork has nothing to close.
"""

import os
from contextlib import suppress

import epsagon_fast.private as private
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.queue.names import BELL

# Look once, since there is something to see. Any byte but WAITS says so, also those of signal.set_wakeup_fd.
LOOK: Final = b"l"
# Look often for a moment, since a process waits for what comes of it.
WAITS: Final = b"w"
_MOST_BYTES = 4096


class Bell:
    """The collector's end."""

    def __init__(self, folder_fd: int) -> None:
        """Make the folder's bell. Where that cannot be done, only this process can ring."""
        self.is_public = True
        self._folder_fd = folder_fd
        try:
            self.fd = self._ringing_fd = private.make_fifo(BELL, dir_fd=folder_fd)
        except (OSError, AttributeError) as error:  # a filesystem, or a system, without FIFOs
            let_pass(error)
            self._do_without(str(error))
            self.fd, self._ringing_fd = os.pipe()
            for fd in (self.fd, self._ringing_fd):
                os.set_blocking(fd, False)

    @property
    def ringing_fd(self) -> int:
        """The descriptor that this process rings, with any byte, for signal.set_wakeup_fd."""
        return self._ringing_fd

    def heard(self) -> bytes:
        """Return what was rung since the last call, b"" if nothing was."""
        with suppress(BlockingIOError):
            return os.read(self.fd, _MOST_BYTES)
        return b""

    def look(self) -> None:
        """See whether processes still find the bell. One that was removed or exchanged is not rung any more."""
        if self.is_public and not self._is_there():
            self._do_without("the bell was removed")

    def _is_there(self) -> bool:
        try:
            found = os.stat(BELL, dir_fd=self._folder_fd, follow_symlinks=False)
        except OSError as error:
            let_pass(error)
            return False
        return os.path.samestat(found, os.fstat(self.fd))

    def _do_without(self, cause: str) -> None:
        import logging  # not needed in a process that only rings

        log = logging.getLogger("epsagon_fast.queue")
        log.warning("no process can ring (%s): looking more often instead", cause)
        self.is_public = False

    def close(self) -> None:
        """Stop listening."""
        for fd in {self.fd, self._ringing_fd}:
            os.close(fd)


def ring_in(folder: str, word: bytes) -> bool:
    """Wake the folder's collector, if it has one that sleeps. `word`: LOOK or WAITS. Return whether that was done."""
    try:
        return ring(os.fsencode(f"{folder}/{BELL}"), word)
    except ValueError:  # a path with a NUL
        return False


def ring(path: bytes, word: bytes) -> bool:
    """Write a byte into the FIFO `path` if it is one of ours, in pure Python. Return whether that was done.

    The compiled function does the same in one call, so no fork of another thread can inherit the descriptor.
    """
    fd = -1
    try:
        # For both directions, because a writer alone would get SIGPIPE if the last reader ended meanwhile.
        fd = private.open_fifo(path)
        return os.write(fd, word[:1]) == 1
    except OSError as error:
        let_pass(error)
        return False
    finally:
        if fd >= 0:
            os.close(fd)


if implementation("start") == COMPILED:
    from epsagon_fast.queue._spawn import ring
