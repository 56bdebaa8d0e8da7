"""Frozen dataclasses whose methods exist once, made without dataclasses.

`dataclass(frozen=True)` writes six functions for each class as text and compiles them, at each import: half a
millisecond for a class, a millisecond for Config. To import dataclasses takes ten, with the inspect that it needs.
These classes share the functions below. All else is as dataclasses have it: `fields`, `replace`, `asdict`, the order of
the arguments.
"""

from operator import attrgetter

from epsagon_fast.hints import TYPE_CHECKING, Any, TypeVar, dataclass_transform

T = TypeVar("T")
MISSING: Any = object()

if TYPE_CHECKING:
    from dataclasses import KW_ONLY as KW_ONLY
    from dataclasses import field as field
else:

    class KW_ONLY:
        """As in dataclasses: the annotation after which arguments have to be named."""

    class field:
        """As in dataclasses, with what is needed of it."""

        def __init__(self, *, default=MISSING, default_factory=MISSING, repr=True, compare=True):
            self.name, self.type, self.kw_only = "", None, False
            self.default = default
            self.default_factory = default_factory
            self.repr = repr
            self.compare = compare


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(made: type[T]) -> type[T]:
    """Make a class a frozen dataclass. It must not inherit from another one."""
    _make(made)
    return made


def _make(cls: Any) -> None:
    cls._made_of = found = _fields(cls)
    cls.__match_args__ = tuple([each.name for each in found if not each.kw_only])  # type: ignore[misc]
    for method in _METHODS:
        setattr(cls, method.__name__, method)
    cls.__signature__ = _Signature()
    cls.__dataclass_fields__ = _OfDataclasses("__dataclass_fields__")
    cls.__dataclass_params__ = _OfDataclasses("__dataclass_params__")
    # In C, because a collector compares outcomes for each trace.
    cls._compared = attrgetter(*[each.name for each in found if each.compare])


def _fields(cls: Any) -> tuple[Any, ...]:
    found: list[Any] = []
    kw_only = False
    for name, kind in cls.__annotations__.items():
        if kind is KW_ONLY:
            kw_only = True
            continue
        given = cls.__dict__.get(name, MISSING)
        each: Any = given if type(given) is field else field(default=given)
        each.name, each.type, each.kw_only = name, kind, kw_only
        if each.default is not MISSING:
            setattr(cls, name, each.default)
        elif given is not MISSING:
            delattr(cls, name)
        found.append(each)
    return tuple(found)


def __init__(self: Any, *args: Any, **named: Any) -> None:
    cls = type(self)
    if len(args) > len(cls.__match_args__):
        raise TypeError(f"{cls.__name__} takes at most {len(cls.__match_args__)} positional arguments")
    values = dict(zip(cls.__match_args__, args, strict=False))
    if twice := values.keys() & named.keys():
        raise TypeError(f"{cls.__name__} got more than one value for {', '.join(twice)}")
    values |= named
    for each in cls._made_of:
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
    told = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in self._made_of if each.repr)
    return f"{type(self).__qualname__}({told})"


def __eq__(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    compared = type(self)._compared
    return self is other or compared(self) == compared(other)


def __hash__(self: Any) -> int:
    return hash(type(self)._compared(self))


def __setattr__(self: Any, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def __delattr__(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def __replace__(self: Any, /, **named: Any) -> Any:
    """Return a copy with other values, for copy.replace."""
    from dataclasses import replace

    return replace(self, **named)


class _OfDataclasses:
    """What dataclasses' functions look for in a class of theirs, made when they ask."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, cls: Any) -> Any:
        import dataclasses  # who asks has it

        def theirs(each: Any) -> Any:
            given = {"default": each.default, "default_factory": each.default_factory}
            given = {name: value for name, value in given.items() if value is not MISSING}
            return dataclasses.field(repr=each.repr, compare=each.compare, kw_only=each.kw_only, **given)

        members = [(each.name, each.type, theirs(each)) for each in cls._made_of]
        twin = dataclasses.make_dataclass(cls.__name__, members, frozen=True)
        for name in ("__dataclass_fields__", "__dataclass_params__"):
            setattr(cls, name, getattr(twin, name))
        return getattr(cls, self._name)


class _Signature:
    """What `help` and `inspect.signature` show of a class, made when they ask."""

    def __get__(self, instance: object, cls: Any) -> Any:
        from inspect import Parameter, Signature  # few programs ask

        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)

        def shown(each: Any) -> Any:
            known = [value for value in (each.default, each.default_factory) if value is not MISSING]
            default = known[0] if known else Parameter.empty
            return Parameter(each.name, kinds[each.kw_only], default=default, annotation=each.type)

        return Signature([shown(each) for each in cls._made_of])


_METHODS = (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__, __replace__)
