"""Hides, in records as they come from a ring, the values of the keys that their trace's config ignores.

The config comes with a trace's OPEN, so a mask is known from then on, and records that are read earlier must wait.
"""

from functools import lru_cache

import orjson

from epsagon_fast.collector.assembling.openings import ignores_nothing
from epsagon_fast.collector.assembling.payloads import BROKEN, decoded_label
from epsagon_fast.masking import Mask
from epsagon_fast.protocol import Kind, Record

# As plain integers: comparing with a member of Kind costs more than the rest of the decision.
_EVENT, _LABEL, _RUNNER = int(Kind.EVENT), int(Kind.LABEL), int(Kind.RUNNER)


class Masks(dict[bytes, Mask]):
    """The masks of open traces, by trace id; a trace that ignores no keys is missing."""

    def learn(self, trace_id: bytes, ignored_keys: list[str]) -> None:
        """Take in which keys a trace ignores."""
        mask = _mask(tuple(ignored_keys))
        if mask:
            self[trace_id] = mask

    def opened(self, record: Record, *, is_new: bool) -> Record:
        """Return an OPEN with its runner masked, and learn its keys if its trace `is_new`."""
        if ignores_nothing(record.payload):
            return record
        try:
            decoded = orjson.loads(record.payload)
            mask = _mask(tuple(decoded["config"]["ignored_keys"]))
            changed = mask.runner(decoded["runner"])
        except BROKEN:
            return record._replace(payload=b"")
        if is_new and mask:
            self[record.trace_id] = mask
        return record._replace(payload=orjson.dumps(decoded)) if changed else record

    def masked(self, record: Record) -> Record:
        """Return any other record, masked; the same object if nothing in it is masked.

        A record that cannot be searched loses its payload.
        """
        mask = self.get(record.trace_id)
        if mask is None:
            return record
        try:
            payload = _masked(mask, record.kind, record.payload)
        except BROKEN:
            payload = b""
        return record if payload is record.payload else record._replace(payload=payload)


# Traces of one config share its mask.
@lru_cache(maxsize=256)
def _mask(ignored_keys: tuple[str, ...]) -> Mask:
    return Mask(ignored_keys)


def _masked(mask: Mask, kind: int, payload: bytes) -> bytes:
    if kind == _EVENT:
        return mask.event(payload)
    if kind == _LABEL:
        return _masked_label(mask, payload)
    if kind == _RUNNER:
        return _masked_news(mask, payload)
    return payload


def _masked_label(mask: Mask, payload: bytes) -> bytes:
    key, value = decoded_label(payload)
    masked = mask.value(key, value)
    return payload if masked == value else orjson.dumps([key, masked])


def _masked_news(mask: Mask, payload: bytes) -> bytes:
    news = orjson.loads(payload)
    return orjson.dumps(news) if mask.runner(news) else payload
