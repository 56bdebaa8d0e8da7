"""What this process knows of its own tracing: one object, `process`, and no other module variable.

    process         a fork inherits it: the config in force, the open traces, whether it was shut down
    process.own     a fork gets a new one: rings, refusals, what was done for the end of this very process

A child renews `own` at its first look at it, since a fork in C runs no hook, and since an exception that a signal's
handler raises inside a hook would never reach the application.

No lock anywhere: a signal handler may come in between any two lines, and a fork would leave a lock locked for ever.
What must be decided once is decided by one operation of a dict or a list, which the GIL makes whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from weakref import ref

from epsagon_fast.compiled import REFERENCE
from epsagon_fast.config import Config, ResolvedConfig
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import forget_warnings, logger
from epsagon_fast.queue import ring
from epsagon_fast.queue.beacon import Beacon, Page
from epsagon_fast.queue.writers import Writers

from .interfaces import Flush, OpenTrace, TraceWriter
from .late_imports import import_now
from .memory import MemoryWriter


class _InForce(NamedTuple):
    asked: Config
    config: ResolvedConfig


class FirstUse(NamedTuple):
    """What this process's first ring fixed."""

    runtime_dir: str
    ring_bytes: int


class Own:
    """What a fork does not inherit."""

    def __init__(self, pid: int, writers: Writers) -> None:
        self.pid = pid
        self.writers = writers
        self.first_use: FirstUse | None = None
        # Refusals from before there was a ring to count them in.
        self.early_refusals: Counter[str] = Counter()
        # The calls of `flush` under way: each is told which traces close after it. References: an exception from
        # outside may end a call anywhere, and one that stayed here would be told of traces for ever.
        self.flushes: dict[ref[Flush], None] = {}
        # Shows the forks of this process which traces are open in it; see beacon.py.
        self.beacons: Page | None = None
        # For exiting.py: whether it has registered what ends this process, how long that may yet wait (None: as the
        # config says), and whether it has begun.
        self.is_registered = False
        self.exit_timeout_s: float | None = None
        self.is_exiting = False
        # A forked child puts its own one here.
        self.heirs: dict[str, Own] = {}


class Process:
    """A traced process. Made once: `process` below; tests make it new with `reset`."""

    def __init__(self) -> None:
        # The interpreter keeps its hook when all else is forgotten.
        self.has_exit_hook = False
        self.reset()

    def reset(self, make_writers: Callable[[Callable[[], Writers]], Writers] = Writers) -> None:
        """Forget everything, as in a process that never traced. Rings stay in their files for the collector.

        `make_writers`: makes what stands for the queue here and in forked children.
        """
        self._make_writers = make_writers
        # No process has the pid 0, so the first look renews this.
        self._own = Own(0, make_writers(lambda: self.writers))
        # What `init` was last told, or the environment's word at the first trace without it.
        self._in_force: _InForce | None = None
        self.is_shut_down = False
        # Traces opened by this process or by an ancestor that forked it, by id. Taking one out decides who closes it.
        self.open_traces: dict[bytes, OpenTrace] = {}
        # Traces of other processes that this one may add to. Each reference takes itself out; by no function of ours,
        # since what a signal's handler raised in one would never reach the application.
        self._attached: dict[ref[OpenTrace], None] = {}
        # The global tracer, if there is one, under one key: a dict's setdefault and pop decide between two threads.
        self.global_tracer: dict[str, Any] = {}
        # Stand in for the queue while tests capture traces; the last one counts.
        self._captures: list[TraceWriter] = []
        # A server that forked this process, or its parent, and waits for its traces at its own end; 0: none.
        self.waiting_parent_pid = 0
        forget_warnings()

    @property
    def own(self) -> Own:
        """What belongs to the process that runs now."""
        own = self._own
        return own if own.pid == ring.own_pid() else self._renewed(own)

    @property
    def writers(self) -> Writers:
        """The rings of the process that runs now."""
        return self.own.writers

    def _renewed(self, inherited: Own) -> Own:
        new = Own(ring.own_pid(), self._make_writers(lambda: self.writers))
        # Of two threads both get the first one's.
        self._own = inherited.heirs.setdefault("heir", new)
        return self._own

    # The config.

    def init(self, asked: Config) -> ResolvedConfig:
        """Put a config in force for traces opened from now on; the same one again changes nothing."""
        in_force = self._in_force
        if in_force is None or in_force.asked != asked:
            in_force = _InForce(asked, asked.resolve())
            self.check_first_use(asked, in_force.config)
            self._in_force = in_force
        self.is_shut_down = False
        return in_force.config

    def config(self) -> ResolvedConfig:
        """Return the config in force, from the environment if `init` was never called."""
        in_force = self._in_force
        if in_force is None:
            # Kept: resolving costs as much as a whole trace, and a long-lived worker's environment does not change.
            in_force = self._in_force = _InForce(Config(), Config().resolve())
        return in_force.config

    def setting(self, name: str) -> Any:
        """Return one field of the config in force, or of the one that would be, without putting it in force.

        For processes that trace nothing themselves: they need no token, and say nothing about its lack.
        """
        return getattr(self._in_force.config, name) if self._in_force else Config().value(name)

    def records(self, wanted: ResolvedConfig) -> bool:
        """Say whether a trace with this config is recorded at all; while tests capture traces every one is."""
        return bool(self._captures) or wanted.enabled or (wanted.test_mode and not wanted.disable)

    def check_first_use(self, asked: Config, wanted: ResolvedConfig) -> None:
        """Raise ValueError if this process already has a ring that `wanted` places or sizes otherwise.

        A size that was not asked for follows the trace limit; the ring that is there serves a larger limit as well.
        """
        for name, fixed in (self.own.first_use or FirstUse(wanted.runtime_dir, wanted.ring_bytes))._asdict().items():
            value = getattr(wanted, name)
            if value != fixed and not (name == "ring_bytes" and asked.ring_bytes is None):
                raise ValueError(f"{name}={value!r} comes too late: this process already uses {fixed!r}")

    # Where records go.

    def writer_for(self, wanted: ResolvedConfig) -> TraceWriter:
        """Return where a trace that opens now puts its records."""
        if self._captures:
            return self._captures[-1]
        if wanted.test_mode:
            return MemoryWriter()
        own = self.own
        if own.first_use is None:
            own.first_use = FirstUse(wanted.runtime_dir, wanted.ring_bytes)
            logger()
            import_now()
            if wanted.debug and ring.IMPLEMENTATION == REFERENCE:
                logger().debug("the ring is in plain Python: it does the same as the compiled one, slower")
        return self._counted(own.writers.current(wanted))

    def writer_at(self, path: str, ring_bytes: int) -> TraceWriter:
        """Return where this process adds to a trace that lives in the folder `path`."""
        for capture in self._captures:
            if capture.path == path:
                return capture
        return self._counted(self.writers.at(path, ring_bytes))

    @contextmanager
    def capturing(self, capture: TraceWriter) -> Iterator[None]:
        """Have `capture` stand for the queue inside a `with` block, also after a shutdown."""
        was_shut_down, self.is_shut_down = self.is_shut_down, False
        captures = self._captures
        captures.append(capture)
        try:
            yield
        finally:
            captures.remove(capture)
            self.is_shut_down = was_shut_down or self.is_shut_down

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count records that no trace took."""
        own = self.own
        mine = own.writers.known()
        if mine:
            mine[-1].refuse(reason, count)
        else:
            own.early_refusals[reason] += count

    def refusals(self) -> Counter[str]:
        """Return how many records this process refused, by reason."""
        own = self.own
        return sum((Counter(writer.refusals()) for writer in own.writers.known()), Counter(own.early_refusals))

    def _counted(self, writer: TraceWriter) -> TraceWriter:
        early = self.own.early_refusals
        while early:
            reason, count = early.popitem()
            writer.refuse(reason, count)
        return writer

    # Open traces.

    def own_traces(self) -> list[OpenTrace]:
        """Return the traces that this process opened and did not close yet."""
        pid = ring.own_pid()
        return [tracer for tracer in list(self.open_traces.values()) if tracer.owner_pid == pid]

    def all_traces(self) -> list[OpenTrace]:
        """Return every trace that takes records from this process, also those that others opened."""
        # A list first, since that is one step: another thread may attach meanwhile.
        joined = [reference() for reference in list(self._attached)]
        return [*self.open_traces.values(), *(tracer for tracer in joined if tracer is not None)]

    def light(self, trace_id: bytes) -> Beacon | None:
        """Say to the forks of this process that it has this trace open. None: it cannot be said."""
        own = self.own
        if own.beacons is None:
            try:
                own.beacons = Page()
            except (OSError, ImportError) as error:
                let_pass(error)
                return None
        return own.beacons.light(trace_id)

    def attach(self, tracer: OpenTrace) -> None:
        """Note that this process may add to a trace of another one."""
        self._attached[ref(tracer, self._attached.pop)] = None

    def begin_flush(self, flushed: Flush) -> None:
        """Tell a call of `flush`, as long as it lives, which traces close from now on."""
        flushes = self.own.flushes
        flushes[ref(flushed, flushes.pop)] = None

    def closed_now(self, trace_id: bytes) -> None:
        """Tell the calls of `flush` under way that a trace closed after they began."""
        for reference in list(self.own.flushes):
            flushed = reference()
            if flushed is not None:
                flushed.later.add(trace_id)


process: Final = Process()
