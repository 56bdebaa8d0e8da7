"""One request: all its traces on one time line, and what the page's script asks for besides."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import epsagon_fast.backend.outline as outline
from epsagon_fast.backend.answers import Json
from epsagon_fast.backend.api import whole_number
from epsagon_fast.backend.filters import BadQuery
from epsagon_fast.backend.pages.details import details
from epsagon_fast.backend.pages.rendering import BAR_UNITS, page
from epsagon_fast.backend.store import Store
from epsagon_fast.backend.timeline import TimedEvent, Timeline, build

# Of one request; what is beyond is said on the page.
MAX_TRACES = 500
MAX_BYTES = 24 * 1024 * 1024
# Rows in a page without JavaScript; with it all are there.
PAGE_ROWS = 300
_MAX_HITS = 2000
_MAX_TEXT_CHARACTERS = 500
# A time line takes several times the memory of its bodies.
_CACHED = 2


class Shown:
    """Builds requests' time lines, and remembers the last few: the script asks for parts of the same one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._built: OrderedDict[tuple[str, ...], Timeline] = OrderedDict()

    def timeline(self, request_id: str) -> tuple[Timeline, bool]:
        """Return a request's time line, and whether it has more traces than are shown; 404 if there is none."""
        rows = self._store.request(request_id, MAX_TRACES + 1)
        if not rows:
            raise HTTPException(404, "there is no trace and no request with this id")
        kept: list[dict[str, Any]] = []
        size_bytes = 0
        for row in rows[:MAX_TRACES]:
            size_bytes += row["size_bytes"]
            if kept and size_bytes > MAX_BYTES:
                break
            kept.append(row)
        # A trace can be replaced by what has grown, under the same id.
        key = tuple(f"{row['trace_id']} {row['received_at']}" for row in kept)
        found = self._built.pop(key, None) or build(self._bodies(kept))
        self._built[key] = found
        while len(self._built) > _CACHED:
            self._built.popitem(last=False)
        return found, len(kept) < len(rows)

    def _bodies(self, rows: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
        bodies = [(row["trace_id"], self._store.body(row["trace_id"])) for row in rows]
        # One that was forgotten meanwhile is not there.
        return [(trace_id, body) for trace_id, body in bodies if body is not None]


class RequestPages:
    """The page of a request and its parts."""

    def __init__(self, store: Store) -> None:
        self._shown = Shown(store)

    async def show(self, request: Request) -> Response:
        """Answer `GET /requests/{id}`: the page."""
        return await run_in_threadpool(self._page, request)

    def _page(self, request: Request) -> Response:
        request_id = request.path_params["request_id"]
        timeline, is_cut = self._shown.timeline(request_id)
        asked = request.query_params
        first = whole_number(asked, "from", 0, 0, max(0, len(timeline.nodes) - 1))
        chosen = timeline.find(asked.get("event", request_id))
        chosen = chosen if chosen is not None else (timeline.roots[0] if timeline.roots else None)
        head = timeline.nodes[timeline.roots[0]] if timeline.roots else None
        return page(
            "request.html",
            request_id=request_id,
            timeline=timeline,
            head=head,
            rows=[event_row(timeline, node) for node in timeline.nodes[first : first + PAGE_ROWS]],
            chosen=None if chosen is None else timeline.nodes[chosen].key,
            details=None if chosen is None else details(timeline, chosen),
            failed=sum(node.status != "ok" for node in timeline.nodes),
            is_cut=is_cut,
            first=first,
            page_rows=PAGE_ROWS,
            ticks=[timeline.duration_s * part / 4 for part in range(5)],
            here="request",
        )

    async def nodes(self, request: Request) -> Response:
        """Answer `GET /nodes/{id}`: all rows, for the script."""
        return await run_in_threadpool(self._nodes, request)

    def _nodes(self, request: Request) -> Response:
        timeline, _ = self._shown.timeline(request.path_params["request_id"])
        rows = [event_row(timeline, node) for node in timeline.nodes]
        return Json({"duration": timeline.duration_s, "nodes": rows})

    async def event(self, request: Request) -> Response:
        """Answer `GET /event/{id}?event=KEY`: an event's panel."""
        return await run_in_threadpool(self._event, request)

    def _event(self, request: Request) -> Response:
        timeline, _ = self._shown.timeline(request.path_params["request_id"])
        place = timeline.find(request.query_params.get("event", ""))
        if place is None:
            raise HTTPException(404, "there is no event with this key")
        shown = details(timeline, place)
        return page("event.html", details=shown, timeline=timeline, request_id=request.path_params["request_id"])

    async def find(self, request: Request) -> Response:
        """Answer `GET /find/{id}?text=...`: the places of the events that say it anywhere."""
        text = request.query_params.get("text", "").casefold()
        if not 0 < len(text) <= _MAX_TEXT_CHARACTERS:
            raise BadQuery(f"text must have 1 to {_MAX_TEXT_CHARACTERS} characters")
        timeline, _ = await run_in_threadpool(self._shown.timeline, request.path_params["request_id"])
        hits = await run_in_threadpool(_hits, timeline, text)
        return Json({"hits": hits[:_MAX_HITS], "count": len(hits)})

    async def copy(self, request: Request) -> Response:
        """Answer `GET /copy/{id}?form=json|text&event=KEY`: the whole, or an event with all below it."""
        timeline, _ = await run_in_threadpool(self._shown.timeline, request.path_params["request_id"])
        key, form = request.query_params.get("event"), request.query_params.get("form", "text")
        place = None if key is None else timeline.find(key)
        if key is not None and place is None:
            raise HTTPException(404, "there is no event with this key")
        if form == "json":
            copied = await run_in_threadpool(outline.as_json, timeline, place)
            return Response(copied, media_type="application/json")
        if form != "text":
            raise BadQuery("form must be json or text")
        return PlainTextResponse(await run_in_threadpool(outline.text, timeline, place))


def event_row(timeline: Timeline, node: TimedEvent) -> dict[str, Any]:
    """Return what a row shows of a node. Times are in units of a bar's drawing from the request's start."""
    return {
        "key": node.key,
        "depth": node.depth,
        "count": len(node.children),
        "title": outline.cut(node.title, 120),
        "kind": outline.cut(node.kind, 60),
        "status": node.status,
        "trace": outline.cut(timeline.traces[node.trace][1]["app_name"], 40) if node.is_runner else "",
        "start": timeline.part(node.start - timeline.start) * BAR_UNITS,
        "length": timeline.part(node.duration_s) * BAR_UNITS,
        "duration": outline.duration(node.duration_s),
        "self": outline.duration(node.self_s),
        "skew": outline.duration(node.skew_s) if node.skew_s else "",
        "critical": [
            (timeline.part(start - timeline.start) * BAR_UNITS, timeline.part(end - start) * BAR_UNITS)
            for start, end in node.critical
        ],
    }


def _hits(timeline: Timeline, text: str) -> list[int]:
    return [
        place
        for place, node in enumerate(timeline.nodes)
        if any(text in said.casefold() for said in (node.title, *_texts(timeline, node)))
    ]


def _texts(timeline: Timeline, node: TimedEvent) -> Iterator[str]:
    """Yield what an event's row and panel say, but for what all events have: the names of the format's own fields."""
    resource = node.event["resource"]
    yield from (node.event["id"], resource["name"], resource["type"], resource["operation"])
    own, trace = node.event["exception"], timeline.traces[node.trace][1]
    exceptions = [*([own] if own else ()), *(trace["exceptions"] if node.is_runner else ())]
    for exception in exceptions:
        yield from (exception["type"], exception["message"], exception["traceback"])
    for values in (resource["metadata"], *(exception["additional_data"] for exception in exceptions)):
        yield from values
        yield from values.values()
