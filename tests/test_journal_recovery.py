"""Journal and assembly together: rings of living and dead processes, passes, and collectors that die at any call.

Every trace comes out, whole, at least once. It comes out twice only if a collector died between its delivery and the
commit of its mark.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from mortal import CRASHES, Crash, Kernel, bury, instead_of_os
from places import times
from reading import ListRing, ListRings, Page, Reading, WatchedJournal
from records import CONFIG, OPENED_AT, event, own_runner

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.journal import snapshot
from epsagon_fast.protocol import CLOSE_PAYLOAD, NO_TRACE, NOT_MEASURED, UNCHANGED, Kind, Outcome, Record

NOW = OPENED_AT + 1
OPEN = orjson.dumps({"config": CONFIG, "platform": "python", "runner": own_runner(), "opened_at": OPENED_AT})
CLOSE = CLOSE_PAYLOAD.pack(NOT_MEASURED, UNCHANGED)


@dataclass
class Expected:
    """What a trace must bring."""

    opener: ListRing
    events: set[str] = field(default_factory=set)
    # How it was closed: nothing that is pushed later has to be in it.
    closed: str = ""
    deliveries: int = 0
    # Collectors that died when it was delivered and its mark not committed.
    excuses: int = 0


class World:
    """What outlives a collector."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="journal-recovery-")
        self.dir_fd = os.open(self.path, os.O_RDONLY)
        self.rings: dict[bytes, ListRing] = {}
        self.traces: dict[bytes, Expected] = {}
        self.page = Page()

    def deliver(self, closed: OpenTrace) -> None:
        trace = self.traces[closed.trace_id]
        data = body.build(closed).data
        assert data is not None
        *events, runner = orjson.loads(data)["events"]
        names = Counter(each["id"] for each in events)
        assert not trace.events - names.keys(), f"missing from a trace that ended by {trace.closed}"
        assert not names or max(names.values()) == 1, "doubled"
        assert trace.closed == how_it_ended(runner)
        trace.deliveries += 1
        assert trace.deliveries <= 1 + trace.excuses, "delivered again although nobody died in between"

    def close(self) -> None:
        os.close(self.dir_fd)
        shutil.rmtree(self.path)


def how_it_ended(runner: dict[str, Any]) -> str:
    if runner["exception"]:
        return str(runner["exception"]["type"])
    return "BYE" if runner["resource"]["metadata"].get("unfinished") else "CLOSE"


class Collector(Reading):
    """The loop's passes, without its threads and its network: what is finished is delivered at once."""

    def __init__(self, world: World, kernel: Kernel) -> None:
        self.world = world
        self.journal = WatchedJournal(world.dir_fd, world.page, 3000, self.committed)
        self.assembly = Assembly()
        # Delivered, and the backend's answer not yet seen, or the mark not yet committed.
        self.unanswered: list[bytes] = []
        self.unmarked: list[bytes] = []
        super().__init__(world.dir_fd, world.page, ListRings(world.rings, kernel), self.journal, self.assembly)

    def start(self) -> None:
        assert self.recovery.run(NOW) == []

    def copy_forward(self, count: int) -> None:
        for trace_id in list(self.assembly.ids())[:count]:
            trace = self.assembly.unclosed(trace_id)
            if trace is not None:
                self.journal.snapshot(trace.ring_id, trace_id, snapshot.of_trace(trace))

    def one_pass(self, quota: int, copies: int) -> None:
        self.read(NOW, quota=quota)
        for closed in self.assembly.end_pass(NOW):
            self.world.deliver(closed)
            self.unanswered.append(closed.trace_id)
        self.copy_forward(copies)
        self.intake.commit()
        self.journal.keep_only(self.assembly)

    def see_answers(self, count: int) -> None:
        answered, self.unanswered = self.unanswered[:count], self.unanswered[count:]
        for trace_id in answered:
            self.outcomes.settle([trace_id], Outcome.DELIVERED)
            self.unmarked.append(trace_id)

    def committed(self) -> None:
        self.unmarked.clear()


class RecoveryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.crashes: list[tuple[int, int]] = []
        self.events = 0
        self.kernel = Kernel()
        self.collector = Collector(self.world, self.kernel)

    @initialize()
    def start(self) -> None:
        self.begin_process()
        self.begin_process()
        self.open_trace(0)

    # Processes

    def living(self) -> list[ListRing]:
        return [ring for ring in self.world.rings.values() if ring.lives]

    def open_traces(self) -> list[bytes]:
        return [trace_id for trace_id, trace in self.world.traces.items() if not trace.closed]

    @rule()
    def begin_process(self) -> None:
        ring = ListRing(os.urandom(16))
        self.world.rings[ring.id] = ring

    @precondition(living)
    @rule(ring=st.integers(0, 99))
    def open_trace(self, ring: int) -> None:
        opener = self.living()[ring % len(self.living())]
        trace_id = (len(self.world.traces) + 1).to_bytes(16, "big")
        self.world.traces[trace_id] = Expected(opener)
        opener.records.append(Record(Kind.OPEN, 0, 0, trace_id, OPEN))

    @precondition(lambda self: self.living() and self.world.traces)
    @rule(ring=st.integers(0, 99), trace=st.integers(0, 99))
    def add(self, ring: int, trace: int) -> None:
        """An event of any process for any trace, also one that has been closed: that may come too late."""
        trace_id = list(self.world.traces)[-1 - trace % len(self.world.traces)]
        self.events += 1
        payload = event(self.events)
        self.living()[ring % len(self.living())].records.append(Record(Kind.EVENT, 0, 0, trace_id, payload))
        if not self.world.traces[trace_id].closed:
            self.world.traces[trace_id].events.add(f"event-{self.events}")

    @precondition(open_traces)
    @rule(trace=st.integers(0, 99))
    def close_trace(self, trace: int) -> None:
        trace_id = self.open_traces()[trace % len(self.open_traces())]
        expected = self.world.traces[trace_id]
        expected.closed = "CLOSE"
        records = expected.opener.records
        ordinal = 1 + sum(record.kind == Kind.CLOSE for record in records)
        records.append(Record(Kind.CLOSE, 0, ordinal, trace_id, CLOSE))

    @precondition(living)
    @rule(ring=st.integers(0, 99), says_goodbye=st.booleans())
    def end_process(self, ring: int, says_goodbye: bool) -> None:
        chosen = self.living()[ring % len(self.living())]
        chosen.lives = False
        if says_goodbye:
            chosen.records.append(Record(Kind.BYE, 0, 0, NO_TRACE, b""))
        for trace in self.world.traces.values():
            if trace.opener is chosen and not trace.closed:
                trace.closed = "BYE" if says_goodbye else "ProcessDied"

    # The collector

    @rule(quota=st.integers(1, 4), answers=st.integers(0, 3), copies=st.integers(0, 3), crashes=CRASHES)
    def one_pass(self, quota: int, answers: int, copies: int, crashes: list[tuple[int, int]]) -> None:
        self.collector.see_answers(answers)
        self.crashes = crashes
        self.meet_fate()
        self.survive(lambda: self.collector.one_pass(quota, copies))

    def meet_fate(self) -> None:
        if self.crashes:
            self.kernel.calls_left, self.kernel.torn_bytes = self.crashes.pop(0)

    def survive(self, step: Callable[[], None]) -> None:
        try:
            with instead_of_os(self.kernel):
                step()
        except Crash:
            self.bury_collector()
            self.kernel = Kernel()
            self.meet_fate()
            self.collector = Collector(self.world, self.kernel)
            self.survive(self.collector.start)

    def bury_collector(self) -> None:
        for trace_id in {*self.collector.unanswered, *self.collector.unmarked}:
            self.world.traces[trace_id].excuses += 1
        bury(self.collector.journal._segments)

    def teardown(self) -> None:
        """At the end every process is gone: then each trace has come out and no segment stays."""
        try:
            self.kernel.calls_left = None
            for _ in self.living():
                self.end_process(0, False)
            for _ in range(4):
                self.collector.one_pass(100, 0)
                self.collector.see_answers(10**6)
            self.collector.intake.commit()
            assert all(trace.deliveries for trace in self.world.traces.values())
            assert self.collector.journal.corrupt == 0
            assert self.collector.assembly.open_count == 0
            self.collector.journal.close()
            assert os.listdir(self.world.path) == []
        finally:
            self.world.close()


# As long as shrinking may take; see test_journal_model.py.
TestRecovery = pytest.mark.timeout(400)(RecoveryMachine.TestCase)
TestRecovery.settings = settings(
    max_examples=times(150, 33),
    stateful_step_count=80,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
