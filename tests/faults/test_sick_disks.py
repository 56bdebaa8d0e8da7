"""Outbox and journal without space, read-only, damaged, shared; folders that another version left behind."""

import os
import signal
import time
from pathlib import Path

import pytest
from namespaces import with_tmpfs
from places import Place, times, until
from scenes import Scene, holds, scene

from epsagon_fast.collector.journal.frames import MAGIC
from epsagon_fast.collector.sending.outbox.file import NAME
from epsagon_fast.queue import state as states
from epsagon_fast.queue.state import StatePage

TRIES = times(20, 1)
# Traces, tells, and waits for a line before it leaves.
WORKER = """
import os, sys, time, noting, epsagon_fast as epsagon
def fill_up(path):
    with open(path + "/ballast", "wb", 0) as ballast:
        try:
            while True: ballast.write(bytes(4096))
        except OSError: pass
{before}
for _ in range(10):
    noting.fill(3)
    time.sleep(0.001)
{after}
print(flush=True)
sys.stdin.readline()
print(epsagon.flush(60))
"""

OUTBOX = {
    "no space": "fill_up(os.environ['EPSAGON_STATE_DIR'])",
    "read-only": "assert os.system('mount -o remount,ro ' + os.environ['EPSAGON_STATE_DIR']) == 0",
}


@pytest.mark.root
@pytest.mark.parametrize("how", OUTBOX)
def test_without_an_outbox_traces_wait_in_memory_and_arrive(how: str) -> None:
    with scene(f"outbox: {how}") as here:
        state = Path(here.settings["EPSAGON_STATE_DIR"])
        state.mkdir(0o700)
        script = WORKER.format(before=OUTBOX[how], after="")
        for _ in range(TRIES):
            here.sink.close()
            program = with_tmpfs(("size=256k,mode=0700", state))
            with here.start(script, stdin=-1, program=program) as worker:
                assert worker.stdin is not None and worker.stdout is not None
                assert worker.stdout.readline() == "\n", worker.stderr
                until(lambda: here.counter("outbox_unavailable"), "it is noticed")
                here.sink.open()
                out, errors = worker.communicate("\n")
                assert out == "True\n", errors
            here.row.tried += 1
            here.until_left()
        assert "outbox_unavailable" in here.log()
        here.account()
        holds(here.row)


def test_a_corrupt_outbox_is_set_aside() -> None:
    with scene("outbox: corrupt") as here:
        state = Path(here.settings["EPSAGON_STATE_DIR"])
        state.mkdir(0o700)
        for _ in range(TRIES):
            here.sink.close()
            (state / NAME).write_bytes(os.urandom(20_000))
            (state / NAME).chmod(0o600)
            with here.start(WORKER.format(before="", after=""), stdin=-1) as worker:
                assert worker.stdin is not None and worker.stdout is not None
                worker.stdout.readline()
                until(lambda: here.gauge("stored") == 10, lambda: f"all is stored: {here.look()}\n{here.log()}")
                here.sink.open()
                out, errors = worker.communicate("\n")
                assert out == "True\n", errors
            here.row.tried += 1
            here.until_left()
            assert (state / f"{NAME}.corrupt").exists()
            assert here.log().count("the outbox is corrupt") == here.row.tried
        here.account()
        holds(here.row)


def test_two_collectors_share_an_outbox() -> None:
    with scene("outbox: two collectors") as here:
        other = Place(here.sink.url)
        other.env |= {**here.env, "EPSAGON_RUNTIME_DIR": other.runtime_dir}
        try:
            for _ in range(TRIES):
                here.sink.close()
                with (
                    here.start(WORKER.format(before="", after=""), stdin=-1) as one,
                    other.start(WORKER.format(before="", after=""), stdin=-1) as two,
                ):
                    for worker in (one, two):
                        assert worker.stdout is not None
                        worker.stdout.readline()
                    until(lambda: here.gauge("stored") == 20, lambda: f"both store: {here.look()}", 40)
                    here.sink.open()
                    for worker in (one, two):
                        assert worker.communicate("\n")[0] == "True\n"
                here.row.tried += 1
                here.until_left()
                other.until_left()
        finally:
            other.close()
        here.account({})
        holds(here.row)
        assert here.row.duplicates == 0


@pytest.mark.root
def test_without_space_for_the_journal_traces_arrive() -> None:
    with scene("journal: no space") as here:
        script = WORKER.format(before="noting.fill(1)", after="").replace(
            "for _ in range(10)", "epsagon.flush(60); fill_up(os.environ['EPSAGON_RUNTIME_DIR'])\nfor _ in range(10)"
        )
        script = script.replace("print(flush=True)", SEEN + "print(flush=True)")
        for _ in range(TRIES):
            program = with_tmpfs(("size=40m,mode=0700", here.runtime_dir), pid=True)
            with here.start(script, stdin=-1, program=program) as worker:
                out, errors = worker.communicate("\n")
                assert out == "\nTrue\n", errors
            here.row.tried += 1
        here.account({})
        holds(here.row)


SEEN = """
from waiting import until
from epsagon_fast.producer.process import process
from epsagon_fast.queue import overview
def seen():
    noting.fill(20)
    return overview.look(process.writers.known()[0].path).counters.get("journal_unavailable")
until(seen, lambda: str(overview.look(process.writers.known()[0].path)))
assert "journal_unavailable" in open(process.writers.known()[0].path + "/log").read()
"""

DAMAGE = {
    "torn last segment": lambda data: data + b"\x00\x10\x00\x00half a frame",
    "corrupt file": lambda data: data + b"\x04\x00\x00\x00none at all of ours" + os.urandom(100),
    "segment of another version": lambda data: data,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_set_aside_and_delivery_goes_on(damage: str) -> None:
    with scene(f"journal: {damage}") as here:
        for _ in range(TRIES):
            here.sink.close()
            # Nothing can be stored, so that all is in the journal.
            (here.scratch / "state" / NAME).mkdir(0o700, parents=True, exist_ok=True)
            with here.start(WORKER.format(before="", after=""), stdin=-1) as worker:
                assert worker.stdin is not None and worker.stdout is not None
                worker.stdout.readline()
                until(lambda: here.gauge("pending") == 10, "all is read")
                os.kill(here.the_collector(), signal.SIGKILL)
                here.until_left()
                segment = sorted(Path(here.folder).glob("journal-" + "[0-9]" * 16))[-1]
                segment.write_bytes(DAMAGE[damage](segment.read_bytes()))
                if damage == "segment of another version":
                    (Path(here.folder) / f"journal-{9999:016}").write_bytes(MAGIC[:-1] + b"9 of the future")
                here.sink.open()
                out, errors = worker.communicate("\n")
                assert out == "True\n", errors
            here.row.tried += 1
            here.until_left()
        set_aside = list(Path(here.folder).glob("journal-*.corrupt"))
        assert bool(set_aside) == (damage != "torn last segment")
        assert here.counter("corrupt_segments") == (here.row.tried if set_aside else 0)
        assert here.log().count("set aside as journal-") == here.counter("corrupt_segments")
        here.account()
        holds(here.row)


def test_what_an_older_version_left_behind_is_delivered() -> None:
    with scene("an orphaned folder of an older version") as here:
        for number in range(TRIES):
            with here.start(WORKER.format(before="", after=""), stdin=-1) as worker:
                assert worker.stdout is not None
                here.sink.close()
                worker.stdout.readline()
                os.kill(here.the_collector(), signal.SIGKILL)
                worker.kill()
            here.until_left()
            _grow_old(here)
            os.rename(here.folder, os.path.join(here.runtime_dir, f"0.0.{number}-1-2-3-4"))
            here.sink.open()
            here.run("import noting; noting.fill(1)", env={"EPSAGON_LINGER_SEC": "1"})
            until(lambda: len(os.listdir(here.runtime_dir)) == 1, lambda: f"it is removed; {here.log()}")
            here.row.tried += 1
            here.until_left()
            assert here.counter("adopted_folders") == 1
        here.account()
        holds(here.row)


def _grow_old(here: Scene) -> None:
    fd = os.open(here.folder, os.O_RDONLY)
    page = StatePage(fd)
    page.store(states.HEARTBEAT_NS, max(1, time.monotonic_ns() - 61 * 10**9))
    page.close()
    os.close(fd)
