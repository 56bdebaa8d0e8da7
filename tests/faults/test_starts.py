"""Collectors that do not come up, or are just leaving; starters that cannot start; clocks that are set back."""

import os
import sys

import pytest
from places import times, until
from scenes import holds, scene

TRIES = times(100, 3)

# Starts something in the collector's place that ends at once.
BROKEN = """
import os, sys, time
from epsagon_fast.queue import launch
real, start = launch.command, launch._start
starts = []
def noted(*arguments):
    started = start(*arguments)
    # False: another process was making one.
    if started:
        starts.append(time.monotonic())
    return started
launch.command = lambda path: [os.fsencode(sys.executable), b"-c", b"import sys; sys.exit(1)"]
launch._start = noted
import noting
deadline = time.monotonic() + float(sys.argv[1])
while time.monotonic() < deadline:
    noting.fill(2, 200)
    time.sleep(0.02)
pauses = [b - a for a, b in zip(starts, starts[1:])]
# At least so long; how much longer is the machine's affair.
assert all(pause > 0.02 * 2**n for n, pause in enumerate(pauses)), pauses
print(len(starts), flush=True)
if len(sys.argv) > 2:
    launch.command = real
sys.stdin.readline()
"""


def test_a_collector_that_crashes_at_start_is_started_less_and_less_often() -> None:
    with scene("the collector crashes at start") as here:
        for _ in range(max(1, TRIES // 10)):
            # Ten starters at once in the soak; they share the pause between two starts.
            workers = [here.start(BROKEN, "4", stdin=-1) for _ in range(min(10, TRIES))]
            for worker in workers:
                assert worker.stdout is not None
                # The pauses double from 0.05 s on; others may always have been quicker.
                starts = worker.stdout.readline()
                assert int(starts or -1) in range(9), starts + worker.communicate("\n")[1]
                here.row.tried += 1
            for worker in workers:
                worker.kill()
                worker.communicate()
        # Another process still starts one.
        here.run("import noting; noting.fill()")
        noted = here.account()
        holds(here.row)
        assert not noted.opened - set(here.sink.traces)


NO_SPAWN = {
    "no process may be started": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) - 1, 4096))"
    ),
    "the interpreter is gone": "launch.interpreter = lambda: '/no/such/python'",
    "the launcher fails": "def fail(*_): raise OSError(11, 'no processes left')\nlaunch._start = fail",
}


@pytest.mark.parametrize("how", NO_SPAWN)
def test_a_starter_that_cannot_spawn_traces_on_and_another_one_starts(how: str) -> None:
    script = f"import os, noting\nfrom epsagon_fast.queue import launch\nnoting.fill()\n{NO_SPAWN[how]}\nnoting.fill()"
    with scene(f"a starter that cannot spawn: {how}", EPSAGON_SHUTDOWN_TIMEOUT_SEC="0.2") as here:
        here.env["EPSAGON_LAUNCH"] = "1"
        for _ in range(TRIES):
            here.run(script)
            here.row.tried += 1
        here.run("import noting; noting.fill()")
        noted = here.account()
        holds(here.row)
        assert not noted.opened - set(here.sink.traces)


def test_a_producer_that_comes_as_the_collector_leaves_is_served() -> None:
    with scene("a producer comes as the collector leaves", EPSAGON_LINGER_SEC="0") as here:
        for _ in range(TRIES):
            # Alone, the collector wants to leave at once: every one of these comes upon one that is leaving, or gone.
            here.run("import noting; noting.fill(3, 200)")
            here.row.tried += 1
        noted = here.account()
        holds(here.row)
        assert not noted.opened - set(here.sink.traces)
        assert here.row.duplicates == 0


# A clock that says an hour less than it did, in every process that is started with it.
SET_BACK = """
import time
real, back = time.time, [0.0]
time.time = lambda: real() - back[0]
"""


def test_a_clock_set_back_an_hour_changes_nothing() -> None:
    collector = (
        "import sys, os\nsys.path[:0] = {path!r}\n" + SET_BACK + "import signal\n"
        "signal.signal(signal.SIGUSR1, lambda *_: back.__setitem__(0, 3600.0 - back[0]))\n"
        "from epsagon_fast.collector.__main__ import main\nsys.exit(main())"
    ).format(path=sys.path)
    worker = SET_BACK + (
        "import sys, noting\nfor line in sys.stdin:\n    noting.fill()\n    back[0] = 3600.0 - back[0]\n"
        "    noting.fill()\n    print(flush=True)\n"
    )
    with scene("the clock is set back an hour", EPSAGON_LAUNCH="0", EPSAGON_LINGER_SEC="1") as here:
        os.makedirs(here.folder, mode=0o700)
        with (
            here.start(collector, "--runtime-dir", here.folder, stderr=None) as served,
            here.start(worker, stdin=-1) as process,
        ):
            assert process.stdin is not None and process.stdout is not None
            until(lambda: here.look().pid, "it serves")
            for _ in range(TRIES):
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "\n"
                os.kill(served.pid, 10)
                here.row.tried += 1
            process.communicate()
            noted = here.account()
            assert served.wait(60) == 0
        holds(here.row)
        assert noted.opened == set(here.sink.traces)
        assert not any(arrival.died or arrival.unfinished for arrival in here.sink.traces.values())


def test_two_collectors_at_once_are_one() -> None:
    with scene("several collectors are started at once") as here:
        os.makedirs(here.folder, mode=0o700)
        script = (
            "import sys\nsys.path[:0] = {path!r}\nfrom epsagon_fast.collector.__main__ import main\nsys.exit(main())"
        )
        script = script.format(path=sys.path)
        for _ in range(max(1, TRIES // 5)):
            several = [here.start(script, "--runtime-dir", here.folder, stdout=-3, stderr=-3) for _ in range(5)]
            here.run("import noting; noting.fill()")
            here.row.tried += len(several)
            codes = [each.wait(60) for each in several]
            assert codes == [0] * len(several)
        noted = here.account()
        holds(here.row)
        assert noted.opened == set(here.sink.traces)
        assert here.row.duplicates == 0
