"""`epsagon-fast status`, from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from places import Place, until
from waiting import TIMEOUT_S

from epsagon_fast import compiled
from epsagon_fast.backend import Backend
from epsagon_fast.commands import status
from epsagon_fast.queue.overview import Overview, RingView, SetAside

WORKER = """
import sys, epsagon_fast as epsagon
with epsagon.trace("main"): pass
epsagon.add_event({})
assert epsagon.flush(60)
print(flush=True)
sys.stdin.read()
"""
ESCAPE = "\x1b[2J"
SEEN = Overview(
    path="/dev/shm/folder",
    pid=42,
    is_leaving=False,
    heartbeat_age_s=0.01,
    up_s=12.3,
    incarnation=3,
    gauges={"rings": 1},
    counters={"delivered": 7, "rejected": 0},
    inherited=["nice: 19"],
    rings=[RingView(43, True, 65536, 100, 7000, 9, 8, {"queue_full": 5}), RingView(44, False, 65536, 0, 0, 1, 1, {})],
)


def test_with_nothing_there_it_fails_and_makes_nothing(place: Place) -> None:
    done = place.command("status")
    assert done.returncode == 1
    assert "No collector runs" in done.stdout
    assert os.listdir(place.runtime_dir) == []
    done = place.command("status", "--json")
    assert done.returncode == 1
    shown = json.loads(done.stdout)
    assert shown.pop("metrics")["epsagon_fast_up"] == [{"value": 0}]
    assert shown == {"running": False, "set_aside": [], **dict.fromkeys(compiled.MODULES, "compiled")}


def test_running_collector_is_shown_with_its_processes(backend: Backend, place: Place) -> None:
    with place.start(WORKER, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        until(lambda: place.look().counters.get("delivered"), "it is counted")
        done = place.command("status", "--json")
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert seen["running"] is True
        assert seen["pid"] == place.the_collector()
        assert seen["counters"]["delivered"] == 1
        (ring,) = seen["rings"]
        assert (ring["pid"], ring["lives"], ring["closed"], ring["settled"]) == (process.pid, True, 1, 1)
        assert ring["refused"] == {"no_trace": 1}
        text = place.command("status")
        assert text.returncode == 0
        assert f"pid {seen['pid']}" in text.stdout and f"process    {process.pid} lives" in text.stdout
        assert "secret-token" not in done.stdout + text.stdout
        process.communicate()
    place.until_left()
    assert place.command("status").returncode == 1
    assert place.status()["counters"]["delivered"] == 1


def test_looking_changes_nothing(place: Place) -> None:
    place.run("import epsagon_fast as e\nwith e.trace('main'): pass", env={"EPSAGON_LAUNCH": "0"})
    (ring,) = os.listdir(place.folder)
    before = os.stat(os.path.join(place.folder, ring))
    place.command("status")
    assert os.listdir(place.folder) == [ring]
    after = os.stat(os.path.join(place.folder, ring))
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_watching_goes_on_until_it_is_interrupted(place: Place) -> None:
    command = [sys.executable, "-m", "epsagon_fast", "status", "--watch", "--json"]
    with subprocess.Popen(command, env=place.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(process.stdout.readline())["running"] is False
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (1, "")


def test_folder_of_random_bytes_is_shown_as_far_as_it_goes(place: Place) -> None:
    os.mkdir(place.folder, 0o700)
    for name in ("state", "0" * 32 + ".ring"):
        with open(os.path.join(place.folder, name), "wb") as file:
            file.write(os.urandom(20_000))
    done = place.command("status", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["rings"] == []


def test_folder_that_is_open_to_others_is_refused(place: Place) -> None:
    os.mkdir(place.folder, 0o755)
    done = place.command("status")
    assert done.returncode == 1
    assert "open to others" in done.stderr
    assert "Traceback" not in done.stderr


def test_text_names_what_counts_and_leaves_out_zeros() -> None:
    text = status.as_text(SEEN)
    assert "pid 42, up 12 s, number 3 here" in text
    assert "delivered" in text and "rejected" not in text
    assert (
        "process    43 lives; unread 100 of 65536 bytes, held 7000; closed 9, settled 8; refused: queue_full 5" in text
    )
    assert "process    44 has ended" in text
    assert "STALLED" not in text and "leaving" not in text
    assert "inherited  nice: 19" in text


def test_text_says_when_something_is_not_as_usual() -> None:
    assert ", leaving" in status.as_text(replace(SEEN, is_leaving=True))
    assert "STALLED for 31 s" in status.as_text(replace(SEEN, heartbeat_age_s=31.0))


def test_what_was_set_aside_is_listed_with_its_size_and_age(place: Place) -> None:
    state_dir = Path(place.env["EPSAGON_STATE_DIR"])
    state_dir.mkdir(mode=0o700, exist_ok=True)
    for name in ("outbox-3.db.corrupt", "outbox-3.db.corrupt-wal", "outbox-3.db"):
        (state_dir / name).write_bytes(b"12345")
    os.utime(state_dir / "outbox-3.db.corrupt", (0, time.time() - 3 * 86400))
    os.mkdir(place.folder, 0o700)
    (Path(place.folder) / f"poison-{ESCAPE}").touch()
    text = place.command("status").stdout
    assert [line for line in text.splitlines() if line.startswith("set aside")] == [
        f"set aside  {place.folder}/poison-\\x1b[2J: 0 bytes, 0 minutes old",
        f"set aside  {state_dir}/outbox-3.db.corrupt: 5 bytes, 3 days old",
        f"set aside  {state_dir}/outbox-3.db.corrupt-wal: 5 bytes, 0 minutes old",
    ]
    sizes = [each["size_bytes"] for each in json.loads(place.command("status", "--json").stdout)["set_aside"]]
    assert sizes == [0, 5, 5]


def test_text_obeys_no_escape_in_a_name() -> None:
    text = status.as_text(replace(SEEN, path=f"/tmp/{ESCAPE}"), [SetAside(ESCAPE, 1, 7200.0)])
    assert ESCAPE not in text
    assert "set aside  \\x1b[2J: 1 bytes, 2 hours old" in text
