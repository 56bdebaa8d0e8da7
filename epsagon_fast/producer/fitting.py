"""Makes a record that is too large for a trace or a ring smaller: it is masked, then stripped, then its texts are cut.

Secrets go first, because masking could not find a key in half a text, and a long secret may be the whole excess.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.interrupts import let_pass
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import MAX_TRACE_BYTES, Kind

# A larger event is stripped before it is masked. Masking reads JSON in JSON, which takes tenths of a second for
# megabytes, and unless half of the event were secrets it would have to be stripped anyway.
MOST_BYTES_TO_MASK: Final = 2 * MAX_TRACE_BYTES


class Fitted(NamedTuple):
    """An event that fits."""

    # None: not even its stub fits.
    data: bytes | None
    # Whether metadata or parts of texts are missing.
    is_less: bool
    # Whether stripping the metadata was not enough, so that texts were cut.
    is_cut: bool = False


def fitted_event(event: bytes, limit_bytes: int, ignored_keys: Iterable[str]) -> Fitted:
    """Return an event's JSON in at most `limit_bytes`."""
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
        # Imported here, because a process that never traces does not need it. The first trace imports it.
        from epsagon_fast.trimming import TraceTooBig, trim
    except ImportError as error:
        # The process lost its files (a chroot, a replaced environment) before its first trace. The event is only cut.
        let_pass(error)
        return event
    try:
        # A limit of one byte less than its size: it is stripped if it has anything to strip.
        return trim([event], len(event) - 1).events[0]
    except TraceTooBig:
        return event


def fitted_record(kind: int, payload: bytes, limit_bytes: int, ignored_keys: Iterable[str]) -> bytes | None:
    """Return a record's payload in at most `limit_bytes`, of any kind but OPEN; None: cutting is not enough."""
    mask = Mask(ignored_keys)
    if kind == Kind.EVENT:
        return fitted_event(payload, limit_bytes, ignored_keys).data
    value = orjson.loads(payload)
    if kind == Kind.RUNNER:
        mask.runner(value)
    elif kind == Kind.LABEL:
        value[1] = mask.value(*value)
    return cutting.fitted(value, limit_bytes)
