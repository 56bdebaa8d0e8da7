"""`lambda_wrapper` and `step_lambda_wrapper`: each call of a Lambda function is one trace.

What is there of it is sent before the function's time is up: see deadline.py. In AWS's own environment a call also
waits for its trace at the end, for as long as one request may take: all processes there are stopped when it returns.
"""

import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

import epsagon_fast.compat.steps as steps
from epsagon_fast.foreign import shown
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn_once
from epsagon_fast.producer.arguments import CallNotes
from epsagon_fast.producer.context import continue_context
from epsagon_fast.producer.entering import Entered
from epsagon_fast.producer.failures import is_error
from epsagon_fast.producer.process import process
from epsagon_fast.producer.runner import new_runner
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, INVOKE

from .deadline import MS_PER_S, Deadline
from .settings import settings

F = TypeVar("F", bound=Callable[..., Any])
LAMBDA: Final = "lambda"
STEP: Final = "step_function_lambda"
# The key under which a result tells the trace's id, if `propagate_lambda_id` asks for it.
RESULT_KEY: Final = "_epsagon_event_id"
# The attributes of a Lambda's context that become metadata.
_TOLD: Final = {
    "aws_request_id": "request_id",
    "function_version": "function_version",
    "log_group_name": "log_group_name",
    "log_stream_name": "log_stream_name",
    "memory_limit_in_mb": "memory",
}


def lambda_wrapper(function: F) -> F:
    """Trace each call of a Lambda function `handler(event, context)`; other calls are not traced.

    The result and the exceptions are the function's own. With `init(propagate_lambda_id=True)` a dict that it returns
    gets the trace's id under `_epsagon_event_id`.
    """
    return _wrapped(function, Invocation)


def step_lambda_wrapper(function: F) -> F:
    """Do what `lambda_wrapper` does for a step of AWS Step Functions: the traces of one run share one id.

    A dict that the function returns gets what the next step needs: see steps.py.
    """
    return _wrapped(function, StepInvocation)


def chalice_wrapper(app: Any) -> Any:
    """Return an object that is called as the Chalice application is, in a trace, and has all its attributes."""
    return TracedApplication(app)


def _wrapped(function: F, kind: "type[Invocation]") -> F:
    if getattr(function, "__instrumented__", False):
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        invocation = _guarded(kind.begin, function, args, kwargs)
        if invocation is None:
            return function(*args, **kwargs)
        with invocation:
            result = function(*args, **kwargs)
            _guarded(invocation.returns, result)
            return result

    call.__instrumented__ = True  # type: ignore[attr-defined]
    return cast(F, call)


def _guarded(step: Callable[..., Any], *arguments: Any) -> Any:
    """Do a step of ours, and let nothing of it fail into the function: None if it failed."""
    try:
        return step(*arguments)
    except Exception as error:  # contexts and events are foreign objects
        let_pass(error)
        warn_once(
            "compat lambda",
            "A Lambda's trace lacks something: %s: %s",
            type(error).__name__,
            shown(error),
            about="the old names",
        )
        return None


class Invocation(Entered):
    """One call of a Lambda function: a `with` block around it."""

    kind = LAMBDA

    def __init__(self, function: Callable[..., Any], event: Any, context: Any) -> None:
        self._event = event
        self._context = context
        self._arguments = (event, context)
        self._notes = CallNotes(function)
        name = getattr(context, "function_name", None) or getattr(function, "__name__", "")
        metadata: dict[str, str] = _guarded(_metadata, context) or {}
        self.tracer = Tracer(process.config(), new_runner(str(name), self.kind, INVOKE, metadata, time.time_ns()))
        metadata[HTTP_TRACE_ID_KEY] = continue_context(self.tracer, self._caller())
        remaining_ms = _guarded(_remaining_ms, context) if settings.minds_deadline else None
        self._deadline = Deadline(self.tracer, remaining_ms or 0)

    @classmethod
    def begin(cls, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> "Invocation | None":
        """Return the block for a call; None if the call is not traced."""
        process.config()
        if len(args) != 2 or kwargs or process.records_nothing() or _is_ignored(args[0]):
            return None
        return cls(function, *args)

    def _caller(self) -> Any:
        return None

    def notes_arguments(self) -> None:
        """Note what the function is called with."""
        self._notes.arguments(SimpleNamespace(note=self.tracer.set_runner_metadata), self._arguments, {})

    def returns(self, result: Any) -> None:
        """Note what the function returns, and add to it what was asked for."""
        if not self.tracer.recording:
            # Its time was up.
            return
        if isinstance(result, Mapping) and (status := result.get("statusCode")):
            self.tracer.set_runner_metadata("status_code", status)
        if self.tracer.keeps_values:
            self._notes.result(SimpleNamespace(note=self.tracer.set_runner_metadata), result)
        if settings.marks_result and isinstance(result, dict):
            result[RESULT_KEY] = self.tracer.trace_id

    def open(self) -> None:
        """Open the trace."""
        self.place = self.tracer.place
        _guarded(self.tracer.start)
        if self.tracer.keeps_values:
            _guarded(self.notes_arguments)
        _guarded(self._deadline.__enter__)

    def close(self, error: BaseException | None) -> None:
        """Close the trace with the exception that leaves the call."""
        _guarded(self._deadline.__exit__)
        _guarded(self._end, error)

    def cut_off(self) -> None:
        """Close the trace as unfinished, because an exception from outside is on its way to the function's caller."""
        self._deadline.__exit__()
        self.tracer.abandon()

    def _end(self, error: BaseException | None) -> None:
        if error is not None and is_error(error):
            self.tracer.fail(error)
        self.tracer.send_stop_signal()
        if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
            left_ms = _guarded(_remaining_ms, self._context)
            send_timeout_s = self.tracer.config.send_timeout_s
            # The function has no more than half of what is left to lose.
            self.tracer.stop(send_timeout_s if left_ms is None else min(send_timeout_s, left_ms / MS_PER_S / 2))


class StepInvocation(Invocation):
    """One call of a step of AWS Step Functions."""

    kind = STEP

    def _caller(self) -> Any:
        return _guarded(steps.context_in, self._event)

    def returns(self, result: Any) -> None:
        """Note what the function returns, and add to it what the next step needs."""
        super().returns(result)
        if isinstance(result, dict):
            data = steps.advanced(self.tracer, self._event)
            before = steps.found(self._event)
            path = settings.steps_path if settings.steps_path is not None else before[1] if before else []
            steps.hand_on(data, result, path)
            if self.tracer.recording:
                self.tracer.set_runner_metadata("steps_dict", data)


class TracedApplication:
    """A Chalice application whose calls are traced."""

    def __init__(self, app: Any) -> None:
        vars(self).update(_app=app, _call=lambda_wrapper(app))

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_app"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._app, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def _metadata(context: Any) -> dict[str, str]:
    metadata = {key: str(getattr(context, name)) for name, key in _TOLD.items() if hasattr(context, name)}
    arn = str(getattr(context, "invoked_function_arn", "")).split(":")
    if len(arn) > 4:
        metadata |= {"region": arn[3], "aws_account": arn[4]}
    return metadata


def _remaining_ms(context: Any) -> float | None:
    ask = getattr(context, "get_remaining_time_in_millis", None)
    return None if ask is None else float(ask())


def _is_ignored(event: Any) -> bool:
    text = os.environ.get("EPSAGON_PAYLOADS_TO_IGNORE", "")
    if not text or not isinstance(event, dict):
        return False
    try:
        return event in json.loads(text)
    except (ValueError, TypeError):
        warn_once(
            "compat payloads",
            "EPSAGON_PAYLOADS_TO_IGNORE is ignored: it must be a JSON list of objects",
            about="the old names",
        )
        return False
