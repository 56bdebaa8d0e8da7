"""OpenTelemetry's API on our recorder, without its SDK.

    import epsagon_fast.integrations.opentelemetry
    epsagon_fast.integrations.opentelemetry.install()

Spans of the libraries' instrumentations and of the application itself are then events of our traces, and our traces
and events are their parents. It needs `pip install 'epsagon-fast[opentelemetry]'`. docs/opentelemetry.md has the rest.
"""

from typing import TYPE_CHECKING, Any

from epsagon_fast.log import warn_once

if TYPE_CHECKING:
    from .processor import EpsagonSpanProcessor

__all__ = ["EpsagonSpanProcessor", "install"]


def __getattr__(name: str) -> Any:
    # It needs the SDK, and all else here does not.
    if name == "EpsagonSpanProcessor":
        from .processor import EpsagonSpanProcessor

        return EpsagonSpanProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def install() -> None:
    """Record the spans that this process makes through OpenTelemetry's API. A second call changes nothing.

    OpenTelemetry takes one tracer provider in a process. If another one is set already, it stays, with one warning.
    Raises ImportError without the package opentelemetry-api.
    """
    from opentelemetry import trace

    from .contexts import keep_as_one
    from .provider import SpanProvider

    given = trace.get_tracer_provider()
    if isinstance(given, trace.ProxyTracerProvider):
        trace.set_tracer_provider(SpanProvider())
    elif not isinstance(given, SpanProvider):
        message = "OpenTelemetry has another tracer provider already: its spans are not recorded here"
        warn_once("provider", message, about="OpenTelemetry's spans")
        return
    keep_as_one()
