"""`epsagon-fast stop` and `epsagon-fast collector`, from outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from arrivals import await_traces
from places import Place, until
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.commands import stop

ONE_TRACE = "import epsagon_fast as e\nwith e.trace({name!r}): pass\n"
WORKER = """
import sys, epsagon_fast as epsagon
for line in sys.stdin:
    with epsagon.trace(line.strip()): pass
    print(epsagon.flush(60), flush=True)
"""


@contextmanager
def collector(place: Place, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `epsagon-fast collector` as a supervisor would."""
    command = [sys.executable, "-m", "epsagon_fast", "collector", *words]
    process = subprocess.Popen(
        command, env=place.env, cwd=place.scratch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


# collector


def test_supervised_collector_serves_workers_that_start_none(backend: Backend, place: Place) -> None:
    place.env |= {"EPSAGON_LINGER_SEC": "0", "EPSAGON_LAUNCH": "0"}
    with collector(place) as process:
        until(lambda: os.path.isdir(place.folder) and place.look().pid == process.pid, "it serves")
        place.run(ONE_TRACE.format(name="main"))
        await_traces(backend, place, "main")
        assert place.collectors() == []  # its command line names no folder: it is the one in the foreground
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
        assert "serving" in log and "leaving" in log


def test_supervised_collector_takes_the_directory_from_its_option(place: Place) -> None:
    base = os.path.join(place.runtime_dir, "other")
    with collector(place, "--runtime-dir", base) as process:
        until(lambda: os.path.isdir(base) and os.listdir(base), "it makes its folder")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)


def test_supervised_collector_stays_after_the_one_before_it_was_stopped(place: Place) -> None:
    place.env |= {"EPSAGON_LINGER_SEC": "0", "EPSAGON_LAUNCH": "0"}
    with collector(place) as first:
        until(lambda: os.path.isdir(place.folder) and place.look().pid == first.pid, "it serves")
        first.send_signal(signal.SIGTERM)
        assert first.wait(TIMEOUT_S) == 0
    with collector(place) as second:
        until(lambda: place.look().pid == second.pid, "the next one serves")
        until(lambda: (place.look().up_s or 0) >= 1, "no rule for those that workers start ends it")
        assert second.poll() is None


def test_supervised_collector_waits_for_another_and_takes_over(place: Place) -> None:
    with collector(place) as first, collector(place) as second:
        until(lambda: os.path.isdir(place.folder) and place.look().pid, "one of them serves")
        serving, waiting = (first, second) if place.look().pid == first.pid else (second, first)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(TIMEOUT_S) == 0
        until(lambda: place.look().pid == waiting.pid, "the other one takes over")


def test_supervised_collector_that_waits_obeys_a_signal(place: Place) -> None:
    with collector(place) as first:
        until(lambda: os.path.isdir(place.folder) and place.look().pid == first.pid, "it serves")
        with collector(place) as second:
            assert second.stderr is not None and "another collector serves" in second.stderr.readline()
            # A signal may come before it has a handler of its own.
            second.send_signal(signal.SIGTERM)
            assert second.wait(TIMEOUT_S) in (0, -signal.SIGTERM)
        assert place.look().pid == first.pid


def test_collector_without_a_usable_directory_fails_with_one_line(place: Place) -> None:
    os.chmod(place.runtime_dir, 0o777)
    done = place.command("collector")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "open to others" in done.stderr


# stop


def test_with_no_collector_there_is_nothing_to_stop(place: Place) -> None:
    done = place.command("stop")
    assert (done.returncode, done.stdout) == (1, "No collector runs.\n")


def test_collector_that_lingers_leaves(backend: Backend, place: Place) -> None:
    place.linger()
    place.run(ONE_TRACE.format(name="main"))
    pid = place.the_collector()
    done = place.command("stop")
    assert (done.returncode, done.stdout) == (0, f"The collector (pid {pid}) has left.\n")
    assert place.collectors() == []
    await_traces(backend, place, "main")


def test_collector_that_is_killed_loses_nothing_and_is_replaced(backend: Backend, place: Place) -> None:
    with place.start(WORKER, stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        for name in ("first", "second"):
            worker.stdin.write(name + "\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "True\n"
            pid = place.the_collector()
            done = place.command("stop", "--force")
            assert (done.returncode, done.stdout) == (0, f"The collector (pid {pid}) has left.\n")
        worker.communicate()
    await_traces(backend, place, "first", "second", once=False)


def test_stopped_process_cannot_be_asked_but_forced(place: Place) -> None:
    place.linger()
    place.run(ONE_TRACE.format(name="main"))
    os.kill(place.the_collector(), signal.SIGSTOP)
    assert place.command("stop", "--force").returncode == 0
    assert place.collectors() == []


def test_collector_that_does_not_leave_in_time_is_a_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.linger()
    place.run(ONE_TRACE.format(name="main"))
    os.kill(place.the_collector(), signal.SIGSTOP)
    monkeypatch.setenv("EPSAGON_RUNTIME_DIR", place.runtime_dir)
    monkeypatch.setattr(stop, "TIMEOUT_S", 0.1)
    from epsagon_fast.commands import main

    assert main(["stop"]) == 1
    assert "did not leave" in capsys.readouterr().err
