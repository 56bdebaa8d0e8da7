"""Retries and their pauses, in simulated time."""

from epsagon_fast.collector.destination import Destination
from epsagon_fast.collector.retries import FIRST_PAUSE_S, MAX_IN_FLIGHT, MAX_PAUSE_S, Backoff, Retries
from epsagon_fast.collector.verdict import Result
from epsagon_fast.protocol import Outcome

HERE = Destination("http://here", "token", 1.0)
THERE = Destination("http://there", "token", 1.0)


def numbered(number: int) -> bytes:
    return number.to_bytes(16, "big")


def delivered(number: int) -> Result:
    return Result(numbered(number), Outcome.DELIVERED)


def failed(number: int, retry_after_s: float | None = None) -> Result:
    return Result(numbered(number), Outcome.STORED.because("503"), True, retry_after_s)


def rejected(number: int) -> Result:
    return Result(numbered(number), Outcome.REJECTED.because("400"))


def with_traces(count: int) -> Retries:
    # The longest pauses, every time.
    retries = Retries(Backoff(chance=lambda: 1.0))
    for number in range(count):
        retries.add(numbered(number), HERE, b"body")
    return retries


def due(retries: Retries, now: float) -> list[int]:
    return [int.from_bytes(parcel.trace_id, "big") for parcel in retries.due(now)]


def test_everything_goes_at_once_to_a_destination_that_is_well() -> None:
    retries = with_traces(3)
    [first, *_] = retries.due(0.0)
    assert first == (numbered(0), HERE, b"body")
    assert (retries.waiting, retries.pending, due(retries, 0.0)) == (0, 3, [])
    assert all(retries.finished(delivered(number), 0.1) for number in range(3))
    assert retries.pending == 0


def test_the_requests_in_flight_are_bounded() -> None:
    retries = with_traces(MAX_IN_FLIGHT + 5)
    assert due(retries, 0.0) == list(range(MAX_IN_FLIGHT))
    retries.finished(delivered(0), 0.0)
    retries.finished(rejected(1), 0.0)
    assert due(retries, 0.0) == [MAX_IN_FLIGHT, MAX_IN_FLIGHT + 1]


def test_one_probe_at_a_time_until_the_first_2xx() -> None:
    retries = with_traces(3)
    due(retries, 0.0)
    for number in range(3):
        assert not retries.finished(failed(number), 0.0)
    retries.add(numbered(3), HERE, b"new")
    assert due(retries, FIRST_PAUSE_S - 0.01) == []
    assert due(retries, FIRST_PAUSE_S) == [0]
    assert due(retries, 1000.0) == []
    retries.finished(delivered(0), 1000.0)
    assert due(retries, 1000.0) == [1, 2, 3]


def test_requests_that_fail_together_count_as_one_failure() -> None:
    retries = with_traces(100)
    due(retries, 0.0)
    for number in range(100):
        retries.finished(failed(number), 0.2)
    assert due(retries, 0.2 + FIRST_PAUSE_S) == [0]


def test_no_probe_leaves_before_the_earlier_requests_are_back() -> None:
    retries = with_traces(2)
    due(retries, 0.0)
    retries.finished(failed(0), 0.0)
    assert due(retries, 100.0) == []
    retries.finished(failed(1), 100.0)
    assert due(retries, 100.0) == [0]


def test_an_earlier_request_that_arrives_ends_the_illness() -> None:
    retries = with_traces(2)
    due(retries, 0.0)
    retries.finished(failed(0), 0.0)
    retries.finished(delivered(1), 0.1)
    assert due(retries, 0.1) == [0]


def test_pauses_double_up_to_their_bound() -> None:
    retries = with_traces(1)
    now, pause_s = 0.0, FIRST_PAUSE_S
    for _ in range(12):
        assert due(retries, now) == [0]
        retries.finished(failed(0), now)
        assert due(retries, now + pause_s - 0.01) == []
        now += pause_s
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
    assert pause_s == MAX_PAUSE_S


def test_the_probe_changes_so_that_no_trace_stands_before_the_others() -> None:
    retries = with_traces(3)
    due(retries, 0.0)
    for number in range(3):
        retries.finished(failed(number), 0.0)
    probes = []
    for turn in range(1, 7):
        [probe] = due(retries, turn * 100.0)
        probes.append(probe)
        retries.finished(failed(probe), turn * 100.0)
    assert probes == [0, 1, 2, 0, 1, 2]


def test_a_rejected_probe_is_followed_by_the_next_at_once() -> None:
    retries = with_traces(2)
    due(retries, 0.0)
    retries.finished(failed(0), 0.0)
    retries.finished(failed(1), 0.0)
    assert due(retries, 10.0) == [0]
    assert retries.finished(rejected(0), 10.0)
    assert due(retries, 10.0) == [1]


def test_retry_after_is_obeyed_even_if_a_later_failure_says_less() -> None:
    retries = with_traces(2)
    due(retries, 0.0)
    retries.finished(failed(0, 120.0), 0.0)
    retries.finished(failed(1, 5.0), 1.0)
    assert due(retries, 119.0) == []
    assert due(retries, 120.0) == [0]


def test_one_destination_does_not_wait_for_another() -> None:
    retries = with_traces(1)
    due(retries, 0.0)
    retries.finished(failed(0, 1000.0), 0.0)
    retries.add(numbered(1), THERE, b"body")
    assert due(retries, 0.0) == [1]


def test_pauses_are_spread_by_chance() -> None:
    for chance in (0.0, 0.5, 1.0):
        backoff = Backoff(chance=lambda chance=chance: chance)
        backoff.started(HERE, numbered(0))
        backoff.finished(HERE, failed(0), 0.0)
        pause_s = FIRST_PAUSE_S * (1 + chance) / 2
        assert (backoff.room(HERE, pause_s - 0.001), backoff.room(HERE, pause_s)) == (0, 1)
        assert not backoff.is_well(HERE)


def test_a_destination_that_is_well_is_not_remembered() -> None:
    backoff = Backoff()
    for number in range(1000):
        destination = Destination(f"http://host-{number}", "", 1.0)
        for result in (failed(0), delivered(0)):
            backoff.started(destination, numbered(0))
            backoff.finished(destination, result, 0.0)
        assert backoff.is_well(destination)
    assert not backoff._ill and not backoff._in_flight
