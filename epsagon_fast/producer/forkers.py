"""The libraries that fork processes (multiprocessing, billiard), and whether a pool of theirs made this one."""

import sys

from epsagon_fast.hints import Final

# Libraries whose children end with os._exit, so that atexit does not run there, but the library's finalizers do.
FORKERS: Final = ("multiprocessing", "billiard")
# The modules of the functions that worker processes of pools run.
POOLS: Final = ("multiprocessing.pool", "concurrent.futures.process")


def is_of_pool() -> bool:
    """Say whether this is a worker process of a pool. Its jobs come from any caller that has the pool."""
    processes = sys.modules.get("multiprocessing.process")
    target = getattr(processes.current_process(), "_target", None) if processes else None
    return getattr(target, "__module__", None) in POOLS
