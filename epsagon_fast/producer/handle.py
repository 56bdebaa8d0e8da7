"""A trace's name for other processes; see attached.py."""

from dataclasses import dataclass

from .context import TraceContext


@dataclass(frozen=True)
class Handle:
    """What another process needs to add to a trace: picklable, without any secret.

    trace_id: 32 hex digits. runtime_dir: the folder where the trace is open; "" if it is not recorded. context: what
    the trace continues. The rest is of the opener's config, which rules.
    """

    trace_id: str
    runtime_dir: str
    max_trace_size_bytes: int
    metadata_only: bool
    debug: bool
    context: TraceContext | None = None
    ignored_keys: tuple[str, ...] = ()
