"""The collector's end of the queue: the rings of a folder, found by its descriptor, never by path.

A `Reader` is one ring with its producer's process; `Rings` is all of them. Reading has two steps, so that nothing is
lost between them: `read` copies records out, `release` gives their room back once they are safe elsewhere.
"""

import logging
import os
import queue
import select
import time
from collections.abc import Iterator
from contextlib import suppress

import epsagon_fast.private as private
from epsagon_fast.protocol import REFUSALS, Outcome, Record
from epsagon_fast.queue import layout, ring, settlements
from epsagon_fast.queue.folder import CORRUPT, RING_NAME, RING_SUFFIX
from epsagon_fast.queue.process import LARGEST_PID, has_ended, lives, maps, own_start_time

log = logging.getLogger("epsagon_fast.queue")

# A ring whose creator died over it, or that is no ring at all, is left alone for so long and then set aside.
UNFINISHED_S = 60.0
REFUSED_BYTES = 8 * len(REFUSALS)
WORD = 2**64 - 1


class Reader:
    """One ring, and the process that fills it."""

    def __init__(self, dir_fd: int, name: str) -> None:
        """Map the ring. OSError or CorruptRing if it cannot be read."""
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
        # Closed traces of this ring that are not settled yet.
        self.unsettled = 0
        # Whether its process has a newer ring and let go of this one.
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
        """The position up to which the producer has its room back."""
        return self._ring.load(layout.TAIL)

    @property
    def left(self) -> bool:
        """Whether the producer has said that it takes nothing more."""
        return self._ring.load(layout.LEFT) != 0

    @property
    def stuck(self) -> bool:
        """Whether the next record of a checksummed ring does not fit its checksum (yet)."""
        return self._ring.stuck

    def read(self, limit_bytes: int, until: int) -> list[Record]:
        """Return the next records, about `limit_bytes` of them, none beyond `until`. CorruptRing if there is none."""
        return self._ring.read(limit_bytes, until)

    def release(self) -> None:
        """Give the room of everything that was read back to the producer."""
        self._ring.commit()
        self.publish_settled()

    def back(self) -> None:
        """Take back what was read and not released: it is read again."""
        self._ring.seek(self.tail, self._ring.load(layout.CLOSES_READ))

    def start_at(self, position: int, closes_read: int) -> None:
        """Skip what an earlier collector has read; nothing happens if the ring's tail is already there."""
        if position > self._ring.position:
            self._ring.seek(position, max(self._ring.closes_read, closes_read))
            self._ring.commit()

    def adopt(self, incarnation: int) -> None:
        """Tell the producer that a living collector has the ring mapped."""
        self._ring.store(layout.READER_PID, os.getpid())
        self._ring.store(layout.READER_START_TIME, own_start_time())
        self._ring.store(layout.ADOPTED, incarnation)

    def settle(self, trace_id: bytes, outcome: Outcome) -> None:
        """Tell the producer what became of a trace that it closed."""
        self.unsettled -= 1
        self.tell(trace_id, outcome)
        self.publish_settled()

    def tell(self, trace_id: bytes, outcome: Outcome) -> None:
        """Tell the producer news of a trace that is settled already: a stored one was delivered."""
        settlements.publish(self._ring, trace_id, outcome)

    def publish_settled(self) -> None:
        """Tell the producer how many of its closed traces need nothing more."""
        self._ring.store(layout.SETTLED, self._ring.closes_read - self.unsettled & WORD)

    def publish_held(self, held_bytes: int) -> None:
        """Show how much of the process's traces is in the collector's memory."""
        self._ring.store(layout.HELD, held_bytes)

    def refusals(self) -> tuple[int, ...]:
        """Return the counts of refused records, in the order of REFUSALS; 0 for what cannot be a count."""
        counts = (self._ring.load(layout.REFUSED + 8 * i) for i in range(layout.REFUSED_SLOTS))
        return tuple(count if count <= layout.LARGEST_COUNT else 0 for count in counts)

    def take_refusals(self) -> dict[str, int]:
        """Return how many records were refused since the last call, whoever made it; reasons of none are left out."""
        # Nearly always there are none, and this is asked with every trace: the counters one by one took a tenth of it.
        if self._ring.copy(layout.REFUSED, REFUSED_BYTES) == self._ring.copy(layout.TOLD, REFUSED_BYTES):
            return {}
        news = {}
        for number, (reason, count) in enumerate(zip(REFUSALS, self.refusals(), strict=False)):
            told = layout.TOLD + 8 * number
            if count > self._ring.load(told):
                news[reason] = count - self._ring.load(told)
                self._ring.store(told, count)
        return news

    @property
    def unread_closes(self) -> int:
        """How many CLOSE records are in the ring behind `position`."""
        return self._ring.load(layout.CLOSED_COUNT) - self._ring.closes_read

    def ended(self) -> bool:
        """Say whether the process is gone, as far as that can be told. Of its pidfd, if it has one, others say it."""
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
        # Asked after the pidfd is had: now no other process can take the pid unnoticed.
        if has_ended(self.pid, self.start_time, fd):
            os.close(pidfd)
            return None, True
        return pidfd, False

    # The queue's usual language, for tools and tests; the collector itself uses read and release.

    def get(self, timeout_s: float = 0.0) -> Record:
        """Return the next record and release it; queue.Empty if none comes within `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            records = self.read(1, self.head)
            if records:
                self.release()
                return records[0]
            if time.monotonic() >= deadline:
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
        self.set_aside = 0

    def __iter__(self) -> Iterator[Reader]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def by_id(self, ring_id: bytes) -> Reader | None:
        """Return the ring of this id, if it is still there."""
        return self._by_name.get(ring_id.hex() + RING_SUFFIX)

    def scan(self, now: float) -> list[Reader]:
        """Map the rings that are new in the folder and return them, oldest first."""
        names = [n for n in os.listdir(self._dir_fd) if RING_NAME.fullmatch(n) and n not in self._by_name]
        new = [reader for reader in (self._open(name, now) for name in names) if reader is not None]
        new.sort(key=lambda reader: reader.created_ns)
        for reader in new:
            self._supersede(reader)
            self._by_name[reader.name] = reader
            reader.adopt(self._incarnation)
            if reader.pidfd is not None:
                self._poll.register(reader.pidfd, select.POLLIN)
        return new

    def wait(self, timeout_s: float) -> None:
        """Sleep; the death of a process wakes up."""
        self._poll.poll(timeout_s * 1000)

    def ended(self) -> list[Reader]:
        """Return the rings whose processes are gone, or let go of them and began a newer one (exec, a reloader)."""
        events = {fd for fd, _ in self._poll.poll(0)}
        return [
            reader
            for reader in self
            if reader.superseded or (reader.pidfd in events if reader.pidfd is not None else reader.ended())
        ]

    def _supersede(self, newer: Reader) -> None:
        """Note which older rings the process of a new one has let go of.

        One process may fill several: it has sub-interpreters, or the package twice.
        """
        for older in self:
            if (older.pid, older.start_time) == (newer.pid, newer.start_time):
                older.superseded = older.left or maps(older.pid, older.name) is False

    def remove(self, reader: Reader) -> None:
        """Unmap a ring and delete its file: all that was in it is safe elsewhere."""
        self._drop(reader)
        with suppress(OSError):
            os.unlink(reader.name, dir_fd=self._dir_fd)

    def quarantine(self, reader: Reader, reason: str) -> None:
        """Unmap a ring that cannot be read on and keep its file for whoever wants to look into it."""
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
            # Gone; or another process asks whether anybody uses it (process.is_unused), for a moment.
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
