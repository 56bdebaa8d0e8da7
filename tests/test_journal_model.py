"""The journal against a model: rings, traces of several processes, and a collector that dies at any system call.

What must hold whatever happens: nothing that a ring held is missing or doubled in the collector's memory, a trace whose
mark was committed never comes again, and segments do not stay for ever.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from mortal import CRASHES, Crash, Kernel, bury, instead_of_os, segment_paths
from places import times
from reading import ListRing, ListRings, Page, Reading, WatchedJournal

from epsagon_fast.collector.assembling.accounts import Accounts
from epsagon_fast.collector.assembling.masks import Masks
from epsagon_fast.collector.journal.journal import Batch, Settled, Snapshot
from epsagon_fast.collector.parcel import Parcel
from epsagon_fast.collector.reading.recovery import Recovery
from epsagon_fast.protocol import NO_TRACE, Kind, Outcome, Record
from epsagon_fast.queue import layout

NOW = 0.0
# Records of one ring in one round.
QUOTA = 3


def difference(found: Sequence[Record], expected: Sequence[Record]) -> dict[str, list[bytes]]:
    """Say what is missing and what is doubled; comparing lists in an assert takes minutes to explain itself."""
    missing, doubled = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    names = {"missing": missing, "doubled": doubled}
    return {name: [record.payload[:30] for record in records] for name, records in names.items() if records}


class World:
    """What outlives a collector, and what a test knows beyond that."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="journal-model-")
        self.dir_fd = os.open(self.path, os.O_RDONLY)
        # The files; a dead process's ring is removed when it was read.
        self.rings: dict[bytes, ListRing] = {}
        self.every_ring: list[ListRing] = []
        self.pushed: dict[bytes, list[Record]] = {}
        self.closed: set[bytes] = set()
        # Delivered, of these: the mark was committed.
        self.delivered: set[bytes] = set()
        self.marked: set[bytes] = set()
        self.late: set[bytes] = set()
        # Read while the journal could not be written, by a collector that died before it could: perhaps lost, and lost.
        self.risked: set[Record] = set()
        self.lost: set[Record] = set()
        self.page = Page()

    def segment_count(self) -> int:
        return len(segment_paths(Path(self.path)))

    def close(self) -> None:
        os.close(self.dir_fd)
        shutil.rmtree(self.path)


class Memory:
    """Stands for Assembly: it keeps the records of each trace as they came."""

    held_bytes = 0
    opener = is_closed_by = staticmethod(lambda *_: None)

    def __init__(self) -> None:
        self.held: dict[bytes, list[Record]] = {}
        self.dead_rings: set[bytes] = set()
        self.accounts = Accounts()
        self.masks = Masks(self.knows)

    def knows(self, trace_id: bytes) -> bool:
        return True

    def masked(self, record: Record) -> Record:
        return record

    def strays(self, records: list[Record]) -> set[bytes]:
        return set()

    def fetch(self, records: list[Record]) -> None:
        pass

    def take(self, ring_id: bytes, records: list[Record], at: int, answered: list[bytes]) -> int:
        return at

    def feed(self, ring_id: bytes, record: Record, now: float) -> None:
        if record.trace_id != NO_TRACE:
            self.held.setdefault(record.trace_id, []).append(record)

    def forget(self, *trace_ids: bytes) -> None:
        for trace_id in trace_ids:
            self.held.pop(trace_id, None)

    def ring_died(self, ring_id: bytes, now: float, pid: int | None = None) -> None:
        self.dead_rings.add(ring_id)


class StrictJournal(WatchedJournal):
    """Holds what replay returns against what it promises."""

    def replay(self) -> Iterator[Batch | Snapshot | Settled]:
        ends: dict[bytes, int] = {}
        fed: set[bytes] = set()
        for found in super().replay():
            if isinstance(found, Batch):
                assert found.end > ends.get(found.ring_id, 0), "a batch came twice"
                ends[found.ring_id] = found.end
            elif isinstance(found, Snapshot):
                ends.setdefault(found.ring_id, 0)
                assert not {record.trace_id for record in found.records} & fed, "an earlier frame counts"
            if not isinstance(found, Settled):
                fed.update(record.trace_id for record in found.records)
            yield found
        # A snapshot whose trace is settled is left out, and still names its ring.
        assert ends == {ring_id: end for ring_id, end in self.ends().items() if end or ring_id in ends}


class RawRecovery(Recovery):
    """Takes snapshots that are the records themselves."""

    def _restore(self, item: Snapshot) -> list[Parcel]:
        for record in item.records:
            self._assembly.feed(item.ring_id, record, NOW)
        return []


class Collector(Reading):
    """What reads and settles in a collector, over a memory that shows all it was fed."""

    recovery_class = RawRecovery

    def __init__(self, world: World, kernel: Kernel) -> None:
        self.world = world
        self.journal = StrictJournal(world.dir_fd, world.page, 400, self.committed)
        self.memory = Memory()
        self.unmarked: set[bytes] = set()
        super().__init__(world.dir_fd, world.page, ListRings(world.rings, kernel), self.journal, self.memory)

    @property
    def held(self) -> dict[bytes, list[Record]]:
        return self.memory.held

    def start(self) -> None:
        assert self.recovery.run(NOW) == []

    def committed(self) -> None:
        self.world.marked |= self.unmarked
        self.unmarked = set()
        if self.journal.segments > 1:
            assert self.journal.pinned(0) - (self.world.marked - self.world.late), "nothing needs the oldest segment"

    def position(self, ring: ListRing) -> int:
        """Return how many records of a ring were read, by this collector or an earlier one."""
        reader = self.rings.by_id(ring.id)
        return reader.position if reader else ring.tail if ring.id in self.world.rings else len(ring.records)

    def settle(self, trace_id: bytes) -> None:
        assert trace_id not in self.world.marked, "delivered again although its mark was committed"
        if trace_id not in self.world.delivered:
            assert not difference(self.held[trace_id], self.world.pushed[trace_id])
        self.world.delivered.add(trace_id)
        self.unmarked.add(trace_id)
        self.outcomes.settle([trace_id], Outcome.DELIVERED)

    def copy_forward(self, count: int) -> None:
        """Have the journal keep traces in a snapshot each, those first that were held first."""
        needed = [trace_id for trace_id in self.held if trace_id not in self.world.delivered]
        for trace_id in needed[:count]:
            first = self.world.pushed[trace_id][0]
            opener = next(ring for ring in self.world.every_ring if first in ring.records)
            self.journal.snapshot(opener.id, trace_id, self.held[trace_id])

    def whole_traces(self) -> list[bytes]:
        """Closed traces of which all is here; which these are is the assembly's business, not the journal's.

        A trace that was lost as a whole never is one again, whatever comes late for it.
        """
        pushed, held = self.world.pushed, self.held
        return [t for t in sorted(self.world.closed) if pushed[t] and set(pushed[t]) <= set(held.get(t, ()))]


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.crashes: list[tuple[int, int]] = []
        self.traces = 0

    @initialize()
    def start(self) -> None:
        self.begin_process()
        self.open_trace(0)
        self.start_collector()

    def teardown(self) -> None:
        try:
            if hasattr(self, "collector"):
                self.come_to_rest()
        finally:
            self.bury()
            self.world.close()

    # Processes

    @rule()
    def begin_process(self) -> None:
        ring = ListRing(b"ring%012d" % len(self.world.every_ring))
        self.world.rings[ring.id] = ring
        self.world.every_ring.append(ring)

    @rule(ring=st.integers(0, 99))
    def open_trace(self, ring: int) -> None:
        self.traces += 1
        trace_id = self.traces.to_bytes(16, "big")
        self.world.pushed[trace_id] = []
        self.push(ring, Kind.OPEN, trace_id, 0)

    @rule(ring=st.integers(0, 99), trace=st.integers(0, 99), payload_bytes=st.integers(0, 300))
    def add(self, ring: int, trace: int, payload_bytes: int) -> None:
        open_traces = sorted(self.world.pushed.keys() - self.world.closed)
        if open_traces:
            self.push(ring, Kind.EVENT, open_traces[trace % len(open_traces)], payload_bytes)

    @rule(ring=st.integers(0, 99), trace=st.integers(0, 99))
    def close_trace(self, ring: int, trace: int) -> None:
        open_traces = sorted(self.world.pushed.keys() - self.world.closed)
        if open_traces:
            trace_id = open_traces[trace % len(open_traces)]
            if self.push(ring, Kind.CLOSE, trace_id, 0):
                self.world.closed.add(trace_id)

    @precondition(lambda self: self.world.delivered)
    @rule(ring=st.integers(0, 99), trace=st.integers(0, 99))
    def add_late(self, ring: int, trace: int) -> None:
        delivered = sorted(self.world.delivered)
        late = delivered[trace % len(delivered)]
        self.world.late.add(late)
        self.push(ring, Kind.EVENT, late, 10)

    def push(self, ring: int, kind: Kind, trace_id: bytes, payload_bytes: int) -> bool:
        living = [ring for ring in self.world.rings.values() if ring.lives]
        if not living:
            self.world.pushed.setdefault(trace_id, [])
            return False
        chosen = living[ring % len(living)]
        ordinal = 1 + sum(record.ordinal > 0 for record in chosen.records) if kind == Kind.CLOSE else 0
        payload = b"%d of %s " % (len(chosen.records), chosen.id.hex().encode()) + bytes(payload_bytes)
        record = Record(kind, 0, ordinal, trace_id, payload)
        chosen.records.append(record)
        if trace_id not in self.world.delivered:
            self.world.pushed[trace_id].append(record)
        return True

    @rule(ring=st.integers(0, 99), says_goodbye=st.booleans())
    def end_process(self, ring: int, says_goodbye: bool) -> None:
        living = [ring for ring in self.world.rings.values() if ring.lives]
        if len(living) > 1:
            chosen = living[ring % len(living)]
            chosen.lives = False
            if says_goodbye:
                chosen.records.append(Record(Kind.BYE, 0, 0, NO_TRACE, b""))

    # The collector

    @rule(settled=st.integers(0, 3), limit=st.integers(0, 5), crashes=CRASHES)
    def one_pass(self, settled: int, limit: int, crashes: list[tuple[int, int]]) -> None:
        self.settle(settled)
        self.crashes = crashes
        self.meet_fate()
        self.survive(lambda: self.collector.read(NOW, limit, QUOTA))

    @rule(limit=st.integers(0, 5), space_bytes=st.integers(0, 600))
    def one_pass_on_a_full_disk(self, limit: int, space_bytes: int) -> None:
        self.kernel.space_bytes = space_bytes
        self.survive(lambda: self.collector.read(NOW, limit, QUOTA))
        self.kernel.space_bytes = None

    @rule(count=st.integers(1, 3))
    def settle(self, count: int) -> None:
        for trace_id in self.collector.whole_traces()[:count]:
            self.collector.settle(trace_id)

    @rule(count=st.integers(1, 3))
    def copy_forward(self, count: int) -> None:
        self.collector.copy_forward(count)

    @rule()
    def keep_only(self) -> None:
        self.collector.journal.keep_only(self.world.pushed.keys() - self.world.delivered)

    @rule(crashes=CRASHES)
    def tidy(self, crashes: list[tuple[int, int]]) -> None:
        self.crashes = crashes
        self.meet_fate()
        self.survive(self.collector.journal.tidy)

    def meet_fate(self) -> None:
        if self.crashes:
            self.kernel.calls_left, self.kernel.torn_bytes = self.crashes.pop(0)

    def survive(self, step: Any) -> None:
        """Do something that the collector may die of, and start another one then."""
        try:
            with instead_of_os(self.kernel):
                step()
        except Crash:
            self.world.risked.update(self.collector.journal.refused)
            self.start_collector()

    def start_collector(self) -> None:
        self.bury()
        self.kernel = Kernel()
        self.meet_fate()
        self.collector = Collector(self.world, self.kernel)
        self.survive(self.collector.start)
        self.write_off()
        self.check_rings_of_the_dead()

    def write_off(self) -> None:
        """What a dead collector could not write, and the journal and the rings lack, is lost."""
        held = {record for records in self.collector.held.values() for record in records}
        read = {record for ring in self.world.every_ring for record in self.read_of(ring)}
        self.world.lost |= (self.world.risked & read) - held
        self.world.risked.clear()
        for trace_id, records in self.world.pushed.items():
            self.world.pushed[trace_id] = [record for record in records if record not in self.world.lost]

    def check_rings_of_the_dead(self) -> None:
        """An open trace's process whose ring file is gone is known as dead, because the journal still names it."""
        for trace_id in self.world.pushed.keys() - self.world.delivered:
            for opener in self.world.every_ring:
                if opener.id not in self.world.rings and opener.records[:1] == self.world.pushed[trace_id][:1] != []:
                    assert opener.id in self.collector.memory.dead_rings

    def bury(self) -> None:
        if hasattr(self, "collector"):
            bury(self.collector.journal._segments)

    # What must hold

    @invariant()
    def nothing_is_missing_or_doubled(self) -> None:
        for trace_id in self.world.pushed.keys() - self.world.delivered:
            expected = [r for ring in self.world.every_ring for r in self.read_of(ring) if r.trace_id == trace_id]
            assert not difference(self.collector.held.get(trace_id, []), expected)
        for records in self.collector.held.values():
            assert len(set(records)) == len(records)

    @invariant()
    def a_marked_trace_stays_away(self) -> None:
        assert not self.collector.held.keys() & (self.world.marked - self.world.late)

    @invariant()
    def a_ring_s_records_stay_in_order(self) -> None:
        for records in self.collector.held.values():
            of_ring: dict[bytes, int] = {}
            for record in records:
                number, _, ring_id = record.payload.split()[:3]
                assert int(number) > of_ring.get(ring_id, -1)
                of_ring[ring_id] = int(number)

    @invariant()
    def tails_stand_where_a_successor_can_go_on(self) -> None:
        for ring in self.world.rings.values():
            ordinals = [record.ordinal for record in ring.records[: ring.tail] if record.ordinal]
            assert ring.slots[layout.CLOSES_READ] == (ordinals or [0])[-1]

    @invariant()
    def no_crash_is_taken_for_damage(self) -> None:
        assert self.collector.journal.corrupt == 0

    def read_of(self, ring: ListRing) -> list[Record]:
        return [each for each in ring.records[: self.collector.position(ring)] if each not in self.world.lost]

    def come_to_rest(self) -> None:
        """At the end every process is done; then each trace is delivered, whole, and no segment stays."""
        self.crashes = []
        self.kernel.calls_left = self.kernel.space_bytes = None
        for ring in self.world.every_ring:
            ring.lives = False
        self.collector.read(NOW)
        self.collector.read(NOW)
        assert not self.world.rings
        self.world.closed |= self.world.pushed.keys()
        for trace_id in self.collector.whole_traces():
            self.collector.settle(trace_id)
        self.collector.intake.commit()
        assert {t for t, records in self.world.pushed.items() if records} <= self.world.delivered
        self.collector.journal.keep_only(())
        self.collector.intake.commit()
        assert self.world.segment_count() <= 1
        self.collector.journal.close()
        assert os.listdir(self.world.path) == []


def test_a_trace_that_was_lost_is_not_delivered_again_for_what_comes_late() -> None:
    """It was read while the disk was full, and delivered; then the collector died, and of the trace no file knew."""
    machine = JournalMachine()
    try:
        machine.start()
        machine.close_trace(0, 0)
        machine.one_pass_on_a_full_disk(5, 0)
        machine.settle(1)
        machine.open_trace(0)
        machine.one_pass(0, 5, [(0, 0)])
        (delivered,) = machine.world.delivered
        assert machine.world.pushed[delivered] == [] != machine.world.lost
        machine.add_late(0, 0)
        machine.one_pass(0, 5, [])
        assert delivered in machine.collector.held
        assert machine.collector.whole_traces() == []
    finally:
        machine.teardown()


# Shrinking takes up to five minutes. Stopped before, a failure shows itself as Flaky, with steps that do not fail.
TestJournal = pytest.mark.timeout(400)(JournalMachine.TestCase)
TestJournal.settings = settings(
    max_examples=times(150, 40),
    stateful_step_count=80,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
