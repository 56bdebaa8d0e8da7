"""For the tests of applications: `capture_traces()` collects what they trace, in memory.

No process, no file, no collector; the same code as in the collector assembles, masks and trims.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.producer import process
from epsagon_fast.producer.memory import MemoryWriter
from epsagon_fast.protocol import Outcome, Record

Trace = dict[str, Any]


@contextmanager
def capture_traces() -> Iterator[list[Trace]]:
    """Collect the traces that finish in this process as a list of parsed bodies, in the order in which they close.

    Every thread's traces that open inside the block are taken, and nothing is sent; no token is needed, and neither
    `disable` nor a `shutdown` before the block keeps them out. What is added to a trace from other processes is not
    seen. Of nested blocks the inner one takes the traces that open in it.

        with capture_traces() as traces:
            handle_request()
        assert traces[0]["events"][-1]["error_code"] == 0
    """
    capture = _Capture()
    was_shut_down = process.is_shut_down()
    process.shut_down(False)
    process.captures.append(capture)
    try:
        yield capture.traces
    finally:
        process.captures.remove(capture)
        process.shut_down(was_shut_down or process.is_shut_down())


class _Capture(MemoryWriter):
    """A queue and a collector in one."""

    outcome = Outcome.DELIVERED

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[Trace] = []

    def finish(self, records: list[Record]) -> None:
        """Do what the collector does with one trace's records."""
        assembly = Assembly()
        for record in records:
            assembly.feed(b"", assembly.masked(record), 0.0)
        # A closing is acted on one whole pass after the one that saw it.
        for closed in [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]:
            data = body.build(closed.trace).data
            if data is not None:
                self.traces.append(json.loads(data))
