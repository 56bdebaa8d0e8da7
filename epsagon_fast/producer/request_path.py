"""Where a web request's trace keeps what it knows, compiled or in plain Python.

It is compiled because a usual request is answered in C, where each attribute of a class in Python costs a look-up.
"""

from epsagon_fast.compiled import COMPILED, implementation
from epsagon_fast.hints import TYPE_CHECKING

from .fast_path import PureFastPath

__all__ = ["PureRequestPath", "RequestPath"]


class PureRequestPath(PureFastPath):
    """The attributes of a request. web/request.py and web/wsgi_request.py, in integrations, explain them."""

    __slots__ = (
        *("method", "path", "status", "reason", "request_bytes", "response_bytes", "route", "client_closed", "notes"),
        *("_answered_ns", "_is_told"),
        # Of a WSGI request.
        *("_environ", "_script_name", "_mount", "_is_served", "_start_response", "_server_write", "_headers"),
        *("_request_body", "_response_body", "_is_begun", "_has_body"),
    )


if TYPE_CHECKING or implementation("add_event") == COMPILED:
    from epsagon_fast.producer._fast_path import RequestPath
else:
    RequestPath = PureRequestPath
