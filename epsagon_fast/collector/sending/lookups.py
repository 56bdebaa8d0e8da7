"""Questions to the system that nothing can cut short: a name's addresses, a file on a mount that does not answer.

Each is asked in a thread of its own. An asker whose time is over goes on without the answer, and leaves the thread
behind. All who ask the same question at a time share one thread, so a dead mount holds one thread and no more.
"""

import copy
import threading
from collections.abc import Callable, Hashable

from epsagon_fast.hints import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

# Questions without an answer at once. Each holds a thread that may never end, so one more is not asked.
MAX_ASKED = 128

T = TypeVar("T")


class Lookups:
    """The questions that are being asked. Safe to use from many threads."""

    def __init__(self, asked_max: int = MAX_ASKED) -> None:
        self._asked_max = asked_max
        self._lock = threading.Lock()
        self._asked: dict[Hashable, Future[Any]] = {}

    def ask(self, question: Hashable, find: Callable[[], T], timeout_s: float) -> T:
        """Return what `find` returns, or raise what it raises; TimeoutError after timeout_s, or if too much is asked.

        question: equal ones share an answer. `find` goes on after the time, and its answer is thrown away.
        """
        with self._lock:
            answer: Future[T] | None = self._asked.get(question)
            if answer is None:
                answer = self._start(question, find)
        error = answer.exception(timeout_s)
        if error is not None:
            # A copy for each asker, so that their tracebacks do not mix.
            raise copy.copy(error)
        return answer.result()

    def _start(self, question: Hashable, find: Callable[[], T]) -> "Future[T]":
        # Not before the first question, which no collector has before it serves.
        from concurrent.futures import Future

        if len(self._asked) >= self._asked_max:
            raise TimeoutError("too many look-ups are without an answer")
        answer: Future[T] = Future()
        try:
            threading.Thread(
                target=self._find, args=(question, find, answer), name="epsagon-lookup", daemon=True
            ).start()
        except RuntimeError as error:
            raise TimeoutError("the system has no thread for a look-up") from error
        self._asked[question] = answer
        return answer

    def _find(self, question: Hashable, find: Callable[[], T], answer: "Future[T]") -> None:
        found: T
        try:
            found = find()
        except BaseException as error:
            self._forget(question)
            answer.set_exception(error)
        else:
            self._forget(question)
            answer.set_result(found)

    def _forget(self, question: Hashable) -> None:
        # Before the answer is given, so that a later question is asked anew.
        with self._lock:
            self._asked.pop(question, None)


lookups = Lookups()
