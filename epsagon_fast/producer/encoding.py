"""Encodes events, exceptions and labels of the application as the wire's JSON. Nothing here raises into it.

An event gets an id if it has none (the empty text is none), and the protobuf's default for any other field that is
missing or of a wrong type. The fields stand in wire order, and unknown ones are left out. orjson only gets copies of
exact types: see plain.py.

Values of metadata become texts, as epsagon-go's backend wants them. `typed`: for a format that knows more, a number, a
bool and a list of scalars stay what they are.
"""

import math
from collections.abc import Callable, Mapping

import orjson

from epsagon_fast.hints import Any, cast
from epsagon_fast.interrupts import let_pass
from epsagon_fast.producer.exceptions import exception_of as exception_of
from epsagon_fast.producer.ids import SPAN_ID, span_id
from epsagon_fast.producer.plain import Copy, clean, dumps, is_typed_scalar, type_name
from epsagon_fast.producer.plain import metadata_text as metadata_text
from epsagon_fast.protocol import EVENT_FIELDS, FROM_RUNNER, PARENT_ID, RESOURCE_FIELDS, RUNNER_ORIGIN, ErrorCode
from epsagon_fast.rows import NamedTuple

_EVENT_KEYS = [*EVENT_FIELDS]
_RESOURCE_KEYS = [*RESOURCE_FIELDS]
_BLANK_RESOURCE: dict[str, Any] = {"name": "", "type": "", "operation": "", "metadata": {}}
_BLANK_EVENT: dict[str, Any] = {
    "id": "",
    "start_time": 0,
    "resource": _BLANK_RESOURCE,
    "origin": "",
    "duration": 0,
    "error_code": 0,
    "exception": None,
}
_BLANK_EXCEPTION: dict[str, Any] = {"type": "", "message": "", "traceback": "", "time": 0, "additional_data": {}}


class Encoded(NamedTuple):
    """The JSON of an event or an exception, complete and in wire order, and how much of the original it lacks."""

    data: bytes
    # FROM_RUNNER or 0.
    flags: int = 0
    # How many fields were of a wrong type.
    malformed: int = 0
    # How many values were left out: too many or too deep.
    left_out: int = 0


def encode_event(
    event: Mapping[str, Any], parent_id: str | None = None, caller_id: str | None = None, typed: bool = False
) -> Encoded:
    """Return the event's JSON. Later changes of `event` have no effect.

    An event that names no parent gets one. `parent_id`: for an event; None: the runner is its parent. `caller_id`: for
    an event that is the runner; None: it has no caller.
    """
    encoded = _encode_event(event, typed)
    if encoded.flags:
        parent_id = caller_id
    try:
        own = event.get(PARENT_ID)
    except Exception as error:
        let_pass(error)
        own = None
    if own is not None:
        is_span = type(own) is str and SPAN_ID.fullmatch(own) is not None
        parent_id = own if is_span else parent_id
        encoded = encoded._replace(malformed=encoded.malformed + (not is_span))
    if parent_id is not None and not issubclass(type(parent_id), str):
        # What the application has set as the parent of its event.
        parent_id, encoded = None, encoded._replace(malformed=encoded.malformed + 1)
    return encoded if parent_id is None else encoded._replace(data=with_parent(encoded.data, parent_id))


def wire_code(value: object) -> int:
    """Return an error code in the wire's 32 bits: ErrorCode.ERROR for a larger one, ErrorCode.OK for what is none."""
    if not isinstance(value, int) or isinstance(value, bool):
        return int(ErrorCode.OK)
    code = int.__index__(value)
    if 2**31 <= code < 2**32:
        # An HRESULT or an errno that was read as unsigned.
        code -= 2**32
    return code if _is_32_bits(code) else int(ErrorCode.ERROR)


def with_parent(event: bytes, parent_id: str) -> bytes:
    """Return an event's JSON with its parent as the last member."""
    return b'%b,"parent_id":%b}' % (event[:-1], orjson.dumps(clean(parent_id)))


def _encode_event(event: Mapping[str, Any], typed: bool) -> Encoded:
    try:
        copy = complete_copy(event, typed)
        if copy is not None:
            return Encoded(orjson.dumps(copy), _flags(copy))
    except Exception as error:
        let_pass(error)
        # A lone surrogate, an int over 64 bits, a metadata key that is no string: the slow path handles them.
        return _encode_slowly(event, typed)
    return _encode_incomplete(event, typed)


def complete_copy(event: object, typed: bool = False) -> dict[str, Any] | None:
    """Return a copy of an event that has all the wire's fields in order and of the right types; None: it has not.

    orjson may read the copy, because no other thread knows it. orjson itself refuses keys that are no exact strings.
    """
    if type(event) is not dict:
        return None
    # Only the copy is looked at, because another thread may change the original.
    copy = event.copy()
    if [*copy] != _EVENT_KEYS or type(copy["resource"]) is not dict:
        return None
    resource = copy["resource"] = copy["resource"].copy()
    if [*resource] != _RESOURCE_KEYS or type(resource["metadata"]) is not dict:
        return None
    metadata = resource["metadata"] = resource["metadata"].copy()
    return copy if _is_complete(copy) and _are_scalars(metadata, typed) else None


def _is_complete(event: dict[str, Any]) -> bool:
    """Say whether the fields of an event and its resource are of exactly the wire's types. Metadata are not read."""
    event_id, start_time, resource, origin, duration, error_code, exception = event.values()
    name, kind, operation, metadata = resource.values()
    return (
        type(event_id) is str
        and event_id != ""
        and (type(start_time) is float or type(start_time) is int)
        and type(origin) is str
        and (type(duration) is float or type(duration) is int)
        and type(error_code) is int
        and _is_32_bits(error_code)
        and exception is None
        and type(name) is str
        and type(kind) is str
        and type(operation) is str
        and type(metadata) is dict
    )


def _are_scalars(metadata: dict[str, Any], typed: bool) -> bool:
    """Say whether all values may be written as they are. A list may not: another thread may change it meanwhile."""
    # all() would make a generator and take twice the time.
    for value in metadata.values():  # noqa: SIM110
        if type(value) is not str and not (typed and is_typed_scalar(value)):
            return False
    return True


def encode_exception(exception: BaseException | Mapping[str, Any], typed: bool = False) -> Encoded:
    """Return an exception's JSON. A value that is neither an exception nor a mapping becomes an exception's message."""
    shape = _Shape(typed)
    try:
        return Encoded(dumps(shape.any_exception(exception)), 0, shape.malformed, shape.copy.left_out)
    except Exception as error:
        let_pass(error)
        return Encoded(orjson.dumps(_BLANK_EXCEPTION), malformed=1)


def encode_error(error_type: str, value: str | BaseException, typed: bool = False) -> Encoded:
    """Return the JSON of an exception with a type of its own: see `exception_of`."""
    copy = Copy()
    return Encoded(dumps(exception_of(error_type, value, copy, typed)), left_out=copy.left_out)


def encode_label(key: str, value: Any) -> bytes | None:
    """Return a label's JSON, `[key, value]`; None if the wire has no form for it.

    The wire has none for NaN, infinities, ints over 64 bits and other types.
    """
    # Not isinstance, which asks the application's object for its __class__, and that may fail.
    kind = type(value)
    if kind is str and type(key) is str:
        try:
            return orjson.dumps([key, value])
        except TypeError as error:  # a lone surrogate
            let_pass(error)
    if not issubclass(type(key), str):
        return None
    if issubclass(kind, str):
        value = clean(str.__str__(value))
    elif issubclass(kind, float) and math.isfinite(value):
        value = float.__float__(value)
    elif issubclass(kind, int) and _is_64_bits(value):
        value = bool(value) if kind is bool else int.__index__(value)
    else:
        return None
    return orjson.dumps([clean(key), value])


def encode_entry(key: str, value: Any, typed: bool = False) -> tuple[dict[str, Any], Encoded]:
    """Return an entry of the runner's metadata, and the part of an event that brings it."""
    copy = Copy()
    entry = {copy.text(key): copy.typed(value) if typed else copy.text(value)}
    return entry, Encoded(dumps({"resource": {"metadata": entry}}), left_out=copy.left_out)


def _encode_incomplete(event: Any, typed: bool) -> Encoded:
    """Encode the common cases: fields left out or in another order, metadata values that are no strings."""
    try:
        filled = {**_BLANK_EVENT, **event}
        if type(filled["id"]) is str and not filled["id"]:
            filled["id"] = span_id()
        resource = filled["resource"] = {**_BLANK_RESOURCE, **filled["resource"]}
        copy = Copy()
        resource["metadata"] = copy.metadata(resource["metadata"], typed)
        is_whole = len(filled) == len(_EVENT_KEYS) and len(resource) == len(_RESOURCE_KEYS)
        if is_whole and _is_complete(filled) and _have_room(filled["start_time"], filled["duration"]):
            return Encoded(dumps(filled), _flags(filled), left_out=copy.left_out)
    except Exception as error:
        let_pass(error)
        # A mapping is missing or cannot be read. The slow path loses only that field.
        return _encode_slowly(event, typed)
    return _encode_slowly(event, typed)


def _encode_slowly(event: object, typed: bool) -> Encoded:
    try:
        shape = _Shape(typed)
        wire = shape.event(event)
        return Encoded(dumps(wire), _flags(wire), shape.malformed, shape.copy.left_out)
    except Exception as error:
        let_pass(error)
        # This happens only near the interpreter's recursion limit or out of memory.
        return Encoded(orjson.dumps({**_BLANK_EVENT, "id": span_id()}), malformed=1)


def _flags(wire: dict[str, Any]) -> int:
    return FROM_RUNNER if wire["origin"] == RUNNER_ORIGIN else 0


class _Shape:
    """Builds an event or an exception in wire order out of any value, and counts the fields that it could not use."""

    def __init__(self, typed: bool) -> None:
        self.malformed = 0
        self.copy = Copy()
        self._typed = typed

    def event(self, source: object) -> dict[str, Any]:
        if not isinstance(source, Mapping):
            self.malformed += 1
            source = {}
        return {
            "id": self._field(source, "id", _text, "") or span_id(),
            "start_time": self._field(source, "start_time", _number, 0),
            "resource": self._field(source, "resource", self._resource, _BLANK_RESOURCE),
            "origin": self._field(source, "origin", _text, ""),
            "duration": self._field(source, "duration", _number, 0),
            "error_code": self._field(source, "error_code", self._code, 0),
            "exception": self._field(source, "exception", self.exception, None),
        }

    def any_exception(self, source: object) -> dict[str, Any]:
        """Return any value as an exception. If it is none, its text is the exception's message."""
        if not isinstance(source, (BaseException, Mapping)):
            source = {"message": self.copy.text(source)}
        return self.exception(source)

    def exception(self, source: object) -> dict[str, Any]:
        if issubclass(type(source), BaseException):
            return exception_of(type_name(source), cast(BaseException, source), self.copy, self._typed)
        source = _mapping(source)
        return {
            "type": self._field(source, "type", _text, ""),
            "message": self._field(source, "message", _text, ""),
            "traceback": self._field(source, "traceback", _text, ""),
            "time": self._field(source, "time", _number, 0),
            "additional_data": self._field(source, "additional_data", self._metadata, {}),
        }

    def _resource(self, source: object) -> dict[str, Any]:
        source = _mapping(source)
        return {
            "name": self._field(source, "name", _text, ""),
            "type": self._field(source, "type", _text, ""),
            "operation": self._field(source, "operation", _text, ""),
            "metadata": self._field(source, "metadata", self._metadata, {}),
        }

    def _metadata(self, source: object) -> dict[str, Any]:
        return self.copy.metadata(source, self._typed)

    def _code(self, value: object) -> int:
        """Return an error code as `wire_code` does. One of more than 32 bits counts as malformed."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(type(value))
        self.malformed += not -(2**31) <= int.__index__(value) < 2**32
        return wire_code(value)

    def _field(self, source: Mapping[str, Any], name: str, convert: Callable[[Any], Any], default: Any) -> Any:
        """Return a field in the wire's form, or its default if it is absent, null or (counted) of a wrong type."""
        try:
            value = source.get(name)
            return default if value is None else convert(value)
        except Exception as error:
            let_pass(error)
            self.malformed += 1
            return default


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(type(value))
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return clean(value)


def _is_64_bits(value: int) -> bool:
    return -(2**63) <= int.__index__(value) < 2**63


def _have_room(*numbers: float) -> bool:
    """Say whether no number is an int over 64 bits, which readers of JSON refuse or read as infinite."""
    return all(type(number) is float or _is_64_bits(cast(int, number)) for number in numbers)


def _number(value: object) -> float:
    if isinstance(value, float):
        return float.__float__(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(type(value))
    # The wire's field is a double, but an int of 64 bits stays an int, as epsagon-go writes 0 and 100.
    return int.__index__(value) if _is_64_bits(value) else float(value)


def _is_32_bits(value: int) -> bool:
    return -(2**31) <= value < 2**31
