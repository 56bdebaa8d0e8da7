"""What a collector holds is bounded: what does not fit stays with the processes, and all goes on by itself."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import Place, until
from servers import Server, hang, status

from epsagon_fast.backend import Backend
from epsagon_fast.collector.bounds import (
    JOURNAL_BYTES,
    LEAST_JOURNAL_BYTES,
    MIB,
    PATIENCE_S,
    RESUME_SHARE,
    SHARE,
    Bounds,
    Held,
    configured_bytes,
)

LIMIT = 100 * MIB
# A bound and what is kept for others.
ALL = LIMIT + LIMIT // SHARE
RING, OTHER = b"ring", b"other"


def of_memory() -> Bounds:
    """Bounds of which the journal's is never met."""
    bounds = Bounds(LIMIT)
    bounds.journal_bytes = 2 * LIMIT
    return bounds


bounds = pytest.fixture(of_memory, name="bounds")


def in_memory(held_bytes: int) -> Held:
    return Held(held_bytes, 0)


def stopped(bounds: Bounds, now: float, **held: int) -> int:
    """Make a pass in which each ring has something unread; return how many are not read."""
    bounds.begin(now)
    bounds.look(sum(held.values()), 0)
    for name, held_bytes in held.items():
        bounds.room_bytes(name.encode(), in_memory(held_bytes), len(held))
    return bounds.stopped


def test_one_alone_may_hold_as_much_as_the_bound(bounds: Bounds) -> None:
    assert stopped(bounds, 0.0, ring=LIMIT - 1) == 0
    assert stopped(bounds, 0.0, ring=LIMIT) == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 2**22)), max_size=80), st.integers(0, 2**20))
def test_whatever_others_read_there_is_room_for_a_process_that_holds_little(
    steps: list[tuple[int, int]], little: int
) -> None:
    bounds, held = Bounds(LIMIT), [0, 0]
    for number, wanted in steps:
        bounds.look(sum(held), 0)
        held[number] += max(0, min(100 * wanted, bounds.room_bytes(bytes([number]), in_memory(held[number]), 1)))
        assert sum(held) <= ALL
    bounds.look(sum(held) + little, 0)
    assert bounds.room_bytes(OTHER, in_memory(little), 1) > 0


@given(st.integers(1, 50))
def test_processes_that_want_all_get_the_same(readers: int) -> None:
    bounds, held = Bounds(LIMIT), [0] * readers
    for _ in range(40):
        bounds.look(sum(held), 0)
        rooms = [bounds.room_bytes(bytes([number]), in_memory(each), readers) for number, each in enumerate(held)]
        held = [each + max(0, room) for each, room in zip(held, rooms, strict=True)]
    assert LIMIT * 0.99 <= sum(held) < ALL
    assert max(held) - min(held) <= 1


def test_for_the_sake_of_a_close_a_process_may_hold_more_and_others_still_something(bounds: Bounds) -> None:
    bounds.look(LIMIT, 0)
    room_bytes = bounds.room_for_close_bytes(in_memory(LIMIT))
    assert 0 < room_bytes < LIMIT // SHARE
    bounds.look(LIMIT + room_bytes, 0)
    assert bounds.room_for_close_bytes(in_memory(LIMIT + room_bytes)) <= 1
    assert bounds.room_bytes(OTHER, in_memory(0), 1) > LIMIT // 16


def test_where_the_bound_is_small_a_close_may_take_as_much_again() -> None:
    bounds = Bounds(MIB // 2)
    bounds.look(MIB // 2, 0)
    assert bounds.room_for_close_bytes(in_memory(MIB // 2)) > MIB // 4


def test_for_the_sake_of_a_close_a_full_journal_takes_more_too(bounds: Bounds) -> None:
    bounds.journal_bytes = LIMIT
    bounds.look(0, LIMIT)
    assert 0 < bounds.room_for_close_bytes(Held(0, LIMIT)) < LIMIT // SHARE


def test_a_ring_is_read_again_a_little_below_its_share(bounds: Bounds) -> None:
    assert stopped(bounds, 0.0, ring=LIMIT) == 1
    assert stopped(bounds, 0.0, ring=LIMIT - MIB) == 1
    assert stopped(bounds, 0.0, ring=int(0.95 * LIMIT)) == 0
    assert stopped(bounds, 0.0, ring=LIMIT - MIB) == 0


def test_the_journal_has_a_bound_of_its_own_whoever_filled_it(bounds: Bounds) -> None:
    bounds.journal_bytes = LIMIT
    bounds.look(0, ALL - MIB)
    assert bounds.room_bytes(RING, Held(0, 5 * MIB), 1) <= 0, "who holds most is stopped first"
    assert bounds.room_bytes(OTHER, Held(0, 3 * MIB), 1) > 0
    bounds.look(0, ALL)
    assert bounds.room_bytes(OTHER, Held(0, 0), 1) <= 0, "there is none to give"


def test_the_journal_takes_a_part_of_the_free_space(
    bounds: Bounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for free, expected in ((0, LEAST_JOURNAL_BYTES), (160 * MIB, 20 * MIB), (10**6 * MIB, JOURNAL_BYTES)):
        found = os.statvfs_result((1, 1, 0, 0, free, 0, 0, 0, 0, 0))
        monkeypatch.setattr(os, "fstatvfs", lambda fd, found=found: found)
        bounds.fit_journal(fd, 0)
        assert bounds.journal_bytes == expected
    # What it has itself is free for it.
    monkeypatch.setattr(os, "fstatvfs", lambda fd: os.statvfs_result((1, 2, 0, 0, 40 * MIB, 0, 0, 0, 0, 0)))
    bounds.fit_journal(fd, 80 * MIB)
    assert bounds.journal_bytes == 20 * MIB
    monkeypatch.undo()
    os.close(fd)


def test_it_is_stuck_after_a_while_in_which_nothing_went_that_a_stopped_ring_holds(bounds: Bounds) -> None:
    stopped(bounds, 0.0, ring=LIMIT, other=1)
    stopped(bounds, 10.0, ring=LIMIT - 1, other=1000)
    stopped(bounds, 10.0 + PATIENCE_S, ring=LIMIT - 1)
    assert not bounds.stuck()
    stopped(bounds, 10.1 + PATIENCE_S, ring=LIMIT)
    assert bounds.stuck()
    bounds.relieved()
    assert not bounds.stuck()
    stopped(bounds, 10.2 + 2 * PATIENCE_S, ring=LIMIT)
    assert bounds.stuck()
    stopped(bounds, 10.3 + 2 * PATIENCE_S, ring=0)
    assert not bounds.stuck() and not bounds.stopped


def test_one_ring_that_waits_too_long_is_enough_to_be_stuck(bounds: Bounds) -> None:
    stopped(bounds, 0.0, ring=LIMIT)
    assert stopped(bounds, PATIENCE_S + 1, ring=LIMIT, other=ALL - LIMIT) == 2
    assert bounds.stuck(), "though the other was stopped just now"


@given(st.integers(MIB, ALL), st.integers(0, LIMIT))
def test_what_goes_is_as_much_as_makes_room(held_bytes: int, others_bytes: int) -> None:
    bounds = of_memory()
    stopped(bounds, 0.0, ring=held_bytes, others=others_bytes)
    excess_bytes = bounds.excess_bytes(in_memory(held_bytes))
    left_bytes = ALL - held_bytes - others_bytes + max(0, excess_bytes)
    share_bytes = RESUME_SHARE * SHARE * left_bytes
    assert held_bytes - max(0, excess_bytes) <= share_bytes + 1
    if excess_bytes > 0:
        assert held_bytes - excess_bytes >= share_bytes - 10, "no more"


@pytest.mark.parametrize(
    ("text", "megabytes"), [("64", 64), ("0.5", 0.5), ("", 256), ("much", 256), ("-1", 256), ("inf", 256)]
)
def test_the_environment_names_the_bound(text: str, megabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_COLLECTOR_MEMORY_MB", text)
    assert configured_bytes() == megabytes * MIB


# With real processes

HERE = os.path.dirname(__file__)
# Pushes as fast as the collector reads, until that says that it is full, and then until the ring is.
PUSHING = """
import sys, epsagon_fast as epsagon
from epsagon_fast.producer.process import process
from epsagon_fast.queue import overview
from waiting import until

def pushed(one_more, count=0):
    while not refused():
        one_more()
        count += 1
        until(lambda: refused() or is_read() or full(), "it is read", pause_s=0.001)
    return count

def is_read():
    # Wakes the collector, or each record would wait for its next pass.
    writer = process.writers.known()[-1]
    writer._wake(0)
    return writer.drained()

def full():
    return overview.look(process.writers.known()[-1].path).gauges.get("full")

def refused():
    return sum(process.writers.known()[-1].refusals().values()) if process.writers.known() else 0

def event():
    return {"id": "x", "resource": {"metadata": {"k": "x" * 16000}}}
"""
# Holds traces open, and then closes them.
HOLDER = (
    PUSHING
    + """
tracers = []
def one_more():
    tracers.append(epsagon.create_tracer())
    tracers[-1].start()
    tracers[-1].add_event(event())
print(pushed(one_more), flush=True)
sys.stdin.readline()
for tracer in tracers:
    tracer.send_stop_signal()
print(epsagon.flush(60), refused(), flush=True)
with epsagon.trace("one more"):
    pass
print(epsagon.flush(60), flush=True)
"""
)
# Traces on and on for a backend that takes nothing.
CLOSER = (
    PUSHING
    + """
def one_more():
    with epsagon.trace("t"):
        epsagon.add_event(event())
print(pushed(one_more), flush=True)
sys.stdin.readline()
print(epsagon.flush(60), flush=True)
"""
)


def resident_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("RssAnon", "RssShmem"))) * 1024


def test_open_traces_are_bounded_and_all_that_was_accepted_arrives(place: Place, backend: Backend) -> None:
    place.env |= {"EPSAGON_COLLECTOR_MEMORY_MB": "8", "EPSAGON_LINGER_SEC": "20", "PYTHONPATH": HERE}
    with place.start(HOLDER, stdin=-1) as process:
        assert process.stdin is not None and process.stdout is not None
        pushed = int(process.stdout.readline())
        until(lambda: place.look().gauges["full"] > 0, f"it is full; {place.log()}")
        assert 8 * MIB < place.look().gauges["held_bytes"] < 12 * MIB
        assert resident_bytes(place.the_collector()) < 72 * MIB
        process.stdin.write("\n")
        process.stdin.flush()
        done, refused = process.stdout.readline().split()
        assert done == "True"
        assert process.stdout.readline() == "True\n"
        process.communicate()
    events = sum(body.count(b'"id":"x"') for _, body in backend.store.bodies())
    assert events == pushed - int(refused)
    until(lambda: place.look().gauges["full"] == 0, "it has room again")
    until(lambda: "room again" in place.log(), "it is told")
    assert 1 <= place.log().count("full (") <= 3, "not in every pass"


def test_a_backlog_is_bounded_too(place: Place) -> None:
    with Server(hang) as slow:
        place.env |= {
            "PYTHONPATH": HERE,
            "EPSAGON_COLLECTOR_MEMORY_MB": "4",
            "EPSAGON_COLLECTOR_URL": slow.url,
            "EPSAGON_SEND_TIMEOUT_SEC": "60",
            # Nowhere to put it.
            "EPSAGON_STATE_DIR": f"{place.scratch}/a-file",
        }
        with place.start(CLOSER, stdin=-1) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdout.readline()
            assert place.look().gauges["full"] > 0
            assert place.look().gauges["held_bytes"] < 6 * MIB
            slow.behave = status(200)
            # Those that hang are sent again by the next collector.
            os.kill(place.the_collector(), 9)
            out, _ = process.communicate("\n")
            assert out.startswith("True")
        until(lambda: place.look().gauges["full"] == 0, "it has room again")


COLLECTOR = """
import resource, sys
sys.path[:0] = {path!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
from epsagon_fast.collector.__main__ import main
sys.exit(main())
"""
BUSY = """
import sys, epsagon_fast as epsagon
held = epsagon.create_tracer()
held.start()
held.add_event({"id": "held"})
for line in sys.stdin:
    for number in range(20):
        with epsagon.trace("t"):
            epsagon.add_event({"id": "x", "resource": {"metadata": {"k": "x" * 3000}}})
    print(epsagon.flush(60), flush=True)
print(held.stop(60).name)
"""


@pytest.fixture
def no_space(place: Place) -> Iterator["subprocess.Popen[str]"]:
    """A collector that can write no file larger than 30,000 bytes."""
    place.env["EPSAGON_LAUNCH"] = "0"
    os.makedirs(place.folder, mode=0o700)
    script = COLLECTOR.format(path=[path for path in sys.path if path])
    with place.start(script, "--runtime-dir", place.folder, env={"EPSAGON_LINGER_SEC": "60"}) as process:
        yield process
        process.kill()
        process.communicate()


def test_without_a_journal_traces_go_on_and_it_recovers_by_itself(
    place: Place, backend: Backend, no_space: "subprocess.Popen[str]"
) -> None:
    with place.start(BUSY, stdin=-1) as process:
        assert process.stdin is not None and process.stdout is not None

        def more() -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n", f"{place.look()}"

        for _ in range(5):
            more()
        until(lambda: place.look().counters.get("journal_unavailable", 0) > 0, "it is counted")
        # They are counted a moment after the process hears of them.
        until(lambda: place.look().counters["delivered"] == 100, "all have arrived")
        assert place.look().rings[0].unread_bytes == 0
        resource.prlimit(no_space.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        more()
        until(lambda: place.look().gauges["journal_bytes"] > 0, "it is written again")
        out, _ = process.communicate()
        assert out == "DELIVERED\n"
