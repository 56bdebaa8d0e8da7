"""How much Python code runs, which is the same on every machine, however busy it is."""

import sys
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any


def step_by_step(call: Callable[[], object], step: Callable[[], object], file: str = "") -> None:
    """Call a function, and `step` before each of Python's instructions that it runs; `file`: of those of one file."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if file and frame.f_code.co_filename != file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            step()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)


def opcodes(call: Callable[[], object]) -> int:
    """Call a function. Return how many of Python's instructions that took, with those of what it called."""
    steps = count()
    step_by_step(call, steps.__next__)
    return next(steps)
