"""What only the ring in pure Python must take care of: its push can be interrupted between any two instructions."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from counting import step_by_step
from rings import REFERENCE, TRACE, fill, payloads

from epsagon_fast.protocol import REFUSALS, Kind
from epsagon_fast.queue import _pure, layout, ring

QUEUE_FULL = layout.REFUSED + 8 * REFUSALS.index("queue_full")


def push(producer: Any, payload: bytes) -> int:
    return producer.push(Kind.EVENT, 0, TRACE, payload)


def pushing(producer: Any, payload: bytes, answers: list[int], times: int = 1) -> Callable[[], None]:
    """Return a call that pushes and keeps the answers."""
    return lambda: answers.extend(push(producer, payload) for _ in range(times))


def interrupted(call: Callable[[], Any], after: int, handler: Callable[[], Any]) -> bool:
    """Run `call`, and `handler` after so many instructions of _pure.py; say whether the call had that many."""
    seen = 0

    def step() -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            handler()

    step_by_step(call, step, _pure.__file__)
    return seen >= after


def test_a_push_within_a_push_arrives_wherever_it_comes(tmp_path: Path) -> None:
    producer, consumer = REFERENCE.ends(tmp_path)
    for after in count(1):
        answers: list[int] = []
        outer, inner = (pushing(producer, payload, answers) for payload in (b"outer", b"inner"))
        within = interrupted(outer, after, inner)
        push(producer, b"next")
        arrived = payloads(consumer)
        assert sorted(arrived[:-1]) == ([b"inner", b"outer"] if within else [b"outer"])
        assert arrived[-1] == b"next"
        assert set(answers) <= {ring.PUSHED, ring.LOOK}
        if not within:
            break
    assert after > 300


def test_a_handler_that_raises_breaks_nothing_wherever_it_comes(tmp_path: Path) -> None:
    def raise_interrupt() -> None:
        raise KeyboardInterrupt

    producer, consumer = REFERENCE.ends(tmp_path)
    for after in count(1):
        try:
            within = interrupted(pushing(producer, b"outer", []), after, raise_interrupt)
        except KeyboardInterrupt:
            within = True
        assert push(producer, b"next") in (ring.PUSHED, ring.LOOK)
        assert payloads(consumer) in ([b"outer", b"next"], [b"next"])
        assert not consumer.stuck
        if not within:
            break
    assert after > 300


def test_what_an_interrupted_push_finds_no_room_for_is_counted(tmp_path: Path) -> None:
    producer, consumer = REFERENCE.ends(tmp_path)
    room = fill(producer, Kind.EVENT, 8)
    payloads(consumer)
    for after in count(1):
        for _ in range(room - 1):
            push(producer, bytes(8))
        counted = producer.load(QUEUE_FULL)
        answers: list[int] = []
        last = pushing(producer, bytes(8), answers)
        within = interrupted(last, after, last)
        assert producer.load(QUEUE_FULL) - counted == within
        assert len(payloads(consumer)) == room
        if not within:
            break


def test_a_push_that_a_bye_overtakes_is_counted_or_told(tmp_path: Path) -> None:
    for after in count(1):
        producer, consumer = REFERENCE.ends(tmp_path)
        answers: list[int] = []
        within = interrupted(pushing(producer, b"x", answers), after, producer.put_bye)
        arrived = [record[0] for record in consumer.read(1 << 20)]
        assert arrived in ([Kind.EVENT, Kind.BYE], [Kind.BYE], [Kind.EVENT])
        assert (Kind.BYE in arrived) == within
        assert arrived.count(Kind.EVENT) == 1 - answers.count(ring.CLOSED)
        if not within:
            break


def test_a_storm_of_pushes_within_a_push_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pure, "_MAX_WAITING", 3)
    producer, consumer = REFERENCE.ends(tmp_path)
    most = 0
    for after in range(1, 400):
        answers: list[int] = []
        interrupted(pushing(producer, b"outer", answers), after, pushing(producer, b"inner", answers, times=6))
        assert len(payloads(consumer)) == len(answers) - answers.count(ring.FULL)
        most = max(most, answers.count(ring.FULL))
    assert 3 <= most <= 4
