"""Objects of an application that fail, lie, or are nearly what they seem."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class Loud:
    """An object of the application that cannot even be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # Hypothesis has to show it when a test fails.
        printer.text("Loud()")


class Faceless:
    """An object that isinstance() cannot be asked about."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")

    __str__ = __repr__ = None  # type: ignore[assignment]


class BrokenMapping(Mapping[str, object]):
    """A mapping whose content cannot be read."""

    def __getitem__(self, key: str) -> object:
        raise OSError(key)

    def __iter__(self) -> Iterator[str]:
        raise OSError("iteration")

    def __len__(self) -> int:
        return 3


class ViewOf(Mapping[Any, Any]):
    """A mapping that is no dict."""

    def __init__(self, content: dict[Any, Any]) -> None:
        self._content = content

    def __getitem__(self, key: Any) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


class Word(str):
    """A string that lies about itself."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def encode(self, *arguments: Any) -> bytes:  # type: ignore[override]
        raise RuntimeError("no bytes")


class Count(int):
    """An int that lies about itself."""

    def __index__(self) -> int:
        raise RuntimeError("no number")

    __int__ = __index__


class Colour(enum.Enum):
    RED = "red"
    HUGE = 2**70
    LIST = ("a", 1)


@dataclass
class Box:
    content: Any


class _HostileClass(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")

    def __hash__(cls) -> int:
        raise RuntimeError("no hash")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("no comparison")


def _fails(self: object, *arguments: object) -> Any:
    raise RuntimeError("nothing works")


class HostileError(Exception, metaclass=_HostileClass):
    """An exception of which every question fails."""

    __str__ = __repr__ = __eq__ = __hash__ = __reduce__ = _fails  # type: ignore[assignment]
    __class__ = __traceback__ = __cause__ = __context__ = __notes__ = args = property(_fails)  # type: ignore[assignment]


class HostileExit(SystemExit, HostileError):
    """The same, of an exception that may be none."""

    code = property(_fails)  # type: ignore[assignment]
