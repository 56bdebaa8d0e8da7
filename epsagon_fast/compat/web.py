"""`flask_wrapper`: a Flask application whose requests are traced, by the WSGI middleware."""

from collections.abc import Iterable
from typing import Any

from epsagon_fast.integrations.choices import ENDPOINTS
from epsagon_fast.integrations.wsgi import TracingMiddleware

from .options import ignore


def flask_wrapper(app: Any, ignored_endpoints: Iterable[str] | None = None) -> Any:
    """Trace the requests of a Flask application, and return it. A second call changes nothing.

    ignored_endpoints: URL paths that are not traced.
    """
    ignore(ENDPOINTS, "ignored_endpoints", ignored_endpoints)
    if not isinstance(app.wsgi_app, TracingMiddleware):
        app.wsgi_app = TracingMiddleware(app.wsgi_app)
    return app
