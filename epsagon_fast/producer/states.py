"""What a tracer is, and what each call does to it.

A tracer reads its state and moves to another one only by this table; what it says of itself follows from the state. A
call that the table sends to the state it came from does nothing.
"""

from collections.abc import Mapping
from enum import IntEnum, auto
from typing import Final, NamedTuple

from epsagon_fast.protocol import Outcome


# An integer enum: its members are hashed and compared in C, and a trace that opens and closes looks at the table often.
class State(IntEnum):
    """Where a tracer is in its life."""

    # Made, not started.
    NEW = auto()
    # Its start is under way, or something interrupted it.
    STARTING = auto()
    # Its trace is open in a ring, or about to be. What is added is taken.
    OPEN = auto()
    # It runs and ignores what is added: tracing is disabled, or there is no token.
    SILENT = auto()
    # It runs and refuses what is added, for the reason for which the trace was refused.
    REFUSED = auto()
    # The trace goes on where it was opened. This process, another one, adds no more to it.
    LEFT = auto()
    # Stopped before it was open.
    UNSTARTED = auto()
    # Stopped after it was open.
    CLOSED = auto()
    # Closed as unfinished.
    ABANDONED = auto()
    # Stopped after it ignored everything.
    SILENT_CLOSED = auto()
    # Stopped after it refused everything.
    REFUSED_CLOSED = auto()


# In place of a reason: what is added counts for the reason for which the trace itself was refused.
ITS_OWN: Final = "its own"


class Row(NamedTuple):
    """What the calls do in one state, and what the tracer says of itself there."""

    start: State
    # `stop` and `send_stop_signal` in the process that opened the trace. Elsewhere they do nothing.
    stop: State
    # `abandon` in the process that opened the trace: at its end, and after an interruption.
    abandon: State
    # `abandon` in any other process: it was forked inside the trace, or attached to it.
    leave: State
    # The reason (one of REFUSALS) for which what is added counts as refused; "": it is taken, or ignored uncounted.
    refusal: str
    running: bool
    stopped: bool
    # What became of the trace, without its reason. None: that is the collector's to say.
    outcome: Outcome | None


def _ended(state: State, refusal: str, outcome: Outcome | None) -> Row:
    """Return the row of a state that no call leaves: the tracer was stopped."""
    return Row(state, state, state, state, refusal, False, True, outcome)


_DROPPED, _DISABLED = Outcome.DROPPED, Outcome.DISABLED
NEW, STARTING, OPEN, SILENT, REFUSED, LEFT, UNSTARTED, CLOSED, ABANDONED, SILENT_CLOSED, REFUSED_CLOSED = State
_MISUSE, _LATE = "misuse", "closed"

# fmt: off
TABLE: Final[Mapping[State, Row]] = {
    #              start     stop            abandon         leave    refusal  running stopped outcome
    NEW:       Row(STARTING, UNSTARTED,      UNSTARTED,      NEW,     _MISUSE, False,  False,  _DROPPED),
    STARTING:  Row(STARTING, UNSTARTED,      UNSTARTED,      LEFT,    _MISUSE, True,   False,  _DROPPED),
    OPEN:      Row(OPEN,     CLOSED,         ABANDONED,      LEFT,    "",      True,   False,  None),
    SILENT:    Row(SILENT,   SILENT_CLOSED,  SILENT_CLOSED,  SILENT,  "",      True,   False,  _DISABLED),
    REFUSED:   Row(REFUSED,  REFUSED_CLOSED, REFUSED_CLOSED, REFUSED, ITS_OWN, True,   False,  _DROPPED),
    LEFT:      Row(LEFT,     LEFT,           LEFT,           LEFT,    _LATE,   True,   False,  None),
    UNSTARTED:      _ended(UNSTARTED,        _MISUSE, _DROPPED),
    CLOSED:         _ended(CLOSED,           _MISUSE, None),
    ABANDONED:      _ended(ABANDONED,        _LATE,   None),
    SILENT_CLOSED:  _ended(SILENT_CLOSED,    "",      _DISABLED),
    REFUSED_CLOSED: _ended(REFUSED_CLOSED,   ITS_OWN, _DROPPED),
}
# fmt: on

# The collector knows of the trace. What still comes for it once it is closed counts as late there.
IN_A_RING: Final = frozenset((OPEN, CLOSED, ABANDONED))
