"""The list of traces at `/`, and what comes while somebody looks at it."""

import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.api import MAX_WHOLE, query, whole_number
from epsagon_fast.backend.filters import BadQuery, Filter
from epsagon_fast.backend.live import Live
from epsagon_fast.backend.pages.rendering import page, render, segment, url
from epsagon_fast.backend.store import Store
from epsagon_fast.protocol import DEFAULT_MAX_TRACE_BYTES

PAGE_TRACES = 100
_MOMENT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_FORM = ("text", "app", "name", "error_type", "status", "min_duration", "max_duration", "since", "until")
# Fields of the form that stand for any `label.KEY` and `attr.KEY`: without a script a form cannot make such names.
_PAIRS = {"label": "label.", "attr": "attr."}
# What else of a query the form keeps when it is sent again.
_KEPT = (*_PAIRS.values(), "http_trace_id")


class Listing:
    """Pages of one store's traces."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store = store
        self._live = live

    async def show(self, request: Request) -> Response:
        """Answer `GET /`."""
        problem = ""
        try:
            wanted, asked = query(request, "before", *_PAIRS)
            if pairs := _pairs(asked):
                return RedirectResponse(url("/", *wanted.given, *pairs), 303)
            before = whole_number(asked, "before", MAX_WHOLE, 0, MAX_WHOLE)
        except BadQuery as error:
            asked, before, problem = dict(request.query_params), MAX_WHOLE, str(error)
            # What was typed stays in the form.
            wanted = Filter(given=tuple(pair for pair in request.query_params.multi_items() if pair[1].strip()))
        return await run_in_threadpool(self._page, wanted, asked, before, problem, str(request.base_url).rstrip("/"))

    def _page(self, wanted: Filter, asked: dict[str, str], before: int, problem: str, address: str) -> Response:
        if not problem and (request_id := self._sought_id(wanted)):
            return RedirectResponse(f"/requests/{segment(request_id)}", 303)
        latest = self._store.latest()
        rows = [] if problem else self._store.page(PAGE_TRACES, 0, wanted, before)
        more = url("/", *wanted.given, ("before", rows[-1]["number"])) if len(rows) == PAGE_TRACES else None
        is_first = "before" not in asked and not problem
        return page(
            "list.html",
            400 if problem else 200,
            rows=rows,
            longest_s=longest(rows),
            limit_bytes=DEFAULT_MAX_TRACE_BYTES,
            given=_given(wanted),
            kept=[pair for pair in wanted.given if pair[0].startswith(_KEPT)],
            chips=_chips(wanted),
            failed=summary.FAILED,
            statuses=(*summary.STATUSES, summary.TRIMMED),
            problem=problem,
            more=more,
            live=url("/live", *wanted.given, ("after", repr(latest))) if is_first else None,
            first=None if is_first else url("/", *(() if problem else wanted.given)),
            counts=self._store.counts(),
            retention=str(self._store.retention),
            address=address,
            here="list",
        )

    def _sought_id(self, wanted: Filter) -> str | None:
        """Return the id of a request that is kept, if it is all that was asked for: people paste it from a log."""
        if [name for name, _ in wanted.given] != ["text"]:
            return None
        text = wanted.given[0][1]
        return text if self._store.request(text, 1) else None

    async def stream(self, request: Request) -> Response:
        """Answer `GET /live`: server-sent events of the rows that come."""
        wanted, asked = query(request, "after")
        after = request.headers.get("last-event-id") or asked.get("after", "0")
        if not _MOMENT.fullmatch(after):
            raise BadQuery("after must be Unix seconds: a trace's received_at")
        events = self._live.stream(wanted, float(after), _shown)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    html = render("row.html", row=row, longest_s=row["duration_s"], limit_bytes=DEFAULT_MAX_TRACE_BYTES)
    return {"number": row["number"], "html": html}


def _pairs(asked: dict[str, str]) -> list[tuple[str, str]]:
    """Return the filters that the form's fields for labels and attributes say. Raises BadQuery."""
    found = []
    for name, prefix in _PAIRS.items():
        key, equals, value = (part.strip() for part in asked.get(name, "").partition("="))
        if key and value:
            found.append((prefix + key, value))
        elif key or equals:
            raise BadQuery(f"{name} is KEY=VALUE")
    return found


def _given(wanted: Filter) -> dict[str, str]:
    """Return what stands in the form's fields."""
    statuses = ",".join(value for name, value in wanted.given if name == "status")
    return {**dict.fromkeys((*_FORM, *_PAIRS), ""), **dict(wanted.given), "status": statuses}


def longest(rows: list[dict[str, Any]]) -> float:
    """Return the longest duration among rows, 0.0 if none is known."""
    return max((row["duration_s"] or 0.0 for row in rows), default=0.0)


def _chips(wanted: Filter) -> list[tuple[str, str, str]]:
    """Return each filter that is on, with its value and the address of the list without it."""
    return [
        (name, value, url("/", *(pair for pair in wanted.given if pair != (name, value))))
        for name, value in wanted.given
        if name not in ("before", *_PAIRS)
    ]
