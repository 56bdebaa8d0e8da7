"""What arrived of a call: our events at our backend, and the SDK's spans at a server that takes OTLP."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from servers import Server

from epsagon_fast.backend import Backend

# Our own integrations by their origin, with the SDK's that record the same.
OURS = {
    "urllib3": ("opentelemetry.instrumentation.requests", "opentelemetry.instrumentation.urllib3"),
    "celery": ("opentelemetry.instrumentation.celery",),
}


class Seen(NamedTuple):
    """A span or an event. `by`: what recorded it. `operation`: only an event has one. `id`: 16 hex digits."""

    name: str
    by: str
    operation: str
    attributes: tuple[str, ...]
    id: str

    def stands_for(self, span: "Seen") -> bool:
        """Say whether this event of ours is what the SDK shows as `span`."""
        if self.by in OURS:
            return span.by in OURS[self.by]
        return (self.name, self.by) == (span.name, span.by)


def our_events(backend: Backend) -> dict[str, list[Seen]]:
    """Return the events by the trace id of their request, without the runners of requests."""
    found = defaultdict(list)
    for _, body in backend.store.bodies():
        events = json.loads(body)["events"]
        (runner,) = (event for event in events if event["origin"] == "runner")
        key = runner["resource"]["metadata"].get("http_trace_id", "")
        found[key] += [_event(event) for event in events if event is not runner or _is_task(event)]
    return found


def sdk_spans(server: Server) -> dict[str, list[Seen]]:
    """Return the spans by their trace id, without those that stand for the request itself."""
    found = defaultdict(list)
    for span, scope in _exported(server):
        request = found[span.trace_id.hex()]
        # An ASGI request has spans of its messages, too.
        if span.kind != Span.SPAN_KIND_SERVER and not span.name.endswith((" http send", " http receive")):
            names = tuple(sorted(attribute.key for attribute in span.attributes))
            request.append(Seen(span.name, scope, "", names, span.span_id.hex()))
    return found


def unmatched(spans: Iterable[Seen], events: Iterable[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Return the spans that no event stands for, and the events that stand for none."""
    missing, left = [], [*events]
    for span in spans:
        twin = next((event for event in left if event.stands_for(span)), None)
        if twin is None:
            missing.append(span)
        else:
            left.remove(twin)
    return missing, left


def _event(event: dict[str, Any]) -> Seen:
    resource = event["resource"]
    by = "celery" if _is_task(event) else event["origin"]
    names = tuple(sorted(resource["metadata"]))
    return Seen(resource["name"], by, resource["operation"], names, event["id"][:16])


def _is_task(event: dict[str, Any]) -> bool:
    return bool(event["resource"]["type"] == "celery")


def _exported(server: Server) -> Iterable[tuple[Span, str]]:
    for request in [*server.requests]:
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            for scope in resource.scope_spans:
                yield from ((span, scope.scope.name) for span in scope.spans)
