"""What stands in a container of the application or of a library, by what its class has. No library is imported for it.

A container is walked and not printed, so that masking finds its names. What would ask a database, and what nothing has
read yet, is named and not read. A member that its class does not print (`repr=False`) is left out.
"""

from collections import UserList
from collections.abc import Callable, Hashable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import SimpleNamespace

from epsagon_fast.hints import Any, Final, cast

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
_PYDANTIC_FIELDS: Final = ("__pydantic_fields__", "model_fields", "__fields__")
# Classes that ask a database when they are printed, or are printed as a page with all that a user has filled in.
_ASKING: Final = frozenset(
    {
        *(("django.db.models.query", "QuerySet"), ("django.db.models.query", "RawQuerySet")),
        *(("django.db.models.base", "Model"), ("mongoengine.queryset.base", "BaseQuerySet")),
        *(("django.forms.forms", "BaseForm"), ("django.forms.formsets", "BaseFormSet")),
        *(("django.forms.boundfield", "BoundField"), ("wtforms.fields.core", "Field")),
    }
)
# An attribute of all classes that SQLAlchemy maps. Reading their objects' own may ask a database, printing them too.
_MAPPED: Final = "_sa_class_manager"
_ROW_OF_A_QUERY: Final = ("sqlalchemy.engine.row", "Row")
# Django's class that makes its object when it is looked at, and its sessions, which are loaded when they are.
_LAZY: Final = ("django.utils.functional", "LazyObject")
_SESSION: Final = ("django.contrib.sessions.backends.base", "SessionBase")
# Where a session keeps what it has loaded.
_LOADED: Final = "_session_cache"
# werkzeug's proxy calls a function each time, as for the user of a request, unless it stands for one of these.
_PROXY: Final = ("werkzeug.local", "LocalProxy")
_LOCALS: Final = frozenset({("werkzeug.local", "Local"), ("werkzeug.local", "LocalStack")})
# Tuples that are parts of a URL. In one text masking finds the password and the query.
_URLS: Final = frozenset(
    {
        *(("urllib.parse", "_NetlocResultMixinBase"), ("urllib.parse", "DefragResult")),
        *(("urllib3.util.url", "Url"), ("sqlalchemy.engine.url", "URL")),
    }
)
# Its `str` is the secret, and its `repr` hides it.
_SECRET: Final = ("starlette.datastructures", "Secret")
_MODULE, _NAME, _MRO, _VARS = (type.__dict__[name] for name in ("__module__", "__name__", "__mro__", "__dict__"))


@lru_cache(maxsize=512)
def is_container(kind: Any) -> bool:
    """Say whether values of a class are walked, or must not be read, and so are not printed."""
    return (
        issubclass(kind, (Mapping, *ROWS))
        or _writer_of(kind) is not None
        or is_dataclass(kind)
        or _is_like_mapping(kind)
        or any(_has(kind, name) for name in (*_LISTS_OF_NAMES, *_PYDANTIC))
        or not _names_of(kind).isdisjoint({*_NAMESPACES, _ROW_OF_A_QUERY})
        # A proxy has a __class__ of its own.
        or any("__class__" in _VARS.__get__(base) for base in _bases(kind))
    )


def as_text(value: Any) -> str | None:
    """Return the text of a value that has members and is written as one: its name if it must not be read, or a URL."""
    write = _writer_of(cast(Hashable, type(value)))
    return None if write is None else write(value)


def behind(value: Any) -> Any:
    """Return the object that a lazy one has made, or a proxy stands for; any other value as it is."""
    names = _names_of(cast(Hashable, type(value)))
    if _PROXY in names:
        try:
            return object.__getattribute__(value, "_get_current_object")()
        except RuntimeError:
            # It stands for nothing here, and says so where it is printed.
            return value
    return _made(value) if _LAZY in names else value


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
    names = _names_of(kind) if isinstance(kind, type) else frozenset()
    if _SESSION in names:
        # Its own methods note that the session was read, and then the answer depends on the cookie.
        return dict.items(value.__dict__[_LOADED])
    if _ROW_OF_A_QUERY in names:
        return zip(value._fields, value, strict=True)
    if isinstance(value, Mapping) or _is_like_mapping(kind):
        method = _says_all_values(kind) or "items"
        items: Iterable[tuple[Any, Any]] = getattr(value, method)()
        return items
    members = _members_of(kind)
    if members is not None:
        return [(name, getattr(value, name)) for name in members if not name.startswith("_")]
    if not _keeps_all_in_dict(kind):
        return None
    found = {**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})}
    hidden = _not_printed(kind)
    return [(name, each) for name, each in found.items() if not name.startswith("_") and name not in hidden]


def _members_of(kind: Any) -> list[str] | None:
    """Return the names of the members that a class lists; None: it lists none."""
    if not isinstance(kind, type):
        return None
    if is_dataclass(kind):
        return [field.name for field in fields(kind) if field.repr]
    if issubclass(kind, tuple) and _has(kind, "_fields"):
        return [*getattr(kind, "_fields")]  # noqa: B009
    for each in _LISTS_OF_NAMES:
        members: Any = getattr(kind, each, None)
        if isinstance(members, tuple):
            return [str(getattr(one, "name", one)) for one in members if getattr(one, "repr", True) is not False]
    return None


def _keeps_all_in_dict(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    in_dict = any(_has(kind, name) for name in _PYDANTIC) or issubclass(kind, SimpleNamespace)
    return in_dict or not _names_of(cast(Hashable, kind)).isdisjoint(_NAMESPACES)


def _not_printed(kind: Any) -> set[str]:
    """Return the names of a pydantic class's fields with `repr=False`."""
    known = next((_VARS.__get__(kind)[name] for name in _PYDANTIC_FIELDS if name in _VARS.__get__(kind)), None)
    if not isinstance(known, dict):
        return set()
    # Version 1 has what a field was declared with one level down.
    return {
        name for name, field in known.items() if getattr(getattr(field, "field_info", field), "repr", True) is False
    }


@lru_cache(maxsize=512)
def _writer_of(kind: Any) -> Callable[[Any], str | None] | None:
    """Return what writes the values of a class as a text, or says None of one that may be read; None: all may be."""
    names = _names_of(kind)
    for name, write in ((_LAZY, _unless_made), (_PROXY, _unless_local), (_SESSION, _unless_loaded), (_SECRET, repr)):
        if name in names:
            return write
    if _has(kind, _MAPPED):
        return _name_of_mapped
    if not names.isdisjoint(_URLS):
        return _url
    return None if names.isdisjoint(_ASKING) else _name_of_asking


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


def _unless_made(lazy: Any) -> str | None:
    return _not_read_yet(lazy) if _made(lazy) is lazy else None


def _unless_local(proxy: Any) -> str | None:
    behind_it = object.__getattribute__(proxy, "_LocalProxy__wrapped")
    kind: Any = type(behind_it)
    is_local = issubclass(kind, ContextVar) or not _names_of(kind).isdisjoint(_LOCALS)
    return None if is_local else _not_read_yet(proxy)


def _unless_loaded(session: Any) -> str | None:
    return None if _LOADED in session.__dict__ else _not_read_yet(session)


def _not_read_yet(value: Any) -> str:
    return f"<{_NAME.__get__(type(value))}, not read yet>"


def _url(parts: Any) -> str:
    whole = parts.geturl() if hasattr(parts, "geturl") else str(parts)
    return whole.decode("utf-8", "replace") if isinstance(whole, bytes) else str(whole)


def _made(value: Any) -> Any:
    """Return what a lazy object has made, or itself. `object` is asked, because the lazy one would make it."""
    made = object.__getattribute__(value, "__dict__").get("_wrapped", value)
    # Django's mark for one that has made nothing.
    return value if type(made) is object else made


def _name_of_asking(value: Any) -> str:
    """Return a name that says what a query asks for, or a model's object's key, if that is known without asking."""
    known = object.__getattribute__(value, "__dict__")
    model, key = known.get("model"), known.get("id")
    is_query = isinstance(model, type)
    told = f" of {_NAME.__get__(model)}" if is_query else f" {key}" if type(key) is int else ""
    return f"<{_NAME.__get__(type(value))}{told}>"


def _name_of_mapped(value: Any) -> str:
    """Return the class and the key of a row's object. SQLAlchemy keeps the key beside the attributes."""
    state = object.__getattribute__(value, "__dict__").get("_sa_instance_state")
    _, key, *_ = getattr(state, "key", None) or (None, ())
    told = "".join(f" {part}" for part in key if type(part) is int)
    return f"<{_NAME.__get__(type(value))}{told}>"
