"""Outbox files of other versions: their traces move into this version's, and none is left behind or doubled."""

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from places import Place, until
from servers import Server
from test_orphans import OLDER, forsaken
from waiting import TIMEOUT_S

from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.outbox import directory as directory_module
from epsagon_fast.collector.sending.outbox.directory import StateDirectory
from epsagon_fast.collector.sending.outbox.file import NAME, OutboxFile
from epsagon_fast.collector.sending.outbox.messages import Gone, Orders, Stored, Waiting
from epsagon_fast.collector.sending.outbox.older import move, newer, number_of, older

NOW = 1_700_000_000.0
LOG = logging.getLogger("test.older")
# The columns of a destination in each schema, after which they are numbered.
FIRST = ("url", "token", "send_timeout_s", "proxy_url", "ca_file")
SCHEMAS = {
    "outbox-1.db": FIRST,
    "outbox-2.db": (*FIRST, "headers"),
    "outbox-02.db": (*FIRST, "headers", "client_certificate", "client_key"),
}
WHOLE = Destination("http://there/", "secret", 2.0, "http://proxy", "/ca.pem", "", '{"k":"v"}', "/a.pem", "/k.pem")
TOKEN_AT = len(b'{"app_name":"x","token":')


def stored(directory: Path, name: str, count: int, destination: Destination = WHOLE, leased_until: float = 0.0) -> Path:
    """Make an older file with traces numbered from 1, as its version stored them: without their token."""
    path = directory / name
    fields = SCHEMAS[name]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"CREATE TABLE destinations (id INTEGER PRIMARY KEY, {', '.join(fields)}, traces, bytes)")
        db.execute(
            "CREATE TABLE traces (number INTEGER PRIMARY KEY, trace_id BLOB UNIQUE, destination, bytes, "
            "leased_until REAL, owner BLOB, token_at INTEGER, body BLOB)"
        )
        values = [getattr(destination, field) or "" for field in fields]
        db.execute(f"INSERT INTO destinations VALUES (1, {', '.join('?' * len(fields))}, 0, 0)", values)
        for number in range(1, count + 1):
            db.execute(
                "INSERT INTO traces VALUES (?, ?, 1, 0, ?, NULL, ?, ?)",
                (number, number.to_bytes(16, "big"), leased_until, TOKEN_AT, b'{"app_name":"x","token":,"events":[]}'),
            )
    path.chmod(0o600)
    return path


def parcel(number: int, destination: Destination = WHOLE) -> Parcel:
    body = b'{"app_name":"x","token":"' + destination.token.encode() + b'","events":[]}'
    return Parcel(number.to_bytes(16, "big"), destination, body)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OutboxFile]:
    opened = OutboxFile(str(tmp_path), b"us")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", SCHEMAS)
def test_traces_of_each_schema_move_whole_and_in_their_order(file: OutboxFile, tmp_path: Path, name: str) -> None:
    path = stored(tmp_path, name, 3)
    known = {field: getattr(WHOLE, field) for field in SCHEMAS[name]}
    destination = Destination(**known)
    assert move(str(path), file, NOW) == (3, [])
    assert file.take(destination, 10, NOW) == [parcel(number, destination) for number in (1, 2, 3)]
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(name)]


def test_a_trace_that_the_older_collector_sends_stays_until_its_lease_ends(file: OutboxFile, tmp_path: Path) -> None:
    path = stored(tmp_path, "outbox-2.db", 1, leased_until=NOW + 30)
    assert move(str(path), file, NOW) == (0, [])
    assert path.exists()
    assert move(str(path), file, NOW + 31) == (1, [])
    assert not path.exists()


def test_a_move_that_is_broken_off_doubles_no_trace(
    file: OutboxFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path, "outbox-2.db", 2)
    put = file.put

    def put_and_break(parcels: list[Parcel], now: float) -> list[bytes]:
        put(parcels, now)
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(file, "put", put_and_break)
    with pytest.raises(OSError, match="the disk is gone"):
        move(str(path), file, NOW)
    monkeypatch.setattr(file, "put", put)
    assert move(str(path), file, NOW) == (2, [])
    assert list(file.stored().values()) == [2]


HOLDS = "import sys; held = open(sys.argv[1], 'rb'); print(flush=True); sys.stdin.read()"


def test_a_file_that_an_older_collector_has_open_is_emptied_and_kept(file: OutboxFile, tmp_path: Path) -> None:
    path = stored(tmp_path, "outbox-2.db", 1)
    with subprocess.Popen([sys.executable, "-c", HOLDS, path], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert move(str(path), file, NOW) == (1, [])
        assert path.exists()
        holder.communicate(timeout=TIMEOUT_S)
    assert move(str(path), file, NOW) == (0, [])
    assert not path.exists()


def putting(number: int) -> Orders:
    orders = Orders()
    orders.puts.append(parcel(number))
    return orders


def serve(directory: Path, monkeypatch: pytest.MonkeyPatch, orders: Orders | None = None) -> list[object]:
    """Let a state directory be looked at as at its start."""
    monkeypatch.setattr(directory_module, "own_state_directory", lambda path: None)
    place = StateDirectory(str(directory), "/nowhere", LOG, 64 << 20, b"us")
    try:
        return list(place.serve(orders or Orders()))
    finally:
        place.close()


def test_a_collector_s_first_look_finds_them_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = stored(tmp_path, "outbox-2.db", 2)
    reports = serve(tmp_path, monkeypatch)
    [waiting] = [report for report in reports if isinstance(report, Waiting)]
    assert sum(waiting.counts.values()) == 2
    assert caplog.messages == [f"2 traces of an older version were taken over from {path}"]


def test_what_makes_room_for_them_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path, "outbox-2.db", 2)
    monkeypatch.setattr(OutboxFile, "put", lambda self, parcels, now: [each.trace_id for each in parcels])
    reports = serve(tmp_path, monkeypatch)
    assert [report for report in reports if isinstance(report, Gone)] == [Gone([bytes(15) + b"\1", bytes(15) + b"\2"])]


def test_a_file_that_cannot_be_read_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox-1.db"
    path.write_bytes(b"no database" * 1000)
    path.chmod(0o600)
    reports = serve(tmp_path, monkeypatch, putting(1))
    assert Stored([parcel(1).trace_id]) in reports
    assert [message for message in caplog.messages if str(path) in message] == [
        f"traces in {path} cannot be taken over ('file is not a database')"
    ]
    assert path.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("wrong", ["traces SET body = 'text'", "destinations SET send_timeout_s = 'soon'"])
def test_a_value_of_another_type_in_a_file_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    path = stored(tmp_path, "outbox-2.db", 2)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE {wrong}")
    reports = serve(tmp_path, monkeypatch, putting(3))
    assert Stored([parcel(3).trace_id]) in reports
    assert [message for message in caplog.messages if f"{path} cannot be taken over" in message]
    assert older(str(tmp_path)) == [str(path)]


def test_a_newer_version_s_file_is_left_to_it_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"outbox-{number_of(NAME) + 1}.db"
    path.write_bytes(b"of the future")
    serve(tmp_path, monkeypatch, putting(1))
    assert caplog.messages == [f"traces in {path} wait for the newer version that stored them"]
    assert path.read_bytes() == b"of the future"


def test_only_files_of_that_name_count(tmp_path: Path) -> None:
    for name in ("outbox-1.db.corrupt", "outbox-.db", "outbox-x.db", "xoutbox-1.db", "outbox-1.db-wal", NAME):
        (tmp_path / name).touch()
    assert (older(str(tmp_path)), newer(str(tmp_path)), older(str(tmp_path / "none"))) == ([], [], [])


def test_a_trace_stored_by_an_older_version_is_delivered_after_an_upgrade(place: Place) -> None:
    with Server() as server:
        state_dir = Path(place.settings["EPSAGON_STATE_DIR"])
        state_dir.mkdir(0o700)
        stored(state_dir, "outbox-2.db", 1, Destination(server.url, "secret", 5.0))
        place.run("import epsagon_fast\nwith epsagon_fast.trace('t'): pass")
        [request] = server.wait_for(1)
        assert request.body == parcel(1).body


def test_an_older_version_s_folder_goes_with_no_trace_left_in_it(place: Place) -> None:
    with Server() as server:
        folder = Path(place.runtime_dir, OLDER)
        folder.mkdir(0o700)
        forsaken(folder)
        stored(folder, "outbox-2.db", 3, Destination(server.url, "secret", 5.0))
        place.run("import epsagon_fast\nwith epsagon_fast.trace('t'): pass")
        until(lambda: not folder.exists(), lambda: f"it is removed: {place.log()}\n{os.listdir(folder)}")
        assert len(server.requests) == 3
