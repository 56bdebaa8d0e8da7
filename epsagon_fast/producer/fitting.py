"""What is too large for a trace or a ring, made smaller: masked, then stripped, then its texts cut.

Secrets go first. One that is long may be all that is too much, and in half a text masking could not find it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from epsagon_fast import cutting
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import Kind


class Fitted(NamedTuple):
    """An event in the room that there is."""

    # None: there is not even room for its stub.
    data: bytes | None
    # Whether metadata or parts of texts are gone.
    is_less: bool
    # Whether stripping its metadata was not enough.
    is_cut: bool = False


def fitted_event(event: bytes, limit_bytes: int, ignored_keys: Iterable[str]) -> Fitted:
    """Return an event's JSON in at most so many bytes."""
    masked = Mask(ignored_keys).event(event)
    if len(masked) <= limit_bytes:
        return Fitted(masked, is_less=False)
    decoded = orjson.loads(masked)
    stripped = orjson.dumps(cutting.stripped(decoded))
    if len(stripped) <= limit_bytes:
        return Fitted(stripped, is_less=True)
    return Fitted(cutting.fitted_event(decoded, limit_bytes), is_less=True, is_cut=True)


def fitted_record(kind: int, payload: bytes, limit_bytes: int, ignored_keys: Iterable[str]) -> bytes | None:
    """Return the payload of a record that is not an OPEN in at most so many bytes; None: it has nothing to cut."""
    mask = Mask(ignored_keys)
    if kind == Kind.EVENT:
        return fitted_event(payload, limit_bytes, ignored_keys).data
    value = orjson.loads(payload)
    if kind == Kind.RUNNER:
        mask.runner(value)
    elif kind == Kind.LABEL:
        value[1] = mask.value(*value)
    return cutting.fitted(value, limit_bytes)
