"""Tracing what the libraries of the running process do, without `run`: those that it has imported, and will import."""

import functools
import os

from . import watched


@functools.cache
def begin() -> None:
    """Trace the libraries that are known, as below `run`. A second call changes nothing, nor does one below `run`."""
    if os.environ.get(watched.VARIABLE):
        return
    from .path.sitecustomize import Watcher

    Watcher(",".join(watched.modules())).begin()
