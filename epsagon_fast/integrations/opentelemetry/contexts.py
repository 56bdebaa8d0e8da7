"""One context: our current place and OpenTelemetry's current span are the same thing.

OpenTelemetry keeps its current context (baggage, the current span, what libraries put there) in a variable; we keep our
current place in another. Neither is written when the other one changes. Instead, each has the last word in turn:

    attach(context)     its span's place becomes our current one; `detach` takes both back
    event(), trace()    make another place current, and the context that OpenTelemetry is shown next has its span

So our own blocks cost nothing more, and a context is made only where it is asked for.
"""

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, Final

from opentelemetry.context import Context, create_key, set_value
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import INVALID_SPAN, Span, set_span_in_context

from epsagon_fast.integrations.wrapping import Method, Wrapped
from epsagon_fast.producer import current, entering
from epsagon_fast.producer.context import TraceContext
from epsagon_fast.producer.entering import NotTraced, is_at
from epsagon_fast.producer.place import Place
from epsagon_fast.producer.tracer import Tracer

from .place import SpanPlace, UnrecordedPlace, caller_in
from .span import RecordedSpan
from .standing import EndedSpan, StandingSpan

# What a span may be begun below: a place of ours, the ids of a caller, work that is not traced, or nothing.
Found = Place[Tracer] | TraceContext | NotTraced | None

# The attribute in which a span that is not ours knows its place.
PLACE: Final = "epsagon_place"
# The key under which a context says that its work is not traced, in whatever thread it is attached again.
UNTRACED: Final = create_key("epsagon-fast-untraced")
# The key of the current span. It has no public name, but it is the only one in this context.
SPAN_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))
_here: Final[Callable[[], Any]] = entering.current.get

# The context that was attached last, and the place that was current then. None: none was.
_attached: ContextVar[tuple[Context, Any] | None] = ContextVar("epsagon_fast_attached", default=None)
# The context that was made last of an attached one for another place: the attached one, the place, the result.
_made: ContextVar[tuple[Context, Any, Context] | None] = ContextVar("epsagon_fast_made", default=None)


def keep_as_one() -> None:
    """Let OpenTelemetry's context and ours be one from now on."""
    for method in _METHODS:
        method.put_on()


def keep_apart() -> None:
    """Let each have a current span of its own."""
    for method in _METHODS:
        method.take_off()


def found_in(context: Context | None) -> Found:
    """Return what a span is begun below that is begun in a context; None: in the current one."""
    here = _here()
    if context is None:
        attached = _attached.get()
        if here is not (attached and attached[1]):
            is_outermost = type(here) is UnrecordedPlace and here.open_trace() is None
            return here.handed_on if is_outermost else here  # type: ignore[no-any-return]
        if attached is None:
            return current.acting_place()
        context = attached[0]
    place = _place_in(context)
    if place is not None or isinstance(here, NotTraced):
        return here if place is None else place
    span = context.get(SPAN_KEY)
    return caller_in(span) if isinstance(span, Span) else None


def _place_in(context: Context) -> Place[Tracer] | NotTraced | None:
    """Return where a context's span is the current one; None: it is a caller's, of another tracer, or there is none."""
    place = _place_of(context.get(SPAN_KEY))
    return current.NOT_TRACED if place is None and context.get(UNTRACED) else place


def _place_of(span: Any) -> Place[Tracer] | None:
    return span.place if isinstance(span, RecordedSpan | StandingSpan | EndedSpan) else getattr(span, PLACE, None)


def _unrecorded_at(span: Any, before: Any) -> Any:
    """Return the place of a span that is not recorded here, or of no span, inside the place before."""
    shown = span if isinstance(span, Span) else INVALID_SPAN
    if isinstance(before, NotTraced) or (before is None and not shown.get_span_context().is_valid):
        return before
    return UnrecordedPlace(before, shown)


def _attach(original: Method, method: Wrapped) -> Method:
    def attach(runtime: Any, context: Context) -> Any:
        if not method.is_on:
            return original(runtime, context)
        before = _here()
        place = _place_in(context) or _unrecorded_at(context.get(SPAN_KEY), before)
        token = _attached.set((context, place))
        if place is not before:
            entering.current.set(place)
        return token, place, before

    return attach


def _detach(original: Method, method: Wrapped) -> Method:
    def detach(runtime: Any, token: Any) -> None:
        if isinstance(token, Token):
            original(runtime, token)
            return
        own, place, before = token
        if place is not before and is_at(place):
            entering.current.set(before)
        _attached.reset(own)

    return detach


def _get_current(original: Method, method: Wrapped) -> Method:
    def get_current(runtime: Any) -> Context:
        attached = _attached.get()
        here = _here()
        if attached is None:
            context: Context = original(runtime)
            return context if here is None or not method.is_on else _shown(context, here)
        return attached[0] if here is attached[1] or not method.is_on else _shown(attached[0], here)

    return get_current


def _shown(context: Context, place: Any) -> Context:
    """Return a context with the span of a place in it."""
    made = _made.get()
    if made is not None and made[1] is place and made[0] is context:
        return made[2]
    shown = set_span_in_context(_span_of(place), context)
    if isinstance(place, NotTraced) or context.get(UNTRACED):
        shown = set_value(UNTRACED, isinstance(place, NotTraced), shown)
    _made.set((context, place, shown))
    return shown


def _span_of(place: Any) -> Span:
    if type(place) is SpanPlace:
        return place.shown or EndedSpan(place)
    if type(place) is UnrecordedPlace:
        return place.shown
    return INVALID_SPAN if place is None or isinstance(place, NotTraced) else StandingSpan(place)


_METHODS: Final = (
    Wrapped(ContextVarsRuntimeContext, "attach", _attach),
    Wrapped(ContextVarsRuntimeContext, "detach", _detach),
    Wrapped(ContextVarsRuntimeContext, "get_current", _get_current),
)
