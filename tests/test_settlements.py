"""What the collector answers in a ring's header, as the worker reads it."""

import os
from pathlib import Path

import pytest
from rings import Twin

from epsagon_fast.protocol import OUTCOMES, Outcome
from epsagon_fast.queue import layout, settlements
from epsagon_fast.queue.no_ring import NoRing
from epsagon_fast.queue.settlements import ENTRIES, REASON_BYTES, REMEMBERED, Settlements, publish


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_answers_come_once_and_in_order(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    answers = Settlements(producer)
    assert answers.news() == []
    for number, outcome in enumerate(OUTCOMES):
        publish(consumer, [trace_id(number)], outcome)
    assert answers.news() == [(trace_id(number), outcome) for number, outcome in enumerate(OUTCOMES)]
    assert answers.news() == []
    assert answers.outcome(trace_id(1)) == OUTCOMES[1]
    assert answers.outcome(trace_id(99)) is None


def test_reasons_come_along_as_far_as_there_is_room(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    answers = Settlements(producer)
    for reason in (None, "401", "r" * 100, "umlaut ä"):
        publish(consumer, [trace_id(1)], Outcome.REJECTED.because(reason) if reason else Outcome.REJECTED)
    assert [outcome.reason for _, outcome in answers.news()] == [None, "401", "r" * REASON_BYTES, "umlaut ?"]


def test_answer_may_be_given_again(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    answers = Settlements(producer)
    publish(consumer, [trace_id(1)], Outcome.STORED.because("503"))
    answers.news()
    assert answers.outcome(trace_id(1)) == Outcome.STORED
    publish(consumer, [trace_id(1)], Outcome.DELIVERED)
    answers.news()
    assert answers.outcome(trace_id(1)) == Outcome.DELIVERED


def test_of_more_answers_than_the_ring_holds_the_latest_are_known(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    answers = Settlements(producer)
    for number in range(ENTRIES + 50):
        publish(consumer, [trace_id(number)], Outcome.DELIVERED)
    assert [found for found, _ in answers.news()] == [trace_id(number) for number in range(50, ENTRIES + 50)]
    assert answers.outcome(trace_id(0)) is None


def test_only_so_many_answers_are_remembered(twin: Twin, tmp_path: Path) -> None:
    producer, consumer = twin.ends(tmp_path)
    answers = Settlements(producer)
    for number in range(REMEMBERED + ENTRIES):
        publish(consumer, [trace_id(number)], Outcome.DELIVERED)
        if number % 100 == 99:
            answers.news()
    answers.news()
    known = [number for number in range(REMEMBERED + ENTRIES) if answers.outcome(trace_id(number))]
    assert known == list(range(ENTRIES, REMEMBERED + ENTRIES))


def test_answers_go_on_behind_the_largest_number(twin: Twin, tmp_path: Path) -> None:
    _, consumer = twin.ends(tmp_path)
    consumer.store(layout.SETTLEMENTS, 2**64 - 1)
    publish(consumer, [trace_id(1), trace_id(2)], Outcome.DELIVERED)
    assert consumer.load(layout.SETTLEMENTS) == 1
    at = layout.SETTLEMENT_RING + (2**64 - 1) % ENTRIES * settlements.ENTRY.size
    assert consumer.copy(at, 16) == trace_id(1)
    assert consumer.copy(layout.SETTLEMENT_RING, 16) == trace_id(2)


def test_what_does_not_fit_into_a_page_is_not_entered(twin: Twin, tmp_path: Path) -> None:
    _, consumer = twin.ends(tmp_path)
    for wrong in ((layout.SETTLEMENTS + 1, 0, 1), (layout.SETTLEMENTS, 2**40, 1), (layout.SETTLEMENTS, -1, 1)):
        with pytest.raises(IndexError):
            consumer.enter(*wrong, [trace_id(1)], b"tail")
    with pytest.raises(ZeroDivisionError):
        consumer.enter(layout.SETTLEMENTS, 0, 0, [trace_id(1)], b"tail")
    with pytest.raises(TypeError):
        consumer.enter(layout.SETTLEMENTS, 0, 1, [trace_id(1)], None)  # type: ignore[arg-type]


def test_answers_lie_within_the_header() -> None:
    assert settlements.ENTRY.size == 48
    assert layout.SETTLEMENT_RING + ENTRIES * settlements.ENTRY.size <= layout.HEADER_BYTES


@pytest.mark.parametrize("damage", [b"\xff" * 48, os.urandom(48)], ids=["ones", "random"])
def test_damaged_answer_is_no_error(twin: Twin, tmp_path: Path, damage: bytes) -> None:
    producer, consumer = twin.ends(tmp_path)
    publish(consumer, [trace_id(1)], Outcome.DELIVERED)
    consumer.write(layout.SETTLEMENT_RING, damage)
    ((_, outcome),) = Settlements(producer).news()
    assert isinstance(outcome, Outcome)


def test_without_a_ring_nothing_is_ever_settled() -> None:
    answers = Settlements(NoRing("no_folder", 65536))
    assert answers.news() == []
    assert answers.outcome(trace_id(1)) is None
