"""The pages that help, by what goes wrong: each error and warning that a user may see ends with one of them."""

from epsagon_fast.hints import Final

ADDRESS: Final = "https://github.com/epsagon-fast/epsagon_fast/blob/main/"

PAGES: Final = {
    "a backend": "docs/backend.md",
    "an unknown server": "docs/servers.md",
    "capacity": "docs/operating.md#capacity",
    "celery": "docs/celery.md",
    "compiled modules": "docs/queue.md#without-the-extension",
    "encryption": "SECURITY.md",
    "epsagon-fast backend": "docs/backend.md",
    "epsagon-fast collector": "docs/collector.md#how-it-starts",
    "epsagon-fast demo": "docs/get-started.md",
    "epsagon-fast doctor": "docs/operating.md#doctor",
    "epsagon-fast metrics": "docs/metrics.md",
    "epsagon-fast run": "docs/run.md",
    "epsagon-fast show": "docs/backend.md#in-the-terminal",
    "epsagon-fast status": "docs/operating.md#log-lines",
    "epsagon-fast stop": "docs/collector.md#leaving",
    "epsagon-fast traces": "docs/backend.md#in-the-terminal",
    "losses": "docs/reliability.md#where-losses-are-counted",
    "OpenTelemetry's environment": "docs/otlp.md#opentelemetrys-own-environment",
    "OpenTelemetry's spans": "docs/opentelemetry.md",
    "options": "docs/configuration.md",
    "OTLP": "docs/otlp.md",
    "outgoing requests": "docs/propagation.md#outgoing-requests",
    "privacy": "docs/privacy.md",
    "several processes": "docs/propagation.md#work-that-outlives-its-request-pools-forks",
    "starting a collector": "docs/collector.md#how-it-starts",
    "statuses and retries": "docs/delivery.md",
    "stopping a collector": "docs/collector.md#leaving",
    "stored traces": "docs/delivery.md#the-outbox",
    "tests": "docs/testing.md",
    "the collector's log": "docs/operating.md#log-lines",
    "the folder": "docs/queue.md#the-folder",
    "the old names": "docs/migrating.md#from-epsagon",
    "tracing": "docs/get-started.md",
    "trimming": "docs/trimming.md",
    "what run traces": "docs/run.md#what-traces-what",
}


def see(about: str) -> str:
    """Return the end of a message: the address of the page on one of the topics above."""
    return f"; see {ADDRESS}{PAGES[about]}"
