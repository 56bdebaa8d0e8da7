"""The same small answer from frameworks and applications without one, over WSGI and ASGI; for steps.py."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from shops import OURS, hello
from web import environ_of

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


def flask() -> Any:
    from flask import Flask

    app = Flask("hello")
    app.get("/items/<number>")(lambda number: "hello")
    return app.wsgi_app


def django() -> Any:
    from django.core.wsgi import get_wsgi_application

    _set_up_django()
    return get_wsgi_application()


def django_asgi() -> Any:
    from django.core.asgi import get_asgi_application

    _set_up_django()
    return get_asgi_application()


def _set_up_django() -> None:
    import sys

    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    sys.modules["hello_urls"] = urls = type(sys)("hello_urls")
    urls.urlpatterns = [path("items/<number>", lambda request, number: HttpResponse(b"hello"))]
    settings.configure(ROOT_URLCONF="hello_urls", ALLOWED_HOSTS=["*"], SECRET_KEY="s", MIDDLEWARE=[])


def generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    hello(environ, start_response)
    yield b"hello"


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")],
        }
    )
    await send({"type": "http.response.body", "body": b"hello"})


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/items/{number}", answer)])


WSGI: Final[dict[str, Callable[[], Any]]] = {
    "a list": lambda: hello,
    "a generator": lambda: generator,
    "Flask": flask,
    "Django": django,
}
ASGI: Final[dict[str, Callable[[], Any]]] = {"ASGI": lambda: asgi, "Starlette": starlette, "Django, ASGI": django_asgi}


def made(name: str, tracer: str = "") -> Any:
    """Return an application, in our middleware if the tracer is OURS."""
    app = {**WSGI, **ASGI}[name]()
    if tracer == OURS:
        from epsagon_fast.integrations import asgi as for_asgi
        from epsagon_fast.integrations import wsgi as for_wsgi

        return (for_asgi if name in ASGI else for_wsgi).TracingMiddleware(app)
    return app


async def _receive() -> Scope:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Scope) -> None:
    pass


def drive(app: Callable[..., Any], count: int, first: int = 0) -> None:
    """Ask an ASGI application as uvicorn does, without an event loop: nothing here waits."""
    for number in range(first, first + count):
        scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1"}
        scope |= {"server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 51234), "scheme": "http", "root_path": ""}
        path = f"/items/{number}"
        scope |= {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"page=2", "state": {}}
        scope["headers"] = [
            (name[5:].lower().replace("_", "-").encode(), value.encode())
            for name, value in environ_of(number).items()
            if name.startswith("HTTP_")
        ]
        try:
            app(scope, _receive, _send).send(None)
        except StopIteration:
            continue
        raise RuntimeError("the application waits")
