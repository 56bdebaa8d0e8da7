"""What programs ask for: `GET /traces`, `GET /traces/{trace_id}`, `GET /healthz`."""

import re
from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import epsagon_fast.backend.filters as filters
from epsagon_fast.backend.answers import Json
from epsagon_fast.backend.filters import BadQuery, Filter
from epsagon_fast.backend.store import Store

MAX_PAGE_TRACES = 1000
DEFAULT_PAGE_TRACES = 50

# Few enough digits for SQLite's integers.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
MAX_WHOLE = 10**18 - 1
_MAX_OFFSET = 10**15


class Api:
    """Answers from one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, request: Request) -> Response:
        """Answer `GET /traces`."""
        wanted, asked = query(request, "limit", "offset", "before", "arrived_after")
        limit = whole_number(asked, "limit", DEFAULT_PAGE_TRACES, 1, MAX_PAGE_TRACES)
        offset = whole_number(asked, "offset", 0, 0, _MAX_OFFSET)
        if "arrived_after" in asked:
            if not _SECONDS.fullmatch(asked["arrived_after"]):
                raise BadQuery("arrived_after must be Unix seconds: a trace's received_at")
            after = float(asked["arrived_after"])
            traces, reached = await run_in_threadpool(self._store.arrivals, after, limit, wanted)
        else:
            reached = await run_in_threadpool(self._store.latest)
            before = whole_number(asked, "before", MAX_WHOLE, 0, MAX_WHOLE)
            traces = await run_in_threadpool(self._store.page, limit, offset, wanted, before)
        counts = await run_in_threadpool(self._store.counts)
        # A full page may be followed by an empty one.
        following = traces[-1]["number"] if len(traces) == limit else None
        answer = {"traces": traces, "total": counts["traces"], "limit": limit, "offset": offset}
        return Json({**answer, "next": following, "reached": reached})

    async def trace(self, request: Request) -> Response:
        """Answer `GET /traces/{trace_id}`."""
        body = await run_in_threadpool(self._store.body, request.path_params["trace_id"])
        if body is None:
            raise HTTPException(404, "there is no trace with this id")
        return Response(body, media_type="application/json")

    async def health(self, request: Request) -> Response:
        """Answer `GET /healthz`."""
        return Json({"status": "ok", **await run_in_threadpool(self._store.counts)})


def query(request: Request, *others: str) -> tuple[Filter, dict[str, str]]:
    """Return the filter in a request's query, and the parameters with the names `others`. Raises BadQuery."""
    parameters = request.query_params.multi_items()
    asked = {name: value for name, value in parameters if name in others}
    return filters.parse((name, value) for name, value in parameters if name not in others), asked


def whole_number(asked: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    """Return a parameter; BadQuery if it is no number in this range."""
    text = asked.get(name, str(default))
    if not _WHOLE_NUMBER.fullmatch(text) or not lowest <= int(text) <= highest:
        raise BadQuery(f"{name} must be a whole number from {lowest} to {highest}")
    return int(text)
