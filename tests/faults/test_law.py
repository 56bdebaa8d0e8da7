"""Any history of opening, adding, closing, forking, killing, restarting, filling and flushing keeps the law."""

import os
import signal
import subprocess
from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from places import FULL, times
from scenes import ROWS, Row, Scene, holds
from waiting import TIMEOUT_S

HISTORIES = times(200, 3)
STEPS = 30 if FULL else 20
MOST_WORKERS = 3

# Does what each line says, and says so.
WORKER = """
import os, sys, epsagon_fast as epsagon, noting
tracers = []
def fork():
    def child():
        if tracers: noting.add(tracers[-1], 100)
        noting.fill(2, 100)
    assert os.waitpid(noting.spawn(child), 0)[1] == 0
def begin():
    entered = noting.trace()
    tracers.append(entered.__enter__())
    entered_ones.append(entered)
def add():
    for _ in range(5): noting.add(tracers[-1], 500)
def close():
    tracers.pop()
    entered_ones.pop().__exit__(None, None, None)
def fill():
    # A trace with more events than these is over its limit of bytes, and does not keep them all.
    for _ in range(10):
        with noting.trace() as tracer:
            if not all(noting.add(tracer, 15000) for _ in range(200)): break
entered_ones = []
does = {"open": begin, "add": add, "close": close, "fork": fork, "fill": fill, "flush": lambda: epsagon.flush(0.5)}
for line in sys.stdin:
    does[line.strip()]()
    print(flush=True)
"""


class Worker:
    """One process, and how many traces it has open."""

    def __init__(self, here: Scene) -> None:
        self.process: subprocess.Popen[str] = here.start(WORKER, stdin=subprocess.PIPE)
        self.open = 0

    def do(self, word: str) -> None:
        """Have it done, and wait until it is."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "\n", self.process.communicate()[1]

    def end(self) -> None:
        """Let it come to its end."""
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, errors


class History(RuleBasedStateMachine):
    """Workers and their collector."""

    row: Row

    def __init__(self) -> None:
        super().__init__()
        self.here = Scene("any history", EPSAGON_SHUTDOWN_TIMEOUT_SEC="0.5", EPSAGON_LINGER_SEC="10")
        self.workers = [Worker(self.here)]

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def join(self) -> None:
        self.workers.append(Worker(self.here))

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9))
    def open(self, which: int) -> None:
        worker = self._worker(which)
        worker.do("open")
        worker.open += 1

    @precondition(lambda self: any(worker.open for worker in self.workers))
    @rule(which=st.integers(0, 9), word=st.sampled_from(["add", "add", "close"]))
    def go_on(self, which: int, word: str) -> None:
        busy = [worker for worker in self.workers if worker.open]
        worker = busy[which % len(busy)]
        worker.do(word)
        worker.open -= word == "close"

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9), word=st.sampled_from(["fork", "fill", "flush"]))
    def do(self, which: int, word: str) -> None:
        self._worker(which).do(word)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 9))
    def kill(self, which: int) -> None:
        worker = self._worker(which)
        self.workers.remove(worker)
        worker.process.kill()
        worker.process.communicate()

    @rule()
    def kill_the_collector(self) -> None:
        for pid in self.here.collectors():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _worker(self, which: int) -> Worker:
        return self.workers[which % len(self.workers)]

    def teardown(self) -> None:
        try:
            for worker in self.workers:
                worker.end()
            # Somebody must come for a collector to be started again.
            self.here.run("import noting; noting.fill(1)")
            self.here.account()
            holds(self.here.row)
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.process.communicate()
            _add(self.row, self.here.row)
            self.here.close()


def _add(row: Row, more: Row) -> None:
    row.tried += 1
    row.refused += more.refused
    row.longest_us = max(row.longest_us, more.longest_us)
    for name in ("pushed", "arrived", "missing", "duplicates", "switches"):
        setattr(row, name, getattr(row, name) + getattr(more, name))


def test_any_history_keeps_the_law() -> None:
    History.row = Row("any history of these (state machine)")
    ROWS.append(History.row)
    some = settings(
        max_examples=HISTORIES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(History, settings=some)
    holds(History.row)
