"""Hides, in records as they come from a ring, the values of the keys that their trace's config ignores.

The config comes with a trace's OPEN, so a mask is known from then on, and records that are read earlier must wait. Once
the trace is open its terms have the mask: one more dictionary of all open traces would be in no cache if they are many.
"""

from collections.abc import Callable

import orjson

from epsagon_fast.collector.assembling.open_traces import OpenTraces
from epsagon_fast.collector.assembling.openings import mask_of
from epsagon_fast.collector.assembling.payloads import BROKEN, decoded_label
from epsagon_fast.collector.assembling.terms import mask_in
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import Kind, Record

# As plain integers: comparing with a member of Kind costs more than the rest of the decision.
_EVENTS = (int(Kind.EVENT), int(Kind.RUNNER))
_LABEL = int(Kind.LABEL)
_EXCEPTIONS = (int(Kind.EXCEPTION), int(Kind.ERROR))


def _none(trace_id: bytes) -> bool:
    return False


class Masks(dict[bytes, Mask]):
    """The masks of traces of which the OPEN was masked and not yet fed, by trace id; one that hides nothing is missing.

    `knows`: says whether a trace was opened before. Its mask stays. `traces`: the open ones, by trace id.
    """

    def __init__(self, knows: Callable[[bytes], bool] = _none, traces: OpenTraces | None = None) -> None:
        self.knows = knows
        self.traces = OpenTraces() if traces is None else traces

    def of(self, trace_id: bytes) -> Mask | None:
        """Return the mask of a trace that is open or about to be; None: nothing is hidden, or it is not known."""
        trace = self.traces.get(trace_id)
        return self.get(trace_id) if trace is None else trace.terms.mask

    def passes(self, trace_id: bytes, opened: bytes) -> bool:
        """Say whether an OPEN may be kept as it is, as far as that is seen without reading it. Learn its mask if so."""
        mask = mask_of(opened)
        if mask is None:
            return False
        if mask and not self.knows(trace_id):
            self[trace_id] = mask
        return True

    def opened(self, record: Record) -> Record:
        """Return an OPEN with its runner masked, and learn its mask."""
        try:
            mask, payload = _opened(record.payload)
        except BROKEN:
            return record._replace(payload=b"")
        if mask and not self.knows(record.trace_id):
            self[record.trace_id] = mask
        return record if payload is record.payload else record._replace(payload=payload)

    def masked(self, record: Record) -> Record:
        """Return any other record, masked; the same object if nothing in it is masked.

        A record that cannot be searched loses its payload.
        """
        mask = self.of(record.trace_id)
        if mask is None:
            return record
        try:
            payload = _masked(mask, record.kind, record.payload)
        except BROKEN:
            payload = b""
        return record if payload is record.payload else record._replace(payload=payload)


def _opened(payload: bytes) -> tuple[Mask, bytes]:
    """Return the mask of an OPEN's trace, and the OPEN masked."""
    mask = mask_of(payload)
    if mask is not None:
        return mask, payload
    decoded = orjson.loads(payload)
    mask = mask_in(decoded["config"])
    return mask, orjson.dumps(decoded) if mask.runner(decoded["runner"]) else payload


def _masked(mask: Mask, kind: int, payload: bytes) -> bytes:
    if kind in _EVENTS:
        # What is to be merged into a runner is a part of an event.
        return mask.event(payload)
    if kind == _LABEL:
        return _masked_label(mask, payload)
    if kind in _EXCEPTIONS:
        return mask.exception(payload)
    return payload


def _masked_label(mask: Mask, payload: bytes) -> bytes:
    key, value = decoded_label(payload)
    masked = mask.label(key, value)
    return payload if masked == (key, value) else orjson.dumps(masked)
