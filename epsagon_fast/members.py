"""Decoded JSON: its members, and how it is written again."""

import json
from collections.abc import Iterable

import orjson

from epsagon_fast.hints import Any


def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; the values of a key that comes twice are a list, so that masking sees them all."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    lists: dict[str, list[Any]] = {}
    for key, value in pairs:
        lists.setdefault(key, []).append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in lists.items()}


def members_of(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return what stands in an object or an array, each with its place there."""
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def encoded(value: Any) -> str:
    """Return decoded JSON as text, compact and with sorted names."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # An integer over 64 bits or a lone surrogate. ASCII output, so that the result can always be encoded to UTF-8.
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
