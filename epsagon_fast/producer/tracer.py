"""One trace: what is added to it goes, encoded, into this process's ring at the call.

A tracer is made, started, stopped; only the process that made it can close its trace. Calls that come too early or too
late are ignored and counted. The hot path, `add_event`, is QuickWay's.
"""

import os
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from epsagon_fast.config import ResolvedConfig, logger, warn_once
from epsagon_fast.foreign import shown
from epsagon_fast.protocol import IS_TRIMMED_KEY, NO_TRACE, UNFINISHED, ErrorCode, Kind, Outcome
from epsagon_fast.queue.layout import FOREIGN, FULL, LOOK, PUSHED, TOO_LARGE
from epsagon_fast.queue.ring import own_pid
from epsagon_fast.queue.writer import REASONS

from . import beacon, encoding, exiting
from .beacon import Beacon
from .context import TraceContext, context_of
from .entering import Started, close_once
from .fitting import fitted_event, fitted_record
from .forkers import is_of_pool
from .handle import Handle
from .interfaces import TraceWriter
from .opening import opening
from .place import Place
from .plain import type_name
from .process import process
from .quick import QuickWay
from .reporting import report, report_refusals
from .waiting import pauses

CLOSE: Final = struct.Struct("<di")
# As plain integers: asking the enum for a member costs as much as a push.
_OPEN, _EVENT, _EXCEPTION, _LABEL, _RUNNER, _ERROR, _CLOSE, _BYE = map(int, Kind)
_TRIMMED = orjson.dumps({"resource": {"metadata": {IS_TRIMMED_KEY: "true"}}})
# What the quick way answers if the event is in the ring or will never be. Else it may yet be taken: by a ring of this
# process's own (FOREIGN), or by the one that open traces go on in when a folder was deleted (CLOSED).
_OVER: Final = (FULL, LOOK, TOO_LARGE)
# A CLOSE leaves the runner's error code and, with this duration, its duration as they are.
UNCHANGED: Final = -1
NOT_MEASURED: Final = float("nan")
DEFAULT_LAMBDA_TIMEOUT_THRESHOLD_MS: Final = 200
# Of an integer of 64 bits. Python refuses to read one of thousands.
MOST_DIGITS: Final = 18
# How much longer than a request may take `stop` waits for the answer.
STOP_MARGIN_S: Final = 1.0


class Tracer(Started, QuickWay):
    """A trace as one process sees it. Made by `create_tracer`, `trace` and `attach`.

    `config`: what the trace was opened with. `trace_id`: 32 hex digits. Usable in `with`: start, then the stop signal.
    """

    # What it continues, once somebody asked; see context.py.
    context: TraceContext | None = None
    _place: Place | None = None
    _beacon: Beacon | None = None

    def __init__(self, config: ResolvedConfig, runner: Mapping[str, Any] | None = None) -> None:
        """`runner`: the event that stands for the whole trace, last in its body; None: the first such event added."""
        self.config = config
        self._identify()
        self._debug = config.debug
        self._running = self._stopped = False
        # Whether records are taken. If not, they count as `_refusal`; None: as nothing.
        self._recording = False
        self._refusal: str | None = "misuse"
        self._count = process.refuse
        # What is known without asking a collector. Also if a start was interrupted, until the trace is in a ring.
        self._outcome: Outcome | None = Outcome.DROPPED.because("never started")
        self._own_runner = runner
        # The runner as the wire has it, once it is known.
        self._runner: bytes | None = None
        self._runner_metadata: dict[str, str] = {}
        self._error_code = UNCHANGED
        if self._debug:
            logger().debug("tracer created: %s", self.trace_id)

    # Starting and stopping.

    def start(self, timeout_s: float = 1.0) -> None:
        """Open the trace in this process's ring. A second start, or one after the stop, is ignored.

        `timeout_s`: the seed's bound. Nothing is waited for here: a ring is made in about a millisecond, and a trace
        that a full one refuses is dropped, counted.
        """
        if self._running or self._stopped:
            return
        if self.owner_pid != own_pid():
            self._identify()
        self._running = True
        if not process.records(self.config):
            self._ignore_all(None, Outcome.DISABLED.because("disabled" if self.config.disable else "no token"))
        elif process.is_shut_down:
            self._count("closed")
            self._ignore_all("closed", Outcome.DROPPED.because("closed"))
        else:
            self._open()

    def send_stop_signal(self) -> None:
        """Close the trace and return at once. Only the process that opened it can; elsewhere this does nothing."""
        self._close()

    def stop(self, timeout_s: float | None = None) -> Outcome:
        """Close the trace and wait until it is settled.

        `timeout_s`: by default the send timeout and a second. Outcome.PENDING if that was not enough.
        """
        self.send_stop_signal()
        for pause in self._until_settled(timeout_s):
            time.sleep(pause)
        return self._answer()

    async def astop(self, timeout_s: float | None = None) -> Outcome:
        """Do what `stop` does, without holding up the event loop."""
        import asyncio

        self.send_stop_signal()
        for pause in self._until_settled(timeout_s):
            await asyncio.sleep(pause)
        return self._answer()

    @property
    def running(self) -> bool:
        """Whether the tracer was started and not stopped."""
        return self._running

    @property
    def stopped(self) -> bool:
        """Whether the tracer was stopped, here or, if this process was forked inside the trace, where it was opened."""
        return self._stopped or (self.owner_pid != own_pid() and self._is_over_elsewhere())

    @property
    def place(self) -> Place:
        """What a context holds for this trace, and no longer than it is open."""
        if self._place is None:
            self._place = Place(None if self._stopped else self)
        return self._place

    def predate(self, started_at: float) -> None:
        """Let the trace's clock have started at `started_at`, a time of time.perf_counter."""
        self._opened_at = started_at

    # A tracer stands for one trace, so whatever holds it may be copied, and holds the same one then.

    def __copy__(self) -> "Tracer":
        return self

    def __deepcopy__(self, memo: object) -> "Tracer":
        return self

    def __reduce__(self) -> str:
        raise TypeError("a tracer cannot be pickled: give the other process its handle(), and attach() to it there")

    # Adding. Nothing here raises for what the application traces.

    def add_exception(self, exception: BaseException | Mapping[str, Any]) -> None:
        """Add an exception to the trace's own list: a Python exception, or the fields as the wire has them."""
        if self._recording:
            self._put_encoded(_EXCEPTION, encoding.encode_exception(exception))
        else:
            self._refuse()

    def add_exception_type_and_message(self, exception_type: str, message: str) -> None:
        """Add an exception with the caller's stack and the time of the call."""
        if self._recording:
            self._put_encoded(_EXCEPTION, encoding.encode_error(exception_type, message))
        else:
            self._refuse()

    def add_label(self, key: str, value: str | int | float | bool) -> None:
        """Label the trace; the last value of a key counts. A value of another type is ignored."""
        if not self._recording:
            self._refuse()
        elif (label := encoding.encode_label(key, value)) is None:
            self._count("malformed")
            if self._debug:
                logger().debug("label ignored: a %s with a %s", type_name(key), type_name(value))
        else:
            self._put(_LABEL, label)
            if self._debug:
                logger().debug("label added to %s: %s", self.trace_id, shown(key))

    def add_error(self, error_type: str, value: str | BaseException) -> None:
        """Set the trace's error: the runner's exception, with error_code 1. The last call counts.

        An exception brings its own traceback, if it was raised; else the caller's stack is taken. A value of another
        type is ignored.
        """
        if not self._recording:
            self._refuse()
        # Asking the value itself for its class may fail: a lazy object would be evaluated.
        elif issubclass(type(value), (str, BaseException)):
            self._put_encoded(_ERROR, encoding.encode_error(error_type, value))
        elif self._debug:
            logger().debug("error ignored: its value must be a str or an exception, not a %s", type_name(value))

    # The runner.

    @property
    def keeps_values(self) -> bool:
        """Whether arguments and return values of traced functions are recorded."""
        return self._recording and not self.config.metadata_only

    @property
    def runner_event(self) -> dict[str, Any] | None:
        """A copy of the event that stands for the whole trace, as far as this process knows it, or None."""
        if self._runner is None:
            return None
        event: dict[str, Any] = orjson.loads(self._runner)
        event["resource"]["metadata"].update(self._runner_metadata)
        return event

    def set_runner_metadata(self, key: str, value: Any) -> None:
        """Set one entry of the runner's metadata, until the trace closes."""
        if not self._recording:
            self._refuse()
            return
        entry, encoded = encoding.encode_entry(key, value)
        self._runner_metadata.update(entry)
        self._put_encoded(_RUNNER, encoded)

    def fail(self, error: BaseException) -> None:
        """Say that an exception left the traced block; to be called before the stop signal.

        A forked child that leaves the block this way says nothing about the work of the trace's own process.
        """
        if self._recording and self.owner_pid == own_pid():
            encoded = encoding.encode_exception(error)
            self._count_losses(encoded)
            self._error_code = int(ErrorCode.EXCEPTION)
            failed = {"error_code": self._error_code, "exception": orjson.Fragment(encoded.data)}
            self._put(_RUNNER, orjson.dumps(failed))

    def handle(self) -> Handle:
        """Return what another process needs to add to this trace: picklable, without the token."""
        return Handle(
            trace_id=self.trace_id,
            runtime_dir=self._writer.path if self._recording or self._was_recorded else "",
            max_trace_size_bytes=self.config.max_trace_size_bytes,
            metadata_only=self.config.metadata_only,
            debug=self.config.debug,
            context=context_of(self),
            ignored_keys=self.config.ignored_keys,
        )

    def abandon(self) -> None:
        """Close the trace as unfinished: its process ends or gives up tracing before the work was done.

        A trace that another process opened stays open there, and takes nothing more from here.
        """
        self._close(flags=UNFINISHED)
        self._give_up()

    # Inside.

    def _is_over_elsewhere(self) -> bool:
        """Say whether an inherited trace is not to be added to any more.

        It has ended, or this is a worker process of a pool that was made inside it: not all its jobs are that trace's.
        """
        return (self._beacon is not None and not self._beacon.shines()) or is_of_pool()

    def _give_up(self) -> None:
        """Take no more records."""
        self._recording = False
        self._close_way()
        self._refusal = self._refusal and "closed"

    @property
    def _was_recorded(self) -> bool:
        """Whether the trace is closed and its outcome the collector's to say: what still comes for it is late."""
        return self._stopped and self._outcome is None

    def _identify(self) -> None:
        """Take a trace id. Also in a child that starts what was made before the fork: its parent may start it too."""
        self.owner_pid = own_pid()
        self._id = os.urandom(len(NO_TRACE))
        self.trace_id = self._id.hex()

    def _open(self) -> None:
        exiting.register(self.config.shutdown_timeout_s)
        writer = process.writer_for(self.config)
        report(writer)
        self._use(writer)
        if self._own_runner:
            self._runner = self._encode_runner({"id": self.trace_id, **self._own_runner})
        self._opened_at = time.perf_counter()
        self._beacon = beacon.light(self._id)
        opened = self._opening()
        push, traces, trace_id = self._push, process.open_traces, self._id
        # In this order, with no call in between: an exception that comes from outside meets all or none.
        self._outcome = None
        traces[trace_id] = self
        code = push(_OPEN, 0, trace_id, opened)
        if code == PUSHED:
            self._record()
        elif code == LOOK:
            self._record()
            writer.attend(code, _OPEN, 0, trace_id, opened)
        elif traces.pop(trace_id) and writer.attend(code, _OPEN, 0, trace_id, opened):
            traces[trace_id] = self
            self._record()
        else:
            reason = writer.lacking or REASONS.get(code, "queue_full")
            self._ignore_all(reason, Outcome.DROPPED.because(reason))

    def _opening(self) -> bytes:
        """Return what the OPEN says, with as much of the runner as there is room for."""
        opened = opening(self.config, self._runner)
        excess_bytes = len(opened) - self._writer.record_limit_bytes
        if excess_bytes <= 0 or self._runner is None:
            return opened
        smaller = fitted_event(self._runner, len(self._runner) - excess_bytes, self.config.ignored_keys).data
        if smaller is None:
            # The config alone is too large, and all of it is needed.
            return opened
        self._count("cut")
        self._runner = smaller
        return opening(self.config, smaller)

    def _encode_runner(self, runner: Mapping[str, Any]) -> bytes:
        return encoding.encode_event(runner).data

    def _use(self, writer: TraceWriter) -> None:
        self._writer = writer
        self._push = writer.push
        self._count = writer.refuse
        self._event_limit_bytes = min(self.config.max_trace_size_bytes, writer.record_limit_bytes)

    def _record(self) -> None:
        """Take records from now on."""
        self._recording = True
        # The quick way logs nothing.
        if not self._debug:
            self._open_way(self._push, self._id, self._event_limit_bytes)

    def _close(self, flags: int = 0) -> None:
        """Close the trace, if that was not done. Whatever interrupts this, calling it again does what is left."""
        if self.owner_pid != own_pid():
            return
        self._recording, self._running, self._stopped = False, False, True
        self._close_way()
        if self._id in process.open_traces:
            self._push_close(flags)
        if self._beacon is not None:
            self._beacon.put_out()
            self._beacon = None
        if self._place is not None:
            self._place.vacate()

    def _push_close(self, flags: int) -> None:
        duration_s = time.perf_counter() - self._opened_at if self._own_runner else NOT_MEASURED
        payload = CLOSE.pack(duration_s, self._error_code)
        code = close_once(process.open_traces, self._id, self._push, _CLOSE, flags, payload)
        if code is not None:
            process.closed_now(self._id)
            if code != PUSHED:
                self._attend(code, _CLOSE, flags, payload)
            if exiting.is_exiting():
                exiting.wait_until_safe()
            report(self._writer)
            report_refusals(self._writer)

    def _put(self, kind: int, payload: bytes, flags: int = 0) -> bool:
        code = self._push(kind, flags, self._id, payload)
        return code == PUSHED or self._attend(code, kind, flags, payload)

    def _attend(self, code: int, kind: int, flags: int, payload: bytes) -> bool:
        """Do what a push that answered `code` leaves to do. Return whether the record was taken."""
        if code == FOREIGN:
            # The process forked inside the trace: on with a ring of its own, in the folder where the trace is open.
            exiting.register(self.config.shutdown_timeout_s)
            self._use(process.writer_at(self._writer.path, self.config.ring_bytes))
            self._record()
            code = self._push(kind, flags, self._id, payload)
        if code == TOO_LARGE and len(payload) > self._writer.record_limit_bytes:
            return self._put_smaller(kind, flags, payload)
        return code == PUSHED or self._writer.attend(code, kind, flags, self._id, payload)

    def _put_smaller(self, kind: int, flags: int, payload: bytes) -> bool:
        smaller = fitted_record(kind, payload, self._writer.record_limit_bytes, self.config.ignored_keys)
        if smaller is None:
            return self._writer.attend(TOO_LARGE, kind, flags, self._id, payload)
        self._count("cut")
        code = self._push(kind, flags, self._id, smaller)
        return code == PUSHED or self._writer.attend(code, kind, flags, self._id, smaller)

    def _add_otherwise(self, event: Mapping[str, Any], code: int) -> None:
        """Do what the quick way, which answered `code`, left to do."""
        if not self._recording:
            self._refuse()
        elif code in _OVER:
            self._writer.attend(code, _EVENT, 0, self._id, b"")
        else:
            self._add_with_care(event)

    def _add_with_care(self, event: Mapping[str, Any]) -> None:
        encoded = encoding.encode_event(event)
        payload, flags, _, _ = encoded
        self._count_losses(encoded)
        if len(payload) > self._event_limit_bytes and not (payload := self._fitted(payload)):
            return
        if flags and self._runner is None:
            self._runner = payload
        self._put(_EVENT, payload, flags)
        if self._debug:
            logger().debug("event added to %s: %d bytes", self.trace_id, len(payload))

    def _put_encoded(self, kind: int, encoded: encoding.Encoded) -> None:
        self._count_losses(encoded)
        self._put(kind, encoded.data)

    def _count_losses(self, encoded: encoding.Encoded) -> None:
        if encoded.malformed:
            self._count("malformed", encoded.malformed)
        if encoded.left_out:
            self._count("cut", encoded.left_out)

    def _fitted(self, event: bytes) -> bytes:
        """Return the event as it can be sent, since it cannot be whole. Empty: not at all, counted."""
        data, is_less, is_cut = fitted_event(event, self._event_limit_bytes, self.config.ignored_keys)
        if data is None:
            self._count("too_large")
            return b""
        if is_cut:
            self._count("cut")
        if is_less:
            # The collector sees an event that fits, and could not tell.
            self._put(_RUNNER, _TRIMMED)
        return data

    def _ignore_all(self, refusal: str | None, outcome: Outcome) -> None:
        self._refusal, self._outcome = refusal, outcome

    def _refuse(self) -> None:
        if self._refusal == "misuse":
            warn_once("misuse", "Ignored, and counted: a trace was added to before its start or after its end")
        elif self._refusal == "closed" and exiting.is_exiting():
            warn_once("left", "Ignored, and counted: a trace was added to that its process had left open at its end")
        if self._refusal:
            self._count(self._refusal)

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
        if self._debug:
            logger().debug("outcome of %s: %s", self.trace_id, outcome)
        return outcome

    def _known_outcome(self) -> Outcome:
        if self._outcome is not None:
            return self._outcome
        if self.owner_pid != own_pid():
            return Outcome.PENDING.because("opened by another process")
        report(self._writer)
        return self._writer.settlement(self._id) or Outcome.PENDING


def get_lambda_timeout_threshold_ms() -> int:
    """Return how many milliseconds before a Lambda's timeout its trace is to be sent.

    EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS, else 200 (the seed's GetLambdaTimeoutThresholdMs).
    """
    text = os.environ.get("EPSAGON_LAMBDA_TIMEOUT_THRESHOLD_MS", "")
    digits = text[1:] if text[:1] in ("+", "-") else text
    is_integer = digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS
    return int(text) if is_integer else DEFAULT_LAMBDA_TIMEOUT_THRESHOLD_MS
