"""Named tuples that import fast.

typing.NamedTuple looks at each field's type and compiles a constructor from text: at each import, a fifth of a
millisecond for a class. Here the constructor is compiled with the first tuple. All else is as there.
"""

import sys
from collections.abc import Callable
from functools import partial
from operator import itemgetter

from epsagon_fast.hints import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

# From Python 3.14 on annotations are there only when asked for, and typing asks.
if TYPE_CHECKING or sys.version_info >= (3, 14):
    from typing import NamedTuple as NamedTuple
else:
    try:
        # What the standard library's have: reading a field stays in C without a call.
        from collections import _tuplegetter
    except ImportError:

        def _tuplegetter(index: int, doc: str) -> property:
            return property(itemgetter(index), doc=doc)

    def _constructor(name: str, fields: tuple[str, ...], defaults: dict[str, Any]) -> Any:
        values = ", ".join(fields) + ("," if len(fields) == 1 else "")
        made = eval(f"lambda _cls, {values}: _new(_cls, ({values}))", {"_new": tuple.__new__, "__name__": name})
        made.__name__ = "__new__"
        made.__defaults__ = tuple(defaults.values())
        return made

    def _make(cls, values):
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **named):
        made = self._make(map(named.pop, self._fields, self))
        if named:
            raise ValueError(f"Got unexpected field names: {list(named)!r}")
        return made

    def _asdict(self):
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self):
        told = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({told})"

    def __getnewargs__(self):
        return tuple(self)

    class _Rows(type):
        """Makes the subclasses of NamedTuple: subclasses of tuple, and of nothing else."""

        def __new__(mcs, name, bases, members):
            if not bases:
                return super().__new__(mcs, name, bases, members)
            fields = tuple(members.get("__annotations__", ()))
            defaults = {field: members.pop(field) for field in fields if field in members}
            if fields[len(fields) - len(defaults) :] != tuple(defaults):
                raise TypeError("a field without a default cannot follow one that has a default")

            def __new__(cls, *args, **named):
                made.__new__ = new = _constructor(f"namedtuple_{name}", fields, defaults)
                return new(cls, *args, **named)

            getters = {field: _tuplegetter(index, "") for index, field in enumerate(fields)}
            shared = {each.__name__: each for each in (_replace, _asdict, __repr__, __getnewargs__)}
            told = {"_fields": fields, "__match_args__": fields, "_field_defaults": defaults, "__slots__": ()}
            basis = {"__new__": __new__, "_make": classmethod(_make), "__replace__": _replace}
            made = type(name, (tuple,), {**basis, **shared, **told, **members, **getters})
            return made

    class NamedTuple(metaclass=_Rows):
        """As typing.NamedTuple."""


def maker(row: type[T]) -> Callable[[tuple[Any, ...]], T]:
    """Return what makes a row of a tuple of all its fields, in C: four times as fast as calling the class."""
    return partial(tuple.__new__, row)  # type: ignore[type-var]
