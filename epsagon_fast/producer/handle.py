"""The handle of a trace, with which another process adds to it; see attached.py."""

from epsagon_fast.frozen import frozen
from epsagon_fast.protocol import LOOSE, STRIP

from .context import TraceContext


@frozen
class Handle:
    """All that another process needs to add to a trace. It is picklable and holds no secret.

    trace_id: 32 hex digits. runtime_dir: the folder where the trace is open; "" if it is not recorded. context: the
    trace context that the trace continues. parent_id: the event in whose block the handle was made; None: the runner.
    The other fields come from the opener's config, which counts for the trace.
    """

    trace_id: str
    runtime_dir: str
    max_trace_size_bytes: int
    metadata_only: bool
    debug: bool
    context: TraceContext | None = None
    ignored_keys: tuple[str, ...] = ()
    parent_id: str | None = None
    trimming: str = STRIP
    default_ignored_keys: bool = True
    masking: str = LOOSE
    # Whether its metadata keep their types.
    keeps_types: bool = False
    privacy: str | None = None
    allowed_keys: tuple[str, ...] = ()
    allowed_exceptions: tuple[str, ...] = ()
