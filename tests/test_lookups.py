"""Questions that nothing can cut short: each asker waits for its own time, and few threads wait for an answer."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from places import until
from waiting import TIMEOUT_S

from epsagon_fast.collector.sending.lookups import Lookups


class Mount:
    """What does not answer until `back` is set."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.asked = 0

    def look(self) -> str:
        self.asked += 1
        assert self.back.wait(TIMEOUT_S)
        return "here"


@pytest.fixture
def mount() -> Iterator[Mount]:
    made = Mount()
    yield made
    made.back.set()
    until(lambda: not waiting(), "no thread is left")


def waiting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "epsagon-lookup"]


def fail() -> NoReturn:
    raise FileNotFoundError(2, "not there")


def test_an_answer_and_an_error_are_passed_on() -> None:
    lookups = Lookups()
    assert lookups.ask("a", lambda: 1, TIMEOUT_S) == 1
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="not there"):
            lookups.ask("a", fail, TIMEOUT_S)


def test_who_cannot_wait_leaves_one_thread_however_often_it_asks(mount: Mount) -> None:
    lookups = Lookups()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            lookups.ask("a", mount.look, 0.001)
    assert mount.asked == len(waiting()) == 1
    assert lookups.ask("b", lambda: 1, TIMEOUT_S) == 1


def test_all_who_ask_the_same_get_the_one_answer(mount: Mount) -> None:
    lookups = Lookups()
    with ThreadPoolExecutor(8) as askers:
        answers = [askers.submit(lookups.ask, "a", mount.look, TIMEOUT_S) for _ in range(8)]
        until(lambda: mount.asked, "the question is asked")
        mount.back.set()
        assert [answer.result(TIMEOUT_S) for answer in answers] == ["here"] * 8


def test_no_more_is_asked_than_may_stay_without_an_answer(mount: Mount) -> None:
    lookups = Lookups(asked_max=3)
    for question in range(3):
        with pytest.raises(TimeoutError):
            lookups.ask(question, mount.look, 0.001)
    with pytest.raises(TimeoutError, match="too many"):
        lookups.ask("another", mount.look, TIMEOUT_S)
    mount.back.set()
    until(lambda: not waiting(), "the answers are there")
    assert lookups.ask("another", mount.look, TIMEOUT_S) == "here"


def test_a_system_without_threads_to_give_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookups = Lookups()
    with monkeypatch.context() as patch, pytest.raises(TimeoutError, match="no thread"):
        patch.setattr(threading.Thread, "start", none_left)
        lookups.ask("a", lambda: 1, TIMEOUT_S)
    assert lookups.ask("a", lambda: 1, TIMEOUT_S) == 1
