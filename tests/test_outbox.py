"""The outbox: what is in its file, what its thread reports, and what it does where there is no place for it."""

import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from places import Place, need_root, until
from servers import Server, status

from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.outbox import directory as directory_module
from epsagon_fast.collector.sending.outbox.file import LEASE_S, NAME, OutboxFile
from epsagon_fast.collector.sending.outbox.messages import Gone, Refused, Report, Stored, Taken, Unknown, Waiting
from epsagon_fast.collector.sending.outbox.outbox import Outbox

HERE = Destination("http://here/", "secret-token", 1.0)
THERE = Destination(
    "http://there/", "other-token", 2.0, "http://user:pass@proxy", "/ca.pem", "", '{"k":"v"}', "/a.pem", "/k.pem"
)
NOW = 1_700_000_000.0
LOG = logging.getLogger("test.outbox")


def parcel(number: int, destination: Destination = HERE, size_bytes: int = 0) -> Parcel:
    head = b'{"app_name":"x \\"token\\":","token":' + orjson.dumps(destination.token)
    body = head + b',"events":[],"filling":"' + b"x" * size_bytes + b'"}'
    return Parcel(number.to_bytes(16, "big"), destination, body)


def numbers(parcels: list[Parcel]) -> list[int]:
    return [int.from_bytes(each.trace_id, "big") for each in parcels]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OutboxFile]:
    opened = OutboxFile(str(tmp_path), b"us")
    yield opened
    opened.close()


@pytest.fixture
def other(file: OutboxFile, tmp_path: Path) -> Iterator[OutboxFile]:
    """The same file, as another collector has it open."""
    opened = OutboxFile(str(tmp_path), b"them")
    yield opened
    opened.close()


# The file


def test_what_is_stored_comes_back_byte_for_byte_and_oldest_first(file: OutboxFile) -> None:
    parcels = [parcel(1), parcel(2, THERE), parcel(3)]
    assert file.put(parcels, NOW) == []
    assert file.stored() == {HERE: 2, THERE: 1}
    assert file.take(HERE, 10, NOW) == [parcels[0], parcels[2]]
    assert file.take(THERE, 10, NOW) == [parcels[1]]


def test_how_much_waits_and_since_when_is_known(file: OutboxFile) -> None:
    file.put([parcel(1), parcel(2, THERE)], NOW)
    file.put([parcel(3)], NOW + 5)
    file.give_back([parcel(1).trace_id])
    here = file.amounts()[HERE]
    # Also one that was put behind the others is as old as it is.
    assert (here.traces, here.since) == (2, NOW)
    file.remove([parcel(1).trace_id])
    later = file.amounts()[HERE]
    assert (later.traces, later.since) == (1, NOW + 5)
    assert 0 < later.size_bytes < here.size_bytes


def test_a_body_of_no_known_form_is_kept_as_it_is(file: OutboxFile) -> None:
    strange = Parcel(bytes(16), HERE, b"\x00 no JSON")
    file.put([strange], NOW)
    assert file.take(HERE, 1, NOW) == [strange]


def test_a_trace_that_is_stored_again_stays_one(file: OutboxFile) -> None:
    file.put([parcel(1)], NOW)
    file.put([parcel(1)], NOW)
    assert file.stored() == {HERE: 1}


def test_secrets_go_with_their_last_trace(file: OutboxFile, tmp_path: Path) -> None:
    file.put([parcel(1), parcel(2), parcel(3, THERE)], NOW)
    file.remove([parcel(1).trace_id])
    assert b"secret-token" in everything(tmp_path)
    file.remove([parcel(2).trace_id])
    assert b"other-token" in everything(tmp_path)
    file.remove([parcel(3).trace_id])
    for secret in (b"secret-token", b"other-token", b"user:pass"):
        assert secret not in everything(tmp_path)


def test_a_destination_that_goes_leaves_nothing_in_any_file_while_others_stay(file: OutboxFile, tmp_path: Path) -> None:
    here, there = [parcel(number) for number in range(20)], [parcel(number, THERE) for number in range(20, 40)]
    for each in zip(here, there, strict=True):
        file.put(each, NOW)
    file.remove([each.trace_id for each in there])
    for trace in ("other-token", "user:pass", "http://there/"):
        assert trace.encode() not in everything(tmp_path)
    assert file.take(HERE, 50, NOW) == here


def test_what_was_delivered_is_wiped_though_its_destination_stays(file: OutboxFile, tmp_path: Path) -> None:
    # Bodies of less than a page, and of pages of their own, which are free afterwards.
    file.put([parcel(0), marked(1, 100), marked(2, 100_000)], NOW)
    file.wipe()
    assert everything(tmp_path).count(b"a customer") == 2
    file.remove([bytes(15) + b"\1", bytes(15) + b"\2"])
    file.wipe()
    assert b"a customer" not in everything(tmp_path)


def test_what_another_process_reads_meanwhile_is_wiped_later(file: OutboxFile, tmp_path: Path) -> None:
    file.put([parcel(1), parcel(2, THERE)], NOW)
    reader = sqlite3.connect(file.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM traces").fetchall()
    file.remove([parcel(2).trace_id])
    assert b"other-token" in everything(tmp_path)
    reader.close()
    file.wipe()
    assert b"other-token" not in everything(tmp_path)


def marked(number: int, size_bytes: int) -> Parcel:
    return Parcel(number.to_bytes(16, "big"), HERE, b"a customer" + b"x" * size_bytes)


@pytest.mark.root
def test_it_needs_no_temporary_directory(tmp_path: Path) -> None:
    need_root()
    # All that exists is read-only, but for the outbox's own directory.
    mounts = "mount -t tmpfs tmpfs /mnt && mount --bind / / && mount -o remount,ro,bind / && cd /"
    subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", sys.executable, "-c", USED], check=True
    )


USED = f"""
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.outbox.file import OutboxFile

here = Destination("http://here/", "t", 1.0)
parcels = [Parcel(number.to_bytes(16, "big"), here, b"x" * 20_000) for number in range(20)]
file = OutboxFile("/mnt", b"us")
file.put(parcels, {NOW})
assert file.take(here, 20, {NOW}) == parcels
file.give_back([parcel.trace_id for parcel in parcels])
file.remove([parcel.trace_id for parcel in parcels])
assert file.stored() == {{}}
"""


def test_bodies_are_kept_without_their_token(file: OutboxFile) -> None:
    file.put([parcel(number) for number in range(50)], NOW)
    with sqlite3.connect(file.path) as database:
        bodies = [body for (body,) in database.execute("SELECT body FROM traces")]
    database.close()
    assert len(bodies) == 50
    assert not any(b"secret-token" in body for body in bodies)


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


def test_its_files_are_for_us_alone(file: OutboxFile, tmp_path: Path) -> None:
    file.put([parcel(1)], NOW)
    files = list(tmp_path.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_leased_trace_is_nobody_else_s(file: OutboxFile, other: OutboxFile) -> None:
    file.put([parcel(number) for number in range(3)], NOW)
    assert numbers(file.take(HERE, 2, NOW)) == [0, 1]
    assert numbers(other.take(HERE, 5, NOW)) == [2]
    file.give_back([parcel(0).trace_id])
    assert numbers(other.take(HERE, 5, NOW)) == [0]


def test_a_lease_runs_out(file: OutboxFile, other: OutboxFile) -> None:
    file.put([parcel(1)], NOW)
    file.take(HERE, 1, NOW)
    lease_s = LEASE_S + 2 * HERE.send_timeout_s
    assert other.take(HERE, 1, NOW + lease_s - 1) == []
    assert numbers(other.take(HERE, 1, NOW + lease_s)) == [1]


def test_a_lease_from_before_the_clock_was_set_back_counts_for_nothing(file: OutboxFile, other: OutboxFile) -> None:
    file.put([parcel(1)], NOW)
    file.take(HERE, 1, NOW)
    assert numbers(other.take(HERE, 1, NOW - 3600)) == [1]


def test_a_successor_takes_over_at_once(file: OutboxFile, tmp_path: Path) -> None:
    file.put([parcel(1)], NOW)
    file.take(HERE, 1, NOW)
    successor = OutboxFile(str(tmp_path), b"us")
    assert successor.take(HERE, 1, NOW) == []
    successor.take_over()
    assert numbers(successor.take(HERE, 1, NOW)) == [1]
    successor.close()


def test_a_successor_deletes_what_had_arrived(file: OutboxFile, other: OutboxFile, tmp_path: Path) -> None:
    file.put([parcel(1), parcel(2), parcel(3), parcel(4)], NOW)
    file.take(HERE, 2, NOW)
    other.take(HERE, 1, NOW)
    successor = OutboxFile(str(tmp_path), b"us")
    arrived = {parcel(number).trace_id for number in (2, 3, 9)}
    assert successor.take_over(arrived) == [parcel(2).trace_id]
    assert successor.stored() == {HERE: 3}
    assert numbers(successor.take(HERE, 9, NOW)) == [1, 4]
    successor.close()


def test_what_is_given_back_comes_after_the_others(file: OutboxFile) -> None:
    file.put([parcel(1), parcel(2)], NOW)
    file.take(HERE, 1, NOW)
    file.give_back([parcel(1).trace_id])
    assert numbers(file.take(HERE, 2, NOW)) == [2, 1]


def test_over_the_limit_the_oldest_go_of_the_destination_that_holds_the_most(tmp_path: Path) -> None:
    file = OutboxFile(str(tmp_path), b"us", limit_bytes=2 * 1024 * 1024)
    small = [parcel(number, THERE, 1000) for number in range(100)]
    file.put(small, NOW)
    gone: list[bytes] = []
    for number in range(1000, 1400):
        gone += file.put([parcel(number, HERE, 10_000)], NOW)
    assert file.stored()[THERE] == 100
    kept = file.stored()[HERE]
    assert 80 < kept < 200
    assert [int.from_bytes(trace_id, "big") for trace_id in gone] == list(range(1000, 1400 - kept))
    assert os.path.getsize(file.path) < 3 * 1024 * 1024
    file.close()


@pytest.mark.parametrize("send_timeout_s", [1.0, 60.0])
def test_what_is_being_sent_does_not_make_room(tmp_path: Path, send_timeout_s: float) -> None:
    here = HERE._replace(send_timeout_s=send_timeout_s)
    file = OutboxFile(str(tmp_path), b"us", limit_bytes=1024 * 1024)
    file.put([parcel(0, here, 10_000)], NOW)
    file.take(here, 1, NOW)
    for number in range(1, 200):
        assert parcel(0).trace_id not in file.put([parcel(number, here, 10_000)], NOW)
    file.close()


def test_an_emptied_file_gives_its_space_back(file: OutboxFile) -> None:
    parcels = [parcel(number, HERE, 10_000) for number in range(500)]
    file.put(parcels, NOW)
    file.remove([each.trace_id for each in parcels])
    assert os.path.getsize(file.path) < 256 * 1024


# Its thread


class Box:
    """An Outbox whose reports are collected."""

    def __init__(self, folder: Path) -> None:
        self.outbox = Outbox(str(folder), b"us", log=LOG)
        self.heard: list[Report] = []

    def hear(self, kind: type) -> Report:
        def found() -> list[Report]:
            self.heard += self.outbox.reports()
            return [report for report in self.heard if isinstance(report, kind)]

        report = until(found, f"the outbox reports {kind.__name__}")[0]
        self.heard.remove(report)
        return report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def box(folder: Path) -> Iterator[Box]:
    own = Box(folder)
    yield own
    own.outbox.close(5.0)


def at(directory: Path, number: int = 1) -> Parcel:
    return parcel(number, HERE._replace(state_dir=str(directory)))


def test_a_trace_is_stored_taken_and_removed(box: Box, tmp_path: Path) -> None:
    state_dir = tmp_path / "deep" / "state"
    mine = at(state_dir)
    box.outbox.put(mine)
    assert box.hear(Stored) == Stored([mine.trace_id])
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert box.hear(Waiting) == Waiting(str(state_dir), str(state_dir), {mine.destination: 1})
    box.outbox.take(mine.destination, 5)
    assert box.hear(Taken) == Taken(mine.destination, [mine])
    box.hear(Waiting)
    box.outbox.remove(mine)
    assert box.hear(Waiting) == Waiting(str(state_dir), str(state_dir), {})


def test_watching_creates_nothing(box: Box, tmp_path: Path) -> None:
    box.outbox.watch(str(tmp_path / "state"))
    box.outbox.take(HERE._replace(state_dir=str(tmp_path / "state")), 1)
    assert box.hear(Taken)
    assert not (tmp_path / "state").exists()


def test_what_a_predecessor_left_is_seen(box: Box, tmp_path: Path) -> None:
    left = OutboxFile(str(tmp_path), b"them", str(tmp_path))
    left.put([at(tmp_path)], time.time())
    left.close()
    box.outbox.watch(str(tmp_path))
    assert box.hear(Waiting) == Waiting(str(tmp_path), str(tmp_path), {at(tmp_path).destination: 1})


def test_closing_ends_our_leases(box: Box, tmp_path: Path) -> None:
    mine = at(tmp_path)
    box.outbox.put(mine)
    box.outbox.take(mine.destination, 1)
    box.hear(Taken)
    box.outbox.close(5.0)
    other = OutboxFile(str(tmp_path), b"them", str(tmp_path))
    assert other.take(mine.destination, 1, time.time()) == [mine]
    other.close()


@pytest.mark.parametrize(
    "spoil", ["is a file", "is a link", "is open to others", "can be replaced", "is on NFS", "is not named"]
)
def test_without_a_state_directory_the_folder_serves_with_one_warning(
    spoil: str,
    box: Box,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state_dir = tmp_path / "state"
    if spoil == "is a file":
        state_dir.touch()
    elif spoil == "is a link":
        state_dir.symlink_to(folder)
    elif spoil == "is open to others":
        state_dir.mkdir()
        state_dir.chmod(0o777)
    elif spoil == "can be replaced":
        tmp_path.chmod(0o777)
    elif spoil == "is on NFS":
        monkeypatch.setattr(directory_module, "filesystems", lambda path: ["nfs4"])
    for number in range(2):
        mine = parcel(number, HERE._replace(state_dir="" if spoil == "is not named" else str(state_dir)))
        box.outbox.put(mine)
        assert box.hear(Stored) == Stored([mine.trace_id])
    assert (folder / NAME).exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "does not survive a reboot" in caplog.text


def test_nothing_is_made_on_a_way_that_others_can_change(tmp_path: Path) -> None:
    # As where root has the environment of a user: no directory of root's may be left in that user's home.
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    with pytest.raises(OSError, match="others can rename what is in"):
        directory_module.own_state_directory(str(home / ".local" / "state" / "epsagon-fast"))
    assert list(home.iterdir()) == []


def test_a_state_directory_on_a_dead_mount_holds_up_no_other(
    box: Box, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, own = threading.Event(), directory_module.own_state_directory

    def own_state_directory(path: str) -> None:
        assert "dead" not in path or back.wait(60)
        own(path)

    monkeypatch.setattr(directory_module, "own_state_directory", own_state_directory)
    monkeypatch.setattr(directory_module, "LOOK_TIMEOUT_S", 0.05)
    box.outbox.put(at(tmp_path / "dead", 1))
    box.outbox.put(at(tmp_path / "state", 2))
    stored = {(report.directory) for report in (box.hear(Waiting), box.hear(Waiting)) if isinstance(report, Waiting)}
    back.set()
    # What has no place of its own is kept in the collector's folder.
    assert stored == {str(folder), str(tmp_path / "state")}


def test_a_corrupt_file_is_set_aside_and_a_new_one_made(
    box: Box, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).touch(0o600)
    (tmp_path / NAME).write_bytes(b"not a database " * 1000)
    box.outbox.put(at(tmp_path))
    assert box.hear(Refused) == Refused([at(tmp_path).trace_id])
    box.outbox.put(at(tmp_path))
    assert box.hear(Stored)
    assert (tmp_path / f"{NAME}.corrupt").read_bytes().startswith(b"not a database")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("name", [NAME, f"{NAME}-wal"])
def test_a_file_that_others_can_read_along_gets_no_trace(box: Box, tmp_path: Path, name: str) -> None:
    box.outbox.put(at(tmp_path))
    box.hear(Stored)
    box.outbox.close(5.0)
    before = (tmp_path / NAME).read_bytes()
    (tmp_path / name).touch()
    (tmp_path / name).chmod(0o644)
    again = Box(tmp_path / "folder")
    again.outbox.put(at(tmp_path))
    assert again.hear(Refused)
    again.outbox.close(5.0)
    assert (tmp_path / NAME).read_bytes() == before


def test_damage_inside_a_file_is_noticed_too(box: Box, tmp_path: Path) -> None:
    box.outbox.put(at(tmp_path))
    box.hear(Stored)
    box.outbox.close(5.0)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:16384] + b"\xff" * 200_000)
    successor = Box(tmp_path)
    successor.outbox.put(at(tmp_path, 2))
    assert successor.hear(Refused)
    successor.outbox.put(at(tmp_path, 2))
    assert successor.hear(Stored)
    successor.outbox.close(5.0)


def test_a_file_that_cannot_be_opened_refuses_and_is_said_once(
    box: Box, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "LOOK_S", 0.0)
    (tmp_path / NAME).mkdir()
    for number in range(3):
        box.outbox.put(at(tmp_path, number))
        box.hear(Refused)
        assert box.hear(Unknown) == Unknown(str(tmp_path))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "outbox_unavailable" in caplog.text
    (tmp_path / NAME).rmdir()
    box.outbox.put(at(tmp_path))
    assert box.hear(Stored)


def test_a_full_file_refuses_and_keeps_what_it_has(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box.outbox.put(at(tmp_path))
    box.hear(Stored)
    # SQLite's word for a full disk.
    file = box.outbox._directories[str(tmp_path)]._file
    assert file is not None
    file._db.execute("PRAGMA max_page_count = 1")
    box.outbox.put(parcel(2, at(tmp_path).destination, 500_000))
    assert box.hear(Refused)
    monkeypatch.setattr(box.outbox._directories[str(tmp_path)], "_retry_at", 0.0)
    box.outbox.take(at(tmp_path).destination, 5)
    assert box.hear(Taken) == Taken(at(tmp_path).destination, [at(tmp_path)])


def test_a_file_that_was_deleted_is_made_again(box: Box, tmp_path: Path) -> None:
    box.outbox.put(at(tmp_path))
    box.hear(Stored)
    for path in tmp_path.glob(f"{NAME}*"):
        path.unlink()
    box.outbox.put(at(tmp_path, 2))
    assert box.hear(Stored)
    assert (tmp_path / NAME).exists()


def test_the_oldest_make_room(tmp_path: Path, folder: Path) -> None:
    box = Box(folder)
    box.outbox._limit_bytes = 1024 * 1024
    for number in range(20):
        box.outbox.put(parcel(number, at(tmp_path).destination, 100_000))
    assert box.hear(Gone)
    box.outbox.close(5.0)


# With real processes

TRACES = """
import sys, epsagon_fast as epsagon
for number in range(int(sys.argv[1])):
    with epsagon.trace(f"work {number}") as tracer:
        tracer.add_event({"id": str(number)})
print(epsagon.flush(float(sys.argv[2]) if len(sys.argv) > 2 else 10), flush=True)
"""


@pytest.fixture
def away() -> Iterator[Server]:
    """A backend that is not well until `behave` says otherwise."""
    with Server(status(503)) as server:
        yield server


@pytest.fixture
def far(away: Server) -> Iterator[Place]:
    """A place that leads there."""
    place = Place(away.url)
    yield place
    place.close()


def gauge(place: Place, name: str) -> int:
    return place.look().gauges[name]


def test_a_backend_that_is_away_gets_everything_once_it_is_back(away: Server, far: Place) -> None:
    # Stored counts as settled, so nobody waits for a backend that is not well.
    assert far.run(TRACES, "20") == "True\n"
    until(lambda: gauge(far, "stored") == 20, f"all are stored; {far.log()}")
    assert gauge(far, "pending") == 0
    away.behave = status(200)
    until(lambda: gauge(far, "stored") == 0, f"all are sent; {far.log()}")
    far.until_left()
    counters = far.look().counters
    assert (counters["stored"], counters["stored_503"], counters["delivered"]) == (20, 20, 20)
    assert not far.log().count("secret-token")


def test_a_killed_collector_s_stored_traces_are_sent_by_the_next_one(away: Server, far: Place) -> None:
    far.run(TRACES, "5")
    until(lambda: gauge(far, "stored") == 5, f"all are stored; {far.log()}")
    os.kill(far.the_collector(), signal.SIGKILL)
    far.until_left()
    away.behave = status(200)
    far.run(TRACES, "1")
    until(lambda: far.look().counters["delivered"] == 6, f"all are sent; {far.log()}")


def test_a_collector_of_another_folder_takes_them_over(away: Server, far: Place) -> None:
    far.run(TRACES, "5")
    until(lambda: gauge(far, "stored") == 5, f"all are stored; {far.log()}")
    # It is asked to leave: it gives its leases back.
    os.kill(far.the_collector(), signal.SIGTERM)
    far.until_left()
    away.behave = status(200)
    other = Place(away.url, EPSAGON_STATE_DIR=far.settings["EPSAGON_STATE_DIR"])
    try:
        other.run(TRACES, "1")
        until(lambda: other.look().counters.get("delivered") == 6, f"all are sent; {other.log()}")
    finally:
        other.close()


def test_a_process_hears_that_its_stored_trace_was_delivered(away: Server, far: Place) -> None:
    script = """
import sys, epsagon_fast as epsagon
tracer = epsagon.create_tracer()
tracer.start()
print(tracer.stop(60).name, flush=True)
sys.stdin.readline()
print(tracer.stop(60).name, flush=True)
"""
    with far.start(script, stdin=-1) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "STORED\n"
        away.behave = status(200)
        until(lambda: gauge(far, "stored") == 0, f"it is sent; {far.log()}")
        out, _ = process.communicate("\n")
        assert out == "DELIVERED\n"


def test_a_state_directory_that_cannot_be_written_stops_nothing(away: Server, far: Place) -> None:
    Path(far.settings["EPSAGON_STATE_DIR"], NAME).mkdir(parents=True)
    assert far.run(TRACES, "5", "0.1") == "False\n"
    until(lambda: far.look().counters.get("outbox_unavailable", 0) > 0, "it is counted")
    assert "outbox_unavailable" in far.log()
    away.behave = status(200)
    until(lambda: far.look().counters.get("delivered") == 5, f"all are sent; {far.log()}")
