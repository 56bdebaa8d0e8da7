"""Imported by Python itself at its start, in each process below `epsagon-fast run`: waits for libraries to be imported.

It uses nothing but the interpreter, because every Python program below `run` pays for it: also those that trace nothing
and those of an environment that this package is not installed in. Such a Python may be an old one, from 3.7 on.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

FOLDER = os.path.dirname(os.path.abspath(__file__))
# The modules to watch for, as watched.py writes them.
VARIABLE = "EPSAGON_RUN_WATCHES"
MARK = "epsagon_fast_watches"


class Watcher:
    """A finder before all others. It finds what they find, and learns when a watched module has been imported."""

    def __init__(self, names: str) -> None:
        self.names = set(names.split(","))

    def begin(self) -> None:
        """Watch from now on, and begin to trace what has been imported already."""
        sys.meta_path.insert(0, self)
        for name in self.names & sys.modules.keys():
            self.imported(name)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return what another finder says of a watched module, and None of any other."""
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)  # type: ignore[arg-type]
                if spec is not None:
                    self._watch(spec)
                    return spec
        return None

    def _watch(self, spec: ModuleSpec) -> None:
        # The loader stays the one that it is, because programs ask for its class and its files.
        loader = spec.loader
        execute = getattr(loader, "exec_module", None)
        # Another tracer's finder may ask us again and stand around the same loader.
        if execute is None or hasattr(loader, MARK):
            return

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module, loader.epsagon_fast_watches  # type: ignore[union-attr]
            execute(module)
            self.imported(module.__name__)

        try:
            setattr(loader, MARK, True)
            loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
        except AttributeError:  # a loader that is no ordinary object
            return

    def imported(self, name: str) -> None:
        """Begin to trace a library. It happens once, also if the module is loaded anew."""
        if name not in self.names:
            return
        self.names.discard(name)
        try:
            from epsagon_fast.auto.starting import begin
        except Exception:
            # This Python has another environment, without this package or with another version of it.
            self.names.clear()
        else:
            begin(name)


def import_shadowed() -> None:
    """Import the module of this name that Python would have imported without us, in our place."""
    spec = PathFinder.find_spec(__name__)
    if spec is None or spec.loader is None:
        return
    from importlib.util import module_from_spec  # the rest needs less of the library

    module = sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(module)


# Not where the package imports it for the class above, in a process that is not below `run`.
if __name__ == "sitecustomize":
    # The program's path is as without us. Its children find the folder in PYTHONPATH.
    sys.path[:] = [place for place in sys.path if os.path.abspath(place) != FOLDER]
    if os.environ.get(VARIABLE):
        Watcher(os.environ[VARIABLE]).begin()
    import_shadowed()
