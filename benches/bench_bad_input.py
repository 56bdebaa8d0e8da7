"""What add_event costs where tracing cannot work, beside a healthy process, in one run.

`pytest benches/bench_bad_input.py -s` prints one table: the median and the 99th percentile of an add_event of 1 KB for
each case, and its ratio to the healthy one. At most 1.5 is wanted. Every case runs in a process of its own.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from places import Place, until
from servers import Server

EVENTS = 20_000
PROGRAM = f"""
import json, os, sys, time
import epsagon_fast as epsagon

def measured():
    metadata = {{f"key_{{n}}": "x" * 80 for n in range(10)}}
    event = {{"id": "0" * 32, "start_time": 1.5, "resource": {{"name": "n", "type": "http", "operation": "GET",
             "metadata": metadata}}, "origin": "sdk", "duration": 0.1, "error_code": 0, "exception": None}}
    clock, costs = time.perf_counter_ns, []
    with epsagon.trace("warm"):
        epsagon.add_event(event)
    if sys.argv[1:]:
        print(flush=True); sys.stdin.readline()
    for _ in range({EVENTS} // 200):
        # In a real process other work comes in between: the collector keeps up.
        with epsagon.trace("main") as tracer:
            for _ in range(200):
                began = clock()
                tracer.add_event(event)
                costs.append(clock() - began)
        time.sleep(0.002)
    costs.sort()
    return costs[len(costs) // 2], costs[len(costs) * 99 // 100]

print(json.dumps(measured()), flush=True)
os._exit(0)
"""
PURE = """
import sys
for name in ("queue._ring", "queue._spawn", "producer._fast_path", "trimming._compiled"):
    sys.modules["epsagon_fast." + name] = None
"""
NO_SPACE = """
import os
def full(*arguments): raise OSError(28, "No space left on device")
os.posix_fallocate = full
"""
WANTED = 1.5


def healthy(place: Place) -> str:
    return place.run(PROGRAM)


def unusable_directory(place: Place) -> str:
    os.chmod(place.runtime_dir, 0o755)
    return place.run(PROGRAM)


def no_space(place: Place) -> str:
    return place.run(NO_SPACE + PROGRAM)


def collector_that_cannot_start(place: Place) -> str:
    os.makedirs(place.folder + "/log")
    os.chmod(place.folder, 0o700)
    return place.run(PROGRAM)


def collector_that_dies_at_once(place: Place) -> str:
    os.makedirs(place.folder + "/state")
    os.chmod(place.folder, 0o700)
    return place.run(PROGRAM)


def stopped_collector(place: Place) -> str:
    with place.start(PROGRAM, "wait", stdin=-1) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        until(lambda: os.path.isdir(place.folder) and place.look().pid, "a collector serves")
        os.kill(place.the_collector(), signal.SIGSTOP)
        return process.communicate("\n", timeout=60)[0]


def no_extension(place: Place) -> str:
    return place.run(PURE + PROGRAM)


CASES = (
    healthy,
    unusable_directory,
    no_space,
    collector_that_cannot_start,
    collector_that_dies_at_once,
    stopped_collector,
    no_extension,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


def test_bad_input(server: Server) -> None:
    rows: dict[str, tuple[float, float]] = {}
    for case in CASES:
        place = Place(server.url)
        try:
            median, late = json.loads(case(place).splitlines()[-1])
        finally:
            place.close()
        rows[case.__name__.replace("_", " ")] = (median, late)
    base = rows["healthy"][0]
    print(f"\n{'':28} {'median ns':>10} {'p99 ns':>10} {'ratio':>6}")
    for name, (median, late) in rows.items():
        print(f"{name:28} {median:>10} {late:>10} {median / base:>6.2f}{'' if median <= WANTED * base else '  over'}")
