"""When a collector leaves: time is an argument, and so is all that it looks at."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from places import until
from rings import in_child

from epsagon_fast.collector import leaving
from epsagon_fast.collector.leaving import (
    BACKLOG_S,
    GONE_BACKLOG_S,
    GRACE_S,
    LINGER_S,
    LOOKED_S,
    PARENT_LOOK_S,
    STORED_S,
    Leaving,
    linger_s,
)
from epsagon_fast.collector.loop import LAST_HANDED_OVER_S
from epsagon_fast.queue import state as states
from epsagon_fast.queue.liveness import is_waited_for
from epsagon_fast.queue.state import StatePage


class FakeLoop:
    """What Leaving sees of a loop; `at_pass` happens in its next pass."""

    def __init__(self) -> None:
        self.rings: list[object] = []
        self.assembly = SimpleNamespace(open_count=0)
        self.sending = SimpleNamespace(busy=0, stored=0, sends_stored=False, has_looked=True)
        self.unsettled = 0
        self.gone = False
        self.passes = 0
        self.at_pass: Callable[[], object] = lambda: None

    def one_pass(self) -> bool:
        self.passes += 1
        self.at_pass()
        return False


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatePage]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield StatePage(fd, create=True)
    os.close(fd)


@pytest.fixture(autouse=True)
def no_linger_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPSAGON_LINGER_SEC", raising=False)


@pytest.fixture
def loop() -> Any:
    return FakeLoop()


def ring_of(pid: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid)


PARENT = ring_of(os.getppid())


@pytest.fixture
def waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "is_waited_for", lambda: True)


@pytest.mark.usefixtures("waited_for")
def test_for_a_parent_that_waits_for_its_end_it_does_not_stay(page: StatePage, loop: Any) -> None:
    loop.rings.append(PARENT)
    # Open in the parent while it waits.
    loop.assembly.open_count = 1
    assert Leaving(page, is_orphan=True).due(loop, 0.0)


@pytest.mark.usefixtures("waited_for")
def test_it_stays_for_others_for_what_is_on_its_way_and_for_a_supervisor(page: StatePage, loop: Any) -> None:
    loop.rings += [PARENT, ring_of(os.getppid() + 1)]
    mine = Leaving(page, is_orphan=True)
    assert not mine.due(loop, 0.0)
    loop.rings.pop()
    loop.unsettled = 1
    assert not mine.due(loop, 1e6)
    loop.unsettled = 0
    assert not Leaving(page).due(loop, 2e6)
    assert mine.due(loop, 2e6)


def test_parent_that_does_something_else_keeps_it(page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "is_waited_for", lambda: False)
    loop.rings.append(PARENT)
    mine = Leaving(page, is_orphan=True)
    assert not any(mine.due(loop, now) for now in (0.0, 1e6, 1e9))


def test_what_the_parent_does_is_looked_at_now_and_then_only(
    page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    monkeypatch.setattr(leaving, "is_waited_for", lambda: bool(looks.append(True)))
    loop.rings.append(PARENT)
    mine = Leaving(page, is_orphan=True)
    for now in (0.0, PARENT_LOOK_S / 2, PARENT_LOOK_S, 1.5 * PARENT_LOOK_S):
        mine.due(loop, now)
    assert len(looks) == 2


def test_only_child_is_waited_for_and_one_of_two_is_not() -> None:
    def parent() -> int:
        other = os.fork()
        if other == 0:
            signal.pause()
        only = os.fork()
        if only == 0:
            waited = is_waited_for()
            os.kill(other, signal.SIGKILL)
            until(is_waited_for, "the parent waits for nothing else")
            os._exit(waited)
        # Reaps one, then the other; the codes are those of both.
        return int(dict([os.wait(), os.wait()])[only] != 0)

    assert os.waitpid(in_child(parent), 0)[1] == 0


def test_with_a_producer_it_stays_for_ever(page: StatePage, loop: Any) -> None:
    loop.rings.append(ring_of(1))
    mine = Leaving(page)
    assert not any(mine.due(loop, now) for now in (0.0, 1e6, 1e9))
    assert page.beat().phase == states.SERVING


def test_without_one_it_lingers(page: StatePage, loop: Any) -> None:
    mine = Leaving(page)
    assert not mine.due(loop, 100.0)
    assert not mine.due(loop, 100.0 + LINGER_S - 1)
    assert mine.due(loop, 100.0 + LINGER_S)
    assert page.beat().phase == states.LEAVING


def test_producer_that_comes_begins_the_linger_anew(page: StatePage, loop: Any) -> None:
    mine = Leaving(page)
    mine.due(loop, 100.0)
    loop.rings.append(ring_of(1))
    mine.due(loop, 120.0)
    loop.rings.clear()
    assert not mine.due(loop, 100.0 + LINGER_S)
    assert mine.due(loop, 100.0 + 2 * LINGER_S)


def test_producer_that_comes_while_it_leaves_keeps_it(page: StatePage, loop: Any) -> None:
    mine = Leaving(page)
    mine.due(loop, 0.0)
    # It says that it is leaving and looks once more: whoever came before it said so is seen.
    loop.at_pass = lambda: page.beat().phase == states.LEAVING and loop.rings.append(ring_of(1))
    assert not mine.due(loop, LINGER_S)
    assert loop.passes == 1
    assert not mine.due(loop, LINGER_S + 1)
    assert page.beat().phase == states.SERVING


def test_open_traces_of_dead_processes_are_finished_first(page: StatePage, loop: Any) -> None:
    mine = Leaving(page)
    loop.assembly.open_count = 1
    assert not mine.due(loop, 0.0)
    assert not mine.due(loop, LINGER_S)
    loop.assembly.open_count = 0
    assert not mine.due(loop, LINGER_S)
    assert mine.due(loop, 2 * LINGER_S)


@pytest.mark.parametrize("what", ["unsettled", "stored"])
def test_with_a_backlog_it_stays_longer_but_not_for_ever(page: StatePage, loop: Any, what: str) -> None:
    setattr(loop if what == "unsettled" else loop.sending, what, 3)
    mine = Leaving(page)
    assert not mine.due(loop, 0.0)
    assert not mine.due(loop, BACKLOG_S)
    assert mine.due(loop, BACKLOG_S + 1)


@pytest.mark.parametrize("what", ["unsettled", "stored"])
def test_with_a_backlog_in_a_deleted_folder_it_stays_for_a_minute(page: StatePage, loop: Any, what: str) -> None:
    setattr(loop if what == "unsettled" else loop.sending, what, 3)
    loop.gone = True
    mine = Leaving(page)
    assert not mine.due(loop, 0.0)
    assert not mine.due(loop, GONE_BACKLOG_S)
    assert mine.due(loop, GONE_BACKLOG_S + 1)
    assert GONE_BACKLOG_S < BACKLOG_S


def test_in_a_deleted_folder_it_does_not_linger(page: StatePage, loop: Any) -> None:
    loop.gone = True
    assert Leaving(page).due(loop, 0.0)


def test_asked_to_leave_it_waits_a_moment_for_its_producers_to_leave_first(page: StatePage, loop: Any) -> None:
    mine = Leaving(page)
    assert not mine.asked
    loop.rings.append(ring_of(1))
    mine.ask(100.0)
    assert mine.asked
    assert not mine.due(loop, 100.0)
    loop.rings.clear()
    loop.sending.busy = 1
    assert not mine.due(loop, 100.1)
    loop.sending.busy = 0
    assert mine.due(loop, 100.2)


def test_asked_to_leave_it_hands_over_those_that_stay(page: StatePage, loop: Any) -> None:
    loop.rings.append(ring_of(1))
    mine = Leaving(page)
    mine.ask(100.0)
    assert not mine.due(loop, 100.0 + GRACE_S)
    assert mine.due(loop, 100.1 + GRACE_S)
    # The producers' next look starts a successor.
    assert page.beat().phase == states.LEAVING


def test_whole_stop_with_producers_takes_less_than_two_seconds() -> None:
    assert GRACE_S + 2 * LAST_HANDED_OVER_S < 1.8


def test_it_does_not_leave_before_the_outbox_has_looked(
    page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_LINGER_SEC", "0")
    loop.sending.has_looked = False
    mine = Leaving(page)
    assert not mine.due(loop, 100.0)
    loop.sending.has_looked = True
    assert mine.due(loop, 100.1)


def test_it_does_not_wait_for_ever_for_a_look_at_a_sick_disk(page: StatePage, loop: Any) -> None:
    loop.sending.has_looked = False
    mine = Leaving(page)
    assert not mine.due(loop, 100.0)
    assert mine.due(loop, 100.0 + max(LOOKED_S, LINGER_S) + 0.1)


def test_supervised_collector_stays_until_it_is_told(page: StatePage, loop: Any) -> None:
    Leaving(page).ask(100.0)
    mine = Leaving(page, stays=True)
    assert not any(mine.due(loop, now) for now in (0.0, LINGER_S, BACKLOG_S, 1e9))
    mine.ask(1e9)
    assert mine.due(loop, 1e9)


def test_supervised_collector_of_a_deleted_folder_leaves_for_a_new_one(page: StatePage, loop: Any) -> None:
    loop.gone = True
    assert Leaving(page, stays=True).due(loop, 0.0)


@pytest.mark.parametrize(
    ("groups", "leaves"),
    [({1: "web", 2: "tasks"}, False), ({1: "tasks", 2: "cron"}, True), ({1: "tasks", 2: ""}, False), ({}, False)],
)
def test_successor_in_a_group_that_goes_down_hands_over_when_it_is_the_last_there(
    page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch, groups: dict[int, str], leaves: bool
) -> None:
    monkeypatch.setattr(leaving, "control_group", {os.getpid(): "web" if groups else "", **groups}.get)
    loop.rings += [ring_of(pid) for pid in groups or (1,)]
    # Before anyone was asked, the group decides nothing.
    assert not Leaving(page).due(loop, 0.0)
    Leaving(page).ask(100.0)
    assert Leaving(page).due(loop, 1.0) == leaves


def test_groups_are_looked_at_once_in_a_while(page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(leaving, "control_group", lambda pid: looks.append(pid) or "web")
    loop.rings.append(ring_of(1))
    Leaving(page).ask(100.0)
    successor = Leaving(page)
    for now in (0.0, leaving.GROUP_LOOK_S / 2, leaving.GROUP_LOOK_S):
        assert not successor.due(loop, now)
    assert looks.count(os.getpid()) == 2


def test_control_group_of_a_process_that_is_gone_is_unknown() -> None:
    assert leaving.control_group(2**22 + 1) == ""
    assert leaving.control_group(os.getpid()) == leaving.control_group(os.getppid())


def test_asked_twice_it_goes_now(page: StatePage, loop: Any) -> None:
    loop.rings.append(ring_of(1))
    loop.sending.busy = 5
    mine = Leaving(page)
    mine.ask(100.0)
    mine.ask(100.1)
    assert mine.due(loop, 100.2)


def test_asking_is_remembered_for_the_next_one(page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving.time, "time", lambda: 5000.0)
    Leaving(page).ask(100.0)
    assert Leaving(page).due(loop, 0.0), "in the same second"
    monkeypatch.setattr(leaving.time, "time", lambda: 5000.0 + leaving.GOING_DOWN_S - 1)
    assert Leaving(page).due(loop, 0.0)
    # A sick backend is left to the next one: the service that goes down does not wait for it.
    loop.unsettled = 3
    hurried = Leaving(page)
    assert [hurried.due(loop, now) for now in (0.0, GRACE_S, 1.1 * GRACE_S)] == [False, False, True]
    loop.unsettled = 0
    monkeypatch.setattr(leaving.time, "time", lambda: 5000.0 + leaving.GOING_DOWN_S)
    assert not Leaving(page).due(loop, 0.0)


def test_as_the_service_goes_down_stored_traces_that_arrive_have_their_time(page: StatePage, loop: Any) -> None:
    Leaving(page).ask(100.0)
    hurried = Leaving(page)
    loop.sending.stored, loop.sending.sends_stored = 100, True
    assert not any(hurried.due(loop, now) for now in (0.0, 1.1 * GRACE_S, STORED_S))
    loop.sending.sends_stored = False
    assert hurried.due(loop, STORED_S)
    loop.sending.sends_stored = True
    assert hurried.due(loop, 1.1 * STORED_S)


def test_clock_that_was_set_back_is_no_reason_to_hurry_for_ever(
    page: StatePage, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving.time, "time", lambda: 9000.0)
    Leaving(page).ask(100.0)
    monkeypatch.setattr(leaving.time, "time", lambda: 5000.0)
    assert not Leaving(page).due(loop, 0.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", LINGER_S), ("0", 0.0), ("1.5", 1.5), ("-3", 0.0), ("soon", LINGER_S), ("nan", LINGER_S), ("inf", LINGER_S)],
)
def test_linger_is_a_number_of_seconds_or_the_default(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setenv("EPSAGON_LINGER_SEC", text)
    assert linger_s() == seconds
