"""Compares what the workers noted with what the backend has."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.store import Store
from epsagon_fast.protocol import DEFAULT_MAX_TRACE_BYTES

# What fits a screen.
_FEW_EVENTS = 25
_MAX_ROWS = 1000
LIMIT = f"""

A trace has a limit, {DEFAULT_MAX_TRACE_BYTES:,} bytes unless EPSAGON_MAX_TRACE_SIZE says otherwise. A larger one is
trimmed: metadata of its events go, here the sources of files. What does not fit even then is left out, the last events
first, and counted in the trace. Missing would be what is neither there nor counted."""


@dataclass
class NotedTrace:
    """One trace as its worker noted it."""

    package: str
    events: set[str] = field(default_factory=set)
    refused: int = 0


@dataclass
class WorkerNotes:
    """All workers' notes."""

    traces: dict[str, NotedTrace] = field(default_factory=dict)
    add_event_ns: int = 0
    dumps_ns: int = 0

    def read(self, path: str) -> None:
        """Add one worker's notes. A last line that its death cut short is ignored."""
        if not os.path.exists(path):
            return
        costs = Counter[str]()
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    self._take(json.loads(line), costs)
        self.add_event_ns += costs["add_event_ns"]
        self.dumps_ns += costs["dumps_ns"]

    def _take(self, note: dict[str, Any], costs: "Counter[str]") -> None:
        if "opened" in note:
            self.traces[note["opened"]] = NotedTrace(note["package"])
        elif "event" in note:
            trace = self.traces[note["trace"]]
            trace.refused += note["refused"]
            if not note["refused"]:
                trace.events.add(note["event"])
        else:
            costs.update(add_event_ns=note["add_event_ns"] - costs["add_event_ns"])
            costs.update(dumps_ns=note["dumps_ns"] - costs["dumps_ns"])


@dataclass
class Comparison:
    """The outcome of everything that was pushed."""

    opened: int
    pushed: int
    refused: int
    duplicates: int
    arrived: int = 0
    delivered: int = 0
    trimmed: int = 0
    died: int = 0
    exceptions: int = 0
    missing: list[str] = field(default_factory=list)
    too_big: Counter[str] = field(default_factory=Counter)
    bytes_after: int = 0


def compare(notes: WorkerNotes, store: Store) -> Comparison:
    """Return the result. An event is missing if it was pushed and neither arrived nor was dropped as too big."""
    result = Comparison(
        opened=len(notes.traces),
        pushed=sum(len(trace.events) for trace in notes.traces.values()),
        refused=sum(trace.refused for trace in notes.traces.values()),
        duplicates=store.counts()["duplicates"],
    )
    for trace_id, noted in notes.traces.items():
        body = store.body(trace_id)
        if body is None:
            result.missing.append(f"the whole trace of {noted.package}")
        else:
            _add(result, noted, json.loads(body))
            result.bytes_after += len(body)
    return result


def _add(result: Comparison, noted: NotedTrace, trace: dict[str, Any]) -> None:
    runner = next(event for event in trace["events"] if event["origin"] == "runner")
    metadata = runner["resource"]["metadata"]
    arrived = noted.events & {event["id"] for event in trace["events"]}
    dropped = int(metadata.get("dropped_events", 0))
    result.delivered += 1
    result.arrived += len(arrived)
    result.trimmed += metadata.get("is_trimmed") == "true"
    result.exceptions += len(trace["exceptions"])
    result.died += (runner["exception"] or {}).get("type") == "ProcessDied"
    if dropped:
        result.too_big[noted.package] = dropped
    lost = len(noted.events) - len(arrived) - dropped
    if lost > 0:
        result.missing.append(f"{lost} events of {noted.package}")


def table(result: Comparison, notes: WorkerNotes, bytes_before: int) -> str:
    """Return the table that the scene prints at its end."""
    too_big = ", ".join(f"{name} ({count})" for name, count in result.too_big.most_common())
    ratio = notes.add_event_ns / notes.dumps_ns if notes.dumps_ns else 0.0
    per_event = max(1, result.pushed)
    rows = {
        "traces opened": result.opened,
        "traces delivered": result.delivered,
        "  of them trimmed": result.trimmed,
        "  closed for a dead worker": result.died,
        "events pushed": result.pushed,
        "events arrived": result.arrived,
        "events left out": f"{sum(result.too_big.values())}" + (f", of {too_big}" if too_big else ""),
        "refused, the queue was full": result.refused,
        "syntax errors traced": result.exceptions,
        "duplicates": result.duplicates,
        "bytes before trimming": f"{bytes_before:,}",
        "bytes after trimming": f"{result.bytes_after:,}",
        "add_event": f"{notes.add_event_ns / per_event / 1000:.1f} us an event, {ratio:.2f} x orjson.dumps of it",
        "missing": "; ".join(result.missing) or "0",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()) + LIMIT


def favourite(store: Store) -> str | None:
    """Return the id of the trace that says most in few lines: of the worker that died, else one with an error."""
    rows = store.page(_MAX_ROWS)
    fit = [row for row in rows if row["event_count"] <= _FEW_EVENTS] or rows
    ranked = {summary.DIED: 0, summary.TIMEOUT: 1, summary.ERROR: 1, summary.OK: 2}
    best = min(fit, key=lambda row: (ranked[row["status"]], -row["event_count"]), default=None)
    return None if best is None else str(best["trace_id"])
