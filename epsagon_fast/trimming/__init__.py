"""Fit a trace's events to a byte limit: compiled where it was built, else in plain Python.

Both give the same bytes; epsagon_fast/compiled.py says which of them is taken.
"""

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.trimming._types import LEAST_LEVEL_BYTES, Shortened, TraceTooBig, Trimmed

IMPLEMENTATION: Final = implementation("trimmer")
"""Which trimmer is in use, "compiled" or "reference": EPSAGON_FAST_IMPL forces one."""

if TYPE_CHECKING or IMPLEMENTATION == COMPILED:
    from epsagon_fast.trimming._compiled import at_level, shorten, trim
else:
    from epsagon_fast.trimming._reference import at_level, shorten, trim

__all__ = [
    "IMPLEMENTATION",
    "LEAST_LEVEL_BYTES",
    "Shortened",
    "TraceTooBig",
    "Trimmed",
    "at_level",
    "shorten",
    "trim",
]
