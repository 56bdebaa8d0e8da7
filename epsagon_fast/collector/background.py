"""Work beside the loop, begun without a wait.

`Thread.start` of the standard library returns when the new thread has had the processor. Where many want one that may
take a quarter of a second, in which the loop reads nothing and rings fill.
"""

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable


class Background:
    """A thread that does one thing. It does not keep the process from ending."""

    def __init__(self, work: Callable[[], object]) -> None:
        """Begin. Raises RuntimeError if the system has no thread left."""
        self._at_work = allocate_lock()
        self._at_work.acquire()
        start_new_thread(self._run, (work,))

    @property
    def is_over(self) -> bool:
        """Whether the work is done, or has failed."""
        return not self._at_work.locked()

    def wait(self, timeout_s: float) -> None:
        """Wait at most so long until it is over."""
        if self._at_work.acquire(timeout=timeout_s):
            self._at_work.release()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            self._at_work.release()
