"""What the libraries that fork processes tell about this one."""

import sys
from typing import Any, Final

# Their children end with os._exit, so atexit does not run there; their own finalizers do.
FORKERS: Final = ("multiprocessing", "billiard")
# Where the functions live that worker processes of pools run.
POOLS: Final = ("multiprocessing.pool", "concurrent.futures.process")


def parent_in(forker: str) -> int:
    """Return the pid of the process that made this one with `forker`, 0 if none did."""
    module: Any = sys.modules.get(f"{forker}.process")
    return getattr(module.current_process(), "_parent_pid", None) or 0 if module else 0


def is_of_pool() -> bool:
    """Say whether this is a worker process of a pool: what it runs comes from any caller that has the pool."""
    processes = sys.modules.get("multiprocessing.process")
    target = getattr(processes.current_process(), "_target", None) if processes else None
    return getattr(target, "__module__", None) in POOLS
