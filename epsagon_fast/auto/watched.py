"""What the processes below `run` watch for, and what is left out. The environment hands both on to them."""

import os
from collections.abc import Collection
from typing import Final

from . import instrumentors, own
from .libraries import LIBRARIES

# The names of modules, separated by commas. path/sitecustomize.py reads it.
VARIABLE: Final = "EPSAGON_RUN_WATCHES"
# What is not to be traced, each name with a dash before it, separated by commas: -redis,-jinja2
CHOICE: Final = "EPSAGON_INSTRUMENT"


def modules() -> list[str]:
    """Return the modules to watch for: those of our integrations, and of the instrumentations that are installed."""
    installed = {module for each in instrumentors.wanted() for module in each.modules}
    return sorted({*(each.module for each in own.STARTS), *installed})


def left_out() -> frozenset[str]:
    """Return the names of what the environment leaves out."""
    return frozenset(instrumentors.plain(name[1:]) for name in _said() if name.startswith("-"))


def misunderstood() -> list[str]:
    """Return what the environment says of it that has no meaning: without a dash, or a name that is not known."""
    return [name for name in _said() if not name.startswith("-") or instrumentors.plain(name[1:]) not in _known()]


def _known() -> frozenset[str]:
    ours = {name for each in (*own.STARTS, *own.ALWAYS) for name in each.names}
    installed = {name for each in instrumentors.wanted() for name in each.names}
    # Their instrumentations need not be installed: one setting may serve several programs.
    others = {name for key, each in LIBRARIES.items() for name in (key, *each.distributions)}
    return frozenset(map(instrumentors.plain, ours | installed | others))


def is_left_out(names: Collection[str]) -> bool:
    """Say whether one of these names is among those that are left out."""
    return not left_out().isdisjoint(names)


def _said() -> list[str]:
    return [name for name in map(str.strip, os.environ.get(CHOICE, "").split(",")) if name]
