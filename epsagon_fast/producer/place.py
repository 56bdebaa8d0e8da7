"""The place of the current trace: a Python context holds the place, and the place holds the trace while it is open.

Tasks, timers and threads may keep the context in which they were made long after the trace has ended. If the context
held the trace, it would keep everything that a request holds. So a trace that ends leaves its place, and leaves there
the trace context with which later work can continue it.
"""

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.queue.ring import own_pid

from .context import Continuing, TraceContext, left_by

__all__ = ["Branch", "PassingPlace", "Place", "Placed", "PureBranch", "PureStep", "Step", "Successor"]


class Placed(Continuing, Protocol):
    """The part of a tracer that this module needs."""

    owner_pid: int

    @property
    def stopped(self) -> bool: ...


T = TypeVar("T", bound=Placed)
T_co = TypeVar("T_co", bound=Placed, covariant=True)


class Place(Generic[T]):
    """Holds a trace while it is open. `tracer`: None once it has ended. `context`: from then on, its trace context."""

    __slots__ = ("context", "span_id", "tracer")
    # The place around this one.
    outer: "Place[T] | None" = None
    # Whether `trace` here records an event of the trace, and not a trace of its own.
    encloses = True

    def __init__(self, tracer: T | None, span_id: str | None = None) -> None:
        """`span_id`: the innermost open event, which is the parent of the next one; None: the runner is."""
        self.tracer = tracer
        self.span_id = span_id
        self.context: TraceContext | None = None

    def vacate(self) -> None:
        """Let go of the trace, which has ended, and keep its trace context."""
        tracer, self.tracer = self.tracer, None
        if tracer is not None:
            self.context = left_by(tracer)

    def open_trace(self) -> T | None:
        """Return the open trace here, None if it has ended."""
        tracer = self.tracer
        # In its own process a trace that ends leaves its place. In a child that was forked inside it, it must be asked.
        if tracer is not None and tracer.owner_pid != own_pid() and tracer.stopped:
            self.vacate()
            return None
        return tracer

    # The same for places that may open a trace there: without opening one.
    still_open = open_trace

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self.context


class PassingPlace(Place[T]):
    """Where work hands on the ids of a caller, and not those of the trace around it. All else goes to that trace."""

    __slots__ = ("encloses", "handed_on", "outer")

    def __init__(self, outer: Place[T] | None, handed_on: TraceContext | None) -> None:
        """`outer`: None: no trace is around it. `handed_on`: None: no ids are."""
        super().__init__(None, None if outer is None else outer.span_id)
        self.outer: Place[T] | None = outer
        self.handed_on = handed_on
        self.encloses = outer is None or outer.encloses

    def open_trace(self) -> T | None:
        """Return the trace around it."""
        return None if self.outer is None else self.outer.open_trace()

    def still_open(self) -> T | None:
        """Return what `open_trace` does, and open none."""
        return None if self.outer is None else self.outer.still_open()

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was around it."""
        return None if self.outer is None else self.outer.heritage()


class PureStep(Place[T]):
    """The place of an event's block. It stays the parent of its context's records, even when the event has ended."""

    __slots__ = ("_trunk", "encloses", "event", "outer")

    def __init__(self, outer: Place[T], span_id: str, encloses: bool) -> None:
        super().__init__(None, span_id)
        # The event, while its block is entered.
        self.event: Any = None
        self.outer: Place[T] = outer
        self.encloses = encloses
        # An event's own place holds no trace, so deep nesting costs nothing.
        self._trunk: Place[T] = outer._trunk if isinstance(outer, PureStep) else outer

    def open_trace(self) -> T | None:
        """Return the trace that the event is part of."""
        return self._trunk.open_trace()

    def still_open(self) -> T | None:
        """Return what `open_trace` does, and open none."""
        return self._trunk.still_open()

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self._trunk.heritage()


class Successor(Protocol[T_co]):
    """A block inside a trace, which may have to go on when the trace has ended."""

    @property
    def event(self) -> Any: ...
    def succeed(self, context: TraceContext | None) -> T_co | None: ...


class PureBranch(Place[T]):
    """The place of a block inside a trace. If the trace ends before the block, the block becomes a trace of its own."""

    __slots__ = ("block", "outer")

    def __init__(self, outer: Place[T], block: Successor[T], span_id: str) -> None:
        # As in Place. A call of its __init__ would cost as much as all this.
        self.tracer = self.context = None
        self.span_id = span_id
        self.outer: Place[T] = outer
        # Until the block ends.
        self.block: Successor[T] | None = block

    def open_trace(self) -> T | None:
        """Return the trace that the block is part of, or the block's own trace if that one has ended."""
        return self.outer.open_trace() or super().open_trace() or self._succeeded()

    def still_open(self) -> T | None:
        """Return what `open_trace` does, and open none."""
        return self.outer.still_open() or super().open_trace()

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self.context or self.outer.heritage()

    def end(self) -> None:
        """Note that the block has ended."""
        self.block = None
        if self.tracer is not None:
            self.vacate()

    def _succeeded(self) -> T | None:
        if self.block is not None and self.tracer is None:
            self.tracer = self.block.succeed(self.outer.heritage())
        return super().open_trace()


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    Branch = PureBranch
    Step = PureStep
else:
    from epsagon_fast.producer._fast_path import Branch, Step
