"""The part of a collector that reads, put together as in collector/loop.py, over rings that outlive it.

A ring is a list of records, and a position in it the number of records before. Giving room back and removing a ring
are calls at which the collector may die, as those of the journal are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mortal import Kernel

from epsagon_fast.collector.bounds import Bounds
from epsagon_fast.collector.journal.journal import Journal
from epsagon_fast.collector.poison import Poison
from epsagon_fast.collector.reading.feeding import Feeding
from epsagon_fast.collector.reading.folder import ServedFolder
from epsagon_fast.collector.reading.intake import Intake
from epsagon_fast.collector.reading.recovery import Recovery
from epsagon_fast.collector.settling.outcomes import Outcomes
from epsagon_fast.protocol import Record
from epsagon_fast.queue import layout
from epsagon_fast.queue.names import RING_SUFFIX
from epsagon_fast.queue.reader import Reader

ALL = 10**9


@dataclass
class ListRing:
    """A process's ring file. `slots` is its header, of which a slot that was never stored is 0."""

    id: bytes
    records: list[Record] = field(default_factory=list)
    lives: bool = True
    slots: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def tail(self) -> int:
        return self.slots[layout.TAIL]


class ListConsumer:
    """The end of a ring that empties it: what a Reader asks of queue.ring.Consumer."""

    stuck = False

    def __init__(self, ring: ListRing, kernel: Kernel) -> None:
        self._ring = ring
        self._kernel = kernel
        self.position = ring.tail
        self.closes_read = ring.slots[layout.CLOSES_READ]
        # How many records one read takes.
        self.quota = ALL
        self.head = 0

    def read(self, limit_bytes: int, until: int) -> list[Record]:
        records = self._ring.records[self.position : min(until, self.position + self.quota)]
        self.seek(self.position + len(records), ([self.closes_read] + [r.ordinal for r in records if r.ordinal])[-1])
        return records

    def seek(self, position: int, closes_read: int) -> None:
        self.position, self.closes_read = position, closes_read

    def commit(self) -> None:
        self._kernel.step()
        self._ring.slots |= {layout.CLOSES_READ: self.closes_read, layout.TAIL: self.position}

    def load(self, slot: int) -> int:
        return self._ring.slots[slot]

    def store(self, slot: int, value: int) -> None:
        self._ring.slots[slot] = value

    def enter(self, count_at: int, at: int, places: int, items: Sequence[bytes], tail: bytes) -> None:
        """Settlements are written for processes, which are not here."""

    def copy(self, offset: int, length: int) -> bytes:
        return bytes(length)


class ListReader(Reader):
    """A Reader of such a ring."""

    def __init__(self, ring: ListRing, kernel: Kernel) -> None:
        self.name = ring.id.hex() + RING_SUFFIX
        self.ring_id = ring.id
        self.pid = 1
        self.unsettled = 0
        self.file = ring
        self.consumer = ListConsumer(ring, kernel)
        self._ring = self.consumer  # type: ignore[assignment]


class ListRings:
    """Stands for queue.reader.Rings over a folder of such rings."""

    def __init__(self, folder: dict[bytes, ListRing], kernel: Kernel) -> None:
        self._folder = folder
        self._kernel = kernel
        self._readers: dict[bytes, ListReader] = {}

    def __iter__(self) -> Iterator[ListReader]:
        return iter(list(self._readers.values()))

    def by_id(self, ring_id: bytes) -> ListReader | None:
        return self._readers.get(ring_id)

    def scan(self, now: float) -> None:
        for ring in self._folder.values():
            if ring.id not in self._readers:
                self._readers[ring.id] = ListReader(ring, self._kernel)

    def show(self, limit: int, quota: int) -> None:
        """Let the next pass see `limit` records of each ring, and read `quota` of them at a time."""
        self.scan(0.0)
        for reader in self:
            reader.consumer.head = min(len(reader.file.records), reader.position + limit)
            reader.consumer.quota = quota

    def ended(self) -> list[ListReader]:
        return [each for each in self if not each.file.lives and each.head == len(each.file.records)]

    def remove(self, reader: ListReader) -> None:
        self._kernel.step()
        del self._readers[reader.ring_id], self._folder[reader.ring_id]


class Page:
    """Stands for the state page: a successor finds what the last collector was working on, and how far it wrote."""

    def __init__(self) -> None:
        self._suspected = b""
        self._slots: dict[int, int] = defaultdict(int)

    def load(self, slot: int) -> int:
        return self._slots[slot]

    def store(self, slot: int, value: int) -> None:
        self._slots[slot] = value

    def suspect(self, note: bytes) -> None:
        self._suspected = note

    def suspected(self) -> bytes:
        return self._suspected


class WatchedJournal(Journal):
    """Calls `committed` after each commit that succeeded. `refused`: records of commits that failed, till one does."""

    def __init__(
        self, dir_fd: int, page: Page, segment_bytes: int, committed: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(dir_fd, page, segment_bytes=segment_bytes)
        self.refused: list[Record] = []
        self._committed = committed
        self._waiting: list[Record] = []

    def append(self, ring_id: bytes, end: int, records: Sequence[Record]) -> None:
        super().append(ring_id, end, records)
        self._waiting += records

    def commit(self) -> None:
        try:
            super().commit()
        except OSError:
            self.refused = self._waiting[:]
            raise
        self.refused, self._waiting = [], []
        self._committed()


class Reading:
    """One collector's Intake and Recovery, and what they work on."""

    recovery_class = Recovery

    def __init__(self, dir_fd: int, page: Page, rings: ListRings, journal: Journal, assembly: Any) -> None:
        files: Any = rings
        state: Any = page
        counts: Counter[str] = Counter()
        self.rings = rings
        self.outcomes = Outcomes(assembly, journal, counts)
        replies = self.outcomes.replies
        feeding = Feeding(files, assembly, Poison(dir_fd, state, counts), replies)
        self.recovery = self.recovery_class(files, journal, assembly, feeding, replies, counts)
        folder = ServedFolder(dir_fd, "", state)
        self.intake = Intake(folder, files, journal, assembly, feeding, self.outcomes, Bounds(), counts)

    def read(self, now: float, limit: int = ALL, quota: int = ALL) -> None:
        """Read the rings as one pass of the loop does, and bury those whose processes ended."""
        self.rings.show(limit, quota)
        ended = self.intake.find(now)
        self.intake.read(0, ended, now)
        for reader in ended:
            self.intake.bury(reader, now)
