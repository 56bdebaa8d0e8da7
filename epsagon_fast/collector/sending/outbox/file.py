"""One outbox file: finished traces that their backends did not take yet, in SQLite, shared by all collectors of a user.

Several collectors may have it open. The one that sends a trace leases it for a while, so that no other one sends it. A
lease that is not given back expires. Everything here waits for the disk, so outbox.py calls it in a thread of its own.

Secrets (tokens, headers, proxies' passwords) stand only in the table `destinations`, and are deleted with the
destination's last trace; a body is kept without its token. Deleted bytes are overwritten in the file. Their copies in
SQLite's log are cut off at once if a destination was deleted, otherwise with the next `wipe`. Errors of SQLite pass
through; `is_corrupt` tells those that waiting does not mend.
"""

import os
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress

import epsagon_fast.private as private
from epsagon_fast.collector.formats.choice import format_for
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.outbox.messages import Amount
from epsagon_fast.queue.names import CORRUPT

# The number is that of the schema. Another version of this package may use another file beside this one; see older.py.
NAME = "outbox-3.db"
LIMIT_BYTES = 64 * 1024 * 1024
# The bound of what one take brings into memory.
MAX_TAKEN_BYTES = 4 * 1024 * 1024
# Longer than a request takes. The leases of a killed collector end after this time.
LEASE_S = 30.0
LOCK_TIMEOUT_S = 5.0
# Wait this long for a process that reads in the log, which then cannot be cut. The next wipe tries again.
WIPE_TIMEOUT_S = 0.2
# A page holds several traces. SQLite gives a row that does not fit pages of its own.
PAGE_BYTES = 16 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS destinations (
    id INTEGER PRIMARY KEY, url TEXT NOT NULL, token TEXT NOT NULL, send_timeout_s REAL NOT NULL,
    proxy_url TEXT NOT NULL, ca_file TEXT NOT NULL, headers TEXT NOT NULL,
    client_certificate TEXT NOT NULL, client_key TEXT NOT NULL,
    traces INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (url, token, send_timeout_s, proxy_url, ca_file, headers, client_certificate, client_key)
);
CREATE TABLE IF NOT EXISTS traces (
    number INTEGER PRIMARY KEY AUTOINCREMENT, trace_id BLOB NOT NULL UNIQUE, destination INTEGER NOT NULL,
    bytes INTEGER NOT NULL, stored_at REAL NOT NULL,
    leased_until REAL NOT NULL DEFAULT 0, owner BLOB, token_at INTEGER, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS queues ON traces (destination, number);
CREATE INDEX IF NOT EXISTS ages ON traces (destination, stored_at);
CREATE INDEX IF NOT EXISTS leases ON traces (leased_until) WHERE leased_until > 0;
CREATE TRIGGER IF NOT EXISTS one_more AFTER INSERT ON traces BEGIN
    UPDATE destinations SET traces = traces + 1, bytes = bytes + NEW.bytes WHERE id = NEW.destination;
END;
CREATE TRIGGER IF NOT EXISTS one_less AFTER DELETE ON traces BEGIN
    UPDATE destinations SET traces = traces - 1, bytes = bytes - OLD.bytes WHERE id = OLD.destination;
    DELETE FROM destinations WHERE id = OLD.destination AND traces = 0;
END;
"""
_FIELDS = "url, token, send_timeout_s, proxy_url, ca_file, headers, client_certificate, client_key"
# A lease that ends later than any can was made before the clock was set back.
_FREE = "(leased_until <= :now OR leased_until > :now + 2 * :lease_s)"


class OutboxFile:
    """The file in one directory. For use in one thread.

    `owner`: the id under which this collector and its successors lease. `state_dir`: the directory's name in traces'
    destinations. Raises sqlite3.Error if the file cannot be opened, made or written, OSError if it is not ours alone.
    """

    def __init__(self, directory: str, owner: bytes, state_dir: str = "", limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = os.path.join(directory, NAME)
        self.limit_bytes = limit_bytes
        self._owner = owner
        self._state_dir = state_dir
        self._lease_s = LEASE_S
        # A collector that was killed may have left deleted traces in the log.
        self._must_wipe = True
        # Made here, because SQLite would let others read it. Its companions take over its mode.
        private.own_database(self.path)
        self._inode = os.stat(self.path).st_ino
        # Only where there is something to store: without SQLite a collector is a megabyte smaller.
        import sqlite3

        self._db = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            private.own_database(self.path)
        except BaseException:
            self._db.close()
            raise

    @property
    def still_there(self) -> bool:
        """Whether the path still leads to this file. Another process may have set it aside or deleted it."""
        try:
            return os.stat(self.path, follow_symlinks=False).st_ino == self._inode
        except OSError:
            return False

    def put(self, parcels: Iterable[Parcel], now: float) -> list[bytes]:
        """Store traces, all or none; one that is there already stays. Return the ids of those dropped for them.

        Over the limit the oldest traces of the destination that holds the most are dropped, so that no destination
        takes another's share. `now`: unix seconds.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for parcel in parcels:
                self._insert(parcel, now)
            gone = self._make_room(now)
        return self._deleted(gone)

    def take(self, destination: Destination, limit: int, now: float) -> list[Parcel]:
        """Lease the oldest traces of a destination that no other collector leases, at most `limit`."""
        lease_s = self._lease_of(destination.send_timeout_s)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            rows = self._db.execute(
                f"SELECT number, trace_id, token_at, body FROM traces WHERE destination = :destination AND {_FREE} "
                "ORDER BY number LIMIT :limit",
                {"destination": self._id(destination), "now": now, "lease_s": lease_s, "limit": limit},
            )
            taken: list[tuple[int, Parcel]] = []
            size = 0
            for number, trace_id, token_at, body in rows:
                size += len(body)
                if taken and size > MAX_TAKEN_BYTES:
                    break
                taken.append((number, parcel_of(trace_id, destination, body, token_at)))
            leases = [(now + lease_s, self._owner, number) for number, _ in taken]
            self._db.executemany("UPDATE traces SET leased_until = ?, owner = ? WHERE number = ?", leases)
        return [parcel for _, parcel in taken]

    def give_back(self, trace_ids: Sequence[bytes]) -> None:
        """End the leases of these traces, and put them behind the others."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            # A trace that its backend chokes on must not hold up the others for ever.
            self._db.executemany(
                "UPDATE traces SET leased_until = 0, number = (SELECT max(number) + 1 FROM traces) WHERE trace_id = ?",
                [(trace_id,) for trace_id in trace_ids],
            )

    def take_over(self, arrived: Container[bytes] = ()) -> list[bytes]:
        """End the leases of this collector's predecessor, which is gone.

        Delete the traces among them that arrived; return their ids.
        """
        leased = "WHERE leased_until > 0 AND owner = ?"
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            found = self._db.execute(f"SELECT trace_id, destination FROM traces {leased}", (self._owner,)).fetchall()
            gone = [(trace_id, destination) for trace_id, destination in found if trace_id in arrived]
            self._db.executemany("DELETE FROM traces WHERE trace_id = ?", [(trace_id,) for trace_id, _ in gone])
            self._db.execute(f"UPDATE traces SET leased_until = 0 {leased}", (self._owner,))
        return self._deleted(gone)

    def remove(self, trace_ids: Sequence[bytes]) -> None:
        """Delete traces that are settled for good."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            delete = "DELETE FROM traces WHERE trace_id = ? RETURNING trace_id, destination"
            gone = [row for trace_id in trace_ids for row in self._db.execute(delete, (trace_id,)).fetchall()]
        self._deleted(gone)

    def wipe(self) -> None:
        """Free the space of deleted traces, and cut off the log, in which their bytes still stand.

        If another process reads the log at this moment, that is left to the next call.
        """
        if not self._must_wipe:
            return
        if not self.stored():
            # executescript runs it to the end; execute would free a single page.
            self._db.executescript("PRAGMA incremental_vacuum")
        self._db.execute(f"PRAGMA busy_timeout = {WIPE_TIMEOUT_S * 1000:.0f}").fetchall()
        (was_busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_S * 1000:.0f}").fetchall()
        self._must_wipe = bool(was_busy)

    def stored(self) -> dict[Destination, int]:
        """Return how many traces each destination has here, leased ones among them."""
        return {destination: amount.traces for destination, amount in self.amounts().items()}

    def amounts(self) -> dict[Destination, Amount]:
        """Return how much each destination has here, and since when."""
        oldest = "SELECT min(stored_at) FROM traces WHERE destination = destinations.id"
        rows = self._db.execute(f"SELECT {_FIELDS}, traces, bytes, ({oldest}) FROM destinations WHERE traces > 0")
        return {self.destination(fields): Amount(traces, size, since) for *fields, traces, size, since in rows}

    def destination(self, fields: Sequence[object]) -> Destination:
        """Return the destination whose columns these are."""
        url, token, send_timeout_s, proxy_url, ca_file, headers, certificate, key = fields
        return Destination(
            str(url),
            str(token),
            float(str(send_timeout_s)),
            str(proxy_url) or None,
            str(ca_file) or None,
            self._state_dir,
            str(headers),
            str(certificate) or None,
            str(key) or None,
        )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _deleted(self, gone: Sequence[tuple[bytes, int]]) -> list[bytes]:
        """Note that traces (id, destination) were deleted. Wipe if a destination went with them. Return the ids."""
        trace_ids, destinations = [trace_id for trace_id, _ in gone], {destination for _, destination in gone}
        self._must_wipe |= bool(trace_ids)
        find = "SELECT EXISTS (SELECT 1 FROM destinations WHERE id = ?)"
        if not all(self._db.execute(find, (destination,)).fetchone()[0] for destination in destinations):
            # The deletion is done. If the disk fails, the next call tells.
            with suppress(*failures()):
                self.wipe()
        return trace_ids

    def _prepare(self) -> None:
        # SQLite would keep what it needs to undo a statement in /var/tmp, /tmp or the current directory. With a
        # read-only root it could then insert, but neither lease nor delete.
        self._db.execute("PRAGMA temp_store = MEMORY")
        # These two only take effect in a file that is still empty.
        self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL").fetchall()
        # A stored trace must survive the machine's death, so each commit waits for the disk. It holds many traces.
        self._db.execute("PRAGMA synchronous = FULL")
        # Deleted bytes are overwritten, also in pages that become free. FAST would leave bodies in those.
        self._db.execute("PRAGMA secure_delete = ON").fetchall()
        self._db.execute("PRAGMA wal_autocheckpoint = 256").fetchall()
        self._db.execute(f"PRAGMA journal_size_limit = {LIMIT_BYTES // 16}").fetchall()
        if not self._db.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'one_less')").fetchone()[0]:
            self._db.executescript(_SCHEMA)

    def _insert(self, parcel: Parcel, now: float) -> None:
        token_at, body = format_for(parcel.destination).without_secret(parcel.body, parcel.destination)
        self._db.execute(
            f"INSERT OR IGNORE INTO destinations ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            _fields(parcel.destination),
        )
        self._db.execute(
            "INSERT OR IGNORE INTO traces (trace_id, destination, bytes, stored_at, token_at, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (parcel.trace_id, self._id(parcel.destination), len(body), now, token_at, body),
        )

    def _make_room(self, now: float) -> list[tuple[bytes, int]]:
        gone: list[tuple[bytes, int]] = []
        while self._used_bytes() > self.limit_bytes:
            largest, send_timeout_s = self._db.execute(
                "SELECT id, send_timeout_s FROM destinations ORDER BY bytes DESC LIMIT 1"
            ).fetchone() or (None, 0.0)
            rows = self._db.execute(
                "DELETE FROM traces WHERE number IN (SELECT number FROM traces WHERE destination = :largest "
                f"AND {_FREE} ORDER BY number LIMIT 16) RETURNING trace_id, destination",
                {"largest": largest, "now": now, "lease_s": self._lease_of(send_timeout_s)},
            ).fetchall()
            if not rows:
                break
            gone += rows
        return gone

    def _lease_of(self, send_timeout_s: float) -> float:
        return self._lease_s + 2 * send_timeout_s

    def _used_bytes(self) -> int:
        pages, free, page_bytes = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def _id(self, destination: Destination) -> int | None:
        condition = " AND ".join(f"{name} = ?" for name in _FIELDS.split(", "))
        row = self._db.execute(f"SELECT id FROM destinations WHERE {condition}", _fields(destination)).fetchone()
        return None if row is None else int(row[0])


def parcel_of(trace_id: bytes, destination: Destination, body: bytes, token_at: int | None) -> Parcel:
    """Return a stored trace as it was put. `token_at`: where its secret stood; None: its body is whole."""
    if token_at is not None:
        body = format_for(destination).with_secret(body, token_at, destination)
    return Parcel(trace_id, destination, body)


def failures(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the errors of SQLite and of files, and `others`, for an `except`."""
    import sqlite3

    return sqlite3.Error, OSError, *others


def is_corrupt(error: Exception) -> bool:
    """Say whether SQLite found a file that is damaged or no database."""
    import sqlite3

    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(path: str) -> str:
    """Move a file and its companions out of the way, over those set aside before. Return the new name."""
    aside = path + CORRUPT
    os.replace(path, aside)
    for companion in private.COMPANIONS:
        try:
            os.replace(path + companion, aside + companion)
        except FileNotFoundError:
            continue
    return aside


def _fields(destination: Destination) -> tuple[object, ...]:
    return (
        destination.url,
        destination.token,
        destination.send_timeout_s,
        # Not NULL, which equals nothing: the destination would never be found again.
        destination.proxy_url or "",
        destination.ca_file or "",
        destination.headers,
        destination.client_certificate or "",
        destination.client_key or "",
    )
