"""The tracer: it opens, starts and closes one trace. Only the process that opened a trace can close it.

states.py says what each call does in each state. recorder.py brings records into this process's ring.
"""

import time
from collections.abc import Iterator, Mapping

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.hints import Any, Final
from epsagon_fast.log import logger
from epsagon_fast.pages import see
from epsagon_fast.protocol import (
    CLOSE_PAYLOAD,
    HTTP_TRACE_ID_KEY,
    NOT_MEASURED,
    TRACE_ID_BYTES,
    UNCHANGED,
    UNFINISHED,
    ErrorCode,
    Kind,
    Outcome,
)
from epsagon_fast.queue.beacon import Page
from epsagon_fast.queue.layout import CLOSE_BYTES, END, LOOK, PUSHED
from epsagon_fast.queue.ring import own_pid
from epsagon_fast.queue.writer import REASONS

from . import exiting, head
from .context import SAMPLED, TraceContext, context_of
from .entering import Started, close_once, parent_of
from .forkers import is_of_pool
from .guard import is_asking
from .handle import Handle
from .ids import SPAN_ID_DIGITS, kernel_bytes
from .opening import beginning, fitted_opening, footing_of
from .place import Place
from .process import process
from .recorder import Recorder
from .reporting import report
from .runner import Runner, encoded_runner
from .states import IN_A_RING, LEFT_OUT, NEW, OPEN, REFUSED, SILENT, TABLE, State
from .times import NS_PER_S
from .waiting import pauses

# Plain integers, because asking the enum for a member costs as much as a push.
_OPEN, _RUNNER, _CLOSE = int(Kind.OPEN), int(Kind.RUNNER), int(Kind.CLOSE)
# `stop` waits this much longer than a request may take.
STOP_MARGIN_S: Final = 1.0
# The reason of a PENDING outcome in a process that did not open the trace.
ELSEWHERE: Final = "opened by another process"


class Tracer(Started, Recorder):
    """A trace as one process sees it. Made by `create_tracer`, `trace` and `attach`.

    `config`: what the trace was opened with. `trace_id`: 32 hex digits. Usable in `with`: start, then the stop signal.
    """

    __slots__ = ()
    _own_runner: Runner | None
    _opened_ns: int
    _place: "Place[Tracer] | None"
    # Where this process's forked children see that the trace is open, and its place there.
    _beacons: Page | None
    _beacon: int
    _ended_ns: int | None

    def __init__(self, config: ResolvedConfig, runner: Runner | None = None, span_id: str | None = None) -> None:
        """`runner`: what `new_runner` made, last in the trace's body; None: the first such event added.

        `span_id`: the runner's, if others name it already.
        """
        self.config = config
        self._own_runner = runner
        self._state = NEW
        self._count = process.refuse
        self.context = self.ids = self._runner = self._place = self._beacons = self._ended_ns = None
        self._beacon = 0
        self._error_code = UNCHANGED
        self.typed = self._is_measured = False
        self._identify(span_id)
        if self.config.debug:
            logger().debug("tracer created: %s", self.trace_id)

    # Starting and stopping.

    def start(self, timeout_s: float = 1.0) -> None:
        """Open the trace in this process's ring. A second start, or one after the stop, is ignored.

        `timeout_s`: epsagon-go has this bound; here it is not used, because nothing waits. A ring is made in about a
        millisecond, and a trace that a full ring refuses is dropped and counted.
        """
        if self._open_at_once():
            return
        before, self._state = self._state, TABLE[self._state].start
        if self._state is before:
            return
        if self.owner_pid != own_pid():
            self._identify()
        if not process.records(self.config):
            self._record_nothing(SILENT, "disabled" if self.config.disable else "no token")
        elif self.config.is_guarded and is_asking():
            self._record_nothing(SILENT, "before_send")
        elif process.is_shut_down:
            self._count("closed")
            self._record_nothing(REFUSED, "closed")
        elif self.config.sample_rate < 1.0 and self._is_left_out():
            process.own.left_out += 1
            self._record_nothing(LEFT_OUT, head.REASON)
        else:
            self._open()

    def send_stop_signal(self) -> None:
        """Close the trace and return at once. In a process that did not open it, this does nothing."""
        if not self._close_at_once() and self.owner_pid == own_pid():
            self._close(TABLE[self._state].stop)

    def abandon(self) -> None:
        """Close the trace as unfinished, because its process ends or gives up tracing before the work is done.

        A trace that another process opened stays open there, and this process adds no more to it.
        """
        if self.owner_pid == own_pid():
            self._close(TABLE[self._state].abandon, UNFINISHED)
        else:
            self._leave()

    def update_and_close(
        self,
        metadata: Mapping[str, str] | None = None,
        error_code: ErrorCode | None = None,
        exception: BaseException | Mapping[str, Any] | None = None,
    ) -> None:
        """Update the runner and close the trace: `update_runner` and the stop signal, in one record."""
        if self._is_ours():
            self._close_with(self._update(metadata, error_code, exception))
        else:
            self.update_runner(metadata, error_code, exception)
            self.send_stop_signal()

    def restate_and_close(self, runner: Mapping[str, Any]) -> None:
        """Say what the runner is, now that its work is done, and close the trace.

        `runner`: an event in wire order, with the trace's id. The trace lasts as long as it says. An error that was set
        stays if it has none.
        """
        if self._is_ours():
            self._close_with(self._restatement(runner))
        else:
            self.send_stop_signal()

    def stop(self, timeout_s: float | None = None) -> Outcome:
        """Close the trace and wait until it is settled.

        `timeout_s`: by default the send timeout plus a second. Returns Outcome.PENDING if that was not enough.
        """
        self.send_stop_signal()
        for pause in self._until_settled(timeout_s):
            time.sleep(pause)
        return self._answer()

    async def astop(self, timeout_s: float | None = None) -> Outcome:
        """Do the same as `stop` without holding up the event loop."""
        import asyncio

        self.send_stop_signal()
        for pause in self._until_settled(timeout_s):
            await asyncio.sleep(pause)
        return self._answer()

    @property
    def running(self) -> bool:
        """Whether the tracer was started and not stopped."""
        return TABLE[self._state].running

    @property
    def stopped(self) -> bool:
        """Whether the tracer was stopped, here or, in a child that was forked inside the trace, by its opener."""
        return TABLE[self._state].stopped or (self.owner_pid != own_pid() and self._is_over_elsewhere())

    @property
    def is_left_out(self) -> bool:
        """Whether sampling has left the trace out at its start: what it calls is told so."""
        return self._state is LEFT_OUT

    @property
    def place(self) -> "Place[Tracer]":
        """The place that a context holds for this trace while the trace is open."""
        if self._place is None:
            self._place = Place(None if TABLE[self._state].stopped else self, self.within_id)
        return self._place

    def predate(self, started_ns: int) -> None:
        """Measure the trace's duration from `started_ns` on, a time of time.perf_counter_ns."""
        self._opened_ns = started_ns

    def stop_clock(self, ended_ns: int) -> None:
        """Measure the trace's duration up to `ended_ns`, a time of time.perf_counter_ns, whenever it closes."""
        self._ended_ns = ended_ns

    # A tracer stands for one trace, so a copy of an object that holds it holds the same tracer.

    def __copy__(self) -> "Tracer":
        return self

    def __deepcopy__(self, memo: object) -> "Tracer":
        return self

    def __reduce__(self) -> str:
        said = "a tracer cannot be pickled: give the other process its handle(), and attach() to it there"
        raise TypeError(said + see("several processes"))

    def handle(self) -> Handle:
        """Return a handle with which another process can add to this trace: picklable, without the token."""
        return Handle(
            trace_id=self.trace_id,
            runtime_dir=self._writer.path if self._state in IN_A_RING else "",
            max_trace_size_bytes=self.config.max_trace_size_bytes,
            metadata_only=self.config.metadata_only,
            privacy=self.config.privacy,
            allowed_keys=self.config.allowed_keys,
            allowed_exceptions=self.config.allowed_exceptions,
            debug=self.config.debug,
            context=context_of(self),
            parent_id=parent_of(self),
            ignored_keys=self.config.ignored_keys,
            trimming=self.config.trimming,
            default_ignored_keys=self.config.default_ignored_keys,
            masking=self.config.masking,
            keeps_types=self.typed,
        )

    # Inside.

    def _is_over_elsewhere(self) -> bool:
        """Say whether this process must not add to an inherited trace any more.

        The trace has ended, or this is a worker process of a pool, whose jobs do not all belong to that trace.
        """
        beacons = self._beacons
        return (beacons is not None and not beacons.shows(self._beacon, self._id)) or is_of_pool()

    def _is_left_out(self) -> bool:
        """Decide at the head, if it is to decide, and note the decision in the trace's context."""
        if not process.samples(self.config):
            return False
        self.context = head.decided(self, self.config.sample_rate)
        return not self.context.flags & SAMPLED

    def _leave(self) -> None:
        """Add no more to a trace that another process opened."""
        self._move_to(TABLE[self._state].leave)

    def _identify(self, span_id: str | None = None) -> None:
        """Take a new trace id. A child that starts a tracer of its parent takes one too: the parent may start it."""
        self.owner_pid = own_pid()
        begun = bytes.fromhex(span_id) if span_id else b""
        self._id = new = begun + kernel_bytes(TRACE_ID_BYTES - len(begun)) if begun else kernel_bytes(TRACE_ID_BYTES)
        self.trace_id = told = new.hex()
        self.span_id = told[:SPAN_ID_DIGITS]

    def _open(self) -> None:
        # Before a collector is launched: the request waits for that, and the runner's start was noted before it.
        self._opened_ns = time.perf_counter_ns()
        config = self.config
        exiting.register(config.shutdown_timeout_s)
        writer = process.writer_for(config)
        self._use(writer, config.keeps_types)
        writer.share(beginning(config))
        known = self._own_runner
        caller_id = None if self.context is None else self.caller_id
        runner = None if known is None else encoded_runner(known, self.trace_id, caller_id, self.typed)
        if self._guard is not None and runner is not None:
            runner = self._guard.opening(runner)
        self._beacons = beacons = process.beacons()
        self._beacon = beacons.light(self._id) if beacons is not None else 0
        opened, self._runner = fitted_opening(config, runner, writer.record_limit_bytes)
        if self._runner is not runner:
            self._count("cut")
        push, traces, trace_id = self._push, process.open_traces, self._id
        # In this order and with no call in between, so that an exception from outside meets all of it or none.
        self._state = OPEN
        traces[trace_id] = self
        code = push(_OPEN, 0, trace_id, opened)
        self._opened(code, opened)
        # For the next ones.
        process.own.footing = footing_of(config, writer, beacons, beginning(config))

    def _opened(self, code: int, opened: bytes) -> None:
        """Do the rest after the OPEN's push answered `code`."""
        if code == PUSHED or self._insist(code, opened):
            self._let_pass()
            if self.context is not None:
                self._tell(self.context)
        else:
            self._record_nothing(REFUSED, self._writer.lacking or REASONS.get(code, "queue_full"))

    def _tell(self, context: TraceContext) -> None:
        """Let the runner tell what the context of the trace says about sampling."""
        told = head.marks(context, self.config.sample_rate)
        if told:
            self.update_runner({HTTP_TRACE_ID_KEY: context.trace_id, **told})

    def _insist(self, code: int, opened: bytes) -> bool:
        """Say whether the trace is open after its OPEN's push answered `code`, which is not PUSHED."""
        if code == LOOK:
            return self._writer.attend(code, _OPEN, 0, self._id, opened)
        # Taken out meanwhile, so that an interruption has nothing to close.
        process.open_traces.pop(self._id, None)
        taken = self._writer.attend(code, _OPEN, 0, self._id, opened)
        if taken:
            process.open_traces[self._id] = self
        return taken

    def _record_nothing(self, state: State, reason: str) -> None:
        self._reason = reason
        self._move_to(state)

    def _is_ours(self) -> bool:
        """Say whether the trace is open and this process may close it."""
        return self._state is OPEN and self.owner_pid == own_pid()

    def _close_with(self, news: bytes) -> None:
        """Close a trace that is ours with a last RUNNER."""
        news = self._passed(_RUNNER, news) or b""
        if len(news) + CLOSE_BYTES > self._writer.record_limit_bytes:
            # It is cut.
            self._put_guarded(_RUNNER, news)
            news = b""
        if not self._close_at_once(news):
            self._close(TABLE[self._state].stop, news=news)

    def _close(self, state: State, flags: int = 0, news: bytes = b"") -> None:
        """Close the trace unless it is closed. If this is interrupted, another call does the rest.

        `news`: a RUNNER's payload, for the same record.
        """
        self._move_to(state)
        if self._id in process.open_traces:
            self._push_close(flags, news)
        if self._beacons is not None:
            self._beacons.put_out(self._beacon, self._id)
        if self._place is not None:
            self._place.vacate()

    def _push_close(self, flags: int, news: bytes) -> None:
        took_ns = (self._ended_ns or time.perf_counter_ns()) - self._opened_ns
        is_measured_here = self._own_runner is not None and not self._is_measured
        duration_s = took_ns / NS_PER_S if is_measured_here else NOT_MEASURED
        kind, payload = END if news else _CLOSE, news + CLOSE_PAYLOAD.pack(duration_s, self._error_code)
        code = close_once(process.open_traces, self._id, self._push, kind, flags, payload)
        if code is not None:
            self._closed(code, kind, flags, payload)

    def _closed(self, code: int, kind: int, flags: int, payload: bytes) -> None:
        """Do the rest after the push of a CLOSE or an END answered `code`."""
        own = process.own
        if own.flushes:
            process.closed_now(self._id)
        if code != PUSHED:
            self._attend(code, kind, flags, payload)
        if own.is_exiting:
            exiting.wait_until_safe()
        report(self._writer)

    def _until_settled(self, timeout_s: float | None) -> Iterator[float]:
        """Yield pauses until the outcome is known or the time is up."""
        if timeout_s is None:
            timeout_s = self.config.send_timeout_s + STOP_MARGIN_S
        for pause in pauses(timeout_s):
            if self.owner_pid != own_pid() or self._known_outcome() != Outcome.PENDING:
                return
            self._writer.ensure_collector()
            if not self._writer.collector_may_come():
                return
            yield pause

    def _answer(self) -> Outcome:
        outcome = self._known_outcome()
        if self.config.debug:
            logger().debug("outcome of %s: %s", self.trace_id, outcome)
        return outcome

    def _known_outcome(self) -> Outcome:
        outcome = TABLE[self._state].outcome
        if outcome is not None:
            return outcome.because(self._reason)
        if self.owner_pid != own_pid():
            return Outcome.PENDING.because(ELSEWHERE)
        report(self._writer)
        return self._writer.settlement(self._id) or Outcome.PENDING
