"""Fit a trace's events to a byte limit: compiled where it was built, else in plain Python.

EPSAGON_FAST_IMPL=compiled or reference forces one of the two; they give the same bytes.
"""

import os

from epsagon_fast.trimming._types import TraceTooBig, Trimmed

IMPLEMENTATION = os.environ.get("EPSAGON_FAST_IMPL") or "compiled"
if IMPLEMENTATION not in ("compiled", "reference"):
    raise ValueError(f"EPSAGON_FAST_IMPL is {IMPLEMENTATION!r}, must be compiled or reference")

if IMPLEMENTATION == "compiled":
    try:
        from epsagon_fast.trimming._compiled import trim
    except ModuleNotFoundError:
        if os.environ.get("EPSAGON_FAST_IMPL"):
            raise
        IMPLEMENTATION = "reference"
if IMPLEMENTATION == "reference":
    from epsagon_fast.trimming._reference import trim

__all__ = ["IMPLEMENTATION", "TraceTooBig", "Trimmed", "trim"]
