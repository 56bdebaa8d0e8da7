"""Wrapping a method of a library's class, for as long as an integration is in use."""

import functools
from collections.abc import Callable
from typing import Any

Method = Callable[..., Any]


class Wrapped:
    """One method, and whether it is wrapped.

    `wrap`: makes, of the original method and this object, the one that stands in its place. That one only calls the
    original while this object is not `is_on`: it may have to stay there.
    """

    def __init__(self, owner: type, name: str, wrap: "Callable[[Method, Wrapped], Method]") -> None:
        self._owner = owner
        self._name = name
        self._wrap = wrap
        self._original: Method | None = None
        self.is_on = False

    def put_on(self) -> None:
        """Wrap the method. A second call changes nothing."""
        self.is_on = True
        if self._original is None:
            self._original = getattr(self._owner, self._name)
            setattr(self._owner, self._name, functools.wraps(self._original)(self._wrap(self._original, self)))

    def take_off(self) -> None:
        """Put the original method back. Where another library wrapped the method after us, our wrapper stays."""
        self.is_on = False
        original = self._original
        if original is not None and getattr(vars(self._owner)[self._name], "__wrapped__", None) is original:
            setattr(self._owner, self._name, original)
            self._original = None
