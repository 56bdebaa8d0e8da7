"""A request as text: an indented tree with bars, for the terminal and for copying."""

import json
import time
from collections.abc import Iterator
from typing import Any

import epsagon_fast.backend.summary as summary
from epsagon_fast.amounts import in_three_digits
from epsagon_fast.backend.timeline import TimedEvent, Timeline
from epsagon_fast.foreign import escaped

_BAR_CHARACTERS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NAME_CHARACTERS = 80
_MESSAGE_CHARACTERS = 160
_MAX_DEPTH = 40
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_COLOURS = {summary.ERROR: "31", summary.DIED: "31", summary.TIMEOUT: "33"}


def text(timeline: Timeline, place: int | None = None, *, colours: bool = False, bars: bool = True) -> str:
    """Return a request, or one event with all below it, a line for each event; no character that a terminal obeys
    but for colours, if they are wanted."""
    nodes = timeline.subtree(place)
    top = nodes[0].depth if place is not None and nodes else 0
    names = [f"{'  ' * min(node.depth - top, _MAX_DEPTH)}{cut(node.title, _NAME_CHARACTERS)}" for node in nodes]
    width = max(map(len, names), default=0)
    lines = [
        _line(timeline, node, name.ljust(width), colours=colours, bars=bars)
        for node, name in zip(nodes, names, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _line(timeline: Timeline, node: TimedEvent, name: str, *, colours: bool, bars: bool) -> str:
    parts = [painted(name, _COLOURS.get(node.status, "") if colours else "")]
    if bars:
        drawn = drawing(timeline.part(node.start - timeline.start), timeline.part(node.duration_s))
        parts.append(painted(drawn, _COLOURS.get(node.status, "34") if colours else ""))
    parts.append(f"{duration(node.duration_s):>8}")
    parts.append(painted(cut(node.kind, _NAME_CHARACTERS), "2" if colours else ""))
    if node.skew_s:
        parts.append(f"(its clock: {duration(node.skew_s)} before its caller's)")
    if failure := said_failure(node):
        parts.append(painted(failure, _COLOURS[summary.ERROR] if colours else ""))
    return "  ".join(parts).rstrip()


def said_failure(node: TimedEvent) -> str:
    """Return what failed in a node as a line, "" if nothing."""
    exception = node.event["exception"]
    if exception:
        return cut(f"{exception['type']}: {exception['message']}", _MESSAGE_CHARACTERS)
    return "" if node.status == summary.OK else f"error code {node.event['error_code']}"


def drawing(start: float, length: float, characters: int = _BAR_CHARACTERS) -> str:
    """Return a bar of block characters between two others; start and length are parts of the whole, 0 to 1."""
    first = min(round(start * characters), characters - 1)
    eighths = max(1, round(min(length, 1 - start) * characters * 8))
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return "▕" + (" " * first + drawn)[:characters].ljust(characters) + "▏"


def painted(said: str, colour: str) -> str:
    """Return a text in a terminal's colour; "" for none."""
    return f"\x1b[{colour}m{said}\x1b[0m" if colour else said


def duration(value_s: float | None) -> str:
    """Return a duration with three digits and a unit: `1.23 s`, `312 ms`, `45 µs`."""
    if value_s is None:
        return "–"
    if value_s >= 60:
        minutes, rest_s = divmod(round(value_s), 60)
        return f"{minutes} min {rest_s} s"
    size, unit = next(((size, unit) for size, unit in _UNITS if value_s >= size), _UNITS[-1])
    return f"{in_three_digits(value_s / size)} {unit}"


def moment(value: float | None) -> str:
    """Return a time of this machine's time zone, with its date unless it is today."""
    if value is None:
        return "–"
    at = time.localtime(value)
    day = "" if at[:3] == time.localtime()[:3] else time.strftime("%Y-%m-%d ", at)
    return day + time.strftime("%H:%M:%S", at) + f".{int(value % 1 * 1000):03}"


def cut(said: object, characters: int) -> str:
    """Return a text as one line: what is not printable as in repr, too long ones with dots."""
    whole = str(said)
    return escaped(whole[:characters]) + ("…" if len(whole) > characters else "")


def records(timeline: Timeline, place: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events as they came, in the order of the tree, each with its trace's id and its depth."""
    nodes = timeline.subtree(place)
    for node in nodes:
        yield {"trace_id": timeline.traces[node.trace][0], "depth": node.depth - nodes[0].depth, **node.event}


def as_json(timeline: Timeline, place: int | None = None) -> str:
    """Return the events of `records` as JSON in ASCII, to be read by people too."""
    return json.dumps(list(records(timeline, place)), indent=2) + "\n"
