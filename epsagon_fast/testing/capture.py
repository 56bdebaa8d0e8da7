"""Collecting the traces of a `with` block in memory. The code that assembles, masks and trims is the collector's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from epsagon_fast.collector.assembling import body
from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.integrations.web.wsgi_request import WsgiRequest
from epsagon_fast.producer.memory import MemoryWriter
from epsagon_fast.producer.process import process
from epsagon_fast.protocol import Kind, Outcome, Record

from .tree import Trace


@contextmanager
def capture_traces() -> Iterator[list[Trace]]:
    """Collect the traces that finish in this process as a list of `Trace`, in the order in which they close.

    The block takes every trace that opens while it runs, in any thread, and sends none. It needs no token and works
    with `disable` set and after a `shutdown`. Traces have our own form, whichever the backend takes. It does not see
    what other processes add to a trace. Of nested blocks the inner one takes the traces that open in it. A request
    whose answer a test client keeps unread ends with the block.

        with capture_traces() as traces:
            client.post("/orders")
        assert traces[0].runner["error_code"] == 0
        assert str(traces[0].tree()) == "localhost\n    charge"
    """
    capture = _Capture()
    with process.capturing(capture):
        try:
            yield capture.traces
        finally:
            capture.end_unread_answers()


def reset() -> None:
    """Forget what `init` said, what was warned of, and every trace: the next test is the first thing that is traced.

    Open traces are closed as unfinished. Not inside `capture_traces`.
    """
    for tracer in process.all_traces():
        tracer.abandon()
    for writer in process.writers.known():
        writer.bye()
    process.reset()


def _in_our_form(opened: Record) -> Record:
    """Return an OPEN without the backend, whose URL decides how a trace is written."""
    said = orjson.loads(opened.payload)
    return opened._replace(payload=orjson.dumps({**said, "config": {**said["config"], "collector_url": ""}}))


class _Capture(MemoryWriter):
    """A queue and a collector in one."""

    outcome = Outcome.DELIVERED

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[Trace] = []

    def end_unread_answers(self) -> None:
        """End the traces of requests that a test client has answers to and never closes."""
        for tracer in process.all_traces():
            if isinstance(tracer, WsgiRequest) and bytes.fromhex(tracer.trace_id) in self.records:
                tracer.end_unread()

    def finish(self, records: list[Record]) -> None:
        """Do what the collector does with one trace's records."""
        assembly = Assembly()
        for record in records:
            record = _in_our_form(record) if record.kind == Kind.OPEN else record
            assembly.feed(b"", assembly.masked(record), 0.0)
        # The assembly acts on a CLOSE one whole pass after the pass that saw it, hence two passes.
        for trace in [*assembly.end_pass(0.0), *assembly.end_pass(0.0)]:
            data = body.build(trace).data
            if data is not None:
                self.traces.append(Trace(json.loads(data)))
