"""Waiting for a condition. It needs nothing else of the tests, so that programs which they start wait the same way."""

import time
from collections.abc import Callable
from typing import TypeVar

# Nothing that is right takes so long, not even on a machine that is busy with ten other things.
TIMEOUT_S = 60.0

T = TypeVar("T")


def until(
    condition: Callable[[], T], what: str | Callable[[], str], timeout_s: float = TIMEOUT_S, pause_s: float = 0.005
) -> T:
    """Return the condition's value once it is true; fail with `what`, which may be a function, after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause_s)
