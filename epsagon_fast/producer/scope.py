"""`trace()` and `event()`: timed blocks and functions.

Only the process that entered a block leaves it. In a child that was forked inside the block, leaving does nothing.
"""

import time
from collections.abc import Callable

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any, TypeVar, overload
from epsagon_fast.protocol import FUNCTION_TYPE, HTTP_TRACE_ID_KEY, INVOKE, ORIGIN

from . import current
from .context import TraceContext, continue_context
from .current import unrecorded
from .decorate import decorated
from .entering import Blocks, Entered, Unrecorded
from .event import Event
from .failures import is_error
from .place import PassingPlace, PureBranch
from .process import process
from .runner import new_runner
from .tracer import Tracer

__all__ = ["Block", "PureBlock", "TraceBlocks", "event", "heir_of", "own_trace", "pure_event", "trace"]

F = TypeVar("F", bound=Callable[..., Any])


def own_trace(name: str) -> Tracer:
    """Return the trace that a block opens for itself, not started. Where only a caller is known, it continues that."""
    metadata: dict[str, Any] = {}
    tracer = Tracer(process.config(), new_runner(name, FUNCTION_TYPE, INVOKE, metadata, time.time_ns()))
    here = current.current_place()
    if isinstance(here, PassingPlace) and here.open_trace() is None:
        metadata[HTTP_TRACE_ID_KEY] = continue_context(tracer, here.handed_on)
    return tracer


def heir_of(event: Event, context: TraceContext | None) -> Tracer:
    """Return the trace, not started, that a block's event becomes because the trace that it was part of has ended.

    `context`: that trace's. Work that began in the block names the event as its parent, so its id becomes the runner's.
    """
    runner = new_runner(event.name, FUNCTION_TYPE, INVOKE, event.metadata, event.started_ns)
    tracer = Tracer(process.config(), runner, event.id)
    if context is not None and event.parent_id is not None:
        context = context._replace(parent_id=event.parent_id)
    event.metadata[HTTP_TRACE_ID_KEY] = continue_context(tracer, context)
    return tracer


class PureBlock(Entered):
    """One run of a traced block or function. Inside a trace it is a timed event of that, else a trace of its own."""

    def __init__(self, name: str, new: bool) -> None:
        self._name = name
        self._new = new
        # The trace that is this block's own. An object that may outlive the block must not hold it: see place.py.
        self._own: Tracer | None = None
        self._event: Event | None = None
        self._branch: PureBranch[Tracer] | None = None
        self.is_open = True

    def open(self) -> Tracer:
        """Begin the block. Return the trace that it is part of, without making that current."""
        enclosing = None if self._new else current.enclosing()
        if enclosing is None:
            self._own = tracer = own_trace(self._name)
            self.place = tracer.place
            tracer.start()
        else:
            outer, tracer = enclosing
            self._event = event = Event(self._name, FUNCTION_TYPE, INVOKE, ORIGIN)
            event.enter(outer)
            self.place = self._branch = PureBranch(outer, self, event.id)
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
        self._own = tracer = heir_of(event, context)
        tracer.start()
        tracer.predate(event.entered_ns)
        return tracer

    @property
    def event(self) -> Event | None:
        """What this block is in the trace around it. None: it is a trace of its own, or has ended."""
        return self._event if self._own is None else None

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


def pure_blocks_for(name: str, new: bool) -> Callable[[], PureBlock | Unrecorded]:
    """Return a function that makes the block of each call of a traced function."""

    def new_block() -> PureBlock | Unrecorded:
        return unrecorded(new) or PureBlock(name, new)

    return new_block


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    Block = PureBlock
    blocks_for = pure_blocks_for
else:
    from epsagon_fast.producer._fast_path import Block, blocks_for


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
        return decorated(function, blocks_for(name, self._new))


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


def pure_event(name: str, *, type: str = FUNCTION_TYPE, operation: str = INVOKE, origin: str = ORIGIN) -> Event:
    """Record a timed event: `with event("charge", type="http", operation="POST") as e: e.metadata["card"] = "visa"`."""
    return Event(name, type, operation, origin)


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    event = pure_event
else:
    from epsagon_fast.producer._fast_path import event
