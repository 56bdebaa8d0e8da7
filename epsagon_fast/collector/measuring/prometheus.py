"""The catalogue's metrics as prometheus_client takes them. Needs the extra `metrics`."""

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from epsagon_fast.collector.measuring.catalogue import CATALOGUE
from epsagon_fast.collector.measuring.figures import COUNTER, HISTOGRAM, Metric, View
from epsagon_fast.collector.measuring.histogram import BOUNDS_S, NS_PER_S, Histogram
from epsagon_fast.hints import Any

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_BOUNDS = [*map(repr, BOUNDS_S), "+Inf"]


class Scraped:
    """Something to register: it looks anew each time that it is collected."""

    def __init__(self, look: Callable[[], View]) -> None:
        self._look = look

    def collect(self) -> Iterator[Family]:
        """Yield all metrics."""
        return _families(self._look())

    def describe(self) -> Iterator[Family]:
        """Yield all metrics without a look, so that a scrape can ask for some of them by name."""
        return _families(View(None, [], 0.0))


def registry(look: Callable[[], View]) -> CollectorRegistry:
    """Return a registry with our metrics alone."""
    own = CollectorRegistry(auto_describe=False)
    own.register(Scraped(look))
    return own


def text(view: View, *, is_open: bool = False) -> str:
    """Return the metrics in Prometheus' text format, or in OpenMetrics with `is_open`."""
    own = registry(lambda: view)
    # Neither says its types in all versions.
    generate: Any = openmetrics.generate_latest if is_open else generate_latest
    said: bytes = generate(own)
    return said.decode()


def _families(view: View) -> Iterator[Family]:
    for metric in CATALOGUE:
        yield _family(metric, view)


def _family(metric: Metric, view: View) -> Family:
    if metric.kind == HISTOGRAM:
        return _histogram(metric, view)
    make = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for values, value in metric.samples(view):
        assert not isinstance(value, Histogram)
        family.add_metric(values, value)
    return family


def _histogram(metric: Metric, view: View) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for values, value in metric.samples(view):
        assert isinstance(value, Histogram)
        counts = zip(_BOUNDS, map(float, accumulate(value.buckets)), strict=True)
        family.add_metric(values, [*counts], value.sum_ns / NS_PER_S)
    return family
