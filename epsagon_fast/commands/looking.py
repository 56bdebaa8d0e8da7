"""Where `traces` and `show` look: a backend's API, or its file where none runs.

Without options that is where this environment's traces go (EPSAGON_COLLECTOR_URL), if such a backend is there; then the
backend on this machine; then its file.
"""

import argparse
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import epsagon_fast.backend.filters as filters
import epsagon_fast.backend.summary as summary
from epsagon_fast.backend.place import TOKEN_VARIABLE, default_database
from epsagon_fast.backend.retention import Retention
from epsagon_fast.backend.shape import NotATrace, summarize
from epsagon_fast.backend.store import Store
from epsagon_fast.commands.saying import say
from epsagon_fast.config import Config
from epsagon_fast.config.environment import default_url
from epsagon_fast.config.values import posted_url
from epsagon_fast.foreign import escaped, origin, shown

DEFAULT_URL = "http://127.0.0.1:8686"
# Looking must not delete anything: the backend alone decides what is kept.
_KEEP_ALL = Retention(bytes=None)
_TIMEOUT_S = 20.0
# An address behind which nothing is answers never, and others are to be asked after it.
_CONNECT_S = 5.0
_MAX_TRACES = 500

Query = Sequence[tuple[str, str]]


class Unreachable(Exception):
    """There is nothing to look at; the text says where was looked and why that failed."""


class Source(Protocol):
    """The questions of `traces` and `show`."""

    def newest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """Return rows, the newest first."""

    def arrivals(self, query: Query, after: float) -> tuple[list[dict[str, Any]], float]:
        """Return rows that came after this `received_at`, in that order, and after which to go on."""

    def latest(self) -> float:
        """Return the `received_at` of what came last."""

    def request(self, request_id: str) -> list[tuple[str, bytes]]:
        """Return (id, body) of each trace of a request, by its id or that of one of its traces."""


class _File:
    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        return self._store.page(limit, 0, filters.parse(query))

    def arrivals(self, query: Query, after: float) -> tuple[list[dict[str, Any]], float]:
        return self._store.arrivals(after, _MAX_TRACES, filters.parse(query))

    def latest(self) -> float:
        return self._store.latest()

    def request(self, request_id: str) -> list[tuple[str, bytes]]:
        ids = [row["trace_id"] for row in self._store.request(request_id, _MAX_TRACES)]
        return [(each, body) for each in ids if (body := self._store.body(each)) is not None]


class _Api:
    def __init__(self, url: str, token: str) -> None:
        import urllib3

        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=_CONNECT_S, read=_TIMEOUT_S))
        self._failures = urllib3.exceptions.HTTPError

    def newest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        return self._rows([*query, ("limit", str(limit))])

    def arrivals(self, query: Query, after: float) -> tuple[list[dict[str, Any]], float]:
        page = self._page([*query, ("limit", str(_MAX_TRACES)), ("arrived_after", f"{after:.9f}")])
        return page["traces"], page["reached"]

    def latest(self) -> float:
        return float(self._page([("limit", "1")])["reached"])

    def request(self, request_id: str) -> list[tuple[str, bytes]]:
        rows = self._rows([("http_trace_id", request_id), ("limit", str(_MAX_TRACES))])
        own = None if rows else self._body(request_id)
        with suppress(NotATrace):
            if own is not None and (shared := summarize(own).http_trace_id):
                rows = self._rows([("http_trace_id", shared), ("limit", str(_MAX_TRACES))])
        if not rows:
            return [] if own is None else [(request_id, own)]
        ids = [row["trace_id"] for row in reversed(rows)]
        return [(each, body) for each in ids if (body := self._body(each)) is not None]

    def _rows(self, query: Query) -> list[dict[str, Any]]:
        return list(self._page(query)["traces"])

    def _page(self, query: Query) -> dict[str, Any]:
        answer = self._get(f"/traces?{urlencode(query, errors='surrogatepass')}")
        try:
            if answer.status == 400:
                raise filters.BadQuery(answer.json()["error"])
            page = dict(self._good(answer).json())
            return {name: page[name] for name in ("traces", "reached")}
        except (LookupError, TypeError, UnicodeError, json.JSONDecodeError):
            raise Unreachable(f"{origin(self.url)} is no backend of this version") from None

    def _body(self, trace_id: str) -> bytes | None:
        answer = self._get(f"/traces/{quote(trace_id, safe='', errors='surrogatepass')}")
        return None if answer.status == 404 else bytes(self._good(answer).data)

    def _good(self, answer: Any) -> Any:
        if answer.status == 401:
            raise Unreachable(f"{origin(self.url)} wants its token: --token, or ${TOKEN_VARIABLE}")
        if answer.status != 200:
            raise Unreachable(f"{origin(self.url)} answers {answer.status} {shown(answer.data)}")
        return answer

    def _get(self, path: str) -> Any:
        try:
            return self._pool.request("GET", self.url + path, headers=self._headers, redirect=False)
        except self._failures as error:
            start = "; `epsagon-fast backend` starts one, --backend names another" if self.url == DEFAULT_URL else ""
            raise Unreachable(f"{origin(self.url)} does not answer: {type(error).__name__}{start}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where to look."""
    parser.add_argument("--backend", metavar="URL", help=f"a running backend (default: see above, and {DEFAULT_URL})")
    parser.add_argument("--database", metavar="PATH", help="its file (default: where `backend` keeps it, if none runs)")
    parser.add_argument(
        "--token", default=os.environ.get(TOKEN_VARIABLE, ""), help=f"the backend's token (default: ${TOKEN_VARIABLE})"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


@contextmanager
def source(command: str, arguments: argparse.Namespace) -> Iterator[Source]:
    """Look where the options of a command say, or this environment. Raises Unreachable."""
    if arguments.backend or not arguments.database:
        api = _answering(command, arguments)
        if api is not None:
            yield api
            return
        arguments.database = default_database()
    if not os.path.exists(arguments.database):
        raise Unreachable(f"there is no file {escaped(arguments.database)}")
    try:
        store = Store(arguments.database, _KEEP_ALL)
    except (OSError, sqlite3.Error, ValueError) as error:
        raise Unreachable(f"cannot use the database: {error}") from None
    try:
        with store:
            yield _File(store)
    except sqlite3.Error as error:
        # A damaged page is met only when it is read.
        raise Unreachable(f"cannot read the database: {error}") from None


def _answering(command: str, arguments: argparse.Namespace) -> _Api | None:
    """Return the first backend that answers; None: look into the file. Raises Unreachable if there is no file."""
    asked = [_Api(arguments.backend or DEFAULT_URL, arguments.token)]
    if not arguments.backend and (named := _where_traces_go()):
        asked.insert(0, named)
    reasons: list[str] = []
    for api in asked:
        try:
            api.newest([], 1)
        except Unreachable as error:
            reasons.append(str(error))
        else:
            break
    else:
        api = None
        if arguments.backend or not os.path.exists(default_database()):
            raise Unreachable(reasons[0])
    # The file is that of the backend on this machine.
    if asked[0].url != (api.url if api else DEFAULT_URL):
        say(command, f"where traces go, {reasons[0]}; this is from {api.url if api else default_database()}")
    return api


def _where_traces_go() -> _Api | None:
    # disable: nothing is sent, so there is no warning of a missing token.
    config = Config(disable=True).resolve()
    if config.collector_url == default_url(warn=False):
        return None
    # The token that goes there anyway. That of --token and its variable is another backend's secret.
    return _Api(origin(posted_url(config.collector_url)), config.token)


def colours(wanted: Callable[[], bool]) -> bool:
    """Say whether to write in colours: to a terminal (`wanted`), unless $NO_COLOR is set."""
    return wanted() and not os.environ.get("NO_COLOR")


FAILED = [("status", summary.FAILED)]
