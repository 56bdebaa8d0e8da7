"""The arguments and the return value of a traced function, as metadata, for `metadata_only=False`."""

import functools
import inspect
from collections.abc import Callable, Mapping

from epsagon_fast.hints import Any, Final, Protocol

from . import encoding
from .plain import type_name

ARGUMENTS_KEY: Final = "arguments"
RETURN_VALUE_KEY: Final = "return_value"
# UTF-8 bytes of one value. Of a longer one only the type and the size are recorded: a part of it would not be JSON, so
# masking could not look inside.
MAX_VALUE_BYTES: Final = 1024


class Notes(Protocol):
    """Keeps metadata."""

    def note(self, key: str, value: str) -> None: ...


class CallNotes:
    """Keeps a function's arguments and results as metadata."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @functools.cached_property
    def _signature(self) -> inspect.Signature | None:
        # Read when it is first needed: it takes longer than a traced call.
        try:
            return inspect.signature(self._function)
        except (TypeError, ValueError):  # a builtin may have none
            return None

    def arguments(self, notes: Notes, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Note the arguments by name, as they are before the call. A method's `self` or `cls` is left out."""
        named = {name: _bounded(value) for name, value in self._named(args, kwargs).items()}
        notes.note(ARGUMENTS_KEY, encoding.metadata_text(named))

    def result(self, notes: Notes, result: Any) -> None:
        """Note the return value."""
        notes.note(RETURN_VALUE_KEY, encoding.metadata_text(_bounded(result)))

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            if self._signature is None:
                raise TypeError
            named = dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError:  # the call itself will raise it
            return {"args": args, "kwargs": kwargs}
        first = next(iter(self._signature.parameters), "")
        if first in ("self", "cls"):
            named.pop(first, None)
        return named


def _bounded(value: Any) -> Any:
    size_bytes = len(encoding.metadata_text(value).encode())
    return value if size_bytes <= MAX_VALUE_BYTES else f"<{type_name(value)} of {size_bytes} bytes>"
