"""Decodes the payloads of a trace's records. A payload that no producer of ours made raises one of BROKEN."""

import json
import math
import struct

import orjson

from epsagon_fast.hints import Any
from epsagon_fast.protocol import LABEL_NUMBER_BYTES

# The exceptions that a foreign payload causes. Its record then changes nothing.
BROKEN = (ValueError, TypeError, KeyError, struct.error, RecursionError)

# orjson reads 1024 levels and writes 254. With so few brackets there are not as many.
MANY_BRACKETS = 200


def decoded_label(payload: bytes) -> tuple[str, str | int | float | bool]:
    """Return a LABEL's key and value. Raises ValueError."""
    # The standard library's decoder keeps integers of any size; labels are few.
    label = json.loads(payload)
    if not isinstance(label, list) or len(label) != 2:
        raise ValueError("not a key and a value")
    key, value = label
    if not isinstance(key, str) or not isinstance(value, str | int | float):
        raise ValueError("not a label's types")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that JSON lacks")
    return key, value


def label_bytes(key: str, value: object) -> int:
    """Return how much of a trace's room for labels one takes."""
    return len(key.encode()) + (len(value.encode()) if isinstance(value, str) else LABEL_NUMBER_BYTES)


def object_of(payload: bytes) -> dict[str, Any]:
    """Return a payload that is a JSON object, and that can be written again."""
    decoded = orjson.loads(payload)
    if not isinstance(decoded, dict):
        raise ValueError("not a JSON object")
    if payload.count(b"{") + payload.count(b"[") > MANY_BRACKETS:
        # What cannot be written is refused here, not at the end.
        orjson.dumps({"runner": decoded})
    return decoded


def object_in(decoded: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the object that an object has by this name."""
    return as_object(decoded[name], name)


def as_object(value: Any, name: str) -> dict[str, Any]:
    """Return a value that is an object. `name`: says which value it is."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value
