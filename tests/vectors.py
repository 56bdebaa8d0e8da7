"""The golden traces: cases that epsagon-go was run with, and what it sent. For every test that compares with them.

Bodies are compared as parsed JSON: the two encoders write floats and `<>&` differently. `version` and `platform` are
each implementation's own, and so are the time and stack of an error.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"

# Cases of which epsagon-go's answer is not ours, with the row of the parity table that says why.
DIFFERENT = {
    "trim_first_3_of_8": "marker-counted",
    "trim_down_to_last_event": "marker-counted",
    "is_trimmed_goes_over_limit": "marker-counted",
    "is_trimmed_present_trimmed": "marker-counted",
    "strip_one_byte_over_goes_on": "marker-counted",
    "strong_keys_all": "marker-counted",
    "all_stripped_still_too_big": "too-big",
    "no_runner_unstrippable": "too-big",
    "no_runner_trimmed_panics": "no-panic",
    "runner_metadata_null_panics": "no-panic",
    "resource_null_panics": "no-panic",
    "floats_common": "json-forms",
    "ignored_keys_arrays": "ints-exact",
    "empty_token": "disabled-free",
}
# Stands for any id where a trace is compared with another one of ours.
GIVEN_ID = "given"
GO_VERSION = "1.39.0"
GO_PLATFORM = "go go1.19.8"


@dataclass(frozen=True)
class Case:
    """One trace: what was handed to epsagon-go, in Python's values, and what came out.

    Call order: events, exceptions, labels, error, stop. `labels` hold values that the tracer must refuse, too.
    """

    name: str
    token: str
    application_name: str
    debug: bool
    ignored_keys: tuple[str, ...]
    # None: the default.
    limit_bytes: int | None
    events: list[dict[str, Any]]
    exceptions: list[dict[str, Any]]
    labels: list[tuple[str, Any]]
    # An error's type and value.
    error: tuple[str, Any] | None
    # None: it sent nothing.
    expected_body: str | None

    @property
    def row(self) -> str | None:
        """The row of the parity table, if we differ."""
        return DIFFERENT.get(self.name)

    def __str__(self) -> str:
        return self.name


def traces() -> list[Case]:
    """Return all cases of trace_vectors.jsonl."""
    return [_case(vector) for vector in vectors("trace_vectors.jsonl")]


def vectors(name: str) -> list[Any]:
    """Return a golden file's objects. Not splitlines: bodies hold U+0085, which that would split at."""
    lines = (GOLDEN / name).read_bytes().decode().split("\n")
    return [json.loads(line) for line in lines if line]


def comparable(body: str | bytes) -> dict[str, Any]:
    """Return a body as a value that is equal for both implementations if they mean the same."""
    trace: dict[str, Any] = json.loads(body)
    del trace["version"], trace["platform"]
    for event in trace["events"]:
        metadata = event["resource"]["metadata"]
        event["resource"]["metadata"] = {key: _decoded(value) for key, value in metadata.items()}
    return trace


def without_stacks(trace: dict[str, Any]) -> dict[str, Any]:
    """Blank the stack and the time of the runner's error, as they are in the expected body of `add_error`."""
    for event in trace["events"]:
        if event["origin"] == "runner" and event["exception"]:
            event["exception"].update(traceback="", time=0)
    return trace


def without_given_ids(arrived: dict[str, Any], expected: dict[str, Any]) -> None:
    """Take the id from each event for which epsagon-go sent none: row event-id."""
    for ours, theirs in zip(arrived["events"], expected["events"], strict=True):
        if theirs["id"] in ("", GIVEN_ID):
            assert ours["id"], "an event without an id gets one"
            ours["id"] = theirs["id"]


def go_bytes(body: str | bytes) -> int:
    """Return how long a body of ours would be if epsagon-go had written it.

    Only for numbers that both write alike, which those of all cases with a limit are.
    """
    trace = {**json.loads(body), "version": GO_VERSION, "platform": GO_PLATFORM}
    text = json.dumps(trace, ensure_ascii=False, separators=(",", ":"))
    # Go escapes these five.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return len(text.encode())


def _case(vector: dict[str, Any]) -> Case:
    case, expected = vector["case"], vector["expected"]
    limit = case["env"].get("EPSAGON_MAX_TRACE_SIZE")
    return Case(
        name=case["name"],
        token=case["config"]["token"],
        application_name=case["config"]["application_name"],
        debug=case["config"].get("debug", False),
        ignored_keys=tuple(case["config"].get("ignored_keys") or ()),
        limit_bytes=None if limit is None else int(limit),
        events=[_with_floats(event) for event in case["events"]],
        exceptions=[_with_floats(exception) for exception in case["exceptions"]],
        labels=[(key, _python_value(value)) for key, value in case["labels"]],
        error=None if case["error"] is None else (case["error"][0], _python_value(case["error"][1])),
        expected_body=expected["body"] if expected["sent"] else None,
    )


def _with_floats(fields: dict[str, Any]) -> dict[str, Any]:
    times = {name: float(value) for name, value in fields.items() if value in ("NaN", "Infinity", "-Infinity")}
    return {**fields, **times}


def _python_value(value: Any) -> Any:
    if isinstance(value, dict) and "$float" in value:
        return float(value["$float"])
    if isinstance(value, dict) and "$go_error" in value:
        return Exception(value["$go_error"])
    return value


def _decoded(value: str) -> Any:
    # Labels and masked values are JSON inside a string. A plain string stays what it is.
    if not value.startswith(("{", "[")):
        return value
    try:
        return {"JSON": json.loads(value)}
    except ValueError:
        return value
