"""The JSON that the seed's backend takes: a trace's envelope, what the runner carries, and what may be cut.

Everything is orjson's compact form, so that lengths can be added up without writing the whole.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.cutting import stripped as stripped
from epsagon_fast.protocol import IS_TRIMMED_KEY, LABELS_KEY, ErrorCode
from epsagon_fast.version import __version__

Event = dict[str, Any]

DROPPED_EVENTS_KEY = "dropped_events"
DROPPED_EXCEPTIONS_KEY = "dropped_exceptions"
DROPPED_LABELS_KEY = "dropped_labels"
DROPPED_RECORDS_KEY = "dropped_records"
# `,"is_trimmed":"true"` in a runner's metadata, which is never empty: it has its labels.
MARKER_BYTES = len(f',"{IS_TRIMMED_KEY}":"true"')
# Of a label that is too long for its trace, so many bytes are kept.
LABEL_BYTES = 256


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


def marks(dropped_events: int, dropped_exceptions: int, dropped_labels: int) -> dict[str, str]:
    """Return the metadata that tells a reader what trimming took away."""
    counts = {
        DROPPED_EVENTS_KEY: dropped_events,
        DROPPED_EXCEPTIONS_KEY: dropped_exceptions,
        DROPPED_LABELS_KEY: dropped_labels,
    }
    return {IS_TRIMMED_KEY: "true", **{key: str(count) for key, count in counts.items() if count}}


def marks_bytes(marks: Mapping[str, str]) -> int:
    """Return what marks add to a runner that has metadata: their members, each behind a comma."""
    return len(orjson.dumps(marks)) - 1


def cut(value: bytes) -> bytes:
    """Return the JSON of an event or an exception with its texts cut; the same object if there is nothing to cut."""
    if len(value) <= cutting.TEXT_BYTES:
        return value
    decoded = _loads(value)
    shorter = cutting.texts(decoded, cutting.TEXT_BYTES)
    return value if shorter == decoded else orjson.dumps(shorter)


def cut_runner(runner: Event, labels: Mapping[str, object]) -> tuple[Event, int]:
    """Return a runner that has only strong metadata, with its texts cut, and how many labels it lacks.

    Labels go whole, from the end on, so that what is left is JSON.
    """
    fewer = {key: cutting.texts(value, LABEL_BYTES) for key, value in labels.items()}
    while fewer and cutting.json_bytes(_labels_json(fewer)) > cutting.TEXT_BYTES:
        fewer.popitem()
    shorter: Event = cutting.texts({**runner, "resource": {**runner["resource"], "metadata": {}}}, cutting.TEXT_BYTES)
    strong = cutting.texts(cutting.stripped(runner)["resource"]["metadata"], cutting.TEXT_BYTES)
    return with_labels(with_metadata(shorter, strong), fewer), len(labels) - len(fewer)


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
