"""What counts as a trace: the JSON body that a tracer POSTs, field by field.

Every field of the wire format must be there with its type. Fields that we do not know are let through, so that a newer
tracer can talk to an older backend.
"""

from collections.abc import Callable
from typing import Any

import orjson

import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.summary import Summary
from epsagon_fast.protocol import EVENT_FIELDS, EXCEPTION_FIELDS, PARENT_ID, RESOURCE_FIELDS, TRACE_FIELDS

# protobuf's JSON form writes numbers that are not finite as these strings, and so does epsagon-go; ours writes null.
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
# Enough of a key to find it by; a body may hold a key of a megabyte.
_SHOWN_CHARACTERS = 60
# Of what stands in fields that we do not know. Far deeper, other parsers of JSON and our copy of an event give up.
_MAX_DEPTH = 100

Check = Callable[[Any, str], None]


class NotATrace(ValueError):
    """The body is not a trace. The text says where and why, and repeats no value: values may be secret."""


def checked(body: bytes) -> Any:
    """Return the trace that a body is. Raises NotATrace."""
    try:
        trace = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotATrace(f"the body is not JSON: {error}") from None
    _trace(trace, "trace")
    return trace


def summarize(body: bytes) -> Summary:
    """Check that a body is a trace and say what is in it.

    Raises NotATrace.
    """
    return summary.of(checked(body))


def _refuse(where: str, wanted: str, value: Any) -> NotATrace:
    return NotATrace(f"{where} must be {wanted}, not {_json_type(value)}")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _text(value: Any, where: str) -> None:
    if type(value) is not str:
        raise _refuse(where, "a string", value)


def _seconds(value: Any, where: str) -> None:
    if type(value) not in (int, float) and value is not None and value not in _NOT_FINITE:
        raise _refuse(where, "a number or null", value)


def _code(value: Any, where: str) -> None:
    # protobuf's enums are open, so any number of 32 bits is one; a bool is an int to Python only.
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise NotATrace(f"{where} must be a whole number of 32 bits")


def _texts(value: Any, where: str) -> None:
    if type(value) is not dict:
        raise _refuse(where, "an object", value)
    for key, text in value.items():
        if type(text) is not str:
            raise _refuse(f"{where}[{key[:_SHOWN_CHARACTERS]!r}]", "a string", text)


def _object(names: tuple[str, ...], *checks: Check) -> Check:
    fields = tuple(zip(names, checks, strict=True))

    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise _refuse(where, "an object", value)
        for name, check_field in fields:
            if name not in value:
                raise NotATrace(f"{where} has no field {name!r}")
            check_field(value[name], f"{where}.{name}")
        if len(value) > len(fields):
            _bound_depth(value, where)

    return check


def _bound_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
        level = [part for part in level if isinstance(part, (dict, list))]
        if not level:
            return
    raise NotATrace(f"{where} nests deeper than {_MAX_DEPTH}")


def _with_parent(check_event: Check) -> Check:
    def check(value: Any, where: str) -> None:
        check_event(value, where)
        if PARENT_ID in value:
            _text(value[PARENT_ID], f"{where}.{PARENT_ID}")

    return check


def _array(check_item: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not list:
            raise _refuse(where, "an array", value)
        for index, item in enumerate(value):
            check_item(item, f"{where}[{index}]")

    return check


def _nullable(check_value: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            check_value(value, where)

    return check


_exception = _object(EXCEPTION_FIELDS, _text, _text, _text, _seconds, _texts)
_resource = _object(RESOURCE_FIELDS, _text, _text, _text, _texts)
_fields = (_text, _seconds, _resource, _text, _seconds, _code, _nullable(_exception))
_event = _with_parent(_object(EVENT_FIELDS, *_fields))
_trace = _object(TRACE_FIELDS, _text, _text, _array(_event), _array(_exception), _text, _text)
