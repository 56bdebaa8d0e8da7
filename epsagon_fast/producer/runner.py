"""The runner: the event that stands for a whole trace, last in its body."""

from collections.abc import Mapping

import orjson

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING, Any, Final
from epsagon_fast.protocol import PARENT_ID, RUNNER_ORIGIN, ErrorCode

from . import encoding
from .times import written

# Name, type, operation, metadata, and the start in unix nanoseconds.
Runner = tuple[str, str, str, dict[str, str], int]
# As a plain integer: asking the enum for it costs as much as a function.
_OK: Final = int(ErrorCode.OK)


def new_runner(name: str, kind: str, operation: str, metadata: dict[str, str], start_ns: int) -> Runner:
    """Return a runner but for its id, which is the trace's. `start_ns`: unix nanoseconds.

    All other arguments are strings, so nothing has to be looked at to encode it.
    """
    return name, kind, operation, metadata, start_ns


def encoded_runner(runner: Runner, trace_id: str, parent_id: str | None = None, typed: bool = False) -> bytes:
    """Return the JSON of a runner that `new_runner` made. `parent_id`: the caller's span; None: there is no caller."""
    return runner_json(runner, trace_id, parent_id, typed) or _dumped(runner, trace_id, parent_id, typed)


def _dumped(runner: Runner, trace_id: str, parent_id: str | None, typed: bool) -> bytes:
    name, kind, operation, metadata, start_ns = runner
    resource = {"name": name, "type": kind, "operation": operation, "metadata": metadata}
    times = {"start_time": written(start_ns, typed), "resource": resource, "origin": RUNNER_ORIGIN, "duration": 0}
    whole = {"id": trace_id, **times, "error_code": _OK, "exception": None}
    if parent_id:
        whole[PARENT_ID] = parent_id
    try:
        return orjson.dumps(whole)
    except TypeError:  # a lone surrogate
        return encoding.encode_event(whole, typed=typed).data


def pure_runner_json(runner: Runner, trace_id: str, parent_id: str | None, typed: bool, /) -> bytes | None:
    """Return the JSON of a runner, None if that was left to do, as it always is without the extension."""
    return None


if TYPE_CHECKING or implementation("add_event") != COMPILED:
    runner_json = pure_runner_json
else:
    from epsagon_fast.producer._fast_path import runner_json


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
