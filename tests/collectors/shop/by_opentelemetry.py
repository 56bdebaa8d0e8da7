"""The shop traced by OpenTelemetry's SDK, with its exporter and its instrumentations."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from celery import Celery
from flask import Flask
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

TRACER = trace.get_tracer("shop")


def instrument(app: Celery) -> None:
    """Trace this process's tasks and outgoing requests."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=100))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
    URLLib3Instrumentor().instrument()


def web(app: Flask) -> Flask:
    """Return the application, traced."""
    FlaskInstrumentor().instrument_app(app)
    return app


def block(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """A span with attributes."""
    return TRACER.start_as_current_span(name, attributes=attributes)


def timed(name: str, began_us: int, took_us: int) -> None:
    """Record a span with these times, which are in its attributes as well."""
    span = TRACER.start_span(name, start_time=began_us * 1000, attributes={"began_us": began_us, "took_us": took_us})
    span.end((began_us + took_us) * 1000)
