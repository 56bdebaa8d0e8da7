"""ASGI applications whose answers are compared, by path: a coroutine `(scope, receive, send)` each."""

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import create_task_group
from asgiref.wsgi import WsgiToAsgi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Mount, Route

from epsagon_fast.integrations.wsgi import TracingMiddleware

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

APPS: dict[str, Application] = {}
# For websockets.
TALKS: dict[str, Application] = {}

PLAIN = (b"content-type", b"text/plain")
# What two servers cannot have in common.
OWN = {"client", "server", "state", "headers", "asgi", "extensions"}


def at(path: str, served: dict[str, Application] = APPS) -> Callable[[Any], Any]:
    """Serve an application at a path."""

    def keep(app: Any) -> Any:
        served[path] = app
        return app

    return keep


def talks(path: str) -> Callable[[Any], Any]:
    """Serve an application for websockets at a path."""
    return at(path, TALKS)


@at("/hello")
async def hello(scope: Message, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [PLAIN, *headers], **more}


def piece(body: bytes, **more: Any) -> Message:
    return {"type": "http.response.body", "body": body, **more}


@at("/streamed")
async def streamed(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    for each in (b"a", b"", b"b"):
        await send(piece(each, more_body=True))
    await send(piece(b""))


@at("/headers/iterator")
async def headers_iterator(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": iter([PLAIN, (b"x-other", b"1")])})
    await send(piece(b"hello"))


@at("/none")
async def none(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


@at("/unavailable")
async def unavailable(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(503))
    await send(piece(b"later"))


@at("/echo")
async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the body, and with what the application sees of its request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    seen = {name: repr(value) for name, value in scope.items() if not name.startswith("epsagon") and name not in OWN}
    await send(start())
    await send(piece(json.dumps([body.decode(), type(scope).__name__, seen], sort_keys=True).encode()))


@at("/listens")
async def listens(scope: Message, receive: Receive, send: Send) -> None:
    """Wait for the client's end while it answers, as frameworks do."""

    async def listen() -> None:
        await receive()

    await listen()
    async with create_task_group() as tasks:
        tasks.start_soon(listen)
        await send(start())
        await send(piece(b"hello"))
        tasks.cancel_scope.cancel()


@at("/silent")
async def silent(scope: Message, receive: Receive, send: Send) -> None:
    """Return without an answer."""


@at("/unfinished")
async def unfinished(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"9")))
    await send(piece(b"half", more_body=True))


@at("/fails")
async def fails(scope: Message, receive: Receive, send: Send) -> None:
    raise ValueError("before the answer")


@at("/fails/late")
async def fails_late(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"9")))
    await send(piece(b"half", more_body=True))
    raise ValueError("in the middle")


@at("/fails/after")
async def fails_after(scope: Message, receive: Receive, send: Send) -> None:
    await hello(scope, receive, send)
    raise ValueError("after the answer")


@at("/starts/twice")
async def starts_twice(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    await send(piece(b"begun", more_body=True))
    await send(start(500))


@at("/nonsense")
async def nonsense(scope: Message, receive: Receive, send: Send) -> None:
    refusals = []
    for message in (None, {}, {"type": "no such"}):
        try:
            await send(message)  # type: ignore[arg-type]
            refusals.append("taken")
        except Exception as error:  # each server has its own
            refusals.append(type(error).__name__)
    await send(start())
    await send(piece(repr(refusals).encode()))


@at("/trailers")
async def trailers(scope: Message, receive: Receive, send: Send) -> None:
    can = "http.response.trailers" in (scope.get("extensions") or {})
    await send(start(200, (b"trailer", b"x-sum"), **({"trailers": True} if can else {})))
    await send(piece(b"hello"))
    if can:
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"5")], "more_trailers": False})


@at("/hints")
async def hints(scope: Message, receive: Receive, send: Send) -> None:
    if "http.response.early_hint" in (scope.get("extensions") or {}):
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    await hello(scope, receive, send)


@at("/file")
async def file(scope: Message, receive: Receive, send: Send) -> None:
    if "http.response.pathsend" in (scope.get("extensions") or {}):
        await send(start(200, (b"content-length", str(os.path.getsize(__file__)).encode())))
        await send({"type": "http.response.pathsend", "path": os.path.abspath(__file__)})
    else:
        await hello(scope, receive, send)


@at("/mounted/a.css")
@at("/mounted/acme/t/z/5")
@at("/mounted/nowhere")
async def mounted(scope: Message, receive: Receive, send: Send) -> None:
    await SITE(scope, receive, send)


@at("/wsgi")
async def in_wsgi(scope: Message, receive: Receive, send: Send) -> None:
    """Hand the request on to a WSGI application with a middleware of its own."""
    await LEGACY(scope, receive, send)


async def item(request: Request) -> Response:
    return StreamingResponse(iter([request.path_params["key"].encode(), str(request.url_for("item", **ITEM)).encode()]))


def legacy(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]


ITEM = {"tenant": "acme", "key": "5"}
INNER = [Mount("/{tenant}/t", routes=[Route("/z/{key}", item, name="item")], name=None), Mount("/a.css", app=hello)]
SITE = Starlette(routes=[Mount("/mounted", routes=INNER)])
LEGACY = WsgiToAsgi(TracingMiddleware(legacy) if os.environ.get("ANSWERS_TRACED") == "1" else legacy)  # type: ignore[no-untyped-call]


@talks("/ws/echo")
async def ws_echo(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-other", b"1")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": 2 * message["text"]})


@talks("/ws/refuse")
async def ws_refuse(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008})


@talks("/ws/answer")
async def ws_answer(scope: Message, receive: Receive, send: Send) -> None:
    """Answer in place of a websocket, where the server can."""
    await receive()
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [PLAIN]})
        await send({"type": "websocket.http.response.body", "body": b"who?"})
    else:
        await send({"type": "websocket.close"})


@talks("/ws/close")
async def ws_close(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "bytes": b"bye"})
    await send({"type": "websocket.close", "code": 3001, "reason": "done"})


@talks("/ws/fails")
async def ws_fails(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    raise ValueError("in a websocket")


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the application at the request's path."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await (APPS if scope["type"] == "http" else TALKS)[scope["path"]](scope, receive, send)
