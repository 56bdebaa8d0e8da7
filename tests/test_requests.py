"""Requests are counted when their traces are closed: by application and name, and each once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from passes import Folder, Process, made_folder, passes
from records import OPENED_AT, RING, closed, opened, own_runner, record

from epsagon_fast.collector.assembling.assembly import Assembly
from epsagon_fast.collector.assembling.open_trace import OpenTrace
from epsagon_fast.collector.formats.conventions import OVERFLOW
from epsagon_fast.collector.measuring.figures import View
from epsagon_fast.collector.measuring.histogram import BOUNDS_S, NS_PER_S, Histogram, placed
from epsagon_fast.collector.measuring.keys import REQUEST, key_of, texts_of
from epsagon_fast.collector.measuring.measuring import Measuring
from epsagon_fast.collector.measuring.requests import MAX_REMEMBERED, Requests
from epsagon_fast.collector.sampling.seen import request_of, seen_of
from epsagon_fast.protocol import Kind
from epsagon_fast.queue import ledger as ledgers
from epsagon_fast.queue.ledger import AT_ONCE, MAX_SERIES, Ledger

HTTP = {"type": "http", "operation": "GET"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    with made_folder(tmp_path, monkeypatch) as made:
        yield made


def finished(runner: dict[str, Any] | None, duration_s: float = 0.5, **config: Any) -> OpenTrace:
    """A closed trace with an id of its own."""
    assembly, trace_id = Assembly(), os.urandom(16)
    for each in (opened(runner, **config), closed(duration_s)):
        assembly.feed(RING, each._replace(trace_id=trace_id), OPENED_AT)
    assembly.end_pass(OPENED_AT)
    (found,) = assembly.end_pass(OPENED_AT)
    return found


def counted(folder_fd: int) -> dict[tuple[str, str], Histogram]:
    """What the ledger has, by application and name, without what nothing was counted in."""
    found = View(None, ledgers.read(folder_fd), 0.0).histograms(REQUEST, 2)
    return {(app, name): histogram for (app, name), histogram in found.items()}


def runner_named(name: str, **fields: Any) -> dict[str, Any]:
    return {**own_runner(), "resource": {"name": name, "type": "job", "operation": "run", "metadata": {}}, **fields}


def web_runner(**metadata: str) -> dict[str, Any]:
    return {**own_runner(), "resource": {"name": "shop.example", **HTTP, "metadata": metadata}}


def test_series_has_the_name_that_the_trace_s_span_has(folder_fd: int) -> None:
    requests = Requests(Ledger(folder_fd))
    requests.count([finished(web_runner(path="/cart/17", route="/cart/{id}"))])
    requests.count([finished(web_runner(path="/cart/18", route="/cart/{id}"))])
    requests.count([finished(web_runner(path="/wp-admin"))])
    requests.count([finished(runner_named("resize"), app_name="jobs")])
    counts = {named: histogram.count for named, histogram in counted(folder_fd).items()}
    assert counts == {("shop", "GET /cart/{id}"): 2, ("shop", "GET"): 1, ("jobs", "resize"): 1}


def test_durations_and_failures_are_counted(folder_fd: int) -> None:
    requests = Requests(Ledger(folder_fd))
    for duration_s in (0.004, 0.005, 0.3, 11.0):
        requests.count([finished(runner_named("resize", error_code=2 if duration_s == 0.3 else 0), duration_s)])
    (histogram,) = counted(folder_fd).values()
    assert (histogram.count, histogram.failures, histogram.sum_ns) == (4, 1, 11_309_000_000)
    at = {bound: count for bound, count in zip((*BOUNDS_S, "over"), histogram.buckets, strict=True) if count}
    assert at == {0.005: 2, 0.5: 1, "over": 1}


@pytest.mark.parametrize(
    ("error", "failures"), [({}, 1), ({"type": "Late", "message": ""}, 1), (None, 0)], ids=["empty", "said", "none"]
)
def test_same_traces_are_failures_here_and_in_sampling(
    folder_fd: int, error: dict[str, str] | None, failures: int
) -> None:
    assembly = Assembly()
    assembly.feed(RING, opened(runner_named("resize")), OPENED_AT)
    if error is not None:
        assembly.feed(RING, record(Kind.ERROR, error), OPENED_AT)
    assembly.feed(RING, closed(1.0), OPENED_AT)
    (found,) = [*assembly.end_pass(OPENED_AT), *assembly.end_pass(OPENED_AT)]
    Requests(Ledger(folder_fd)).count([found])
    assert counted(folder_fd)["shop", "resize"].failures == failures
    assert seen_of(found, request_of(found)).failed == bool(failures)


def test_names_that_share_a_series_are_not_remembered_one_by_one(folder_fd: int) -> None:
    requests = Requests(Ledger(folder_fd))
    for number in range(50):
        requests.count([finished(runner_named("x" * 180 + str(number)))])
    (application,) = requests.applications()
    assert [*application.numbers] == ["x" * 180]
    assert [histogram.count for histogram in counted(folder_fd).values()] == [50]


def test_traces_of_one_pass_are_counted_as_if_each_had_a_pass_of_its_own(folder_fd: int, tmp_path: Path) -> None:
    traces = [
        finished(runner_named(name, error_code=number % 3 // 2), duration_s)
        for name, duration_s in (("resize", 0.004), ("resize", 0.3), ("upload", 0.004), ("upload", 11.0))
        for number in range(AT_ONCE + 2)
    ]
    requests = Requests(Ledger(folder_fd))
    requests.count(traces)
    together = counted(folder_fd)
    (tmp_path / "ledger").unlink()
    ledger = Ledger(folder_fd)
    requests = Requests(ledger)
    for each in traces:
        requests.count([each])
    alone = counted(folder_fd)
    assert [(each.failures, each.sum_ns, each.buckets) for each in together.values()] == [
        (each.failures, each.sum_ns, each.buckets) for each in alone.values()
    ]
    assert together.keys() == alone.keys()
    assert ledger.posted() == {each.trace_id[:8] for each in traces}


def test_trace_without_a_runner_is_no_request(folder_fd: int) -> None:
    Requests(Ledger(folder_fd)).count([finished(None)])
    assert counted(folder_fd) == {}


@pytest.mark.parametrize("duration", [None, "1", -1, float("nan"), float("inf"), 10**30, [], {}])
def test_duration_that_is_none_counts_as_nothing(duration: Any) -> None:
    assert placed(duration) == (0, 0)


@pytest.mark.parametrize("bound", BOUNDS_S)
def test_bound_belongs_to_its_bucket(bound: float) -> None:
    at, on_it = placed(bound)
    behind, _ = placed(bound + 1e-9)
    assert (behind, on_it) == (at + 1, round(bound * NS_PER_S))


@pytest.mark.parametrize("resource", [None, [], "", {"name": [1]}, {"name": "x" * 5000}, {"metadata": 7}])
def test_runner_may_hold_anything(folder_fd: int, resource: Any) -> None:
    Requests(Ledger(folder_fd)).count([finished({**own_runner(), "resource": resource})])
    assert sum(histogram.count for histogram in counted(folder_fd).values()) == 1


@pytest.mark.parametrize(
    "text", ["x" * 1000, "\x00" * 1000, "ü" * 1000, "\ud800" * 45, "\U0001f600" * 1000], ids=lambda text: ascii(text[0])
)
def test_key_of_any_text_can_be_read_again(text: str) -> None:
    (found,) = texts_of(key_of(REQUEST, text), REQUEST) or []
    assert text.encode("utf-8", "replace").decode().startswith(found) and found


def test_names_without_room_are_counted_together(folder_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = Requests(Ledger(folder_fd))
    for number in range(MAX_SERIES):
        requests.count([finished(runner_named(f"job {number}"))])
    found = counted(folder_fd)
    # One series is for the names of this application that have none, and one for applications that have none.
    assert len(found) == MAX_SERIES - 1
    assert found["shop", OVERFLOW].count == 2
    assert sum(histogram.count for histogram in found.values()) == MAX_SERIES


def test_customers_with_tokens_of_their_own_have_series_of_their_own(folder_fd: int) -> None:
    requests = Requests(Ledger(folder_fd))
    for token in ("one", "another", "one"):
        requests.count([finished(runner_named("resize"), token=token)])
    keys = [series.key for series in ledgers.read(folder_fd) if b"resize" in series.key]
    assert len(keys) == 2
    assert counted(folder_fd)["shop", "resize"].count == 3
    assert len(requests.applications()) == 2


def test_applications_without_number_are_forgotten_and_counted(folder_fd: int) -> None:
    requests = Requests(Ledger(folder_fd))
    for number in range(MAX_REMEMBERED + 1):
        requests.count([finished(runner_named("resize"), app_name=f"app {number}")])
    assert len(requests.applications()) == 1
    assert sum(histogram.count for histogram in counted(folder_fd).values()) == MAX_REMEMBERED + 1


def test_what_a_killed_collector_had_counted_is_not_counted_again(folder: Folder) -> None:
    # The first collector hands a trace over, and dies before any answer: the journal brings it again.
    folder.server.behave = servers.hang
    process, first = Process(folder), folder.collector()
    process.close(process.open("slow"))
    passes(first, lambda: first.counts["closed"] == 1)
    folder.server.behave = servers.status(200)
    second = folder.collector()
    passes(second, lambda: process.counts() == (1, 1))
    process.close(process.open("next"))
    passes(second, lambda: process.counts() == (2, 2))
    assert {name: each.count for (_, name), each in counted(folder.fd).items()} == {"slow": 1, "next": 1}


def test_what_sampling_leaves_out_is_counted(folder: Folder) -> None:
    process, loop = Process(folder), folder.collector()
    for _ in range(50):
        process.close(process.open("job", sampling="rate=10%"))
        loop.one_pass()
    passes(loop, lambda: process.counts() == (50, 50))
    # Few bodies were made.
    assert loop.counts["closed"] < 25
    assert counted(folder.fd)["shop", "job"].count == 50


def test_folder_without_room_for_a_ledger_is_served_all_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr("epsagon_fast.collector.measuring.measuring.Ledger", full)
    process, loop = Process(folder), folder.collector()
    process.close(process.open("main"))
    passes(loop, lambda: process.counts() == (1, 1))
    assert ledgers.read(folder.fd) == []


@pytest.mark.parametrize("kind", ["a directory", "foreign"])
def test_what_is_in_the_ledger_s_place_is_set_aside(folder_fd: int, tmp_path: Path, kind: str) -> None:
    if kind == "a directory":
        (tmp_path / "ledger").mkdir()
    else:
        (tmp_path / "ledger").write_bytes(b"my own file")
    Measuring(folder_fd, bytes(16)).requests.count([finished(runner_named("resize"))])
    assert counted(folder_fd)["shop", "resize"].count == 1
    assert os.path.lexists(tmp_path / "ledger.corrupt")


def test_application_without_room_for_any_series_is_counted_with_all_such(folder_fd: int) -> None:
    ledger = Ledger(folder_fd)
    requests = Requests(ledger)
    for number in range(MAX_SERIES):
        ledger.number_of(b"%d" % number)
    requests.count([finished(runner_named("resize"))])
    assert counted(folder_fd)["", OVERFLOW].count == 1
