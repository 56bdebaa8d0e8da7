"""The test clients of Flask, Starlette and Django, used as people use them inside `capture_traces()`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from fakes import FakeQueue
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import epsagon_fast as epsagon
from epsagon_fast.integrations import asgi, wsgi
from epsagon_fast.testing import Trace, capture_traces

pytestmark = pytest.mark.usefixtures("queue")


def told(trace: Trace) -> tuple[str, list[str]]:
    """Return the request's route and the names of what was recorded in it."""
    root = trace.tree()
    return root.event["resource"]["metadata"]["route"], [child.name for child in root.children]


@pytest.fixture
def shop() -> flask.Flask:
    app = flask.Flask("shop")

    @app.get("/orders")
    def orders() -> str:
        with epsagon.event("charge"):
            return "done"

    @app.get("/stream")
    def stream() -> flask.Response:
        def pieces() -> Iterator[str]:
            with epsagon.event("look up"):
                yield "1"
            yield "2"

        return flask.Response(pieces())

    app.wsgi_app = wsgi.TracingMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return app


def test_flask_response_that_is_read_has_its_trace(shop: flask.Flask) -> None:
    with capture_traces() as traces:
        assert shop.test_client().get("/orders").text == "done"
        assert [told(trace) for trace in traces] == [("/orders", ["charge"])]


def test_flask_response_that_is_kept_and_never_read_has_its_trace_when_the_block_ends(shop: flask.Flask) -> None:
    with capture_traces() as traces:
        response = shop.test_client().get("/orders")
        assert response.status_code == 200
    assert [told(trace) for trace in traces] == [("/orders", ["charge"])]
    # It can still be read, and is no second trace.
    assert response.text == "done"
    response.close()
    assert len(traces) == 1


def test_flask_stream_is_one_trace_with_what_its_steps_recorded(shop: flask.Flask) -> None:
    with capture_traces() as traces:
        assert shop.test_client().get("/stream").text == "12"
        assert [told(trace) for trace in traces] == [("/stream", ["look up"])]


def test_flask_responses_that_are_dropped_or_closed_have_their_traces(shop: flask.Flask) -> None:
    with capture_traces() as traces, shop.test_client() as client:
        client.get("/stream")
        with client.get("/orders"):
            pass
        assert [told(trace)[0] for trace in traces] == ["/stream", "/orders"]


def test_request_whose_application_still_works_is_left_open(shop: flask.Flask) -> None:
    traces: list[Trace] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        # As another thread would: the block ends while the application works.
        with capture_traces() as inner:
            pass
        traces.extend(inner)
        start_response("200 OK", [])
        return [b""]

    with capture_traces() as outer:
        wsgi.TracingMiddleware(app)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None)
        assert len(outer) == 1
    assert traces == []


@pytest.mark.parametrize("as_middleware", [False, True])
def test_starlette_response_has_its_trace_when_it_comes(as_middleware: bool) -> None:
    async def orders(request: Any) -> PlainTextResponse:
        with epsagon.event("charge"):
            return PlainTextResponse("done")

    async def stream(request: Any) -> StreamingResponse:
        return StreamingResponse(iter(["1", "2"]))

    app = Starlette(routes=[Route("/orders", orders), Route("/stream", stream)])
    if as_middleware:
        app.add_middleware(asgi.TracingMiddleware)
    with capture_traces() as traces, TestClient(app if as_middleware else asgi.TracingMiddleware(app)) as client:
        assert client.get("/orders").status_code == 200
        assert [told(trace) for trace in traces] == [("/orders", ["charge"])]
        assert client.get("/stream").text == "12"
        assert [told(trace)[0] for trace in traces] == ["/orders", "/stream"]


# In a Python of its own: Django has one configuration for a process.
DJANGO = """
import django
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.test import SimpleTestCase
from django.urls import path
import epsagon_fast as epsagon
from epsagon_fast.testing import capture_traces
from epsagon_fast.testing.django import TracingClient

def orders(request, number):
    with epsagon.event("charge"):
        return HttpResponse("done")

def stream(request):
    def pieces():
        with epsagon.event("look up"):
            yield "1"
        yield "2"
    return StreamingHttpResponse(pieces())

def broken(request):
    raise LookupError("no such shelf")

urlpatterns = [path("orders/<int:number>", orders), path("stream", stream), path("broken", broken)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="s", LOGGING_CONFIG=None)
django.setup()

class Shop(SimpleTestCase):
    client_class = TracingClient

    def told(self):
        return [(t.runner["resource"]["metadata"]["route"], t.runner["error_code"], str(t.tree())) for t in self.traces]

    def test_all(self):
        with capture_traces() as self.traces:
            response = self.client.get("/orders/7")
            assert (response.status_code, response.content) == (200, b"done")
            assert response.resolver_match.kwargs == {"number": 7}
            assert self.told() == [("orders/<int:number>", 0, "testserver\\n    charge")], self.told()
            response = self.client.get("/stream")
            assert response.getvalue() == b"12"
            assert self.told()[1:] == [("stream", 0, "testserver\\n    look up")], self.told()
            self.client.raise_request_exception = False
            assert self.client.get("/broken").status_code == 500
            assert self.told()[2:] == [("broken", 2, "testserver")], self.told()
            kept = self.client.get("/stream")
            assert len(self.traces) == 3
        assert len(self.traces) == 4
        assert self.traces[2].runner["exception"]["type"] == "LookupError"

import unittest
unittest.main()
"""


def test_django_client_that_traces_gives_a_trace_for_each_request() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EPSAGON_")}
    done = subprocess.run([sys.executable, "-c", DJANGO], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_no_request_reaches_the_queue(queue: FakeQueue, shop: flask.Flask) -> None:
    with capture_traces():
        shop.test_client().get("/orders")
    assert (queue.asked, queue.records) == (0, [])
