"""An alarm at each step of Python code in turn: what a signal's handler raises there must reach the application.

for interrupted in at_each_step(work):      # calls work() until it is not interrupted any more
    assert not process.open_traces
"""

import dis
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import epsagon_fast

ENTERING = str(Path(epsagon_fast.__file__).parent / "producer" / "entering.py")


class Limit(TimeoutError):
    """What the handler raises: of the kind that is most easily taken for a failure of what it interrupts."""


def at_each_step(work: Callable[[], object]) -> Iterator[str]:
    """Call `work` again and again, and raise Limit at its first step, at its second and so on, until it has no more.

    Yields the interrupted line after each call. AssertionError if the exception does not leave `work`.
    """
    for number in count(1):
        place = _interrupted(work, number)
        if not place:
            return
        yield place


def _interrupted(work: Callable[[], object], number: int) -> str:
    """Call `work`, and raise at its step with this number. Return where that was, "" if there is no such step."""
    seen, place = 0, ""
    lines: dict[FrameType, int] = {}

    def step(frame: FrameType, event: str, _: object) -> Any:
        # As a signal's handler it is given the frame that it interrupts, which is how one is recognised.
        nonlocal seen, place
        # At other events the frame is not in the exception's traceback, as it is where a handler is called.
        if event == "line":
            last, lines[frame] = lines.get(frame, 0), frame.f_lineno
            if last > frame.f_lineno and _is_with(frame.f_code.co_filename, frame.f_lineno):
                # The way back to a `with` is its end, before which the interpreter calls no handler any more.
                return step
            if frame.f_code.co_code[frame.f_lasti] == dis.opmap["NOP"]:
                # A `try` alone does nothing, and the interpreter takes it for outside of what is around it.
                return step
            if not last and frame.f_code.co_name == "__exit__" and frame.f_code.co_filename == ENTERING:
                # Plain Python cannot guard the beginning of an `__exit__`. Where the module is compiled there is none.
                return step
            seen += 1
            if seen == number:
                place = f"step {number}: {frame.f_code.co_filename}:{frame.f_lineno}"
                raise Limit
        return step

    before = sys.gettrace()
    has_left = False
    # Nobody's callbacks for it are interrupted instead, and what is left open is not closed by it.
    gc.disable()
    sys.settrace(step)
    try:
        work()
    except Limit:
        has_left = True
    finally:
        sys.settrace(before)
        lines.clear()
        gc.enable()
    assert has_left or not place, f"swallowed at {place}"
    return place


@functools.cache
def _is_with(path: str, line: int) -> bool:
    text = Path(path).read_text("utf-8") if Path(path).is_file() else ""
    return any(each.lstrip().startswith(("with ", "async with ")) for each in text.split("\n")[line - 1 : line])
