"""Frozen dataclasses whose methods exist once.

`dataclass(frozen=True)` writes six functions for each class as text and compiles them, at each import: half a
millisecond for a class, a millisecond for Config. These classes share the functions below. All else is as dataclasses
have it: `fields`, `replace`, `asdict`, the order of the arguments.
"""

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter

from epsagon_fast.hints import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(made: type[T]) -> type[T]:
    """Make a class a frozen dataclass."""
    made = dataclass(init=False, repr=False, eq=False)(made)
    for method in _METHODS:
        setattr(made, method.__name__, method)
    made.__signature__ = _Signature()  # type: ignore[attr-defined]
    # In C, because a collector compares outcomes for each trace.
    made._compared = attrgetter(*[each.name for each in fields(made) if each.compare])  # type: ignore[arg-type, attr-defined]
    return made


def __init__(self: Any, *args: Any, **named: Any) -> None:
    cls = type(self)
    if len(args) > len(cls.__match_args__):
        raise TypeError(f"{cls.__name__} takes at most {len(cls.__match_args__)} positional arguments")
    values = dict(zip(cls.__match_args__, args, strict=False))
    if twice := values.keys() & named.keys():
        raise TypeError(f"{cls.__name__} got more than one value for {', '.join(twice)}")
    values |= named
    for each in fields(cls):
        if each.name in values:
            value = values.pop(each.name)
        elif each.default is not MISSING:
            value = each.default
        elif each.default_factory is not MISSING:
            value = each.default_factory()
        else:
            raise TypeError(f"{cls.__name__} lacks the argument {each.name!r}")
        self.__dict__[each.name] = value
    if values:
        raise TypeError(f"{cls.__name__} got an unexpected keyword argument {next(iter(values))!r}")
    if hasattr(cls, "__post_init__"):
        self.__post_init__()


def __repr__(self: Any) -> str:
    told = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({told})"


def __eq__(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    compared = type(self)._compared
    return self is other or compared(self) == compared(other)


def __hash__(self: Any) -> int:
    return hash(type(self)._compared(self))


def __setattr__(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def __delattr__(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


class _Signature:
    """What `help` and `inspect.signature` show of a class, made when they ask."""

    def __get__(self, instance: object, cls: type) -> Any:
        from inspect import Parameter, Signature  # few programs ask

        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        found = fields(cls)
        return Signature([Parameter(each.name, kinds[bool(each.kw_only)], default=_default(each)) for each in found])


def _default(field: Any) -> Any:
    from inspect import Parameter

    known = [value for value in (field.default, field.default_factory) if value is not MISSING]
    return known[0] if known else Parameter.empty


_METHODS = (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__)
