"""Imports the modules that are otherwise imported when needed: with `init` or the first trace, and before each fork.

Later a module may be gone: the process has changed its user or its root, or its virtual environment was replaced. And a
child that is forked in the middle of another thread's import would wait for ever when it needs the same module.
"""

import importlib
import os
import sys

from epsagon_fast.config import may_need_proxy
from epsagon_fast.hints import Any, Final
from epsagon_fast.interrupts import let_pass

_MODULES: Final = (
    *("importlib.util", "mmap", "signal", "unicodedata", "urllib.parse"),
    *("epsagon_fast.masking", "epsagon_fast.producer.stack", "epsagon_fast.queue.overview", "epsagon_fast.trimming"),
)


def import_now() -> None:
    """Import all of them. A module that cannot be imported is left out."""
    for name in (*_MODULES, *(["urllib.request"] if may_need_proxy() else [])):
        # A file that cannot be read or a missing descriptor must not raise into the application.
        try:
            importlib.import_module(name)
        except Exception as error:
            let_pass(error)
    # logging registers hooks of its own, and complains if that happens during a fork. So it is not imported here; only
    # another thread's import of it is waited for.
    if getattr(getattr(sys.modules.get("logging"), "__spec__", None), "_initializing", False):
        _await_logging()


def _await_logging() -> None:
    """Wait for the end of another thread's import of logging, which itself waits for logging's lock.

    At a fork this thread holds that lock: logging registers its hook in the middle of its import, after ours, and the
    last hook runs first.
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
