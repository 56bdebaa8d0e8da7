"""The JSON that the seed's backend takes: a trace's envelope, what the runner carries, and what may be cut.

Everything is orjson's compact form, so that lengths can be added up without writing the whole.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from epsagon_fast.protocol import IS_TRIMMED_KEY, LABELS_KEY, STRONG_KEYS, ErrorCode
from epsagon_fast.version import __version__

Event = dict[str, Any]

DROPPED_EVENTS_KEY = "dropped_events"
DROPPED_EXCEPTIONS_KEY = "dropped_exceptions"
DROPPED_RECORDS_KEY = "dropped_records"
# `,"is_trimmed":"true"` in a runner's metadata, which is never empty: it has its labels.
MARKER_BYTES = len(f',"{IS_TRIMMED_KEY}":"true"')
# UTF-8 bytes of a traceback in a trace that is too big even when stripped: its first and last half are kept.
TRACEBACK_BYTES = 4 * 1024


class Envelope(NamedTuple):
    """A trace's JSON without its events and exceptions: what stands before, between and after them."""

    head: bytes
    middle: bytes
    tail: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.head) + len(self.middle) + len(self.tail)

    def around(self, events: Sequence[bytes], exceptions: Sequence[bytes]) -> bytes:
        """Return the whole body."""
        return b"".join((self.head, b",".join(events), self.middle, b",".join(exceptions), self.tail))


def envelope(app_name: str, token: str, platform: str) -> Envelope:
    """Return the envelope of a trace. Raises TypeError if a text is none or cannot be UTF-8."""
    names = {"app_name": app_name, "token": token, "version": __version__, "platform": platform}
    texts = {name: orjson.dumps(text).decode() for name, text in names.items()}
    return Envelope(
        head=f'{{"app_name":{texts["app_name"]},"token":{texts["token"]},"events":['.encode(),
        middle=b'],"exceptions":[',
        tail=f'],"version":{texts["version"]},"platform":{texts["platform"]}}}'.encode(),
    )


def joined_bytes(parts: Sequence[bytes]) -> int:
    """Return the length of the parts with a comma between neighbours."""
    return sum(map(len, parts)) + max(0, len(parts) - 1)


def with_metadata(runner: Event, metadata: Mapping[str, str]) -> Event:
    """Return a runner with more metadata. A resource or metadata that is missing is made (parity row no-panic)."""
    resource = runner.get("resource")
    if not isinstance(resource, dict):
        resource = {"name": "", "type": "", "operation": ""}
    own = resource.get("metadata")
    own = own if isinstance(own, dict) else {}
    return {**runner, "resource": {**resource, "metadata": {**own, **metadata}}}


def with_labels(runner: Event, labels: Mapping[str, object]) -> Event:
    """Return a runner with the labels as JSON text in its metadata; the user's own `labels` give way."""
    return with_metadata(runner, {LABELS_KEY: _labels_json(labels)})


def with_error(runner: Event, error: Mapping[str, Any]) -> Event:
    """Return a runner that failed with this exception."""
    return {**runner, "error_code": int(ErrorCode.ERROR), "exception": error}


def stripped(runner: Event) -> Event:
    """Return a runner with strong metadata only: what `trim` makes of it."""
    resource = runner["resource"]
    strong = {key: value for key, value in resource["metadata"].items() if key in STRONG_KEYS}
    return {**runner, "resource": {**resource, "metadata": strong}}


def marks(dropped_events: int, dropped_exceptions: int) -> dict[str, str]:
    """Return the metadata that tells a reader what trimming took away."""
    counts = {DROPPED_EVENTS_KEY: dropped_events, DROPPED_EXCEPTIONS_KEY: dropped_exceptions}
    return {IS_TRIMMED_KEY: "true", **{key: str(count) for key, count in counts.items() if count}}


def marks_bytes(marks: Mapping[str, str]) -> int:
    """Return what marks add to a runner that has metadata: their members, each behind a comma."""
    return len(orjson.dumps(marks)) - 1


def cut_event(event: bytes) -> bytes:
    """Return an event with its exception's traceback cut; the same object if there is nothing to cut."""
    if len(event) <= TRACEBACK_BYTES:
        return event
    decoded = _loads(event)
    cut = with_cut_traceback(decoded) if isinstance(decoded, dict) else decoded
    return event if cut is decoded else orjson.dumps(cut)


def cut_exception(exception: bytes) -> bytes:
    """Return an exception with its traceback cut; the same object if there is nothing to cut."""
    if len(exception) <= TRACEBACK_BYTES:
        return exception
    decoded = _loads(exception)
    cut = _cut(decoded)
    return exception if cut is decoded else orjson.dumps(cut)


def with_cut_traceback(event: Event) -> Event:
    """Return a decoded event with its exception's traceback cut; the same object if there is nothing to cut."""
    exception = event.get("exception")
    cut = _cut(exception)
    return event if cut is exception else {**event, "exception": cut}


def _cut(exception: Any) -> Any:
    traceback = exception.get("traceback") if isinstance(exception, dict) else None
    text = traceback.encode() if isinstance(traceback, str) else b""
    if len(text) <= TRACEBACK_BYTES:
        return exception
    half = TRACEBACK_BYTES // 2
    # "ignore" drops what the cut left of a character.
    ends = text[:half].decode(errors="ignore"), text[-half:].decode(errors="ignore")
    return {**exception, "traceback": "".join(ends)}


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _labels_json(labels: Mapping[str, object]) -> str:
    try:
        return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # An integer over 64 bits.
        return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
