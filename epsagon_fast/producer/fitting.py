"""What is too large for a trace or a ring, made smaller: masked, then stripped, then its texts cut.

Secrets go first. One that is long may be all that is too much, and in half a text masking could not find it.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.interrupts import let_pass
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import MAX_TRACE_BYTES, Kind

# Masking reads JSON in JSON, megabytes of it for tenths of a second. Secrets would have to be half of an event of this
# size, or it could not be sent whole even so: it is stripped first.
MOST_BYTES_TO_MASK: Final = 2 * MAX_TRACE_BYTES


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
    is_huge = len(event) > MOST_BYTES_TO_MASK
    masked = Mask(ignored_keys).event(_stripped(event) if is_huge else event)
    if len(masked) <= limit_bytes:
        return Fitted(masked, is_less=is_huge)
    stripped = _stripped(masked)
    if len(stripped) <= limit_bytes:
        return Fitted(stripped, is_less=True)
    return Fitted(cutting.fitted_event(orjson.loads(masked), limit_bytes), is_less=True, is_cut=True)


def _stripped(event: bytes) -> bytes:
    try:
        # Not on top: a process that never traces does not need it. One that does has it from its first trace on.
        from epsagon_fast.trimming import TraceTooBig, trim
    except ImportError as error:
        # The process lost its files (a chroot, a replaced environment) before that. Cutting is left.
        let_pass(error)
        return event
    try:
        # One byte less than it has: stripped if there is anything to strip.
        return trim([event], len(event) - 1).events[0]
    except TraceTooBig:
        return event


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
