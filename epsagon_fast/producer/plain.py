"""Any Python value as valid JSON in valid UTF-8, without ever raising into the application.

orjson reads the memory of dicts and lists directly. If Python code runs meanwhile (a date's tzinfo, an enum's value, a
`default`), the application or another thread may change what orjson is reading, and the process dies. So orjson gets a
copy that consists of exact dicts, lists and scalars and that no other code knows. Or it gets the application's own
value right after `exact_json` has seen that it consists only of these: then orjson runs no Python code.

A copy is bounded, because objects that refer to each other in many ways have more paths than there are atoms. Where
something is left out, the copy has a mark, and it is counted.
"""

import codecs
import json
import math
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable
from datetime import datetime
from enum import Enum
from functools import lru_cache
from itertools import islice

import orjson

import epsagon_fast.cutting as cutting
import epsagon_fast.producer.shapes as shapes
from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import Any, cast
from epsagon_fast.interrupts import let_pass
from epsagon_fast.members import merged
from epsagon_fast.protocol import MAX_TRACE_BYTES

# The mark for what was left out: a value that is too deep or inside itself. With a number: so many more values.
CUT = "..."
MAX_DEPTH = 100
# More values do not fit into a trace, and copying them would hold up the application for tens of milliseconds.
MAX_VALUES = 10_000
# Characters of texts in containers. A container that holds one long text many times would need many times its memory.
MAX_CHARACTERS = 2 * MAX_TRACE_BYTES
# Shorter texts are not counted, since the number of values bounds them.
_SHORT = 100
# Types that become JSON arrays. Iterators and generators are not among them: the application must consume those itself.
_ROWS = (list, tuple, set, frozenset, deque)
# How the JSON of an object and of null begins. OTLP has no attributes like these.
_NEVER_TYPED = (b"{", b"n")
# Types that are not simply printed.
_SHAPED = (Enum, str, int, float, bytes, bytearray, memoryview, datetime, *_ROWS)
# Read through `type`, because a metaclass may override `__name__`.
_NAME, _QUALNAME, _MODULE = (type.__dict__[name] for name in ("__name__", "__qualname__", "__module__"))

if implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import exact_json
else:

    def exact_json(value: object, most_values: int, most_characters: int, most_levels: int) -> bytes | None:
        """Return None: another thread may run between the look and orjson's call, so every value is copied."""
        return None


def clean(text: str) -> str:
    """Return `text` as an exact str that UTF-8 can encode: each lone surrogate becomes U+FFFD, pairs are joined."""
    # The method is that of str, because a subclass may override every method.
    text = str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Functions, because a codec's name would import the codec: see memory_headroom_bytes in queue/folder.py.
        pairs, _ = codecs.utf_16_le_encode(text, "surrogatepass")
        return codecs.utf_16_le_decode(pairs, "replace", True)[0]
    return text


def printed(value: object) -> str:
    """Return `str(value)`, else `repr(value)`, else its type and address."""
    for show in (str, repr):
        try:
            return clean(show(value))
        except Exception as error:
            let_pass(error)
            # The application's own __str__ failed. A tracer must not raise for that.
            continue
    return _address(value)


def keeps_type(value: Any) -> bool:
    """Say whether a value of exact types stays as it is where metadata are typed: a scalar, or a list of such."""
    return all(map(is_typed_scalar, value)) if type(value) is list else is_typed_scalar(value)


def is_typed_scalar(value: object) -> bool:
    """Say whether a value is exactly a str or a bool, or a number that 64 bits hold and JSON can write."""
    kind = type(value)
    if kind is str or kind is bool:
        return True
    return -(2**63) <= value < 2**63 if type(value) is int else type(value) is float and math.isfinite(value)


def type_name(value: object) -> str:
    """Return the name of a value's class, whatever its metaclass says."""
    return clean(_NAME.__get__(type(value)))


def full_type_name(value: object) -> str:
    """Return the name of a value's class with that of its module, but for builtins, as OpenTelemetry has it."""
    kind = type(value)
    module, name = _MODULE.__get__(kind), clean(_QUALNAME.__get__(kind))
    return f"{clean(module)}.{name}" if issubclass(type(module), str) and module != "builtins" else name


def json_bytes(value: object) -> bytes:
    """Return `value` as JSON. A type that JSON does not have becomes a string, NaN and infinities become null."""
    return Copy().json(value)


def metadata_text(value: Any) -> str:
    """Return a metadata value: a string as it is, another value as its JSON text.

    If the JSON text is a string (of a UUID, a date, bytes), it comes without the quotes.
    """
    return Copy().text(value)


def dumps(tree: Any) -> bytes:
    """Return the JSON of a tree of exact dicts, lists and scalars that no other code knows."""
    try:
        return orjson.dumps(tree)
    except TypeError:
        # A lone surrogate, or an int over 64 bits.
        return json.dumps(_writable(tree), ensure_ascii=False, separators=(",", ":")).encode()


class Copy:
    """Copies values of the application. `left_out` counts the values that it left out."""

    def __init__(self) -> None:
        self.left_out = 0
        self._room = MAX_VALUES
        self._characters = MAX_CHARACTERS
        # The containers around the value that is being copied.
        self._inside: list[int] = []

    def text(self, value: Any) -> str:
        """Return `metadata_text(value)`."""
        # Not isinstance, which asks the object for its __class__, and that may fail.
        if issubclass(type(value), str):
            return clean(value)
        data = self.json(value)
        return str(json.loads(data)) if data.startswith(b'"') else data.decode()

    def json(self, value: Any) -> bytes:
        """Return `json_bytes(value)`."""
        data = exact_json(value, MAX_VALUES, MAX_CHARACTERS, MAX_DEPTH)
        if data is not None:
            return data
        self._room, self._characters = MAX_VALUES, MAX_CHARACTERS
        try:
            return dumps(self.of(value))
        except RecursionError:
            return orjson.dumps(self._cut())

    def bounded(self, text: str, limit_bytes: int) -> str:
        """Return a text in at most `limit_bytes` of JSON, with a mark where it is cut. It must fit into UTF-8."""
        shorter = cutting.text(text, limit_bytes)
        self.left_out += shorter is not text
        return shorter

    def typed(self, value: Any) -> Any:
        """Return a metadata value with its type, if `keeps_type` says so of it; else `metadata_text(value)`."""
        if issubclass(type(value), str):
            return clean(value)
        data = self.json(value)
        if data[:1] in _NEVER_TYPED:
            return data.decode()
        # Not orjson, which reads an int over 64 bits as a float.
        plain = json.loads(data)
        return plain if keeps_type(plain) else data.decode()

    def metadata(self, mapping: Any, typed: bool) -> dict[str, Any]:
        """Return a mapping as metadata, a dict however long. `typed`: whether values keep their types where they can.

        Raises TypeError if it is no mapping, and any exception that reading it raises.
        """
        # Copied first, because another thread may add to the application's dict meanwhile.
        pairs: Collection[tuple[Any, Any]]
        pairs = mapping.copy().items() if type(mapping) is dict else self._pairs(mapping)
        convert = self.typed if typed else self.text
        # Most keys and values are strings, and need no call.
        values = {
            key if type(key) is str else self.text(key): value if type(value) is str else convert(value)
            for key, value in pairs
        }
        if len(values) == len(pairs):
            return values
        return {key: convert(value) for key, value in merged([(self.text(key), value) for key, value in pairs]).items()}

    def _pairs(self, mapping: Any) -> list[tuple[Any, Any]]:
        pairs = _pairs_or_error(mapping)
        if issubclass(type(mapping), dict):
            return list(pairs)
        # Another class's may have no end.
        self._room = MAX_VALUES
        found, missing = self._taken(pairs)
        return [*found, (CUT, missing)] if missing else found

    def of(self, value: Any) -> Any:
        """Return a copy of `value` that consists of exact dicts, lists and scalars."""
        kind = type(value)
        if kind is str:
            return self._text(value)
        # Not looked up in a set, because a metaclass may have a hash of its own.
        if kind is int or kind is float or kind is bool or value is None:
            return value
        if (kind is dict or kind is list) and len(value) <= self._room:
            return self._of_exact(value)
        try:
            return self._text(printed(value)) if _is_printed(cast(Hashable, kind)) else self._of_other(value)
        except RecursionError:
            return self._cut()
        except Exception as error:
            let_pass(error)
            # A container is not printed, because masking could not look into the text.
            return _address(value) if issubclass(kind, (dict, *_ROWS)) else printed(value)

    def _of_exact(self, value: Any) -> Any:
        """Copy a plain dict or list for which there is room. Applications hand over these most."""
        inside = self._inside
        if len(inside) >= MAX_DEPTH or id(value) in inside:
            return self._cut()
        # `copy` is one step, so no other thread changes the container meanwhile.
        content = value.copy()
        self._room -= len(content)
        inside.append(id(value))
        try:
            if type(content) is list:
                return [
                    each if (kind := type(each)) is int or (kind is str and len(each) <= _SHORT) else self.of(each)
                    for each in content
                ]
            members = {
                key if type(key) is str and len(key) <= _SHORT else self._name(key): each
                if (kind := type(each)) is int or (kind is str and len(each) <= _SHORT)
                else self.of(each)
                for key, each in content.items()
            }
            return members if len(members) == len(content) else self._named(content.items())
        finally:
            inside.pop()

    def _named(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        return merged([(self._name(key), self.of(value)) for key, value in pairs])

    def _name(self, key: Any) -> str:
        return self._text(metadata_text(key))

    def _text(self, text: str) -> str:
        """Return a text if there is room for it, else the mark."""
        if len(text) > _SHORT:
            self._characters -= len(text)
            if self._characters < 0:
                return self._cut()
        return text

    def _of_other(self, value: Any) -> Any:
        """Copy a value that is no plain dict, list or scalar. isinstance treats a proxy as the object behind it."""
        # Before isinstance, for which a lazy object would make what it stands for.
        try:
            text = shapes.as_text(value)
        except Exception as error:
            let_pass(error)
            text = _address(value)
        if text is not None:
            return self._text(clean(text))
        inner = shapes.behind(value)
        if inner is not value:
            # It may be what must not be read.
            return self._within(value, self.of, inner)
        if isinstance(value, Enum):
            return self._within(value, self.of, value.value)
        if isinstance(value, str):
            return self._text(clean(value))
        if isinstance(value, int):
            return int.__index__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(value)
            return self._text(data.decode("utf-8", "replace")) if len(data) <= self._characters else self._cut()
        if isinstance(value, datetime):
            return clean(value.isoformat())
        if isinstance(value, (*_ROWS, *shapes.ROWS)) and not shapes.is_named_tuple(value):
            return self._within(value, self._elements, value)
        try:
            pairs = shapes.pairs_of(value)
        except Exception as error:
            let_pass(error)
            return _address(value)
        return self._text(printed(value)) if pairs is None else self._within(value, self._members, pairs)

    def _within(self, container: Any, copy: Callable[[Any], Any], content: Any) -> Any:
        if len(self._inside) >= MAX_DEPTH or id(container) in self._inside:
            return self._cut()
        self._inside.append(id(container))
        try:
            return copy(content)
        except RecursionError:
            return self._cut()
        except Exception as error:
            let_pass(error)
            # A container is not printed, because masking could not look into the text.
            return _address(container)
        finally:
            self._inside.pop()

    def _members(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        found, missing = self._taken(pairs)
        members = self._named(found)
        return {**members, CUT: missing} if missing else members

    def _elements(self, values: Iterable[Any]) -> list[Any]:
        found, missing = self._taken(values)
        elements = [self.of(value) for value in found]
        return [*elements, missing] if missing else elements

    def _taken(self, content: Iterable[Any]) -> tuple[list[Any], str | None]:
        """Return as much of a container as there is room for, and a mark if that is not all."""
        found = list(islice(content, self._room + 1))
        self._room -= len(found)
        if self._room >= 0:
            return found, None
        self._room = 0
        found.pop()
        if not isinstance(content, Collection):
            self.left_out += 1
            return found, f"{CUT} more"
        missing = len(content) - len(found)
        self.left_out += missing
        return found, f"{CUT} {missing} more"

    def _cut(self) -> str:
        self.left_out += 1
        return CUT


# Cached, because looking at a class costs more than copying a value.
@lru_cache(maxsize=512)
def _is_printed(kind: Any) -> bool:
    """Say whether the values of a class are written as `str` prints them, such as decimals and paths."""
    return not issubclass(kind, _SHAPED) and not shapes.is_container(kind)


def _pairs_or_error(value: Any) -> Iterable[tuple[Any, Any]]:
    pairs = None if shapes.as_text(value) else shapes.pairs_of(shapes.behind(value))
    if pairs is None:
        raise TypeError(type(value))
    return pairs


def _address(value: object) -> str:
    """Return the type and address of a value as object's repr writes them, without calling the value's own methods."""
    return clean(object.__repr__(value))


def _writable(tree: Any) -> Any:
    """Return a tree of exact values in a form that the standard library writes as valid JSON and valid UTF-8."""
    if type(tree) is dict:
        return merged([(clean(key), _writable(value)) for key, value in tree.items()])
    if type(tree) is list:
        return [_writable(value) for value in tree]
    if type(tree) is str:
        return clean(tree)
    if type(tree) is float:
        return tree if math.isfinite(tree) else None
    return _exact(tree) if type(tree) is int else tree


def _exact(value: int) -> int | str:
    try:
        str(value)
    except ValueError:
        # It has more decimal digits than the interpreter converts (sys.set_int_max_str_digits).
        return hex(value)
    return value
