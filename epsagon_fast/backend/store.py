"""Traces in one SQLite file, in WAL mode: whoever wants to look may read it while the backend writes.

A trace is in the file when `keep` returns, so it outlives the death of this process. It is not synced to the disk: the
last traces before a power cut may be lost (SQLite's synchronous=NORMAL).
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import epsagon_fast.private as private
from epsagon_fast.backend.shape import Summary

IN_MEMORY = ":memory:"
# The file's user_version, so that we neither write into a stranger's database nor misread an older one of ours.
_LAYOUT_VERSION = 1
# How long to wait for another process that writes to the same file.
_BUSY_TIMEOUT_S = 5.0

# The bodies lie apart, so that a list or a count does not read through megabytes of them.
_LAYOUT = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS traces (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    trace_id TEXT NOT NULL UNIQUE,
    received_at REAL NOT NULL,
    token_sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    app_name TEXT NOT NULL,
    runner TEXT,
    error_code INTEGER,
    event_count INTEGER NOT NULL,
    exception_count INTEGER NOT NULL,
    is_trimmed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS bodies (number INTEGER PRIMARY KEY REFERENCES traces, body BLOB NOT NULL);
PRAGMA user_version = {_LAYOUT_VERSION};
COMMIT;
"""

_RECEIVED = ("trace_id", "received_at", "token_sha256", "size_bytes", *Summary._fields)
_COLUMNS = (*_RECEIVED, "duplicates")
_INSERT = f"""INSERT INTO traces ({", ".join(_RECEIVED)}) VALUES (:{", :".join(_RECEIVED)})
              ON CONFLICT (trace_id) DO NOTHING"""


def _own(path: str) -> None:
    """Make an empty database for this user alone, or see that the one there is no other user's; OSError if it is."""
    private.judge_way(path)
    private.own_database(path)


class Store:
    """The traces of one database. Any thread may call it; one at a time is served.

    database: a file's path, or IN_MEMORY. The file is this user's alone (0600, no link): a body holds whatever the
    traced program put into it. Raises OSError, sqlite3.Error, and ValueError for a database that is not ours.
    """

    def __init__(self, database: str = IN_MEMORY) -> None:
        self.database = database
        self._lock = threading.Lock()
        if database != IN_MEMORY:
            _own(database)
        self._connection = sqlite3.connect(database, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            self._prepare()
            if database != IN_MEMORY:
                # Once more, with what SQLite has made beside it: another user may have been faster.
                _own(database)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version != _LAYOUT_VERSION and (version or tables):
            raise ValueError(f"{self.database} is not a database of this version of the backend")
        # Else SQLite wants a directory for temporary files, which a process with a read-only root does not have.
        self._connection.execute("PRAGMA temp_store = MEMORY")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_LAYOUT)
        self._connection.row_factory = sqlite3.Row

    def keep(self, trace_id: str, token: bytes, body: bytes, summary: Summary) -> bool:
        """Commit a trace, or count a duplicate of the one that has this id.

        token: kept as its SHA-256 (what the body says of it stays in the body). Returns True for a new trace, False for
        a duplicate.
        """
        row = {
            "trace_id": trace_id,
            "received_at": time.time(),
            "token_sha256": hashlib.sha256(token).hexdigest(),
            "size_bytes": len(body),
            **summary._asdict(),
        }
        with self._lock, self._connection:
            trace = self._connection.execute(_INSERT, row)
            if trace.rowcount:
                self._connection.execute("INSERT INTO bodies VALUES (?, ?)", (trace.lastrowid, body))
                return True
            self._connection.execute("UPDATE traces SET duplicates = duplicates + 1 WHERE trace_id = ?", (trace_id,))
            return False

    def page(self, limit: int, offset: int) -> list[dict[str, Any]]:
        """Return the rows of at most `limit` traces, newest first, after the first `offset`."""
        newest = f"SELECT {', '.join(_COLUMNS)} FROM traces ORDER BY number DESC LIMIT ? OFFSET ?"
        with self._lock:
            rows = self._connection.execute(newest, (limit, offset)).fetchall()
        return [{**dict(row), "is_trimmed": bool(row["is_trimmed"])} for row in rows]

    def body(self, trace_id: str) -> bytes | None:
        """Return a trace's body as it was received, None if there is no such trace."""
        wanted = "SELECT body FROM traces JOIN bodies USING (number) WHERE trace_id = ?"
        with self._lock:
            row = self._connection.execute(wanted, (trace_id,)).fetchone()
        return None if row is None else bytes(row["body"])

    def bodies(self) -> Iterator[tuple[str, bytes]]:
        """Yield (trace id, body) of every trace, oldest first, one read at a time."""
        following = "SELECT number, trace_id, body FROM traces JOIN bodies USING (number) WHERE number > ? LIMIT 1"
        number = 0
        while True:
            with self._lock:
                row = self._connection.execute(following, (number,)).fetchone()
            if row is None:
                return
            number = row["number"]
            yield row["trace_id"], row["body"]

    def counts(self) -> dict[str, int]:
        """Return the numbers of traces, of duplicates that were not kept, and of bytes of all bodies."""
        sums = """SELECT count(*) AS traces, coalesce(sum(duplicates), 0) AS duplicates,
                  coalesce(sum(size_bytes), 0) AS bytes FROM traces"""
        with self._lock:
            return dict(self._connection.execute(sums).fetchone())

    def close(self) -> None:
        """Close the database; a second time does nothing, other calls then raise sqlite3.ProgrammingError."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
