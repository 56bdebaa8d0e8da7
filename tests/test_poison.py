"""What kills collectors is found and set aside; what they were killed over from outside is not."""

import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from places import Place, until
from records import TRACE_ID, added, event
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend
from epsagon_fast.collector.journal.frames import MAGIC, Batch, parse
from epsagon_fast.collector.poison import MOST_DEATHS, Poison
from epsagon_fast.protocol import Record
from epsagon_fast.queue.state import StatePage

RING = bytes(16)
DEADLY, OTHER = added(event("deadly")), added(event("other"))


class Death(Exception):
    """The process that does this work ends."""


class Collector:
    """The poison of one collector after the other, in one folder."""

    def __init__(self, folder_fd: int) -> None:
        self.counts: Counter[str] = Counter()
        self.poison = Poison(folder_fd, StatePage(folder_fd, create=True), self.counts)

    def work(self, *records: Record, dies_of: Record | None = None) -> list[Record]:
        """Work on records; die of one as compiled code does, without a word."""
        done: list[Record] = []

        def work_on(batch: list[Record]) -> None:
            if dies_of in batch:
                raise Death
            done.extend(batch)

        with suppress(Death):
            for record in self.poison.note_batch(RING, list(records), work_on):
                work_on([record])
            self.poison.note_end()
        return done


def die() -> None:
    raise Death


def test_a_record_that_an_exception_named_twice_is_set_aside(folder_fd: int, tmp_path: Path) -> None:
    for _ in range(2):
        collector = Collector(folder_fd)
        assert collector.work(OTHER, DEADLY) == [OTHER, DEADLY]
        collector.poison.note_record(DEADLY)
    third = Collector(folder_fd)
    assert third.work(DEADLY, OTHER, dies_of=DEADLY) == [OTHER]
    assert third.counts == {"poison": 1}
    (path,) = tmp_path.glob("poison-*")
    assert parse(MAGIC + path.read_bytes()).frames == [Batch(RING, 0, [DEADLY])]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_record_that_crashes_collectors_is_set_aside(folder_fd: int) -> None:
    # The first death says in which batch, the next two of which record.
    for _ in range(3):
        assert Collector(folder_fd).work(OTHER, DEADLY, OTHER, dies_of=DEADLY) == [OTHER]
    assert Collector(folder_fd).work(OTHER, DEADLY, OTHER, dies_of=DEADLY) == [OTHER, OTHER]


def test_it_stays_aside_for_all_later_collectors_and_is_counted_once(folder_fd: int) -> None:
    for _ in range(2):
        Collector(folder_fd).poison.note_record(DEADLY)
    for counted in (1, 0, 0):
        later = Collector(folder_fd)
        assert later.work(DEADLY, OTHER, dies_of=DEADLY) == [OTHER]
        assert later.counts["poison"] == counted


def test_two_deaths_over_different_records_condemn_none(folder_fd: int) -> None:
    for record in (DEADLY, OTHER, DEADLY, OTHER):
        Collector(folder_fd).poison.note_record(record)
    # The next death of either is the first of two.
    assert Collector(folder_fd).work(DEADLY, OTHER, dies_of=DEADLY) == []


def test_collectors_killed_over_a_batch_condemn_nothing(folder_fd: int) -> None:
    for _ in range(5):
        Collector(folder_fd).work(OTHER, DEADLY)
        Collector(folder_fd).poison.note_batch(RING, [DEADLY], list)
    assert Collector(folder_fd).work(DEADLY) == [DEADLY]


def test_what_collectors_were_killed_over_several_times_is_tried_and_kept(folder_fd: int, tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS - 1):
        # What is done in the trial does not count here.
        collector = Collector(folder_fd)
        assert collector.work(OTHER, DEADLY, OTHER) == [OTHER, DEADLY, OTHER]
        collector.poison.note_record(DEADLY)
    assert Collector(folder_fd).work(DEADLY) == [DEADLY]
    for _ in range(MOST_DEATHS - 1):
        collector = Collector(folder_fd)
        assert not collector.poison.is_poison_as_body(TRACE_ID, list)
        collector.poison.note_body(TRACE_ID)
    assert not Collector(folder_fd).poison.is_poison_as_body(TRACE_ID, list)
    assert not list(tmp_path.glob("poison-*"))


def test_what_kills_collectors_and_spares_children_is_set_aside_in_the_end(folder_fd: int) -> None:
    for _ in range(MOST_DEATHS):
        Collector(folder_fd).poison.note_record(DEADLY)
    last = Collector(folder_fd)
    assert (last.work(DEADLY, OTHER), last.counts) == ([OTHER], {"poison": 1})


def test_a_trace_whose_body_kills_is_known(folder_fd: int, tmp_path: Path) -> None:
    for _ in range(2):
        collector = Collector(folder_fd)
        assert not collector.poison.is_poison_as_body(TRACE_ID, die)
        collector.poison.note_body(TRACE_ID)
    third = Collector(folder_fd)
    assert third.poison.is_poison_as_body(TRACE_ID, die)
    assert third.work(DEADLY) == [DEADLY]
    third.poison.set_aside(RING, [DEADLY, OTHER])
    (path,) = tmp_path.glob("poison-*")
    assert parse(MAGIC + path.read_bytes()).frames == [Batch(RING, 0, [DEADLY, OTHER])]


# With real processes: a collector that is made to die of a certain text.

SABOTAGE = """
import os, signal, sys
own = os.getpid()
sys.path[:0] = {path!r}
from epsagon_fast.collector.assembling import {module}
before = {module}.{function}
def deadly(*arguments, **options):
    if b"deadly" in repr(arguments).encode() or b"deadly" in repr(getattr(arguments[0], "runner", "")).encode():
        {death}
    return before(*arguments, **options)
{module}.{function} = deadly
from epsagon_fast.collector.__main__ import main
sys.exit(main())
"""
TRACES = """
import epsagon_fast as epsagon
for name in ("before", "deadly", "after"):
    with epsagon.trace(name):
        epsagon.add_event({"id": f"event of {name}"})
"""
DEATHS = {"an exception": "raise RuntimeError('sabotage')", "a crash": "os.abort()"}


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("work", ["feeding a record", "building a body"])
def test_the_next_collectors_go_on_without_it(death: str, work: str, backend: Backend, place: Place) -> None:
    place.env["EPSAGON_LAUNCH"] = "0"
    place.run(TRACES)
    target = ("assembly", "Assembly.take") if work == "feeding a record" else ("body", "build")
    script = sabotaged(*target, DEATHS[death])
    codes = []
    for _ in range(8):
        process = place.start(script, "--runtime-dir", place.folder, env={"EPSAGON_LINGER_SEC": "0"})
        process.communicate(timeout=TIMEOUT_S)
        codes.append(process.returncode)
        if process.returncode == 0:
            break
    died = codes.index(0)
    # Each deadly record takes two lives, and a crash first one to know the batch.
    assert died >= 2 and set(codes[:died]) == {1 if death == "an exception" else -signal.SIGABRT}
    until(lambda: backend.store.counts()["traces"] >= 2, "the others arrive")
    assert place.look().counters["poison"] >= 1
    assert list(Path(place.folder).glob("poison-*"))
    bodies = b"".join(body for _, body in backend.store.bodies())
    assert b"event of before" in bodies and b"event of after" in bodies


def test_what_collectors_are_killed_over_from_outside_is_not_lost(backend: Backend, place: Place) -> None:
    place.env["EPSAGON_LAUNCH"] = "0"
    place.run(TRACES)
    # Whoever kills it does not know of the child in which a record is tried.
    kill = "if own == os.getpid() and os.environ['LIVES'] != '0': os.kill(own, signal.SIGKILL)"
    script = sabotaged("assembly", "Assembly.take", kill)
    for lives in (4, 3, 2, 1, 0):
        # The first is killed over a batch, the next ones over the same record.
        environment = {"EPSAGON_LINGER_SEC": "0", "LIVES": str(lives)}
        process = place.start(script, "--runtime-dir", place.folder, env=environment)
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == (-signal.SIGKILL if lives else 0)
    until(lambda: backend.store.counts()["traces"] == 3, "all arrive")
    assert "poison" not in place.look().counters
    assert not list(Path(place.folder).glob("poison-*"))


def sabotaged(module: str, function: str, death: str) -> str:
    import sys

    return SABOTAGE.format(path=[path for path in sys.path if path], module=module, function=function, death=death)
