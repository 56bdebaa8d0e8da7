"""The current trace of a thread, task or generator, the process's global tracer, and the functions that act on them.

A context variable holds the place of the current trace: each thread and each asyncio task has its own value, and a task
starts with its parent's. It is never reset by token, because a generator's steps may run in different contexts.
"""

from collections.abc import Mapping

from epsagon_fast.config import Config, ResolvedConfig
from epsagon_fast.hints import Any, Final
from epsagon_fast.log import debug_once
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue.ring import own_pid

from . import entering
from .entering import NotTraced, Unrecorded, Within
from .fast_path import labelled, take_untold
from .place import Place
from .plain import type_name
from .process import process
from .tracer import Tracer

# Takes the place of a trace. Records that are added there go nowhere, not even to the global tracer, and are not
# counted. Without it such work would be in the trace that was current before. `trace` opens a trace of its own there.
NOT_TRACED: Final = NotTraced.NOT_TRACED
Current = Tracer | Place[Tracer] | NotTraced | None

_get: Final = entering.current.get
process.untold = take_untold

# The key of `process.global_tracer`.
_KEY: Final = "tracer"


def current_trace() -> Tracer | None:
    """Return the open trace that is the current one of this context, whichever process opened it."""
    place = current_place()
    return None if place is None else place.open_trace()


def current_place() -> Place[Tracer] | None:
    """Return the current place, even if the trace there has ended; None if there is none or work is not traced."""
    place: Place[Tracer] | NotTraced | None = entering.current.get()
    return None if place is NOT_TRACED else place


def anywhere() -> Place[Tracer] | NotTraced | None:
    """Return what is current, whatever it is."""
    place: Place[Tracer] | NotTraced | None = _get()
    return place


def is_current(place: Place[Tracer]) -> bool:
    """Say whether `place` is the current one and has an open trace around it. The global tracer's place is not."""
    return _get() is place and place.encloses


def within(trace: Current) -> Within:
    """Make `trace`, or NOT_TRACED, the current one inside a `with` block."""
    return Within(_placed(trace))


def unrecorded(new: bool) -> Unrecorded | None:
    """Return the block of a call that begins here, if nothing of the call would be recorded; else None.

    `new`: whether the call asks for a trace of its own.
    """
    place = _get()
    if place is None:
        return _OUTERMOST if process.records_nothing() else None
    if place is NOT_TRACED:
        return _INNER if process.records_nothing() else None
    if new:
        return Unrecorded(NOT_TRACED, place) if process.records_nothing() else None
    # A trace that ignores everything; not that of another process, from which nothing follows here.
    tracer = place.tracer if type(place) is Place else None
    silent = tracer is not None and tracer.ignores and tracer.owner_pid == own_pid()
    return Unrecorded(place, place) if silent else None


_OUTERMOST: Final = Unrecorded(NOT_TRACED, None)
_INNER: Final = Unrecorded(NOT_TRACED, NOT_TRACED)


def _placed(trace: Current) -> Place[Tracer] | NotTraced | None:
    return trace.place if isinstance(trace, Tracer) else trace


def enclosing() -> tuple[Place[Tracer], Tracer] | None:
    """Return the current place and its trace, if that is open and this process opened or attached it.

    A trace that a forked child inherited is not its own: work that is traced there gets a new trace.
    """
    place: Place[Tracer] | NotTraced | None = _get()
    if place is None or place is NOT_TRACED or not place.encloses:
        return None
    tracer = place.open_trace()
    return (place, tracer) if tracer is not None and tracer.owner_pid == own_pid() else None


def enclosing_trace() -> Tracer | None:
    """Return the current trace if it is open and this process opened or attached it."""
    found = enclosing()
    return None if found is None else found[1]


def acting_place() -> Place[Tracer] | None:
    """Return where this context is if a trace is open there, else the running global tracer's place, else None."""
    place: Place[Tracer] | NotTraced | None = _get()
    if place is not None and place is not NOT_TRACED and place.open_trace() is not None:
        return place
    tracer = acting_trace()
    return None if tracer is None else tracer.place


def acting_trace() -> Tracer | None:
    """Return the current trace, else the running global tracer, else None. None too if work is not traced here."""
    place: Place[Tracer] | NotTraced | None = _get()
    if place is NOT_TRACED:
        return None
    tracer = None if place is None else place.open_trace()
    if tracer is None:
        tracer = process.global_tracer.get(_KEY)
        if tracer is not None and not tracer.running:
            return None
    return tracer


def _global() -> dict[str, Tracer]:
    return process.global_tracer


def no_trace() -> None:
    """Count a record that had no trace to go to, unless work is deliberately not traced here.

    This is no mistake of the program: a library that adds events may run in a program that does not trace.
    """
    if entering.current.get() is NOT_TRACED:
        return
    process.refuse("no_trace")
    debug_once("no_trace", "Ignored, and counted: something was added where no trace is open")


def create_tracer(config: Config | None = None) -> Tracer:
    """Return a tracer that is not started yet (epsagon-go's CreateTracer).

    `config`: None takes the one in force. With `test_mode` it is the global tracer if there is one, else one that keeps
    its trace in memory and sends nothing. Raises ValueError if the config comes too late for this process's ring.
    """
    resolved = _resolved(config)
    existing = global_tracer()
    return existing if resolved.test_mode and existing is not None else Tracer(resolved)


def create_global_tracer(config: Config | None = None) -> Tracer:
    """Make a tracer the process's global one and return it, not started. An existing one is stopped first."""
    tracer = Tracer(_resolved(config))
    while _global().setdefault(_KEY, tracer) is not tracer:
        before = _global().pop(_KEY, None)
        if before is not None and not before.stopped:
            before.stop()
    return tracer


def global_tracer() -> Tracer | None:
    """Return the global tracer, even if it is stopped; None if none was created."""
    tracer: Tracer | None = process.global_tracer.get(_KEY)
    return tracer


def stop_global_tracer() -> Outcome | None:
    """Stop the global tracer and wait for its outcome; None if there is none or it is stopped already."""
    tracer = global_tracer()
    return None if tracer is None or tracer.stopped else tracer.stop()


def global_tracer_config() -> Config:
    """Return the config of the global tracer; `Config()` if there is none or it is stopped."""
    tracer = global_tracer()
    return Config() if tracer is None or tracer.stopped else tracer.config


def add_event(event: Mapping[str, Any]) -> None:
    """Add an event to the current trace, else to the running global tracer."""
    if tracer := _found():
        tracer.add_event(event)


def add_exception(exception: BaseException | Mapping[str, Any]) -> None:
    """Add an exception to the current trace, else to the running global tracer."""
    if tracer := _found():
        tracer.add_exception(exception)


def add_exception_type_and_message(exception_type: str, message: str) -> None:
    """Add an exception with the caller's stack to the current trace, else to the running global tracer."""
    if tracer := _found():
        tracer.add_exception_type_and_message(exception_type, message)


def add_label(key: str, value: str | int | float | bool) -> None:
    """Label the current trace, else the running global tracer's."""
    if labelled(key, value):
        return
    if tracer := _found():
        tracer.add_label(key, value)


def add_error(error_type: str, value: str | BaseException) -> None:
    """Set the error of the current trace, else of the running global tracer's."""
    if tracer := _found():
        tracer.add_error(error_type, value)


def error(value: str | BaseException) -> None:
    """Set the error of the current trace. An exception has its own type, a text the type "Exception"."""
    add_error("Exception" if issubclass(type(value), str) else type_name(value), value)


label = add_label
"""The short name of `add_label`."""


def _found() -> Tracer | None:
    """Return the trace to act on. If there is none, count it and return None."""
    tracer = acting_trace()
    if tracer is None:
        no_trace()
    return tracer


def _resolved(config: Config | None) -> ResolvedConfig:
    resolved = process.config() if config is None else config.resolve()
    process.check_first_use(config or Config(), resolved)
    return resolved
