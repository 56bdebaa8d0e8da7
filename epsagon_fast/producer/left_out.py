"""The place of work that the head has left out: nothing is recorded there, and what it calls is told so.

A tracer costs several times as much as the decision, and most of that work calls nothing and adds nothing. So the place
makes its tracer when something asks for it.
"""

from epsagon_fast.config import ResolvedConfig
from epsagon_fast.hints import Final
from epsagon_fast.thresholds import DIGITS

from . import head
from .context import SAMPLED, TraceContext, left_by
from .ids import SPAN_ID_BYTES, kernel_bytes, span_id
from .place import Place
from .process import process
from .tracer import Tracer

_UNUSED: Final = 2 * SPAN_ID_BYTES - DIGITS


class LeftOut(Place[Tracer]):
    """Holds the context of a caller, or the second half of the id that a trace of its own has here.

    `is_over`: whether the work has ended. Later work may begin in the same context and is decided anew.
    """

    __slots__ = ("_begun", "_config", "is_over")

    def __init__(self, config: ResolvedConfig, begun: TraceContext | str) -> None:
        process.own.left_out += 1
        # As in Place. A call of its __init__ would cost as much as all this.
        self.tracer = self.context = self.span_id = None
        self.is_over = False
        self._config = config
        self._begun = begun

    def open_trace(self) -> Tracer:
        """Return the trace, which ignores everything."""
        tracer = self.tracer
        if tracer is None:
            begun = self._begun
            tracer = Tracer(self._config, None, span_id() + begun if isinstance(begun, str) else None)
            tracer.context = None if isinstance(begun, str) else begun
            tracer.start()
            # The work was counted when it began, and its tracer's start has counted it again.
            process.own.left_out -= tracer.is_left_out
            self.tracer = tracer
        return tracer

    still_open = open_trace

    def heritage(self) -> TraceContext:
        """Return the trace context, of which the flag says that nothing is recorded."""
        return left_by(self.open_trace())


def decide(config: ResolvedConfig, context: TraceContext | None) -> LeftOut | str:
    """Return where work is left out, or the id under which it is recorded: 32 hex digits, "" for any.

    context: the caller's, None if the work begins here.
    """
    if context is not None:
        return "" if context.flags & SAMPLED else LeftOut(config, context)
    # From the generator, because asking the kernel costs as much as all else. What is recorded gets a half from there.
    half_id = span_id()
    # Hex digits of one length sort as their numbers do.
    if half_id[_UNUSED:] < head.least_digits(config.sample_rate):
        return LeftOut(config, half_id)
    return kernel_bytes(SPAN_ID_BYTES).hex() + half_id
