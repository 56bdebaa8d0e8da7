"""Which compiled modules are in use. This is the only place that decides.

Each compiled module has a twin in plain Python that does the same, slower. The twin steps in where the module is absent
(no compiler, another interpreter), does not load (built for another C library or machine) or lacks a name (built from
older sources), for that module alone: a tracer that does not load must not take the application with it. Only the
feeding goes with the ring, because it looks into the records that the compiled ring has read.
EPSAGON_FAST_IMPL=reference takes all the twins; EPSAGON_FAST_IMPL=compiled raises ImportError instead.
"""

import os
from importlib import import_module

from epsagon_fast.hints import Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.pages import see

# The modules, by the name that `epsagon-fast status` shows.
MODULES: Final = {
    "trimmer": "epsagon_fast.trimming._compiled",
    "ring": "epsagon_fast.queue._ring",
    "add_event": "epsagon_fast.producer._fast_path",
    "blocks": "epsagon_fast.producer._entering",
    "start": "epsagon_fast.queue._spawn",
    "feeding": "epsagon_fast.collector.assembling._feeding",
    "plain_spans": "epsagon_fast.collector.formats._plain",
    "search": "epsagon_fast.masking._search",
}
# What the package imports from each of them. If one is missing, none is taken: half of a module fits no twin.
NAMES: Final = {
    "trimmer": ("at_level", "shorten", "trim"),
    "ring": ("Consumer", "Mapping", "Page", "Producer", "batch", "crc32", "ids", "own_pid", "pack"),
    "add_event": (
        *("Block", "Branch", "Event", "Exchange", "FastPath", "OwnPath", "Place", "ProcessPath", "RequestPath"),
        *("Step", "blocks_for", "event"),
        *("exact_json", "footing_of", "injector", "kernel_bytes", "labelled", "opening_json", "runner_json", "span_id"),
        *("prepare_exchanges", "take_untold", "wsgi_answers"),
    ),
    "blocks": (
        *("Blocks", "Entered", "Inside", "NotTraced", "Opened", "Started", "Unclosed", "Unrecorded", "Within"),
        *("answered", "called_at", "called_with", "close_once", "closed", "current", "entered", "is_at", "parent_of"),
    ),
    "start": ("close_memory", "folder_is_held", "inode_of", "is_elevated", "ring", "start"),
    "feeding": ("OpenTraces", "fetch", "strays", "take", "tally", "unmasked", "whole"),
    "plain_spans": ("counted", "written"),
    "search": ("Search",),
}
COMPILED: Final = "compiled"
REFERENCE: Final = "reference"

# For each part that was asked for and is not compiled: the reason.
_lacking: dict[str, str] = {}


def implementation(part: str) -> str:
    """Return "compiled" or "reference" for a part. The compiled module is imported to find out.

    Raises ValueError if EPSAGON_FAST_IMPL is neither of the two. Raises ImportError if it says compiled and the module
    does not load as a whole.
    """
    forced = os.environ.get("EPSAGON_FAST_IMPL", "")
    if forced not in ("", COMPILED, REFERENCE):
        raise ValueError(f"EPSAGON_FAST_IMPL is {forced!r}, must be compiled or reference{see('compiled modules')}")
    if forced == REFERENCE:
        _lacking[part] = "EPSAGON_FAST_IMPL=reference"
        return REFERENCE
    try:
        _load(part)
    except Exception as error:  # a module of older sources may find in the package what it does not expect
        let_pass(error)
        if forced:
            raise
        _lacking[part] = str(error)
        return REFERENCE
    return COMPILED


def _load(part: str) -> None:
    module = import_module(MODULES[part])
    for name in NAMES[part]:
        if not hasattr(module, name):
            raise ImportError(f"{module.__file__} was built from other sources: it has no {name!r}")


def overview() -> dict[str, str]:
    """Return "compiled" or "reference" for each part, with the reason why it is the reference."""
    chosen = {part: implementation(part) for part in MODULES}
    return {part: f"{which} ({_lacking[part]})" if which == REFERENCE else which for part, which in chosen.items()}
