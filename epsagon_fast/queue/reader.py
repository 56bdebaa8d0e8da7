"""The collector's end of the queue: the rings of a folder, found through the folder's descriptor, never by path.

A `Reader` is one ring with its producer's process; `Rings` are all of them. Reading has two steps, so that no record is
lost between them: `read` copies records out, and `release` gives their room back once they are in the journal.
"""

import logging
import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import epsagon_fast.private as private
from epsagon_fast.protocol import REFUSALS, Outcome, Record
from epsagon_fast.queue import layout, ring, settlements
from epsagon_fast.queue.bell import Bell
from epsagon_fast.queue.liveness import LARGEST_PID, has_ended, lives, maps, own_start_time
from epsagon_fast.queue.names import CORRUPT, RING_NAME, RING_SUFFIX

log = logging.getLogger("epsagon_fast.queue")

# A file without a ring's header is set aside after this time: its maker died, or it is no ring.
UNFINISHED_S = 60.0
# The folder is listed at least this often, whatever its time says.
LISTING_S = 1.0
# More than any file system's clock lags behind.
COARSE_S = 2.0
REFUSED_BYTES = 8 * len(REFUSALS)
WORD = 2**64 - 1


class Reader:
    """One ring, and the process that fills it."""

    def __init__(self, dir_fd: int, name: str) -> None:
        """Map the ring. Raises OSError or CorruptRing if it cannot be read."""
        self.name = name
        self.ring_id = bytes.fromhex(name.removesuffix(RING_SUFFIX))
        fd = private.open_file(name, os.O_RDWR, dir_fd=dir_fd)
        try:
            self._ring = ring.Consumer(fd)
            self.pid = self._ring.load(layout.PID)
            if not 0 < self.pid <= LARGEST_PID:
                raise layout.CorruptRing(f"no process has the pid {self.pid}")
            self.start_time = self._ring.load(layout.START_TIME)
            self.pidfd, self._is_gone = self._find_process(fd)
        finally:
            os.close(fd)
        self.created_ns = self._ring.load(layout.CREATED_NS)
        # How many closed traces of this ring are not settled yet.
        self.unsettled = 0
        # What `get` has read and not returned: an END is two records.
        self._got: list[Record] = []
        # Whether its process has made a newer ring and will not write to this one again.
        self.superseded = False

    @property
    def head(self) -> int:
        """The position up to which the producer has written."""
        return self._ring.head

    @property
    def position(self) -> int:
        """The position up to which this object has read."""
        return self._ring.position

    @property
    def tail(self) -> int:
        """The position up to which the producer has been given the room back."""
        return self._ring.load(layout.TAIL)

    @property
    def left(self) -> bool:
        """Whether the producer has pushed its BYE: no record follows."""
        return self._ring.load(layout.LEFT) != 0

    @property
    def stuck(self) -> bool:
        """Whether the next record of a checksummed ring does not fit its checksum: being written, or corrupt."""
        return self._ring.stuck

    def read(self, limit_bytes: int, until: int) -> Sequence[Record]:
        """Return the next records, about `limit_bytes` of them, none beyond `until`.

        Raises CorruptRing if the first of them is not a record.
        """
        return self._ring.read(limit_bytes, until)

    def release(self) -> None:
        """Give the room of all records that were read back to the producer."""
        self._ring.commit()
        self.publish_settled()

    def back(self) -> None:
        """Go back to the last release: records since then are read again."""
        self._ring.seek(self.tail, self._ring.load(layout.CLOSES_READ))

    def start_at(self, position: int, closes_read: int) -> None:
        """Skip the records that an earlier collector has read; does nothing if the ring's tail is already there."""
        if position > self._ring.position:
            self._ring.seek(position, max(self._ring.closes_read, closes_read))
            self._ring.commit()

    def adopt(self, incarnation: int) -> None:
        """Tell the producer that a living collector has the ring mapped."""
        self._ring.store(layout.READER_PID, os.getpid())
        self._ring.store(layout.READER_START_TIME, own_start_time())
        self._ring.store(layout.ADOPTED, incarnation)

    def settle(self, trace_ids: Sequence[bytes], outcome: Outcome) -> None:
        """Tell the producer what became of traces that it closed."""
        self.unsettled -= len(trace_ids)
        self.tell(trace_ids, outcome)
        self.publish_settled()

    def tell(self, trace_ids: Iterable[bytes], outcome: Outcome) -> None:
        """Tell the producer more of traces that are settled already: stored ones were delivered."""
        settlements.publish(self._ring, trace_ids, outcome)

    def publish_settled(self) -> None:
        """Tell the producer how many of its closed traces are settled."""
        self._ring.store(layout.SETTLED, self._ring.closes_read - self.unsettled & WORD)

    def publish_held(self, held_bytes: int) -> None:
        """Show in the ring's header how many bytes of its process's traces the collector has in memory."""
        self._ring.store(layout.HELD, held_bytes)

    def refusals(self) -> tuple[int, ...]:
        """Return the counts of refused records, in the order of REFUSALS; 0 for a count that is nonsense."""
        counts = (self._ring.load(layout.REFUSED + 8 * i) for i in range(layout.REFUSED_SLOTS))
        return tuple(count if count <= layout.LARGEST_COUNT else 0 for count in counts)

    def take_refusals(self) -> dict[str, int]:
        """Return how many records were refused since the last call, by this collector or an earlier one.

        Reasons without a refusal are left out. This is for what is told to the backend.
        """
        return self._news(layout.TOLD)

    def uncounted_refusals(self) -> dict[str, int]:
        """Return the same for what is counted."""
        return self._news(layout.COUNTED)

    def uncounted_left_out(self) -> int:
        """Return how many traces the head has left out since the last call, by this collector or an earlier one."""
        count, known = self._ring.load(layout.LEFT_OUT), self._ring.load(layout.LEFT_OUT_COUNTED)
        if not known < count <= layout.LARGEST_COUNT:
            return 0
        self._ring.store(layout.LEFT_OUT_COUNTED, count)
        return count - known

    def _news(self, known: int) -> dict[str, int]:
        """Return the refusals that these slots do not have yet, and write them there."""
        # Every trace asks, and nearly always there are none. Comparing slot by slot took a tenth of a trace's time.
        if self._ring.copy(layout.REFUSED, REFUSED_BYTES) == self._ring.copy(known, REFUSED_BYTES):
            return {}
        news = {}
        for number, (reason, count) in enumerate(zip(REFUSALS, self.refusals(), strict=False)):
            slot = known + 8 * number
            if count > self._ring.load(slot):
                news[reason] = count - self._ring.load(slot)
                self._ring.store(slot, count)
        return news

    @property
    def unread_closes(self) -> int:
        """How many CLOSE records are in the ring behind `position`."""
        return self._ring.load(layout.CLOSED_COUNT) - self._ring.closes_read

    def ended(self) -> bool:
        """Say whether the process has ended. `Rings.ended` asks this only where there is no pidfd."""
        return self._is_gone or not lives(self.pid, self.start_time)

    def close(self) -> None:
        """Unmap the ring and let go of the process."""
        self._ring.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def _find_process(self, fd: int) -> tuple[int | None, bool]:
        """Return a pidfd of the process, if one can be had, and whether the process is gone already."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            return None, has_ended(self.pid, self.start_time, fd)
        # Asked after the pidfd was opened: from then on no other process can take the pid unnoticed.
        if has_ended(self.pid, self.start_time, fd):
            os.close(pidfd)
            return None, True
        return pidfd, False

    # The interface of multiprocessing.Queue, for tools and tests. The collector itself uses read and release.

    def get(self, timeout_s: float = 0.0) -> Record:
        """Return the next record and release it. Raises queue.Empty if none comes within `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._got = self._got or [*self.read(1, self.head)]
            if self._got:
                record = self._got.pop(0)
                if not self._got:
                    self.release()
                return record
            if time.monotonic() >= deadline:
                import queue  # a collector starts sooner without it

                raise queue.Empty
            time.sleep(0.001)


class Rings:
    """All rings of a folder, kept up to date by `scan`."""

    def __init__(self, dir_fd: int, incarnation: int) -> None:
        self._dir_fd = dir_fd
        self._incarnation = incarnation
        self._by_name: dict[str, Reader] = {}
        self._unreadable: dict[str, float] = {}
        self._poll = select.poll()
        # What `wait` saw last, until `ended` has used it.
        self._events: set[int] | None = None
        self._bell: Bell | None = None
        # The folder's time at the last listing, and when that was; 0: it may have missed a ring.
        self._listed_mtime_ns = 0
        self._listed_at = 0.0
        self.set_aside = 0

    def __iter__(self) -> Iterator[Reader]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def by_id(self, ring_id: bytes) -> Reader | None:
        """Return the ring with this id, None if it is gone."""
        return self._by_name.get(ring_id.hex() + RING_SUFFIX)

    def scan(self, now: float) -> list[Reader]:
        """Map the rings that are new in the folder and return them, oldest first."""
        if not self._may_be_new(now):
            return []
        names = [n for n in os.listdir(self._dir_fd) if RING_NAME.fullmatch(n) and n not in self._by_name]
        new = [reader for reader in (self._open(name, now) for name in names) if reader is not None]
        if len(new) < len(names):
            self._listed_mtime_ns = 0
        new.sort(key=lambda reader: reader.created_ns)
        if new:
            self._supersede(new)
        for reader in new:
            self._by_name[reader.name] = reader
            reader.adopt(self._incarnation)
            if reader.pidfd is not None:
                self._poll.register(reader.pidfd, select.POLLIN)
        return new

    def _may_be_new(self, now: float) -> bool:
        """Say whether a ring may have come since the last listing, which costs several times as much as this look."""
        mtime_ns = os.fstat(self._dir_fd).st_mtime_ns
        if mtime_ns == self._listed_mtime_ns and 0 <= now - self._listed_at < LISTING_S:
            return False
        # The file system's clock is coarse: what comes right after a listing may leave the folder's time as it was.
        self._listed_mtime_ns = mtime_ns if now - mtime_ns / 1e9 > COARSE_S else 0
        self._listed_at = now
        return True

    def listen(self, bell: Bell) -> None:
        """Have `wait` end when the bell rings."""
        self._bell = bell
        self._poll.register(bell.fd, select.POLLIN)

    def wait(self, timeout_s: float) -> bytes:
        """Sleep until `timeout_s` has passed, a process with a ring dies or the bell rings. Return what was rung."""
        self._events = {fd for fd, _ in self._poll.poll(timeout_s * 1000)}
        return self._bell.heard() if self._bell is not None and self._bell.fd in self._events else b""

    def ended(self) -> list[Reader]:
        """Return the rings whose processes have ended or have begun a newer ring (exec, a reloader)."""
        events, self._events = self._events, None
        if events is None:
            events = {fd for fd, _ in self._poll.poll(0)}
        return [
            reader
            for reader in self
            if reader.superseded or (reader.pidfd in events if reader.pidfd is not None else reader.ended())
        ]

    def _supersede(self, new: list[Reader]) -> None:
        """Note which older rings the processes of new ones, oldest first, will not write to again.

        A process may fill several rings at a time: it has sub-interpreters, or has imported the package twice.
        """
        # Grouped once, not for each new ring: when a server is reloaded, hundreds come at once.
        older_of: dict[tuple[int, int], list[Reader]] = {(reader.pid, reader.start_time): [] for reader in new}
        for reader in [*self, *new]:
            older = older_of.get((reader.pid, reader.start_time))
            if older is not None:
                older.append(reader)
        for rings in older_of.values():
            for reader in rings[:-1]:
                reader.superseded = reader.left or maps(reader.pid, reader.name) is False

    def remove(self, reader: Reader) -> None:
        """Unmap a ring and delete its file. All its records must be safe elsewhere."""
        self._drop(reader)
        with suppress(OSError):
            os.unlink(reader.name, dir_fd=self._dir_fd)

    def quarantine(self, reader: Reader, reason: str) -> None:
        """Unmap a ring that cannot be read any further, and keep its file for a person to look into."""
        self._drop(reader)
        self._set_aside(reader.name, reason)

    def _drop(self, reader: Reader) -> None:
        del self._by_name[reader.name]
        if reader.pidfd is not None:
            self._poll.unregister(reader.pidfd)
        reader.close()

    def _open(self, name: str, now: float) -> Reader | None:
        try:
            return Reader(self._dir_fd, name)
        except (FileNotFoundError, BlockingIOError):
            # It is gone, or another process holds a lease on it for a moment (process.is_unused).
            return None
        except layout.UnfinishedRing as error:
            if now - self._unreadable.setdefault(name, now) > UNFINISHED_S:
                self._set_aside(name, str(error))
        except (ValueError, OSError) as error:
            self._set_aside(name, str(error))
        return None

    def _set_aside(self, name: str, reason: str) -> None:
        self.set_aside += 1
        self._unreadable.pop(name, None)
        log.warning("%s is set aside: %s", name, reason)
        with suppress(OSError):
            os.rename(name, name + CORRUPT, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
