"""Tries out whether work ends the process that does it, in a child."""

import os
import signal
from collections.abc import Callable

# A child that takes longer hangs, as this process would.
TIMEOUT_S = 10


def survives(work: Callable[[], object]) -> bool:
    """Say whether a process outlives this work, and it raises nothing. False also where no child can be had.

    What it changes in memory stays in the child; it must change nothing that processes share.
    """
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(TIMEOUT_S)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0
