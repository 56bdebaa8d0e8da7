"""Makes a record that is too large for a trace or a ring smaller: masked, then shortened or stripped, then cut.

Secrets go first, because masking could not find a key in half a text, and a long secret may be the whole excess.
"""

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.config import ResolvedConfig
from epsagon_fast.hints import TYPE_CHECKING, Final
from epsagon_fast.interrupts import let_pass
from epsagon_fast.protocol import MAX_TRACE_BYTES, SHORTEN, Kind
from epsagon_fast.rows import NamedTuple

if TYPE_CHECKING:
    from epsagon_fast.masking import Mask

# A larger event is stripped before it is masked. Masking reads JSON in JSON, which takes tenths of a second for
# megabytes, and unless half of the event were secrets it would have to be stripped anyway. An event to be shortened is
# stripped first only if it may hold a secret.
MOST_BYTES_TO_MASK: Final = 2 * MAX_TRACE_BYTES


class Fitted(NamedTuple):
    """An event that fits."""

    # None: not even its stub fits.
    data: bytes | None
    # Whether metadata, or parts of them or of texts, are missing.
    is_less: bool
    # Whether stripping the metadata was not enough, so that texts were cut.
    is_cut: bool = False


def fitted_event(event: bytes, limit_bytes: int, config: ResolvedConfig) -> Fitted:
    """Return an event's JSON in at most `limit_bytes`. `config`: of its trace."""
    mask = _mask_of(config)
    if mask is None:
        return Fitted(None, is_less=True)
    shortens = config.trimming == SHORTEN
    is_huge = len(event) > MOST_BYTES_TO_MASK and (not shortens or mask.may_change(event))
    masked = mask.event(_stripped(event) if is_huge else event)
    if len(masked) <= limit_bytes:
        return Fitted(masked, is_less=is_huge)
    smaller = _shortened(masked, limit_bytes) if shortens else _stripped(masked)
    if len(smaller) <= limit_bytes:
        return Fitted(smaller, is_less=True)
    return Fitted(cutting.fitted_event(orjson.loads(masked), limit_bytes), is_less=True, is_cut=True)


def _mask_of(config: ResolvedConfig) -> "Mask | None":
    try:
        # Imported here, because few events are too large. The first trace imports it.
        from epsagon_fast.masking import mask_of
    except ImportError as error:
        # The process lost its files (a chroot, a replaced environment) before its first trace. Nothing is cut unmasked.
        let_pass(error)
        return None
    return mask_of(config)


def _shortened(event: bytes, limit_bytes: int) -> bytes:
    """Return an event with the beginnings of its long values; the same object if that is not enough.

    The collector knows their marks, and shortens them with the trace as if they were whole.
    """
    try:
        from epsagon_fast.trimming import TraceTooBig, shorten
    except ImportError as error:
        let_pass(error)
        return event
    try:
        return shorten([event], max(0, limit_bytes)).events[0]
    except TraceTooBig:
        return event


def _stripped(event: bytes) -> bytes:
    try:
        # Imported here, because a process that never traces does not need it. The first trace imports it.
        from epsagon_fast.trimming import TraceTooBig, trim
    except ImportError as error:
        # As above. The event is only cut.
        let_pass(error)
        return event
    try:
        # A limit of one byte less than its size: it is stripped if it has anything to strip.
        return trim([event], len(event) - 1).events[0]
    except TraceTooBig:
        return event


def fitted_record(kind: int, payload: bytes, limit_bytes: int, config: ResolvedConfig) -> bytes | None:
    """Return a record's payload in at most `limit_bytes`, of any kind but OPEN; None: cutting is not enough."""
    if kind == Kind.EVENT:
        return fitted_event(payload, limit_bytes, config).data
    mask = _mask_of(config)
    if mask is None:
        return None
    value = orjson.loads(payload)
    if kind == Kind.RUNNER:
        mask.runner(value)
    elif kind == Kind.LABEL:
        value = list(mask.label(*value))
    elif kind in (Kind.EXCEPTION, Kind.ERROR):
        value = orjson.loads(mask.exception(payload))
    return cutting.fitted(value, limit_bytes)
