"""What a collector holds is bounded: what does not fit stays with the processes, and all goes on by itself."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Place, until
from servers import Server, hang, status

from epsagon_fast.backend import Backend
from epsagon_fast.collector.bounds import (
    LEAST_JOURNAL_BYTES,
    MIB,
    PATIENCE_S,
    PAUSE_S,
    SLACK_BYTES,
    Bounds,
    Level,
    configured_bytes,
)

LIMIT = 100 * MIB


@pytest.fixture
def bounds() -> Bounds:
    return Bounds(LIMIT)


def test_everything_is_read_below_the_bound(bounds: Bounds) -> None:
    assert bounds.look(LIMIT - 1, 0, False, 0.0) == Level.ALL


def test_at_the_bound_only_what_closes_traces_is_read_and_beyond_it_nothing(bounds: Bounds) -> None:
    assert bounds.look(LIMIT, 0, False, 0.0) == Level.CLOSES
    assert bounds.look(LIMIT + SLACK_BYTES, 0, False, 0.0) == Level.NOTHING
    assert bounds.look(LIMIT + SLACK_BYTES - 1, 0, False, 0.0) == Level.CLOSES


def test_reading_is_resumed_a_little_below_the_bound(bounds: Bounds) -> None:
    bounds.look(LIMIT, 0, False, 0.0)
    assert bounds.look(LIMIT - 1, 0, False, 0.0) == Level.CLOSES
    assert bounds.look(int(0.89 * LIMIT), 0, False, 0.0) == Level.ALL
    assert bounds.look(LIMIT - 1, 0, False, 0.0) == Level.ALL


def test_the_journal_has_a_bound_of_its_own(bounds: Bounds) -> None:
    assert bounds.look(0, bounds.journal_bytes, False, 0.0) == Level.CLOSES
    assert bounds.look(0, bounds.journal_bytes + SLACK_BYTES, False, 0.0) == Level.NOTHING
    bounds.journal_bytes = MIB
    assert bounds.look(0, 2 * MIB, False, 0.0) == Level.NOTHING, "the slack is no larger than the bound"


def test_the_journal_takes_a_part_of_the_free_space(
    bounds: Bounds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for free, expected in ((0, LEAST_JOURNAL_BYTES), (160 * MIB, 20 * MIB), (10**6 * MIB, 64 * MIB)):
        found = os.statvfs_result((1, 1, 0, 0, free, 0, 0, 0, 0, 0))
        monkeypatch.setattr(os, "fstatvfs", lambda fd, found=found: found)
        bounds.fit_journal(fd, 0)
        assert bounds.journal_bytes == expected
    monkeypatch.undo()
    os.close(fd)


def test_it_is_stuck_after_a_while_without_a_trace_that_ended(bounds: Bounds) -> None:
    bounds.look(LIMIT, 0, False, 0.0)
    bounds.look(LIMIT, 0, True, 10.0)
    assert not bounds.stuck(10.0 + PATIENCE_S)
    assert bounds.stuck(10.1 + PATIENCE_S)
    bounds.dropped(10.1 + PATIENCE_S)
    assert not bounds.stuck(10.2 + PATIENCE_S)
    assert bounds.stuck(10.2 + PATIENCE_S + PAUSE_S)
    bounds.look(0, 0, False, 11.0 + PATIENCE_S)
    assert not bounds.stuck(12.0 + PATIENCE_S)


@pytest.mark.parametrize(
    ("text", "megabytes"), [("64", 64), ("0.5", 0.5), ("", 256), ("much", 256), ("-1", 256), ("inf", 256)]
)
def test_the_environment_names_the_bound(text: str, megabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_COLLECTOR_MEMORY_MB", text)
    assert configured_bytes() == megabytes * MIB


# With real processes

# Pushes as fast as the collector reads, until it does not, and then until the ring is full.
PUSHING = """
import sys, time, epsagon_fast as epsagon
from epsagon_fast.queue import writer

def pushed(one_more, count=0):
    while not refused():
        one_more()
        count += 1
        deadline = time.monotonic() + 0.7
        while not refused() and not writer.known()[-1].drained() and time.monotonic() < deadline:
            time.sleep(0.001)
            if full:
                break
        full[:] = [True] * (time.monotonic() >= deadline or bool(full))
    return count

def refused():
    return sum(writer.known()[-1].refusals().values()) if writer.known() else 0

def event():
    return {"id": "x", "resource": {"metadata": {"k": "x" * 16000}}}

full = []
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
print(epsagon.flush(20), refused(), flush=True)
with epsagon.trace("one more"):
    pass
print(epsagon.flush(20), flush=True)
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
print(epsagon.flush(20), flush=True)
"""
)


def resident_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("RssAnon", "RssShmem"))) * 1024


def test_open_traces_are_bounded_and_all_that_was_accepted_arrives(place: Place, backend: Backend) -> None:
    place.env["EPSAGON_COLLECTOR_MEMORY_MB"] = "8"
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
    assert place.log().count("full (") == 1 and "room again" in place.log()


def test_a_backlog_is_bounded_too(place: Place) -> None:
    with Server(hang) as slow:
        place.env |= {
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
            assert place.look().gauges["held_bytes"] < 8 * MIB + SLACK_BYTES
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
    print(epsagon.flush(10), flush=True)
print(held.stop(10).name)
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
    # Nothing is to fail but the journal, however busy the machine is.
    with place.start(BUSY, stdin=-1, env={"EPSAGON_SEND_TIMEOUT_SEC": "10"}) as process:
        assert process.stdin is not None and process.stdout is not None

        def more() -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n", f"{place.look()}"

        for _ in range(5):
            more()
        until(lambda: place.look().counters.get("journal_unavailable", 0) > 0, "it is counted")
        assert place.look().counters["delivered"] == 100
        assert place.look().rings[0].unread_bytes == 0
        resource.prlimit(no_space.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        more()
        until(lambda: place.look().gauges["journal_bytes"] > 0, "it is written again")
        out, _ = process.communicate()
        assert out == "DELIVERED\n"
