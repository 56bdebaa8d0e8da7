"""Looks through each record before it leaves the process: for `privacy="strict"`, and for the hook `before_send`.

A trace has a guard only if its config wants one; others pay one look at the config. Every record that holds something
of the application passes here as JSON, whatever made it, after it was encoded and before it is made to fit. So what is
left out here is in no ring, no journal and no outbox.

A hook that fails lets nothing pass: what it was to hide would leave otherwise. It works untraced.
"""

import json
from collections.abc import Callable
from contextvars import ContextVar

import orjson

from epsagon_fast.config import Hook, ResolvedConfig
from epsagon_fast.foreign import shown
from epsagon_fast.hints import Any, Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn_once
from epsagon_fast.protocol import PARENT_ID, RUNNER_ORIGIN, STRICT, ErrorCode, Kind

from . import encoding
from .entering import NotTraced, called_at
from .plain import dumps
from .strict import Strict, strict

_BLANK: Final = {"name": "", "type": "", "operation": ""}
# What a hook that leaves the runner out leaves of it: a trace must have one.
_STAYS: Final = ("id", "start_time", "origin", "duration", "error_code", PARENT_ID)
# By these the trace's other events and the collector know the runner.
_KNOWN_BY: Final = ("id", "origin", PARENT_ID)
# Whether a hook runs. What it records would be shown to it, and so on without end.
_is_asking: ContextVar[bool] = ContextVar("epsagon_fast_before_send", default=False)


def is_asking() -> bool:
    """Say whether this is work of a hook, of which nothing is recorded."""
    return _is_asking.get()


class Guard:
    """Lets the records of one trace pass, changed or not. `count`: gets the reason of what is left out."""

    count: Callable[[str], None]

    def __init__(self, config: ResolvedConfig, typed: bool) -> None:
        self._strict: Strict | None = None
        if config.privacy == STRICT:
            self._strict = strict(config.allowed_keys, config.allowed_exceptions)
        self._hook: Hook | None = config.before_send
        self._typed = typed
        # The runner as it was let pass. Its later parts are shown to the hook together with what came before.
        self._runner = _event_of(RUNNER_ORIGIN, {}, None)

    def opening(self, runner: bytes) -> bytes:
        """Return the runner that an OPEN may hold."""
        part = _decoded(runner)
        try:
            return self._runner_part(part)
        except Exception as error:
            let_pass(error)
            self._fail(f"its answer raised {type(error).__name__}")
            return _bare(part)

    def passed(self, kind: int, payload: bytes) -> bytes | None:
        """Return a record's payload as it may leave; None: it may not, which is counted unless strict says so."""
        if is_asking():
            self.count("before_send")
            return None
        try:
            return self._passed(kind, _decoded(payload))
        except Exception as error:  # what a hook returns may be of any class
            let_pass(error)
            self._fail(f"its answer raised {type(error).__name__}")
            return None

    def _passed(self, kind: int, value: Any) -> bytes | None:
        if kind == Kind.EVENT:
            return self._event(value)
        if kind == Kind.LABEL:
            return self._label(*value)
        if kind == Kind.RUNNER:
            return self._runner_part(value)
        if self._strict:
            self._strict.exception(value)
        if self._hook is None:
            return dumps(value)
        return self._exception(value, kind == Kind.ERROR)

    def _event(self, event: dict[str, Any]) -> bytes | None:
        if self._strict:
            self._strict.event(event)
        if self._hook is None:
            return dumps(event)
        answer = self._asked(event)
        return None if answer is None else encoding.encode_event(answer, typed=self._typed).data

    def _label(self, key: str, value: Any) -> bytes | None:
        if self._strict and not self._strict.lists(key):
            return None
        if self._hook is None:
            return dumps([key, value])
        answer = self._asked(_event_of("label", {key: value}, None))
        metadata = {} if answer is None else answer["resource"]["metadata"]
        return encoding.encode_label(key, metadata[key]) if key in metadata else None

    def _exception(self, exception: dict[str, Any], is_error: bool) -> bytes | None:
        """Show an exception in an event that holds nothing else, an error in its runner."""
        event = _event_of("exception", {}, exception)
        if is_error:
            event = {**event, **self._runner, "error_code": int(ErrorCode.ERROR), "exception": exception}
        answer = self._asked(event)
        changed = None if answer is None else answer.get("exception")
        return None if changed is None else encoding.encode_exception(changed, self._typed).data

    def _runner_part(self, part: dict[str, Any]) -> bytes:
        if self._strict:
            self._strict.event(part)
        if self._hook is None:
            return dumps(part)
        answer = self._asked(self._with(part))
        if answer is None:
            # Later parts are shown with these, so the hook finds each field of an event.
            self._runner |= {key: part[key] for key in _STAYS if key in part}
            return _bare(part)
        whole = _decoded(encoding.encode_event(answer, typed=self._typed).data)
        whole |= {key: part[key] for key in _KNOWN_BY if key in part}
        self._runner = whole
        resource = part.get("resource", {})
        changed = {key: whole[key] for key in part if key in whole and key != "resource"}
        kept = {key: whole["resource"][key] for key in resource} | {"metadata": whole["resource"]["metadata"]}
        # In wire order, as the part is.
        return dumps(
            {key: kept if key == "resource" else changed[key] for key in part if key in (*changed, "resource")}
        )

    def _with(self, part: dict[str, Any]) -> dict[str, Any]:
        known, added = self._runner["resource"], part.get("resource", {})
        metadata = {**known["metadata"], **added.get("metadata", {})}
        return {**self._runner, **part, "resource": {**known, **added, "metadata": metadata}}

    def _asked(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the hook's answer; None: what it was asked about is left out, counted."""
        hook: Any = self._hook
        try:
            _is_asking.set(True)
            answer: Any = called_at(NotTraced.NOT_TRACED, hook, event)
            if answer is None or (isinstance(answer, dict) and isinstance(answer["resource"]["metadata"], dict)):
                if answer is None:
                    self.count("before_send")
                return answer
            said = "it returned neither an event nor None"
        except Exception as error:
            let_pass(error)
            # Not the error's text, which may quote the event.
            said = f"it raised {type(error).__name__}"
        finally:
            _is_asking.set(False)
        self._fail(said)
        return None

    def _fail(self, said: str) -> None:
        self.count("hook_failed")
        message = "before_send failed, so what it was given is left out, and counted: %s"
        warn_once("hook_failed", message, shown(said), about="privacy")


def _event_of(origin: str, metadata: dict[str, Any], exception: dict[str, Any] | None) -> dict[str, Any]:
    head = {"id": "", "start_time": 0, "resource": {**_BLANK, "metadata": metadata}, "origin": origin}
    return {**head, "duration": 0, "error_code": 0, "exception": exception}


def _decoded(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        # An int that no double holds: the standard library reads it, and wrote it.
        return json.loads(payload)


def _bare(part: dict[str, Any]) -> bytes:
    """Return what is left of a runner's part of which nothing may leave."""
    # Its error code stays: the trace has failed or not, whatever is said of it.
    return dumps({key: part[key] for key in _STAYS if key in part} | _stub(part))


def _stub(part: dict[str, Any]) -> dict[str, Any]:
    """Return what an OPEN's runner needs beside what stays; a later part needs nothing."""
    return {"resource": {**_BLANK, "metadata": {}}, "exception": None} if "id" in part else {}
