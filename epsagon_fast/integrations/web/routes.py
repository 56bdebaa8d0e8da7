"""Which pattern a request's path matched, as frameworks write it into the ASGI scope: never the text that it matched.

Starlette and FastAPI write the innermost route and, of the applications that are mounted around it, only the text that
they took off the path. So the mounts are looked up once more, in the outermost router, by that text.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

# Of applications in each other, one of which may hold itself, and of frames between Django's answer and our `send`.
MOST_LEVELS: Final = 16
DJANGO: Final = "django.core.handlers.asgi"


def route_of(scope: Mapping[str, Any], host: str) -> str:
    """Return the pattern, "" if none is known. `host`: of the request, which a router may ask for."""
    if "path_template" in scope:
        return str(scope["path_template"])  # Litestar
    if "router" not in scope and "route" not in scope:
        return ""
    own = _own_pattern(scope)
    # Written by the first mount. Before it, an application may have set a root path of its own.
    if "app_root_path" not in scope:
        return own
    taken = scope["root_path"][len(scope["app_root_path"]) :]
    name = host.partition(":")[0].lower()
    mounts = next(_mounts(_routes_in(scope.get("router")), f"{taken}/", name), None)
    return "" if mounts is None else mounts + own


def django_route() -> str:
    """Return the pattern of the request that Django answers just now in the calling task; "" if it answers none."""
    handlers = sys.modules.get(DJANGO)
    # Its answer knows the request; nothing that an ASGI application is given does.
    code = getattr(getattr(getattr(handlers, "ASGIHandler", None), "send_response", None), "__code__", None)
    frame = sys._getframe(1) if code is not None else None
    for _ in range(MOST_LEVELS):
        if frame is None:
            break
        if frame.f_code is code:
            return resolved_route(frame.f_locals.get("response"))
        frame = frame.f_back
    return ""


def resolved_route(response: object) -> str:
    """Return the pattern of a Django response's request, which hangs on it by what there is to close."""
    for closer in getattr(response, "_resource_closers", ()):
        match = getattr(getattr(closer, "__self__", None), "resolver_match", None)
        if match is not None:
            return str(match.route)
    return ""


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
