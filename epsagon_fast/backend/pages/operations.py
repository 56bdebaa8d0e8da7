"""How often, how long and how well: the traces of a span of time, by their names."""

import math
import time
from collections import defaultdict
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.api import query
from epsagon_fast.backend.filters import Filter, moment_of, parse
from epsagon_fast.backend.outline import duration, moment
from epsagon_fast.backend.pages.rendering import page, segment, url
from epsagon_fast.backend.store import Measured, Store

RANGES = ("15m", "1h", "6h", "24h", "7d")
DEFAULT_RANGE = "1h"
# The newest of a longer span stand for it, which the page says.
MAX_TRACES = 50_000
MAX_OPERATIONS = 200
# Of a chart: the failed and the slowest first, for those are looked for.
MAX_DOTS = 200
# A chart's drawing.
WIDTH, HEIGHT, _RADIUS = 600, 44, 3.5


class Dot(NamedTuple):
    """One trace in a chart."""

    x: float
    y: float
    status: str
    href: str
    said: str


class Operation(NamedTuple):
    """What one name's traces have in common. Durations are seconds."""

    name: str
    requests: int
    errors: int
    p50_s: float
    p95_s: float
    p99_s: float
    dots: list[Dot]
    # The list of its traces, and of those that failed.
    href: str
    failed_href: str


class Operations:
    """The page of one store's operations."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def show(self, request: Request) -> Response:
        """Answer `GET /operations`; it takes the list's filters."""
        wanted, _ = query(request)
        given = wanted.given
        if not any(name in ("since", "until") for name, _ in given):
            wanted = parse((*given, ("since", DEFAULT_RANGE)))
        return await run_in_threadpool(self._page, wanted, given)

    def _page(self, wanted: Filter, given: tuple[tuple[str, str], ...]) -> Response:
        traces = self._store.measures(MAX_TRACES, wanted)
        chosen = dict(wanted.given)
        others = [(name, value) for name, value in given if name not in ("since", "until")]
        operations = summarize(traces, _span(traces, wanted), [*others, *_times(wanted)])
        return page(
            "operations.html",
            operations=operations[:MAX_OPERATIONS],
            count=len(operations),
            traces=len(traces),
            is_cut=len(traces) == MAX_TRACES,
            ranges=[(each, url("/operations", *others, ("since", each))) for each in RANGES],
            chosen=chosen.get("since"),
            filters=[(name, value) for name, value in wanted.given if name != "since"],
            width=WIDTH,
            height=HEIGHT,
            here="operations",
        )


def _times(wanted: Filter) -> list[tuple[str, str]]:
    return [(name, value) for name, value in wanted.given if name in ("since", "until")]


def _span(traces: list[Measured], wanted: Filter) -> tuple[float, float]:
    """Return the start and the end of a chart."""
    chosen, now = dict(wanted.given), time.time()
    ends = [trace.started_at for trace in traces]
    start = moment_of("since", chosen["since"], now) if "since" in chosen else min(ends, default=now)
    return start, moment_of("until", chosen["until"], now) if "until" in chosen else max([now, *ends])


def summarize(traces: list[Measured], span: tuple[float, float], others: list[tuple[str, Any]]) -> list[Operation]:
    """Return the operations of traces, those that took the most time together first.

    span: the chart's start and end, Unix seconds. others: the filters that a link to the list keeps.
    """
    by_name: defaultdict[str, list[Measured]] = defaultdict(list)
    for trace in traces:
        by_name[trace.name].append(trace)
    found = sorted(by_name.items(), key=lambda item: -sum(trace.duration_s for trace in item[1]))
    return [_operation(name, members, span, others) for name, members in found]


def _operation(
    name: str, traces: list[Measured], span: tuple[float, float], others: list[tuple[str, Any]]
) -> Operation:
    durations = sorted(trace.duration_s for trace in traces)
    here = [*(pair for pair in others if pair[0] not in ("name", "status")), ("name", name)]
    return Operation(
        name=name,
        requests=len(traces),
        errors=sum(trace.status != summary.OK for trace in traces),
        p50_s=percentile(durations, 0.50),
        p95_s=percentile(durations, 0.95),
        p99_s=percentile(durations, 0.99),
        dots=_dots(traces, durations[-1], span),
        href=url("/", *here),
        failed_href=url("/", *here, ("status", summary.FAILED)),
    )


def percentile(durations: list[float], part: float) -> float:
    """Return the duration that this part of sorted ones does not exceed: one that was measured, not between two."""
    return durations[max(0, math.ceil(part * len(durations)) - 1)]


def _dots(traces: list[Measured], longest_s: float, span: tuple[float, float]) -> list[Dot]:
    start, end = span
    shown = sorted(traces, key=lambda trace: (trace.status == summary.OK, -trace.duration_s))[:MAX_DOTS]
    dots = []
    for trace in sorted(shown, key=lambda trace: trace.started_at):
        across = (trace.started_at - start) / (end - start) if end > start else 0.5
        up = trace.duration_s / longest_s if longest_s else 0.0
        x = _RADIUS + min(1.0, max(0.0, across)) * (WIDTH - 2 * _RADIUS)
        y = HEIGHT - _RADIUS - up * (HEIGHT - 2 * _RADIUS)
        dots.append(Dot(round(x, 1), round(y, 1), trace.status, f"/requests/{segment(trace.trace_id)}", _said(trace)))
    return dots


def _said(trace: Measured) -> str:
    return f"{moment(trace.started_at)}, {duration(trace.duration_s)}, {trace.status}"
