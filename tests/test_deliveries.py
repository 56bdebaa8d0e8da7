"""Sending is measured for each destination: its answers, its last error, what waits for it."""

from pathlib import Path
from typing import Any

import pytest
import servers
from passes import Folder, Process, made_folder, passes
from test_dispatch import BODY, Senders, Shelf, numbered

from epsagon_fast.collector.formats.conventions import OVERFLOW
from epsagon_fast.collector.measuring.deliveries import MAX_DESTINATIONS, Deliveries, MeasuredSender, MeasuredShelf
from epsagon_fast.collector.measuring.figures import View
from epsagon_fast.collector.measuring.histogram import histogram_of
from epsagon_fast.collector.measuring.keys import DELIVERY
from epsagon_fast.collector.measuring.slots import (
    ERROR_AT,
    STORED_BYTES,
    STORED_SINCE,
    STORED_TRACES,
    SUCCESS_AT,
    reason_of,
)
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.outbox.messages import Amount, Amounts
from epsagon_fast.collector.sending.verdict import Verdict
from epsagon_fast.protocol import Outcome
from epsagon_fast.queue import ledger as ledgers
from epsagon_fast.queue.ledger import Ledger, Series

HERE = Destination("https://user:password@here.example:4318/secret-path?key=secret", "secret-token", 1.0)
OTHER_TOKEN = HERE._replace(token="another-token")
THERE = Destination("http://there.example/", "secret-token", 1.0)
ORIGIN = "https://here.example:4318"


def measured(folder_fd: int) -> dict[str, Series]:
    """The series of all destinations, by their names."""
    return {name: series for (name,), series in View(None, ledgers.read(folder_fd), 0.0).of_kind(DELIVERY)}


def verdict(outcome: Outcome = Outcome.DELIVERED, **fields: Any) -> Verdict:
    return Verdict([numbered(1)], outcome, **fields)


def test_answers_and_failures_are_told_apart(folder_fd: int) -> None:
    deliveries = Deliveries(Ledger(folder_fd))
    deliveries.answered([(HERE, verdict(), 0.02)])
    deliveries.answered([(HERE, verdict(Outcome.STORED.because("503"), retry=True), 0.2)])
    deliveries.answered([(HERE, verdict(Outcome.REJECTED.because("401")), 0.2)])
    deliveries.answered([(HERE, verdict(Outcome.REJECTED.because("413"), halve=True), 0.2)])
    series = measured(folder_fd)[ORIGIN]
    histogram = histogram_of(series)
    assert (histogram.count, histogram.failures, histogram.sum_ns) == (4, 2, 620_000_000)
    assert reason_of(series) == "401"
    assert 0 < series.slots[SUCCESS_AT] <= series.slots[ERROR_AT]


def test_no_secret_is_in_the_ledger_and_tokens_share_a_series(folder_fd: int, tmp_path: Path) -> None:
    deliveries = Deliveries(Ledger(folder_fd))
    for destination in (HERE, OTHER_TOKEN):
        deliveries.answered([(destination, verdict(), 0.02)])
    content = (tmp_path / "ledger").read_bytes()
    assert not [word for word in (b"password", b"secret", b"token") if word in content]
    assert histogram_of(measured(folder_fd)[ORIGIN]).count == 2


def test_what_waits_is_summed_over_tokens_and_directories(folder_fd: int) -> None:
    deliveries = Deliveries(Ledger(folder_fd))
    deliveries.waits(Amounts("/a", {HERE: Amount(2, 200, 50.0), THERE: Amount(1, 10, 70.0)}))
    deliveries.waits(Amounts("/b", {OTHER_TOKEN: Amount(1, 100, 40.0)}))
    slots = measured(folder_fd)[ORIGIN].slots
    assert (slots[STORED_TRACES], slots[STORED_BYTES], slots[STORED_SINCE]) == (3, 300, 40 * 10**9)
    deliveries.waits(Amounts("/a", {}))
    found = {name: series.slots[STORED_TRACES] for name, series in measured(folder_fd).items()}
    assert found == {ORIGIN: 1, "http://there.example": 0, OVERFLOW: 0}


def test_next_collector_goes_on_and_believes_nothing_of_the_outbox(folder_fd: int) -> None:
    first = Deliveries(Ledger(folder_fd))
    first.answered([(HERE, verdict(), 0.02)])
    first.waits(Amounts("/a", {HERE: Amount(2, 200, 50.0)}))
    Deliveries(Ledger(folder_fd)).answered([(HERE, verdict(), 0.02)])
    series = measured(folder_fd)[ORIGIN]
    assert (histogram_of(series).count, series.slots[STORED_TRACES]) == (2, 0)


def test_destinations_without_number_share_a_series(folder_fd: int) -> None:
    deliveries = Deliveries(Ledger(folder_fd))
    for number in range(2 * MAX_DESTINATIONS):
        deliveries.answered([(HERE._replace(url=f"http://host-{number}/"), verdict(), 0.02)])
    found = {name: histogram_of(series).count for name, series in measured(folder_fd).items()}
    assert len(found) == MAX_DESTINATIONS + 1
    assert found[OVERFLOW] == MAX_DESTINATIONS
    assert sum(found.values()) == 2 * MAX_DESTINATIONS


@pytest.mark.parametrize("reason", ["", "x" * 100, "ü" * 40, "\ud800"])
def test_reason_is_a_text_of_others(folder_fd: int, reason: str) -> None:
    Deliveries(Ledger(folder_fd)).answered([(HERE, verdict(Outcome.REJECTED.because(reason)), 0.1)])
    found = reason_of(measured(folder_fd)[ORIGIN])
    assert reason.encode("utf-8", "replace").decode().startswith(found)


def test_without_a_ledger_all_is_passed_on() -> None:
    deliveries, senders, shelf = Deliveries(None), Senders(), Shelf()
    sender, outbox = MeasuredSender(senders, deliveries), MeasuredShelf(shelf, deliveries)
    sender.submit([Parcel(numbered(1), HERE, BODY)])
    senders.answer(lambda *ids: Verdict(ids, Outcome.DELIVERED))
    assert [each.outcome for each in sender.verdicts()] == [Outcome.DELIVERED]
    # It would grow with each request.
    assert not sender._begun
    outbox.watch("/a")
    shelf.say(Amounts("/a", {}))
    assert shelf.watched == ["/a"] and len(outbox.reports()) == 2
    sender.close(1.0)
    assert senders.is_closed


def test_real_deliveries_and_the_outbox_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made_folder(tmp_path, monkeypatch) as folder:
        _check_measures(folder)


def _check_measures(folder: Folder) -> None:
    process, loop = Process(folder), folder.collector()
    process.close(process.open("well"))
    passes(loop, lambda: process.counts() == (1, 1))
    folder.server.behave = servers.status(503)
    process.close(process.open("ill"))
    passes(loop, lambda: process.counts() == (2, 2))
    origin = folder.server.url.removesuffix("/")
    passes(loop, lambda: measured(folder.fd)[origin].slots[STORED_TRACES] == 1)
    series = measured(folder.fd)[origin]
    assert histogram_of(series).failures >= 1
    assert histogram_of(series).count >= 2
    assert reason_of(series) == "503"
    assert series.slots[STORED_SINCE] > 0
