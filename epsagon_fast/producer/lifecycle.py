"""The calls that concern all traces of a process: `init`, `flush`, `shutdown`."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Set

from epsagon_fast.config import Attributes, Config, Headers, Hook
from epsagon_fast.queue.writer import Writer

from .process import process
from .reporting import report, report_all, report_new_refusals
from .waiting import pauses


def init(
    *,
    application_name: str | None = None,
    token: str | None = None,
    collector_url: str | None = None,
    headers: Headers | None = None,
    resource_attributes: Attributes | None = None,
    metadata_only: bool | None = None,
    privacy: str | None = None,
    allowed_keys: list[str] | tuple[str, ...] | Set[str] | None = None,
    allowed_exceptions: list[str] | tuple[str, ...] | Set[str] | None = None,
    before_send: Hook | None = None,
    debug: bool | None = None,
    send_timeout_s: float | None = None,
    disable: bool | None = None,
    test_mode: bool | None = None,
    ignored_keys: list[str] | tuple[str, ...] | Set[str] | None = None,
    default_ignored_keys: bool | None = None,
    masking: str | None = None,
    max_trace_size_bytes: int | None = None,
    trimming: str | None = None,
    sampling: str | None = None,
    sample_rate: float | None = None,
    runtime_dir: str | os.PathLike[str] | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    ring_bytes: int | None = None,
    shutdown_timeout_s: float | None = None,
) -> Config:
    """Set the options for traces that open from now on: see Config. Returns the config in force.

    The same options again change nothing. After `shutdown` this makes tracing work again. Raises TypeError or
    ValueError for a value that is not allowed, and ValueError for another runtime_dir or ring_bytes than this process
    already uses.
    """
    # The first line of the function, so that locals() are its parameters.
    return process.init(Config(**locals()))


def flush(timeout_s: float = 2.0) -> bool:
    """Wait until no trace that this process closed before the call is pending any more, at most `timeout_s` seconds.

    Return whether that is so. Traces that close during the call do not count. Records that were refused since the last
    call are logged with their number: no trace holds them.
    """
    mine = _Flush()
    for pause in mine.until_settled(timeout_s):
        time.sleep(pause)
    return mine.is_done()


async def aflush(timeout_s: float = 2.0) -> bool:
    """Do the same as `flush` without holding up the event loop."""
    import asyncio

    mine = _Flush()
    for pause in mine.until_settled(timeout_s):
        await asyncio.sleep(pause)
    return mine.is_done()


def shutdown(timeout_s: float | None = None) -> None:
    """Close this process's open traces as unfinished, flush, and refuse records until `init` is called again.

    Traces that another process opened (inherited or attached ones) stay open there.

    `timeout_s`: seconds to wait at most; by default the config's shutdown_timeout_s, which is 2 by default.
    """
    process.is_shut_down = True
    for tracer in process.all_traces():
        tracer.abandon()
    flush(process.config().shutdown_timeout_s if timeout_s is None else timeout_s)


class _Flush:
    """One call of `flush`. It counts the traces of each ring that were closed before it began."""

    def __init__(self) -> None:
        # Traces that have closed since the call and are not known to be settled.
        self.later: set[bytes] = set()
        self._settled_later: Counter[Writer] = Counter()
        process.begin_flush(self)
        self._closed = {writer: writer.closed for writer in process.writers.known()}

    def is_done(self) -> bool:
        """Say whether all traces that were closed before the call are settled; log new reasons and refusals."""
        report_all()
        report_new_refusals()
        return not self._unsettled()

    def until_settled(self, timeout_s: float) -> Iterator[float]:
        """Yield pauses until all these traces are settled or the time is up."""
        for pause in pauses(timeout_s):
            unsettled = self._unsettled()
            if not unsettled:
                return
            for writer in unsettled:
                writer.ensure_collector()
            yield pause

    def _unsettled(self) -> list[Writer]:
        return [writer for writer, closed in self._closed.items() if self._settled_of(writer) < closed]

    def _settled_of(self, writer: Writer) -> int:
        """Return how many of the traces that were closed before the call are settled, at least."""
        settled = writer.settled
        if settled >= writer.closed:
            return settled
        report(writer)
        later = {trace_id for trace_id in self.later.copy() if writer.settlement(trace_id) is not None}
        self.later -= later
        self._settled_later[writer] += len(later)
        return settled - self._settled_later[writer]
