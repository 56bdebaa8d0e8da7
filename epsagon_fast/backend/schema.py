"""The tables of the backend's database, and how an older file gets them."""

import sqlite3
from collections.abc import Callable
from typing import Any

# The file's user_version, so that we neither write into a stranger's database nor misread one of a later version.
VERSION = 2
_FIRST_VERSION = 1

# `number` is the start in microseconds, made unique: rows lie in the order in which they are listed, and so do the
# lists of the index of terms. The bodies lie apart, so that a list does not read through megabytes of them. The totals
# are kept up to date by triggers: counting a million rows takes longer than a page may.
_TABLES = f"""
CREATE TABLE traces (
    number INTEGER PRIMARY KEY,
    trace_id TEXT NOT NULL UNIQUE,
    received_at REAL NOT NULL UNIQUE,
    token_sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    app_name TEXT NOT NULL,
    runner TEXT,
    name TEXT NOT NULL,
    type TEXT,
    started_at REAL NOT NULL,
    duration_s REAL,
    status TEXT NOT NULL,
    error_type TEXT,
    error_code INTEGER,
    event_count INTEGER NOT NULL,
    exception_count INTEGER NOT NULL,
    is_trimmed INTEGER NOT NULL,
    http_trace_id TEXT
);
CREATE INDEX traces_of_a_request ON traces (http_trace_id) WHERE http_trace_id IS NOT NULL;
CREATE TABLE bodies (number INTEGER PRIMARY KEY REFERENCES traces, body BLOB NOT NULL);
CREATE VIRTUAL TABLE terms USING fts5 (tokens, detail = none, columnsize = 0, tokenize = 'ascii');
CREATE TABLE totals (traces INTEGER NOT NULL, duplicates INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0);
CREATE TRIGGER trace_comes AFTER INSERT ON traces BEGIN
    UPDATE totals SET traces = traces + 1, duplicates = duplicates + new.duplicates, bytes = bytes + new.size_bytes;
END;
CREATE TRIGGER trace_comes_again AFTER UPDATE OF duplicates ON traces BEGIN
    UPDATE totals SET duplicates = duplicates + new.duplicates - old.duplicates;
END;
CREATE TRIGGER trace_goes AFTER DELETE ON traces BEGIN
    UPDATE totals SET traces = traces - 1, duplicates = duplicates - old.duplicates, bytes = bytes - old.size_bytes;
END;
PRAGMA user_version = {VERSION};
"""

# What is left of a row of the first version: all else is in the body.
Migrated = Callable[[str, float, str, int, bytes], Any]


def version(connection: sqlite3.Connection, name: str) -> int:
    """Return a database's version, 0 for an empty one; ValueError for one of something else or of a later version."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found not in (VERSION, _FIRST_VERSION) and (found or tables):
        raise ValueError(f"{name} is not a database of this version of the backend")
    return int(found)


def prepare(connection: sqlite3.Connection, name: str, keep: Migrated) -> None:
    """Make the tables, or bring those of the first version up to date, in one transaction.

    keep: takes each trace of an older file: id, when it was received, its token's hash, duplicates, body. Raises
    ValueError as `version` does.
    """
    with connection:
        # Another backend may be about to do the same.
        connection.execute("BEGIN IMMEDIATE")
        found = version(connection, name)
        if found == _FIRST_VERSION:
            _move_away(connection)
        if found != VERSION:
            for statement in _statements(_TABLES):
                connection.execute(statement)
        if found == _FIRST_VERSION:
            _move_in(connection, keep)


def _statements(script: str) -> list[str]:
    # sqlite3's own executescript commits first.
    statements, begun = [], ""
    for line in script.splitlines():
        begun += line + "\n"
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements


def _move_away(connection: sqlite3.Connection) -> None:
    for table in ("traces", "bodies"):
        connection.execute(f"ALTER TABLE {table} RENAME TO first_{table}")


def _move_in(connection: sqlite3.Connection, keep: Migrated) -> None:
    rows = connection.execute(
        """SELECT trace_id, received_at, token_sha256, duplicates, body
           FROM first_traces JOIN first_bodies USING (number) ORDER BY number"""
    )
    for row in rows:
        keep(*row)
    for table in ("bodies", "traces"):
        connection.execute(f"DROP TABLE first_{table}")
