"""Records as a producer would push them, for tests of what reads them."""

from typing import Any

import orjson

from epsagon_fast.protocol import (
    CLOSE_PAYLOAD,
    DEFAULT_MAX_TRACE_BYTES,
    FROM_RUNNER,
    NOT_MEASURED,
    UNCHANGED,
    Kind,
    Record,
)

TRACE_ID = bytes(range(16))
OTHER_TRACE_ID = bytes(range(16, 32))
RING = b"ring of the opener"
OTHER_RING = b"another ring"
OPENED_AT = 1_700_000_000.0

CONFIG = {
    "app_name": "shop",
    "token": "secret-token",
    "collector_url": "http://127.0.0.1:1/",
    "metadata_only": True,
    "debug": False,
    # No answer of a test is late, however busy the machine is.
    "send_timeout_s": 30.0,
    "ignored_keys": [],
    "max_trace_size_bytes": DEFAULT_MAX_TRACE_BYTES,
    "state_dir": "/nowhere",
    "proxy_url": None,
    "ca_file": None,
}


def event(number: int | str = 0, origin: str = "sdk", exception: Any = None, **metadata: str) -> bytes:
    """Return a complete event's JSON."""
    return orjson.dumps(event_fields(number, origin, exception, **metadata))


def event_fields(number: int | str = 0, origin: str = "sdk", exception: Any = None, **metadata: str) -> dict[str, Any]:
    """Return a complete event."""
    return {
        "id": f"event-{number}",
        "start_time": 1.5,
        "resource": {"name": "db", "type": "sql", "operation": "SELECT", "metadata": metadata},
        "origin": origin,
        "duration": 0.25,
        "error_code": 0,
        "exception": exception,
    }


def exception_fields(message: str = "oops", traceback: str = "") -> dict[str, Any]:
    """Return a complete exception."""
    return {"type": "ValueError", "message": message, "traceback": traceback, "time": 1.0, "additional_data": {}}


def opened(runner: dict[str, Any] | None = None, **config: Any) -> Record:
    """Return an OPEN; `config` overrides CONFIG, `runner` is the trace's own."""
    payload = {"config": {**CONFIG, **config}, "platform": "python 3.11.7", "runner": runner, "opened_at": OPENED_AT}
    return record(Kind.OPEN, payload)


def own_runner(**metadata: str) -> dict[str, Any]:
    """Return the provisional runner of `trace()`."""
    return event_fields("runner", "runner", **metadata) | {"duration": 0}


def added(payload: bytes, trace_id: bytes = TRACE_ID) -> Record:
    """Return the EVENT of an event's JSON."""
    is_runner = orjson.loads(payload)["origin"] == "runner"
    return Record(Kind.EVENT, FROM_RUNNER if is_runner else 0, 0, trace_id, payload)


def label(key: str, value: Any) -> Record:
    return record(Kind.LABEL, [key, value])


def record(kind: Kind, value: Any, trace_id: bytes = TRACE_ID) -> Record:
    """Return a record of which the payload is JSON."""
    return Record(kind, 0, 0, trace_id, orjson.dumps(value))


def closed(
    duration_s: float = NOT_MEASURED, error_code: int = UNCHANGED, flags: int = 0, trace_id: bytes = TRACE_ID
) -> Record:
    return Record(Kind.CLOSE, flags, 1, trace_id, CLOSE_PAYLOAD.pack(duration_s, error_code))
