"""What stands in a container of the application or of a library, by what its class has. No library is imported for it.

A container is walked and not printed, so that masking finds its names. What would ask a database, and what nothing has
read yet, is named and not read.
"""

from collections import UserList
from collections.abc import Hashable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final, cast

# Types that become JSON arrays beside list, tuple and set.
ROWS: Final = (KeysView, ValuesView, ItemsView, UserList)
# A class with all these methods is a mapping even if it does not say so, as werkzeug's Headers. `keys` alone would not
# be enough: a database client may have it.
_METHODS_OF_MAPPINGS: Final = ("keys", "values", "items", "__getitem__")
# A mapping with several values for a name says all of them by one of these: werkzeug and Django, Starlette and httpx.
_ALL_VALUES: Final = ("lists", "multi_items")
# The attribute of a class that lists the names of its members: attrs, msgspec.
_LISTS_OF_NAMES: Final = ("__attrs_attrs__", "__struct_fields__")
# Classes that keep their members in `__dict__` and print it. Pydantic's have the attribute.
_NAMESPACES: Final = frozenset({("types", "SimpleNamespace"), ("argparse", "Namespace"), ("optparse", "Values")})
_PYDANTIC: Final = ("__pydantic_validator__", "__fields__")
# Django's classes that ask a database when they are printed, and that which makes its object when it is looked at.
_ASKING: Final = frozenset({("django.db.models.query", "QuerySet"), ("django.db.models.base", "Model")})
_LAZY: Final = ("django.utils.functional", "LazyObject")
_MODULE, _NAME, _MRO, _VARS = (type.__dict__[name] for name in ("__module__", "__name__", "__mro__", "__dict__"))


@lru_cache(maxsize=512)
def is_container(kind: Any) -> bool:
    """Say whether values of a class are walked, or must not be read, and so are not printed."""
    return (
        issubclass(kind, (Mapping, *ROWS))
        or is_dataclass(kind)
        or _is_like_mapping(kind)
        or any(_has(kind, name) for name in (*_LISTS_OF_NAMES, *_PYDANTIC))
        or not _names_of(kind).isdisjoint({*_NAMESPACES, *_ASKING, _LAZY})
        # A proxy has a __class__ of its own.
        or any("__class__" in _VARS.__get__(base) for base in _bases(kind))
    )


def unread(value: Any) -> str | None:
    """Return the name of a value that must not be read; None: it may be."""
    kind: Any = type(value)
    names = _names_of(kind)
    if _LAZY in names and _made(value) is value:
        return f"<{_NAME.__get__(kind)}, not read yet>"
    return None if names.isdisjoint(_ASKING) else f"<{_NAME.__get__(kind)}{_model_or_key(value)}>"


def behind(value: Any) -> Any:
    """Return the object that a lazy one has made; any other value as it is."""
    return _made(value) if _LAZY in _names_of(cast(Hashable, type(value))) else value


def is_named_tuple(value: Any) -> bool:
    """Say whether each element of a tuple has a name."""
    return isinstance(value, tuple) and _has(value.__class__, "_fields")


def pairs_of(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the members of a mapping, or of an object that has its members by name; None: it is neither."""
    if issubclass(type(value), dict) and not _says_all_values(type(value)):
        # The method is that of dict, because a subclass may override every method.
        return dict.items(value)
    # A proxy's __class__ is the class of the object behind it.
    kind = value.__class__
    if isinstance(value, Mapping) or _is_like_mapping(kind):
        method = _says_all_values(kind) or "items"
        items: Iterable[tuple[Any, Any]] = getattr(value, method)()
        return items
    names = _members_of(kind)
    if names is None:
        return None
    if names:
        return [(name, getattr(value, name)) for name in names if not name.startswith("_")]
    found = {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}
    return [(name, each) for name, each in found.items() if not name.startswith("_")]


def _members_of(kind: Any) -> list[str] | None:
    """Return the names of a class's members; none if its `__dict__` has them; None: it does not say."""
    if not isinstance(kind, type):
        return None
    if is_dataclass(kind):
        return [field.name for field in fields(kind)]
    if issubclass(kind, tuple) and _has(kind, "_fields"):
        return [*getattr(kind, "_fields")]  # noqa: B009
    for each in _LISTS_OF_NAMES:
        if _has(kind, each):
            return [getattr(name, "name", name) for name in getattr(kind, each)]
    in_dict = any(_has(kind, name) for name in _PYDANTIC) or issubclass(kind, SimpleNamespace)
    return [] if in_dict or not _names_of(cast(Hashable, kind)).isdisjoint(_NAMESPACES) else None


@lru_cache(maxsize=512)
def _names_of(kind: Any) -> frozenset[tuple[str, str]]:
    """Return the modules and names of a class and its bases."""
    return frozenset((str(_MODULE.__get__(base)), _NAME.__get__(base)) for base in _bases(kind))


def _bases(kind: type) -> tuple[type, ...]:
    bases: tuple[type, ...] = _MRO.__get__(kind)
    return bases[:-1]


def _has(kind: type, name: str) -> bool:
    """Say whether a class or a base has an attribute, without asking its metaclass."""
    return any(name in _VARS.__get__(base) for base in _bases(kind))


def _is_like_mapping(kind: Any) -> bool:
    return all(callable(getattr(kind, name, None)) for name in _METHODS_OF_MAPPINGS)


def _says_all_values(kind: Any) -> str | None:
    if not hasattr(kind, "getlist") and not hasattr(kind, "multi_items"):
        return None
    return next((name for name in _ALL_VALUES if callable(getattr(kind, name, None))), None)


def _made(value: Any) -> Any:
    """Return what a lazy object has made, or itself. `object` is asked, because the lazy one would make it."""
    made = object.__getattribute__(value, "__dict__").get("_wrapped", value)
    # Django's mark for one that has made nothing.
    return value if type(made) is object else made


def _model_or_key(value: Any) -> str:
    """Return what a query asks for, or the key of a model's object, if that is known without asking."""
    known = object.__getattribute__(value, "__dict__")
    model, key = known.get("model"), known.get("id")
    if isinstance(model, type):
        return f" of {_NAME.__get__(model)}"
    return f" {key}" if type(key) is int else ""
