"""Tells a failure from an interruption.

Python code may be interrupted between any two steps: a signal handler raises there (celery's soft time limit, RQ's job
timeout, `signal.alarm`), or another thread does (PyThreadState_SetAsyncExc). Such an exception is meant for the
application. So every `except` of ours that could mistake it for a failure of the guarded code lets it pass first:

    try:
        text = str(value)
    except Exception as error:
        let_pass(error)
        text = "<unprintable>"

A signal handler is recognised by its argument: only a handler is given the very frame that it interrupted. An exception
of another thread has no frame of its own and no arguments. It is recognised in a line of this package. Inside the
application's own `__str__` it looks like a failure of `__str__`, and is treated as one.
"""

from types import FrameType, TracebackType

from epsagon_fast.hints import Final

_OWN_MODULES: Final = __name__.rpartition(".")[0] + "."
# The interpreter itself raises these without arguments.
_ALWAYS_BARE: Final = (MemoryError, StopIteration, StopAsyncIteration)
_VARARGS_FLAG: Final = 0x04


def let_pass(error: BaseException) -> None:
    """Raise `error` again if it came from a signal handler or another thread."""
    if is_interruption(error):
        try:
            raise error
        finally:
            # Its traceback holds this frame, which would hold it, and with it all that the frames below hold.
            del error


def is_interruption(error: BaseException) -> bool:
    """Say whether `error`, just caught, was raised into the guarded code from outside: no failure of that code."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        if _was_handed(step.tb_next.tb_frame, step.tb_frame):
            return True
        step = step.tb_next
    return step is not None and _appeared_in_our_code(error, step)


def _was_handed(frame: FrameType, caller: FrameType) -> bool:
    """Say whether the function that runs in `frame` was given the frame `caller` as an argument."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[: count + bool(code.co_flags & _VARARGS_FLAG)]
    there = frame.f_locals
    values = [there.get(name) for name in names]
    rest = values[count] if len(values) > count else ()
    return any(value is caller for value in (*values, *(rest if type(rest) is tuple else ())))


def _appeared_in_our_code(error: BaseException, innermost: TracebackType) -> bool:
    module = innermost.tb_frame.f_globals.get("__name__")
    is_ours = isinstance(module, str) and module.startswith(_OWN_MODULES)
    return is_ours and not error.args and not isinstance(error, _ALWAYS_BARE)
