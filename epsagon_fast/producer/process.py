"""What one process has in force: its config, its open traces, where its records go, whether it was shut down.

No lock anywhere: a signal handler may come in between any two lines, and a fork would leave a lock locked for ever.
What must be decided once is decided by one operation of a dict or a list, which the GIL makes whole.
"""

import importlib
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol
from weakref import ref

from epsagon_fast.compiled import REFERENCE
from epsagon_fast.config import Config, ResolvedConfig, logger, may_need_proxy, warn_once
from epsagon_fast.interrupts import let_pass
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue import ring
from epsagon_fast.queue import writer as writers

from .memory import MemoryWriter

# Where the functions live that worker processes of pools run.
POOLS: Final = ("multiprocessing.pool", "concurrent.futures.process")


class OpenTrace(Protocol):
    """A tracer, as far as a process that leaves is concerned."""

    owner_pid: int

    def abandon(self) -> None: ...


class Writer(Protocol):
    """What a tracer needs of the queue's writer; `memory.MemoryWriter` offers the same without a queue."""

    path: str
    # Why it has no ring and refuses everything; None if it has one.
    lacking: str | None
    record_limit_bytes: int

    @property
    def push(self) -> Callable[[int, int, bytes, bytes], int]: ...
    def attend(self, code: int, kind: int, flags: int, trace_id: bytes, payload: bytes) -> bool: ...
    def refuse(self, reason: str, count: int = 1) -> None: ...
    def refusals(self) -> dict[str, int]: ...
    def settlement(self, trace_id: bytes) -> Outcome | None: ...
    def recent_settlements(self) -> list[tuple[bytes, Outcome]]: ...
    @property
    def overflowed(self) -> bool: ...
    def ensure_collector(self) -> None: ...
    def collector_may_come(self) -> bool: ...


class Flush(Protocol):
    """A call of `flush`, as far as a trace that closes meanwhile is concerned."""

    later: set[bytes]


class _InForce(NamedTuple):
    asked: Config
    config: ResolvedConfig


# What `init` was last told, or the environment's word at the first trace without it.
_in_force: _InForce | None = None
_is_shut_down = False
# (pid, runtime_dir, ring_bytes) of this process's first ring.
_first_use: tuple[int, str, int] | None = None

# Traces opened by this process or by an ancestor that forked it, by id. Taking one out is what decides who closes it.
open_traces: dict[bytes, OpenTrace] = {}
# Traces of other processes that this one may add to. Each reference takes itself out; by no function of ours, since
# what a signal's handler raised in one would never reach the application.
attached: dict[ref[OpenTrace], None] = {}
# Stand in for the queue while tests capture traces; the last one counts.
captures: list[Writer] = []
# The calls of `flush` under way: each is told which traces close after it. References, as above: an exception from
# outside may end a call anywhere, and one that stayed here would be told of traces for ever.
flushes: dict[ref["Flush"], None] = {}
# Refusals from before there was a ring to count them in.
_early_refusals: Counter[str] = Counter()


def init(asked: Config) -> ResolvedConfig:
    """Put a config in force for traces opened from now on; the same one again changes nothing."""
    global _in_force, _is_shut_down
    in_force = _in_force
    if in_force is None or in_force.asked != asked:
        in_force = _InForce(asked, asked.resolve())
        check_first_use(asked, in_force.config)
        _in_force = in_force
    _is_shut_down = False
    return in_force.config


def config() -> ResolvedConfig:
    """Return the config in force, from the environment if `init` was never called."""
    global _in_force
    if _in_force is None:
        # Kept: resolving costs as much as a whole trace, and a long-lived worker's environment does not change.
        _in_force = _InForce(Config(), Config().resolve())
    return _in_force.config


def setting(name: str) -> Any:
    """Return one field of the config in force, or of the one that would be, without putting it in force.

    For processes that trace nothing themselves: they need no token, and say nothing about its lack.
    """
    return getattr(_in_force.config, name) if _in_force else Config().value(name)


def records(wanted: ResolvedConfig) -> bool:
    """Say whether a trace with this config is recorded at all; while tests capture traces every one is."""
    return bool(captures) or wanted.enabled or (wanted.test_mode and not wanted.disable)


def shut_down(value: bool = True) -> None:
    """Refuse every record from now on, until `init` is called again; False: take them again."""
    global _is_shut_down
    _is_shut_down = value


def is_shut_down() -> bool:
    """Say whether `shutdown` was called and no `init` after it."""
    return _is_shut_down


def check_first_use(asked: Config, wanted: ResolvedConfig) -> None:
    """Raise ValueError if this process already has a ring that `wanted` places or sizes otherwise.

    A size that was not asked for follows the trace limit; the ring that is there serves a larger limit as well.
    """
    if _first_use is None or _first_use[0] != ring.own_pid():
        return
    for name, value, fixed in (
        ("runtime_dir", wanted.runtime_dir, _first_use[1]),
        ("ring_bytes", wanted.ring_bytes, _first_use[2]),
    ):
        if value != fixed and not (name == "ring_bytes" and asked.ring_bytes is None):
            raise ValueError(f"{name}={value!r} comes too late: this process already uses {fixed!r}")


def writer_for(wanted: ResolvedConfig) -> Writer:
    """Return where a trace that opens now puts its records."""
    global _first_use
    if captures:
        return captures[-1]
    if wanted.test_mode:
        return MemoryWriter()
    pid = ring.own_pid()
    if _first_use is None or _first_use[0] != pid:
        _first_use = (pid, wanted.runtime_dir, wanted.ring_bytes)
        logger()
        _import_what_comes_late()
        if wanted.debug and ring.IMPLEMENTATION == REFERENCE:
            logger().debug("the ring is in plain Python: it does the same as the compiled one, slower")
    return _counted(writers.current(wanted))


def writer_at(path: str, ring_bytes: int) -> Writer:
    """Return where this process adds to a trace that lives in the folder `path`."""
    for capture in captures:
        if capture.path == path:
            return capture
    return _counted(writers.at(path, ring_bytes))


def refuse(reason: str, count: int = 1) -> None:
    """Count records that no trace took."""
    mine = writers.known()
    if mine:
        mine[-1].refuse(reason, count)
    else:
        _early_refusals[reason] += count


def refusals() -> Counter[str]:
    """Return how many records this process refused, by reason."""
    return sum((Counter(writer.refusals()) for writer in writers.known()), Counter(_early_refusals))


def is_of_pool() -> bool:
    """Say whether this is a worker process of a pool: what it runs comes from anyone who has the pool."""
    processes = sys.modules.get("multiprocessing.process")
    target = getattr(processes.current_process(), "_target", None) if processes else None
    return getattr(target, "__module__", None) in POOLS


def own_traces() -> list[OpenTrace]:
    """Return the traces that this process opened and did not close yet."""
    pid = ring.own_pid()
    return [tracer for tracer in list(open_traces.values()) if tracer.owner_pid == pid]


def attach(tracer: OpenTrace) -> None:
    """Note that this process may add to a trace of another one."""
    attached[ref(tracer, attached.pop)] = None


def begin_flush(flushed: Flush) -> None:
    """Tell a call of `flush`, as long as it lives, which traces close from now on."""
    flushes[ref(flushed, flushes.pop)] = None


def closed_now(trace_id: bytes) -> None:
    """Tell the calls of `flush` under way that a trace closed after they began."""
    for reference in list(flushes):
        flushed = reference()
        if flushed is not None:
            flushed.later.add(trace_id)


def all_traces() -> list[OpenTrace]:
    """Return every trace that takes records from this process, also those that others opened."""
    # A list first, since that is one step: another thread may attach meanwhile.
    joined = [reference() for reference in list(attached)]
    return [*open_traces.values(), *(tracer for tracer in joined if tracer is not None)]


def report(writer: Writer) -> None:
    """Log each new reason for which a trace was not simply delivered. Reads memory only."""
    for _trace_id, outcome in writer.recent_settlements():
        if outcome.reason and outcome != Outcome.DELIVERED:
            warn_once(f"settled:{outcome.reason}", "A trace was %s: %s", outcome.name.lower(), outcome.reason)


def report_refusals(writer: Writer) -> None:
    """Log, once, that the ring was full. Reads memory only."""
    if writer.overflowed:
        warn_once("queue_full", "Records are refused, and counted: %s is full; see `epsagon-fast status`", writer.path)


def report_all() -> None:
    """Log the new reasons in all rings of this process."""
    for writer in writers.known():
        report(writer)


def _counted(writer: Writer) -> Writer:
    while _early_refusals:
        reason, count = _early_refusals.popitem()
        writer.refuse(reason, count)
    return writer


def _import_what_comes_late() -> None:
    """Import what this package else imports only where it is needed: with the first trace, and before a fork.

    Later it may not be there: the process has changed its user or its root, or its virtual environment was replaced.
    And a child that is forked in the middle of another thread's import, and needs the module too, waits for ever for
    its end.
    """
    late = ["mmap", "epsagon_fast.producer.stack", "urllib.parse", "epsagon_fast.trimming"]
    if may_need_proxy():
        late.append("urllib.request")
    for name in late:
        # The application is not to hear of a file that cannot be read or a descriptor that is lacking.
        try:
            importlib.import_module(name)
        except Exception as error:
            let_pass(error)
    # It registers hooks of its own, and complains if that happens during a fork: only an import under way is awaited.
    if getattr(getattr(sys.modules.get("logging"), "__spec__", None), "_initializing", False):
        _await_logging()


def _await_logging() -> None:
    """Wait for the end of another thread's import of logging, which for its part waits for logging's lock.

    At a fork this thread has that lock: logging's hook is registered in the middle of its import, after ours, and of
    hooks the last comes first.
    """
    lock: Any = getattr(sys.modules["logging"], "_lock", None)
    is_ours = lock is not None and lock._is_owned()
    if is_ours:
        lock.release()
    try:
        importlib.import_module("logging")
    finally:
        if is_ours:
            lock.acquire()


os.register_at_fork(before=_import_what_comes_late)
