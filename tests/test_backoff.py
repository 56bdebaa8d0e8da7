"""Pauses between attempts, in simulated time."""

from epsagon_fast.collector.parcel import Destination
from epsagon_fast.collector.sending.backoff import FIRST_PAUSE_S, MAX_IN_FLIGHT, MAX_PAUSE_S, Backoff
from epsagon_fast.collector.sending.verdict import Verdict
from epsagon_fast.protocol import Outcome

HERE = Destination("http://here", "token", 1.0)
ID = bytes(16)


def failed(trace_id: bytes = ID, retry_after_s: float | None = None) -> Verdict:
    return Verdict([trace_id], Outcome.STORED.because("503"), True, retry_after_s)


def test_the_requests_in_flight_are_bounded() -> None:
    backoff = Backoff()
    for number in range(MAX_IN_FLIGHT):
        assert backoff.room(HERE, 0.0) == MAX_IN_FLIGHT - number
        backoff.started(HERE, number.to_bytes(16, "big"))
    assert backoff.room(HERE, 0.0) == 0


def test_pauses_are_spread_by_chance() -> None:
    for chance in (0.0, 0.5, 1.0):
        backoff = Backoff(chance=lambda chance=chance: chance)
        backoff.started(HERE, ID)
        backoff.finished(HERE, failed(), 0.0)
        pause_s = FIRST_PAUSE_S * (1 + chance) / 2
        assert (backoff.room(HERE, pause_s - 0.001), backoff.room(HERE, pause_s)) == (0, 1)
        assert not backoff.is_well(HERE)


def test_pauses_double_up_to_their_bound() -> None:
    backoff = Backoff(chance=lambda: 1.0)
    now, pause_s = 0.0, FIRST_PAUSE_S
    for _ in range(12):
        assert backoff.room(HERE, now)
        backoff.started(HERE, ID)
        backoff.finished(HERE, failed(), now)
        assert not backoff.room(HERE, now + pause_s - 0.01)
        now += pause_s
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
    assert pause_s == MAX_PAUSE_S


def test_a_destination_that_is_well_is_not_remembered() -> None:
    backoff = Backoff()
    for number in range(1000):
        destination = Destination(f"http://host-{number}", "", 1.0)
        backoff.started(destination, ID)
        backoff.finished(destination, failed(), 0.0)
        backoff.started(destination, ID)
        backoff.arrived(destination)
        assert backoff.is_well(destination)
    assert not backoff._ill and not backoff._in_flight
