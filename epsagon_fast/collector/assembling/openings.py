"""Decodes OPENs. Up to its runner an OPEN is the same for all traces of one process and config, and that part, which is
most of it, is decoded once.
"""

from functools import lru_cache

import orjson

from epsagon_fast.collector.assembling.payloads import BROKEN, object_in, object_of
from epsagon_fast.collector.assembling.terms import Terms, mask_in, terms_of
from epsagon_fast.hints import Any
from epsagon_fast.masking import Mask
from epsagon_fast.rows import NamedTuple

# In JSON it stands between two members and in no text, where the quotes would have backslashes.
BEFORE_RUNNER = b',"runner":'
# With one of these in the rest of an OPEN its start may not be all that counts.
CONFIG, ESCAPE = b'"config"', b"\\u"


class Opening(NamedTuple):
    """What an OPEN says."""

    terms: Terms
    runner: Any
    opened_at: Any


class Start(NamedTuple):
    """What stands before the runner."""

    terms: Terms
    mask: Mask
    # Whether the mask hides anything.
    hides: bool


def opening_of(opened: bytes) -> Opening:
    """Return what an OPEN's payload says. Raises one of BROKEN."""
    at = opened.find(BEFORE_RUNNER)
    start = start_of(opened[:at]) if at > 0 else None
    if start is not None:
        rest = object_of(b"{" + opened[at + 1 :])
        if len(rest) == 2 and "opened_at" in rest:
            return Opening(start.terms, rest["runner"], rest["opened_at"])
    decoded = object_of(opened)
    return Opening(_terms_in(decoded), decoded["runner"], decoded["opened_at"])


def mask_of(opened: bytes) -> Mask | None:
    """Return the mask of an OPEN's config if it hides nothing in the runner, for certain and without reading that."""
    at = opened.find(BEFORE_RUNNER)
    start = start_of(opened[:at]) if at > 0 else None
    if start is None:
        return None
    rest = opened[at:]
    # The last config would be the one that counts, also if its name were written with an escape.
    return None if CONFIG in rest or ESCAPE in rest or start.mask.may_change(rest) else start.mask


# A config that goes to OTLP names its process.
@lru_cache(maxsize=1024)
def start_of(text: bytes) -> Start | None:
    """Return what an OPEN's start says; None: it does not end between two of the OPEN's own members, or is broken."""
    try:
        decoded = object_of(text + b"}")
        if decoded.keys() != {"config", "platform"}:
            return None
        mask = mask_in(decoded["config"])
        return Start(_terms_in(decoded), mask, bool(mask))
    except BROKEN:
        return None


def _terms_in(decoded: dict[str, Any]) -> Terms:
    return terms_of(orjson.dumps(object_in(decoded, "config")), decoded["platform"])
