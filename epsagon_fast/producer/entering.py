"""Enters and leaves traces in steps that no signal handler can interrupt.

A signal handler may raise between any two steps of Python code. If it did so between opening a trace and entering its
block, or in the first step of leaving it, the trace would stay open and current for ever. So setup.py compiles this
file as it is. Compiled lines are not interrupted, only the Python code that they call is, and what that code had begun
is undone here. If this file runs as plain Python, one step is unguarded: the first one of an `__exit__`.
"""

from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from types import TracebackType

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import Any

__all__ = [
    "Blocks",
    "Entered",
    "Inside",
    "NotTraced",
    "Opened",
    "Started",
    "Unclosed",
    "Unrecorded",
    "Within",
    "answered",
    "called_at",
    "called_with",
    "close_once",
    "closed",
    "current",
    "entered",
    "is_at",
    "parent_of",
]


class NotTraced(Enum):
    """The state of work that is deliberately not traced, such as an ignored endpoint."""

    NOT_TRACED = "not traced"


Error = BaseException | None
Kind = type[BaseException] | None

# The current place of a thread, task or generator; see place.py and current.py.
current: ContextVar[Any] = ContextVar("epsagon_fast_trace", default=None)
# The `with trace(...)` blocks that this thread or task, and its parents, have entered.
entered: ContextVar[tuple[Any, ...]] = ContextVar("epsagon_fast_blocks", default=())


def is_at(place: Any) -> bool:
    """Say whether `place`, or that of a block inside it, is the current one.

    If it is not, another trace became current meanwhile, by a `with` in a plain generator.
    """
    there = current.get()
    while there is not None and there is not place:
        there = getattr(there, "outer", None)
    return there is place


def parent_of(tracer: Any) -> str | None:
    """Return the id of the event of a trace in whose block this context is, None where the runner is the parent."""
    place = current.get()
    span_id: str | None = getattr(place, "span_id", None)
    if span_id is not None and place.open_trace() is tracer and span_id != tracer.span_id:
        return span_id
    within: str | None = tracer.within_id
    return within


class Within:
    """A `with` block in which one place is the current one."""

    def __init__(self, place: Any) -> None:
        self._place = place
        self._before: Any = None

    def __enter__(self) -> None:
        try:
            self._before = current.get()
            current.set(self._place)
        except BaseException:
            _step_back(self._place, self._before)
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        # Written out here and below: in plain Python, a call of something that does both could be interrupted before
        # its own `try`.
        try:
            _step_back(self._place, self._before)
        except BaseException:
            _step_back(self._place, self._before)
            raise


def called_at(place: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function where `place` is the current one: as in a `with Within(place)`, at a third of the cost."""
    before = current.get()
    try:
        current.set(place)
        return function(*args)
    finally:
        try:
            _step_back(place, before)
        except BaseException:
            _step_back(place, before)
            raise


def called_with(variable: ContextVar[Any], value: Any, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function while a context variable has a value."""
    before = variable.get()
    try:
        variable.set(value)
        return function(*args, **options)
    finally:
        try:
            variable.set(before)
        except BaseException:
            variable.set(before)
            raise


def answered(
    request: Any,
    begin: Callable[[Any, dict[str, Any]], None],
    app: Callable[..., Any],
    environ: dict[str, Any],
    hand_on: Callable[[Any, Any], Any],
) -> Any:
    """Return what a server gets of a WSGI application's answer, with which the trace of the request ends.

    `begin`: opens the trace. `hand_on`: returns what the server gets for a body; that ends the trace from then on.
    """
    has_returned = False
    try:
        begin(request, environ)
        body = called_at(request.place, app, environ, request.start_response)
        has_returned = True
        return hand_on(request, body)
    except BaseException as error:
        try:
            if not has_returned:
                request.application_fails(error)
        except BaseException:
            request.abandon()
            raise
        if has_returned:
            # It came from outside. The server gets no body that would end the trace.
            request.abandon()
        raise


def closed(request: Any, close: Callable[[], Any] | None, error: Error) -> None:
    """Call the `close` of a WSGI request's body, if it has one, and end the request's trace.

    `error`: what became of the body. An exception of `close` counts instead.
    """
    try:
        try:
            if close is not None:
                called_at(request.place, close)
        except BaseException as failure:
            error = failure
            raise
        finally:
            request.end(error)
            # The exception's traceback may hold this frame.
            error = None
    except BaseException:
        # Interrupted, it may still be open.
        request.abandon()
        raise


class Unclosed:
    """What a server is to close, and what ends a request's trace when it is collected without that.

    `_unclosed`: the request, until it was closed. `_error`: what became of it.
    """

    # Until __init__ has set them: an exception from outside may come before.
    _unclosed: Any = None
    _error: Error = None

    def __del__(self) -> None:
        # Of what was closed no Python code runs here, where the interpreter would swallow an exception from outside.
        if self._unclosed is not None:
            self._unclosed.end(self._error)


def _step_back(place: Any, before: Any) -> None:
    if is_at(place):
        current.set(before)


class Unrecorded:
    """The block of a call of which nothing is recorded. It keeps nothing about a run, so all calls may share it.

    `place`: stands for work that is not traced. `before`: what is current where the block begins.
    """

    keeps_values = False

    def __init__(self, place: Any, before: Any) -> None:
        self.place = place
        self._before = before

    def __enter__(self) -> Any:
        try:
            current.set(self.place)
            return self
        except BaseException:
            self._step_back()
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        try:
            # If another trace is current, a `with` in a plain generator made it so; see `is_at`.
            if current.get() is self.place:
                current.set(self._before)
        except BaseException:
            self._step_back()
            raise

    def _step_back(self) -> None:
        if current.get() is self.place:
            current.set(self._before)

    def open(self) -> Any:
        """Begin the block of a generator; see Opened."""
        return self

    def close(self, error: Error) -> None:
        """End it."""

    def cut_off(self) -> None:
        """End it at once."""

    def note(self, key: str, value: Any) -> None:
        """Keep nothing."""


class Inside:
    """The current place of a generator's body: set for each step, and taken away after it."""

    def __init__(self, place: Any) -> None:
        self._mine = place
        self._theirs: Any = None
        self._is_entered = False

    def __enter__(self) -> None:
        try:
            self._theirs = current.get()
            self._is_entered = True
            current.set(self._mine)
        except BaseException:
            self.undo()
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        try:
            self._mine = current.get()
            current.set(self._theirs)
            self._is_entered = False
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Take the place away, if it still is the current one."""
        if self._is_entered:
            current.set(self._theirs)
            self._is_entered = False


class Entered:
    """A block that Python code opens and closes: by `open`, `close(error)` and, if either is interrupted, `cut_off`.

    `place`: set by `open`; the current place inside the block.
    """

    # Only declared, because an attached trace has a property of this name.
    place: Any
    _entered: Any = None
    _before: Any = None

    def open(self) -> Any:
        """Begin the block, and return the value of `as`."""
        raise NotImplementedError

    def close(self, error: Error) -> None:
        """End the block with the exception that leaves it."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """End at once everything that was begun and not ended."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        try:
            tracer = self.open()
            self._before = current.get()
            self._entered = self.place
            current.set(self._entered)
            return tracer
        except BaseException:
            self.undo()
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        try:
            self._step_back()
            self.close(error)
        except BaseException:
            self.undo()
            raise
        finally:
            self._entered = self._before = None

    def undo(self) -> None:
        """Leave nothing open or current after an interruption."""
        self._step_back()
        self.cut_off()

    def _step_back(self) -> None:
        if self._entered is not None and is_at(self._entered):
            current.set(self._before)


class Opened:
    """A generator's block: open over its whole life, and current only in `inside`, while the body runs."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __enter__(self) -> Any:
        try:
            self.tracer = self.block.open()
            self.inside = Inside(self.block.place)
            return self
        except BaseException:
            self.block.cut_off()
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        try:
            # In plain Python the first step of leaving it may have been interrupted.
            self.inside.undo()
            self.block.close(error)
        except BaseException:
            self.block.cut_off()
            raise
        finally:
            # Contexts that tasks and timers copied in the body live on, and must not hold the tracer.
            self.tracer = None


class Started:
    """A tracer in a `with` block: it is started, then gets the stop signal."""

    def start(self) -> None:
        """See Tracer."""
        raise NotImplementedError

    def send_stop_signal(self) -> None:
        """See Tracer."""
        raise NotImplementedError

    def abandon(self) -> None:
        """See Tracer."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        try:
            self.start()
            return self
        except BaseException:
            self.abandon()
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        try:
            self.send_stop_signal()
        except BaseException:
            self.abandon()
            raise


class Blocks:
    """The blocks that one object has entered. Threads and tasks may share the object; `new_block` makes a block."""

    def __init__(self) -> None:
        self._blocks: list[Any] = []

    def new_block(self) -> Any:
        """Return the block for one run."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        block = self.new_block()
        try:
            tracer = block.__enter__()
            self._blocks.append(block)
            entered.set((*_still_entered(), block))
            return tracer
        except BaseException:
            block.undo()
            raise

    def __exit__(self, kind: Kind, error: Error, trace: TracebackType | None) -> None:
        block = None
        try:
            block = self._last()
            if block is None:
                # Left without having been entered: an error of the application's that is no reason to break it.
                return
            self._blocks.remove(block)
            block.is_open = False
            entered.set(_still_entered())
            block.__exit__(kind, error, trace)
        except BaseException:
            if block is not None or self._blocks:
                (block or self._blocks[-1]).undo()
            raise

    def _last(self) -> Any:
        # The block that ends is the last one that was entered in this context. If none was entered here, it was entered
        # in another context (a generator's step), and is most likely the last of all.
        for block in reversed(entered.get()):
            if block in self._blocks:
                return block
        return self._blocks[-1] if self._blocks else None


def _still_entered() -> tuple[Any, ...]:
    # A block may have ended in another context than the one in which it began.
    return tuple([block for block in entered.get() if block.is_open])


def close_once(
    open_traces: dict[bytes, Any],
    trace_id: bytes,
    push: Callable[[int, int, bytes, bytes], int],
    kind: int,
    flags: int,
    payload: bytes,
) -> int | None:
    """Take a trace out of the open ones and push its CLOSE, in one step. Return the answer; None: it was closed before.

    If two threads close it, or a signal handler in between, only one of them gets it here.
    """
    try:
        taken = open_traces.pop(trace_id, None)
        return None if taken is None else push(kind, flags, trace_id, payload)
    except BaseException:
        # If the push is Python, it may have been interrupted before or after its effect. A second CLOSE does no harm,
        # but a missing one would.
        push(kind, flags, trace_id, payload)
        raise


# The compiled copy of this file, which has another name, replaces everything defined above.
if __name__ == "epsagon_fast.producer.entering" and implementation("blocks") == COMPILED:
    from epsagon_fast.producer._entering import *  # noqa: F403
