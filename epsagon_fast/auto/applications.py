"""Where a program's WSGI or ASGI application is taken, so that a middleware of ours comes around it.

The rule: the server wraps the application that it is given, so any application is traced, whatever it is written with.
Behind a server that is not written in Python (uWSGI, mod_wsgi) or not known here, the framework's own class does it.
Where both do, the outer one traces; the inner one finds its mark in the environ or the scope.
"""

import functools
import inspect
from copy import copy
from importlib import import_module
from typing import Any, Final, NamedTuple

from epsagon_fast.integrations.web.request import KEY
from epsagon_fast.integrations.wrapping import Method, Wrapped

ASGI: Final = "epsagon_fast.integrations.asgi"
WSGI: Final = "epsagon_fast.integrations.wsgi"


class Server(NamedTuple):
    """A function that a server gives its application to, and the parameter that this is."""

    name: str
    module: str
    function: str
    parameter: str
    kind: str


SERVERS: Final = (
    Server("cheroot", "cheroot.wsgi", "Server.__init__", "wsgi_app", WSGI),
    Server("daphne", "daphne.server", "Server.__init__", "application", ASGI),
    Server("gevent", "gevent.pywsgi", "WSGIServer.__init__", "application", WSGI),
    Server("granian", "granian.asgi", "_callback_wrapper", "callback", ASGI),
    Server("granian", "granian.wsgi", "_callback_wrapper", "callback", WSGI),
    Server("hypercorn", "hypercorn.app_wrappers", "ASGIWrapper.__init__", "app", ASGI),
    Server("hypercorn", "hypercorn.app_wrappers", "WSGIWrapper.__init__", "app", WSGI),
    Server("waitress", "waitress.server", "BaseWSGIServer.__init__", "application", WSGI),
    Server("werkzeug", "werkzeug.serving", "BaseWSGIServer.__init__", "app", WSGI),
    # Django's runserver too.
    Server("wsgiref", "wsgiref.simple_server", "WSGIServer.set_app", "application", WSGI),
)


class Framework(NamedTuple):
    """A class whose objects are applications."""

    name: str
    module: str
    attribute: str
    kind: str


FRAMEWORKS: Final = (
    Framework("bottle", "bottle", "Bottle", WSGI),
    Framework("django", "django.core.handlers.asgi", "ASGIHandler", ASGI),
    Framework("django", "django.core.handlers.wsgi", "WSGIHandler", WSGI),
    Framework("falcon", "falcon.app", "App", WSGI),
    Framework("falcon", "falcon.asgi.app", "App", ASGI),
    Framework("flask", "flask.app", "Flask", WSGI),
    Framework("litestar", "litestar.app", "Litestar", ASGI),
    Framework("pyramid", "pyramid.router", "Router", WSGI),
    Framework("quart", "quart.app", "Quart", ASGI),
    # FastAPI's class is derived from it.
    Framework("starlette", "starlette.applications", "Starlette", ASGI),
)


def serve(server: Server) -> None:
    """Let a server that was just imported wrap each application that it is given."""
    *path, name = server.function.split(".")
    owner: Any = functools.reduce(getattr, path, import_module(server.module))
    Wrapped(owner, name, functools.partial(_with_argument, server)).put_on()


def answer(framework: Framework) -> None:
    """Let the objects of a framework's class trace what they are asked, unless that is traced already."""
    owner = getattr(import_module(framework.module), framework.attribute)
    Wrapped(owner, "__call__", _traced_calls if framework.kind == WSGI else _traced_coroutines).put_on()


def around(app: Any, kind: str) -> Any:
    """Return a middleware around an application, or the application itself if it is one or cannot be called."""
    middleware = import_module(kind).TracingMiddleware
    return app if isinstance(app, middleware) or not callable(app) else middleware(app)


def _with_argument(server: Server, original: Method, _: Wrapped) -> Method:
    place = list(inspect.signature(original).parameters).index(server.parameter)

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place:
            args = (*args[:place], around(args[place], server.kind), *args[place + 1 :])
        elif server.parameter in kwargs:
            kwargs[server.parameter] = around(kwargs[server.parameter], server.kind)
        return original(*args, **kwargs)

    return call


def _traced_calls(original: Method, _: Wrapped) -> Method:
    middleware = _Middleware(original, WSGI)

    def call(app: Any, environ: Any, start_response: Any) -> Any:
        way = functools.partial(original, app) if KEY in environ else middleware.around(app)
        return way(environ, start_response)

    return call


def _traced_coroutines(original: Method, _: Wrapped) -> Method:
    middleware = _Middleware(original, ASGI)

    # Servers ask whether this is a coroutine function.
    async def call(app: Any, scope: Any, receive: Any, send: Any) -> None:
        way = functools.partial(original, app) if KEY in scope else middleware.around(app)
        await way(scope, receive, send)

    return call


class _Middleware:
    """A middleware of ours around the applications of one class: each request has a copy.

    It keeps nothing about an application. Falcon's take no weak reference, and one that compares itself has no hash.
    """

    def __init__(self, original: Method, kind: str) -> None:
        self._original = original
        self._made = functools.cache(lambda: around(original, kind))

    def around(self, app: Any) -> Any:
        """Return the middleware around an application's own call."""
        middleware = copy(self._made())
        middleware.app = functools.partial(self._original, app)
        return middleware
