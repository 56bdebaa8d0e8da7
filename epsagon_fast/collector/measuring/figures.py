"""What can be shown of a folder: metrics with their samples, read from its files. It asks no process.

So the same figures come from a collector's own endpoint and from any other process of its user, also while no collector
runs. The catalogue (catalogue.py) says which metrics there are.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

import epsagon_fast.private as private
from epsagon_fast.collector.measuring.histogram import BOUNDS_S, NS_PER_S, Histogram, histogram_of
from epsagon_fast.collector.measuring.keys import texts_of
from epsagon_fast.frozen import frozen
from epsagon_fast.queue import ledger
from epsagon_fast.queue.ledger import Series
from epsagon_fast.queue.overview import Overview
from epsagon_fast.rows import NamedTuple

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

Value = float | Histogram
# The values of a metric's labels, in their order, and its value.
Sample = tuple[tuple[str, ...], Value]


@frozen
class View:
    """A folder at one moment. `seen` is None if there is no folder; `now` is unix seconds."""

    seen: Overview | None
    series: list[Series]
    now: float

    @property
    def counters(self) -> dict[str, int]:
        """The counters in the state page."""
        return self.seen.counters if self.seen else {}

    @property
    def gauges(self) -> dict[str, int]:
        """The gauges in the state page; {} if no collector keeps them up to date."""
        return self.seen.gauges if self.seen and self.seen.pid else {}

    def of_kind(self, kind: str) -> Iterator[tuple[list[str], Series]]:
        """Yield the series of a kind, with their texts."""
        for series in self.series:
            texts = texts_of(series.key, kind)
            if texts is not None:
                yield texts, series

    def histograms(self, kind: str, labels: int) -> dict[tuple[str, ...], Histogram]:
        """Return what was counted, by the first texts of the keys. Series that differ in other texts are added up."""
        found: dict[tuple[str, ...], Histogram] = {}
        for texts, series in self.of_kind(kind):
            named, histogram = tuple(texts[:labels]), histogram_of(series)
            if histogram.count:
                found[named] = found[named] + histogram if named in found else histogram
        return found


class Metric(NamedTuple):
    """One metric of the catalogue. Its name has the suffix that Prometheus wants."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[View], Iterable[Sample]]


def view(seen: Overview | None) -> View:
    """Return what there is to see in the folder of an overview."""
    return View(seen, _series(seen.path) if seen else [], time.time())


def as_json(catalogue: Iterable[Metric], view: View) -> dict[str, list[dict[str, object]]]:
    """Return the samples of all metrics, by name: labels and a value, or what a histogram has."""
    return {
        metric.name: [
            dict(zip(metric.labels, labels, strict=True)) | _value_json(value) for labels, value in metric.samples(view)
        ]
        for metric in catalogue
    }


def _value_json(value: Value) -> dict[str, object]:
    if not isinstance(value, Histogram):
        return {"value": value}
    buckets = dict(zip((*map(repr, BOUNDS_S), "+Inf"), accumulate(value.buckets), strict=True))
    return {"count": value.count, "sum": value.sum_ns / NS_PER_S, "buckets": buckets}


def _series(path: str) -> list[Series]:
    try:
        fd = private.open_directory(path)
    except OSError:
        return []
    try:
        return ledger.read(fd)
    except (OSError, ValueError):
        return []
    finally:
        os.close(fd)
