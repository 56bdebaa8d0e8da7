"""Tracing what the libraries of the running process do, without `run`: those that it has imported, and will import."""

import functools
import os
import sys

from . import watched


@functools.cache
def begin() -> None:
    """Trace the libraries that are known, as below `run`. A second call changes nothing, nor does one below `run`."""
    if os.environ.get(watched.VARIABLE):
        return
    from .path.sitecustomize import Watcher

    watcher = Watcher(",".join(watched.modules()))
    sys.meta_path.insert(0, watcher)
    for name in watcher.names & sys.modules.keys():
        watcher.imported(name)
