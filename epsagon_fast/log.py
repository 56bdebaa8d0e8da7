"""The package's logger, and warnings that a process gives once."""

import sys

from epsagon_fast.foreign import escaped
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.pages import see

if TYPE_CHECKING:
    import logging

LOGGER_NAME = "epsagon_fast"

# Warnings given in this process, by name.
_warned: dict[str, object] = {}


class _Silent:
    """Takes the place of a logger where logging cannot be imported."""

    def _say(self, *_: object) -> None:
        pass

    debug = info = warning = _say


def logger() -> "logging.Logger":
    """Return the package's logger. logging is imported here, because it is a third of this package's import time."""
    try:
        import logging
    except ImportError:
        # The process changed its root before its first trace.
        return _Silent()  # type: ignore[return-value]
    return logging.getLogger(LOGGER_NAME)


def warn(message: str, *arguments: object, about: str) -> None:
    """Log `message` at WARNING on the package's logger, and which page helps: that of a topic of pages.py."""
    logger().warning(message + see(about), *_plain(arguments))


def warn_once(name: str, message: str, *arguments: object, about: str) -> None:
    """Do as `warn`, once per process and name."""
    if is_first(name):
        warn(message, *arguments, about=about)


def debug_once(name: str, message: str) -> None:
    """Log `message` at DEBUG on the package's logger, once per process and name."""
    # A program that has not imported logging shows no such line, and need not pay for the import.
    if name not in _warned and "logging" in sys.modules and is_first(name):
        logger().debug(message)


def is_first(name: str) -> bool:
    """Say whether this is the first call with `name` in this process."""
    mine = object()
    # setdefault is one step under the GIL, so only one of twenty threads at their first trace warns. A lock could be
    # left locked by a fork.
    return _warned.setdefault(name, mine) is mine


def forget_warnings() -> None:
    """Let each warning be given once more."""
    _warned.clear()


def _plain(arguments: tuple[object, ...]) -> list[object]:
    # Names and the system's errors are foreign texts.
    return [escaped(str(each)) if isinstance(each, (str, OSError)) else each for each in arguments]
