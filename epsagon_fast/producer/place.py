"""The place of the current trace: a Python context holds the place, and the place holds the trace while it is open.

Tasks, timers and threads may keep the context in which they were made long after the trace has ended. If the context
held the trace, it would keep everything that a request holds. So a trace that ends leaves its place, and leaves there
the trace context with which later work can continue it.
"""

from typing import Generic, Protocol, TypeVar

from epsagon_fast.queue.ring import own_pid

from .context import Continuing, TraceContext, begun_by


class Placed(Continuing, Protocol):
    """What this module needs of a tracer."""

    owner_pid: int

    @property
    def stopped(self) -> bool: ...


T = TypeVar("T", bound=Placed)
T_co = TypeVar("T_co", bound=Placed, covariant=True)


class Place(Generic[T]):
    """Holds a trace while it is open. `tracer`: None once it has ended. `context`: from then on, its trace context."""

    __slots__ = ("context", "tracer")
    # The place around this one.
    outer: "Place[T] | None" = None

    def __init__(self, tracer: T | None) -> None:
        self.tracer = tracer
        self.context: TraceContext | None = None

    def vacate(self) -> None:
        """Let go of the trace, which has ended, and keep its trace context."""
        tracer, self.tracer = self.tracer, None
        if tracer is not None:
            self.context = tracer.context or begun_by(tracer)

    def open_trace(self) -> T | None:
        """Return the open trace here, None if it has ended."""
        tracer = self.tracer
        # In its own process a trace that ends leaves its place. In a child that was forked inside it, it must be asked.
        if tracer is not None and tracer.owner_pid != own_pid() and tracer.stopped:
            self.vacate()
            return None
        return tracer

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self.context


class Successor(Protocol[T_co]):
    """A block inside a trace, which may have to go on when the trace has ended."""

    def succeed(self, context: TraceContext | None) -> T_co | None: ...


class Branch(Place[T]):
    """The place of a block inside a trace. If the trace ends before the block, the block becomes a trace of its own."""

    __slots__ = ("_block", "outer")

    def __init__(self, outer: Place[T], block: Successor[T]) -> None:
        super().__init__(None)
        self.outer: Place[T] = outer
        self._block: Successor[T] | None = block

    def open_trace(self) -> T | None:
        """Return the trace that the block is part of, or the block's own trace if that one has ended."""
        return self.outer.open_trace() or super().open_trace() or self._succeeded()

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self.context or self.outer.heritage()

    def end(self) -> None:
        """Note that the block has ended."""
        self._block = None
        self.vacate()

    def _succeeded(self) -> T | None:
        if self._block is not None and self.tracer is None:
            self.tracer = self._block.succeed(self.outer.heritage())
        return super().open_trace()
