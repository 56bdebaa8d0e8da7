"""One collector's passes, made by hand: rings that this test fills, a journal, and a real HTTP server."""

import contextlib
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from arrivals import death, ids, runner
from passes import Folder, Process, made_folder, passes
from records import event
from rings import child, exit_code, in_child

from epsagon_fast.collector import bounds
from epsagon_fast.collector import loop as loops
from epsagon_fast.collector.bounds import LEAST_JOURNAL_BYTES
from epsagon_fast.collector.loop import Loop
from epsagon_fast.collector.parcel import Settlement
from epsagon_fast.collector.reading import intake
from epsagon_fast.collector.sending.backoff import MAX_IN_FLIGHT
from epsagon_fast.collector.sending.dispatch import Dispatch
from epsagon_fast.compiled import REFERENCE, implementation
from epsagon_fast.protocol import NO_TRACE, Kind
from epsagon_fast.queue import layout, ring
from epsagon_fast.queue import state as states
from epsagon_fast.queue.liveness import start_time
from epsagon_fast.queue.overview import look


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    with made_folder(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def loop(folder: Folder) -> Loop:
    return folder.collector()


@pytest.fixture
def other_pid() -> Iterator[int]:
    """Another process that lives: of two rings of one process the older is taken for abandoned."""
    with child(signal.pause) as pid:
        yield pid


@pytest.fixture
def other_pids() -> Iterator[list[int]]:
    """Some of those."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(child(signal.pause)) for _ in range(5)]


def test_closed_trace_is_sent_settled_and_forgotten(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    trace_id = process.open("main")
    process.add(trace_id, 1)
    process.close(trace_id)
    passes(loop, lambda: process.counts() == (1, 1))
    assert ids(folder.arrived()["main"]) == ["event-1"]
    assert process.ring.tail == process.ring.head
    assert (loop.counts["closed"], loop.counts["delivered"]) == (1, 1)
    assert (loop.unsettled, loop.assembly.open_count) == (0, 0)
    assert folder.state.counters()["delivered"] == 1


def test_what_a_process_refuses_or_leaves_out_is_counted_once_by_all_collectors(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    loop.one_pass()

    def refuse(count: int) -> None:
        for slot in (layout.QUEUE_FULL, layout.LEFT_OUT):
            process.ring.store(slot, process.ring.load(slot) + count)

    def counted(by: Loop) -> int:
        by.intake.tidy()
        by.publish()
        refused, left_out = (folder.state.counters()[name] for name in ("refused_queue_full", "left_out_at_head"))
        assert refused == left_out
        return refused

    refuse(3)
    assert counted(loop) == 3
    second = folder.collector()
    refuse(2)
    second.one_pass()
    assert counted(second) == counted(second) == 5
    refuse(1)
    (reader,) = second.rings
    assert second.intake.bury(reader, time.time())
    assert counted(second) == 6


def test_records_that_were_read_are_counted(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    trace_id = process.open("main")
    process.add(trace_id, 1)
    process.close(trace_id)
    passes(loop, lambda: process.counts() == (1, 1))
    assert folder.state.counters()["records"] == 3


def test_memory_and_processor_time_are_published(folder: Folder, loop: Loop) -> None:
    loop.one_pass()
    assert folder.state.gauges()["resident_bytes"] > 1 << 20
    assert folder.state.counters()["cpu_ms"] > 0


def test_what_others_pushed_before_a_close_is_in_the_trace(folder: Folder, loop: Loop, other_pid: int) -> None:
    opener, other = Process(folder), Process(folder, other_pid)
    trace_id = opener.open("shared")
    for number in range(5):
        other.add(trace_id, number)
    opener.close(trace_id)
    passes(loop, lambda: opener.counts() == (1, 1))
    assert ids(folder.arrived()["shared"]) == [f"event-{number}" for number in range(5)]


def test_what_others_pushed_before_a_close_is_in_the_trace_also_at_a_bound(
    folder: Folder, loop: Loop, other_pid: int
) -> None:
    opener, other = Process(folder), Process(folder, other_pid)
    trace_id = opener.open("shared")
    opener.fill(loop)
    for number in range(5):
        other.add(trace_id, number)
    opener.close(trace_id)
    passes(loop, lambda: opener.counts() == (1, 1))
    assert ids(folder.arrived()["shared"]) == [f"event-{number}" for number in range(5)]
    assert not loop.assembly.counters["late"]


def test_at_a_bound_nothing_is_taken_for_never_opened_before_all_was_read(
    folder: Folder, loop: Loop, other_pid: int
) -> None:
    held, other, opener = Process(folder), Process(folder, other_pid), Process(folder)
    held.fill(loop)
    trace_id = opener.open("shared")
    other.add(trace_id, "before its opening was read")
    own = other.open("own")
    other.close(own)
    for _ in range(3):
        loop.one_pass()
    opener.close(trace_id)
    passes(loop, lambda: "shared" in folder.arrived())
    assert ids(folder.arrived()["shared"]) == ["event-before its opening was read"]


def test_rings_that_wait_for_an_opening_do_not_take_all_places_at_a_bound(
    folder: Folder, loop: Loop, other_pids: list[int]
) -> None:
    opener = Process(folder)
    held = opener.fill(loop)
    shared = opener.open("shared")
    for number in range(40):
        opener.add(shared, number)
    opener.close(shared)
    opener.close(held)
    others = [Process(folder, pid) for pid in other_pids]
    for number, process in enumerate(others):
        process.add(shared, f"of {number}")
        process.close(process.open(f"own {number}"))
    passes(loop, lambda: len(folder.arrived()) == 2 + len(others))
    assert len(ids(folder.arrived()["shared"])) == 40 + len(others)


def test_process_that_holds_all_is_not_read_and_all_others_are(folder: Folder, loop: Loop, other_pid: int) -> None:
    greedy, other = Process(folder), Process(folder, other_pid)
    greedy.fill(loop)
    greedy.add(greedy.open("one more"), 1)
    read_up_to = greedy.ring.tail
    for number in range(20):
        trace_id = other.open(f"trace {number}")
        other.push(Kind.EVENT, trace_id, event("x" * 3000))
        other.close(trace_id)
        passes(loop, lambda number=number: other.counts() == (number + 1, number + 1))  # type: ignore[misc]
    assert len(folder.arrived()) == 20
    assert greedy.ring.tail == read_up_to
    assert (loop.bounds.stopped, loop.counts["full"], loop.counts["dropped"]) == (1, 1, 0)
    loop._next_second = 0.0
    loop.one_pass()
    assert [view.held_bytes > 40_000 for view in look(str(folder.path)).rings if view.pid == os.getpid()] == [True]


def test_process_that_holds_most_loses_its_oldest_traces_and_is_told(
    folder: Folder, loop: Loop, other_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, other = Process(folder), Process(folder, other_pid)
    older = other.open("older")
    oldest = greedy.open("oldest")
    greedy.add(oldest, "x" * 10_000)
    filler = greedy.fill(loop)
    loop.bounds.memory_bytes -= 5000
    newest = greedy.open("newest")
    loop.one_pass()
    assert loop.assembly.unclosed(newest) is None
    monkeypatch.setattr(bounds, "PATIENCE_S", -1.0)
    passes(loop, lambda: loop.counts["dropped_memory"])
    monkeypatch.undo()
    assert loop.counts["dropped"] == loop.counts["dropped_memory"] == 1
    for process, trace_id in ((other, older), (greedy, filler), (greedy, newest), (greedy, oldest)):
        process.close(trace_id)
    passes(loop, lambda: len(folder.arrived()) == 3)
    assert folder.arrived().keys() == {"older", "filler", "newest"}
    told = [runner(body)["resource"]["metadata"].get("dropped_records") for body in folder.arrived().values()]
    assert '{"late":1,"memory":1}' in told, "and its CLOSE came late"
    passes(loop, lambda: loop.assembly.accounts.holds_most() is None)


def test_late_records_alone_do_not_hold_a_journal_at_its_bound(
    folder: Folder, loop: Loop, other_pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(folder)
    closed = process.open("closed")
    process.close(closed)
    passes(loop, lambda: process.counts() == (1, 1))
    monkeypatch.setattr(loop.bounds, "fit_journal", lambda *_: None)
    loop.bounds.journal_bytes = LEAST_JOURNAL_BYTES
    monkeypatch.setattr(loop, "_next_second", 0.0)
    loop.one_pass()
    for pid in other_pids:
        other = Process(folder, pid)
        for _ in range(15):
            other.push(Kind.EVENT, closed, event("x" * 3000))
    process.close(process.open("another"))

    def each_second() -> bool:
        loop._next_second = 0.0
        return "another" in folder.arrived() and loop.assembly.counters["late"] == 15 * len(other_pids)

    passes(loop, each_second)
    assert not loop.counts["dropped"]


def test_small_journal_is_not_filled_in_one_pass(
    folder: Folder, loop: Loop, other_pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.bounds, "fit_journal", lambda *_: None)
    loop.bounds.journal_bytes = 2 * LEAST_JOURNAL_BYTES
    loop.one_pass()
    processes = [Process(folder, pid) for pid in other_pids]
    traces = [process.open(f"trace {number}") for number, process in enumerate(processes)]
    loop.one_pass()
    for process, trace_id in zip(processes, traces, strict=True):
        for _ in range(14):
            process.push(Kind.EVENT, trace_id, event("x" * 3000))
    loop.one_pass()
    for process, trace_id in zip(processes, traces, strict=True):
        process.close(trace_id)
    passes(loop, lambda: len(folder.arrived()) == len(traces))
    assert not loop.counts["dropped"]


def test_ring_with_something_unread_is_not_buried(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    trace_id = process.open("main")
    loop.one_pass()
    process.add(trace_id, 1)
    [reader] = loop.rings
    assert not loop.intake.bury(reader, time.time())
    assert loop.assembly.unclosed(trace_id) is not None
    loop.one_pass()
    assert loop.intake.bury(reader, time.time())
    passes(loop, lambda: "main" in folder.arrived())
    assert ids(folder.arrived()["main"]) == ["event-1"]


def test_ring_that_appears_during_a_pass_is_read_before_a_close_is_acted_on(
    folder: Folder, loop: Loop, other_pid: int
) -> None:
    opener = Process(folder)
    trace_id = opener.open("shared")
    opener.close(trace_id)
    loop.one_pass()
    # Pushed before anybody could know of the CLOSE, in a ring that the pass did not see.
    Process(folder, other_pid).add(trace_id, "late comer")
    passes(loop, lambda: opener.counts() == (1, 1))
    assert ids(folder.arrived()["shared"]) == ["event-late comer"]


def test_what_nobody_can_mask_yet_is_read_again_when_all_others_were_read(
    folder: Folder, loop: Loop, other_pid: int
) -> None:
    secret = b'{"id":"e","resource":{"metadata":{"password":"hush-hush"}},"origin":"sdk"}'
    other, opener = Process(folder, other_pid), Process(folder)
    filler = opener.open("filler")
    # More than one round reads, so the OPEN comes after the other's event.
    opener.push(Kind.EVENT, filler, b'{"id":"' + b"x" * 15_000 + b'"}')
    trace_id = opener.open("shared", ignored_keys=["password"])
    other.push(Kind.EVENT, trace_id, secret)
    never_opened = bytes(range(16))
    other.push(Kind.EVENT, never_opened, secret)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intake, "QUOTA_BYTES", 1000)
        patched.setattr(intake, "ROUND_BYTES", 1000)
        loop.one_pass()
        assert other.ring.tail == 0 and opener.ring.tail == opener.ring.head
        loop.one_pass()
    assert other.ring.tail == other.ring.head
    journal = b"".join(path.read_bytes() for path in folder.path.glob("journal-*"))
    assert b'"password":"****"' in journal and b"hush-hush" not in journal
    opener.close(trace_id)
    passes(loop, lambda: opener.counts() == (1, 1))
    assert ids(folder.arrived()["shared"]) == ["e"]
    assert loop.assembly.counters["orphan"] == 1


def test_late_and_orphaned_records_are_counted(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    trace_id = process.open("main")
    process.close(trace_id)
    passes(loop, lambda: process.counts() == (1, 1))
    process.add(trace_id, "late")
    process.add(os.urandom(16), "orphan")
    passes(loop, lambda: loop.assembly.counters["orphan"])
    assert loop.assembly.counters["late"] == 1


def test_storm_in_one_ring_does_not_keep_the_others_waiting(folder: Folder, loop: Loop, other_pid: int) -> None:
    storm, quiet = Process(folder), Process(folder, other_pid)
    storming = storm.open("storm")
    for number in range(500):
        storm.push(Kind.LABEL, storming, json.dumps([str(number % 10), "x" * 50]).encode())
    mine = quiet.open("quiet")
    quiet.close(mine)
    loop.one_pass()
    assert quiet.ring.tail == quiet.ring.head
    assert storm.ring.tail == storm.ring.head


def test_dead_process_is_buried_with_its_open_traces(folder: Folder, loop: Loop) -> None:
    def work() -> None:
        process = Process(folder)
        process.add(process.open("open"), 1)

    assert exit_code(in_child(work)) == 0
    passes(loop, lambda: "open" in folder.arrived())
    assert death(folder.arrived()["open"]) == "ProcessDied"
    assert folder.names(".ring") == []


def test_process_that_said_goodbye_leaves_unfinished_traces_without_an_error(folder: Folder, loop: Loop) -> None:
    def work() -> None:
        process = Process(folder)
        process.open("open")
        process.push(Kind.BYE, NO_TRACE)

    assert exit_code(in_child(work)) == 0
    passes(loop, lambda: "open" in folder.arrived())
    assert death(folder.arrived()["open"]) is None
    assert runner(folder.arrived()["open"])["resource"]["metadata"]["unfinished"] == "true"


def test_refusals_of_a_process_are_counted_when_it_has_ended(folder: Folder, loop: Loop) -> None:
    def work() -> None:
        Process(folder).ring.add(layout.REFUSED, 7)

    assert exit_code(in_child(work)) == 0
    passes(loop, lambda: loop.counts["refused_queue_full"])
    assert loop.counts["refused_queue_full"] == 7


def damage(folder: Folder, process: Process, where: str = "record") -> None:
    """Write nonsense where the next record is, or over the head."""
    with open(folder.path / process.name, "r+b") as file:
        file.seek(layout.HEADER_BYTES + process.ring.tail if where == "record" else layout.HEAD)
        file.write(b"\xff" * 8)


@pytest.mark.parametrize(
    "where",
    [
        "head",
        pytest.param(
            "record",
            marks=pytest.mark.skipif(
                implementation("ring") == REFERENCE, reason="as long as the process lives it may still be writing this"
            ),
        ),
    ],
)
def test_corrupt_ring_is_set_aside_and_the_others_go_on(folder: Folder, loop: Loop, other_pid: int, where: str) -> None:
    sick, well = Process(folder), Process(folder, other_pid)
    trace_id = sick.open("sick")
    loop.one_pass()
    sick.add(trace_id, 1)
    sick.ring.add(layout.REFUSED, 7)
    damage(folder, sick, where)
    mine = well.open("well")
    well.close(mine)
    passes(loop, lambda: well.counts() == (1, 1) and "sick" in folder.arrived())
    loop.publish()
    assert (loop.counts["corrupt_rings"], loop.counts["refused_queue_full"]) == (1, 7)
    assert folder.names(".corrupt") == [sick.name + ".corrupt"]
    assert death(folder.arrived()["sick"]) == "ProcessDied"


def test_ring_that_ends_in_the_middle_of_a_record_is_set_aside(folder: Folder, loop: Loop) -> None:
    def work() -> None:
        name = os.urandom(16).hex() + ".ring"
        fd = ring.create(folder.fd, name, 65536, pid=os.getpid(), start_time=start_time(os.getpid()), checksummed=True)
        os.pwrite(fd, (64).to_bytes(8, "little"), layout.HEAD)

    assert exit_code(in_child(work)) == 0
    passes(loop, lambda: folder.names(".corrupt"))
    loop.publish()
    assert folder.state.counters()["corrupt_rings"] == 1 and not len(loop.rings)


def test_corrupt_ring_of_a_dead_process_is_no_reason_to_die(folder: Folder, loop: Loop) -> None:
    # Whatever wrote over a process's memory may well have killed it, too.
    def work() -> None:
        process = Process(folder)
        process.open("sick")
        damage(folder, process)

    assert exit_code(in_child(work)) == 0
    passes(loop, lambda: folder.names(".corrupt"))
    assert folder.names(".ring") == []
    well = Process(folder)
    well.close(well.open("well"))
    passes(loop, lambda: well.counts() == (1, 1))


# Its successors.


def test_successor_goes_on_from_the_journal(folder: Folder) -> None:
    process = Process(folder)
    first = folder.collector()
    trace_id = process.open("main")
    process.add(trace_id, 1)
    first.one_pass()
    assert process.ring.tail == process.ring.head
    process.add(trace_id, 2)
    second = folder.collector()
    process.add(trace_id, 3)
    process.close(trace_id)
    passes(second, lambda: process.counts() == (1, 1))
    assert ids(folder.arrived()["main"]) == ["event-1", "event-2", "event-3"]


def test_successor_closes_what_a_dead_process_left_in_the_journal(folder: Folder) -> None:
    # The ring's file went when its last record was in the journal, and then the collector died.
    def work() -> None:
        process = Process(folder)
        process.add(process.open("open"), 1)

    first = folder.collector()
    assert exit_code(in_child(work)) == 0
    while folder.names(".ring"):
        first.one_pass()
    assert first.assembly.open_count == 1
    second = folder.collector()
    passes(second, lambda: "open" in folder.arrived())
    assert (ids(folder.arrived()["open"]), death(folder.arrived()["open"])) == (["event-1"], "ProcessDied")


def test_successor_does_not_send_what_is_settled(folder: Folder) -> None:
    process = Process(folder)
    first = folder.collector()
    long = process.open("long")
    done = process.open("done")
    process.close(done)
    passes(first, lambda: process.counts() == (1, 1))
    second = folder.collector()
    process.close(long)
    passes(second, lambda: process.counts() == (2, 2))
    assert folder.arrived().keys() == {"long", "done"}


def test_collector_that_finishes_with_traces_on_their_way_leaves_them_to_the_next(folder: Folder) -> None:
    folder.server.behave = servers.status(503)
    process = Process(folder)
    first = folder.collector()
    for number in range(5):
        process.close(process.open(str(number)))
    passes(first, lambda: len(folder.server.requests) >= 1)
    first.finish()
    folder.loops.remove(first)
    folder.server.behave = servers.status(200)
    second = folder.collector()

    def all_came() -> bool:
        bodies = [json.loads(request.body) for request in list(folder.server.requests)]
        return {runner(body)["resource"]["name"] for body in bodies} == set("01234")

    passes(second, lambda: all_came() and not second.unsettled)


def test_collector_that_finishes_sends_more_than_goes_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine may take longer than the product gives it.
    monkeypatch.setattr(loops, "LAST_REQUESTS_S", 30.0)
    process = Process(folder)
    collector = folder.collector()
    traces = []
    for _ in range(3 * MAX_IN_FLIGHT):
        traces.append(process.open("short"))
        collector.one_pass()
    for trace_id in traces:
        process.close(trace_id)
    # A CLOSE is acted on one pass after it was read.
    collector.one_pass()
    collector.one_pass()
    collector.finish()
    folder.loops.remove(collector)
    assert (len(folder.server.requests), process.counts()) == (3 * MAX_IN_FLIGHT, (3 * MAX_IN_FLIGHT,) * 2)


def test_collector_that_finishes_leaves_time_for_the_last_answers(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "LAST_REQUESTS_S", 60.0)
    monkeypatch.setattr(loops, "LAST_ANSWERS_S", 59.9)
    collector = folder.collector()
    finish, waited = collector.sending.finish, []

    def noted(now: float, answers_s: float, stored_s: float) -> list[Settlement]:
        waited.append(answers_s)
        return finish(now, answers_s, stored_s)

    # More than its backend takes.
    monkeypatch.setattr(Dispatch, "sends_more", True)
    monkeypatch.setattr(collector.sending, "finish", noted)
    collector.finish()
    folder.loops.remove(collector)
    assert waited[0] > 0.0


def test_recovery_may_itself_be_cut_short(folder: Folder) -> None:
    process = Process(folder)
    first = folder.collector()
    trace_id = process.open("main")
    for number in range(3):
        process.add(trace_id, number)
        first.one_pass()
    for _ in range(3):
        folder.collector()
    last = folder.collector()
    process.close(trace_id)
    passes(last, lambda: process.counts() == (1, 1))
    assert ids(folder.arrived()["main"]) == ["event-0", "event-1", "event-2"]


# When something is wrong.


def test_without_a_journal_traces_go_on(
    folder: Folder, loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loop.journal, "commit", full)
        process = Process(folder)
        process.close(process.open("main"))
        passes(loop, lambda: process.counts() == (1, 1))
    assert loop.counts["journal_unavailable"] > 1
    assert caplog.text.count("No space left on device") == 1, "it is logged once"
    loop.one_pass()
    assert "can be written again" in caplog.text


def test_what_stood_in_a_journal_file_that_somebody_deleted_is_written_again(folder: Folder) -> None:
    process, first = Process(folder), folder.collector()
    trace_id = process.open("main")
    process.add(trace_id, 1)
    first.one_pass()
    for path in folder.path.glob("journal-*"):
        path.unlink()
    first._next_second = 0.0
    first.one_pass()
    assert first.counts["journal_unavailable"] == 1
    first.one_pass()
    # The collector dies here.
    second = folder.collector()
    assert second.counts["corrupt_segments"] == 0
    process.close(trace_id)
    passes(second, lambda: process.counts() == (1, 1))
    assert ids(folder.arrived()["main"]) == ["event-1"]


def test_deleted_folder_is_served_to_its_end_and_new_rings_are_not_looked_for(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    trace_id = process.open("main")
    loop.one_pass()
    shutil.rmtree(folder.path)
    folder.path.mkdir(0o700)
    passes(loop, lambda: folder.state.gone)
    process.close(trace_id)
    passes(loop, lambda: process.counts() == (1, 1))
    assert loop.gone and len(loop.rings) == 1


def test_what_goes_with_a_deleted_folder_is_counted_told_and_logged(
    folder: Folder, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(folder)
    folder.server.behave = servers.status(503)
    process.open("open")
    process.close(process.open("stored"))
    passes(loop, lambda: loop.counts["stored"] == 1)
    shutil.rmtree(folder.path)
    folder.path.mkdir(0o700)
    passes(loop, lambda: loop.gone)
    # No successor will find the folder.
    loop.finish(hands_over=True)
    # The state directory has the other one.
    assert loop.counts["dropped_folder_gone"] == loop.counts["dropped"] == 1
    assert "1 trace lost with the folder" in caplog.text


def test_nothing_that_a_collector_leaves_in_its_folder_is_lost(folder: Folder) -> None:
    process, loop = Process(folder), folder.collector()
    process.open("open")
    loop.one_pass()
    loop.finish(hands_over=True)
    assert loop.counts["dropped"] == 0


def test_page_says_what_is_here(folder: Folder, loop: Loop) -> None:
    process = Process(folder)
    process.open("open")
    loop.one_pass()
    loop.publish()
    gauges = folder.state.gauges()
    assert (gauges["rings"], gauges["open_traces"], gauges["pending"]) == (1, 1, 0)
    assert gauges["held_bytes"] > 0 and gauges["journal_bytes"] > 0
    before = folder.state.load(states.HEARTBEAT_NS)
    loop.one_pass()
    assert folder.state.load(states.HEARTBEAT_NS) > before


def test_masked_values_never_reach_the_disk(folder: Folder, loop: Loop, other_pid: int) -> None:
    process = Process(folder)
    other = Process(folder, other_pid)
    trace_id = process.open("main", ignored_keys=["card"])
    for each in (process, other):
        each.push(Kind.EVENT, trace_id, event(1, card="4111-1111"))
        each.push(Kind.LABEL, trace_id, b'["card", "4111-1111"]')
    loop.one_pass()
    journals = [path.read_bytes() for path in folder.path.iterdir() if path.name.startswith("journal-")]
    assert journals and not any(b"4111-1111" in data for data in journals)
    process.close(trace_id)
    passes(loop, lambda: process.counts() == (1, 1))
    assert b"4111-1111" not in folder.server.requests[0].body
