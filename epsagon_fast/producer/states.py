"""The states of a tracer, and the table of what each call does in each state.

A tracer changes its state only by this table, and its properties follow from the state. A call for which the table has
the same state again does nothing.
"""

from collections.abc import Mapping
from enum import IntEnum, auto

from epsagon_fast.hints import Final
from epsagon_fast.protocol import Outcome
from epsagon_fast.rows import NamedTuple


# An integer enum, because its members are hashed and compared in C, and each trace looks at the table several times.
class State(IntEnum):
    """The state of a tracer."""

    # Made, not started.
    NEW = auto()
    # `start` is under way, or was interrupted.
    STARTING = auto()
    # The trace is open in a ring, or about to be. Records are taken.
    OPEN = auto()
    # The tracer runs and ignores records: tracing is disabled, or there is no token.
    SILENT = auto()
    # The tracer runs and ignores records: sampling has left the trace out, at its start.
    LEFT_OUT = auto()
    # The tracer runs and refuses records, for the reason for which the trace was refused.
    REFUSED = auto()
    # The trace goes on in the process that opened it. This other process adds no more to it.
    LEFT = auto()
    # Stopped before it was open.
    UNSTARTED = auto()
    # Stopped after it was open.
    CLOSED = auto()
    # Closed as unfinished.
    ABANDONED = auto()
    # Stopped after it ignored everything.
    SILENT_CLOSED = auto()
    # Stopped after it was left out.
    LEFT_OUT_CLOSED = auto()
    # Stopped after it refused everything.
    REFUSED_CLOSED = auto()


# Takes the place of a reason: records are refused for the reason for which the trace itself was refused.
ITS_OWN: Final = "its own"


class Row(NamedTuple):
    """The effects of the calls in one state, and the tracer's properties there."""

    start: State
    # `stop` and `send_stop_signal` in the process that opened the trace. Elsewhere they do nothing.
    stop: State
    # `abandon` in the process that opened the trace: at its end, and after an interruption.
    abandon: State
    # `abandon` in any other process: it was forked inside the trace, or attached to it.
    leave: State
    # The reason (one of REFUSALS) for which records are refused; "": they are taken, or ignored without being counted.
    refusal: str
    running: bool
    stopped: bool
    # The trace's outcome, without its reason. None: the collector will tell it.
    outcome: Outcome | None


def _ended(state: State, refusal: str, outcome: Outcome | None) -> Row:
    """Return the row of a state that no call leaves: the tracer was stopped."""
    return Row(state, state, state, state, refusal, False, True, outcome)


_DROPPED, _DISABLED, _SAMPLED = Outcome.DROPPED, Outcome.DISABLED, Outcome.SAMPLED
NEW, STARTING, OPEN, SILENT, LEFT_OUT, REFUSED, LEFT = [*State][:7]
UNSTARTED, CLOSED, ABANDONED, SILENT_CLOSED, LEFT_OUT_CLOSED, REFUSED_CLOSED = [*State][7:]
_MISUSE, _LATE = "misuse", "closed"

# fmt: off
TABLE: Final[Mapping[State, Row]] = {
    #              start     stop             abandon          leave     refusal  running stopped outcome
    NEW:       Row(STARTING, UNSTARTED,       UNSTARTED,       NEW,      _MISUSE, False,  False,  _DROPPED),
    STARTING:  Row(STARTING, UNSTARTED,       UNSTARTED,       LEFT,     _MISUSE, True,   False,  _DROPPED),
    OPEN:      Row(OPEN,     CLOSED,          ABANDONED,       LEFT,     "",      True,   False,  None),
    SILENT:    Row(SILENT,   SILENT_CLOSED,   SILENT_CLOSED,   SILENT,   "",      True,   False,  _DISABLED),
    LEFT_OUT:  Row(LEFT_OUT, LEFT_OUT_CLOSED, LEFT_OUT_CLOSED, LEFT_OUT, "",      True,   False,  _SAMPLED),
    REFUSED:   Row(REFUSED,  REFUSED_CLOSED,  REFUSED_CLOSED,  REFUSED,  ITS_OWN, True,   False,  _DROPPED),
    LEFT:      Row(LEFT,     LEFT,            LEFT,            LEFT,     _LATE,   True,   False,  None),
    UNSTARTED:       _ended(UNSTARTED,        _MISUSE, _DROPPED),
    CLOSED:          _ended(CLOSED,           _MISUSE, None),
    ABANDONED:       _ended(ABANDONED,        _LATE,   None),
    SILENT_CLOSED:   _ended(SILENT_CLOSED,    "",      _DISABLED),
    LEFT_OUT_CLOSED: _ended(LEFT_OUT_CLOSED,  "",      _SAMPLED),
    REFUSED_CLOSED:  _ended(REFUSED_CLOSED,   ITS_OWN, _DROPPED),
}
# fmt: on

# In these states records are ignored and not counted, so nothing of them needs to be made.
IGNORING: Final = frozenset((SILENT, LEFT_OUT))

# In these states the collector knows of the trace. It counts records that come after the CLOSE as late.
IN_A_RING: Final = frozenset((OPEN, CLOSED, ABANDONED))
