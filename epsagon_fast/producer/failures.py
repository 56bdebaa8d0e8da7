"""Which exceptions that leave a block mean that its work failed."""

import sys

from epsagon_fast.hints import Any, Final
from epsagon_fast.interrupts import let_pass

_EXIT_CODE: Final = SystemExit.__dict__["code"]
# Exceptions that end work from outside, by module.
_KILLED: Final = (("trio", "Cancelled"), ("greenlet", "GreenletExit"))
_EXCEPTIONS: Final = BaseExceptionGroup.__dict__["exceptions"]


def is_error(error: BaseException) -> bool:
    """Say whether an exception that leaves a block means that its work failed.

    The exceptions of a closed generator, a cancelled task, a killed greenlet and SystemExit 0 do not, nor does a group
    of only these. KeyboardInterrupt does, because the work was not done. So does asyncio's CancelledError in a task
    that was not cancelled itself, because it only awaited a cancelled one.
    """
    return any(map(_is_failure, parts_of(error)))


def parts_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and in its inner groups; for another exception, a list of itself."""
    parts, pending = [], [error]
    while pending:
        error = pending.pop()
        # Not isinstance, which asks the exception for its __class__, and that may fail.
        if issubclass(type(error), BaseExceptionGroup):
            pending.extend(_EXCEPTIONS.__get__(error))
        else:
            parts.append(error)
    return parts


def is_cancellation(kind: type[BaseException]) -> bool:
    """Say whether a class is that of the exception that ends a cancelled asyncio task, and what awaits that task."""
    cancelled = _class("asyncio", "CancelledError")
    return cancelled is not None and issubclass(kind, cancelled)


def _is_failure(error: BaseException) -> bool:
    # Only its class and slots are read, because its own attributes and comparisons may raise.
    kind = type(error)
    if issubclass(kind, SystemExit):
        code = _EXIT_CODE.__get__(error)
        return not (code is None or (issubclass(type(code), int) and int.__index__(code) == 0))
    if is_cancellation(kind):
        return _is_in_task_that_goes_on()
    return not issubclass(kind, (GeneratorExit, *filter(None, (_class(*each) for each in _KILLED))))


def _class(module: str, name: str) -> Any:
    # A module that is not imported has raised nothing.
    return getattr(sys.modules.get(module), name, None)


def _is_in_task_that_goes_on() -> bool:
    """Say whether this is the code of an asyncio task that was not cancelled."""
    try:
        task: Any = sys.modules["asyncio"].current_task()
    except RuntimeError as error:  # no loop runs in this thread
        let_pass(error)
        return False
    # The class of a task factory may not count.
    cancelling = getattr(task, "cancelling", None)
    return cancelling is not None and cancelling() == 0
