"""The state of tracing in this process: one object, `process`, and no other module variable.

    process         a forked child inherits it: the config in force, the open traces, whether it was shut down
    process.own     a forked child gets a new one: rings, refusals, what was done for this very process's end

A child renews `own` when it first reads it. A hook at the fork would not do: a fork in C runs no hook, and an exception
that a signal handler raises inside a hook would never reach the application.

There is no lock: a signal handler may interrupt between any two lines, and a fork could leave a lock locked for ever.
A decision that must be made once is made by one operation of a dict or a list, which the GIL makes whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import ref

from epsagon_fast.compiled import REFERENCE
from epsagon_fast.config import Config, ResolvedConfig
from epsagon_fast.hints import Any, Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import forget_warnings, logger
from epsagon_fast.pages import see
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import ring
from epsagon_fast.queue.beacon import Page
from epsagon_fast.queue.writers import Writers
from epsagon_fast.rows import NamedTuple

from .interfaces import Flush, RegisteredTracer, TraceWriter
from .late_imports import import_now
from .memory import MemoryWriter
from .own import FirstUse, Own, ProcessPath


class _InForce(NamedTuple):
    asked: Config
    config: ResolvedConfig
    # Whether a trace with this config is recorded if no test captures it.
    records: bool


def _in_force(asked: Config) -> _InForce:
    config = asked.resolve()
    return _InForce(asked, config, config.enabled or (config.test_mode and not config.disable))


def _make_ready() -> None:
    """Import what traces need later, or may."""
    logger()
    import_now()


class Process(ProcessPath):
    """A traced process. There is one, `process` below; tests renew it with `reset`."""

    def __init__(self) -> None:
        # Not part of `reset`, because the interpreter keeps its hook.
        self.has_exit_hook = False
        # Tells how many records had no trace since the last call, if compiled code counts them by itself.
        self.untold: Callable[[], int] = int
        self.reset()

    def reset(self, make_writers: Callable[[Callable[[], Writers]], Writers] = Writers) -> None:
        """Forget everything, as in a process that never traced. Rings stay in their files for the collector.

        `make_writers`: makes the writers here and in forked children.
        """
        self.untold()
        self._make_writers = make_writers
        # No process has the pid 0, so the first look renews this.
        self._own = Own(0, make_writers(lambda: self.writers))
        # The last arguments of `init`, or the environment's values at the first trace without `init`.
        self._in_force: _InForce | None = None
        self.is_shut_down = False
        # Traces that this process or an ancestor of it opened, by id. The thread that takes one out closes it.
        self.open_traces: dict[bytes, RegisteredTracer] = {}
        # Traces of other processes that this one may add to. A dead reference removes itself by a method in C, because
        # an exception that a signal handler raises in a Python callback would never reach the application.
        self._attached: dict[ref[RegisteredTracer], None] = {}
        # The global tracer, if there is one, under one key. A dict, because setdefault and pop decide between threads.
        self.global_tracer: dict[str, Any] = {}
        # Writers that take the queue's place while tests capture traces. The last one counts.
        self._captures: list[TraceWriter] = []
        # The pid of a server that is an ancestor of this process and waits for its traces at its own end; 0: none.
        self.waiting_parent_pid = 0
        forget_warnings()

    @property
    def own(self) -> Own:
        """The part that belongs to the running process alone."""
        own: Own = self._own
        return own if own.pid == ring.own_pid() else self._renewed(own)

    @property
    def writers(self) -> Writers:
        """The writers of the running process."""
        return self.own.writers

    def _renewed(self, inherited: Own) -> Own:
        new = Own(ring.own_pid(), self._make_writers(lambda: self.writers))
        # Two threads both get the object of the first one.
        self._own = heir = inherited.heirs.setdefault("heir", new)
        return heir

    # The config.

    def init(self, asked: Config) -> ResolvedConfig:
        """Put a config in force for traces that open from now on. The same config again changes nothing."""
        in_force = self._in_force
        if in_force is None or in_force.asked != asked:
            in_force = _in_force(asked)
            self.check_first_use(asked, in_force.config)
            self._in_force = in_force
            if in_force.records:
                # While the program starts, and not in its first trace.
                _make_ready()
        self.is_shut_down = False
        return in_force.config

    def config(self) -> ResolvedConfig:
        """Return the config in force; it comes from the environment if `init` was never called."""
        in_force = self._in_force
        if in_force is None:
            if self._captures:
                # Nothing is sent, so nothing is missing. Not kept: what opens after the capture may have to warn.
                return Config().resolve(warn=False)
            # Kept, because resolving costs as much as a whole trace, and a worker's environment does not change.
            in_force = self._in_force = _in_force(Config())
        return in_force.config

    def setting(self, name: str) -> Any:
        """Return one field of the config in force, or of the config that would be, without putting it in force.

        This is for processes that trace nothing themselves: they need no token, and no warning says that it is missing.
        """
        return getattr(self._in_force.config, name) if self._in_force else Config().value(name)

    def records(self, wanted: ResolvedConfig) -> bool:
        """Say whether a trace with this config is recorded at all. While tests capture traces, every trace is."""
        return wanted.enabled or bool(self._captures) or (wanted.test_mode and not wanted.disable)

    def samples(self, wanted: ResolvedConfig) -> bool:
        """Say whether a trace with this config may be left out at its start. While tests capture traces, none is."""
        return wanted.sample_rate < 1.0 and not self._captures

    def records_nothing(self) -> bool:
        """Say whether a trace that opened now would not be recorded; False if no config is in force yet."""
        in_force = self._in_force
        return in_force is not None and not in_force.records and not self._captures

    def check_first_use(self, asked: Config, wanted: ResolvedConfig) -> None:
        """Raise ValueError if `wanted` asks for another place or size than those of the ring that this process has.

        A size that code does not ask for follows from the trace limit. The existing ring serves a larger limit too.
        """
        for name, fixed in (self.own.first_use or self._joined(wanted))._asdict().items():
            value = getattr(wanted, name)
            if value != fixed and not (name == "ring_bytes" and asked.ring_bytes is None):
                raise ValueError(
                    f"{name}={value!r} comes too late: this process already uses {fixed!r}{see('options')}"
                )

    def _joined(self, wanted: ResolvedConfig) -> FirstUse:
        """Return what is fixed before this process opens a trace: the ring with which it adds to those of others."""
        joined = self.own.joined
        path = folders.existing(wanted.runtime_dir) if joined else None
        return FirstUse(wanted.runtime_dir, joined.get(path or "", wanted.ring_bytes))

    # Where records go.

    def writer_for(self, wanted: ResolvedConfig) -> TraceWriter:
        """Return the writer for a trace that opens now."""
        if self._captures:
            return self._captures[-1]
        if wanted.test_mode:
            return MemoryWriter()
        own = self.own
        is_first = own.first_use is None
        if is_first:
            own.first_use = FirstUse(wanted.runtime_dir, wanted.ring_bytes)
        writer = own.writers.current(wanted)
        if is_first:
            # After the writer has started a collector, because both take as long.
            _make_ready()
            if wanted.debug and ring.IMPLEMENTATION == REFERENCE:
                logger().debug("the ring is in plain Python: it does the same as the compiled one, slower")
        return self._counted(writer, own)

    def writer_at(self, path: str, ring_bytes: int) -> TraceWriter:
        """Return the writer with which this process adds to a trace in the folder `path`."""
        for capture in self._captures:
            if capture.path == path:
                return capture
        own = self.own
        own.joined.setdefault(path, ring_bytes)
        return self._counted(own.writers.at(path, ring_bytes), own)

    @contextmanager
    def capturing(self, capture: TraceWriter) -> Iterator[None]:
        """Let `capture` take the queue's place inside a `with` block, even after a shutdown."""
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
        self._count_untold()
        own = self.own
        return sum((Counter(writer.refusals()) for writer in own.writers.known()), Counter(own.early_refusals))

    def _count_untold(self) -> None:
        count = self.untold()
        if count:
            self.refuse("no_trace", count)

    def _counted(self, writer: TraceWriter, own: Own) -> TraceWriter:
        """Let a writer count what was refused and left out before, here and by compiled code."""
        count = self.untold()
        if count:
            writer.refuse("no_trace", count)
        early = own.early_refusals
        while early:
            reason, count = early.popitem()
            writer.refuse(reason, count)
        if own.left_out:
            self._tell_left_out(writer)
        return writer

    def tell_left_out(self) -> None:
        """Write how many traces the head has left out into a ring, if this process has one."""
        for writer in self.own.writers.known()[-1:]:
            self._tell_left_out(writer)

    def _tell_left_out(self, writer: TraceWriter) -> None:
        own = self.own
        if own.left_out:
            count, own.left_out = own.left_out, 0
            writer.leave_out(count)

    # Open traces.

    def own_traces(self) -> list[RegisteredTracer]:
        """Return the traces that this process has opened and not closed."""
        pid = ring.own_pid()
        return [tracer for tracer in list(self.open_traces.values()) if tracer.owner_pid == pid]

    def all_traces(self) -> list[RegisteredTracer]:
        """Return every trace to which this process may add, including those that other processes opened."""
        # Making a list first is one step. Another thread may attach meanwhile.
        joined = [reference() for reference in list(self._attached)]
        return [*self.open_traces.values(), *(tracer for tracer in joined if tracer is not None)]

    def beacons(self) -> Page | None:
        """Return what shows this process's forked children which traces it has open. None: that is not possible."""
        own = self.own
        if own.beacons is None:
            try:
                own.beacons = Page()
            except (OSError, ImportError) as error:
                let_pass(error)
        return own.beacons

    def attach(self, tracer: RegisteredTracer) -> None:
        """Note that this process may add to a trace of another process."""
        self._attached[ref(tracer, self._attached.pop)] = None

    def begin_flush(self, flushed: Flush) -> None:
        """Tell a call of `flush` which traces close from now on, as long as it lives."""
        flushes = self.own.flushes
        flushes[ref(flushed, flushes.pop)] = None

    def closed_now(self, trace_id: bytes) -> None:
        """Tell the calls of `flush` that are under way that a trace has closed after they began."""
        for reference in list(self.own.flushes):
            flushed = reference()
            if flushed is not None:
                flushed.later.add(trace_id)


process: Final = Process()
