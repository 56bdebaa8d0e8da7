"""Decodes OPENs. Up to its runner an OPEN is the same for all traces of one process and config, and that part, which is
most of it, is decoded once.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from epsagon_fast.collector.assembling.payloads import BROKEN, object_in, object_of
from epsagon_fast.collector.assembling.terms import Terms, terms_of

# In JSON it stands between two members and in no text, where the quotes would have backslashes.
_BEFORE_RUNNER = b',"runner":'


class Opening(NamedTuple):
    """What an OPEN says."""

    terms: Terms
    runner: Any
    opened_at: Any


class _Start(NamedTuple):
    """What stands before the runner."""

    terms: Terms
    ignores_nothing: bool


def opening_of(opened: bytes) -> Opening:
    """Return what an OPEN's payload says. Raises one of BROKEN."""
    at = opened.find(_BEFORE_RUNNER)
    start = _start_of(opened[:at]) if at > 0 else None
    if start is not None:
        rest = object_of(b"{" + opened[at + 1 :])
        if len(rest) == 2 and "opened_at" in rest:
            return Opening(start.terms, rest["runner"], rest["opened_at"])
    decoded = object_of(opened)
    return Opening(_terms_in(decoded), decoded["runner"], decoded["opened_at"])


def ignores_nothing(opened: bytes) -> bool:
    """Say whether an OPEN's config ignores no keys, for certain and without a look at its runner."""
    at = opened.find(_BEFORE_RUNNER)
    start = _start_of(opened[:at]) if at > 0 else None
    if start is None or not start.ignores_nothing:
        return False
    # The last config would be the one that counts, also if its name were written with an escape.
    return opened.find(b'"config"', at) < 0 and opened.find(b"\\u", at) < 0


# A config that goes to OTLP names its process.
@lru_cache(maxsize=1024)
def _start_of(text: bytes) -> _Start | None:
    """Return what an OPEN's start says; None: it does not end between two of the OPEN's own members, or is broken."""
    try:
        decoded = object_of(text + b"}")
        if decoded.keys() != {"config", "platform"}:
            return None
        return _Start(_terms_in(decoded), decoded["config"]["ignored_keys"] == [])
    except BROKEN:
        return None


def _terms_in(decoded: dict[str, Any]) -> Terms:
    return terms_of(orjson.dumps(object_in(decoded, "config")), decoded["platform"])
