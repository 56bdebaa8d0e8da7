"""A processor for structlog: each entry gets `trace_id`, `span_id` and `http_trace_id` where its work is recorded.

import structlog
from epsagon_fast.integrations.structlog import add_ids

structlog.configure(processors=[add_ids, structlog.processors.JSONRenderer()])
"""

from collections.abc import MutableMapping
from typing import Any

from epsagon_fast.producer.correlation import plain_ids


def add_ids(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the ids of the current trace; what the entry has under these names stays."""
    ids = plain_ids()
    if ids is not None:
        trace_id, span_id, http_trace_id = ids
        event_dict.setdefault("trace_id", trace_id)
        event_dict.setdefault("span_id", span_id)
        event_dict.setdefault("http_trace_id", http_trace_id)
    return event_dict
