"""Workers end in every way there is: nothing that was closed is missing, and the exit is never held up for long."""

import os
import signal
import time

import pytest
from places import FULL, times
from scenes import Scene, holds, scene
from waiting import TIMEOUT_S

TRIES = times(50, 2)
# What an exit may be delayed by, at the most: the default shutdown timeout. The rest is a busy machine.
SHUTDOWN_S = 2.0

BEGIN = """
import os, signal, sys, threading, time
import epsagon_fast as epsagon, noting
# What a shell starts in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
ENDINGS = {
    "return": ("noting.fill()", 0),
    "sys.exit": ("noting.fill(); sys.exit(5)", 5),
    "os._exit": ("noting.fill(); os._exit(6)", 6),
    "SIGTERM without a handler": ("noting.fill(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -15),
    "SIGTERM with a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); noting.fill()\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
        7,
    ),
    "an unhandled exception": ("noting.fill(); raise ValueError", 1),
    "KeyboardInterrupt": ("noting.fill(); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -2),
    "a fork in a thread": (
        """
noting.fill()
def fork():
    if os.fork() == 0:
        noting.fill()
        os._exit(0)
thread = threading.Thread(target=fork); thread.start(); thread.join(); noting.fill()
assert os.wait()[1] == 0
""",
        0,
    ),
    "exec": (
        """
noting.fill()
if len(sys.argv) == 1:
    os.execv(sys.executable, [sys.executable, "-c", "import noting; noting.fill()"])
""",
        0,
    ),
    "multiprocessing": (
        """
import multiprocessing
noting.fill()
children = [multiprocessing.get_context("fork").Process(target=noting.fill) for _ in range(2)]
for child in children: child.start()
for child in children: child.join(); assert child.exitcode == 0
""",
        0,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_process_closed_arrives_however_it_ends(ending: str) -> None:
    script, code = ENDINGS[ending]
    with scene(f"worker ends by {ending}", EPSAGON_LINGER_SEC="5") as here:
        for _ in range(TRIES):
            with here.start(BEGIN + script) as process:
                _, errors = process.communicate(timeout=TIMEOUT_S)
                assert process.returncode == code, errors
            here.row.tried += 1
        noted = here.account()
        holds(here.row)
        _all_are_whole(here, noted.opened)


def test_what_was_closed_arrives_when_the_whole_group_is_ended() -> None:
    script = BEGIN + (
        "os.setpgid(0, 0)\nfor _ in range(3): noting.spawn(noting.until_stopped, 5, 500, 0.001)\n"
        "noting.fill()\nprint(os.getpid(), flush=True)\nsignal.pause()"
    )
    with scene("TERM to the whole process group") as here:
        for number in range(TRIES):
            with here.start(script) as process:
                assert process.stdout is not None
                group = int(process.stdout.readline())
                collector = here.the_collector()
                time.sleep(number % 5 * 0.02)
                # systemd would signal the collector as well.
                os.kill(collector, signal.SIGTERM)
                os.killpg(group, signal.SIGTERM)
            here.row.tried += 1
            here.until_left()
        # What a busy machine had no time for is stored, and goes when the service starts again.
        here.run(BEGIN + "noting.fill()")
        noted = here.account()
        holds(here.row)
        assert not noted.closing - set(here.sink.traces)


@pytest.mark.root
def test_what_was_closed_arrives_from_a_container(namespaced: list[str]) -> None:
    """As process 1 of a pid namespace: the kernel kills the collector with it."""
    with scene("process 1 of a pid namespace returns") as here:
        for _ in range(TRIES):
            began = time.monotonic()
            here.run(BEGIN + "assert os.getpid() == 1\nnoting.fill()", program=[*namespaced])
            here.row.tried += 1
            print(f"{time.monotonic() - began:.2f} s")
        noted = here.account(lost={})
        holds(here.row)
        _all_are_whole(here, noted.opened)


def test_exit_is_delayed_by_no_more_than_the_shutdown_timeout() -> None:
    """With a collector that is stopped: the process leaves all the same, and its records wait."""
    with scene("exit while the collector is stopped", EPSAGON_SHUTDOWN_TIMEOUT_SEC="0.5") as here:
        here.env["EPSAGON_LINGER_SEC"] = "60"
        here.run(BEGIN + "noting.fill()")
        collector = here.the_collector()
        for _ in range(TRIES):
            os.kill(collector, signal.SIGSTOP)
            out = here.run(
                BEGIN + "from epsagon_fast.producer import exiting\nnoting.fill()\nbegan = time.monotonic()\n"
                "exiting.say_bye()\nprint(time.monotonic() - began)"
            )
            print(f"left after {float(out):.2f} s")
            os.kill(collector, signal.SIGCONT)
            here.row.tried += 1
        holds_after(here)


def holds_after(here: Scene) -> None:
    """Assert the law, and that every trace is as its process left it."""
    noted = here.account()
    holds(here.row)
    _all_are_whole(here, noted.opened)


def _all_are_whole(here: Scene, opened: set[str]) -> None:
    assert opened == set(here.sink.traces)
    assert not any(arrival.died or arrival.unfinished for arrival in here.sink.traces.values())
    assert here.row.duplicates == 0 or FULL
