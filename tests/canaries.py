"""A program that records texts wherever an application may have them; test_privacy.py looks where they turn up.

Each text is `canary-NAME-`, and a NAME says who has recorded it.
"""

import asyncio
import contextlib
import io
import logging
import os
import sqlite3
import sys
import tempfile
from typing import Any

import celery
import flask
import urllib3
from celery.contrib.testing.worker import start_worker
from opentelemetry import trace as spans
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

import epsagon_fast as epsagon
from epsagon_fast.integrations import celery as tasks
from epsagon_fast.integrations import logging as lines
from epsagon_fast.integrations import opentelemetry
from epsagon_fast.integrations import urllib3 as client
from epsagon_fast.integrations.asgi import TracingMiddleware as Asgi
from epsagon_fast.integrations.wsgi import TracingMiddleware as Wsgi

BODY = b'{"note": "canary-body-", "password": "canary-masked-"}'


def answer(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [BODY]


def ask_wsgi() -> None:
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/reset/canary-path-", "QUERY_STRING": "q=canary-query-"}
    environ |= {"HTTP_REFERER": "/a?canary-header-", "HTTP_COOKIE": "canary-cookie-", "CONTENT_LENGTH": str(len(BODY))}
    environ |= {"HTTP_HOST": "shop", "SERVER_NAME": "shop", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    body = Wsgi(answer)({**environ, "wsgi.input": io.BytesIO(BODY), "wsgi.errors": io.StringIO()}, lambda *_: None)
    list(body)
    getattr(body, "close", lambda: None)()


async def served(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask_asgi() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/b/canary-path-", "query_string": b"q=canary-query-"}
    await Asgi(served)({**scope, "headers": [(b"host", b"shop"), (b"referer", b"canary-header-")]}, receive, send)


def ask_outside() -> None:
    # Port 1 is closed.
    with urllib3.PoolManager(retries=False) as pool, contextlib.suppress(urllib3.exceptions.HTTPError):
        pool.request("GET", "http://127.0.0.1:1/c/canary-path-?q=canary-query-", headers={"X-A": "canary-header-"})


def pay(note: str) -> str:
    logging.getLogger("shop").error("canary-log-")
    raise ValueError("canary-message-")


def run_task() -> None:
    # A worker in a thread, with a real broker, as its own command has it.
    with tempfile.TemporaryDirectory() as folder:
        places = {f"{name}_folder": os.path.join(folder, name) for name in ("control", "processed")}
        app = celery.Celery("shop", broker="filesystem://", backend="cache+memory://")
        app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, **places}
        app.conf.broker_transport_options["polling_interval"] = 0.02
        app.conf.worker_hijack_root_logger = False
        tasks.instrument(app)
        task = app.task(name="pay")(pay)
        # Sent before the worker starts, which may read a message's file while it is written.
        result = task.delay("canary-arguments-")
        with start_worker(app, perform_ping_check=False, shutdown_timeout=30):
            result.get(timeout=30, propagate=False)


def use_instrumentations() -> None:
    opentelemetry.install()
    SQLite3Instrumentor().instrument()
    app = flask.Flask("shop")
    FlaskInstrumentor().instrument_app(app)

    @app.route("/<path:name>")
    def ask(name: str) -> str:
        database = sqlite3.connect(":memory:")
        database.cursor().execute("SELECT 'canary-instrumented statement-', ?", ["canary-parameter-"])
        database.close()
        return "done"

    app.test_client().get("/canary-instrumented path-?q=canary-instrumented query-", headers={"A": "canary-header-"})


def make_spans() -> None:
    attributes = {"url.full": "http://h/canary-attributes-", "db.statement": "canary-statement-"}
    with spans.get_tracer("lib").start_as_current_span("GET /d/canary-span name-", attributes=attributes) as span:
        span.add_event("note", {"text": "canary-attributes-"})
        span.record_exception(ValueError("canary-message-"))


@epsagon.trace
def told(note: str) -> None:
    epsagon.label("note", "canary-label-")
    with epsagon.event("work") as event:
        event.metadata["note"] = "canary-metadata-"
        event.metadata["password"] = "canary-masked-"
    try:
        try:
            raise KeyError("canary-cause-")
        except KeyError as cause:
            raise ValueError("canary-message-") from cause
    except ValueError as error:
        local = "canary-local-".upper().lower()  # noqa: F841
        epsagon.error(error)


epsagon.init()
client.instrument()
lines.instrument()
logging.basicConfig(stream=sys.stderr)
ask_wsgi()
asyncio.run(ask_asgi())
with epsagon.trace("calls"):
    ask_outside()
run_task()
use_instrumentations()
make_spans()
told("canary-arguments-")
epsagon.shutdown(30)
# Its ring is there as long as it lives.
print("done", flush=True)
input()
