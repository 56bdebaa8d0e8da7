"""Processes of servers that end by a signal: no exit hook runs there, so their wait for the traces has another place.

- uvicorn puts the handlers back that it found, and raises the signal once more. The wait belongs to its shutdown, which
  is over by then: no request is left, and the application's own shutdown has ended.
- hypercorn terminates its other workers when the first has left, and a handler that does nothing but end the process
  lets it leave as at a normal exit. gunicorn's uvicorn workers have the same handler.

In a container such an end may be followed at once by that of process 1, and of the collector.
"""

import os
import signal
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any, Final

from epsagon_fast.producer import exiting

# The modules of the classes of servers that raise the signal again. Its handler is a method of the server.
SERVERS: Final = ("uvicorn.server",)


def wait_at_shutdown() -> None:
    """Let the server that handles this process's SIGTERM wait for the traces at its end, if it is such a one."""
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if any(kind.__module__ in SERVERS for kind in type(server).__mro__):
        vars(server).setdefault("shutdown", _Shutdown(server.shutdown))


def wait_when_terminated() -> None:
    """Let a server's worker process in a container wait for its traces if SIGTERM would just end it."""
    processes: Any = sys.modules.get("multiprocessing.process")
    is_worker = processes is not None and processes.parent_process() is not None
    if is_worker and threading.current_thread() is threading.main_thread() and exiting.dies_with_us():
        leave_before_dying(signal.SIGTERM)


def leave_before_dying(*numbers: int) -> None:
    """Leave as at a normal exit when one of these signals comes that has no handler and would end this process."""
    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)
            os.register_at_fork(after_in_child=partial(_die_at_once, number))


def _die_at_once(number: int) -> None:
    # A child that is no server's worker ends in the middle of a call, too. Python's handlers wait for the call's end.
    if signal.getsignal(number) is _leave:
        signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    # Another one meanwhile must not cut the wait off.
    signal.signal(number, signal.SIG_IGN)
    try:
        exiting.say_bye()
        # The process may have been at its end already, in the middle of this wait.
        exiting.wait_until_safe()
    finally:
        # Interrupted here and let live, it would ignore the signal for ever.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


class _Shutdown:
    """A server's `shutdown`, and the wait after it."""

    def __init__(self, shutdown: Any) -> None:
        self._shutdown = shutdown

    async def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        try:
            return await self._shutdown(*arguments, **keywords)
        finally:
            exiting.wait_until_safe()
