"""Folders that nobody serves any more, with real processes."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from places import Place, until
from servers import Server, hang, status

from epsagon_fast.backend import Backend
from epsagon_fast.collector.measuring import figures
from epsagon_fast.collector.measuring.keys import REQUEST
from epsagon_fast.collector.orphans import SILENT_S
from epsagon_fast.queue import state as states
from epsagon_fast.queue.state import StatePage

# Like our own, of another version.
OLDER = "0.0.1-1-2-3-4"
KILLED = """
import os, signal, epsagon_fast as epsagon
with epsagon.trace("closed"):
    epsagon.add_event({"id": "one"})
with epsagon.trace("open"):
    epsagon.add_event({"id": "two"})
    os.kill(os.getpid(), signal.SIGKILL)
"""
ONE_TRACE = """
import epsagon_fast as epsagon
with epsagon.trace("own"):
    pass
"""


@pytest.fixture
def orphan(place: Place) -> Path:
    """A folder with the ring of a process that was killed, in which no collector ever was."""
    with place.start(KILLED, env={"EPSAGON_LAUNCH": "0"}) as process:
        process.communicate()
    path = Path(place.runtime_dir, OLDER)
    os.rename(place.folder, path)
    return path


def forsaken(path: Path, silent_s: float = SILENT_S + 1) -> None:
    """Write into a folder's state page that its last collector beat so long ago."""
    fd = os.open(path, os.O_RDONLY)
    try:
        state = StatePage(fd, create=True)
        state.store(states.HEARTBEAT_NS, max(1, time.monotonic_ns() - int(silent_s * 1e9)))
        state.close()
    finally:
        os.close(fd)


def names(backend: Backend) -> list[str]:
    return sorted(trace["name"] for trace in runners(backend))


def runners(backend: Backend) -> list[dict]:
    return [json.loads(body)["events"][-1]["resource"] for _, body in backend.store.bodies()]


def test_its_traces_are_delivered_and_it_is_removed(backend: Backend, place: Place, orphan: Path) -> None:
    forsaken(orphan)
    place.run(ONE_TRACE)
    until(lambda: backend.store.counts()["traces"] == 3, f"all arrive; {place.log()}")
    until(lambda: not orphan.exists(), "it is removed")
    assert names(backend) == ["closed", "open", "own"]
    place.until_left()
    assert place.look().counters["adopted_folders"] == 1
    # Their folder is gone, so their requests are counted where they were served.
    counted = figures.view(place.look()).histograms(REQUEST, 2)
    assert {name: each.count for (_, name), each in counted.items()} == {"closed": 1, "open": 1, "own": 1}


def test_its_journal_is_read_too(place: Place, backend: Backend) -> None:
    with Server(hang) as slow:
        place.env["EPSAGON_COLLECTOR_URL"] = slow.url
        place.env["EPSAGON_SEND_TIMEOUT_SEC"] = "60"
        place.run(ONE_TRACE)
        slow.wait_for(1)
        until(lambda: not list(Path(place.folder).glob("*.ring")), "the process has ended")
        os.kill(place.the_collector(), signal.SIGKILL)
        place.until_left()
        path = Path(place.runtime_dir, OLDER)
        os.rename(place.folder, path)
        forsaken(path)
        slow.behave = status(200)
        place.env["EPSAGON_COLLECTOR_URL"] = backend.url
        place.run(ONE_TRACE)
        slow.wait_for(2)
        until(lambda: not path.exists(), f"it is done; {place.log()}")


def test_what_it_had_in_its_own_outbox_is_sent_before_it_goes(place: Place, backend: Backend) -> None:
    with Server(status(503)) as away:
        # No state directory: undelivered traces wait in the folder.
        Path(place.settings["EPSAGON_STATE_DIR"]).touch()
        place.env["EPSAGON_COLLECTOR_URL"] = away.url
        place.run(ONE_TRACE)
        until(lambda: place.look().gauges["stored"] == 1, f"it is stored; {place.log()}")
        os.kill(place.the_collector(), signal.SIGKILL)
        place.until_left()
        path = Path(place.runtime_dir, OLDER)
        os.rename(place.folder, path)
        forsaken(path)
        place.env["EPSAGON_COLLECTOR_URL"] = backend.url
        place.run(ONE_TRACE)
        until(lambda: f"serving {path} too" in place.log(), "it is found")
        away.behave = status(200)
        until(lambda: not path.exists(), f"it is done; {place.log()}")
        assert away.requests[-1].body


SHAPED = OLDER.replace("0.0.1", "2024.1.7")
# By what is in them they might be ours.
FOREIGN = {
    "2024": {"bell.ring": b"RIFF a sound", "ledger.csv": b"important\n"},
    SHAPED: {"bell.ring": b"RIFF a sound", "state": b"my program's own state\n", "ledger.csv": b"important\n"},
    SHAPED + "5": {"state": b"", "log": b"important\n", "journal-0000000000000001": b"dear diary"},
    SHAPED + "6": {"0" * 32 + ".ring": b"RIFF a sound" * 100, "start": b"important\n"},
    "7": {"state": b"", "outbox-3.db": b"important\n"},
}


def test_folders_of_others_are_left_as_they_are(place: Place) -> None:
    for name, files in FOREIGN.items():
        plant(Path(place.runtime_dir, name), files)
    place.run(ONE_TRACE)
    place.until_left()
    for name, files in FOREIGN.items():
        found = {path.name: path.read_bytes() for path in Path(place.runtime_dir, name).iterdir()}
        assert found == files
    assert "too, which" not in place.log()


def plant(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(0o700, exist_ok=True)
    for name, content in files.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    # Long ago, by the clock.
    os.utime(folder, (1, 1))


def test_what_is_not_ours_in_a_folder_of_ours_stays_there(backend: Backend, place: Place, orphan: Path) -> None:
    kept = {
        "ledger.csv": b"important\n",
        "bell.ring": b"RIFF a sound",
        "journal-1": b"dear diary",
        "journal-0000000000000009.corrupt": b"what was set aside",
        "outbox-3.db.corrupt": b"what was set aside",
    }
    forsaken(orphan)
    plant(orphan, {**kept, "log": b"why it was set aside\n"})
    place.run(ONE_TRACE)
    until(lambda: backend.store.counts()["traces"] == 3, f"all arrive; {place.log()}")
    place.until_left()
    assert {path.name: path.read_bytes() for path in orphan.iterdir()} == {**kept, "log": b"why it was set aside\n"}
    assert "is done and removed" not in place.log()


@pytest.mark.parametrize("reason", ["it was alive a moment ago", "it is new", "it is open to others", "it has no name"])
def test_others_are_left_alone(reason: str, place: Place, orphan: Path) -> None:
    if reason == "it was alive a moment ago":
        forsaken(orphan, 1.0)
    elif reason == "it is open to others":
        forsaken(orphan)
        orphan.chmod(0o755)
    elif reason == "it has no name":
        forsaken(orphan)
        os.rename(orphan, orphan.parent / "mail")
    before = contents(orphan.parent, place)
    place.run(ONE_TRACE)
    place.until_left()
    assert contents(orphan.parent, place) == before
    assert "too, which" not in place.log()


def contents(base: Path, place: Place) -> list[str]:
    return sorted(str(path) for path in base.rglob("*") if not str(path).startswith(place.folder))


def test_one_whose_processes_live_is_left_to_them(place: Place) -> None:
    script = ONE_TRACE + "import sys; sys.stdin.read()"
    with place.start(script, stdin=-1, env={"EPSAGON_LAUNCH": "0"}) as process:
        until(lambda: os.path.isdir(place.folder) and place.look().rings, "its ring is there")
        path = Path(place.runtime_dir, OLDER)
        os.rename(place.folder, path)
        forsaken(path)
        place.run(ONE_TRACE)
        place.until_left()
        assert list(path.glob("*.ring"))
        process.communicate("")


@pytest.mark.root
def test_one_whose_processes_live_in_another_container_is_left_to_them(place: Place) -> None:
    # Their pids mean nothing here: the ring says process 1, which is another one.
    script = ONE_TRACE + "import sys; sys.stdin.read()"
    unshare = ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", sys.executable]
    with place.start(script, stdin=-1, env={"EPSAGON_LAUNCH": "0"}, program=unshare) as process:
        (ring,) = until(lambda: [*Path(place.runtime_dir).glob("*/*.ring")], "its ring is there")
        path = ring.parent
        forsaken(path)
        place.run(ONE_TRACE)
        place.until_left()
        assert list(path.glob("*.ring")) and "too, which" not in place.log()
        process.communicate("")


def test_one_that_cannot_be_served_harms_nobody(backend: Backend, place: Place, orphan: Path) -> None:
    forsaken(orphan)
    # A name that is no segment's content: replay must not be able to open a directory's place.
    (orphan / "journal-0000000000000001").mkdir()
    for ring in orphan.glob("*.ring"):
        ring.write_bytes(b"\xff" * 100)
    place.run(ONE_TRACE)
    until(lambda: "own" in names(backend), f"our own arrives; {place.log()}")
    place.until_left()
