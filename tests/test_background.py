"""Work beside the loop: nothing that the loop begins waits until a new thread has had the processor."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import TIMEOUT_S, until

from epsagon_fast.collector import background
from epsagon_fast.collector.background import Background
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending import delivery as module
from epsagon_fast.collector.sending.delivery import Delivery
from epsagon_fast.collector.sending.outbox.outbox import Outbox


def parcel(state_dir: str = "") -> Parcel:
    return Parcel(bytes(16), Destination("http://127.0.0.1:9/", "token", TIMEOUT_S, state_dir=state_dir), b"{}")


class Starved:
    """A system where no new thread has had the processor yet."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def start(self, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.waiting.append(lambda: work(*arguments))

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> Starved:
    def start(_: threading.Thread) -> None:
        raise AssertionError("this would wait for the new thread")

    made = Starved()
    monkeypatch.setattr(background, "start_new_thread", made.start)
    monkeypatch.setattr(threading.Thread, "start", start)
    return made


def test_work_is_over_once_it_was_done(starved: Starved) -> None:
    done: list[int] = []
    work = Background(lambda: done.append(1))
    work.wait(0.0)
    assert (work.is_over, done) == (False, [])
    starved.run()
    work.wait(0.0)
    work.wait(TIMEOUT_S)
    assert (work.is_over, done) == (True, [1])


def test_work_that_fails_is_over_too(starved: Starved) -> None:
    def fail() -> None:
        raise LookupError

    work = Background(fail)
    with pytest.raises(LookupError):
        starved.run()
    assert work.is_over


def test_work_goes_on_beside_its_starter() -> None:
    gate = threading.Event()
    work = Background(lambda: gate.wait(TIMEOUT_S))
    assert not work.is_over
    gate.set()
    until(lambda: work.is_over, "the work is done")


def test_senders_are_not_waited_for(starved: Starved, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if a request had waited long enough for one sender more.
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)
    delivery = Delivery(log=logging.getLogger("test.background"), threads_min=2)
    delivery.prepare()
    for _ in range(3):
        delivery.submit([parcel()])
    assert delivery.verdicts() == []
    assert delivery.threads == len(starved.waiting) == 2
    delivery.close(0.0)
    starved.run()
    assert delivery.threads == 0


def test_outbox_is_not_waited_for(starved: Starved, tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path), b"owner", log=logging.getLogger("test.background"))
    outbox.put(parcel(str(tmp_path)))
    assert (outbox.reports(), len(starved.waiting)) == ([], 1)
    outbox.close(0.0)
