"""Waiting for a condition. It needs nothing else of the tests, so that programs which they start wait the same way."""

import time
from collections.abc import Callable
from typing import TypeVar

# Nothing that is right takes so long, not even on a machine that is busy with ten other things.
TIMEOUT_S = 60.0

# A condition may cost more than a pause: some look at every process there is. So what takes long is asked less often.
FIRST_PAUSE_S = 0.001
MAX_PAUSE_S = 0.03

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    timeout_s: float = TIMEOUT_S,
    pause_s: float | None = None,
) -> T:
    """Return the condition's value once it is true; fail with `what`, which may be a function, after `timeout_s`.

    `pause_s`: between two looks; without it, an eighth of the time that has passed.
    """
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        passed = time.monotonic() - began
        if passed > timeout_s:
            raise AssertionError(f"not in {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(min(max(FIRST_PAUSE_S, passed / 8), MAX_PAUSE_S) if pause_s is None else pause_s)
