"""Importing what this package else imports only where it is needed: with the first trace, and before a fork.

Later a module may not be there: the process has changed its user or its root, or its virtual environment was replaced.
And a child that is forked in the middle of another thread's import, and needs the module too, waits for ever for its
end.
"""

import importlib
import os
import sys
from typing import Any, Final

from epsagon_fast.config import may_need_proxy
from epsagon_fast.interrupts import let_pass

_MODULES: Final = ("mmap", "epsagon_fast.producer.stack", "urllib.parse", "epsagon_fast.trimming")


def import_now() -> None:
    """Import all of them. What cannot be imported is left out."""
    for name in (*_MODULES, *(["urllib.request"] if may_need_proxy() else [])):
        # The application is not to hear of a file that cannot be read or a descriptor that is lacking.
        try:
            importlib.import_module(name)
        except Exception as error:
            let_pass(error)
    # Logging registers hooks of its own, and complains if that happens during a fork: so it is not imported here, only
    # an import under way is awaited.
    if getattr(getattr(sys.modules.get("logging"), "__spec__", None), "_initializing", False):
        _await_logging()


def _await_logging() -> None:
    """Wait for the end of another thread's import of logging, which for its part waits for logging's lock.

    At a fork this thread has that lock: logging's hook is registered in the middle of its import, after ours, and of
    hooks the last comes first.
    """
    lock: Any = getattr(sys.modules["logging"], "_lock", None)
    is_ours = lock is not None and lock._is_owned()
    if is_ours:
        lock.release()
    try:
        importlib.import_module("logging")
    finally:
        if is_ours:
            lock.acquire()


os.register_at_fork(before=import_now)
