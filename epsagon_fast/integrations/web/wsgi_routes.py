"""Which pattern a request's path matched, as Flask and Django know it; never the text that matched."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from .wsgi_bodies import attribute

# Werkzeug's, which mounts applications at fixed paths.
DISPATCHER: Final = "werkzeug.middleware.dispatcher"
# Where Flask has its request while an answer begins, and the module that is there if Django is.
FLASK: Final = "werkzeug.request"
DJANGO: Final = "django.http.response"


def flask_rule(environ: dict[str, Any]) -> str:
    """Return the pattern of Flask's request, "" if it matched none."""
    return str(getattr(getattr(environ[FLASK], "url_rule", None), "rule", ""))


def django_route(body: object) -> str:
    """Return the pattern of Django's request, "" if there is none.

    The request hangs on its response by what there is to close; the response is the body, or closes the file that is.
    """
    for response in _responses(body):
        for closer in attribute(response, "_resource_closers") or ():
            match = getattr(getattr(closer, "__self__", None), "resolver_match", None)
            if match is not None:
                return str(match.route)
    return ""


def mounted_at(before: str, now: str) -> str:
    """Return the path at which a dispatcher that is running mounted the application.

    `before`, `now`: SCRIPT_NAME as the request came and as it is. What else lengthens it may take any text from the
    path, such as a user's name, so only what is written in a dispatcher counts: "" otherwise.
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
