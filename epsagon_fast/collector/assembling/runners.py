"""Completes a trace's runner at the end (labels, error, marks), and cuts it. No function here changes its arguments.

A runner is an event, decoded. Its labels, its error and what trimming took away stand in it in every format.
"""

import json
from collections.abc import Mapping

import orjson

import epsagon_fast.cutting as cutting
from epsagon_fast.hints import Any
from epsagon_fast.protocol import IS_TRIMMED_KEY, LABELS_KEY, ErrorCode

Runner = dict[str, Any]

DROPPED_EVENTS_KEY = "dropped_events"
DROPPED_EXCEPTIONS_KEY = "dropped_exceptions"
DROPPED_LABELS_KEY = "dropped_labels"
DROPPED_RECORDS_KEY = "dropped_records"
# `,"is_trimmed":"true"` in a runner's metadata, which is never empty: it has its labels.
MARKER_BYTES = len(f',"{IS_TRIMMED_KEY}":"true"')
# Bytes that are kept of a label that is too long for its trace.
LABEL_BYTES = 256


def with_metadata(runner: Runner, metadata: Mapping[str, str]) -> Runner:
    """Return a runner with more metadata. A resource or metadata that is missing is made (parity row no-panic)."""
    resource = runner.get("resource")
    if not isinstance(resource, dict):
        resource = {"name": "", "type": "", "operation": ""}
    own = resource.get("metadata")
    own = own if isinstance(own, dict) else {}
    return {**runner, "resource": {**resource, "metadata": {**own, **metadata}}}


def with_labels(runner: Runner, labels: Mapping[str, object]) -> Runner:
    """Return a runner with the labels as JSON text in its metadata; the user's own `labels` give way."""
    return with_metadata(runner, {LABELS_KEY: labels_json(labels)})


def with_error(runner: Runner, error: Mapping[str, Any]) -> Runner:
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


def cut(runner: Runner, labels: Mapping[str, object]) -> tuple[Runner, int]:
    """Return a runner that has only strong metadata, with its texts cut, and how many labels it lacks.

    Labels go whole, from the end on, so that what is left is JSON.
    """
    fewer = {key: cutting.texts(value, LABEL_BYTES) for key, value in labels.items()}
    while fewer and cutting.json_bytes(labels_json(fewer)) > cutting.TEXT_BYTES:
        fewer.popitem()
    shorter: Runner = cutting.texts({**runner, "resource": {**runner["resource"], "metadata": {}}}, cutting.TEXT_BYTES)
    strong = cutting.texts(cutting.stripped(runner)["resource"]["metadata"], cutting.TEXT_BYTES)
    return with_labels(with_metadata(shorter, strong), fewer), len(labels) - len(fewer)


def labels_json(labels: Mapping[str, object]) -> str:
    """Return labels as JSON text."""
    try:
        return orjson.dumps(labels, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        # An integer over 64 bits.
        return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
