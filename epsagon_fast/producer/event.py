"""A timed event under way: compiled where it was built, else in plain Python.

Only the process that entered an event leaves it: in a child that was forked inside, leaving does nothing.
"""

import time

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any, Final
from epsagon_fast.protocol import ErrorCode
from epsagon_fast.queue.ring import own_pid

from . import current
from .entering import Entered
from .failures import is_error
from .ids import span_id
from .place import Place, Step
from .times import NS_PER_S, written
from .tracer import Tracer

__all__ = ["Event", "PureEvent"]

# As a plain integer: asking the enum for it costs as much as a function.
_OK: Final = int(ErrorCode.OK)


class PureEvent(Entered):
    """A timed event under way. Change its fields until the block ends; then it is added to the trace.

    id: text; set to None or the empty one, it becomes a new one. name, type, operation, origin: text. metadata: any
    keys and values. error_code: one of ErrorCode. start_time: seconds since the epoch. duration: seconds. parent_id:
    the id of the event in whose block this one began; None: the trace's runner is the parent.
    """

    def __init__(self, name: str, type: str, operation: str, origin: str) -> None:
        self._id = span_id()
        self.name = name
        self.type = type
        self.operation = operation
        self.origin = origin
        self.metadata: dict[Any, Any] = {}
        self.error_code = _OK
        self.started_ns = 0
        self._given_start: Any = None
        self.duration = 0.0
        self.parent_id: str | None = None
        self.entered_ns = 0
        # Set, because an interruption may come before the block has one.
        self.place: Any = None
        self._outer: Place[Tracer] | None = None
        self._owner_pid = 0

    @property
    def id(self) -> Any:
        """16 hex digits, or what the application has set."""
        return self._id

    @id.setter
    def id(self, value: Any) -> None:
        is_none = value is None or (type(value) is str and not value)
        self._id = span_id() if is_none else value
        # What is recorded inside from now on names the id with which the event will be recorded.
        if isinstance(self.place, Step) and self.place.event is self:
            self.place.span_id = self._id

    @property
    def start_time(self) -> Any:
        """Seconds since the epoch."""
        return self.started_ns / NS_PER_S if self._given_start is None else self._given_start

    @start_time.setter
    def start_time(self, value: Any) -> None:
        self._given_start = value

    def enter(self, outer: Place[Tracer] | None) -> None:
        """Start the clock. From now on the event belongs to the trace at `outer`, whatever trace becomes current."""
        self._outer = outer
        self.parent_id = None if outer is None else outer.span_id
        if outer is not None and (tracer := outer.open_trace()) is not None:
            tracer.has_blocks = True
        self._owner_pid = own_pid()
        self._given_start = None
        self.started_ns = time.time_ns()
        self.entered_ns = time.perf_counter_ns()

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
        self.duration = (time.perf_counter_ns() - self.entered_ns) / NS_PER_S
        if error is not None and is_error(error):
            self.error_code = int(ErrorCode.EXCEPTION)
        else:
            error = None
        if tracer is None:
            current.no_trace()
        else:
            # The parent may be a block that has become the runner of `tracer`; see Block.succeed.
            parent_id: Any = self.parent_id
            if type(parent_id) is str and parent_id == tracer.span_id:
                parent_id = None
            # The exception is not kept on this object: its traceback holds the frame that holds this event.
            tracer.add_event_under(self._as_dict(error, tracer.typed), parent_id)

    def _as_dict(self, error: BaseException | None, typed: bool) -> dict[str, Any]:
        resource = {"name": self.name, "type": self.type, "operation": self.operation, "metadata": self.metadata}
        return {
            "id": self.id,
            "start_time": written(self.started_ns, typed) if self._given_start is None else self._given_start,
            "resource": resource,
            "origin": self.origin,
            "duration": self.duration,
            "error_code": self.error_code,
            "exception": error,
        }

    def open(self) -> "PureEvent":
        """Begin, and become the parent of the events that are recorded inside."""
        if current.anywhere() is current.NOT_TRACED:
            # As if this process had not entered it: leaving does nothing.
            self.place, self._owner_pid = current.NOT_TRACED, 0
            return self
        outer = current.acting_place()
        tracer = None if outer is None else outer.open_trace()
        if outer is None or (tracer is not None and tracer.ignores):
            self.place = current.anywhere()
        else:
            self.place = step = Step(outer, self.id, current.is_current(outer))
            step.event = self
        if tracer is None or not tracer.ignores:
            self.enter(outer)
        return self

    def close(self, error: BaseException | None) -> None:
        """End, with the exception that leaves the block."""
        self.cut_off()
        self.leave(error)

    def cut_off(self) -> None:
        """End unrecorded: an exception came in between, and is on its way to the application."""
        if isinstance(self.place, Step):
            self.place.event = None


if TYPE_CHECKING or implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import Event
else:
    Event = PureEvent
