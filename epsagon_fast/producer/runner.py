"""The runner: the event that stands for a whole trace, last in its body."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from epsagon_fast.protocol import PARENT_ID, RUNNER_ORIGIN, ErrorCode

from . import encoding
from .times import written

# As a plain integer: asking the enum for it costs as much as a function.
_OK: Final = int(ErrorCode.OK)


def new_runner(name: str, kind: str, operation: str, metadata: dict[str, str], start_ns: int) -> dict[str, Any]:
    """Return a runner but for its id, which is the trace's: all fields, in wire order.

    All other arguments are strings, so nothing has to be looked at to encode it. `start_ns`: unix nanoseconds.
    """
    resource = {"name": name, "type": kind, "operation": operation, "metadata": metadata}
    times = {"start_time": start_ns, "resource": resource, "origin": RUNNER_ORIGIN, "duration": 0}
    return {**times, "error_code": _OK, "exception": None}


def encoded_runner(
    runner: Mapping[str, Any], trace_id: str, parent_id: str | None = None, typed: bool = False
) -> bytes:
    """Return the JSON of a runner that `new_runner` made. `parent_id`: the caller's span; None: there is no caller."""
    whole = {"id": trace_id, **runner, "start_time": written(runner["start_time"], typed)}
    if parent_id:
        whole[PARENT_ID] = parent_id
    try:
        return orjson.dumps(whole)
    except TypeError:  # a lone surrogate
        return encoding.encode_event(whole, typed=typed).data


def encoded_update(
    metadata: Mapping[str, str], error_code: int | None, exception: encoding.Encoded | None, name: str | None = None
) -> bytes:
    """Return the JSON of a change of a runner, which the collector merges into the runner."""
    resource: dict[str, Any] = {"metadata": metadata} if metadata else {}
    if name is not None:
        resource["name"] = name
    fields: dict[str, Any] = {"resource": resource} if resource else {}
    if error_code is not None:
        fields["error_code"] = error_code
    if exception is not None:
        fields["exception"] = orjson.Fragment(exception.data)
    try:
        return orjson.dumps(fields)
    except TypeError:  # a lone surrogate
        texts = {encoding.metadata_text(k): encoding.metadata_text(v) for k, v in metadata.items()}
        return encoded_update(texts, error_code, exception, None if name is None else encoding.metadata_text(name))
