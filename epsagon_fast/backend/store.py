"""Traces in one SQLite file, in WAL mode: other programs may read it while the backend writes.

A trace is in the file when `keep` returns, so it outlives the death of this process. It is not synced to the disk: the
last traces before a power cut may be lost (SQLite's synchronous=NORMAL).
"""

import hashlib
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import epsagon_fast.backend.schema as schema
import epsagon_fast.private as private
from epsagon_fast.backend.filters import Filter
from epsagon_fast.backend.retention import Retention, forget
from epsagon_fast.backend.shape import summarize
from epsagon_fast.backend.summary import Summary

IN_MEMORY = ":memory:"
# How long to wait for another process that writes to the same file.
_BUSY_TIMEOUT_S = 5.0
# A start may lie so far ahead of our clock; beyond it, it is a mistake.
_AHEAD_S = 86400.0
# So many traces with the same start stand in the order of their arrival, further ones somewhere near.
_SAME_START = 64

_SUMMARY = tuple(name for name in Summary._fields if name != "terms")
_RECEIVED = ("number", "trace_id", "received_at", "token_sha256", "size_bytes", "duplicates", *_SUMMARY)
_INSERT = f"INSERT INTO traces ({', '.join(_RECEIVED)}) VALUES (:{', :'.join(_RECEIVED)})"
_COLUMNS = ", ".join(f"traces.{name}" for name in _RECEIVED)


def _own(path: str) -> None:
    """Make an empty database for this user alone, or see that the one there is no other user's; OSError if it is."""
    private.judge_way(path)
    private.own_database(path)


class Measured(NamedTuple):
    """What a chart needs of a trace. Unix seconds, seconds, one of summary.STATUSES."""

    trace_id: str
    name: str
    started_at: float
    duration_s: float
    status: str


def _found_by(wanted: Filter) -> tuple[str, str, list[tuple[str, Any]]]:
    """Return the tables to read, the column that is a trace's number there, and the conditions."""
    conditions: list[tuple[str, Any]] = list(wanted.conditions)
    if not wanted.match:
        return "traces", "traces.number", conditions
    # The index of terms yields its rows in the order of their numbers: not one more is read than is shown.
    conditions.append(("terms MATCH ?", wanted.match))
    return "terms CROSS JOIN traces ON traces.number = terms.rowid", "terms.rowid", conditions


class Store:
    """The traces of one database. Any thread may call it; one writes and one reads at a time.

    database: a file's path, or IN_MEMORY. The file is this user's alone (0600, no link): a body holds whatever the
    traced program put into it. Raises OSError, sqlite3.Error, and ValueError for a database that is not ours.
    """

    def __init__(self, database: str = IN_MEMORY, retention: Retention | None = None) -> None:
        self.database = database
        self.retention = retention or Retention()
        self._lock = self._reading_lock = threading.Lock()
        if database != IN_MEMORY:
            _own(database)
        self._connection = self._reading = self._connect()
        try:
            self._prepare()
            if database != IN_MEMORY:
                # A connection of its own: else a trace that comes waits for the page that somebody looks at.
                self._reading, self._reading_lock = self._connect(), threading.Lock()
                self._reading.execute("PRAGMA query_only = TRUE")
                # Once more, with what SQLite has made beside it: another user may have been faster.
                _own(database)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.database, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return connection

    def _prepare(self) -> None:
        # Else SQLite wants a directory for temporary files, which a process with a read-only root does not have.
        self._connection.execute("PRAGMA temp_store = MEMORY")
        schema.version(self._connection, self.database)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        schema.prepare(self._connection, self.database, self._migrate)
        while self._forget():
            pass

    def keep(self, trace_id: str, token: bytes, body: bytes, summary: Summary) -> bool:
        """Commit a trace, or count a duplicate of the one that has this id; then forget what is over the limits.

        token: kept as its SHA-256 (what the body says of it stays in the body). Returns True for a new trace, False for
        a duplicate.
        """
        with self._lock, self._connection:
            again = "UPDATE traces SET duplicates = duplicates + 1 WHERE trace_id = ?"
            if self._connection.execute(again, (trace_id,)).rowcount:
                return False
            self._insert(trace_id, time.time(), hashlib.sha256(token).hexdigest(), 0, body, summary)
        self._forget()
        return True

    def replace(self, trace_id: str, token: bytes, body: bytes, summary: Summary) -> None:
        """Commit a trace in place of the one that has this id, if there is one."""
        with self._lock, self._connection:
            row = self._connection.execute("SELECT number FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
            for table, key in (("terms", "rowid"), ("bodies", "number"), ("traces", "number")) if row else ():
                self._connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (row["number"],))
            self._insert(trace_id, time.time(), hashlib.sha256(token).hexdigest(), 0, body, summary)
        self._forget()

    def _migrate(self, trace_id: str, received_at: float, token_sha256: str, duplicates: int, body: bytes) -> None:
        self._insert(trace_id, received_at, token_sha256, duplicates, body, summarize(body))

    def _insert(
        self, trace_id: str, received_at: float, token_sha256: str, duplicates: int, body: bytes, summary: Summary
    ) -> None:
        # Strictly later than all before, also if the clock was set back: so it says what came since.
        (latest,) = self._connection.execute("SELECT max(received_at) FROM traces").fetchone()
        received_at = max(received_at, (latest or 0.0) + 1e-6)
        row = {
            **summary._asdict(),
            "trace_id": trace_id,
            "received_at": received_at,
            "token_sha256": token_sha256,
            "size_bytes": len(body),
            "duplicates": duplicates,
        }
        started_at = summary.started_at
        if started_at is None or not 0 <= started_at < received_at + _AHEAD_S:
            started_at = row["started_at"] = received_at
        number = row["number"] = self._free_number(int(started_at * 1e6))
        self._connection.execute(_INSERT, row)
        self._connection.execute("INSERT INTO bodies VALUES (?, ?)", (number, body))
        self._connection.execute("INSERT INTO terms (rowid, tokens) VALUES (?, ?)", (number, summary.terms))

    def _free_number(self, number: int) -> int:
        taken = "SELECT 1 FROM traces WHERE number = ?"
        tries = 0
        while self._connection.execute(taken, (number,)).fetchone():
            tries += 1
            # Growing steps, since thousands may have begun at once.
            number += 1 if tries < _SAME_START else random.randrange(1, 2 ** min(tries - _SAME_START + 8, 30))
        return number

    def _forget(self) -> int:
        with self._lock, self._connection:
            return forget(self._connection, self.retention, time.time())

    def page(
        self, limit: int, offset: int = 0, wanted: Filter | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of at most `limit` traces, those that started last first, after the first `offset`.

        before: only those whose `number` is smaller, which is how the next page is asked for.
        """
        source, number, conditions = _found_by(wanted or Filter())
        if before is not None:
            conditions.append(("{number} < ?", before))
        return self._rows(source, conditions, f"ORDER BY {number} DESC LIMIT ? OFFSET ?", (limit, offset), number)

    def arrivals(self, after: float, limit: int, wanted: Filter | None = None) -> tuple[list[dict[str, Any]], float]:
        """Return the rows of at most `limit` traces whose `received_at` is greater than `after`, in that order.

        Returns also how far it has looked: after which `received_at` to go on.
        """
        latest = self.latest()
        conditions = [("received_at > ?", after), *(wanted or Filter()).conditions]
        if wanted and wanted.match:
            found = "EXISTS (SELECT 1 FROM terms WHERE terms MATCH ? AND terms.rowid = traces.number)"
            conditions.append((found, wanted.match))
        rows = self._rows("traces", conditions, "ORDER BY received_at LIMIT ?", (limit,))
        reached = rows[-1]["received_at"] if rows else after
        return rows, reached if len(rows) == limit else max(reached, latest)

    def measures(self, limit: int, wanted: Filter) -> list[Measured]:
        """Return name, times and status of at most `limit` traces, those that started last first."""
        source, number, conditions = _found_by(wanted)
        columns = "trace_id, name, traces.started_at, coalesce(duration_s, 0.0), status"
        rows = self._select(columns, source, conditions, f"ORDER BY {number} DESC LIMIT ?", (limit,), number)
        return [Measured(*row) for row in rows]

    def latest(self) -> float:
        """Return the `received_at` of what came last, 0.0 if nothing has come."""
        with self._reading_lock:
            (latest,) = self._reading.execute("SELECT max(received_at) FROM traces").fetchone()
        return float(latest or 0.0)

    def request(self, request_id: str, limit: int) -> list[dict[str, Any]]:
        """Return the rows of the traces of one request, by its `http_trace_id` or one trace's id, oldest first."""
        own = self._rows("traces", [("trace_id = ?", request_id)], "LIMIT 1", ())
        shared = own[0]["http_trace_id"] if own and own[0]["http_trace_id"] else request_id
        rows = self._rows("traces", [("http_trace_id = ?", shared)], "ORDER BY number LIMIT ?", (limit,))
        return rows or own

    def _rows(
        self,
        source: str,
        conditions: Sequence[tuple[str, Any]],
        rest: str,
        values: Iterable[Any],
        number: str = "traces.number",
    ) -> list[dict[str, Any]]:
        rows = self._select(_COLUMNS, source, conditions, rest, values, number)
        return [{**dict(row), "is_trimmed": bool(row["is_trimmed"])} for row in rows]

    def _select(
        self,
        columns: str,
        source: str,
        conditions: Sequence[tuple[str, Any]],
        rest: str,
        values: Iterable[Any],
        number: str,
    ) -> list[sqlite3.Row]:
        where = " AND ".join(text.format(number=number) for text, _ in conditions)
        query = f"SELECT {columns} FROM {source} {'WHERE ' + where if where else ''} {rest}"
        with self._reading_lock:
            return self._reading.execute(query, (*(value for _, value in conditions), *values)).fetchall()

    def body(self, trace_id: str) -> bytes | None:
        """Return a trace's body as it was received, None if there is no such trace."""
        wanted = "SELECT body FROM traces JOIN bodies USING (number) WHERE trace_id = ?"
        with self._reading_lock:
            row = self._reading.execute(wanted, (trace_id,)).fetchone()
        return None if row is None else bytes(row["body"])

    def bodies(self) -> Iterator[tuple[str, bytes]]:
        """Yield (trace id, body) of every trace, as they came, one read at a time."""
        following = """SELECT received_at, trace_id, body FROM traces JOIN bodies USING (number)
                       WHERE received_at > ? ORDER BY received_at LIMIT 1"""
        received_at = -1.0
        while True:
            with self._reading_lock:
                row = self._reading.execute(following, (received_at,)).fetchone()
            if row is None:
                return
            received_at = row["received_at"]
            yield row["trace_id"], row["body"]

    def counts(self) -> dict[str, int]:
        """Return the numbers of traces, of duplicates that were not kept, and of bytes of all bodies."""
        with self._reading_lock:
            return dict(self._reading.execute("SELECT traces, duplicates, bytes FROM totals").fetchone())

    def close(self) -> None:
        """Close the database; a second time does nothing, other calls then raise sqlite3.ProgrammingError."""
        with self._lock:
            self._connection.close()
        with self._reading_lock:
            self._reading.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
