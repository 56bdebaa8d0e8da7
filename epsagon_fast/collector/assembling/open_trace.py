"""One trace from its OPEN on: what the opener's config says, the runner, and what has come so far."""

import math
from collections import Counter

import orjson

from epsagon_fast.collector.assembling.accounts import TRACE_BYTES, Account
from epsagon_fast.collector.assembling.openings import opening_of
from epsagon_fast.collector.assembling.payloads import BROKEN, as_object, decoded_label, label_bytes, object_of
from epsagon_fast.collector.assembling.runners import Runner, with_metadata
from epsagon_fast.collector.assembling.shortening import ShorteningStream
from epsagon_fast.collector.assembling.stream import ENTRY_BYTES, Stream
from epsagon_fast.collector.formats import Envelope
from epsagon_fast.hints import Any
from epsagon_fast.protocol import (
    CLOSE_PAYLOAD,
    FROM_RUNNER,
    MAX_LABELS_BYTES,
    MAX_TRACE_BYTES,
    TIME_LIMIT_KEY,
    TIME_LIMIT_SLACK_S,
    UNCHANGED,
    UNFINISHED,
    ErrorCode,
    WireConfig,
)

# The bound of an open trace's runner. It may shrink again, so it is not trimmed before the end.
MAX_RUNNER_BYTES = MAX_TRACE_BYTES

UNFINISHED_METADATA = {"unfinished": "true"}

# What came before the runner of a trace that was opened with one. One for all: nothing is ever merged into it.
NO_NEWS: Runner = {}

# The fields of a snapshot, beside the OPEN's config and the stream. JSON keeps their values exactly.
SAVED = (
    "opened_at",
    "runner",
    "has_own_runner",
    "runner_place",
    "labels",
    "error",
    "_runner_news",
    "_runner_bytes",
    "_labels_bytes",
    "_error_bytes",
)


class OpenTrace:
    """A trace under way, made from an OPEN's payload. Every method that takes a payload may raise BROKEN.

    trace_id, ring_id: of the OPEN; only that ring's process closes the trace. `counters` takes what is dropped and why.
    """

    __slots__ = (
        "account",
        "close_ordinal",
        "counters",
        "dropped_records",
        "is_closed",
        "ring_id",
        "stream",
        "terms",
        "trace_id",
        *SAVED,
    )

    def __init__(self, trace_id: bytes, ring_id: bytes, opened: bytes, counters: Counter[str]) -> None:
        self.terms, runner, opened_at = opening_of(opened)
        self.trace_id = trace_id
        self.ring_id = ring_id
        self.counters = counters
        self.opened_at = float(opened_at)
        stream = ShorteningStream if self.terms.shortens else Stream
        self.stream = stream(self.terms.envelope_bytes, self.terms.limit_bytes, counters)
        # Its own runner stands last. Without one, an event may turn out to be the runner, and keeps its place.
        self.runner: Runner | None = None if runner is None else as_object(runner, "runner")
        self.has_own_runner = self.runner is not None
        self.runner_place: int | None = None
        self.labels: dict[str, str | int | float | bool] = {}
        self.error: Runner | None = None
        # The opener's account in the assembly, which counts what this trace holds.
        self.account: Account
        # Its process's earlier losses, as JSON text. The body contains them if there is room.
        self.dropped_records: str | None = None
        # The CLOSE's number among its ring's; 0 if the process left or died instead.
        self.close_ordinal = 0
        self.is_closed = False
        # Merged RUNNER records that came before the runner.
        self._runner_news: Runner = {} if self.runner is None else NO_NEWS
        self._runner_bytes = len(opened)
        self._labels_bytes = 0
        self._error_bytes = 0

    @property
    def config(self) -> WireConfig:
        """The opener's config, as its OPEN brought it."""
        return self.terms.config

    @property
    def envelope(self) -> Envelope:
        """The part of the body around the trace's events and exceptions."""
        return self.terms.envelope

    @property
    def limit_bytes(self) -> int:
        """The most that the trace's body may have."""
        return self.terms.limit_bytes

    @property
    def held_bytes(self) -> int:
        """Memory that this trace holds, nearly."""
        stream = self.stream
        own_bytes = TRACE_BYTES + self._runner_bytes + self._labels_bytes + self._error_bytes
        return own_bytes + stream.floor_bytes + ENTRY_BYTES * (len(stream.events) + len(stream.exceptions))

    @property
    def has_failed(self) -> bool:
        """Whether the runner has an error code or an exception. What the trace only tells of others does not count."""
        runner = self.runner or {}
        return self.error is not None or bool(runner.get("error_code") or runner.get("exception"))

    def add_event(self, event: bytes, flags: int = 0) -> None:
        """Take in an event's JSON. The first one of the origin "runner" is the runner of a trace that has none."""
        if not event:
            raise ValueError("an event without a byte")
        if flags & FROM_RUNNER and self.runner is None:
            self._set_runner(event)
        else:
            self.stream.add_event(event)

    def add_exception(self, exception: bytes) -> None:
        """Take in the JSON of one of the trace's exceptions."""
        if not exception:
            raise ValueError("an exception without a byte")
        self.stream.add_exception(exception)

    def add_label(self, payload: bytes) -> bool:
        """Take in `[key, value]`; False: it is over the bound. An overwritten label gives its size back."""
        key, value = decoded_label(payload)
        size = label_bytes(key, value)
        if key in self.labels:
            size -= label_bytes(key, self.labels[key])
        if self._labels_bytes + size > MAX_LABELS_BYTES:
            return False
        self._labels_bytes += size
        self.labels[key] = value
        return True

    def merge_runner(self, news: bytes) -> bool:
        """Merge a partial event into the runner, object by object; False: there is no room for it."""
        runner = self._runner_news if self.runner is None else self.runner
        decoded = object_of(news)
        if self._runner_bytes + len(news) > MAX_RUNNER_BYTES:
            # The sum is too high if merged values were overwritten since: measure.
            self._runner_bytes = len(orjson.dumps(runner))
            if self._runner_bytes + len(news) > MAX_RUNNER_BYTES:
                return False
        self._runner_bytes += len(news)
        _merge(runner, decoded)
        return True

    def set_error(self, error: bytes) -> None:
        """Take in the runner's error; the last one counts."""
        self.error = object_of(error)
        self._error_bytes = len(error)

    def close(self, payload: bytes, flags: int, ordinal: int) -> None:
        """Act on the opener's CLOSE."""
        # First: one with a broken payload closes too, and the next one closes nothing.
        self.is_closed = True
        self.close_ordinal = ordinal
        duration_s, error_code = CLOSE_PAYLOAD.unpack(payload)
        if self.runner is None or not self.has_own_runner:
            return
        if not math.isnan(duration_s):
            self.runner["duration"] = duration_s
        if error_code != UNCHANGED:
            self._give_way()
            self.runner["error_code"] = error_code
        if flags & UNFINISHED:
            self._add_metadata(UNFINISHED_METADATA)

    def close_unfinished(self, now: float) -> None:
        """Close for a process that left by itself with the trace open: no error."""
        self._end(now)
        self._add_metadata(UNFINISHED_METADATA)

    def close_died(self, now: float, pid: int | None) -> None:
        """Close for a process that died with the trace open."""
        self._end(now)
        if self.runner is None:
            return
        self._give_way()
        self.runner["error_code"] = int(ErrorCode.TIMEOUT if self._is_past_its_limit(now) else ErrorCode.EXCEPTION)
        self.runner["exception"] = {
            "type": "ProcessDied",
            "message": f"{f'process {pid}' if pid else 'the process'} died before it closed this trace",
            "traceback": "",
            "time": now,
            "additional_data": {},
        }

    def _give_way(self) -> None:
        """Move an error that was set to the exceptions, because the end of the block or process says more."""
        if self.error is not None:
            self.stream.add_exception(orjson.dumps(self.error))
            self.error = None

    def _is_past_its_limit(self, now: float) -> bool:
        try:
            limit_s = float(self.runner["resource"]["metadata"][TIME_LIMIT_KEY]) if self.runner else math.inf
        except BROKEN:
            return False
        return now - self.opened_at > limit_s - TIME_LIMIT_SLACK_S

    def _end(self, now: float) -> None:
        self.is_closed = True
        if self.runner is not None and self.has_own_runner:
            # The wall clock may have been set back.
            self.runner["duration"] = max(0.0, now - self.opened_at)

    def _set_runner(self, event: bytes) -> None:
        runner = object_of(event)
        _merge(runner, self._runner_news)
        self.runner = runner
        self.runner_place = self.stream.event_count
        self._runner_bytes += len(event)

    def _add_metadata(self, metadata: dict[str, str]) -> None:
        if self.runner is not None:
            self.runner = with_metadata(self.runner, metadata)


def _merge(event: dict[str, Any], news: dict[str, Any]) -> None:
    for key, value in news.items():
        known = event.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        else:
            event[key] = value
