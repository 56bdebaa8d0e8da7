"""A program whose spans go two ways at once: into our recorder, and through OpenTelemetry's own batches and exporter.

Each span's name is written down before the span begins. A program finds the functions below as the module `both`.
"""

import gzip
from pathlib import Path

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from places import Place
from servers import Request, Server

BOTH = """
import os
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from epsagon_fast.integrations.opentelemetry import EpsagonSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(os.environ["SDK_URL"], timeout=2)))
provider.add_span_processor(EpsagonSpanProcessor())
tracer = provider.get_tracer("both")

def span(name):
    fd = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, name.encode() + b"\\n")
    os.close(fd)
    return tracer.start_as_current_span(name)

def work(name):
    with span(name), span(name + " inner"):
        pass
"""
# A program that makes its spans at once, before a collector has started, needs more than the default.
RING_BYTES = 4 * 1024 * 1024
ROWS: list[tuple[str, int, int, int]] = []


def table() -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| fault | spans | arrived by epsagon_fast | by the SDK's exporter |", "|---|---:|---:|---:|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in ROWS)])


class Both:
    """A place with a server for each way."""

    def __init__(self, ours: Server, sdk: Server) -> None:
        self.ours, self.sdk = ours, sdk
        self.place = Place("otlp+" + ours.url.rstrip("/"), EPSAGON_RING_BYTES=str(RING_BYTES))
        self.scratch: Path = self.place.scratch
        (self.scratch / "both.py").write_text(BOTH)
        self._notes = self.scratch / "notes"
        self.place.env |= {"NOTES": str(self._notes), "SDK_URL": sdk.url + "v1/traces", "PYTHONPATH": str(self.scratch)}

    def noted(self) -> set[str]:
        """Return the names of all spans that were begun."""
        # A process that is killed may leave half a line.
        return {*self._notes.read_text().split("\n")[:-1]} if self._notes.exists() else set()

    def arrived(self) -> set[str]:
        """Return the names of our spans that have arrived."""
        return names(self.ours.requests)

    def tell(self, fault: str) -> None:
        """Add a row to the table."""
        noted = self.noted()
        ROWS.append((fault, len(noted), len(noted & self.arrived()), len(noted & names(self.sdk.requests))))


def names(requests: list[Request]) -> set[str]:
    """Return the names of the spans in requests."""
    found: set[str] = set()
    for request in list(requests):
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        if body.startswith(b"{"):
            parts = [scope for part in orjson.loads(body).get("resourceSpans", ()) for scope in part["scopeSpans"]]
            found |= {span["name"] for scope in parts for span in scope["spans"]}
        else:
            message = ExportTraceServiceRequest.FromString(body)
            parts = [scope for part in message.resource_spans for scope in part.scope_spans]
            found |= {span.name for scope in parts for span in scope.spans}
    return found
