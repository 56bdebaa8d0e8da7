"""What the application hands over, as the JSON of the wire. Nothing here raises into the application.

An event that is complete goes to orjson as it is. Any other is given the protobuf defaults for what is missing or of a
wrong type, in wire order; fields the wire does not know are left out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from epsagon_fast.producer.exceptions import exception_of as exception_of
from epsagon_fast.producer.plain import clean, json_bytes
from epsagon_fast.producer.plain import metadata_text as metadata_text
from epsagon_fast.protocol import EVENT_FIELDS, FROM_RUNNER, RESOURCE_FIELDS, RUNNER_ORIGIN

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


def encode_event(event: Mapping[str, Any]) -> tuple[bytes, int, int]:
    """Return the event's JSON, its record's flags, and how many fields were of a wrong type.

    The JSON is complete and in wire order. Flags: FROM_RUNNER or 0. Later changes of `event` have no effect.
    """
    try:
        if is_complete(event):
            return orjson.dumps(event), FROM_RUNNER if event["origin"] == RUNNER_ORIGIN else 0, 0
    except Exception:
        # A lone surrogate, an int over 64 bits, a metadata key that is no string: the careful way handles them.
        return _encode_carefully(event)
    return _encode_incomplete(event)


def is_complete(event: object) -> bool:
    """Say whether orjson alone writes this event as the wire wants it: all fields, their order, their types."""
    if type(event) is not dict or [*event] != _EVENT_KEYS:
        return False
    event_id, start_time, resource, origin, duration, error_code, exception = event.values()
    if type(resource) is not dict or [*resource] != _RESOURCE_KEYS:
        return False
    name, kind, operation, metadata = resource.values()
    if (
        type(event_id) is str
        and (type(start_time) is float or type(start_time) is int)
        and type(origin) is str
        and (type(duration) is float or type(duration) is int)
        and type(error_code) is int
        and exception is None
        and type(name) is str
        and type(kind) is str
        and type(operation) is str
        and type(metadata) is dict
    ):
        # all() would make a generator: twice the time.
        for value in metadata.values():  # noqa: SIM110
            if type(value) is not str:
                return False
        return True
    return False


def encode_exception(exception: BaseException | Mapping[str, Any]) -> bytes:
    """Return an exception's JSON, complete and in wire order. What is neither becomes the message of one."""
    try:
        if not isinstance(exception, (BaseException, Mapping)):
            exception = {"message": metadata_text(exception)}
        return _dumps(_Shape().exception(exception))
    except Exception:
        return orjson.dumps(_BLANK_EXCEPTION)


def encode_label(key: str, value: Any) -> bytes | None:
    """Return a label's JSON, `[key, value]`; None if the wire has no form for it.

    Refused are NaN, infinities, ints over 64 bits and other types.
    """
    # isinstance would ask the application's object for its __class__, which may fail.
    kind = type(value)
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


def encode_partial(fields: Mapping[str, Any]) -> bytes:
    """Return the JSON of a part of an event, to be merged into the runner."""
    return json_bytes(fields)


def _encode_incomplete(event: Any) -> tuple[bytes, int, int]:
    """Encode the common cases: fields left out or in another order, metadata values that are no strings."""
    try:
        filled = {**_BLANK_EVENT, **event}
        resource = filled["resource"] = {**_BLANK_RESOURCE, **filled["resource"]}
        if not is_complete(filled):
            resource["metadata"] = _strings(resource["metadata"])
        if is_complete(filled):
            return _dumps(filled), _flags(filled), 0
    except Exception:
        # No mapping where there should be one, or one that cannot be read: the careful way loses that field only.
        return _encode_carefully(event)
    return _encode_carefully(event)


def _encode_carefully(event: object) -> tuple[bytes, int, int]:
    try:
        shape = _Shape()
        wire = shape.event(event)
        return _dumps(wire), _flags(wire), shape.malformed
    except Exception:
        # Only near the interpreter's recursion limit, or out of memory.
        return orjson.dumps(_BLANK_EVENT), 0, 1


def _flags(wire: dict[str, Any]) -> int:
    return FROM_RUNNER if wire["origin"] == RUNNER_ORIGIN else 0


def _dumps(shape: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(shape)
    except Exception:
        return orjson.dumps(_cleaned(shape))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(key): _cleaned(member) for key, member in value.items()}
    return clean(value) if isinstance(value, str) else value


class _Shape:
    """Builds an event or an exception in wire order out of whatever it is given, and counts what it could not use."""

    def __init__(self) -> None:
        self.malformed = 0

    def event(self, source: object) -> dict[str, Any]:
        if not isinstance(source, Mapping):
            self.malformed += 1
            source = {}
        return {
            "id": self._field(source, "id", _text, ""),
            "start_time": self._field(source, "start_time", _number, 0),
            "resource": self._field(source, "resource", self._resource, _BLANK_RESOURCE),
            "origin": self._field(source, "origin", _text, ""),
            "duration": self._field(source, "duration", _number, 0),
            "error_code": self._field(source, "error_code", _integer, 0),
            "exception": self._field(source, "exception", self.exception, None),
        }

    def exception(self, source: object) -> dict[str, Any]:
        if isinstance(source, BaseException):
            return exception_of(type(source).__name__, source)
        source = _mapping(source)
        return {
            "type": self._field(source, "type", _text, ""),
            "message": self._field(source, "message", _text, ""),
            "traceback": self._field(source, "traceback", _text, ""),
            "time": self._field(source, "time", _number, 0),
            "additional_data": self._field(source, "additional_data", _strings, {}),
        }

    def _resource(self, source: object) -> dict[str, Any]:
        source = _mapping(source)
        return {
            "name": self._field(source, "name", _text, ""),
            "type": self._field(source, "type", _text, ""),
            "operation": self._field(source, "operation", _text, ""),
            "metadata": self._field(source, "metadata", _strings, {}),
        }

    def _field(self, source: Mapping[str, Any], name: str, convert: Callable[[Any], Any], default: Any) -> Any:
        """Return the field as it goes on the wire; absent or null: its default; of a wrong type: that, counted."""
        try:
            value = source.get(name)
            return default if value is None else convert(value)
        except Exception:
            self.malformed += 1
            return default


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(type(value))
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return str.__str__(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not _is_64_bits(value):
        raise TypeError(type(value))
    return int.__index__(value)


def _is_64_bits(value: int) -> bool:
    return -(2**63) <= int.__index__(value) < 2**63


def _number(value: object) -> float:
    if isinstance(value, float):
        return float.__float__(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(type(value))
    # The wire's field is a double; what 64 bits hold stays an int, as the seed's 0 and 100 are written.
    return int.__index__(value) if _is_64_bits(value) else float(value)


def _strings(value: object) -> dict[str, str]:
    # A copy first: another thread may add to the application's dict meanwhile. Most are strings: no call for those.
    return {
        key if type(key) is str else metadata_text(key): member if type(member) is str else metadata_text(member)
        for key, member in dict(_mapping(value)).items()
    }
