"""A closed trace's body: labels and error into the runner, then the size, then trimming. Masking is done before.

A trace that trimming cannot make small enough is cut: first its texts, then events from the end on, then exceptions
from the end on. At the very last a stub of the runner is sent. The runner's metadata says, within the limit, what was
taken away.

What the trace's process lost before is added last, if there is room. No event loses anything for it.
"""

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.collector.assembling import runners
from epsagon_fast.collector.assembling.events import whole
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.assembling.runners import Runner
from epsagon_fast.collector.assembling.stream import joined_bytes
from epsagon_fast.collector.formats import FittedTrace
from epsagon_fast.rows import NamedTuple, maker
from epsagon_fast.trimming import TraceTooBig


class Body(NamedTuple):
    """A trace's body, and what was cut to make it fit."""

    # In its destination's format. None: not even the runner's stub fits, and everything counts as dropped.
    data: bytes | None
    # The size without a limit, in our own form.
    size_before_bytes: int
    trimmed: bool
    # How many events were visited to be stripped, the runner among them.
    stripped_count: int
    dropped_events: int
    dropped_exceptions: int
    # Whether the trace's `dropped_records` are in it.
    told: bool = False

    @property
    def size_bytes(self) -> int:
        """The size of what is sent."""
        return len(self.data or b"")


_body = maker(Body)


def build(trace: OpenTrace) -> Body:
    """Return a closed trace's body, never over the trace's limit. Counts what it has to drop as `too_big`."""
    try:
        usual = whole(trace)
        if usual is not None:
            return _body((*usual, False, 0, 0, 0, False))
        body = _built(trace)
    except ValueError:
        # The trimmer found an event that is not JSON.
        trace.stream.discard_broken()
        body = _built(trace)
    if gone := body.dropped_events + body.dropped_exceptions:
        trace.counters["too_big"] += gone
    return body


def _built(trace: OpenTrace) -> Body:
    runner = _dressed(trace)
    own = None if runner is None else orjson.dumps(runner)
    before = _size_before(trace, own)
    if before <= trace.limit_bytes:
        return _untouched(trace, own, before)
    if not trace.stream.is_too_big:
        try:
            return _trimmed(trace, runner, before)
        except TraceTooBig:
            trace.stream.give_up()
    return _cut(trace, runner, before)


def _dressed(trace: OpenTrace) -> Runner | None:
    if trace.runner is None:
        return None
    runner = runners.with_labels(trace.runner, trace.labels)
    return runner if trace.error is None else runners.with_error(runner, trace.error)


def _size_before(trace: OpenTrace, runner: bytes | None) -> int:
    stream = trace.stream
    events = stream.event_count + (runner is not None)
    runner_bytes = 0 if runner is None else len(runner)
    return trace.envelope.size_bytes + stream.arrived_bytes + _commas(events, stream.exception_count) + runner_bytes


def _commas(events: int, exceptions: int) -> int:
    return max(0, events - 1) + max(0, exceptions - 1)


def _place(trace: OpenTrace, events: list[bytes]) -> int:
    """Return where the runner stands among the events that are left."""
    return len(events) if trace.runner_place is None else min(trace.runner_place, len(events))


def _untouched(trace: OpenTrace, runner: bytes | None, size: int) -> Body:
    """Return the body of a trace that fits. So it always did, and nothing was taken away before."""
    events = trace.stream.events
    place = _place(trace, events)
    if runner is not None:
        events = [*events[:place], runner, *events[place:]]
    data, told = _whole(trace, events, trace.stream.exceptions, place)
    return Body(data, size, False, 0, 0, 0, told)


def _trimmed(trace: OpenTrace, runner: Runner | None, before: int) -> Body:
    """Trim a trace of which the first events may be stripped already. Raises TraceTooBig."""
    stream = trace.stream
    stream.level_all()
    events = stream.events.copy()
    done, limit, reserve = stream.stripped_count, trace.limit_bytes, 0
    place = _place(trace, events)
    if runner is not None:
        reserve = runners.MARKER_BYTES
        if place < done:
            # It stands before an event that had to be stripped.
            runner = cutting.stripped(runner)
            done += 1
        events.insert(place, stream.leveled(orjson.dumps(runner)))
    if done or stream.level_bytes:
        # Something was taken away early, so the trace needs room for its marker even if the rest fits.
        limit, reserve = max(0, limit - reserve), 0
    rest = events[done:]
    outside = trace.envelope.size_bytes + joined_bytes(events) - joined_bytes(rest)
    result = stream.fitted(rest, limit, outside, reserve)
    events[done:] = result.events
    stripped = done + result.stripped_count
    trimmed = stripped > 0 or stream.level_bytes > 0 or result.shortened_count > 0
    if trimmed and runner is not None:
        events[place] = orjson.dumps(runners.with_metadata(orjson.loads(events[place]), runners.marks(0, 0, 0)))
    data, told = _whole(trace, events, result.exceptions, place)
    return Body(data, before, trimmed, stripped, 0, 0, told)


def _cut(trace: OpenTrace, runner: Runner | None, before: int) -> Body:
    """Fit a trace that was given up: all of it is stripped, its texts are cut, and it may still be too big."""
    stream = trace.stream
    events, exceptions = stream.events.copy(), stream.exceptions.copy()
    size = trace.envelope.size_bytes + sum(map(len, events)) + sum(map(len, exceptions))
    dropped_labels = 0
    if runner is not None:
        runner, dropped_labels = runners.cut(runner, trace.labels)
        size += len(orjson.dumps(runner))
    own = int(runner is not None)
    while True:
        gone = stream.event_count - len(events), stream.exception_count - len(exceptions)
        marks = runners.marks(*gone, dropped_labels)
        commas = _commas(len(events) + own, len(exceptions))
        if size + commas + runners.marks_bytes(marks) * own <= trace.limit_bytes:
            break
        last = events or exceptions
        if not last:
            return _stub(trace, runner, marks, before)
        size -= len(last.pop())
    place = _place(trace, events)
    if runner is not None:
        events.insert(place, orjson.dumps(runners.with_metadata(runner, marks)))
    data, told = _whole(trace, events, exceptions, place)
    return Body(data, before, True, stream.event_count + own, *gone, told)


def _stub(trace: OpenTrace, runner: Runner | None, marks: dict[str, str], before: int) -> Body:
    """Return a body with nothing but what is left of the runner, or none."""
    stream = trace.stream
    room = trace.limit_bytes - trace.envelope.size_bytes - runners.marks_bytes(marks)
    smaller = cutting.fitted_stub(runner, room) if runner is not None else None
    if smaller is None:
        return Body(None, before, True, 0, stream.event_count, stream.exception_count)
    marked = orjson.dumps(runners.with_metadata(orjson.loads(smaller), marks))
    data = trace.envelope.body(FittedTrace(trace.trace_id, [marked], 0, []))
    return Body(data, before, True, stream.event_count + 1, stream.event_count, stream.exception_count)


def _whole(trace: OpenTrace, events: list[bytes], exceptions: list[bytes], place: int) -> tuple[bytes, bool]:
    """Return the body of what is left, the runner at `place`, and whether it tells what the process lost."""
    told = False
    if trace.dropped_records is not None and trace.runner is not None:
        news = {runners.DROPPED_RECORDS_KEY: trace.dropped_records}
        runner = orjson.dumps(runners.with_metadata(orjson.loads(events[place]), news))
        size = trace.envelope.size_bytes + joined_bytes(events) + joined_bytes(exceptions)
        told = size - len(events[place]) + len(runner) <= trace.limit_bytes
        if told:
            events = [*events[:place], runner, *events[place + 1 :]]
    runner_place = None if trace.runner is None else place
    return trace.envelope.body(FittedTrace(trace.trace_id, events, runner_place, exceptions)), told
