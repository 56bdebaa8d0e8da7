"""One state directory that traces name, and the outbox file in it.

Everything here waits for the disk, so the outbox calls it in its own thread.
"""

import logging
import os
import time
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial

import epsagon_fast.private as private
from epsagon_fast.collector.sending.lookups import lookups
from epsagon_fast.collector.sending.outbox.file import NAME, OutboxFile, failures, is_corrupt, set_aside
from epsagon_fast.collector.sending.outbox.messages import (
    Amounts,
    Delivered,
    Gone,
    Orders,
    Refused,
    Report,
    Stored,
    Taken,
    Unknown,
    Waiting,
)
from epsagon_fast.collector.sending.outbox.older import move, newer, older
from epsagon_fast.foreign import escaped, shown
from epsagon_fast.hints import TypeVar
from epsagon_fast.queue.folder import filesystems

# Pause between two looks at what other collectors did, and before a failed file is tried again.
LOOK_S = 10.0
# A local directory answers within this time; a mount whose server is away may never answer.
LOOK_TIMEOUT_S = 2.0
# The collector's folder is memory. There the outbox takes at most an eighth of what is free, as the journal does.
SPACE_SHARE = 8
NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "fuse.sshfs", "fuse.glusterfs"})

T = TypeVar("T")


class StateDirectory:
    """One state directory, and its file if there is one. Only the outbox's thread uses it."""

    def __init__(
        self,
        state_dir: str,
        folder: str,
        log: logging.Logger,
        limit_bytes: int,
        owner: bytes,
        arrived: Container[bytes] = (),
    ) -> None:
        self._state_dir = state_dir
        self._folder = folder
        self._log = log
        self._limit_bytes = limit_bytes
        self._owner = owner
        self._arrived = arrived
        # Traces of a predecessor that turned out to have arrived, until that is reported.
        self._delivered: list[bytes] = []
        self._directory = ""
        self._file: OutboxFile | None = None
        self._retry_at = self._next_look = 0.0
        self._complained = False
        # Files of other versions of which the log has told why their traces wait.
        self._told: set[str] = set()
        # Removals that a failing file has not heard of. Without them, delivered traces would be sent again.
        self._owed = Orders()

    def serve(self, asked: Orders) -> list[Report]:
        """Carry out orders. Never raises."""
        self._owed.give_back += asked.give_back
        self._owed.remove += asked.remove
        nothing: list[Report] = [Taken(destination, []) for destination in asked.takes]
        if asked.puts:
            nothing.append(Refused([parcel.trace_id for parcel in asked.puts]))
        if time.monotonic() < self._retry_at:
            return nothing
        try:
            file = self._open(create=bool(asked.puts))
            if file is None:
                return [*nothing, Waiting(self._state_dir, self._state_dir or self._folder, {})]
            reports = self._do(file, asked)
        except failures() as error:
            self._fail(error)
            return [*nothing, Unknown(self._state_dir)]
        self._complained = False
        return reports

    def close(self) -> None:
        """End our leases and close the file."""
        if self._file is not None:
            with suppress(*failures()):
                self._file.take_over()
            self._file.close()

    def _do(self, file: OutboxFile, asked: Orders) -> list[Report]:
        now = time.time()
        reports: list[Report] = []
        if self._delivered:
            reports.append(Delivered(self._delivered))
            self._delivered = []
        if self._owed.remove:
            file.remove(self._owed.remove)
            self._owed.remove = []
        if self._owed.give_back:
            file.give_back(self._owed.give_back)
            self._owed.give_back = []
        if time.monotonic() >= self._next_look:
            # Deleted traces go from SQLite's log too.
            file.wipe()
            gone = self._take_in(file, now)
            reports += [Gone(gone)] if gone else []
            self._next_look = time.monotonic() + LOOK_S
        if asked.puts:
            gone = file.put(asked.puts, now)
            reports.append(Stored([parcel.trace_id for parcel in asked.puts]))
            reports += [Gone(gone)] if gone else []
            # They are stored: if something fails from here on, they are not refused.
            asked.puts.clear()
        reports += [
            Taken(destination, file.take(destination, limit, now)) for destination, limit in asked.takes.items()
        ]
        amounts = file.amounts()
        counts = {destination: amount.traces for destination, amount in amounts.items()}
        return [*reports, Waiting(self._state_dir, self._directory, counts), Amounts(self._directory, amounts)]

    def _take_in(self, file: OutboxFile, now: float) -> list[bytes]:
        """Move what older versions left in the directory. Return the ids of the traces that were dropped for it."""
        gone: list[bytes] = []
        for path in older(self._directory):
            try:
                moved, dropped = move(path, file, now)
                gone += dropped
                if moved:
                    self._log.info("%d traces of an older version were taken over from %s", moved, escaped(path))
            # The last two: SQLite is content with a value of a type or form that its column never had.
            except failures(TypeError, ValueError) as error:
                self._tell(path, f"cannot be taken over ({shown(error)})")
        for path in newer(self._directory):
            self._tell(path, "wait for the newer version that stored them")
        return gone

    def _tell(self, path: str, why: str) -> None:
        if path not in self._told:
            self._told.add(path)
            self._log.warning("traces in %s %s", escaped(path), why)

    def _open(self, create: bool) -> OutboxFile | None:
        if self._file is not None and not self._file.still_there:
            self._file.close()
            self._file = None
        if self._file is None:
            if not create and not _in_time(_has_file, self._state_dir or self._folder):
                return None
            self._directory = self._find_directory()
            self._file = OutboxFile(self._directory, self._owner, self._state_dir, self._limit(self._directory))
            self._delivered += self._file.take_over(self._arrived)
        return self._file

    def _find_directory(self) -> str:
        try:
            _in_time(own_state_directory, self._state_dir)
            return self._state_dir
        except OSError as error:
            if not self._directory:
                message = "no state directory (%s): undelivered traces wait in %s, which does not survive a reboot"
                self._log.warning(message, escaped(error.strerror or str(error)), escaped(self._folder))
            return self._folder

    def _limit(self, directory: str) -> int:
        if directory != self._folder:
            return self._limit_bytes
        free = os.statvfs(directory)
        return min(self._limit_bytes, free.f_bavail * free.f_frsize // SPACE_SHARE)

    def _fail(self, error: Exception) -> None:
        path = os.path.join(self._directory or self._state_dir, NAME)
        # Another collector may have found the same damage and replaced the file.
        replaced = self._file is not None and not self._file.still_there
        if self._file is not None:
            self._file.close()
            self._file = None
        if is_corrupt(error) and not replaced:
            try:
                aside = escaped(set_aside(path))
                self._log.error("the outbox is corrupt (%s); set aside as %s", shown(error), aside)
                return
            except OSError as failure:
                error = failure
        self._retry_at = time.monotonic() + LOOK_S
        if not self._complained:
            self._complained = True
            message = "outbox_unavailable: %s: %s; traces wait in memory and in the journal"
            self._log.error(message, escaped(path), shown(error))


def _has_file(directory: str) -> bool:
    """Say whether traces may wait in a directory."""
    return os.path.exists(os.path.join(directory, NAME)) or bool(older(directory))


def _in_time(look: Callable[[str], T], path: str) -> T:
    """Return look(path). Raises OSError if that takes long, because a dead mount must not hold up all the others."""
    return lookups.ask((look.__name__, path), partial(look, path), LOOK_TIMEOUT_S)


def own_state_directory(path: str) -> None:
    """Make a directory with mode 0700, or check that it is ours, local, and safe from writing and renaming by others.

    Raises OSError if the check fails.
    """
    if not path:
        raise FileNotFoundError(2, "none is configured and there is no home directory")
    # SQLite opens its files by their path, so every directory on the way is judged.
    private.judge_way(path)
    # Others may list the directory. The files in it are closed to them.
    os.close(private.make_directory(path, closed_to=private.WRITERS))
    network = NETWORK.intersection(filesystems(path))
    if network:
        raise OSError(95, f"it is on a network file system ({', '.join(network)})", path)
