"""A Lambda function is ended at its deadline without a word, so what is there of its trace is sent a little earlier.

A timer of the process does it, in the main thread, where Lambda functions are called. A program that uses SIGALRM or
that timer itself keeps them: its traces have no such deadline.
"""

import signal
import threading
from types import FrameType
from typing import Any, Final

from epsagon_fast.log import warn_once
from epsagon_fast.producer.lambda_timeout import get_lambda_timeout_threshold_ms
from epsagon_fast.producer.tracer import Tracer
from epsagon_fast.protocol import ErrorCode

MS_PER_S: Final = 1000
# Of what is left at the threshold. The rest is the function's own, which may still make it in time.
SHARE_TO_WAIT: Final = 0.5


class Deadline:
    """A `with` block that ends its trace with the error code 3 if it takes until shortly before `remaining_ms`."""

    def __init__(self, tracer: Tracer, remaining_ms: float) -> None:
        self._tracer = tracer
        self._threshold_ms = get_lambda_timeout_threshold_ms()
        self._left_s = (remaining_ms - self._threshold_ms) / MS_PER_S
        self._is_set = False

    def __enter__(self) -> None:
        if self._left_s <= 0 or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGALRM) != signal.SIG_DFL or any(signal.getitimer(signal.ITIMER_REAL)):
            warn_once(
                "compat deadline",
                "The program uses SIGALRM itself: no trace is sent before a deadline",
                about="the old names",
            )
            return
        signal.signal(signal.SIGALRM, self._ends)
        self._is_set = True
        signal.setitimer(signal.ITIMER_REAL, self._left_s)

    def __exit__(self, *_: Any) -> None:
        # The function may have taken the signal for itself meanwhile.
        if self._is_set and signal.getsignal(signal.SIGALRM) == self._ends:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _ends(self, number: int, frame: FrameType | None) -> None:
        if not self._tracer.has_failed:
            self._tracer.update_runner(error_code=ErrorCode.TIMEOUT)
        self._tracer.stop(SHARE_TO_WAIT * self._threshold_ms / MS_PER_S)
