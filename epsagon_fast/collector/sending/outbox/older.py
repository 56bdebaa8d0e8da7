"""Outbox files of other versions of this package in a state directory: an upgrade must not leave traces behind.

The traces of an older file move into this version's. Those that a collector of the older version is just sending stay
with it, and are looked for again. A trace is committed here before it is deleted there. So one whose move is
interrupted may be sent twice, with the same `Idempotency-Key`. The emptied file is removed once no process has it open.
A newer file stays as it is, since only its own version can read it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import epsagon_fast.private as private
from epsagon_fast.collector.sending.outbox.file import (
    LEASE_S,
    MAX_TAKEN_BYTES,
    NAME,
    OutboxFile,
    parcel_of,
)
from epsagon_fast.hints import TYPE_CHECKING, Any
from epsagon_fast.patterns import pattern
from epsagon_fast.queue.liveness import is_unused

if TYPE_CHECKING:
    from sqlite3 import Connection

# Traces of this version wait meanwhile, and a locked file is looked for again.
_LOCK_TIMEOUT_S = 0.2
_NAME = pattern(r"outbox-(\d+)\.db")
# The members of a destination that an older schema may lack, and what stood in their place.
_LACKING = {"headers": "''", "client_certificate": "''", "client_key": "''"}
# Not leased, or before the clock was set back; a lease is as long as this version's.
_FREE = "(leased_until <= :now OR leased_until > :now + 2 * (:lease_s + 2 * send_timeout_s))"
_FIELDS = ("url", "token", "send_timeout_s", "proxy_url", "ca_file", *_LACKING)


def number_of(name: str) -> int:
    """Return the number of the schema in an outbox file's name; 0 if it is not such a name."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


_OWN = number_of(NAME)


def older(directory: str) -> list[str]:
    """Return the paths of the outbox files of older versions, the oldest first."""
    return _others(directory, range(1, _OWN))


def newer(directory: str) -> list[str]:
    """Return the paths of the outbox files of newer versions."""
    return _others(directory, range(_OWN + 1, 2**63))


def move(path: str, file: OutboxFile, now: float) -> tuple[int, list[bytes]]:
    """Move the traces of an older file into this version's, and remove the older file once it is empty and unused.

    Return how many were moved, and the ids of the traces that were dropped to make room. `now`: unix seconds; the
    traces count as stored then. Raises sqlite3.Error or OSError if one of the files cannot be used; what is not moved
    by then stays where it is.
    """
    private.own_database(path)
    import sqlite3  # as for this version's file

    moved, gone = 0, list[bytes]()
    with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as db:
        # As for this version's file: what is deleted must not stay on the disk.
        for pragma in ("temp_store = MEMORY", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        while parcels := _move_some(db, file, now, gone):
            moved += parcels
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        is_empty = not db.execute("SELECT EXISTS (SELECT 1 FROM traces)").fetchone()[0]
    if is_empty:
        _remove(path)
    return moved, gone


def _move_some(db: "Connection", file: OutboxFile, now: float, gone: list[bytes]) -> int:
    """Move as many traces as may be in memory at a time. Return how many."""
    with db:
        # Its collector, if one lives, leases no trace while we have this lock.
        db.execute("BEGIN IMMEDIATE")
        rows = list(_bounded(db.execute(_query(db), {"now": now, "lease_s": LEASE_S})))
        gone += file.put(
            [parcel_of(trace_id, file.destination(of), body, at) for _, trace_id, at, body, *of in rows], now
        )
        db.executemany("DELETE FROM traces WHERE number = ?", [(number,) for number, *_ in rows])
    return len(rows)


def _query(db: "Connection") -> str:
    known = {name for _, name, *_ in db.execute("PRAGMA table_info(destinations)")}
    fields = ", ".join(name if name in known else _LACKING.get(name, name) for name in _FIELDS)
    return (
        f"SELECT number, trace_id, token_at, body, {fields} FROM traces "
        f"JOIN destinations ON destinations.id = destination WHERE {_FREE} ORDER BY number"
    )


def _bounded(rows: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    size = 0
    for row in rows:
        yield row
        size += len(row[3])
        if size > MAX_TAKEN_BYTES:
            return


def _remove(path: str) -> None:
    """Remove an empty file that no other process has open."""
    fd = private.open_file(path, os.O_RDWR)
    try:
        if is_unused(fd):
            for companion in ("", *private.COMPANIONS):
                with suppress(FileNotFoundError):
                    os.unlink(path + companion)
    finally:
        os.close(fd)


def _others(directory: str, numbers: range) -> list[str]:
    with suppress(OSError):
        names = [name for name in os.listdir(directory) if number_of(name) in numbers]
        return [os.path.join(directory, name) for name in sorted(names, key=number_of)]
    return []
