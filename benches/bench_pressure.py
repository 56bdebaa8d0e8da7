"""What add_event takes under pressure: beside busy threads, and while more is pushed than a collector takes.

pressing.py says what is measured, and how the causes of long calls are told apart. `--quick` makes fewer calls.
"""

import math

import pytest
from pressing import ADD, BUSY, CAUSES, EMPTY, GIVEN_UP, STAND_IN, TRACE
from report import Report
from yard import yard

CALLS, QUICK_CALLS = 1_000_000, 20_000
SIZE_BYTES = 1000
THREADS, NEIGHBOURS = 3, 3
# Busy threads of the process, and other processes that push all they can.
SCENES = {
    "beside three busy threads": (THREADS, 0),
    "while more is pushed than a collector takes": (0, NEIGHBOURS),
    "with both": (THREADS, NEIGHBOURS),
}
P99_MOST_US, P999_MOST_US, TIMES_LEAST = 5, 50, 3
# Where it waits for room, it does so a hundred times and no oftener.
ROOM = {"EPSAGON_RING_BYTES": str(32 << 20), "EPSAGON_COLLECTOR_MEMORY_MB": "2048"}
# A million calls beside others take minutes on a busy machine.
pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("scene", SCENES)
def test_each_call(report: Report, quick: bool, scene: str) -> None:
    threads, neighbours = SCENES[scene]
    with yard(form="otlp+", EPSAGON_TOKEN="", **({} if neighbours else ROOM)) as own:
        pressed = own.producer("pressing.py")
        others = [own.producer("pressing.py") for _ in range(neighbours)]
        for each in others:
            each.tell("flood", SIZE_BYTES)
        found = pressed.do("press", QUICK_CALLS if quick else CALLS, threads, SIZE_BYTES, not neighbours)
        counters = own.place.look().counters
    refused = sum(count for name, count in counters.items() if name.startswith("refused_"))
    times = 1 + refused / counters["records"]
    rows = [
        [name, *(each[p] / 1000 for p in ("p50", "p99", "p99.9")), each["longest"] / 1e6, *(each[c] for c in CAUSES)]
        for name, each in ((name, found[name]) for name in (EMPTY, STAND_IN, ADD, TRACE))
    ]
    columns = ("", "p50 µs", "p99 µs", "p99.9 µs", "longest ms", *(f"over 1 ms: {cause}" for cause in CAUSES))
    title = f"One event of 1 KB {scene}"
    note = f"{times:.1f} times as much was pushed as the collector took." if neighbours else NOTE
    report.table("pressure", title, columns, rows, note)
    if quick:
        return
    add = found[ADD]
    for p, most_us in (("p99", P99_MOST_US), ("p99.9", P999_MOST_US)):
        us = add[p] / 1000
        beside = found[STAND_IN][p] / 1000
        why = f"A sum in its place, which asks the kernel for nothing, has {beside:.3g} µs in the same loop."
        report.target(f"add_event {scene}: {p} at most {most_us} µs", f"{us:.3g} µs", us <= most_us, why)
    # A virtual machine stands still for moments, and they fall on both. So many more are no chance any more.
    still = found[STAND_IN][BUSY]
    by_chance = still + 2 * math.sqrt(still + 1)
    what = f"add_event {scene}: none of a million over 1 ms that the scheduler did not cause"
    measured = f"{add[GIVEN_UP]} given up, {add[BUSY]} busy (of the sums {still})"
    why = "In the table, what gave up the interpreter's lock, or was busy all the time."
    report.target(what, measured, not add[GIVEN_UP] and add[BUSY] <= by_chance, why)
    assert not neighbours or times >= TIMES_LEAST, f"only {times:.1f} times as much was pushed"


NOTE = """The rows take turns in one loop, in one process. Of calls over 1 ms: `slice`, the thread had held the
interpreter's lock as long as it may, and three others wait for it; `preempted`, the kernel had another process run;
`given up`, the call gave up the lock, or slept; `busy`, none of these, as when the host takes the processor away."""
