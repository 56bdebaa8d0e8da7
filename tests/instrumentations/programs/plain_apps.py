"""Applications without a framework, and one of Flask. As a program: the first, on the port that it is given."""

import sys
from wsgiref.simple_server import make_server

from flask import Flask

flask = Flask(__name__)


@flask.get("/<path:path>")
def answer(path: str) -> str:
    return "hello"


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), wsgi).serve_forever()
