"""Measures sending for each destination: how long answers take, what came last, and what waits in the outbox.

It stands between the dispatch and what that uses, and passes everything on. A destination is named by its URL's origin,
the part that cannot hold a secret.
"""

import time
from collections import defaultdict
from collections.abc import Sequence

from epsagon_fast.collector.formats.conventions import OVERFLOW
from epsagon_fast.collector.measuring.histogram import NS_PER_S, Sum, begin, placed
from epsagon_fast.collector.measuring.keys import DELIVERY, key_of, texts_of
from epsagon_fast.collector.measuring.slots import (
    ERROR_AT,
    STORED_BYTES,
    STORED_SINCE,
    STORED_TRACES,
    SUCCESS_AT,
    write_reason,
)
from epsagon_fast.collector.parcel import Destination, Parcel
from epsagon_fast.collector.sending.dispatch import Sender, Shelf
from epsagon_fast.collector.sending.outbox.messages import Amount, Amounts, Report
from epsagon_fast.collector.sending.verdict import ARRIVED, Verdict
from epsagon_fast.queue.ledger import Ledger

# Destinations with series of their own.
MAX_DESTINATIONS = 64


class Deliveries:
    """The series of destinations in one ledger; without a ledger nothing is measured. Used by the loop's thread."""

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._numbers: dict[str, int] = {}
        self._origins: dict[Destination, str] = {}
        self._amounts: dict[str, dict[Destination, Amount]] = {}
        self._overflow = 0
        if ledger is not None:
            self._overflow = self._begun(ledger, OVERFLOW) or 0
            self._numbers = {texts[0]: n for key, n in ledger.keys().items() if (texts := texts_of(key, DELIVERY))}
            # The outbox's file may be gone meanwhile. If it is there, it will be looked at.
            for number in self._numbers.values():
                _show(ledger, number, Amount(0, 0, 0.0))

    def answered(self, answers: Sequence[tuple[Destination, Verdict, float]]) -> None:
        """Note the verdicts of a pass, each with its request's destination and the seconds that it took."""
        ledger = self._ledger
        if ledger is None:
            return
        sums: defaultdict[tuple[int, int], Sum] = defaultdict(Sum)
        arrived_ns: dict[int, int] = {}
        number, before = 0, None
        for destination, verdict, took_s in answers:
            # Neighbours nearly always have one, and looking it up takes a hash of all its fields.
            if destination is not before:
                number, before = self._number(ledger, destination), destination
            bucket, took_ns = placed(took_s)
            found = sums[number, bucket]
            found.count += 1
            found.duration_ns += took_ns
            if verdict.outcome.name == ARRIVED:
                arrived_ns[number] = time.time_ns()
            elif not verdict.halve:
                # A request that is to be made in parts is no error.
                found.failures += 1
                ledger.store(number, ERROR_AT, time.time_ns())
                write_reason(ledger, number, verdict.outcome.reason or "")
        for (number, bucket), found in sums.items():
            ledger.add(number, found.amounts(bucket))
        for number, at_ns in arrived_ns.items():
            ledger.store(number, SUCCESS_AT, at_ns)

    def waits(self, report: Amounts) -> None:
        """Note what waits in a directory of an outbox."""
        if self._ledger is None:
            return
        self._amounts[report.directory] = report.amounts
        totals = dict.fromkeys(self._numbers.values(), Amount(0, 0, 0.0))
        for found in self._amounts.values():
            for destination, amount in found.items():
                number = self._number(self._ledger, destination)
                totals[number] = _sum(totals.get(number, Amount(0, 0, 0.0)), amount)
        for number, total in totals.items():
            _show(self._ledger, number, total)

    def _number(self, ledger: Ledger, destination: Destination) -> int:
        origin = self._origins.get(destination)
        if origin is None:
            if len(self._origins) >= MAX_DESTINATIONS:
                self._origins.clear()
            origin = self._origins[destination] = destination.origin
        number = self._numbers.get(origin)
        if number is None:
            number = self._begun(ledger, origin) if len(self._numbers) <= MAX_DESTINATIONS else None
            if number is None:
                return self._overflow
            self._numbers[origin] = number
        return number

    def _begun(self, ledger: Ledger, origin: str) -> int | None:
        number = ledger.number_of(key_of(DELIVERY, origin))
        if number is not None:
            begin(ledger, number, time.time_ns())
        return number


class MeasuredSender:
    """A sender whose answers are measured, from the moment that it is given a request."""

    def __init__(self, sender: Sender, deliveries: Deliveries) -> None:
        self._sender = sender
        self._deliveries = deliveries
        self._begun: dict[bytes, tuple[Destination, float]] = {}
        self.prepare, self.lags = sender.prepare, sender.lags

    def submit(self, parcels: Sequence[Parcel]) -> None:
        """Pass a request on."""
        first = parcels[0]
        self._begun[first.trace_id] = first.destination, time.monotonic()
        self._sender.submit(parcels)

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts since the last call."""
        verdicts = self._sender.verdicts()
        if verdicts:
            # A list, because without a ledger it is not gone through, and each request would stay noted.
            answers = []
            for verdict in verdicts:
                # A request is known by its first trace, which is in no other one.
                destination, begun = self._begun.pop(verdict.trace_ids[0])
                answers.append((destination, verdict, verdict.at - begun))
            self._deliveries.answered(answers)
        return verdicts

    def close(self, timeout_s: float) -> None:
        """Close the sender."""
        self._sender.close(timeout_s)


class MeasuredShelf:
    """An outbox whose contents are measured."""

    def __init__(self, shelf: Shelf, deliveries: Deliveries) -> None:
        self._shelf = shelf
        self._deliveries = deliveries
        self.watch, self.put, self.take = shelf.watch, shelf.put, shelf.take
        self.give_back, self.remove, self.close = shelf.give_back, shelf.remove, shelf.close

    def reports(self) -> list[Report]:
        """Return the reports since the last call."""
        reports = self._shelf.reports()
        for report in reports:
            if isinstance(report, Amounts):
                self._deliveries.waits(report)
        return reports


def _show(ledger: Ledger, number: int, amount: Amount) -> None:
    ledger.store(number, STORED_TRACES, amount.traces)
    ledger.store(number, STORED_BYTES, amount.size_bytes)
    ledger.store(number, STORED_SINCE, max(0, int(amount.since * NS_PER_S)))


def _sum(one: Amount, other: Amount) -> Amount:
    since = min(each.since for each in (one, other) if each.traces)
    return Amount(one.traces + other.traces, one.size_bytes + other.size_bytes, since)
