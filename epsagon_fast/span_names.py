"""OpenTelemetry's names, as the traced process, the collector and the embedded backend use them.

A span's kind, links, events and status have no field in an event. They stand in its metadata, under the names that
OpenTelemetry has for formats that are not its own. The OTLP format turns them back, so a span arrives as it was made.
"""

from collections.abc import Mapping

from epsagon_fast.hints import Any, Final

KIND: Final = "span.kind"
# The library that made the span. An event whose metadata have this name came as a span.
SCOPE: Final = "otel.scope.name"
SCOPE_VERSION: Final = "otel.scope.version"
# "OK": an application has said so. An error is told by the event's error_code.
STATUS: Final = "otel.status_code"
OK: Final = "OK"
DESCRIPTION: Final = "otel.status_description"
# JSON: a list of {name, time_ns, attributes}, and a list of {trace_id, span_id, trace_state, flags, attributes}.
EVENTS: Final = "span.events"
LINKS: Final = "span.links"
DROPPED_ATTRIBUTES: Final = "otel.dropped_attributes_count"
DROPPED_EVENTS: Final = "otel.dropped_events_count"
DROPPED_LINKS: Final = "otel.dropped_links_count"
RESERVED: Final = frozenset(
    {KIND, SCOPE, SCOPE_VERSION, STATUS, DESCRIPTION, EVENTS, LINKS}
    | {DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS}
)

# What may also stand in the metadata of an event that came as none: the application has said it of the current span.
SAID_OF_BLOCKS: Final = (KIND, DESCRIPTION, EVENTS, LINKS, DROPPED_EVENTS, DROPPED_LINKS)

# A span's event of this name is an exception, with these attributes.
EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EXCEPTION_ESCAPED: Final = "exception.escaped"

# The kinds, each at its number in OTLP.
KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
SPAN_TYPE: Final = "span"
HTTP_TYPE: Final = "http"
_METHODS: Final = ("http.request.method_original", "http.request.method", "http.method")
# Attributes whose value is an event's type, and those that say its operation; the older name of each comes last.
_DATABASES: Final = {
    "db.system.name": ("db.operation.name", "db.operation"),
    "db.system": ("db.operation", "db.operation.name"),
}
_CALLS: Final = {
    "messaging.system": ("messaging.operation.type", "messaging.operation"),
    "rpc.system.name": ("rpc.method",),
    "rpc.system": ("rpc.method",),
}


def type_and_operation(attributes: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Return the type and operation of a span's event, by OpenTelemetry's semantic conventions, old and new."""
    for method in _METHODS:
        if method in attributes:
            return HTTP_TYPE, str(attributes[method])
    for systems, otherwise in ((_DATABASES, ""), (_CALLS, kind)):
        for system, operations in systems.items():
            if system in attributes:
                said = next((attributes[each] for each in operations if each in attributes), otherwise)
                return str(attributes[system]), str(said)
    return SPAN_TYPE, kind
