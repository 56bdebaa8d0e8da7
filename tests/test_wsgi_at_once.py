"""A usual WSGI request, answered by compiled code, leaves the same records as one that Python answers step by step."""

import contextlib
import copy
import gc
import io
import os
import sys
import types
from collections import UserList
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_ring import Read, but_stacks, recorded, told
from interrupting import at_each_step
from requesting import TRACEPARENT, UNUSUAL, ignoring

import epsagon_fast as epsagon
from epsagon_fast.integrations import choices, wsgi
from epsagon_fast.integrations.web.request import KEY
from epsagon_fast.integrations.web.routes import DJANGO
from epsagon_fast.integrations.web.wsgi_request import WsgiRequest
from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.producer.current import anywhere, current_trace
from epsagon_fast.producer.fast_path import FastPath, PureFastPath
from epsagon_fast.producer.process import process
from epsagon_fast.producer.states import CLOSED, OPEN

pytestmark = pytest.mark.skipif(FastPath is PureFastPath, reason="the reference does everything step by step")

Environ = dict[str, Any]
OK = "200 OK"


@pytest.fixture
def read(untraced: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Read]:
    # Another test may have loaded it, and where it is loaded Python looks for its routes.
    monkeypatch.delitem(sys.modules, DJANGO, raising=False)
    with recorded(monkeypatch, tmp_path) as reader:
        yield reader


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tells which steps of a request Python did."""
    done: list[str] = []
    whole, handing_on = TracingMiddleware._answer, wsgi.handed_on

    def answer(*arguments: Any) -> Any:
        done.append("begin")
        return whole(*arguments)

    def handed_on(*arguments: Any) -> Any:
        done.append("end")
        return handing_on(*arguments)

    monkeypatch.setattr(TracingMiddleware, "_answer", answer)
    monkeypatch.setattr(wsgi, "handed_on", handed_on)
    return done


def step_by_step(patch: pytest.MonkeyPatch) -> None:
    """Let Python do everything about requests from now on."""
    patch.setattr(wsgi, "_answered", lambda *_: wsgi._UNUSUAL)


class Server:
    """Serves one request as servers do, and keeps what it was told."""

    def __init__(self, **environ: Any) -> None:
        usual = {"REQUEST_METHOD": "GET", "PATH_INFO": "/a", "HTTP_HOST": "h.example", "SERVER_SOFTWARE": "a server"}
        self.environ: Any = {name: value for name, value in {**usual, **environ}.items() if value is not None}
        self.told: list[Any] = []

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        self.told.append((status, headers, bool(exc_info)))
        return self.told.append

    def ask(self, app: Any) -> list[Any]:
        """Return what the application answered, how it failed, or why it was closed early."""
        try:
            body = TracingMiddleware(app)(self.environ, self.start_response)
            try:
                self.told += body if body is not None else ["nothing"]
            finally:
                if hasattr(body, "close"):
                    body.close()
        except BaseException as error:
            self.told += [type(error).__name__, str(error)]
        assert anywhere() is None
        return self.told


def answering(
    body: Any = (), status: str = OK, headers: Any = (), act: Callable[[Environ], object] = lambda environ: None
) -> Callable[..., Any]:
    def app(environ: Environ, start_response: Any) -> Any:
        request = current_trace()
        assert request is not None
        assert isinstance(request, WsgiRequest)
        assert environ[KEY] is True
        start_response(status, list(headers))
        act(environ)
        return body

    return app


hello = answering([b"hello"])


def raising(error: BaseException) -> Callable[..., Any]:
    def app(environ: Environ, start_response: Any) -> Any:
        start_response(OK, [])
        raise error

    return app


def writing(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response(OK, [])
    write(b"ab")
    return [b"c"]


def correcting(environ: Environ, start_response: Any) -> list[bytes]:
    start_response(OK, [])
    try:
        raise ValueError("no")
    except ValueError:
        start_response("500 No", [], sys.exc_info())
    return [b"sorry"]


def by_keyword(environ: Environ, start_response: Any) -> list[bytes]:
    start_response(status="201 Made", headers=[], exc_info=None)
    return [b"made"]


def twice(environ: Environ, start_response: Any) -> list[bytes]:
    start_response(OK, [])
    start_response("302 Found", [("Location", "/")])
    return []


def misusing(environ: Environ, start_response: Any) -> list[bytes]:
    start_response()
    return []


def generating(environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response(OK, [])
    yield b"a"
    with epsagon.event("in between"):
        yield b"b"


def reading(environ: Environ, start_response: Any) -> list[bytes]:
    start_response(OK, [])
    return [environ["wsgi.input"].read()]


def tracing(environ: Environ) -> None:
    with epsagon.event("charge") as event, epsagon.trace("inner"):
        event.metadata["card"] = "visa"
    epsagon.label("k", 1)


def stopping(environ: Environ) -> None:
    request = current_trace()
    assert request is not None
    request.send_stop_signal()


def with_flask(rule: Any) -> dict[str, Any]:
    request = types.SimpleNamespace(url_rule=types.SimpleNamespace(rule=rule))
    return {"werkzeug.request": request}


class Body(list[bytes]):
    pass


def streaming(body: Callable[[], Any], status: str = OK, **headers: str) -> Callable[..., Any]:
    """Return an application that makes its body anew for each answer."""

    def app(environ: Environ, start_response: Any) -> Any:
        start_response(status, list(headers.items()))
        return body()

    return app


def failing(pieces: list[bytes]) -> Iterator[bytes]:
    yield from pieces
    raise ValueError("no more")


class Response:
    """As Django's: it can be iterated over, and is to be closed."""

    def __init__(self, pieces: Any = (b"a", b"bc"), failure: BaseException | None = None) -> None:
        self.pieces = pieces
        self.failure = failure

    def __iter__(self) -> Iterator[bytes]:
        epsagon.label("iterated", anywhere() is not None)
        return iter(self.pieces)

    def close(self) -> None:
        epsagon.label("closed", anywhere() is not None)
        if self.failure is not None:
            raise self.failure


class Closing(Response):
    """As Werkzeug's: an iterator that is to be closed."""

    def __init__(self, pieces: Any = (b"a", b"bc"), failure: BaseException | None = None) -> None:
        super().__init__(iter(pieces), failure)

    def __next__(self) -> bytes:
        epsagon.label("taken", anywhere() is not None)
        piece: bytes = next(self.pieces)
        return piece


class Indexed:
    """The oldest form of what can be iterated over. An answer that may fail to give its `close`."""

    @property
    def close(self) -> None:
        raise ValueError

    def __getitem__(self, index: int) -> bytes:
        return [b"a", b"b"][index]


class Input:
    def read(self) -> bytes:
        return b"posted"


# What the server brings, what the application does, and what of it Python does.
SCENES: dict[str, tuple[dict[str, Any], Callable[..., Any], list[str]]] = {
    "usual": ({}, hello, []),
    "several pieces": ({}, answering([b"a", b"", b"bc"]), []),
    "no piece": ({}, answering([]), []),
    "traced inside": ({}, answering([b"a"], act=tracing), []),
    "a caller": ({"HTTP_TRACEPARENT": TRACEPARENT}, hello, []),
    "a caller with a state": ({"HTTP_TRACEPARENT": TRACEPARENT, "HTTP_TRACESTATE": "a=b"}, hello, []),
    "a broken caller": ({"HTTP_TRACEPARENT": "00-broken"}, hello, []),
    "HEAD": ({"REQUEST_METHOD": "HEAD"}, hello, []),
    "204": ({}, answering([b"a"], "204 No Content"), []),
    "304": ({}, answering([], "304 Not Modified"), []),
    "404": ({}, answering([b"a"], "404 Not Found"), []),
    "an error": ({}, answering([b"a"], "503 Later"), ["end"]),
    "a status alone": ({}, answering([b"a"], "200"), []),
    "no status": ({}, answering([b"a"], "OK"), []),
    "a long status": ({}, answering([b"a"], "2000 OK"), ["end"]),
    "a status in other digits": ({}, answering([b"a"], "２００ OK"), []),
    "a status with a name": ({}, answering([b"a"], "200 größer"), []),
    "a small status": ({}, answering([b"a"], "000 None"), []),
    "a status in bytes": ({}, answering([b"a"], b"200 OK"), []),  # type: ignore[arg-type]
    "posted": ({"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "6", "wsgi.input": Input()}, reading, []),
    "chunked": ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": Input()}, reading, []),
    "no length": ({"CONTENT_LENGTH": ""}, hello, []),
    "a number for a length": ({"CONTENT_LENGTH": 6, "wsgi.input": Input()}, reading, []),
    "a length of nothing": ({"CONTENT_LENGTH": "0"}, hello, []),
    "a broken length": ({"CONTENT_LENGTH": "x"}, hello, []),
    "below a script": ({"SCRIPT_NAME": "/s"}, hello, []),
    "no path": ({"PATH_INFO": None}, hello, []),
    "a path in UTF-8": ({"PATH_INFO": "/größe".encode().decode("latin-1")}, hello, ["begin", "end"]),
    "a path to be escaped": ({"PATH_INFO": '/"\\\x01'}, hello, []),
    "a path that is none": ({"PATH_INFO": "/\ud800"}, hello, ["begin", "end"]),
    "no host": ({"HTTP_HOST": None, "SERVER_NAME": "s"}, hello, []),
    "an empty host": ({"HTTP_HOST": "", "SERVER_NAME": "s"}, hello, []),
    "a host that is none": ({"HTTP_HOST": "\ud800"}, hello, []),
    "no method": ({"REQUEST_METHOD": None}, hello, []),
    "no server": ({"SERVER_SOFTWARE": None}, hello, []),
    "Flask's route": (with_flask("/a/<b>"), hello, []),
    "Flask's route that is none": (with_flask("/\ud800"), hello, ["end"]),
    "no route of Flask's": (with_flask(""), hello, []),
    "mounted": ({}, answering([b"a"], act=lambda environ: environ.update(SCRIPT_NAME="/m")), []),
    "a number for the answer's length": ({}, streaming(lambda: iter([b"a"]), **{"Content-Length": 1}), []),
    "bytes for headers": ({}, answering([b"a"], headers=[(b"a", b"b"), 5]), []),
    "a tuple": ({}, answering((b"a", b"b")), ["end"]),
    "bytes": ({}, answering(b"ab"), ["end"]),
    "a list of its own": ({}, answering(Body([b"a"])), ["end"]),
    "no bytes": ({}, answering(["a", 1]), ["end"]),
    "nothing": ({}, answering(None), ["end"]),
    "a generator": ({}, generating, []),
    "a generator that fails at once": ({}, streaming(lambda: failing([])), []),
    "a generator that fails": ({}, streaming(lambda: failing([b"a"])), []),
    "a generator of no bytes": ({}, streaming(lambda: iter([None, "a"])), []),
    "a generator for a file's wrapper": ({"wsgi.file_wrapper": FileWrapper}, generating, []),
    "a generator for a server's function": ({"wsgi.file_wrapper": hello}, generating, ["end"]),
    "a generator, HEAD": ({"REQUEST_METHOD": "HEAD"}, generating, []),
    "a generator, 404": ({}, streaming(lambda: iter([b"a"]), "404 Not Found"), []),
    "a generator, 503": ({}, streaming(lambda: iter([b"a"]), "503 Later"), []),
    "a file": ({"wsgi.file_wrapper": FileWrapper}, streaming(lambda: FileWrapper(io.BytesIO(b"abc"))), ["end"]),
    "a body with a length": ({}, streaming(lambda: UserList([b"a"])), ["end"]),
    "nothing to iterate over": ({}, streaming(object), ["end"]),
    "written": ({}, writing, ["end"]),
    "corrected": ({}, correcting, ["end"]),
    "by keyword": ({}, by_keyword, []),
    "twice": ({}, twice, []),
    "misused": ({}, misusing, []),
    "never started": ({}, lambda environ, start_response: [b"a"], []),
    "stopped": ({}, answering([b"a"], act=stopping), ["end"]),
    "an own error": ({}, answering([b"a"], act=lambda environ: epsagon.error("mine")), ["end"]),
    "an error of the application": ({}, raising(ValueError("no")), []),
    "an interruption": ({}, raising(KeyboardInterrupt()), []),
    "an end": ({}, raising(SystemExit(0)), []),
    "over the socket": ({}, raising(StopIteration()), []),
    "two middlewares": ({}, TracingMiddleware(hello), ["begin"]),
    "an own key": ({KEY: "other"}, lambda environ, start_response: [b"a"], ["begin"]),
}


@pytest.mark.parametrize("scene", SCENES)
def test_records_are_those_of_the_long_way(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str], scene: str
) -> None:
    environ, app, by_python = SCENES[scene]
    answer, at_once = Server(**environ).ask(app), told(read())
    assert steps == by_python
    assert not process.open_traces
    step_by_step(monkeypatch)
    assert Server(**environ).ask(app) == answer
    assert but_stacks(told(read())) == but_stacks(at_once)
    assert not process.open_traces
    assert not process.refusals()


# What an application returns that a server iterates over.
STREAMS: dict[str, Callable[[], Any]] = {
    "an iterator": lambda: iter([b"a", b"bc"]),
    "a generator": lambda: (piece for piece in (b"a", b"bc")),
    "one that fails": lambda: failing([b"a"]),
    "nothing": lambda: iter(()),
    "Django's": Response,
    "Werkzeug's": Closing,
    "Django's that fails": lambda: Response(failing([b"a"])),
    "Werkzeug's that fails": lambda: Closing(failing([b"a"])),
    "Werkzeug's that is interrupted": lambda: Closing(map(raising(KeyboardInterrupt()), [{}], [lambda *_: None])),
    "Django's that cannot close": lambda: Response(failure=ValueError("stuck")),
    "Werkzeug's that cannot close": lambda: Closing(failure=SystemExit(3)),
    "one that cannot be iterated over": lambda: Response(0),
    "one with indices": Indexed,
}


def leave(body: Any) -> None:
    """Never close it."""


def close(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


def close_twice(body: Any) -> None:
    close(body)
    close(body)


def close_failing(error: type[BaseException]) -> Callable[[Any], None]:
    def fail(body: Any) -> None:
        try:
            raise error
        except error:
            close(body)

    return fail


# How a server ends.
ENDS = {
    "never closed": leave,
    "closed": close,
    "closed twice": close_twice,
    "the client gone": close_failing(BrokenPipeError),
    "the server failing": close_failing(LookupError),
}


def taken(app: Any, environ: Environ, count: int, end: Callable[[Any], None], again: bool) -> list[Any]:
    """Take so many pieces as a server does. again: as one that counts them first. Return what there was to see."""
    server = Server(**environ)
    try:
        body = TracingMiddleware(app)(server.environ, server.start_response)
        try:
            iterators = [iter(body), iter(body)] if again else [iter(body)]
            for _ in range(count):
                server.told += [next(each, "the end") for each in iterators]
            server.told += [hasattr(body, name) for name in ("__len__", "pieces", "_pieces", "filelike")]
        finally:
            end(body)
    except BaseException as error:
        server.told += [type(error).__name__, str(error)]
        # It holds this frame, which holds the body, which may hold the error.
        error.__traceback__ = None
    assert anywhere() is None
    return server.told


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("server", ["a server", None])
@pytest.mark.parametrize("length", ["", "1", "3"])
@pytest.mark.parametrize("body", STREAMS)
def test_streamed_answer_has_the_records_of_the_long_way(
    read: Read, monkeypatch: pytest.MonkeyPatch, body: str, length: str, server: str | None, again: bool
) -> None:
    headers = {"Content-Length": length} if length else {}
    app = streaming(STREAMS[body], **headers)
    for end in ENDS.values():
        for number in range(4):
            words = (app, {"SERVER_SOFTWARE": server}, number, end, again)
            answer, at_once = taken(*words), told(read())
            assert not process.open_traces
            with pytest.MonkeyPatch.context() as patch:
                step_by_step(patch)
                assert taken(*words) == answer
            assert but_stacks(told(read())) == but_stacks(at_once)
            assert not process.open_traces


@pytest.mark.parametrize("body", ["Django's", "Werkzeug's"])
def test_streamed_answer_may_be_served_by_another_thread(read: Read, body: str) -> None:
    server = Server()
    answer = TracingMiddleware(streaming(STREAMS[body]))(server.environ, server.start_response)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(lambda: [*answer]).result() == [b"a", b"bc"]
        thread.submit(close, answer).result()
        assert thread.submit(anywhere).result() is None
    labels = [said for kind, *_, said in told(read()) if kind == "LABEL"]
    assert ["closed", True] in labels and all(said is True for _, said in labels)
    assert not process.open_traces


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("body", STREAMS)
def test_streamed_answer_takes_attributes_of_a_middleware_around(
    read: Read, monkeypatch: pytest.MonkeyPatch, body: str, is_closed: bool
) -> None:
    def serve() -> list[str]:
        closed: list[str] = []
        server = Server()
        answer: Any = TracingMiddleware(streaming(STREAMS[body]))(server.environ, server.start_response)
        close = answer.close

        def outer() -> None:
            closed.append("outer")
            close()

        answer.close, answer.mine = outer, "mine"
        assert (answer.mine, answer.close, vars(answer)["mine"]) == ("mine", outer, "mine")
        del answer.mine
        assert not hasattr(answer, "mine")
        with pytest.raises(TypeError, match="copied"):
            copy.copy(answer)
        if is_closed:
            with contextlib.suppress(ValueError, SystemExit):
                answer.close()
        return closed

    assert serve() == ["outer"] * is_closed
    # The body holds its `close`, which holds the body.
    gc.collect()
    assert not process.open_traces
    at_once = but_stacks(told(read()))
    step_by_step(monkeypatch)
    assert serve() == ["outer"] * is_closed
    gc.collect()
    assert not process.open_traces
    assert but_stacks(told(read())) == at_once


AGAIN = ["usual", "an error", "a tuple", "a generator", "a file", "an error of the application", "an interruption"]


@pytest.mark.parametrize("scene", AGAIN)
@pytest.mark.parametrize("way", ["at once", "step by step", "sampling", "leaving out"])
def test_second_call_with_one_environ_is_a_trace_of_its_own(
    read: Read, monkeypatch: pytest.MonkeyPatch, scene: str, way: str
) -> None:
    """As of a middleware around ours that tries again. Within one request a second middleware makes no trace."""
    if way == "leaving out":
        epsagon.init(sample_rate=1e-12)
    else:
        WAYS[way](monkeypatch)
    environ, app, _ = SCENES[scene]
    server = Server(**environ)
    for _ in range(2):
        server.ask(TracingMiddleware(app))
        assert KEY not in server.environ
        assert [kind for kind, *_ in told(read())].count("OPEN") == (way != "leaving out")


@pytest.mark.parametrize("body", ["Django's", "Werkzeug's"])
def test_streamed_answer_in_garbage_ends_its_trace(read: Read, body: str) -> None:
    def hold() -> Iterator[Any]:
        server = Server()
        kept: list[Any] = []
        kept += [kept, TracingMiddleware(streaming(STREAMS[body]))(server.environ, server.start_response)]
        yield

    gc.collect()
    next(hold())
    gc.collect()
    assert not process.open_traces
    assert [kind for kind, *_ in told(read())] == ["OPEN", "RUNNER", "CLOSE"]


TEXTS = st.text(st.characters(codec="latin-1"), max_size=8)
PIECES = st.lists(st.binary(max_size=5), max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    environ=st.fixed_dictionaries(
        {},
        optional={
            "REQUEST_METHOD": st.sampled_from(["GET", "HEAD", "POST"]) | TEXTS,
            "PATH_INFO": TEXTS,
            "SCRIPT_NAME": TEXTS,
            "HTTP_HOST": TEXTS,
            "CONTENT_LENGTH": TEXTS | st.integers(0, 10**20).map(str),
            "HTTP_TRACEPARENT": st.just(TRACEPARENT) | TEXTS,
        },
    ),
    status=st.integers(0, 999).map(lambda number: f"{number:03d} x") | TEXTS,
    pieces=PIECES,
)
def test_any_request_has_the_records_of_the_long_way(
    read: Read, environ: Environ, status: str, pieces: list[bytes]
) -> None:
    read()
    app = answering(pieces, status)
    answer, at_once = Server(**environ).ask(app), told(read())
    with pytest.MonkeyPatch.context() as patch:
        step_by_step(patch)
        assert Server(**environ).ask(app) == answer
    assert told(read()) == at_once


def public(request: Any) -> dict[str, Any]:
    """Return what a request knows but for ids, times and places."""
    kinds = type(request).__mro__
    names = {name for kind in kinds for name, value in vars(kind).items() if not callable(value)}
    own = {"trace_id", "span_id", "_id", "_opened_ns", "_runner", "_own_runner", "_place", "place", "_beacon"}
    own |= {"_answered_ns", "_ended_ns", "_environ", "_start_response", "_server_write", "runner_event", "path"}
    return {name: getattr(request, name, None) for name in names - own if not name.startswith("__")}


def test_request_knows_what_one_of_the_class_knows(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[dict[str, Any]] = []
    for _ in range(2):
        begun: list[dict[str, Any]] = []
        server = Server(CONTENT_LENGTH="6", **{"wsgi.input": Input()})
        requests: list[Any] = []

        def act(_: Environ, begun: list[dict[str, Any]] = begun, requests: list[Any] = requests) -> None:
            requests.append(current_trace())
            begun.append(public(requests[0]))

        server.ask(answering([b"a"], act=act))
        known += begun
        known.append(public(requests[0]))
        step_by_step(monkeypatch)
    payloads = [each.pop("_request_body") for each in known]
    assert [type(payload).__name__ for payload in payloads] == ["Payload"] * 4
    assert known[:2] == known[2:]
    assert (known[0]["_state"], known[1]["_state"]) == (OPEN, CLOSED)


@pytest.mark.parametrize("what", UNUSUAL)
def test_whatever_is_unusual_is_left_to_python(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str], what: str
) -> None:
    UNUSUAL[what](monkeypatch)
    for _ in range(2):
        Server().ask(lambda environ, start_response: [b"a"])
    assert steps.count("begin") == 2


def test_environ_of_another_class_is_left_to_python(read: Read, steps: list[str]) -> None:
    class Mapping(dict[str, Any]):
        pass

    server = Server()
    server.environ = Mapping(server.environ)
    assert server.ask(hello)[-1] == b"hello"
    assert steps == ["begin", "end"]


def test_status_that_is_an_error_by_the_environment_is_one(
    read: Read, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    monkeypatch.setenv(choices.LOWEST_ERROR, "404")
    choices.said_lowest_error.cache_clear()
    try:
        Server().ask(answering([b"a"], "404 Not Found"))
        Server().ask(answering([b"a"], "403 Forbidden"))
    finally:
        choices.said_lowest_error.cache_clear()
    assert steps == ["end"]
    codes = [said["error_code"] for kind, _, _, said in told(read()) if kind == "RUNNER" and "error_code" in said]
    assert codes == [1]


def test_full_ring_refuses_a_request(read: Read, steps: list[str]) -> None:
    while not process.refusals():
        Server().ask(answering([b"a"], act=lambda environ: epsagon.label("k", "v" * 60_000)))
    assert not process.open_traces
    kinds = [kind for kind, *_ in told(read())]
    assert kinds.count("OPEN") == kinds.count("CLOSE")


def test_forked_child_that_answers_closes_nothing_of_its_parent(read: Read) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response(OK, [])
        child = os.fork()
        if not child:
            return [b"child"]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return [b"parent"]

    parent = os.getpid()
    answer = Server().ask(app)
    if os.getpid() != parent:
        os._exit(answer[-1] != b"child")
    assert answer[-1] == b"parent"
    assert [kind for kind, *_ in told(read())] == ["OPEN", "RUNNER", "CLOSE"]


# In which ways a request is answered.
WAYS: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "at once": lambda patch: None,
    "with Django": lambda patch: patch.setitem(sys.modules, DJANGO, types.ModuleType(DJANGO)),
    "step by step": step_by_step,
    "endpoints to ignore": ignoring,
    "values": lambda patch: epsagon.init(metadata_only=False),
    # The head looks at each trace, and leaves out none or all.
    "sampling": lambda patch: epsagon.init(sample_rate=1 - 1e-12),
    "strict": lambda patch: epsagon.init(privacy="strict"),
}
# What must leave nothing open and nothing current, whenever an alarm comes.
INTERRUPTED = ["usual", "traced inside", "a caller with a state", "posted", "an error", "a generator", "an own error"]


@pytest.mark.parametrize("scene", INTERRUPTED)
@pytest.mark.parametrize("way", WAYS)
def test_interruption_leaves_nothing_open_and_nothing_current(
    read: Read, monkeypatch: pytest.MonkeyPatch, scene: str, way: str
) -> None:
    """An alarm may come at each step of Python code."""
    WAYS[way](monkeypatch)
    environ, answer, _ = SCENES[scene]

    def once() -> None:
        server = Server(**environ)
        app = TracingMiddleware(answer)
        body = app(server.environ, server.start_response)
        if hasattr(body, "close"):
            body.close()

    once()
    for place in at_each_step(once):
        assert anywhere() is None, place
        assert not process.open_traces, place
        read()


@pytest.mark.parametrize("scene", [*INTERRUPTED, "several pieces", "a file", "a tuple", "written", "traced inside"])
@pytest.mark.parametrize("way", WAYS)
def test_request_leaves_nothing_to_the_garbage_collector(
    read: Read, monkeypatch: pytest.MonkeyPatch, scene: str, way: str
) -> None:
    """As with the servers whose `start_response` is a method of what holds the environ, which most are."""
    WAYS[way](monkeypatch)
    environ, answer, _ = SCENES[scene]
    app = TracingMiddleware(answer)

    def once() -> None:
        server = Server(**environ)
        body = app(server.environ, server.start_response)
        assert [*body] or scene
        close(body)

    once()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            once()
        assert gc.collect() == 0
    finally:
        gc.enable()
