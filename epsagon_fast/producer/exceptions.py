"""An exception of the application, in the wire's fields, with its own traceback or the stack of the reporting code."""

import sys
from types import FrameType

from epsagon_fast.hints import Any, cast
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer.plain import Copy, clean, full_type_name, printed, type_name
from epsagon_fast.producer.times import now

# Bytes of JSON. A longer text is cut in the middle: a recursion's traceback repeats itself there, and its cause stands
# at the ends.
MAX_TRACEBACK_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024
MAX_TYPE_BYTES = 1024
# Frames of this package are left out of the caller's stack.
_OWN_MODULES = __name__.rpartition(".")[0] + "."


def exception_of(
    error_type: str, value: str | BaseException, copy: Copy | None = None, typed: bool = False
) -> dict[str, Any]:
    """Return an exception, as a dict in wire order, with `value`'s own traceback or else the caller's stack.

    `copy` counts what of it is too long. `typed`: for a format that wants exact times (times.py) and classes with
    their modules.
    """
    copy = copy or Copy()
    if typed and issubclass(type(value), BaseException) and error_type == type_name(value):
        error_type = full_type_name(value)
    return {
        "type": copy.bounded(printed(error_type), MAX_TYPE_BYTES),
        "message": copy.bounded(printed(value), MAX_MESSAGE_BYTES),
        "traceback": copy.bounded(clean(_stack_of(value)), MAX_TRACEBACK_BYTES),
        "time": now(typed),
        "additional_data": {},
    }


def _stack_of(value: object) -> str:
    try:
        # Imported here, since it takes a tenth of the package's import time and most processes never need it.
        from . import stack

        text = stack.of_exception(cast(BaseException, value)) if issubclass(type(value), BaseException) else ""
        return text or stack.of_caller(_callers_frame())
    except Exception as error:
        let_pass(error)
        # It reads the application's source files. It cannot be imported if the first trace came after a chroot.
        return ""


def _callers_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame and str(frame.f_globals.get("__name__")).startswith(_OWN_MODULES):
        frame = frame.f_back
    return frame
