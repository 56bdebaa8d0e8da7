"""The backend's HTTP: its routes, and what every request passes and every answer carries.

Requests are served by one event loop; checking a body and SQLite run in threads, so one large trace does not hold up
the others.
"""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epsagon_fast.backend.access import LOGIN, Access
from epsagon_fast.backend.answers import HANDLERS, misdirected, parting
from epsagon_fast.backend.api import Api
from epsagon_fast.backend.hosts import Hosts
from epsagon_fast.backend.intake import EpsagonIntake
from epsagon_fast.backend.live import Live
from epsagon_fast.backend.otlp_intake import OtlpIntake
from epsagon_fast.backend.pages import rendering
from epsagon_fast.backend.pages.listing import Listing
from epsagon_fast.backend.pages.login import Login
from epsagon_fast.backend.pages.operations import Operations
from epsagon_fast.backend.pages.request import RequestPages
from epsagon_fast.backend.store import Store

# As much as all filters together may have.
_MAX_QUERY_BYTES = 32 * 1024

# Only what this backend serves itself, no script or style in a page, and no frame around one: what a trace says could
# do nothing even if it were not escaped.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    # A browser that guesses might take a trace for a page.
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def application(store: Store, hosts: Hosts, access: Access, live: Live) -> ASGIApp:
    """Return the ASGI application that keeps its traces in `store`. Closing the store is left to the caller.

    hosts: a request for another one is refused. access: who may come in. live: tells pages what has come.
    """
    app = Starlette(routes=_routes(store, access, live), exception_handlers=HANDLERS)

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.update(_HEADERS)
                # A browser would guess, and show a page with the script of an older version.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await (_refusal(scope, hosts, access) or app)(scope, receive, send_guarded)

    return gate


def _refusal(scope: Scope, hosts: Hosts, access: Access) -> Response | None:
    asked_for = Headers(scope=scope).getlist("host")
    if len(asked_for) != 1 or not hosts.hold(asked_for[0]):
        return misdirected(asked_for)
    if len(scope["query_string"]) > _MAX_QUERY_BYTES:
        return parting(f"a query may have {_MAX_QUERY_BYTES} bytes at most", 414)
    return access.refusal(scope)


def _routes(store: Store, access: Access, live: Live) -> list[Route | Mount]:
    intake, api, listing, login = EpsagonIntake(store, live), Api(store), Listing(store, live), Login(access)
    requests = RequestPages(store)
    return [
        _route("/", POST=intake.take, GET=listing.show),
        _route("/v1/traces", POST=OtlpIntake(store, live).take),
        _route("/live", GET=listing.stream),
        _route("/traces", GET=api.page),
        # A path: an Idempotency-Key may hold slashes.
        _route("/traces/{trace_id:path}", GET=api.trace),
        _route("/healthz", GET=api.health),
        _route(LOGIN, GET=login.ask, POST=login.take),
        _route("/requests/{request_id:path}", GET=requests.show),
        _route("/nodes/{request_id:path}", GET=requests.nodes),
        _route("/event/{request_id:path}", GET=requests.event),
        _route("/find/{request_id:path}", GET=requests.find),
        _route("/copy/{request_id:path}", GET=requests.copy),
        _route("/operations", GET=Operations(store).show),
        Mount("/static", StaticFiles(directory=rendering.HERE / "static")),
    ]


def _route(path: str, **endpoints: Callable[[Request], Awaitable[Response]]) -> Route:
    async def endpoint(request: Request) -> Response:
        return await endpoints[request.method](request)

    route = Route(path, endpoint)
    # Starlette adds HEAD to every GET.
    route.methods = {*endpoints}
    return route
