"""What begins when a library was imported in a process below `run`. path/sitecustomize.py calls it.

Nothing here may fail into the program's import: what cannot be traced is logged, and left out.
"""

import functools

from epsagon_fast.foreign import shown
from epsagon_fast.interrupts import let_pass
from epsagon_fast.log import warn_once

from . import instrumentors, own, watched


def begin(module: str) -> None:
    """Trace what is to be traced now that `module` has been imported."""
    _begin_always()
    integrations: tuple[own.Integration | instrumentors.Instrumentor, ...] = (*own.STARTS, *instrumentors.wanted())
    for each in integrations:
        if module in each.modules:
            _attempt(each)


@functools.cache
def _begin_always() -> None:
    for each in own.ALWAYS:
        _attempt(each)


def _attempt(what: "own.Integration | instrumentors.Instrumentor") -> None:
    if watched.is_left_out(what.names):
        return
    try:
        what.start()
    except Exception as error:  # the library's version may be one that we do not know
        let_pass(error)
        message = "%s is not traced: %s: %s"
        warn_once(f"run {what.name}", message, what.name, type(error).__name__, shown(error), about="what run traces")
