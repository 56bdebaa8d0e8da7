"""A program that sets a tracer provider of its own, as with OpenTelemetry's SDK, keeps it: ours gives way.

Then the program decides which instrumentations there are, because their spans go to its own exporter. Those that we
started are taken back, and no others are started. What the program's provider records is recorded here, too.
"""

from importlib import import_module
from typing import Any

from epsagon_fast.integrations.wrapping import Method, Wrapped
from epsagon_fast.interrupts import let_pass

from .instrumentors import API, OURS, is_ours, take_back


def watch() -> None:
    """Learn when the program sets a tracer provider."""
    module: Any = import_module(API)
    Wrapped(module, "set_tracer_provider", _set_theirs).put_on()


def _set_theirs(set_provider: Method, _: Wrapped) -> Method:
    def set_tracer_provider(tracer_provider: Any) -> None:
        if is_ours(tracer_provider):
            set_provider(tracer_provider)
            return
        trace: Any = import_module(API)
        if is_ours(trace.get_tracer_provider()):
            take_back()
            # The API takes one provider. These two are its memory of it, and it has no other way back.
            trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, type(trace._TRACER_PROVIDER_SET_ONCE)()
        set_provider(tracer_provider)
        if trace.get_tracer_provider() is tracer_provider:
            _record_too(tracer_provider)

    return set_tracer_provider


def _record_too(provider: Any) -> None:
    try:
        provider.add_span_processor(import_module(OURS).EpsagonSpanProcessor())
    except Exception as error:  # not the SDK's, or of a version that we do not know
        let_pass(error)
