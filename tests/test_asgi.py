"""The ASGI middleware: driven by hand for what it records, by uvicorn for real clients, with Starlette inside."""

import asyncio
import contextvars
import gc
import http.client
import json
import socket
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import fastapi
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from places import until
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from waiting import TIMEOUT_S
from websockets.sync.client import connect

import epsagon_fast as epsagon
from epsagon_fast import propagation
from epsagon_fast.integrations import wsgi
from epsagon_fast.integrations.asgi import TracingMiddleware
from epsagon_fast.producer.current import current_trace
from epsagon_fast.protocol import ErrorCode
from epsagon_fast.testing import capture_traces

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}
Traces = list[dict[str, Any]]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


def scope_of(path: str = "/", *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"shop.example"), *headers],
        **more,
    }


def ask(app: Any, scope: dict[str, Any], *messages: dict[str, Any], fail_after: int = 1000) -> list[dict[str, Any]]:
    """Do what a server does with one connection. The client leaves before message number `fail_after` is sent."""
    incoming = iter([*(messages or [REQUEST]), DISCONNECT])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(incoming)

    async def send(message: dict[str, Any]) -> None:
        if len(sent) == fail_after:
            raise OSError("the client has left")
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


@pytest.fixture
def traces(untraced: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("EPSAGON_TOKEN", "t")
    with capture_traces() as captured:
        yield captured


def runner(traces: Traces) -> dict[str, Any]:
    """The runner of the only trace."""
    [trace] = traces
    event: dict[str, Any] = trace["events"][-1]
    return event


def metadata(traces: Traces) -> dict[str, str]:
    found: dict[str, str] = runner(traces)["resource"]["metadata"]
    return found


# What is recorded.


def test_request_is_one_trace(traces: Traces) -> None:
    sent = ask(TracingMiddleware(hello), scope_of("/größe", (b"content-length", b"12"), method="POST"))
    assert sent[1]["body"] == b"hello"
    event = runner(traces)
    assert event["origin"] == "runner"
    assert (event["error_code"], event["exception"]) == (0, None)
    assert event["resource"] == {
        "name": "shop.example",
        "type": "http",
        "operation": "POST",
        "metadata": {
            "path": "/größe",
            "request_bytes": "12",
            "response_bytes": "5",
            "status_code": "200",
            "labels": "{}",
        },
    }


def test_servers_address_stands_for_a_missing_host(traces: Traces) -> None:
    ask(TracingMiddleware(hello), scope_of(headers=[]))
    assert runner(traces)["resource"]["name"] == "127.0.0.1:8000"


def test_bodies_are_counted_as_they_flow(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"a", b"bc", b""):
            await send({"type": "http.response.body", "body": piece, "more_body": piece != b""})

    pieces = [{"type": "http.request", "body": b"xy", "more_body": True}, {"type": "http.request", "body": b"z"}]
    ask(TracingMiddleware(app), scope_of(), *pieces)
    found = metadata(traces)
    assert (found["request_bytes"], found["response_bytes"]) == ("3", "3")
    assert "client_closed" not in found


def test_what_the_application_traces_belongs_to_its_request(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with epsagon.event("query"):
            await asyncio.sleep(0)
        epsagon.label("user", 42)
        await hello(scope, receive, send)
        assert current_trace() is not None

    ask(TracingMiddleware(app), scope_of())
    [trace] = traces
    assert [event["resource"]["name"] for event in trace["events"]] == ["query", "shop.example"]
    assert metadata(traces)["labels"] == '{"user":42}'


def test_requests_side_by_side_do_not_mix(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            epsagon.add_event({"id": scope["path"]})
        await hello(scope, receive, send)

    async def nothing(*_: Any) -> dict[str, Any]:
        return REQUEST

    async def main() -> None:
        await asyncio.gather(*(TracingMiddleware(app)(scope_of(str(n)), nothing, nothing) for n in range(5)))

    asyncio.run(main())
    assert len(traces) == 5
    for trace in traces:
        *events, request = trace["events"]
        assert [event["id"] for event in events] == [request["resource"]["metadata"]["path"]] * 3


def test_duration_ends_with_the_body_and_background_work_still_belongs(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(clock[0] * 1e9))

    def later() -> None:
        clock[0] += 50
        epsagon.add_event({"id": "later"})

    async def endpoint(request: Request) -> Response:
        clock[0] += 2
        return PlainTextResponse("done", background=BackgroundTask(later))

    ask(TracingMiddleware(Starlette(routes=[Route("/", endpoint)])), scope_of())
    assert runner(traces)["duration"] == 2.0
    assert traces[0]["events"][0]["id"] == "later"


@pytest.mark.parametrize("length", [b"9" * 5000, b"-1", b"x", b""])
def test_length_that_is_none_changes_no_answer(traces: Traces, length: bytes) -> None:
    sent = ask(TracingMiddleware(hello), scope_of("/", (b"content-length", length)))
    assert sent[1]["body"] == b"hello"
    assert metadata(traces)["request_bytes"] == "0"


def test_callers_trace_id_is_a_strong_key(traces: Traces) -> None:
    parent = b"00-%s-00f067aa0ba902b7-01" % TRACE_ID.encode()
    ask(TracingMiddleware(hello), scope_of("/", (b"traceparent", parent), (b"tracestate", b"a=b")))
    assert metadata(traces)["http_trace_id"] == TRACE_ID
    assert runner(traces)["parent_id"] == "00f067aa0ba902b7"


def test_call_that_a_request_makes_comes_from_the_event_in_which_it_is_made(traces: Traces) -> None:
    sent: list[dict[str, str]] = [{}, {}]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        propagation.inject(sent[0])
        with epsagon.event("calls on"):
            propagation.inject(sent[1])
        await hello(scope, receive, send)

    ask(TracingMiddleware(app), scope_of("/", (b"traceparent", b"00-%s-00f067aa0ba902b7-01" % TRACE_ID.encode())))
    ids = [runner(traces)["id"][:16], traces[0]["events"][0]["id"]]
    assert [headers["traceparent"] for headers in sent] == [f"00-{TRACE_ID}-{span_id}-01" for span_id in ids]


def test_two_callers_are_none(traces: Traces) -> None:
    parent = b"00-%s-00f067aa0ba902b7-01" % TRACE_ID.encode()
    ask(TracingMiddleware(hello), scope_of("/", (b"traceparent", parent), (b"traceparent", parent)))
    assert "http_trace_id" not in metadata(traces)
    assert "parent_id" not in runner(traces)


def test_route_is_the_pattern_also_in_a_mounted_application(traces: Traces) -> None:
    async def item(request: Request) -> Response:
        return PlainTextResponse("item")

    app = Starlette(routes=[Mount("/shop", routes=[Route("/items/{number}", item)])])
    ask(TracingMiddleware(app), scope_of("/shop/items/7"))
    found = metadata(traces)
    assert (found["path"], found["route"], found["status_code"]) == ("/shop/items/7", "/shop/items/{number}", "200")


async def item(request: Request) -> Response:
    return PlainTextResponse("item")


INNER = Starlette(routes=[Mount("/", routes=[Mount("/{deep}", app=hello), Route("/z/{key}", item)])])
MOUNTS = [
    Mount("/static", app=hello),
    Mount("/{tenant}/t", routes=[Route("/z/{key}", item)]),
    Mount("/{number:int}", app=GZipMiddleware(INNER)),
    Host("{name}.example", app=Router([Mount("/{page}", app=hello)])),
]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/static/a.css", "/static"),
        ("/acme/t/z/5", "/{tenant}/t/z/{key}"),
        ("/t/t/z/5", "/{tenant}/t/z/{key}"),
        ("/7/abc/d", "/{number:int}/{deep}"),
        ("/7/nowhere", "/{number:int}"),
        ("/about/us", "/{page}"),
    ],
)
def test_route_of_a_mount_is_its_pattern(traces: Traces, path: str, route: str) -> None:
    ask(TracingMiddleware(Starlette(routes=MOUNTS)), scope_of(path))
    assert metadata(traces)["route"] == route


def fastapi_site() -> FastAPI:
    with warnings.catch_warnings(action="ignore"):
        # It wants the server to set it.
        site = FastAPI(root_path="/proxy")
    inner, outer, shop = APIRouter(prefix="/v1"), APIRouter(prefix="/api/{tenant}"), FastAPI()
    inner.get("/items/{number}")(lambda number: number)
    inner.mount("/files", hello)
    outer.include_router(inner)
    site.include_router(outer)
    site.get("/plain/{key}")(lambda key: key)
    shop.include_router(inner)
    site.mount("/{shop}/in", shop)
    return site


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/plain/3", "/plain/{key}"),
        ("/api/acme/v1/items/3", "/api/{tenant}/v1/items/{number}"),
        ("/proxy/acme/in/v1/items/3", "/{shop}/in/v1/items/{number}"),
        ("/proxy/api/acme/files/a", "/api/{tenant}/files"),
    ],
)
def test_route_of_fastapi_is_the_whole_pattern(traces: Traces, path: str, route: str) -> None:
    ask(TracingMiddleware(fastapi_site()), scope_of(path, http_version="1.1", scheme="http"))
    assert metadata(traces)["route"] == route


def test_route_that_a_framework_says_outright_is_taken(traces: Traces) -> None:
    async def litestar(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/{tenant}/items"
        await hello(scope, receive, send)

    ask(TracingMiddleware(litestar), scope_of("/acme/items"))
    assert metadata(traces)["route"] == "/{tenant}/items"


def test_framework_whose_routes_break_costs_the_route_alone(traces: Traces) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        scope.update(router=None, app_root_path=None, root_path=0)
        await hello(scope, receive, send)

    ask(TracingMiddleware(broken), scope_of())
    assert metadata(traces)["status_code"] == "200" and "route" not in metadata(traces)


def test_path_that_no_route_matches_has_none(traces: Traces) -> None:
    ask(TracingMiddleware(Starlette()), scope_of("/nowhere"))
    found = metadata(traces)
    assert found["status_code"] == "404" and "route" not in found


# Errors.


def test_exception_goes_on_its_way_and_is_recorded(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError):
        ask(TracingMiddleware(app), scope_of())
    event = runner(traces)
    assert (event["error_code"], event["exception"]["type"]) == (2, "ZeroDivisionError")
    assert 'raise ZeroDivisionError("oh")' in event["exception"]["traceback"]
    assert metadata(traces)["status_code"] == "500"


def test_exception_that_a_handler_turned_into_an_answer_is_recorded(traces: Traces) -> None:
    async def endpoint(request: Request) -> Response:
        raise ValueError("handled")

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 503)

    app = Starlette(routes=[Route("/", endpoint)], exception_handlers={ValueError: handler})
    ask(TracingMiddleware(app), scope_of())
    event = runner(traces)
    assert (event["error_code"], event["exception"]["message"]) == (2, "handled")
    assert "raise ValueError" in event["exception"]["traceback"]
    assert metadata(traces)["status_code"] == "503"


def test_application_that_returns_without_an_answer_is_an_error(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    assert ask(TracingMiddleware(app), scope_of()) == []
    assert metadata(traces)["status_code"] == "500"
    assert runner(traces)["error_code"] == 1


def test_answer_in_place_of_a_websocket_is_counted(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"who?"})

    ask(TracingMiddleware(app), scope_of(type="websocket"))
    assert (metadata(traces)["status_code"], metadata(traces)["response_bytes"]) == ("401", "4")


def test_status_of_a_server_error_is_an_error(traces: Traces) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("no", 502)

    ask(TracingMiddleware(Starlette(routes=[Route("/", endpoint)])), scope_of())
    event = runner(traces)
    assert (event["error_code"], event["exception"]["message"]) == (1, "502")


def test_connection_that_ends_with_an_answer_does_not_excuse_its_status(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"later"})
        # As Quart: a task of its own listens until the connection has ended.
        assert [await receive(), await receive()] == [REQUEST, DISCONNECT]

    ask(TracingMiddleware(app), scope_of())
    event = runner(traces)
    assert (event["error_code"], event["exception"]["message"]) == (1, "503")
    assert "client_closed" not in metadata(traces)


@pytest.mark.parametrize("pieces", [1, 2])
def test_client_that_leaves_is_no_error(traces: Traces, pieces: int) -> None:
    async def stream() -> Any:
        for _ in range(5):
            yield b"x"

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(stream())

    app = TracingMiddleware(Starlette(routes=[Route("/", endpoint)]))
    # From 2.4 on a server says so by an OSError, and Starlette turns that into an exception of its own.
    with pytest.raises(ClientDisconnect):
        ask(app, scope_of(asgi={"version": "3.0", "spec_version": "2.4"}), fail_after=1 + pieces)
    found = metadata(traces)
    assert (found["client_closed"], found["response_bytes"]) == ("true", str(pieces))
    assert runner(traces)["error_code"] == 0


def test_client_that_leaves_while_it_sends_is_no_error(traces: Traces) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app = TracingMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    with pytest.raises(ClientDisconnect):
        ask(app, scope_of(method="POST"), {"type": "http.request", "body": b"half", "more_body": True})
    found = metadata(traces)
    assert (found["client_closed"], found["request_bytes"]) == ("true", "4")
    assert runner(traces)["error_code"] == 0


async def cancelled(scope: Any, receive: Any, send: Any) -> None:
    """Be cancelled from outside, as by a server that gives up."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.sleep(3600)


def test_cancelled_request_is_unfinished(traces: Traces) -> None:
    with pytest.raises(asyncio.CancelledError):
        ask(TracingMiddleware(cancelled), scope_of())
    assert metadata(traces)["unfinished"] == "true"
    assert runner(traces)["error_code"] == 0


async def await_a_cancelled_task(*_: Any) -> None:
    task = asyncio.ensure_future(asyncio.sleep(3600))
    task.cancel()
    await task


def test_request_that_awaits_a_cancelled_task_has_failed(traces: Traces) -> None:
    with pytest.raises(asyncio.CancelledError):
        ask(TracingMiddleware(await_a_cancelled_task), scope_of())
    found = metadata(traces)
    assert (found["status_code"], "unfinished" in found) == ("500", False)
    assert runner(traces)["error_code"] == ErrorCode.EXCEPTION
    assert runner(traces)["exception"]["type"] == "CancelledError"


def test_framework_that_cancels_its_own_task_when_the_client_leaves_has_not_failed(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        await await_a_cancelled_task()

    with pytest.raises(asyncio.CancelledError):
        ask(TracingMiddleware(app), scope_of(), DISCONNECT)
    assert metadata(traces)["client_closed"] == "true"
    assert runner(traces)["error_code"] == 0


def test_client_that_leaves_a_group_of_tasks_is_no_error(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send({"type": "http.response.body", "body": b"x", "more_body": True}))

    with pytest.raises(ExceptionGroup):
        ask(TracingMiddleware(app), scope_of(), fail_after=1)
    assert metadata(traces)["client_closed"] == "true"
    assert (runner(traces)["error_code"], metadata(traces)["status_code"]) == (0, "200")


def test_connection_that_ends_with_the_answer_is_no_client_that_left(traces: Traces) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await ended.wait()
            return DISCONNECT

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                # As hypercorn: the application hears it before `send` returns.
                ended.set()
                await listening

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal listening
            listening = asyncio.create_task(receive())
            await hello(scope, receive, send)

        listening: Any = None
        await TracingMiddleware(app)(scope_of(), receive, send)

    asyncio.run(main())
    assert "client_closed" not in metadata(traces)


def test_last_piece_that_the_server_refuses_completes_no_answer(traces: Traces) -> None:
    with pytest.raises(OSError, match="left"):
        ask(TracingMiddleware(hello), scope_of(), fail_after=1)
    assert metadata(traces)["client_closed"] == "true"


@pytest.mark.parametrize(("is_lost", "mark"), [(True, "client_closed"), (False, "unfinished")])
def test_cancelled_request_asks_the_server_whether_its_client_left(traces: Traces, is_lost: bool, mark: str) -> None:
    class BodyReceiver:  # gunicorn's
        _closed = is_lost

        async def receive(self) -> dict[str, Any]:
            await cancelled({}, None, None)
            raise AssertionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(TracingMiddleware(app)(scope_of(), BodyReceiver().receive, hello))  # type: ignore[arg-type]
    assert metadata(traces)[mark] == "true"
    assert runner(traces)["error_code"] == 0


def test_second_start_that_the_server_refuses_changes_no_status(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            raise ValueError("in the middle")
        except ValueError:
            await send({"type": "http.response.start", "status": 500, "headers": []})

    with pytest.raises(OSError, match="left"):
        ask(TracingMiddleware(app), scope_of(), fail_after=1)
    assert metadata(traces)["status_code"] == "200"


def test_unfinished_task_that_is_collected_ends_its_trace(traces: Traces) -> None:
    @types.coroutine
    def forever() -> Iterator[None]:
        while True:
            yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await forever()

    async def nothing(*_: Any) -> dict[str, Any]:
        return REQUEST

    call = TracingMiddleware(app)(scope_of(), nothing, nothing)
    call.send(None)
    assert not traces
    del call
    assert metadata(traces)["status_code"] == "200"


# Bytes of the answer.


@pytest.mark.parametrize(("headers", "size"), [([], 6), ([(b"Content-Length", b"4")], 4)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_file_that_the_server_sends_by_itself_is_measured(
    traces: Traces, tmp_path: Path, headers: Any, size: int, method: str
) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})

    ask(TracingMiddleware(app), scope_of(method=method))
    assert metadata(traces)["response_bytes"] == str(size if method == "GET" else 0)


def test_answer_with_trailers_ends_with_them(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(clock[0] * 1e9))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        clock[0] += 2
        await send({"type": "http.response.trailers", "headers": [(b"x", b"1")]})
        clock[0] += 50

    ask(TracingMiddleware(app), scope_of())
    assert runner(traces)["duration"] == 2.0


# What people send.


def test_nothing_that_people_send_is_recorded_by_default(traces: Traces) -> None:
    scope = scope_of("/", (b"x", b"secret"), query_string=b"q=secret")
    ask(TracingMiddleware(hello), scope, {"type": "http.request", "body": b"secret"})
    assert "secret" not in json.dumps(traces)


def test_query_headers_and_bodies_are_recorded_masked_if_wanted(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"Content-Type", b"application/json"), (b"set-cookie", b"s3cret")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"name":"ann","password":"s3cret"}'})

    epsagon.init(metadata_only=False, ignored_keys=["password"])
    form = (b"content-type", b"application/x-www-form-urlencoded")
    scope = scope_of("/", form, (b"authorization", b"s3cret"), query_string=b"q=shoes&password=s3cret")
    ask(TracingMiddleware(app), scope, {"type": "http.request", "body": b"user=ann&password=s3cret"})
    found = metadata(traces)
    assert "s3cret" not in json.dumps(traces)
    assert json.loads(found["query"])["q"] == "shoes"
    assert json.loads(found["request_headers"])["authorization"] == "****"
    assert json.loads(found["request_body"]) == {"user": "ann", "password": "****"}
    assert json.loads(found["response_headers"])["content-type"] == "application/json"
    assert json.loads(found["response_body"])["name"] == "ann"


# What is not traced.


@pytest.mark.parametrize(
    "scope", [scope_of(), scope_of(method=5), {"type": "websocket", "path": "/"}, {"type": "lifespan"}, {}], ids=str
)
@pytest.mark.parametrize("way", ["__call__", "_answer"])
def test_server_gets_what_the_application_returns(traces: Traces, scope: dict[str, Any], way: str) -> None:
    """uvicorn refuses the answer of an application that returns anything."""

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        return 5

    async def serve() -> Any:
        return await getattr(TracingMiddleware(app), way)(scope, None, None)

    assert asyncio.run(serve()) == 5


@pytest.mark.parametrize("app", [None, 5, lambda *_: None, lambda *_: 5, lambda scope: None])
@pytest.mark.parametrize("way", ["__call__", "_answer"])
def test_what_is_no_application_fails_as_without_a_middleware(traces: Traces, app: Any, way: str) -> None:
    def error_of(application: Any) -> str:
        async def serve() -> None:
            await application(scope_of(), None, None)

        with pytest.raises(TypeError) as caught:
            asyncio.run(serve())
        return str(caught.value)

    assert error_of(getattr(TracingMiddleware(app), way)) == error_of(app)


def test_lifespan_and_ignored_endpoints_are_not_traced(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_ENDPOINTS_TO_IGNORE", "/health")
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    given = [{"type": "lifespan"}, scope_of("/health")]
    for scope in given:
        ask(TracingMiddleware(app), scope)
    assert not traces
    assert all(seen is scope for seen, scope in zip(scopes, given, strict=True))


def test_second_middleware_lets_the_first_one_trace(traces: Traces) -> None:
    ask(TracingMiddleware(TracingMiddleware(hello)), scope_of())
    assert len(traces) == 1


def test_scope_is_the_servers_own_and_nothing_of_ours_stays_in_it(traces: Traces) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        scope["user"] = "ann"
        await hello(scope, receive, send)

    scope = scope_of()
    ask(TracingMiddleware(app), scope)
    assert seen[0] is scope
    assert scope == {**scope_of(), "user": "ann"}


@pytest.mark.parametrize("metadata_only", [True, False])
def test_iterators_of_headers_are_read_by_application_and_server_too(traces: Traces, metadata_only: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = iter([(b"x", dict(scope["headers"])[b"x"])])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    epsagon.init(metadata_only=metadata_only)
    sent = ask(TracingMiddleware(app), scope_of(headers=iter([(b"x", b"1"), (b"host", b"shop.example")])))
    assert list(sent[0]["headers"]) == [(b"x", b"1")]
    assert runner(traces)["resource"]["name"] == "shop.example"


def test_ignored_endpoint_is_in_no_trace_though_the_connection_had_one(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_ENDPOINTS_TO_IGNORE", "/health")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        epsagon.label("path", scope["path"])
        if scope["path"] == "/":
            # As uvicorn: the next request begins in the context of the one before.
            await asyncio.create_task(traced(scope_of("/health"), receive, send))
        else:
            await asyncio.create_task(later())
        await hello(scope, receive, send)

    async def later() -> None:
        epsagon.label("background", True)

    traced = TracingMiddleware(app)
    ask(traced, scope_of())
    assert metadata(traces)["labels"] == '{"path":"/"}'


# One request through two middlewares.


def wsgi_hello(environ: Any, start_response: Any) -> list[bytes]:
    epsagon.label("served", "by WSGI")
    start_response("200 OK", [])
    return [b"hello"]


def test_wsgi_application_in_an_asgi_one_belongs_to_its_request(traces: Traces) -> None:
    from asgiref.wsgi import WsgiToAsgi

    scope = scope_of("/größe", http_version="1.1")
    ask(TracingMiddleware(WsgiToAsgi(wsgi.TracingMiddleware(wsgi_hello))), scope)
    assert metadata(traces)["labels"] == '{"served":"by WSGI"}'


def test_asgi_application_in_a_wsgi_one_belongs_to_its_request(traces: Traces) -> None:
    def adapter(environ: Any, start_response: Any) -> list[bytes]:
        sent = ask(TracingMiddleware(hello), scope_of(environ["SCRIPT_NAME"] + environ["PATH_INFO"]))
        start_response("200 OK", [])
        return [sent[1]["body"]]

    environ: dict[str, Any] = {"SCRIPT_NAME": "/shop", "PATH_INFO": "/items"}
    setup_testing_defaults(environ)
    answer = wsgi.TracingMiddleware(adapter)(environ, lambda *_: None)
    assert list(answer) == [b"hello"]
    assert metadata(traces)["path"] == "/shop/items"


def test_other_request_that_an_application_makes_in_process_is_one_of_its_own(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await traced(scope_of("/inner"), receive, send)
        else:
            await hello(scope, receive, send)

    traced = TracingMiddleware(app)
    ask(traced, scope_of())
    assert [trace["events"][-1]["resource"]["metadata"]["path"] for trace in traces] == ["/inner", "/"]


def test_connections_next_request_is_one_of_its_own(traces: Traces) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        if len(traces) == 0 and scope.pop("next", None):
            await asyncio.create_task(traced(scope_of(), receive, send))

    traced = TracingMiddleware(app)
    ask(traced, scope_of(next=True))
    assert len(traces) == 2


# A real server.


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "raise":
            raise RuntimeError("asked to")
        await websocket.send_text(2 * text)


async def refuse(websocket: WebSocket) -> None:
    await websocket.close()


async def endless(request: Request) -> Response:
    async def stream() -> Any:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(stream())


SITE = [WebSocketRoute("/echo", echo), WebSocketRoute("/refuse", refuse), Route("/endless", endless)]


@contextmanager
def serving(app: Callable[..., Any]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, log_level=None, lifespan="off", ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def port(traces: Traces) -> Iterator[int]:
    with serving(TracingMiddleware(Starlette(routes=SITE))) as number:
        yield number


def test_websocket_is_one_trace_to_its_end(traces: Traces, port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/echo") as client:
        for text in ("ab", "é"):
            client.send(text)
            assert client.recv(timeout=TIMEOUT_S) == 2 * text
        assert not traces
    until(lambda: traces, "the trace ends")
    event = runner(traces)
    assert (event["resource"]["type"], event["resource"]["operation"]) == ("http", "WEBSOCKET")
    found = metadata(traces)
    assert (found["request_bytes"], found["response_bytes"]) == ("4", "8")
    assert (found["status_code"], found["close_code"], found["route"]) == ("101", "1000", "/echo")
    assert event["error_code"] == 0 and event["duration"] > 0


def test_refused_websocket_is_forbidden(traces: Traces, port: int) -> None:
    with pytest.raises(Exception, match="403"):
        connect(f"ws://127.0.0.1:{port}/refuse")
    until(lambda: traces, "the trace ends")
    assert metadata(traces)["status_code"] == "403"
    assert "close_code" not in metadata(traces)


def test_error_in_a_websocket_is_recorded(traces: Traces, port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}/echo") as client:
        client.send("raise")
        until(lambda: traces, "the trace ends")
    event = runner(traces)
    assert (event["error_code"], event["exception"]["message"]) == (2, "asked to")
    assert metadata(traces)["status_code"] == "101"


@pytest.mark.parametrize(("code", "closed"), [(1006, "true"), (1001, None)])
def test_websocket_whose_connection_broke_says_so(traces: Traces, code: int, closed: str | None) -> None:
    app = TracingMiddleware(Starlette(routes=SITE))
    scope = {"type": "websocket", "path": "/echo", "headers": [], "query_string": b"", "root_path": ""}
    ask(app, scope, {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": code})
    found = metadata(traces)
    assert (found.get("client_closed"), found["close_code"]) == (closed, str(code))
    assert runner(traces)["error_code"] == 0


async def recite(websocket: fastapi.WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.receive_text()


def test_websocket_that_its_client_closes_while_the_application_reads_is_no_error(traces: Traces) -> None:
    site = FastAPI()
    site.websocket("/ws/{room}")(recite)
    scope = {"type": "websocket", "path": "/ws/7", "headers": [], "query_string": b"", "root_path": ""}
    with pytest.raises(WebSocketDisconnect):
        ask(
            TracingMiddleware(site),
            scope,
            {"type": "websocket.connect"},
            {"type": "websocket.disconnect", "code": 1000},
        )
    found = metadata(traces)
    assert (found["close_code"], found["route"], found.get("client_closed")) == ("1000", "/ws/{room}", None)
    assert runner(traces)["error_code"] == 0


def test_client_that_hangs_up_on_a_real_server(traces: Traces, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", "/endless")
    assert connection.getresponse().read(10) == b"x" * 10
    connection.close()
    until(lambda: traces, "the trace ends")
    assert metadata(traces)["client_closed"] == "true"
    assert runner(traces)["error_code"] == 0


def test_context_that_outlives_its_request_keeps_nothing_of_the_server(traces: Traces) -> None:
    class Server:
        async def receive(self) -> dict[str, Any]:
            return REQUEST

        async def send(self, message: dict[str, Any]) -> None: ...

    kept = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # What timers, tasks and callbacks take with them.
        kept.append(contextvars.copy_context())
        await hello(scope, receive, send)

    server, scope = Server(), Scope(scope_of())
    gone = [weakref.ref(server), weakref.ref(scope)]
    asyncio.run(TracingMiddleware(app)(scope, server.receive, server.send))
    del server, scope
    assert [reference() for reference in gone] == [None, None]


class Scope(dict[str, Any]):
    """One that can be watched as it goes."""


def test_request_leaves_nothing_to_the_garbage_collector(traces: Traces) -> None:
    app = TracingMiddleware(hello)

    async def nothing(*_: Any) -> dict[str, Any]:
        return REQUEST

    async def main() -> int:
        await app(scope_of(), nothing, nothing)
        gc.collect()
        for _ in range(10):
            await app(scope_of(), nothing, nothing)
        return gc.collect()

    gc.disable()
    try:
        assert asyncio.run(main()) == 0
    finally:
        gc.enable()
