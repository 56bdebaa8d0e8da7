"""Where traced work is: what a context holds in place of the trace itself.

Tasks, timers and threads may keep the context that they were made in long after the trace has ended, and with it all
that a request holds. So the trace takes itself out of its place when it ends, and leaves there what continues it.
"""

from typing import TYPE_CHECKING, Protocol

from epsagon_fast.queue.ring import own_pid

from .context import TraceContext, begun_by

if TYPE_CHECKING:
    from .tracer import Tracer


class Place:
    """A trace while it is open. `tracer`: None since it ended; `context`: then what it was part of."""

    __slots__ = ("context", "tracer")
    # The place that this one is inside of.
    outer: "Place | None" = None

    def __init__(self, tracer: "Tracer | None") -> None:
        self.tracer = tracer
        self.context: TraceContext | None = None

    def vacate(self) -> None:
        """Let go of the trace, which has ended."""
        tracer, self.tracer = self.tracer, None
        if tracer is not None:
            self.context = tracer.context or begun_by(tracer)

    def open_trace(self) -> "Tracer | None":
        """Return the open trace here, None if there is none any more."""
        tracer = self.tracer
        # Here a trace that ends leaves its place. A process that was forked inside it has to ask.
        if tracer is not None and tracer.owner_pid != own_pid() and tracer.stopped:
            self.vacate()
            return None
        return tracer

    def heritage(self) -> TraceContext | None:
        """Return what the trace that was here was part of."""
        return self.context


class Successor(Protocol):
    """A block inside a trace that may have to go on without it."""

    def succeed(self, context: TraceContext | None) -> "Tracer | None": ...


class Branch(Place):
    """The place of a block inside a trace. If the trace ends before it, the block becomes a trace of its own."""

    __slots__ = ("_block", "outer")

    def __init__(self, outer: Place, block: Successor) -> None:
        super().__init__(None)
        self.outer: Place = outer
        self._block: Successor | None = block

    def open_trace(self) -> "Tracer | None":
        """Return the trace that the block is part of; where there is none any more, the block's own."""
        return self.outer.open_trace() or super().open_trace() or self._succeeded()

    def heritage(self) -> TraceContext | None:
        """Return what the trace that was here was part of."""
        return self.context or self.outer.heritage()

    def end(self) -> None:
        """Say that the block has ended."""
        self._block = None
        self.vacate()

    def _succeeded(self) -> "Tracer | None":
        if self._block is not None and self.tracer is None:
            self.tracer = self._block.succeed(self.outer.heritage())
        return super().open_trace()
