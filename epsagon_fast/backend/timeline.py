"""All traces of one request on one time line: a tree by parent ids, with self times and the critical path.

Times stay as the processes told them. Where a clock differs from its caller's the difference is shown, not corrected.
Nothing here recurses: a trace may nest as deep as it has events.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

import epsagon_fast.backend.summary as summary
from epsagon_fast.protocol import RUNNER_ORIGIN

# Clocks of one machine differ by less, and a parent's start is noted a little after it began.
SKEW_S = 0.001


@dataclass
class TimedEvent:
    """One event in the tree. Times are Unix seconds, durations seconds."""

    # Its trace's id and its place in the trace: an address that stays.
    key: str
    # Its trace's place in Timeline.traces.
    trace: int
    event: Mapping[str, Any]
    start: float
    duration_s: float
    is_runner: bool
    parent: int | None = None
    children: list[int] = field(default_factory=list)
    depth: int = 0
    # Of its duration, without what its children took.
    self_s: float = 0.0
    # (start, end) of what of it the whole request waited for.
    critical: list[tuple[float, float]] = field(default_factory=list)
    # By how much it began before the one in another process that caused it.
    skew_s: float = 0.0
    # The end of all that it caused.
    last_end: float = 0.0

    @property
    def end(self) -> float:
        """When it ended."""
        return self.start + self.duration_s

    @property
    def title(self) -> str:
        """How people call it."""
        return summary.name_of(self.event["resource"], with_host=not self.is_runner)

    @property
    def kind(self) -> str:
        """Its type and operation."""
        resource = self.event["resource"]
        return " ".join(part for part in (resource["type"], resource["operation"]) if part)

    @property
    def status(self) -> str:
        """How it ended, one of summary.STATUSES."""
        return summary.status_of(self.event)


@dataclass
class Timeline:
    """A request: its traces, each (id, trace), and their events in the order of the tree."""

    traces: Sequence[tuple[str, Mapping[str, Any]]]
    nodes: list[TimedEvent]
    # Places in `nodes`.
    roots: list[int]
    start: float
    end: float

    @property
    def duration_s(self) -> float:
        """From the first start to the last end."""
        return self.end - self.start

    def part(self, seconds: float) -> float:
        """Return which part of the whole a time is, 0 to 1."""
        return seconds / self.duration_s if self.duration_s else 0.0

    def find(self, key: str) -> int | None:
        """Return the place of a node by its key, or of the runner of a trace by its id."""
        own = (place for place, node in enumerate(self.nodes) if node.key == key)
        of_trace = (place for place, node in enumerate(self.nodes) if node.is_runner and node.key.startswith(key + ":"))
        return next(own, next(of_trace, None))

    def subtree(self, place: int | None = None) -> list[TimedEvent]:
        """Return a node and all below it in the order of the tree; None: all nodes."""
        if place is None:
            return self.nodes
        end = place + 1
        while end < len(self.nodes) and self.nodes[end].depth > self.nodes[place].depth:
            end += 1
        return self.nodes[place:end]


def build(traces: Iterable[tuple[str, bytes]]) -> Timeline:
    """Return the time line of a request's traces: (id, body) of each, as they were received."""
    # The parser that let them in: another has other limits.
    read = [(trace_id, orjson.loads(body)) for trace_id, body in traces]
    nodes = _nodes(read)
    _find_parents(nodes)
    nodes, roots = _in_order(nodes)
    start = min((node.start for node in nodes), default=0.0)
    for node in reversed(nodes):
        # Children stand behind their parents, so they have theirs already.
        node.last_end = max([node.end, *(nodes[child].last_end for child in node.children)])
        node.self_s = _self_time(node, nodes)
    end = max((node.last_end for node in nodes), default=0.0)
    _mark_critical(nodes, roots, start, end)
    return Timeline(read, nodes, roots, start, end)


def _nodes(traces: Sequence[tuple[str, Mapping[str, Any]]]) -> list[TimedEvent]:
    nodes = []
    firsts = [summary.first_of(trace["events"]) for _, trace in traces]
    # Where nothing in a trace says when it was, it stands at the request's begin.
    begin = min((first for first in firsts if first is not None), default=0.0)
    for number, (trace_id, trace) in enumerate(traces):
        events, first = trace["events"], firsts[number]
        runner = next((place for place, event in enumerate(events) if event["origin"] == RUNNER_ORIGIN), None)
        for place, event in enumerate(events):
            start = summary.start_of(event)
            duration_s = max(0.0, summary.seconds(event["duration"]) or 0.0)
            start = (begin if first is None else first) if start is None else start
            nodes.append(TimedEvent(f"{trace_id}:{place}", number, event, start, duration_s, place == runner))
    return nodes


def _find_parents(nodes: list[TimedEvent]) -> None:
    within: dict[tuple[int, str], int] = {}
    anywhere: dict[str, int] = {}
    runners: dict[int, int] = {}
    for place, node in enumerate(nodes):
        within.setdefault((node.trace, node.event["id"]), place)
        anywhere.setdefault(node.event["id"], place)
        if node.is_runner:
            runners[node.trace] = place
    for place, node in enumerate(nodes):
        wanted = node.event.get("parent_id")
        wanted = wanted if isinstance(wanted, str) else ""
        found = within.get((node.trace, wanted), anywhere.get(wanted))
        if found is None and not node.is_runner:
            found = runners.get(node.trace)
        node.parent = None if found == place else found
    _cut_circles(nodes)


def _cut_circles(nodes: list[TimedEvent]) -> None:
    # A trace may say anything, also that two events caused each other.
    seen = [0] * len(nodes)
    for walk, first in enumerate(range(len(nodes)), 1):
        place: int | None = first
        while place is not None and not seen[place]:
            seen[place] = walk
            parent = nodes[place].parent
            if parent is not None and seen[parent] == walk:
                nodes[place].parent = parent = None
            place = parent


def _in_order(nodes: list[TimedEvent]) -> tuple[list[TimedEvent], list[int]]:
    """Return the nodes in the order of the tree, with their new places as parents and children, and the roots."""
    children: list[list[int]] = [[] for _ in nodes]
    roots: list[int] = []
    for place, node in enumerate(nodes):
        (roots if node.parent is None else children[node.parent]).append(place)

    def by_start(place: int) -> tuple[float, int]:
        return nodes[place].start, place

    ordered: list[TimedEvent] = []
    open_nodes = [(place, 0, -1) for place in sorted(roots, key=by_start, reverse=True)]
    while open_nodes:
        place, depth, parent = open_nodes.pop()
        node = nodes[place]
        node.depth, node.parent = depth, None if parent < 0 else parent
        if parent >= 0:
            above = ordered[parent]
            above.children.append(len(ordered))
            if above.trace != node.trace and above.start - node.start > SKEW_S:
                node.skew_s = above.start - node.start
        following = sorted(children[place], key=by_start, reverse=True)
        open_nodes += [(child, depth + 1, len(ordered)) for child in following]
        ordered.append(node)
    return ordered, [place for place, node in enumerate(ordered) if node.parent is None]


def _self_time(node: TimedEvent, nodes: list[TimedEvent]) -> float:
    covered, reached = 0.0, node.start
    # In the order of their starts.
    for child in (nodes[place] for place in node.children):
        start, end = max(child.start, reached), min(child.end, node.end)
        if end > start:
            covered += end - start
            reached = end
    return max(0.0, node.duration_s - covered)


def _mark_critical(nodes: list[TimedEvent], roots: list[int], start: float, end: float) -> None:
    """Mark what the request waited for: from its end back, always what ended last."""
    open_windows: list[tuple[int | None, float, float]] = [(None, start, end)]
    while open_windows:
        place, low, high = open_windows.pop()
        node = None if place is None else nodes[place]
        cursor = high
        for child in sorted(node.children if node else roots, key=lambda each: nodes[each].last_end, reverse=True):
            if cursor <= low:
                break
            begun, ended = nodes[child].start, min(nodes[child].last_end, cursor)
            if begun >= cursor or ended <= low:
                continue
            _mark(node, ended, cursor)
            open_windows.append((child, max(begun, low), ended))
            cursor = max(begun, low)
        _mark(node, low, cursor)


def _mark(node: TimedEvent | None, start: float, end: float) -> None:
    if node is not None and min(end, node.end) > max(start, node.start):
        node.critical.append((max(start, node.start), min(end, node.end)))
