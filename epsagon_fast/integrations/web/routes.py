"""Which pattern a request's path matched, as each framework knows it: never the text that matched.

Litestar, Starlette and FastAPI write it into the ASGI scope. Flask keeps its request in the WSGI environ. Django keeps
the match on its request, which hangs on the response: under WSGI the response is the body, under ASGI it is found in
the frames that are calling `send`.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, Final

from .objects import attribute

# How many applications inside each other are looked through (one may hold itself), and how many frames between
# Django's answer and our `send`.
MOST_LEVELS: Final = 16
# Modules that are loaded where Django answers.
DJANGO: Final = "django.http.response"
DJANGO_ASGI: Final = "django.core.handlers.asgi"
# The key in a WSGI environ under which Flask has its request while an answer begins.
FLASK: Final = "werkzeug.request"
# Werkzeug's module that mounts applications at fixed paths.
DISPATCHER: Final = "werkzeug.middleware.dispatcher"


def asgi_route(scope: Mapping[str, Any], host: str) -> str:
    """Return the pattern that stands in an ASGI scope, "" if none does. `host`: of the request; a router may use it.

    Starlette and FastAPI write the innermost route. Of the applications mounted around it they write only the text that
    these took off the path, so the mounts are looked up again by that text, from the outermost router on.
    """
    if "path_template" in scope:
        return str(scope["path_template"])  # Litestar
    if "router" not in scope and "route" not in scope:
        return ""
    own = _own_pattern(scope)
    # The first mount writes this key. Before that the root path is the server's or the application's own.
    if "app_root_path" not in scope:
        return own
    taken = scope["root_path"][len(scope["app_root_path"]) :]
    name = host.partition(":")[0].lower()
    mounts = next(_mounts(_routes_in(scope.get("router")), f"{taken}/", name), None)
    return "" if mounts is None else mounts + own


def flask_route(environ: dict[str, Any]) -> str:
    """Return the pattern of Flask's request, "" if it matched none."""
    return str(getattr(getattr(environ[FLASK], "url_rule", None), "rule", ""))


def django_route(body: object) -> str:
    """Return the pattern of Django's request under WSGI, "" if there is none.

    The request hangs on its response, among the things to close. The response is the body, or closes the file that is.
    """
    return next(filter(None, map(_resolved, _responses(body))), "")


def django_route_in_calls() -> str:
    """Return the pattern of the request that Django answers just now in the calling task; "" if it answers none.

    Under ASGI only Django's own answer knows its request, so the answer is looked up in the frames that call us.
    """
    handlers = sys.modules.get(DJANGO_ASGI)
    code = getattr(getattr(getattr(handlers, "ASGIHandler", None), "send_response", None), "__code__", None)
    frame = sys._getframe(1) if code is not None else None
    for _ in range(MOST_LEVELS):
        if frame is None:
            break
        if frame.f_code is code:
            return _resolved(frame.f_locals.get("response"))
        frame = frame.f_back
    return ""


def mounted_at(before: str, now: str) -> str:
    """Return the path at which a dispatcher that is running has mounted the application, "" if none has.

    `before`, `now`: SCRIPT_NAME as the request came and as it is. Other code that lengthens it may take any text from
    the path, such as a user's name. So only a path that a dispatcher was configured with counts.
    """
    if now == before or not now.startswith(before) or DISPATCHER not in sys.modules:
        return ""
    mounts = [mount for frame in _dispatching(sys._getframe(1)) for mount in frame.f_locals["self"].mounts if mount]
    rest = now[len(before) :]
    while rest:
        mount = next((mount for mount in mounts if rest.startswith(mount)), None)
        if mount is None:
            return ""
        rest = rest[len(mount) :]
    return now[len(before) :]


def _own_pattern(scope: Mapping[str, Any]) -> str:
    """Return what the innermost route says of itself; "" if that is a mount."""
    route = scope.get("route")
    # FastAPI's included routers leave their routes as they are, and put the whole pattern here.
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    if included is not None and (route is None or route is getattr(included, "original_route", None)):
        route = getattr(included, "starlette_route", None) or included
    return "" if hasattr(route, "routes") else str(getattr(route, "path", ""))


def _mounts(routes: Iterable[Any], path: str, host: str, levels: int = MOST_LEVELS) -> Iterator[str]:
    """Yield the patterns of mounts in each other that together take all of `path` but its last slash."""
    if path == "/":
        yield ""
    for route in routes if levels else ():
        if hasattr(route, "host_regex"):
            if route.host_regex.match(host):
                yield from _mounts(_routes_in(route), path, host, levels - 1)
        elif hasattr(route, "effective_candidates"):  # FastAPI's included router
            found = (getattr(each, "starlette_route", None) or each for each in route.effective_candidates())
            yield from _mounts(found, path, host, levels - 1)
        elif hasattr(route, "routes") and (match := route.path_regex.match(path)):
            rest = path[match.start("path") - 1 :]
            yield from (route.path + inner for inner in _mounts(_routes_in(route), rest, host, levels - 1))


def _routes_in(app: Any) -> Iterable[Any]:
    """Return the routes of a router, an application or a mount, through the middlewares around it."""
    for _ in range(MOST_LEVELS):
        if app is None or getattr(app, "routes", None):
            break
        app = getattr(app, "app", None)
    return getattr(app, "routes", None) or ()


def _resolved(response: object) -> str:
    """Return the pattern of a Django response's request, which is among what the response closes."""
    for closer in attribute(response, "_resource_closers") or ():
        match = getattr(getattr(closer, "__self__", None), "resolver_match", None)
        if match is not None:
            return str(match.route)
    return ""


def _responses(body: object) -> Iterator[object]:
    yield body
    for name in ("filelike", "file"):
        yield attribute(attribute(attribute(body, name), "close"), "__self__")
    yield attribute(attribute(body, "close"), "__self__")


def _dispatching(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_globals.get("__name__") == DISPATCHER:
            yield frame
        frame = frame.f_back
