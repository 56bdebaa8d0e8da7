"""The place of the current trace: a Python context holds the place, and the place holds the trace while it is open.

Tasks, timers and threads may keep the context in which they were made long after the trace has ended. If the context
held the trace, it would keep everything that a request holds. So a trace that ends leaves its place, and leaves there
the trace context with which later work can continue it.

A callback may schedule the next one inside its own block, for as long as the trace is open. Each of these blocks begins
in the context of one that has ended. So a place whose block has ended lets go of those around it that have ended too:
else they would be a chain as long as the trace, to be walked by each block and freed at once.
"""

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from epsagon_fast.queue.ring import own_pid

from .context import Continuing, TraceContext, left_by

__all__ = [
    "Branch",
    "PassingPlace",
    "Place",
    "Placed",
    "PureBranch",
    "PurePlace",
    "PureStep",
    "Step",
    "Successor",
    "lasting",
]


class Placed(Continuing, Protocol):
    """The part of a tracer that this module needs."""

    owner_pid: int

    @property
    def stopped(self) -> bool: ...


T = TypeVar("T", bound=Placed)
T_co = TypeVar("T_co", bound=Placed, covariant=True)


class PurePlace(Generic[T]):
    """Holds a trace while it is open. `tracer`: None once it has ended. `context`: from then on, its trace context."""

    __slots__ = ("context", "span_id", "tracer")
    # The place around this one.
    outer: "PurePlace[T] | None" = None
    # Whether `trace` here records an event of the trace, and not a trace of its own.
    encloses = True
    # Whether this was the place of a block that has ended, and is the same as the place around it but for its id.
    has_ended = False

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

    def shorten(self) -> None:
        """Let go of the places around this one that have ended, as it has itself."""

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        return self.context


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    Place = PurePlace
else:
    from epsagon_fast.producer._fast_path import Place


class PassingPlace(Place[T]):
    """Where work hands on the ids of a caller, and not those of the trace around it. All else goes to that trace."""

    __slots__ = ("encloses", "handed_on", "outer")

    def __init__(self, outer: Place[T] | None, handed_on: TraceContext | None) -> None:
        """`outer`: None: no trace is around it. `handed_on`: None: no ids are."""
        super().__init__(None, None if outer is None else outer.span_id)
        self.handed_on = handed_on
        self.encloses = outer is None or outer.encloses
        self.outer: Place[T] | None = outer
        self.shorten()

    def shorten(self) -> None:
        """See Place."""
        place = self.outer
        # Others of this kind too: a consumer may attach the context of each message and detach none.
        while place is not None and (place.has_ended or isinstance(place, PassingPlace)):
            place = place.outer
        self.outer = place

    def open_trace(self) -> T | None:
        """Return the trace around it."""
        return None if self.outer is None else self.outer.open_trace()

    def still_open(self) -> T | None:
        """Return what `open_trace` does, and open none."""
        return None if self.outer is None else self.outer.still_open()

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was around it."""
        return None if self.outer is None else self.outer.heritage()


def lasting(place: Any) -> Any:
    """Return a place, or, if it has ended, the next one around it that has not."""
    while place.has_ended:
        place = place.outer
    place.shorten()
    return place


class PureStep(Place[T]):
    """The place of an event's block. It stays the parent of its context's records, even when the event has ended."""

    __slots__ = ("_trunk", "encloses", "event", "outer")

    def __init__(self, outer: Place[T], span_id: str, encloses: bool) -> None:
        super().__init__(None, span_id)
        # The event, while its block is entered.
        self.event: Any = None
        self.encloses = encloses
        outer.shorten()
        self._hang_on(outer)

    def _hang_on(self, outer: Place[T]) -> None:
        self.outer: Place[T] = outer
        # An event's own place holds no trace, so deep nesting costs nothing.
        self._trunk: Place[T] = outer._trunk if isinstance(outer, PureStep) else outer

    @property
    def has_ended(self) -> bool:  # type: ignore[override]
        """Whether the event's block has ended."""
        return self.event is None

    def shorten(self) -> None:
        """See Place."""
        if self.has_ended:
            self._hang_on(lasting(self.outer))

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
        outer.shorten()
        self.outer: Place[T] = outer
        # Until the block ends.
        self.block: Successor[T] | None = block

    @property
    def has_ended(self) -> bool:  # type: ignore[override]
        """Whether the block has ended, without having been a trace of its own."""
        return self.block is None and self.tracer is None and self.context is None

    def shorten(self) -> None:
        """See Place."""
        if self.has_ended:
            self.outer = lasting(self.outer)

    def open_trace(self) -> T | None:
        """Return the trace that the block is part of, or the block's own trace if that one has ended."""
        branches, root = self._way()
        tracer = root.open_trace()
        while tracer is None and branches:
            tracer = branches.pop()._succeeded()
        return tracer

    def still_open(self) -> T | None:
        """Return what `open_trace` does, and open none."""
        branches, root = self._way()
        tracer = root.still_open()
        while tracer is None and branches:
            tracer = branches.pop()._own_trace()
        return tracer

    def heritage(self) -> TraceContext | None:
        """Return the trace context of the trace that was here."""
        branches, root = self._way()
        return next((branch.context for branch in branches if branch.context), None) or root.heritage()

    def _way(self) -> "tuple[list[PureBranch[T]], Place[T]]":
        """Return the branches from this one outwards, and the place around them. Tasks may nest deeper than calls."""
        place: Place[T] = self
        branches = []
        while isinstance(place, PureBranch):
            branches.append(place)
            place = place.outer._trunk if isinstance(place.outer, PureStep) else place.outer
        return branches, place

    def end(self) -> None:
        """Note that the block has ended."""
        self.block = None
        if self.tracer is not None:
            self.vacate()

    def _own_trace(self) -> T | None:
        return super().open_trace()

    def _succeeded(self) -> T | None:
        tracer = self._own_trace()
        if tracer is None and self.block is not None and self.tracer is None:
            self.tracer = self.block.succeed(self.outer.heritage())
            tracer = self._own_trace()
        return tracer


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    Branch = PureBranch
    Step = PureStep
else:
    from epsagon_fast.producer._fast_path import Branch, Step
