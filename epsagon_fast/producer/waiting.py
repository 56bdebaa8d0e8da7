"""Waiting in short sleeps, so that gevent's loop and other threads run on."""

import time
from collections.abc import Iterator

FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05


def pauses(timeout_s: float) -> Iterator[float]:
    """Yield how long to sleep before looking again, until `timeout_s` has passed. The caller sleeps.

    The last pause ends at the deadline, so looking once more after the loop sees what came in time.
    """
    deadline = time.monotonic() + timeout_s
    pause = FIRST_PAUSE_S
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(1.5 * pause, LONGEST_PAUSE_S)
