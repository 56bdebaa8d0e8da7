"""Times that a worker records: as the clock said them, in whole nanoseconds, where the trace's format keeps types.

A float of seconds is off by a hundred nanoseconds. Other formats get it, because their backends expect seconds.
"""

import time

from epsagon_fast.hints import Final
from epsagon_fast.protocol import NANOSECONDS_FROM

NS_PER_S: Final = 1_000_000_000


def written(time_ns: int, typed: bool) -> int | float:
    """Return nanoseconds since the epoch as a trace's format takes them. `typed`: the format keeps types.

    A smaller number would be read as seconds, so it becomes seconds.
    """
    return time_ns if typed and time_ns >= NANOSECONDS_FROM else time_ns / NS_PER_S


def now(typed: bool) -> int | float:
    """Return the time of the clock, written."""
    return written(time.time_ns(), typed)
