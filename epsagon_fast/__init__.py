"""A tracer for many processes: `import epsagon_fast as epsagon`. See README.md."""

import sys

from epsagon_fast.version import __version__

# A collector, which queue/launch.py starts with this option, adds to no trace. Without the producer it is there in two
# thirds of the time, and smaller.
if "epsagon_fast_collector" not in getattr(sys, "_xoptions", ()):
    from epsagon_fast.config import Config
    from epsagon_fast.producer.attached import attach
    from epsagon_fast.producer.binding import bind
    from epsagon_fast.producer.context import Ids
    from epsagon_fast.producer.correlation import current_ids
    from epsagon_fast.producer.current import (
        add_error,
        add_event,
        add_exception,
        add_exception_type_and_message,
        add_label,
        create_global_tracer,
        create_tracer,
        error,
        global_tracer,
        global_tracer_config,
        label,
        stop_global_tracer,
    )
    from epsagon_fast.producer.handle import Handle
    from epsagon_fast.producer.lambda_timeout import get_lambda_timeout_threshold_ms
    from epsagon_fast.producer.lifecycle import aflush, flush, init, shutdown
    from epsagon_fast.producer.scope import event, trace
    from epsagon_fast.producer.tracer import Tracer
    from epsagon_fast.protocol import ErrorCode, Outcome

__all__ = [
    "Config",
    "ErrorCode",
    "Handle",
    "Ids",
    "Outcome",
    "Tracer",
    "__version__",
    "add_error",
    "add_event",
    "add_exception",
    "add_exception_type_and_message",
    "add_label",
    "aflush",
    "attach",
    "bind",
    "create_global_tracer",
    "create_tracer",
    "current_ids",
    "error",
    "event",
    "flush",
    "get_lambda_timeout_threshold_ms",
    "global_tracer",
    "global_tracer_config",
    "init",
    "label",
    "shutdown",
    "stop_global_tracer",
    "trace",
]
