"""The words that both sides of the queue share: record kinds, wire order, limits, outcomes.

Nothing here does any work. The producer, the collector and the tests read the same constants.
"""

import math
import struct
from enum import IntEnum

from epsagon_fast.frozen import field, frozen
from epsagon_fast.hints import TYPE_CHECKING
from epsagon_fast.rows import NamedTuple

# An event's `start_time`, or an exception's `time`, is seconds since the epoch. An int as large as this, which is only
# recorded for a format that keeps types, is nanoseconds: those since March 1973.
NANOSECONDS_FROM = 10**17

# The order in which epsagon-go writes its protobuf messages (protocol.Event and its parts).
TRACE_FIELDS = ("app_name", "token", "events", "exceptions", "version", "platform")
EVENT_FIELDS = ("id", "start_time", "resource", "origin", "duration", "error_code", "exception")
# The last member of an event that has one: the span id of the event, or of the calling process's event, in which it was
# recorded. Where that is the trace's own runner, it is left out.
PARENT_ID = "parent_id"
RESOURCE_FIELDS = ("name", "type", "operation", "metadata")
EXCEPTION_FIELDS = ("type", "message", "traceback", "time", "additional_data")

HTTP_TRACE_ID_KEY = "http_trace_id"
# The runner's metadata keys for the caller's tracestate, for the reason why sampling kept the trace, and for how many
# traces it stands.
TRACESTATE_KEY = "tracestate"
SAMPLING_KEY = "sampling"
SAMPLING_WEIGHT_KEY = "sampling_weight"
LABELS_KEY = "labels"
STRONG_KEYS = frozenset(
    {
        HTTP_TRACE_ID_KEY,
        "request_trace_id",
        "aws.service",
        LABELS_KEY,
        "aws_account",
        "region",
        "log_group_name",
        "log_stream_name",
        "sequence_number",
        "item_hash",
    }
)
"""The keys of metadata that trimming keeps (epsagon-go's strongKeys)."""
IS_TRIMMED_KEY = "is_trimmed"
# The runner's metadata key for the seconds that its work may take. A process that dies later was killed for it.
TIME_LIMIT_KEY = "time_limit_s"
# The watcher of a limit (a celery worker) may have started its clock this much earlier than the trace.
TIME_LIMIT_SLACK_S = 0.25
RUNNER_ORIGIN = "runner"
# What a block or a traced function is, unless the application says otherwise.
FUNCTION_TYPE = "python-function"
INVOKE = "invoke"
ORIGIN = "python"
MASK = "****"
# How names of keys are compared: in any case and without regard to `-`, `_` and blanks, or as epsagon-go does.
LOOSE = "loose"
EXACT = "exact"

# UTF-8 bytes of a trace's JSON body (epsagon-go's DefaultMaxTraceSize and MaxTraceSize).
DEFAULT_MAX_TRACE_BYTES = 64 * 1024
MAX_TRACE_BYTES = 512 * 1024
# How much is recorded: only what is listed, all but values, values too.
STRICT = "strict"
STANDARD = "standard"
EVERYTHING = "everything"
# What gives way in a trace over its limit: the first events' metadata, or the longest values.
STRIP = "strip"
SHORTEN = "shorten"
# Bytes of label keys and values in a trace (epsagon-go's MaxLabelsSize). A number or a bool counts 64, as there.
MAX_LABELS_BYTES = 10 * 1024
LABEL_NUMBER_BYTES = 64


# Where OTLP over HTTP takes traces, if a URL does not say.
OTLP_TRACES_PATH = "/v1/traces"


class ErrorCode(IntEnum):
    """An event's `error_code` (epsagon-go's protocol.ErrorCode)."""

    OK = 0
    """Nothing failed."""
    ERROR = 1
    """The application said that it failed: `error`, `add_error`."""
    EXCEPTION = 2
    """An exception left the block."""
    TIMEOUT = 3
    """It was not ready in its time."""


class Kind(IntEnum):
    """What a record in the queue says. See docs/queue.md for each payload."""

    OPEN = 1
    EVENT = 2
    EXCEPTION = 3
    LABEL = 4
    RUNNER = 5
    ERROR = 6
    CLOSE = 7
    BYE = 8


# Flag of an EVENT record: the event's origin is "runner", so it gets the labels and the error (as in epsagon-go).
FROM_RUNNER = 1
# Flag of a CLOSE record: the process ended or gave up before the trace's own end.
UNFINISHED = 1

# A CLOSE's payload: the runner's duration in seconds and its error code. Either may say that the runner's own stays.
CLOSE_PAYLOAD = struct.Struct("<di")
NOT_MEASURED = math.nan
UNCHANGED = -1

TRACE_ID_BYTES = 16
NO_TRACE = bytes(TRACE_ID_BYTES)

# Why a process refused a record, a field of it (malformed) or a value in it (cut), or removed a dead process's ring
# that no collector had read (no_collector). The position in this tuple is the counter's slot in a ring's header:
# append only.
REFUSALS = (
    "queue_full",
    "too_large",
    "malformed",
    "no_trace",
    "misuse",
    "closed",
    "no_folder",
    "no_space",
    "cut",
    "no_collector",
    "before_send",
    "hook_failed",
)


if TYPE_CHECKING:
    from typing import ClassVar, NotRequired, TypedDict

    class WireConfig(TypedDict):
        """The config in an OPEN, in plain JSON values; fewer of them in a journal of an earlier version."""

        app_name: str
        token: str
        collector_url: str
        metadata_only: bool
        send_timeout_s: float
        ignored_keys: list[str]
        # In a config of an earlier version, which has neither: exact, and no key by default.
        masking: NotRequired[str]
        default_ignored_keys: NotRequired[bool]
        max_trace_size_bytes: int
        trimming: NotRequired[str]
        sampling: NotRequired[str]
        debug: NotRequired[bool]
        state_dir: NotRequired[str]
        proxy_url: NotRequired[str | None]
        ca_file: NotRequired[str | None]
        # A JSON object of HTTP headers, which are secret.
        headers: NotRequired[str]
        # For OTLP: PEM files with which this side says who it is, and what is known of the process.
        client_certificate: NotRequired[str]
        client_key: NotRequired[str]
        resource_attributes: NotRequired[dict[str, str | bool | int | float]]

else:
    # At run time it is a dict. To make the class, each member's type is looked at.
    WireConfig = dict


class Record(NamedTuple):
    """One record as the reader hands it over."""

    kind: int
    flags: int
    # The number of this CLOSE among the CLOSE records of its ring, from 1; 0 on every other kind.
    ordinal: int
    trace_id: bytes
    payload: bytes


@frozen
class Outcome:
    """What became of a closed trace.

    Outcomes are equal if their names are: `tracer.stop() == Outcome.DELIVERED`. `reason` is a short text or None.
    """

    name: str
    reason: str | None = field(default=None, compare=False)

    if TYPE_CHECKING:
        DELIVERED: ClassVar["Outcome"]
        """The backend has taken it."""
        STORED: ClassVar["Outcome"]
        """The backend does not take it yet. It is on disk and is tried again, so it may become DELIVERED."""
        REJECTED: ClassVar["Outcome"]
        """The backend has refused it, and the reason is the backend's."""
        DROPPED: ClassVar["Outcome"]
        """It was lost, and is counted under the reason."""
        PENDING: ClassVar["Outcome"]
        """Not known yet."""
        DISABLED: ClassVar["Outcome"]
        """Tracing is off, so nothing was recorded."""
        SAMPLED: ClassVar["Outcome"]
        """The sampling left it out, which is no loss."""

    def because(self, reason: str) -> "Outcome":
        """Return this outcome with a reason."""
        return Outcome(self.name, reason)

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


# The position in this tuple is an outcome's number in a ring's settlements: append only.
OUTCOMES = tuple(
    Outcome(name) for name in ("PENDING", "DELIVERED", "STORED", "REJECTED", "DROPPED", "DISABLED", "SAMPLED")
)
for _outcome in OUTCOMES:
    setattr(Outcome, _outcome.name, _outcome)
