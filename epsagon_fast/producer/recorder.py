"""Brings the records of one trace into this process's ring.

Nothing here raises because of a value that the application adds. The hot path, `add_event`, is in FastPath.
"""

from collections.abc import Callable, Mapping

import orjson

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.foreign import shown
from epsagon_fast.hints import Any, Final
from epsagon_fast.log import logger, warn_once
from epsagon_fast.protocol import IS_TRIMMED_KEY, UNCHANGED, ErrorCode, Kind
from epsagon_fast.queue.layout import FOREIGN, FULL, LOOK, PUSHED, TOO_LARGE
from epsagon_fast.queue.ring import own_pid

from . import encoding, exiting
from .context import TraceContext
from .fast_path import FastPath
from .fitting import fitted_event, fitted_record
from .guard import Guard
from .interfaces import TraceWriter
from .plain import type_name
from .process import process
from .runner import encoded_update
from .states import IGNORING, ITS_OWN, OPEN, TABLE, State
from .times import written

# Plain integers, because asking the enum for a member costs as much as a push.
_EVENT, _EXCEPTION, _LABEL, _RUNNER, _ERROR = map(
    int, (Kind.EVENT, Kind.EXCEPTION, Kind.LABEL, Kind.RUNNER, Kind.ERROR)
)
_TRIMMED = orjson.dumps({"resource": {"metadata": {IS_TRIMMED_KEY: "true"}}})
# The answers of the fast path after which nothing more can be done for the event: it is in the ring, or refused. After
# others it may still be taken, by a new ring of this process (FOREIGN) or by the writer's successor (CLOSED).
_OVER: Final = (FULL, LOOK, TOO_LARGE)


class Recorder(FastPath):
    """Takes the records of one trace while its state is OPEN; see states.py for the other states.

    `config`: what the trace was opened with. `trace_id`: 32 hex digits. `span_id`: the runner's, their first half.
    `typed`: whether metadata keep their types; see encoding.py. `owner_pid`: of the process that opened it.
    `context`: what the trace continues, once it is known; see context.py. Set by the tracer: all of them, the state,
    and where the records go.
    """

    # What each trace sets is in FastPath. Python 3.11 gives no object whose class has a base in C the quick table for
    # attributes that others have, but a dict, which would be filled anew for each trace.
    __slots__ = ()
    config: ResolvedConfig
    context: TraceContext | None
    # What correlation.py found last; None while nothing is recorded.
    ids: tuple[str, str, str] | None
    trace_id: str
    span_id: str
    owner_pid: int
    _id: bytes
    _writer: TraceWriter
    _push: Callable[[int, int, bytes, bytes], int]
    _event_limit_bytes: int
    # Whether metadata keep their types, and times their nanoseconds; see encoding.py and times.py.
    typed: bool
    _state: State
    _count: Callable[..., None]
    # The runner in the wire's form, once it is known.
    _runner: bytes | None
    _error_code: int
    # Whether the runner's duration is known to the collector.
    _is_measured: bool
    # Here, and not set for each trace, because most traces end with them as they are.
    # The reason why the trace was refused or is not recorded.
    _reason = "never started"
    _runner_metadata: Mapping[str, Any] = {}
    # Looks through what leaves, if the config wants that.
    _guard: Guard | None = None

    @property
    def recording(self) -> bool:
        """Whether records are taken."""
        return self._state is OPEN

    @property
    def caller_id(self) -> str | None:
        """The span that caused the trace, as the caller said; None if it said none."""
        context = self.context
        return None if context is None or context.parent_id == self.span_id else context.parent_id

    # Adding.

    def add_exception(self, exception: BaseException | Mapping[str, Any]) -> None:
        """Add an exception to the trace's own list: a Python exception, or a mapping with the wire's fields."""
        if self._state is OPEN:
            self._put_encoded(_EXCEPTION, encoding.encode_exception(exception, self.typed))
        else:
            self._refuse()

    def add_exception_type_and_message(self, exception_type: str, message: str) -> None:
        """Add an exception with the caller's stack and the time of the call."""
        if self._state is OPEN:
            self._put_encoded(_EXCEPTION, encoding.encode_error(exception_type, message, self.typed))
        else:
            self._refuse()

    def add_label(self, key: str, value: str | int | float | bool) -> None:
        """Label the trace. The last value of a key counts. A value of another type is ignored."""
        if self._state is not OPEN:
            self._refuse()
        elif (label := encoding.encode_label(key, value)) is None:
            self._count("malformed")
            if self.config.debug:
                logger().debug("label ignored: a %s with a %s", type_name(key), type_name(value))
        else:
            self._put(_LABEL, label)
            if self.config.debug:
                logger().debug("label added to %s: %s", self.trace_id, shown(key))

    def add_error(self, error_type: str, value: str | BaseException) -> None:
        """Set the trace's error, which is the runner's exception with error_code 1. The last call counts.

        An exception that was raised has its own traceback; otherwise the caller's stack is taken. A value of another
        type is ignored.
        """
        if self._state is not OPEN:
            self._refuse()
        # Not isinstance, which asks the value for its __class__: that may fail, or evaluate a lazy object.
        elif issubclass(type(value), (str, BaseException)):
            self._put_encoded(_ERROR, encoding.encode_error(error_type, value, self.typed))
        elif self.config.debug:
            logger().debug("error ignored: its value must be a str or an exception, not a %s", type_name(value))

    # The runner.

    @property
    def has_failed(self) -> bool:
        """Whether this process has set the runner's error code."""
        return self._error_code != UNCHANGED

    @property
    def runner_event(self) -> dict[str, Any] | None:
        """A copy of the trace's runner, as far as this process knows it, or None."""
        if self._runner is None:
            return None
        event: dict[str, Any] = orjson.loads(self._runner)
        if self.typed and type(event["start_time"]) is int:
            event["start_time"] = written(event["start_time"], False)
        event["resource"]["metadata"].update(self._runner_metadata)
        return event

    def set_runner_metadata(self, key: str, value: Any) -> None:
        """Set one entry of the runner's metadata, which is possible until the trace closes."""
        if self._state is OPEN:
            entry, encoded = encoding.encode_entry(key, value, self.typed)
            self._runner_metadata = {**self._runner_metadata, **entry}
            self._put_encoded(_RUNNER, encoded)
        else:
            self._refuse()

    def update_runner(
        self,
        metadata: Mapping[str, str] | None = None,
        error_code: ErrorCode | None = None,
        exception: BaseException | Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        """Update the runner. A part that is left out stays as it is.

        Integrations call this when they know how a request or a task ended. If the trace is not recorded, this does
        nothing and counts nothing, because the trace itself was counted.
        """
        if self._state is OPEN:
            self._put(_RUNNER, self._update(metadata, error_code, exception, name))

    def _update(
        self,
        metadata: Mapping[str, str] | None,
        error_code: ErrorCode | None,
        exception: BaseException | Mapping[str, Any] | None,
        name: str | None = None,
    ) -> bytes:
        """Return a RUNNER's payload."""
        encoded = None if exception is None else encoding.encode_exception(exception, self.typed)
        if encoded is not None:
            self._count_losses(encoded)
        # The CLOSE holds 32 bits, and it must not fail.
        code = None if error_code is None else encoding.wire_code(error_code)
        if code is not None:
            self._error_code = code
        return encoded_update(metadata or {}, code, encoded, name)

    def _restatement(self, runner: Mapping[str, Any]) -> bytes:
        """Return a RUNNER's payload that says all that the runner is."""
        code = encoding.wire_code(runner["error_code"])
        if code != int(ErrorCode.OK):
            self._error_code = code
        self._is_measured = True
        encoded = encoding.encode_event(runner, typed=self.typed)
        self._count_losses(encoded)
        return encoded.data

    def fail(self, error: BaseException) -> None:
        """Say that an exception left the traced block; to be called before the stop signal.

        A forked child that leaves the block this way says nothing about the work of the trace's own process.
        """
        if self.owner_pid == own_pid():
            self.update_runner(None, ErrorCode.EXCEPTION, error)

    # The way into the ring.

    def _use(self, writer: TraceWriter, keeps_types: bool) -> None:
        config = self.config
        self._writer = writer
        self.typed = keeps_types and writer.leads_to_backend
        self._push = writer.push
        self._count = writer.refuse
        self.keeps_values = not config.metadata_only
        if config.is_guarded:
            # A forked child goes on with what its parent's has seen.
            self._guard = self._guard or Guard(config, self.typed)
            self._guard.count = writer.refuse
        limit_bytes = config.max_trace_size_bytes
        self._event_limit_bytes = limit_bytes if limit_bytes < writer.record_limit_bytes else writer.record_limit_bytes

    def _let_pass(self) -> None:
        """Let complete events go straight into the ring. The fast path logs nothing and guards nothing."""
        # A signal's handler may have closed the trace meanwhile.
        if self._state is OPEN and not self.config.debug and self._guard is None:
            self._open_path(self._push, self._id, self._event_limit_bytes, self.typed)

    def _move_to(self, state: State) -> None:
        """Take nothing more: go on to `state`."""
        self._state = state
        self.keeps_values = False
        self.ignores = state in IGNORING
        self.ids = None
        self._close_path()

    def _put(self, kind: int, payload: bytes, flags: int = 0) -> bool:
        guarded = self._passed(kind, payload)
        return guarded is not None and self._put_guarded(kind, guarded, flags)

    def _passed(self, kind: int, payload: bytes) -> bytes | None:
        """Return a record's payload as it may leave; None: it may not."""
        return payload if self._guard is None else self._guard.passed(kind, payload)

    def _put_guarded(self, kind: int, payload: bytes, flags: int = 0) -> bool:
        code = self._push(kind, flags, self._id, payload)
        return code == PUSHED or self._attend(code, kind, flags, payload)

    def _attend(self, code: int, kind: int, flags: int, payload: bytes) -> bool:
        """Do the rest after a push that answered `code`. Return whether the record was taken."""
        if code == FOREIGN:
            # The process forked inside the trace: on with a ring of its own, in the folder where the trace is open.
            exiting.register(self.config.shutdown_timeout_s)
            self._use(process.writer_at(self._writer.path, self.config.ring_bytes), self.typed)
            self._let_pass()
            code = self._push(kind, flags, self._id, payload)
        if code == TOO_LARGE and len(payload) > self._writer.record_limit_bytes:
            return self._put_smaller(kind, flags, payload)
        return code == PUSHED or self._writer.attend(code, kind, flags, self._id, payload)

    def _put_smaller(self, kind: int, flags: int, payload: bytes) -> bool:
        smaller = fitted_record(kind, payload, self._writer.record_limit_bytes, self.config)
        if smaller is None:
            return self._writer.attend(TOO_LARGE, kind, flags, self._id, payload)
        self._count("cut")
        code = self._push(kind, flags, self._id, smaller)
        return code == PUSHED or self._writer.attend(code, kind, flags, self._id, smaller)

    def _add_slowly(self, event: Mapping[str, Any], code: int, parent_id: str | None) -> None:
        """Do the rest for an event for which the fast path answered `code`."""
        if self._state is not OPEN:
            self._refuse()
        elif code in _OVER:
            self._writer.attend(code, _EVENT, 0, self._id, b"")
        else:
            self._encode_and_put(event, parent_id)

    def _encode_and_put(self, event: Mapping[str, Any], parent_id: str | None) -> None:
        encoded = encoding.encode_event(event, parent_id, self.caller_id, self.typed)
        payload, flags, _, _ = encoded
        self._count_losses(encoded)
        guarded = self._passed(_EVENT, payload)
        if guarded is None:
            return
        payload = guarded
        if len(payload) > self._event_limit_bytes and not (payload := self._fitted(payload)):
            return
        if flags and self._runner is None:
            self._runner = payload
        self._put_guarded(_EVENT, payload, flags)
        if self.config.debug:
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
        data, is_less, is_cut = fitted_event(event, self._event_limit_bytes, self.config)
        if data is None:
            self._count("too_large")
            return b""
        if is_cut:
            self._count("cut")
        if is_less:
            # The collector sees an event that fits, and could not tell.
            self._put_guarded(_RUNNER, _TRIMMED)
        return data

    def _refuse(self) -> None:
        """Count a record that was added in a state in which none is taken."""
        reason = TABLE[self._state].refusal
        if reason == ITS_OWN:
            reason = self._reason
        if reason == "misuse":
            message = "Ignored, and counted: a trace was added to before its start or after its end"
            warn_once("misuse", message, about="several processes")
        elif reason == "closed" and exiting.is_exiting():
            message = "Ignored, and counted: a trace was added to that its process had left open at its end"
            warn_once("left", message, about="several processes")
        if reason:
            self._count(reason)
