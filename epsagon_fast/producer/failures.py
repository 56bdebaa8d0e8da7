"""Which exceptions that leave a block mean that its work failed."""

import sys

from epsagon_fast.hints import Final

_EXIT_CODE: Final = SystemExit.__dict__["code"]
# Exceptions that end work from outside, by module. A module that is not imported has raised none.
_CANCELLATIONS: Final = (("asyncio", "CancelledError"), ("trio", "Cancelled"), ("greenlet", "GreenletExit"))
_EXCEPTIONS: Final = BaseExceptionGroup.__dict__["exceptions"]


def is_error(error: BaseException) -> bool:
    """Say whether an exception that leaves a block means that its work failed.

    The exceptions of a closed generator, a cancelled task, a killed greenlet and SystemExit 0 do not, nor does a group
    of only these. KeyboardInterrupt does, because the work was not done.
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


def _is_failure(error: BaseException) -> bool:
    # Only its class and slots are read, because its own attributes and comparisons may raise.
    kind = type(error)
    if issubclass(kind, SystemExit):
        code = _EXIT_CODE.__get__(error)
        return not (code is None or (issubclass(type(code), int) and int.__index__(code) == 0))
    cancelled = (getattr(sys.modules.get(module), name, GeneratorExit) for module, name in _CANCELLATIONS)
    return not issubclass(kind, (GeneratorExit, *cancelled))
