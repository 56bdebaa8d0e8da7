"""Regular expressions that are compiled with their first use.

To compile one takes as long as to import a module, and most processes use few of those that this package has.
"""

import re

from epsagon_fast.hints import Any, AnyStr, cast


class _Pattern:
    """Stands for a compiled expression. Each of its members is looked up once, then it costs what it costs there."""

    def __init__(self, text: str | bytes, flags: int) -> None:
        self._text = text
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__[name] = getattr(re.compile(self._text, self._flags), name)
        return found


def pattern(text: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return what stands for `re.compile(text, flags)` until it is used, and then too."""
    return cast(re.Pattern[AnyStr], _Pattern(text, flags))
