"""Which compiled modules are in use. This alone decides; each has a twin in plain Python that does the same, slower.

A module may be absent (no compiler, another interpreter) or there and not loadable (built for another C library or
machine). Either way its twin steps in, for that module alone: a tracer that does not load must not take the application
with it. EPSAGON_FAST_IMPL=reference takes the twins; =compiled raises instead.
"""

import os
from importlib import import_module
from typing import Final

# The modules, by the word that people read in `epsagon-fast status`.
MODULES: Final = {
    "trimmer": "epsagon_fast.trimming._compiled",
    "ring": "epsagon_fast.queue._ring",
    "add_event": "epsagon_fast.producer._quick",
    "blocks": "epsagon_fast.producer._entering",
    "start": "epsagon_fast.queue._spawn",
}
COMPILED: Final = "compiled"
REFERENCE: Final = "reference"

# Why a part is not the compiled one, for the parts that were asked for.
_lacking: dict[str, str] = {}


def implementation(part: str) -> str:
    """Return "compiled" or "reference" for a part; the module is imported by that.

    ValueError: EPSAGON_FAST_IMPL is neither. ImportError: it says compiled, and that cannot be.
    """
    forced = os.environ.get("EPSAGON_FAST_IMPL", "")
    if forced not in ("", COMPILED, REFERENCE):
        raise ValueError(f"EPSAGON_FAST_IMPL is {forced!r}, must be compiled or reference")
    if forced == REFERENCE:
        _lacking[part] = "EPSAGON_FAST_IMPL=reference"
        return REFERENCE
    try:
        import_module(MODULES[part])
    except ImportError as error:
        if forced:
            raise
        _lacking[part] = str(error)
        return REFERENCE
    return COMPILED


def overview() -> dict[str, str]:
    """Return for each part which it is; where it is the twin, with the reason."""
    chosen = {part: implementation(part) for part in MODULES}
    return {part: f"{which} ({_lacking[part]})" if which == REFERENCE else which for part, which in chosen.items()}
