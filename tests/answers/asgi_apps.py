"""ASGI applications whose answers are compared, by path: a coroutine `(scope, receive, send)` each."""

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

APPS: dict[str, Callable[[Message, Receive, Send], Awaitable[None]]] = {}


def at(path: str) -> Callable[[Any], Any]:
    """Serve an application at a path."""

    def keep(app: Any) -> Any:
        APPS[path] = app
        return app

    return keep


@at("/hello")
async def hello(scope: Message, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the application at the request's path."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await APPS[scope["path"]](scope, receive, send)
