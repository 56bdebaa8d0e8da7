"""The backend's HTTP: its routes.

Requests are served by one event loop; checking a body and SQLite run in threads, so one large trace does not hold up
the others.
"""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from epsagon_fast.backend.answers import HANDLERS, misdirected
from epsagon_fast.backend.api import Api
from epsagon_fast.backend.hosts import Hosts
from epsagon_fast.backend.intake import Intake
from epsagon_fast.backend.store import Store


def application(store: Store, hosts: Hosts) -> ASGIApp:
    """Return the ASGI application that keeps its traces in `store`. Closing the store is left to the caller.

    hosts: a request for another one is refused.
    """
    intake, api = Intake(store), Api(store)
    app = Starlette(
        routes=[
            _route("/", "POST", intake.take),
            _route("/traces", "GET", api.page),
            # A path: an Idempotency-Key may hold slashes.
            _route("/traces/{trace_id:path}", "GET", api.trace),
            _route("/healthz", "GET", api.health),
        ],
        exception_handlers=HANDLERS,
    )

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        asked_for = Headers(scope=scope).getlist("host")
        known = len(asked_for) == 1 and hosts.hold(asked_for[0])
        await (app if known else misdirected(asked_for))(scope, receive, send)

    return gate


def _route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, endpoint, methods=[method])
    # Starlette adds HEAD to every GET.
    route.methods = {method}
    return route
