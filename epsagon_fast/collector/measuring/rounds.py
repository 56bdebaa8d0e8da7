"""The rounds in which a collector sends the metrics of requests. Each round runs in a thread of its own.

A round reads the ledger as any other process may. Numbers are cumulative: what does not arrive now is in the next
round. Each destination gets what was counted of the traces that it gets, and nothing else.

A collector knows a destination from the first trace that is closed for it, so after a collector's death an application
that closes no trace any more is not reported again.
"""

import logging
import time
from collections.abc import Iterator, Sequence

from epsagon_fast.collector.formats.metrics import Point, Resource, post, url_of
from epsagon_fast.collector.formats.otlp import resource_of
from epsagon_fast.collector.measuring.histogram import BOUNDS_S, histogram_of
from epsagon_fast.collector.measuring.keys import REQUEST, cut, texts_of
from epsagon_fast.collector.measuring.requests import Application
from epsagon_fast.collector.parcel import Destination
from epsagon_fast.collector.sending.answer import Failure, is_page
from epsagon_fast.queue import ledger
from epsagon_fast.queue.ledger import Series

log = logging.getLogger("epsagon_fast.collector")

# Their meaning is that there is no such place: metrics are not offered again.
_NO_PLACE = frozenset({404, 405, 501})
MAX_COMPLAINTS = 256
_OF_ONE_PROCESS = frozenset({"process.pid"})
_INSTANCE = "service.instance.id"


class Rounds:
    """The rounds of one collector. `folder_fd`: of the ledger; it stays open. `instance_id`: no other ledger has it."""

    def __init__(self, folder_fd: int, instance_id: str) -> None:
        self._folder_fd = folder_fd
        self._instance_id = instance_id
        # Only a round changes these, and there is one at a time.
        self._refused: set[str] = set()
        self._complaints: set[tuple[str, str]] = set()

    def wanted(self, applications: Sequence[Application]) -> list[Application]:
        """Return those whose destination takes metrics."""
        return [each for each in applications if url_of(each.destination) not in (None, *self._refused)]

    def send(self, applications: Sequence[Application]) -> None:
        """Send the metrics of each, in one request for each destination."""
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
