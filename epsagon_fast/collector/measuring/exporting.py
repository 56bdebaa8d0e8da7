"""Sends the metrics of requests to destinations that speak OTLP: once a minute, and at the collector's end.

All of it happens in a thread that lives as long as one round. It reads the ledger as any other process may, so the loop
does not wait for it. Numbers are cumulative: what does not arrive now is in the next round. Each destination gets what
was counted of the traces that it gets, and nothing else.

A collector knows a destination from the first trace that is closed for it, so after a collector's death an application
that closes no trace any more is not reported again.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from epsagon_fast.collector.background import Background
from epsagon_fast.collector.formats.metrics import Point, Resource, post, url_of
from epsagon_fast.collector.formats.otlp import resource_of
from epsagon_fast.collector.measuring.histogram import BOUNDS_S, histogram_of
from epsagon_fast.collector.measuring.keys import REQUEST, cut, texts_of
from epsagon_fast.collector.measuring.requests import Application
from epsagon_fast.collector.parcel import Destination
from epsagon_fast.collector.sending.answer import Failure, is_page
from epsagon_fast.digits import number
from epsagon_fast.queue import ledger
from epsagon_fast.queue.ledger import Series

log = logging.getLogger("epsagon_fast.collector")

INTERVAL_S = 60.0
# A leaving collector waits this long for its last round; the second is for one that was told to leave.
LAST_ROUND_S = 3.0
LAST_HURRIED_S = 0.3
# Their meaning is that there is no such place: metrics are not offered again.
_NO_PLACE = frozenset({404, 405, 501})
MAX_COMPLAINTS = 256
_OF_ONE_PROCESS = frozenset({"process.pid"})
_INSTANCE = "service.instance.id"


class Exporter:
    """The rounds of one collector. `folder_fd`: of the ledger; it stays open. `instance_id`: no other ledger has it."""

    def __init__(self, folder_fd: int, instance_id: str) -> None:
        self._folder_fd = folder_fd
        self._instance_id = instance_id
        self._interval_s = interval_s()
        self._due = 0.0
        self._round: Background | None = None
        # Only a round uses these, and there is one at a time.
        self._refused: set[str] = set()
        self._complaints: set[tuple[str, str]] = set()

    def step(self, applications: Callable[[], Sequence[Application]], now: float) -> None:
        """Begin a round if it is time. `now` is monotonic seconds."""
        if not self._due:
            self._due = now + self._interval_s
        elif now >= self._due and not self._is_busy:
            self._due = now + self._interval_s
            self._begin(applications())

    def begin_last(self, applications: Callable[[], Sequence[Application]]) -> None:
        """Begin the last round, unless one is under way."""
        if not self._is_busy:
            self._begin(applications())

    def end(self, hurries: bool) -> None:
        """Wait a moment for the last round."""
        if self._round is not None:
            self._round.wait(LAST_HURRIED_S if hurries else LAST_ROUND_S)

    @property
    def _is_busy(self) -> bool:
        return self._round is not None and not self._round.is_over

    def _begin(self, applications: Sequence[Application]) -> None:
        mine = [each for each in applications if url_of(each.destination) not in (None, *self._refused)]
        if not mine or self._interval_s <= 0:
            return
        try:
            self._round = Background(partial(self._export, mine))
        except RuntimeError:
            # The system has no thread left. The next round tries again.
            self._round = None

    def _export(self, applications: Sequence[Application]) -> None:
        try:
            series = ledger.read(self._folder_fd)
        except (OSError, ValueError):
            return
        by_digest: dict[str, dict[str, Application]] = {}
        for each in applications:
            by_digest.setdefault(each.digest, {})[each.name] = each
        for named in by_digest.values():
            resources = [
                found for each in named.values() if (found := _resource(each, series, self._instance_id)).points
            ]
            if resources:
                self._send(next(iter(named.values())).destination, resources)

    def _send(self, destination: Destination, resources: Sequence[Resource]) -> None:
        # Not imported with this module: it takes as long as all else in a collector, and meanwhile rings fill.
        from epsagon_fast.collector.sending.exchange import Pools

        pools = Pools()
        try:
            request = post(destination, resources, BOUNDS_S, time.time_ns())
            answer = pools.send(request, destination)
        except Failure as failure:
            self._complain(destination, failure.reason, "metrics did not arrive")
            return
        except Exception as error:
            # Only the type, because the message may quote a header.
            self._complain(destination, type(error).__name__, "metrics were not sent")
            return
        finally:
            pools.clear()
        if answer.status in _NO_PLACE or is_page(answer):
            self._refused.add(request.url)
            log.info("%s takes no metrics (%d), so it gets none from now on", destination.origin, answer.status)
        elif not 200 <= answer.status < 300:
            self._complain(destination, str(answer.status), "did not take metrics")

    def _complain(self, destination: Destination, reason: str, text: str) -> None:
        """Log a complaint once."""
        complaint = destination.origin, reason
        if complaint not in self._complaints:
            if len(self._complaints) >= MAX_COMPLAINTS:
                self._complaints.clear()
            self._complaints.add(complaint)
            log.warning("%s: %s (%s)", destination.origin, text, reason)


def interval_s() -> float:
    """Return OTEL_METRIC_EXPORT_INTERVAL in seconds, or the default if it is no number; 0: metrics are not exported."""
    exporters = [each.strip().lower() for each in os.environ.get("OTEL_METRICS_EXPORTER", "otlp").split(",")]
    # Some SDKs name the protocol behind it. One that names `prometheus` alone wants its metrics fetched, not sent.
    if any(exporters) and not any(each.startswith("otlp") for each in exporters):
        return 0.0
    said = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    return (number(said, most=9) or 0) / 1000 or INTERVAL_S


def _resource(application: Application, series: Sequence[Series], instance_id: str) -> Resource:
    """Return an application's requests. They are those of all its processes here, so no single one is named."""
    said = resource_of(application.terms.config)
    attributes = {key: value for key, value in said.items() if key not in _OF_ONE_PROCESS}
    return Resource({_INSTANCE: instance_id, **attributes}, list(_points(application, series)))


def _points(application: Application, series: Sequence[Series]) -> Iterator[Point]:
    app = cut(application.name)
    for each in series:
        texts = texts_of(each.key, REQUEST)
        if texts and texts[0] == app and texts[2] == application.digest:
            found = histogram_of(each)
            if found.count:
                yield Point(texts[1], found.started_at_ns, found.failures, found.sum_ns, found.buckets)
