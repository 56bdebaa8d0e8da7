"""`trace()` and `event()`: timed blocks and functions.

Only the process that entered a block leaves it. In a child that was forked inside the block, leaving does nothing.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from epsagon_fast.protocol import HTTP_TRACE_ID_KEY, ErrorCode
from epsagon_fast.queue.ring import own_pid

from . import current
from .context import TraceContext, continue_context
from .decorate import decorated
from .entering import Blocks, Entered
from .ids import span_id
from .place import Branch, Place, Step
from .process import process
from .runner import new_runner
from .tracer import Tracer

F = TypeVar("F", bound=Callable[..., Any])

FUNCTION_TYPE: Final = "python-function"
INVOKE: Final = "invoke"
# The origin of the events that `event` and inner `trace` blocks record.
ORIGIN: Final = "python"
# A plain integer, because asking the enum for its member costs as much as a function call.
_OK: Final = int(ErrorCode.OK)
_EXIT_CODE: Final = SystemExit.__dict__["code"]


class Event(Entered):
    """A timed event under way. Change its fields until the block ends; then it is added to the trace.

    id, name, type, operation, origin: text. metadata: any keys and values. error_code: one of ErrorCode. start_time:
    seconds since the epoch. duration: seconds. parent_id: the id of the event in whose block this one began; None: the
    trace's runner is the parent.
    """

    def __init__(self, name: str, type: str, operation: str, origin: str) -> None:
        self.id = span_id()
        self.name = name
        self.type = type
        self.operation = operation
        self.origin = origin
        self.metadata: dict[Any, Any] = {}
        self.error_code = _OK
        self.start_time = 0.0
        self.duration = 0.0
        self.parent_id: str | None = None
        self.entered_at = 0.0
        self._outer: Place[Tracer] | None = None
        self._owner_pid = 0

    def enter(self, outer: Place[Tracer] | None) -> None:
        """Start the clock. From now on the event belongs to the trace at `outer`, whatever trace becomes current."""
        self._outer = outer
        self.parent_id = None if outer is None else outer.span_id
        if outer is not None and (tracer := outer.open_trace()) is not None:
            tracer.has_blocks = True
        self._owner_pid = own_pid()
        self.start_time = time.time()
        self.entered_at = time.perf_counter()

    def leave(self, error: BaseException | None) -> None:
        """Stop the clock and add the event to its trace, or, if that has ended, to the current one."""
        if self.is_here:
            tracer = None if self._outer is None else self._outer.open_trace()
            if tracer is None:
                tracer, self.parent_id = current.acting_trace(), None
            self.leave_to(tracer, error)

    @property
    def is_here(self) -> bool:
        """Whether this process entered the event, and not a process that forked it."""
        return self._owner_pid == own_pid()

    def leave_to(self, tracer: Tracer | None, error: BaseException | None) -> None:
        """Stop the clock and add the event to `tracer`."""
        self.duration = time.perf_counter() - self.entered_at
        if error is not None and is_error(error):
            self.error_code = int(ErrorCode.EXCEPTION)
        else:
            error = None
        if tracer is None:
            current.no_trace()
        else:
            # The parent may be a block that has become the runner of `tracer`; see Block.succeed.
            parent_id = None if self.parent_id == tracer.span_id else self.parent_id
            # The exception is not kept on this object: its traceback holds the frame that holds this event.
            tracer.add_event_under(self._as_dict(error), parent_id)

    def _as_dict(self, error: BaseException | None) -> dict[str, Any]:
        resource = {"name": self.name, "type": self.type, "operation": self.operation, "metadata": self.metadata}
        return {
            "id": self.id,
            "start_time": self.start_time,
            "resource": resource,
            "origin": self.origin,
            "duration": self.duration,
            "error_code": self.error_code,
            "exception": error,
        }

    def open(self) -> "Event":
        """Begin, and become the parent of the events that are recorded inside."""
        outer = current.acting_place()
        self.enter(outer)
        if outer is None:
            self.place = current.anywhere()
        else:
            self.place = Step(outer, self.id, current.is_current(outer))
        return self

    def close(self, error: BaseException | None) -> None:
        """End, with the exception that leaves the block."""
        self.leave(error)

    def cut_off(self) -> None:
        """End unrecorded: an exception came in between, and is on its way to the application."""


class Block(Entered):
    """One run of a traced block or function. Inside a trace it is a timed event of that, else a trace of its own."""

    def __init__(self, name: str, new: bool) -> None:
        self._name = name
        self._new = new
        # The trace that is this block's own. An object that may outlive the block must not hold it: see place.py.
        self._own: Tracer | None = None
        self._event: Event | None = None
        self._branch: Branch[Tracer] | None = None
        self.is_open = True

    def open(self) -> Tracer:
        """Begin the block. Return the trace that it is part of, without making that current."""
        outer = None if self._new else current.enclosing_place()
        tracer = None if outer is None else outer.open_trace()
        if outer is None or tracer is None:
            self._own = tracer = Tracer(process.config(), self._runner(time.time(), {}))
            self.place = tracer.place
            tracer.start()
        else:
            self._event = Event(self._name, FUNCTION_TYPE, INVOKE, ORIGIN)
            self._event.enter(outer)
            self.place = self._branch = Branch(outer, self, self._event.id)
        return tracer

    def close(self, error: BaseException | None) -> None:
        """End the block with the exception that leaves it."""
        event = self._event
        if event is not None:
            tracer = self._branch.open_trace() if self._branch is not None and event.is_here else None
            if event.is_here and tracer is not self._own:
                event.leave_to(tracer, error)
        if self._own is not None:
            if error is not None and is_error(error):
                self._own.fail(error)
            self._own.send_stop_signal()
        self._end()

    def cut_off(self) -> None:
        """End the block at once, because an exception from outside is on its way to the application."""
        if self._own is not None:
            self._own.abandon()
        self._end()

    def succeed(self, context: TraceContext | None) -> Tracer | None:
        """Become a trace of its own with the same shared id, because the trace that it was part of has ended."""
        event = self._event
        if event is None or not event.is_here:
            return None
        # Work that began in this block names the event as its parent, so the event's id becomes the runner's.
        self._own = tracer = Tracer(process.config(), self._runner(event.start_time, event.metadata), event.id)
        if context is not None and event.parent_id is not None:
            context = context._replace(parent_id=event.parent_id)
        event.metadata[HTTP_TRACE_ID_KEY] = continue_context(tracer, context)
        tracer.start()
        tracer.predate(event.entered_at)
        return tracer

    def note(self, key: str, value: str) -> None:
        """Set an entry in the metadata of this block's event or trace."""
        if self._own is not None:
            self._own.set_runner_metadata(key, value)
        elif self._event is not None:
            self._event.metadata[key] = value

    def _end(self) -> None:
        if self._branch is not None:
            self._branch.end()
        self._own = self._event = self._branch = None

    def _runner(self, start_time: float, metadata: dict[Any, Any]) -> dict[str, Any]:
        return new_runner(self._name, FUNCTION_TYPE, INVOKE, metadata, start_time)


class TraceBlocks(Blocks):
    """The object that `trace` returns: a context manager and a decorator, for any number of blocks and calls."""

    def __init__(self, name: str | None, new: bool) -> None:
        super().__init__()
        self._name = name
        self._new = new

    def new_block(self) -> Block:
        """Return the block for one run."""
        return Block(self._name or "", self._new)

    def __call__(self, function: F) -> F:
        name = self._name if self._name is not None else getattr(function, "__qualname__", "")
        return decorated(function, lambda: Block(name, self._new))


@overload
def trace(name: str | None = None, *, new: bool = False) -> TraceBlocks: ...
@overload
def trace(name: F) -> F: ...
def trace(name: Any = None, *, new: bool = False) -> Any:
    """Trace a block (`with trace("checkout") as tracer:`) or a function (`@trace`, `@trace("checkout")`).

    Inside another trace it is recorded as a timed event of that; `new=True` opens a separate trace. `name`: the
    resource's name, by default a function's qualified name. An exception that leaves the block is recorded and raised.
    """
    if name is None or isinstance(name, str):
        return TraceBlocks(name, new)
    return TraceBlocks(None, new)(name)


def event(name: str, *, type: str = FUNCTION_TYPE, operation: str = INVOKE, origin: str = ORIGIN) -> Event:
    """Record a timed event: `with event("charge", type="http", operation="POST") as e: e.metadata["card"] = "visa"`."""
    return Event(name, type, operation, origin)


# Exceptions that end work from outside, by module. A module that is not imported has raised none.
_CANCELLATIONS: Final = (("asyncio", "CancelledError"), ("trio", "Cancelled"), ("greenlet", "GreenletExit"))
_EXCEPTIONS: Final = BaseExceptionGroup.__dict__["exceptions"]


def is_error(error: BaseException) -> bool:
    """Say whether an exception that leaves a block means that its work failed.

    The exceptions of a closed generator, a cancelled task, a killed greenlet and SystemExit 0 do not, nor does a group
    of only these. KeyboardInterrupt does, because the work was not done.
    """
    return any(map(_is_failure, parts_of(error)))


def parts_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and in its inner groups; for another exception, a list of itself."""
    parts, pending = [], [error]
    while pending:
        error = pending.pop()
        # Not isinstance, which asks the exception for its __class__, and that may fail.
        if issubclass(type(error), BaseExceptionGroup):
            pending.extend(_EXCEPTIONS.__get__(error))
        else:
            parts.append(error)
    return parts


def _is_failure(error: BaseException) -> bool:
    # Only its class and slots are read, because its own attributes and comparisons may raise.
    kind = type(error)
    if issubclass(kind, SystemExit):
        code = _EXIT_CODE.__get__(error)
        return not (code is None or (issubclass(type(code), int) and int.__index__(code) == 0))
    cancelled = (getattr(sys.modules.get(module), name, GeneratorExit) for module, name in _CANCELLATIONS)
    return not issubclass(kind, (GeneratorExit, *cancelled))
