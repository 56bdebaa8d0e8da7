"""What becomes of finished traces, in simulated time, with an outbox and senders that do what a test says."""

from collections.abc import Callable, Sequence

import pytest

from epsagon_fast.collector.formats.otlp import COLLECT_S, MOST_SPANS
from epsagon_fast.collector.formats.otlp_json import LEAST_SPAN_BYTES
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.backoff import FIRST_PAUSE_S, MAX_IN_FLIGHT, Backoff
from epsagon_fast.collector.sending.batches import ENOUGH, MOST_HALVINGS
from epsagon_fast.collector.sending.dispatch import (
    NOTHING_THERE_S,
    REFUSED_S,
    STORED_AT_ONCE,
    TAKEN_AT_ONCE,
    Dispatch,
)
from epsagon_fast.collector.sending.outbox.messages import Gone, Refused, Report, Stored, Taken, Unknown, Waiting
from epsagon_fast.collector.sending.verdict import Verdict
from epsagon_fast.protocol import Outcome

HERE = Destination("http://here", "token", 1.0)
THERE = Destination("http://there", "token", 1.0)
OTLP = Destination("otlp+http://there", "", 1.0)
# A span, as JSON counts it.
# As long as a span is.
BODY = b'{"traceId":"%b","startTimeUnixNano":"1"}' % (b"0" * LEAST_SPAN_BYTES)


class Senders:
    """Keeps what is submitted; `answer` decides what comes back."""

    def __init__(self) -> None:
        self.requests: list[list[bytes]] = []
        self.is_closed = False
        self.waited_s = 0.0
        self._verdicts: list[Verdict] = []

    def prepare(self) -> None:
        raise AssertionError("it is not asked")

    def submit(self, parcels: Sequence[Parcel]) -> None:
        assert all(parcel.body == BODY and parcel.destination == parcels[0].destination for parcel in parcels)
        assert not self.is_closed
        self.requests.append([parcel.trace_id for parcel in parcels])

    def lags(self, now: float) -> bool:
        return False

    def verdicts(self) -> list[Verdict]:
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def close(self, timeout_s: float) -> None:
        self.is_closed = True
        self.waited_s = timeout_s

    def answer(self, make: Callable[..., Verdict]) -> None:
        self._verdicts += [make(*request) for request in self.requests]
        self.requests = []


class Shelf:
    """An outbox in memory; `works` False: it refuses; `is_slow`: it answers when it is closed."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Parcel] = {}
        self.leased: set[bytes] = set()
        self.works = True
        self.is_slow = False
        self.waited_s = 0.0
        # What it was asked: the traces to be stored, and how many were to be taken, each time.
        self.puts: list[bytes] = []
        self.takes: list[int] = []
        self.watched: list[str] = []
        self._reports: list[Report] = []

    def watch(self, state_dir: str) -> None:
        self.watched.append(state_dir)

    def put(self, parcel: Parcel) -> None:
        self.puts.append(parcel.trace_id)
        if self.works:
            self.rows[parcel.trace_id] = parcel
            self.say(Stored([parcel.trace_id]))
        else:
            self.say(Refused([parcel.trace_id]))

    def take(self, destination: Destination, limit: int) -> None:
        self.takes.append(limit)
        free = [p for p in self.rows.values() if p.destination == destination and p.trace_id not in self.leased]
        self.leased |= {parcel.trace_id for parcel in free[:limit]}
        self.say(Taken(destination, free[:limit]))

    def give_back(self, parcel: Parcel) -> None:
        self.leased.discard(parcel.trace_id)
        self.rows[parcel.trace_id] = self.rows.pop(parcel.trace_id)
        self.say()

    def remove(self, parcel: Parcel) -> None:
        del self.rows[parcel.trace_id]
        self.say()

    def say(self, *reports: Report) -> None:
        counts: dict[Destination, int] = {}
        for parcel in self.rows.values():
            counts[parcel.destination] = counts.get(parcel.destination, 0) + 1
        self._reports += [*reports, Waiting("", "/state", counts)]

    def reports(self) -> list[Report]:
        if self.is_slow:
            return []
        reports, self._reports = self._reports, []
        return reports

    def close(self, timeout_s: float) -> None:
        self.is_slow = False
        self.waited_s = timeout_s


class World:
    """A Dispatch with its surroundings, and the time."""

    def __init__(self) -> None:
        self.senders = Senders()
        self.shelf = Shelf()
        # The longest pauses, every time.
        self.sending = Dispatch(self.senders, self.shelf, Backoff(chance=lambda: 1.0))
        self.now = 0.0

    def add(self, *numbers: int, to: Destination = HERE) -> None:
        for number in numbers:
            self.sending.add(Parcel(numbered(number), to, BODY))

    def step(self, later_s: float = 0.0) -> list[tuple[int, str]]:
        """Let time go by; return what was settled. Twice, so that the outbox's reports are heard."""
        self.now += later_s
        settled = self.sending.step(self.now) + self.sending.step(self.now)
        return [(int.from_bytes(each.trace_id, "big"), each.outcome.name) for each in settled]

    def requests(self) -> list[list[int]]:
        """Return which traces share the requests in flight."""
        return [[int.from_bytes(trace_id, "big") for trace_id in each] for each in self.senders.requests]

    def store(self, *numbers: int, to: Destination) -> None:
        """Have these in the outbox, from an earlier collector."""
        self.shelf.rows |= {numbered(number): Parcel(numbered(number), to, BODY) for number in numbers}
        self.shelf.say()

    def sent(self) -> list[int]:
        return [int.from_bytes(trace_id, "big") for request in self.senders.requests for trace_id in request]

    def fall_ill(self, *numbers: int) -> None:
        """Have these traces sent, and fail together."""
        self.add(*numbers)
        self.step()
        self.senders.answer(failed)


@pytest.fixture
def world() -> World:
    return World()


def numbered(number: int) -> bytes:
    return number.to_bytes(16, "big")


def delivered(*trace_ids: bytes) -> Verdict:
    return Verdict(trace_ids, Outcome.DELIVERED)


def failed(*trace_ids: bytes) -> Verdict:
    return Verdict(trace_ids, Outcome.STORED.because("503"), True)


def too_large(*trace_ids: bytes) -> Verdict:
    return Verdict(trace_ids, Outcome.REJECTED.because("413"), halve=len(trace_ids) > 1, shrink=len(trace_ids) > 1)


def bad(*trace_ids: bytes) -> Verdict:
    return Verdict(trace_ids, Outcome.REJECTED.because("400"), halve=len(trace_ids) > 1)


def rejected(*trace_ids: bytes) -> Verdict:
    return Verdict(trace_ids, Outcome.REJECTED.because("400"))


def test_everything_goes_at_once_to_a_destination_that_is_well(world: World) -> None:
    world.add(0, 1, 2)
    assert world.step() == []
    assert world.sent() == [0, 1, 2]
    assert (world.sending.busy, world.sending.held_bytes > 3 * len(BODY)) == (3, True)
    world.senders.answer(delivered)
    assert world.step() == [(0, "DELIVERED"), (1, "DELIVERED"), (2, "DELIVERED")]
    assert (world.sending.busy, world.sending.held_bytes, world.shelf.rows) == (0, 0, {})


def test_the_requests_in_flight_are_bounded(world: World) -> None:
    world.add(*range(MAX_IN_FLIGHT + 5))
    world.sending.step(0.0)
    assert world.sent() == list(range(MAX_IN_FLIGHT))
    world.senders.answer(delivered)
    world.step()
    assert world.sent() == list(range(MAX_IN_FLIGHT, MAX_IN_FLIGHT + 5))


def test_what_fails_for_now_is_stored_and_leaves_memory(world: World) -> None:
    world.fall_ill(0, 1)
    assert world.step() == [(0, "STORED"), (1, "STORED")]
    assert (world.sending.stored, world.sending.busy, world.sending.held_bytes) == (2, 0, 0)


def test_a_trace_on_its_way_to_the_outbox_needs_a_moment_like_one_in_flight(world: World) -> None:
    world.shelf.is_slow = True
    world.fall_ill(0)
    world.add(1, to=THERE)
    world.step()
    assert world.sending.busy == 2
    world.shelf.is_slow = False
    assert world.step() == [(0, "STORED")]
    assert world.sending.busy == 1


def test_it_says_why_a_trace_is_stored(world: World) -> None:
    world.fall_ill(0)
    world.sending.step(0.0)
    (settled,) = world.sending.step(0.0)
    assert (str(settled.outcome), settled.again) == ("STORED (503)", False)


def test_what_comes_while_a_destination_is_ill_is_stored_unsent(world: World) -> None:
    world.fall_ill(0)
    world.step()
    world.add(1)
    assert world.step() == [(1, "STORED")]
    assert world.sent() == []


def test_what_waited_in_memory_as_a_destination_fell_ill_is_stored(world: World) -> None:
    world.fall_ill(*range(MAX_IN_FLIGHT + 5))
    assert sorted(number for number, _ in world.step()) == list(range(MAX_IN_FLIGHT + 5))
    assert world.sending.held_bytes == 0


def test_one_probe_at_a_time_until_the_first_2xx(world: World) -> None:
    world.fall_ill(0, 1, 2)
    world.step()
    world.step(FIRST_PAUSE_S - 0.01)
    assert world.sent() == []
    world.step(0.01)
    assert world.sent() == [0]
    world.step(1000.0)
    assert world.sent() == [0]
    world.senders.answer(delivered)
    assert world.step() == [(0, "DELIVERED")]
    assert world.sent() == [1, 2]
    world.senders.answer(delivered)
    assert world.step() == [(1, "DELIVERED"), (2, "DELIVERED")]
    assert (world.shelf.rows, world.sending.stored, world.sending.held_bytes) == ({}, 0, 0)


def test_the_probe_changes_so_that_no_trace_stands_before_the_others(world: World) -> None:
    world.fall_ill(0, 1, 2)
    world.step()
    probes = []
    for _ in range(6):
        world.step(100.0)
        probes += world.sent()
        world.senders.answer(failed)
        assert world.step() == []
    assert probes == [0, 1, 2, 0, 1, 2]


def test_a_rejected_probe_is_followed_by_the_next_at_once(world: World) -> None:
    world.fall_ill(0, 1)
    world.step()
    world.step(FIRST_PAUSE_S)
    world.senders.answer(rejected)
    assert world.step() == [(0, "REJECTED")]
    assert world.sent() == [1]
    assert list(world.shelf.rows) == [numbered(1)]


def test_one_destination_does_not_wait_for_another(world: World) -> None:
    world.fall_ill(0)
    world.step()
    world.add(1, to=THERE)
    world.step()
    assert world.sent() == [1]


def test_new_traces_go_first_and_what_is_stored_follows_in_parts(world: World) -> None:
    world.fall_ill(*range(100))
    world.step()
    world.step(FIRST_PAUSE_S)
    assert world.sent() == [0]
    world.senders.answer(delivered)
    world.add(*range(200, 200 + MAX_IN_FLIGHT))
    world.step()
    sent = world.sent()
    assert [number for number in sent if number >= 200] == list(range(200, 200 + MAX_IN_FLIGHT - STORED_AT_ONCE))
    assert len(sent) == MAX_IN_FLIGHT


def test_no_place_is_kept_if_what_is_stored_goes_elsewhere(world: World) -> None:
    world.shelf.rows[numbered(900)] = Parcel(numbered(900), THERE, BODY)
    world.shelf.say()
    world.add(*range(MAX_IN_FLIGHT))
    world.sending.step(0.0)
    assert world.sent() == list(range(MAX_IN_FLIGHT))


def test_no_place_is_kept_if_no_more_are_free_than_would_be(world: World) -> None:
    world.shelf.rows[numbered(900)] = Parcel(numbered(900), HERE, BODY)
    world.shelf.leased.add(numbered(900))
    world.shelf.say()
    world.add(*range(MAX_IN_FLIGHT - STORED_AT_ONCE))
    world.sending.step(0.0)
    world.add(*range(200, 300))
    world.sending.step(0.0)
    assert len(world.sent()) == MAX_IN_FLIGHT


def test_no_more_is_taken_than_may_be_sent(world: World) -> None:
    world.fall_ill(*range(100))
    world.step()
    world.step(FIRST_PAUSE_S / 2)
    assert world.shelf.takes == [], "nothing may be sent yet"
    world.step(FIRST_PAUSE_S / 2)
    assert (world.shelf.takes, world.sent()) == ([1], [0])
    world.senders.answer(delivered)
    world.step()
    assert world.shelf.takes[1:] == [STORED_AT_ONCE]
    world.step(NOTHING_THERE_S)
    assert (len(world.sent()), world.shelf.takes[2:]) == (STORED_AT_ONCE, []), "all places of stored traces are taken"
    del world.senders.requests[8:]
    world.senders.answer(delivered)
    world.step()
    assert (len(world.sent()), world.shelf.takes[2:]) == (8, [8])


def test_all_that_is_stored_and_in_flight_is_not_asked_for(world: World) -> None:
    world.fall_ill(0, 1, 2)
    world.step()
    world.step(FIRST_PAUSE_S)
    world.senders.answer(delivered)
    world.step()
    world.step(NOTHING_THERE_S)
    assert world.sent() == [1, 2]
    assert world.shelf.takes == [1, STORED_AT_ONCE]


def test_an_outbox_is_asked_once_until_it_answers(world: World) -> None:
    world.fall_ill(0)
    world.step()
    world.shelf.is_slow = True
    world.step(FIRST_PAUSE_S)
    assert world.shelf.takes == [1]


def test_without_an_outbox_traces_wait_in_memory_and_go_by_the_same_rules(world: World) -> None:
    world.shelf.works = False
    world.fall_ill(0, 1)
    assert world.step() == []
    assert (world.sending.counts["outbox_unavailable"], world.sending.held_bytes > 0) == (2, True)
    world.step(FIRST_PAUSE_S)
    assert world.sent() == [0]
    world.senders.answer(delivered)
    assert world.step() == [(0, "DELIVERED")]
    assert world.sent() == [1]


def test_an_outbox_that_works_again_takes_what_waited_in_memory(world: World) -> None:
    world.shelf.works = False
    world.fall_ill(0, 1)
    world.step()
    world.shelf.works = True
    world.step(FIRST_PAUSE_S)
    world.senders.answer(failed)
    assert world.step() == []
    assert sorted(world.step(REFUSED_S)) == [(0, "STORED"), (1, "STORED")]


def test_what_other_collectors_left_is_sent(world: World) -> None:
    world.shelf.rows[numbered(7)] = Parcel(numbered(7), THERE, BODY)
    world.shelf.say()
    world.step()
    assert world.sent() == [7]
    world.senders.answer(delivered)
    assert world.step() == [(7, "DELIVERED")]


def test_what_another_collector_sends_is_not_asked_for_without_end(world: World) -> None:
    world.shelf.rows[numbered(7)] = Parcel(numbered(7), THERE, BODY)
    world.shelf.leased.add(numbered(7))
    world.shelf.say()
    world.step()
    world.shelf.leased.clear()
    world.step(NOTHING_THERE_S / 2)
    assert world.sent() == []
    world.step(NOTHING_THERE_S / 2)
    assert world.sent() == [7]


def test_a_trace_that_comes_from_the_journal_and_the_outbox_is_sent_once(world: World) -> None:
    world.shelf.rows[numbered(7)] = Parcel(numbered(7), HERE, BODY)
    world.shelf.say()
    world.step()
    world.add(7)
    (double,) = world.sending.step(0.0)
    assert (double.trace_id, double.outcome, double.again) == (numbered(7), Outcome.STORED, False)
    assert world.sent() == [7]
    world.senders.answer(delivered)
    assert world.step() == [(7, "DELIVERED")]
    assert world.sending.held_bytes == 0


def test_a_trace_that_the_journal_brought_first_is_given_back_to_the_outbox(world: World) -> None:
    world.shelf.rows[numbered(7)] = Parcel(numbered(7), HERE, BODY)
    world.shelf.say()
    world.sending.step(0.0)  # asks for it
    world.add(7)
    world.step()
    assert (world.sent(), world.shelf.leased) == ([7], set())


def test_what_is_taken_as_its_destination_falls_ill_is_given_back(world: World) -> None:
    world.shelf.rows[numbered(7)] = Parcel(numbered(7), HERE, BODY)
    world.shelf.say()
    world.add(0)
    world.sending.step(0.0)  # asks for it
    world.shelf.is_slow = True
    world.senders.answer(failed)
    world.sending.step(0.0)
    world.shelf.is_slow = False
    world.step()
    assert (world.sent(), world.shelf.leased) == ([], set())


def test_a_directory_is_empty_only_once_the_outbox_has_looked_there(world: World) -> None:
    world.shelf.say(Waiting("/a", "/full", {HERE: 0, THERE: 1}), Waiting("/b", "/empty", {}))
    directories = ("/full", "/empty", "/not looked at")
    assert [world.sending.is_empty(directory) for directory in directories] == [False, False, False]
    world.sending.step(0.0)
    assert [world.sending.is_empty(directory) for directory in directories] == [False, True, False]


def test_the_outbox_has_looked_once_it_has_answered_for_each_directory(world: World) -> None:
    world.sending.watch("/a")
    world.sending.watch("/b")
    world.shelf.say(Waiting("/a", "/a", {}))
    world.sending.step(0.0)
    assert not world.sending.has_looked
    world.shelf.say(Unknown("/b"))
    world.sending.step(0.0)
    assert world.sending.has_looked
    # What cannot be told is no reason to remove it.
    assert not world.sending.is_empty("/b")


def test_a_stored_trace_that_must_make_room_is_dropped(world: World) -> None:
    world.shelf.say(Gone([numbered(7)]))
    (settled,) = world.sending.step(0.0)
    assert (str(settled.outcome), settled.again) == ("DROPPED (outbox_full)", True)


def test_leaving_stores_what_has_no_answer(world: World) -> None:
    world.add(0, 1)
    world.step()
    world.senders.requests.remove([numbered(1)])
    world.senders.answer(delivered)
    world.add(2)
    settled = [
        (int.from_bytes(each.trace_id, "big"), each.outcome.name) for each in world.sending.finish(0.0, 1.0, 5.0)
    ]
    assert sorted(settled) == [(0, "DELIVERED"), (1, "STORED"), (2, "STORED")]
    assert sorted(world.shelf.rows) == [numbered(1), numbered(2)]


def test_answer_about_a_trace_that_is_stored_meanwhile_comes_too_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(0)
    world.step()
    close = world.shelf.close

    def answered_meanwhile(timeout_s: float) -> None:
        world.senders.answer(delivered)
        close(timeout_s)

    monkeypatch.setattr(world.shelf, "close", answered_meanwhile)
    (settled,) = world.sending.finish(world.now, 0.0, 5.0)
    assert (settled.outcome.name, list(world.shelf.rows)) == ("STORED", [numbered(0)])


def test_leaving_stores_nothing_twice(world: World) -> None:
    world.shelf.rows[numbered(7)] = Parcel(numbered(7), THERE, BODY)
    world.shelf.say()
    world.step()
    assert world.sent() == [7]
    world.senders.requests.clear()
    world.fall_ill(0)
    world.shelf.is_slow = True
    world.step()
    assert world.shelf.puts == [numbered(0)]
    (settled,) = world.sending.finish(world.now, 1.0, 5.0)
    assert (settled.trace_id, str(settled.outcome)) == (numbered(0), "STORED (503)")
    assert world.shelf.puts == [numbered(0)]


def test_leaving_forgets_why_a_destination_was_ill_that_is_well(world: World) -> None:
    world.fall_ill(0)
    world.step()
    world.step(FIRST_PAUSE_S)
    world.senders.answer(delivered)
    world.add(1)
    world.step()
    (settled,) = world.sending.finish(world.now, 1.0, 5.0)
    assert str(settled.outcome) == "STORED"


def test_leaving_waits_for_answers_and_disk_as_long_as_it_is_told(world: World) -> None:
    world.sending.finish(0.0, 1.0, 5.0)
    assert (world.senders.waited_s, world.shelf.waited_s) == (1.0, 5.0)


def test_leaving_sends_what_had_no_room_as_room_comes(world: World) -> None:
    world.shelf.rows[numbered(1000)] = Parcel(numbered(1000), HERE, BODY)
    world.shelf.say()
    world.add(*range(MAX_IN_FLIGHT + 10))
    world.sending.last_step(0.0)
    world.sending.last_step(0.0)
    first = len(world.requests())
    assert first <= MAX_IN_FLIGHT
    assert world.sending.sends_more
    world.senders.answer(delivered)
    assert len(world.sending.last_step(0.0)) == first
    assert world.sent() == list(range(first, MAX_IN_FLIGHT + 10))
    # Stored ones are for the next collector.
    assert (world.sending.sends_more, world.shelf.takes) == (False, [])


def test_leaving_does_not_wait_for_room_at_a_sick_destination(world: World) -> None:
    world.fall_ill(0)
    world.shelf.works = False
    world.step()
    world.add(1, 2)
    world.sending.last_step(world.now)
    assert not world.sending.sends_more


def test_every_state_directory_is_watched_once(world: World) -> None:
    world.sending.watch("/default")
    world.add(0, 1)
    world.add(2, to=HERE._replace(state_dir="/other"))
    assert world.shelf.watched == ["/default", "", "/other"]


def test_stored_trace_that_comes_when_all_is_over_goes_back(world: World) -> None:
    world.shelf.rows[numbered(1)] = Parcel(numbered(1), HERE, BODY)
    world.shelf.say()
    world.sending.step(world.now)  # asks for it
    assert world.shelf.leased
    world.sending.finish(world.now, 1.0, 5.0)
    assert not world.shelf.leased
    assert numbered(1) in world.shelf.rows


# Requests of several traces


def test_at_a_low_rate_a_trace_waits_for_none(world: World) -> None:
    for number in range(3):
        world.add(number, to=OTLP)
        world.step(COLLECT_S)
    assert world.requests() == [[0], [1], [2]]


def test_traces_that_follow_a_request_share_the_next_one(world: World) -> None:
    world.add(0, to=OTLP)
    world.step()
    world.add(1, 2, to=OTLP)
    world.step(COLLECT_S / 2)
    world.add(3, to=OTLP)
    assert world.requests() == [[0]]
    world.step(COLLECT_S / 2)
    assert world.requests() == [[0], [1, 2, 3]]
    world.senders.answer(delivered)
    assert world.step() == [(number, "DELIVERED") for number in range(4)]
    assert (world.sending.busy, world.sending.held_bytes) == (0, 0)


def test_many_traces_wait_for_no_more(world: World) -> None:
    world.add(0, to=OTLP)
    world.step()
    world.add(*range(1, ENOUGH), to=OTLP)
    world.step()
    assert len(world.requests()) == 1
    world.add(ENOUGH, to=OTLP)
    world.step()
    assert world.requests()[1:] == [list(range(1, ENOUGH + 1))]


def test_requests_are_bounded_and_not_their_traces(world: World) -> None:
    count = MAX_IN_FLIGHT + MOST_SPANS
    world.add(*range(count), to=OTLP)
    world.step()
    assert [len(each) for each in world.requests()] == [MOST_SPANS, count - MOST_SPANS]


def test_traces_for_which_no_request_was_free_wait_for_no_others(world: World) -> None:
    # A server that takes one trace a request.
    world.add(0, 1, to=OTLP)
    world.step()
    world.senders.answer(lambda *ids: too_large(*ids) if len(ids) > 1 else delivered(*ids))
    world.add(*range(2, MAX_IN_FLIGHT + 10), to=OTLP)
    world.step()
    assert len(world.requests()) == MAX_IN_FLIGHT
    world.senders.answer(delivered)
    world.step()
    assert world.requests() == [[number] for number in range(MAX_IN_FLIGHT, MAX_IN_FLIGHT + 10)]


def test_what_waits_for_others_is_sent_by_a_collector_that_leaves(world: World) -> None:
    world.add(0, to=OTLP)
    world.step()
    world.add(1, 2, to=OTLP)
    world.step()
    world.sending.finish(world.now, 1.0, 5.0)
    assert world.requests() == [[0], [1, 2]]


def test_what_is_too_large_for_one_request_goes_in_two_at_once(world: World) -> None:
    world.add(*range(8), to=OTLP)
    world.step()
    world.senders.answer(lambda *ids: too_large(*ids) if len(ids) > 3 else delivered(*ids))
    assert world.step() == []
    sizes = [len(each) for each in world.requests()]
    assert (world.sent(), max(sizes)) == (list(range(8)), 3)
    world.senders.answer(delivered)
    assert world.step() == [(number, "DELIVERED") for number in range(8)]
    # The server would not take more the next time either.
    world.add(*range(10, 18), to=OTLP)
    world.step(COLLECT_S)
    assert [len(each) for each in world.requests()] == sizes


def test_a_trace_that_is_too_large_alone_is_rejected_and_the_others_are_not(world: World) -> None:
    def judged(*trace_ids: bytes) -> Verdict:
        return too_large(*trace_ids) if numbered(2) in trace_ids else delivered(*trace_ids)

    world.add(*range(5), to=OTLP)
    settled: list[tuple[int, str]] = []
    for _ in range(5):
        settled += world.step()
        world.senders.answer(judged)
    assert sorted(settled) == [(n, "REJECTED" if n == 2 else "DELIVERED") for n in range(5)]


def answered(world: World, judged: Callable[..., Verdict]) -> tuple[dict[int, str], int]:
    """Let every request be judged. Return the traces' outcomes, and how many requests there were."""
    settled, requests = dict(world.step()), 0
    while world.requests():
        requests += len(world.requests())
        world.senders.answer(judged)
        settled |= world.step()
    return settled, requests


@pytest.mark.parametrize("wrong", [{0}, {5}, {499}, {17, 300}, {*range(7, 500, 50)}])
def test_one_wrong_trace_does_not_take_those_with_it_that_share_its_request(world: World, wrong: set[int]) -> None:
    def judged(*trace_ids: bytes) -> Verdict:
        return bad(*trace_ids) if any(numbered(n) in trace_ids for n in wrong) else delivered(*trace_ids)

    world.add(*range(500), to=OTLP)
    settled, requests = answered(world, judged)
    assert {number for number, outcome in settled.items() if outcome == "REJECTED"} == wrong
    assert (len(settled), world.sending.held_bytes) == (500, 0)
    assert requests <= 1 + 2 * 9 * len(wrong)
    # What comes later shares requests as before.
    world.add(*range(1000, 1500), to=OTLP)
    world.step(COLLECT_S)
    assert [len(each) for each in world.requests()] == [500]


def test_a_server_that_finds_everything_wrong_is_not_asked_for_each_trace(world: World) -> None:
    world.add(*range(MOST_SPANS), to=OTLP)
    settled, requests = answered(world, bad)
    assert settled == dict.fromkeys(range(MOST_SPANS), "REJECTED")
    assert requests == 1 + 2 * MOST_HALVINGS


def test_parts_of_a_wrong_request_are_stored_if_their_destination_falls_ill(world: World) -> None:
    world.add(*range(8), to=OTLP)
    world.step()
    world.senders.answer(bad)
    world.step()
    world.senders.answer(failed)
    assert world.step() == [(number, "STORED") for number in range(8)]
    world.step(1000.0)
    settled, _ = answered(world, delivered)
    assert (settled, world.shelf.rows) == (dict.fromkeys(range(8), "DELIVERED"), {})


def test_stored_traces_share_requests_once_one_arrived(world: World) -> None:
    world.store(*range(TAKEN_AT_ONCE + 500), to=OTLP)
    world.add(5000, to=OTLP)
    world.sending.step(0.0)
    world.senders.answer(failed)
    world.step()
    world.senders.answer(failed)
    world.step()
    world.senders.requests.clear()
    world.shelf.takes.clear()
    world.step(1000.0)
    assert (world.shelf.takes, len(world.sent())) == ([1], 1), "a probe is one trace"
    settled: list[tuple[int, str]] = []
    while world.sent():
        world.senders.answer(delivered)
        settled += world.step()
    assert sorted(settled) == [(number, "DELIVERED") for number in (*range(TAKEN_AT_ONCE + 500), 5000)]
    assert (world.shelf.takes[:3], world.shelf.rows) == ([1, TAKEN_AT_ONCE, TAKEN_AT_ONCE], {})


def test_stored_traces_that_were_too_many_go_back_if_their_destination_falls_ill(world: World) -> None:
    world.store(*range(4), to=OTLP)
    world.step()
    assert world.requests() == [[0, 1, 2, 3]]
    world.add(7, to=OTLP)
    world.step(COLLECT_S)
    world.senders.answer(lambda *ids: failed(*ids) if len(ids) == 1 else too_large(*ids))
    world.senders._verdicts.reverse()  # the failure came first
    assert world.step() == [(7, "STORED")]
    assert (world.requests(), world.shelf.leased, world.sending.held_bytes) == ([], set(), 0)
    assert len(world.shelf.rows) == 5


def test_new_traces_that_never_end_leave_places_to_stored_ones(world: World) -> None:
    numbers = iter(range(1000, 100_000))
    world.add(*(next(numbers) for _ in range(MAX_IN_FLIGHT)))
    world.step()
    world.store(*range(5), to=HERE)
    for _ in range(MAX_IN_FLIGHT):
        # One place is free at a time, and there is always a new trace for it.
        world.senders._verdicts.append(delivered(*world.senders.requests.pop(0)))
        world.add(next(numbers))
        world.step()
    assert set(range(5)) <= set(world.sent())
