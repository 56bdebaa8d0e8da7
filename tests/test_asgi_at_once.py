"""A usual HTTP request over ASGI, noted by compiled code, leaves the same records as one that Python notes."""

import asyncio
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_ring import Read, but_stacks, recorded, told
from requesting import TRACEPARENT, UNUSUAL
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

import epsagon_fast as epsagon
from epsagon_fast.integrations import choices
from epsagon_fast.integrations.asgi import Channel, TracingMiddleware
from epsagon_fast.integrations.web.request import KEY
from epsagon_fast.integrations.web.routes import DJANGO_ASGI
from epsagon_fast.producer.current import anywhere, current_trace
from epsagon_fast.producer.process import process
from epsagon_fast.producer.request_path import Exchange, PureExchange

pytestmark = pytest.mark.skipif(Exchange is PureExchange, reason="the reference does everything step by step")

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
App = Callable[..., Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
BODY = {"type": "http.response.body", "body": b"hello"}
PIECE = {**BODY, "more_body": True}
REQUEST = {"type": "http.request", "body": b"posted", "more_body": False}


@pytest.fixture
def read(untraced: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    monkeypatch.delitem(sys.modules, DJANGO_ASGI, raising=False)
    with recorded(monkeypatch, tmp_path) as reader:
        yield reader


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tells which steps of a request Python did."""
    done: list[str] = []

    def noting(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            done.append(name.removeprefix("_"))
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    noting(TracingMiddleware, "_answer")
    noting(Channel, "_send_any")
    noting(Channel, "finish")
    return done


def step_by_step(patch: pytest.MonkeyPatch) -> None:
    """Let Python do everything about requests from now on."""
    # What is not begun by compiled code is not noted by it.
    patch.setattr(Channel, "begin", PureExchange.begin, raising=False)


class Server:
    """Serves one connection as servers do, and keeps what it was told."""

    def __init__(self, *messages: Any, refuses: int = 1000, error: BaseException | None = None, **scope: Any) -> None:
        headers = [(b"host", b"h.example"), (b"accept", b"*/*")]
        usual = {"type": "http", "method": "GET", "path": "/a", "headers": headers, "server": ("127.0.0.1", 80)}
        self.scope: Any = {name: value for name, value in {**usual, **scope}.items() if value is not None}
        self.told: list[Any] = []
        self._messages = iter([*(messages or [REQUEST]), {"type": "http.disconnect"}])
        self._refuses = refuses
        self._error = error or OSError("the client has left")

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        return next(self._messages)

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        if sum(isinstance(told, dict) for told in self.told) >= self._refuses:
            raise self._error
        self.told.append(message)
        if isinstance(message, dict) and "headers" in message:
            self.told.append([*message["headers"]])

    def ask(self, app: App) -> list[Any]:
        """Return what the application sent and how it failed."""

        async def serve() -> None:
            try:
                await TracingMiddleware(app)(self.scope, self.receive, self.send)
            except BaseException as error:
                self.told += [type(error).__name__, str(error)]
            assert anywhere() is None
            assert KEY not in self.scope

        asyncio.run(serve())
        return self.told


class Rewriting(Server):
    """Writes another status into the answer's start, as a middleware around the tracer's may."""

    def __init__(self, status: Any) -> None:
        super().__init__()
        self._status = status

    async def send(self, message: Any) -> None:
        if "status" in message:
            message["status"] = self._status
        await super().send(message)


def sending(*messages: Any) -> App:
    async def app(scope: Scope, receive: Any, send: Send) -> None:
        assert scope.get(KEY)
        for message in messages:
            await send(message)

    return app


hello = sending(START, BODY)


async def anew(scope: Scope, receive: Any, send: Send) -> None:
    await send({**START})
    await send(BODY)


async def reading(scope: Scope, receive: Any, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await hello(scope, receive, send)


async def listening(scope: Scope, receive: Any, send: Send) -> None:
    await send(START)
    while (await receive())["type"] != "http.disconnect":
        await send(PIECE)


async def tracing(scope: Scope, receive: Any, send: Send) -> None:
    request = current_trace()
    assert request is not None
    with epsagon.event("charge") as event, epsagon.trace("inner"):
        event.metadata["card"] = "visa"
        await asyncio.create_task(labelling())
    await hello(scope, receive, send)
    epsagon.label("afterwards", 1)


async def labelling() -> None:
    epsagon.label("in a task", anywhere() is not None)


def raising(error: BaseException, *messages: Any) -> App:
    async def app(scope: Scope, receive: Any, send: Send) -> None:
        await sending(*messages)(scope, receive, send)
        raise error

    return app


async def catching(scope: Scope, receive: Any, send: Send) -> None:
    try:
        await hello(scope, receive, send)
    except OSError:
        await send({**START, "status": 500})


async def timing_out(scope: Scope, receive: Any, send: Send) -> None:
    await send(START)
    async with asyncio.timeout(0):
        await asyncio.sleep(60)


async def cancelling(scope: Scope, receive: Any, send: Send) -> None:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await send(START)


async def awaiting_a_cancelled_task(scope: Scope, receive: Any, send: Send) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


async def telling(scope: Scope, receive: Any, send: Send) -> None:
    epsagon.error("mine")
    await hello(scope, receive, send)


async def stopping(scope: Scope, receive: Any, send: Send) -> None:
    request = current_trace()
    assert request
    request.send_stop_signal()
    await hello(scope, receive, send)


async def side_by_side(scope: Scope, receive: Any, send: Send) -> None:
    # As a coroutine in a task of its own, and as any awaitable.
    await asyncio.create_task(send(START))  # type: ignore[arg-type]
    await asyncio.gather(send(PIECE), send(BODY))


async def nothing(scope: Scope, receive: Any, send: Send) -> None:
    pass


def routed() -> App:
    async def answer(request: Any) -> PlainTextResponse:
        epsagon.label("seen", 1)
        return PlainTextResponse("hello")

    async def stream(request: Any) -> StreamingResponse:
        return StreamingResponse(iter(["a", "bc"]))

    return Starlette(
        routes=[
            Route("/items/{number}", answer),
            Route("/stream", stream),
            Mount("/sub", routes=[Route("/{x}", answer)]),
        ]
    )


def literal(route: Any) -> App:
    async def app(scope: Scope, receive: Any, send: Send) -> None:
        scope.update(route)
        await hello(scope, receive, send)

    return app


def of(path: Any) -> dict[str, Any]:
    return {"route": types.SimpleNamespace(path=path)}


def headers(*pairs: Any) -> dict[str, Any]:
    return {"headers": [(b"host", b"h.example"), *pairs]}


# All steps of a request that Python does.
PYTHON = ["answer", "send_any", "send_any", "finish"]
# What the server does, what the application does, and what of it Python notes.
SCENES: dict[str, tuple[Callable[[], Server], App, list[str]]] = {
    "usual": (Server, hello, []),
    "no body": (Server, sending(START, {"type": "http.response.body"}), []),
    "None for a body": (Server, sending(START, {**BODY, "body": None}), []),
    "several pieces": (Server, sending(START, PIECE, PIECE, BODY), []),
    "read": (Server, reading, []),
    "read in pieces": (lambda: Server({**REQUEST, "more_body": True}, {"type": "http.request"}), reading, []),
    "read as another type": (lambda: Server({**REQUEST, "body": bytearray(b"ab")}), reading, []),
    "traced inside": (Server, tracing, []),
    "tasks that send": (Server, side_by_side, []),
    "a length": (lambda: Server(**headers((b"content-length", b"12"), (b"content-type", b"a/b"))), hello, []),
    "a broken length": (lambda: Server(**headers((b"content-length", b"x"))), reading, []),
    "a caller": (lambda: Server(**headers((b"traceparent", TRACEPARENT.encode()))), hello, []),
    "a caller with a state": (
        lambda: Server(**headers((b"traceparent", TRACEPARENT.encode()), (b"tracestate", b"a=b"))),
        hello,
        [],
    ),
    "two callers": (
        lambda: Server(**headers(*2 * [(b"traceparent", TRACEPARENT.encode())])),
        hello,
        [],
    ),
    "two hosts": (lambda: Server(**headers((b"host", b"other"))), hello, []),
    "no host": (lambda: Server(headers=[]), hello, []),
    "no server": (lambda: Server(headers=[], server=None), hello, []),
    "a socket": (lambda: Server(headers=[], server=("/a.sock", None)), hello, []),
    "no headers": (lambda: Server(headers=None), hello, PYTHON),
    "headers in an iterator": (lambda: Server(headers=iter([(b"host", b"a")])), hello, PYTHON),
    "headers in lists": (lambda: Server(headers=[[b"host", b"a"]]), hello, PYTHON),
    "no method": (lambda: Server(method=None), hello, PYTHON),
    "a path of any text": (lambda: Server(path='/größe"\\\x01'), hello, []),
    "a path that is none": (lambda: Server(path="/\ud800"), hello, []),
    "HEAD": (lambda: Server(method="HEAD"), hello, []),
    "204": (Server, sending({**START, "status": 204}, BODY), []),
    "404": (Server, sending({**START, "status": 404}, BODY), []),
    "503": (Server, sending({**START, "status": 503}, BODY), ["send_any", "finish"]),
    "a status of another type": (Server, sending({**START, "status": 200.0}, BODY), ["send_any", "finish"]),
    "a text for a status": (Server, sending({**START, "status": "404"}, BODY), ["send_any"]),
    "a status below 0": (Server, sending({**START, "status": -5}, BODY), ["send_any", "finish"]),
    "a status beyond 64 bits": (Server, sending({**START, "status": 10**30}, BODY), ["send_any", "finish"]),
    "a status that becomes another": (lambda: Rewriting(201), anew, []),
    "a status that becomes an error": (lambda: Rewriting(503), anew, ["finish"]),
    "a status that becomes a text": (lambda: Rewriting("404"), anew, []),
    "a status that becomes none": (lambda: Rewriting(-5), anew, ["finish"]),
    "no headers of the answer": (Server, sending({"type": "http.response.start", "status": 200}, BODY), []),
    "the answer's headers in an iterator": (Server, sending({**START, "headers": iter([])}, BODY), ["send_any"]),
    "a body of another type": (Server, sending(START, {**BODY, "body": bytearray(b"abc")}), ["send_any"]),
    "trailers": (
        Server,
        sending({**START, "trailers": True}, BODY, {"type": "http.response.trailers"}),
        ["send_any", "send_any", "send_any"],
    ),
    "a path to send": (Server, sending(START, {"type": "http.response.pathsend", "path": __file__}), ["send_any"]),
    "an unknown message": (Server, sending({"type": "http.response.debug"}, START, BODY), ["send_any"]),
    "a message that is none": (Server, sending("nothing", START, BODY), ["send_any"]),
    "a message without a type": (Server, sending({}), ["send_any", "finish"]),
    "no start": (Server, sending(BODY), ["finish"]),
    "no end": (Server, sending(START, PIECE), ["finish"]),
    "no answer": (Server, nothing, ["finish"]),
    "more than an answer": (Server, sending(START, BODY, PIECE), []),
    "an error": (Server, raising(ValueError("no")), ["finish"]),
    "an error after the start": (Server, raising(ValueError("no"), START), ["finish"]),
    "an error after the answer": (Server, raising(ValueError("no"), START, BODY), ["finish"]),
    "an end": (Server, raising(SystemExit(0), START, BODY), ["finish"]),
    "a cancellation": (Server, cancelling, ["finish"]),
    "a cancelled task": (Server, awaiting_a_cancelled_task, ["finish"]),
    "a timeout": (Server, timing_out, ["finish"]),
    "a client that leaves at once": (lambda: Server(refuses=0), hello, ["finish"]),
    "a client that leaves": (lambda: Server(refuses=1), hello, ["finish"]),
    "a client that leaves one that goes on": (lambda: Server(refuses=1), catching, ["send_any", "finish"]),
    "a client that leaves a listener": (Server, listening, ["finish"]),
    "a server that fails": (lambda: Server(refuses=1, error=LookupError("no")), hello, ["finish"]),
    "a server that cancels": (lambda: Server(refuses=1, error=asyncio.CancelledError()), hello, ["finish"]),
    "an own error": (Server, telling, ["finish"]),
    "stopped": (Server, stopping, ["finish"]),
    "Starlette": (lambda: Server(path="/items/3", root_path=""), routed(), []),
    "Starlette's stream": (
        lambda: Server(path="/stream", root_path="", asgi={"spec_version": "2.4"}),
        routed(),
        [],
    ),
    "Starlette's mount": (lambda: Server(path="/sub/3", root_path=""), routed(), []),
    "Starlette's 404": (lambda: Server(path="/no", root_path=""), routed(), []),
    "a route": (Server, literal(of("/a/{b}")), []),
    "a route of another type": (Server, literal(of(7)), []),
    "a route that is none": (Server, literal(of("/\ud800")), ["finish"]),
    "a mount for a route": (Server, literal({"route": types.SimpleNamespace(path="/a", routes=[])}), []),
    "no route": (Server, literal({"router": None}), []),
    "a template": (Server, literal({"path_template": "/t/{x}"}), []),
    "FastAPI's": (Server, literal({"fastapi": {}, **of("/f")}), []),
    "two middlewares": (Server, TracingMiddleware(hello), ["answer"]),
    "an own key": (lambda: Server(**{KEY: True}), hello, ["answer"]),
    "a websocket": (
        lambda: Server(type="websocket", method=None),
        sending({"type": "websocket.accept"}, {"type": "websocket.send", "text": "a"}, {"type": "websocket.close"}),
        ["answer", "send_any", "send_any", "send_any", "finish"],
    ),
    "a lifespan": (lambda: Server(type="lifespan"), nothing, ["answer"]),
}


@pytest.mark.parametrize("scene", SCENES)
def test_records_are_those_of_the_long_way(
    read: Read,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[str],
    scene: str,
) -> None:
    server, app, by_python = SCENES[scene]
    if scene == "an own key":
        # It stands for a middleware around the server's.
        monkeypatch.setattr(Server, "ask", _ask_as_it_is)
    answer, at_once = server().ask(app), told(read())
    assert steps == by_python
    assert not process.open_traces
    step_by_step(monkeypatch)
    assert server().ask(app) == answer
    assert but_stacks(told(read())) == but_stacks(at_once)
    assert not process.open_traces
    assert not process.refusals()


def _ask_as_it_is(server: Server, app: App) -> list[Any]:
    asyncio.run(TracingMiddleware(app)(server.scope, server.receive, server.send))  # type: ignore[arg-type]
    return server.told


BYTES = st.binary(max_size=6)
NAMES = st.sampled_from([b"host", b"content-length", b"content-type", b"traceparent", b"tracestate"]) | BYTES
VALUES = st.sampled_from([TRACEPARENT.encode(), b"12"]) | BYTES


# What no server should give or take, but some do.
ODD: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}, {}),
    "a text for a status": ({}, {"status": "200"}, {}),
    "bytes for a status": ({}, {"status": b"200"}, {}),
    "a name for a status": ({}, {"status": "OK"}, {}),
    "None for a status": ({}, {"status": None}, {}),
    "a status beyond 64 bits": ({}, {"status": 10**30}, {}),
    "a status beyond all printing": ({}, {"status": 10**5000}, {}),
    "a status below 0": ({}, {"status": -5}, {}),
    "texts for headers": ({}, {"headers": [("content-length", "5")]}, {}),
    "a number for a length": ({}, {"headers": [(b"content-length", 5)]}, {}),
    "no pairs for headers": ({}, {"headers": [b"x-a", None]}, {}),
    "a text for a body": ({}, {}, {"body": "hello"}),
    "a number for a body": ({}, {}, {"body": 5}),
    "a number for a path": ({}, {}, {"type": "http.response.pathsend", "path": 1.5}),
    "a text for a count": ({}, {}, {"type": "http.response.zerocopysend", "count": "5"}),
    "a list for a type": ({}, {}, {"type": []}),
    "texts for the request's headers": ({"headers": [("host", "h"), ("content-length", "5")]}, {}, {}),
    "no pairs for the request's headers": ({"headers": [b"host", 3]}, {}, {}),
    "no path": ({"path": None}, {}, {}),
    "bytes for a path": ({"path": b"/a"}, {}, {}),
    "a text for a query": ({"query_string": "a=b"}, {}, {}),
    "a server of four parts": ({"headers": [], "server": ("::1", 80, 0, 0)}, {}, {}),
    "a text for a server": ({"headers": [], "server": "here"}, {}, {}),
}


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("odd", ODD)
def test_application_goes_on_with_whatever_its_server_gives_and_takes(
    read: Read, monkeypatch: pytest.MonkeyPatch, odd: str, values: bool
) -> None:
    epsagon.init(metadata_only=not values)
    scope, start, piece = ODD[odd]
    messages = [{**START, **start}, {**BODY, **piece}]

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    for _ in range(2):
        answer = Server({**REQUEST, "body": "posted"}, **scope).ask(app)
        assert [message for message in answer if isinstance(message, dict)] == messages
        assert not any(isinstance(message, str) for message in answer)
        kinds = [kind for kind, *_ in told(read())]
        assert (kinds[0], kinds[-1]) == ("OPEN", "CLOSE")
        assert not process.open_traces
        step_by_step(monkeypatch)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    scope=st.fixed_dictionaries(
        {"path": st.text(max_size=6), "headers": st.lists(st.tuples(NAMES, VALUES), max_size=4)},
        optional={"method": st.sampled_from(["GET", "HEAD"]) | st.text(max_size=3), "server": st.none()},
    ),
    pieces=st.lists(BYTES, max_size=3),
    status=st.integers(-1, 999),
    read_first=st.booleans(),
)
def test_any_request_has_the_records_of_the_long_way(
    read: Read, scope: Scope, pieces: list[bytes], status: int, read_first: bool
) -> None:
    read()
    messages = [{**START, "status": status}, *({**PIECE, "body": piece} for piece in pieces), BODY]

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        if read_first:
            await receive()
        await sending(*messages)(scope, receive, send)

    answer, at_once = Server(**scope).ask(app), told(read())
    with pytest.MonkeyPatch.context() as patch:
        step_by_step(patch)
        assert Server(**scope).ask(app) == answer
    assert told(read()) == at_once


@pytest.mark.parametrize("what", UNUSUAL)
def test_whatever_is_unusual_is_left_to_python(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str], what: str
) -> None:
    UNUSUAL[what](monkeypatch)
    for _ in range(2):
        # Some of these requests are not traced, and have no key in their scope.
        Server().ask(raising(ValueError("no")))
    assert steps.count("answer") == 2


def test_request_within_a_trace_is_left_to_python(read: Read, steps: list[str]) -> None:
    async def serve() -> None:
        server = Server()
        with epsagon.trace("around"):
            await TracingMiddleware(hello)(server.scope, server.receive, server.send)

    asyncio.run(serve())
    assert "answer" in steps


def test_status_that_is_an_error_by_the_environment_is_one(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    monkeypatch.setenv(choices.LOWEST_ERROR, "404")
    choices.said_lowest_error.cache_clear()
    try:
        Server().ask(sending({**START, "status": 404}, BODY))
        Server().ask(sending({**START, "status": 403}, BODY))
    finally:
        choices.said_lowest_error.cache_clear()
    assert steps == ["send_any", "finish"]


def test_application_gets_coroutines_as_from_a_function(read: Read) -> None:
    """Some frameworks look at that before they call or start something."""

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        assert inspect.iscoroutinefunction(send) and inspect.iscoroutinefunction(receive)
        sent = send(START)
        assert inspect.iscoroutine(sent)
        await sent
        await send(BODY)

    middleware = TracingMiddleware(app)
    assert inspect.iscoroutinefunction(middleware.__call__)
    assert Server().ask(app) == [START, START["headers"], BODY]


def test_requests_side_by_side_are_each_in_their_own_trace(read: Read) -> None:
    async def app(scope: Scope, receive: Any, send: Send) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            request: Any = current_trace()
            assert request.path == scope["path"]
        await hello(scope, receive, send)

    async def serve() -> None:
        middleware = TracingMiddleware(app)
        servers = [Server(path=f"/{number}") for number in range(5)]
        await asyncio.gather(*(middleware(each.scope, each.receive, each.send) for each in servers))

    asyncio.run(serve())
    assert [kind for kind, *_ in told(read())].count("CLOSE") == 5


def test_coroutine_that_is_closed_or_thrown_away_ends_its_trace(read: Read) -> None:
    for leave in (lambda each: each.close(), lambda each: None):
        for steps in range(1, 3):
            server = Server()
            coroutine: Any = TracingMiddleware(reading)(server.scope, server.receive, server.send)
            for _ in range(steps):
                coroutine.send(None)
            assert anywhere() is not None
            leave(coroutine)
            del coroutine
            assert anywhere() is None
            assert not process.open_traces
            read()


def test_interruption_leaves_nothing_open_and_nothing_current(read: Read) -> None:
    """An alarm may come at each step of Python code."""

    class Limit(BaseException):
        pass

    async def answer(message: Any) -> None:
        pass

    for last in count(1):
        steps = 0

        def step(frame: Any, event: str, argument: Any, last: int = last) -> Any:
            nonlocal steps
            steps += 1
            if steps == last:
                raise Limit
            return step

        server = Server()
        coroutine: Any = TracingMiddleware(hello)(server.scope, server.receive, answer)
        try:
            sys.settrace(step)
            coroutine.send(None)
        except (Limit, StopIteration):
            pass
        finally:
            sys.settrace(None)
        assert anywhere() is None, last
        assert not process.open_traces, last
        read()
        if steps < last:
            return
