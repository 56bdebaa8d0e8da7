"""Send one trace and show what became of it at each hop: folder, queue, collector, backend.

Exit code 0 if the backend took it.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import epsagon_fast as epsagon
import epsagon_fast.compiled as compiled
from epsagon_fast.config import ResolvedConfig, otlp_url
from epsagon_fast.foreign import escaped, origin
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue import launch

TRACE_NAME = "epsagon-fast doctor"
START_TIMEOUT_S = 5.0


class Hop(NamedTuple):
    """The finding at one place on the trace's way."""

    name: str
    is_well: bool
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no option: the environment says what is tried."""


def run(arguments: argparse.Namespace) -> int:
    """Print each hop, stop at the first that is ill; return 0 if all are well, else 1."""
    config = epsagon.Config().resolve()
    for hop in _hops(config):
        print(f"{'ok ' if hop.is_well else 'BAD'}  {hop.name:<10} {escaped(hop.text)}", flush=True)
        if not hop.is_well:
            return 1
    return 0


def _hops(config: ResolvedConfig) -> Iterator[Hop]:
    checks: tuple[Callable[[ResolvedConfig], Hop], ...] = (_config, _build, _folder, _queue, _collector, _backend)
    return (check(config) for check in checks)


def _config(config: ResolvedConfig) -> Hop:
    if not config.enabled:
        off = "DISABLE_EPSAGON, OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER is set"
        return Hop("config", False, off if config.disable else "EPSAGON_TOKEN is not set")
    token = "a token is set" if config.token else "no token is needed"
    advised = otlp_url(config.collector_url)
    advice = f"; it looks like an OTLP endpoint: name it {advised}" if advised else ""
    return Hop("config", True, f"{token}, traces go to {origin(config.collector_url)}{advice}")


def _build(config: ResolvedConfig) -> Hop:
    # Plain Python is slower, but not a fault.
    parts = ", ".join(f"{part} {which}" for part, which in compiled.overview().items())
    return Hop("build", True, f"{epsagon.__version__}; {parts}")


def _folder(config: ResolvedConfig) -> Hop:
    try:
        path = folders.resolve(config.runtime_dir).path
    except OSError as error:
        return Hop("folder", False, error.strerror or str(error))
    kind = "in memory" if folders.is_memory(path) else "not in memory: recording may wait for the disk"
    return Hop("folder", True, f"{path} ({kind})")


def _queue(config: ResolvedConfig) -> Hop:
    mine = process.writers.current(config)
    if mine.lacking:
        return Hop("queue", False, f"no ring could be made: {mine.lacking}")
    return Hop("queue", True, f"a ring that takes records of up to {mine.record_limit_bytes} bytes")


def _collector(config: ResolvedConfig) -> Hop:
    mine = process.writers.current(config)
    if not mine.collector_lives() and not launch.allowed():
        return Hop("collector", False, "none runs, and EPSAGON_LAUNCH=0 keeps processes from starting one")
    deadline = time.monotonic() + START_TIMEOUT_S
    while mine.collector_may_come() and not mine.collector_lives() and time.monotonic() < deadline:
        mine.ensure_collector()
        time.sleep(0.01)
    if not mine.collector_lives():
        return Hop("collector", False, f"none runs and none could be started; see {mine.path}/log")
    return Hop("collector", True, "holds the folder")


def _backend(config: ResolvedConfig) -> Hop:
    tracer = epsagon.create_tracer(config)
    with tracer:
        tracer.add_event({"resource": {"name": TRACE_NAME, "type": "doctor"}, "origin": "runner"})
    outcome = tracer.stop()
    if outcome != Outcome.PENDING:
        return Hop("backend", outcome == Outcome.DELIVERED, f"{origin(config.collector_url)}: {outcome}")
    if not process.writers.current(config).drained():
        return Hop("backend", False, "the collector does not read the queue; see `epsagon-fast status`")
    where = origin(config.collector_url)
    return Hop("backend", False, f"{where} does not take the trace yet; it is kept and tried again")
