"""What would be traced in this environment, and what could be: the texts of `run --list` and `run --suggest`."""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from . import instrumentors, own, watched
from .libraries import LIBRARIES

PREFIX = "opentelemetry-instrumentation-"


def table() -> str:
    """Return a line for each library that is installed and that we or an installed instrumentation know."""
    rows = sorted({*_own_rows(), *_instrumentor_rows()})
    width = max((len(name) for name, *_ in rows), default=0)
    return "\n".join(f"{name:{width}}  {has:12}  {how}" for name, has, how in rows) or "There is nothing to trace."


def names() -> list[str]:
    """Return the names of all that would be traced and is not left out."""
    return sorted({name for name, _, how in (*_own_rows(), *_instrumentor_rows()) if watched.CHOICE not in how})


def suggestion() -> str:
    """Return the pip line for instrumentations of installed libraries, or a sentence if none is missing."""
    missing = sorted(
        {
            PREFIX + library.suffix
            for name, library in LIBRARIES.items()
            if name not in instrumentors.installed() and (not library.distributions or _version(*library.distributions))
        }
    )
    return f"pip install {' '.join(missing)}" if missing else "Nothing is missing."


def _own_rows() -> Iterator[tuple[str, str, str]]:
    for each in (*own.STARTS, *own.ALWAYS):
        has = "" if each.name in sys.stdlib_module_names else _version(each.name)
        if has is not None:
            yield each.name, has, _how(each.names, "epsagon_fast")


def _instrumentor_rows() -> Iterator[tuple[str, str, str]]:
    for each in instrumentors.wanted():
        has = _version(*each.distributions) if each.distributions else ""
        if has is not None and each.modules:
            yield each.name, has, _how(each.names, each.target[0])


def _how(names: frozenset[str], traced_by: str) -> str:
    return f"left out by {watched.CHOICE}" if watched.is_left_out(names) else traced_by


def _version(*distributions: str) -> str | None:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
