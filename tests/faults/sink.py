"""A backend that keeps of each trace only what the law needs: its events' ids, and how it ended.

Bodies are not kept: a soak sends gigabytes. Ids look like `3f9a0c1d-17`: a process's own name and a number.
"""

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from servers import Request, Server, status

ID = re.compile(rb'"id":"([0-9a-f]{8}-\d+)"')


class Arrival(NamedTuple):
    """One trace as it came first."""

    ids: tuple[str, ...]
    died: bool
    unfinished: bool
    size_bytes: int


class Sink:
    """Answers 200 to every POST, from threads of its own."""

    def __init__(self) -> None:
        self.traces: dict[str, Arrival] = {}
        self.ids: set[str] = set()
        self.duplicates = 0
        # Ids that stood in more than one trace, or twice in one.
        self.twice = 0
        self._lock = threading.Lock()
        self._closed = False
        self._answer = status(200)
        self._server = Server(self._behave, keeps=False)
        self.url = self._server.url

    def open(self) -> None:
        """Listen again where it did before `close`."""
        self._closed = False
        self._server = Server(self._behave, port=self._server.port, keeps=False)

    def close(self) -> None:
        """Refuse connections from now on."""
        with self._lock:
            self._closed = True
        self._server.close()

    def take(self, key: str, body: bytes) -> None:
        """Note what a request brought."""
        found = tuple(each.decode() for each in ID.findall(body))
        tail = body[-2000:]
        arrival = Arrival(found, b'"ProcessDied"' in tail, b'"unfinished":"true"' in tail, len(body))
        if key in self.traces:
            self.duplicates += 1
            return
        self.twice += len(found) - len(set(found) - self.ids)
        self.traces[key] = arrival
        # Last: tests wait for the ids, and then look at all else.
        self.ids.update(found)

    def _behave(self, request: Request, connection: socket.socket) -> bool:
        # Under the lock: what is taken has its answer, or it would come again once we are open again.
        with self._lock:
            if self._closed:
                return False
            self.take(request.headers["idempotency-key"], request.body)
            return self._answer(request, connection)


class OtlpSink(Sink):
    """The same for OTLP in both encodings. Each span counts for itself: it is named by its event's id."""

    def __init__(self) -> None:
        super().__init__()
        self.is_sick = False
        self._refusal = status(503)

    def _behave(self, request: Request, connection: socket.socket) -> bool:
        with self._lock:
            if self.is_sick:
                return self._refusal(request, connection)
            found = set()
            for trace_id, name, is_root in _spans(request):
                if is_root:
                    self.traces.setdefault(trace_id, Arrival((), False, False, 0))
                elif name in self.ids or name in found:
                    self.duplicates += 1
                found.add(name)
            self.ids |= found
            return self._answer(request, connection)


def _spans(request: Request) -> Iterator[tuple[str, str, bool]]:
    """Yield trace id, name and whether it has no parent of each span."""
    body = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
    if request.headers["content-type"] == "application/json":
        for of_resource in json.loads(body)["resourceSpans"]:
            for scope in of_resource["scopeSpans"]:
                for span in scope["spans"]:
                    yield span["traceId"], span["name"], not span.get("parentSpanId")
    else:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for each in resource.scope_spans:
                for message in each.spans:
                    yield message.trace_id.hex(), message.name, not message.parent_span_id
