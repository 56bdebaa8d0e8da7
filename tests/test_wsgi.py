"""The WSGI middleware: in memory for what it records, wsgiref's checker for PEP 3333, real servers for their habits."""

import gc
import http.client
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from places import until
from waiting import TIMEOUT_S

import epsagon_fast as epsagon
from epsagon_fast.compiled import REFERENCE
from epsagon_fast.integrations.web.request import KEY
from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.producer.current import current_trace
from epsagon_fast.producer.fast_path import PureFastPath
from epsagon_fast.queue import ring
from epsagon_fast.testing import capture_traces

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def environ_of(path: str = "/", **more: Any) -> dict[str, Any]:
    server = {"HTTP_HOST": "shop.example:8080", "SERVER_SOFTWARE": "a server"}
    environ: dict[str, Any] = {"PATH_INFO": path, **server, **more}
    setup_testing_defaults(environ)
    return environ


def ask(app: Any, path: str = "/", **more: Any) -> bytes:
    """Do what a server does with one request."""
    body = app(environ_of(path, **more), lambda status, headers, exc_info=None: lambda data: None)
    try:
        return b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()


def answer_of(app: Any, path: str = "/", **more: Any) -> Any:
    """Return what a server gets to send."""
    return TracingMiddleware(app)(environ_of(path, **more), lambda status, headers, exc_info=None: lambda data: None)


@pytest.fixture
def traces(untraced: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("EPSAGON_TOKEN", "t")
    with capture_traces() as captured:
        yield captured


def runner(traces: list[dict[str, Any]]) -> dict[str, Any]:
    """The runner of the only trace."""
    [trace] = traces
    event: dict[str, Any] = trace["events"][-1]
    return event


def metadata(traces: list[dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = runner(traces)["resource"]["metadata"]
    return found


# What is recorded.


def test_request_is_one_trace(traces: list[dict[str, Any]]) -> None:
    assert ask(TracingMiddleware(hello), "/cart", REQUEST_METHOD="POST", CONTENT_LENGTH="12") == b"hello"
    event = runner(traces)
    assert event["origin"] == "runner"
    assert (event["error_code"], event["exception"]) == (0, None)
    assert event["duration"] > 0
    assert event["resource"] == {
        "name": "shop.example:8080",
        "type": "http",
        "operation": "POST",
        "metadata": {
            "path": "/cart",
            "request_bytes": "12",
            "response_bytes": "5",
            "status_code": "200",
            "labels": "{}",
        },
    }


@pytest.mark.skipif(ring.IMPLEMENTATION == REFERENCE, reason="the ring in plain Python asks the kernel each time")
def test_a_request_does_not_ask_the_kernel_for_its_process(
    traces: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = TracingMiddleware(hello)
    ask(app)
    asked: list[None] = []
    monkeypatch.setattr(os, "getpid", lambda: asked.append(None) or 1)
    ask(app)
    assert len(traces) == 2
    assert not asked


def test_a_request_needs_no_dict_for_what_each_sets(traces: list[dict[str, Any]]) -> None:
    requests: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        requests.append(current_trace())
        start_response("200 OK", [])
        return [b"hello"]

    assert ask(TracingMiddleware(app), "/items") == b"hello"
    assert vars(requests[0]).keys() <= vars(PureFastPath).keys()


def test_path_has_the_script_name_and_is_decoded(traces: list[dict[str, Any]]) -> None:
    ask(TracingMiddleware(hello), "/größe".encode().decode("latin-1"), SCRIPT_NAME="/shop")
    assert metadata(traces)["path"] == "/shop/größe"


def test_server_name_stands_for_a_missing_host(traces: list[dict[str, Any]]) -> None:
    ask(TracingMiddleware(hello), HTTP_HOST="", SERVER_NAME="unix")
    assert runner(traces)["resource"]["name"] == "unix"


def test_what_the_application_traces_belongs_to_its_request(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        epsagon.label("user", 42)
        with epsagon.event("query"):
            yield b"a"
        with epsagon.trace("inner"):
            yield b"b"

    ask(TracingMiddleware(app))
    [trace] = traces
    assert [event["resource"]["name"] for event in trace["events"]] == ["query", "inner", "shop.example:8080"]
    assert metadata(traces)["labels"] == '{"user":42}'


def test_trace_is_current_only_while_the_application_runs(traces: list[dict[str, Any]]) -> None:
    seen = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(2):
                seen.append(current_trace())
                yield b""

        def close(self) -> None:
            seen.append(current_trace())

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        seen.append(current_trace())
        return Body()

    answer = TracingMiddleware(app)(environ_of(), lambda *_: lambda data: None)
    for _ in answer:
        assert current_trace() is None
    answer.close()  # type: ignore[attr-defined]
    assert current_trace() is None
    assert len(seen) == 4 and len(set(seen)) == 1 and seen[0] is not None


def test_streamed_bytes_are_counted_and_written_ones_too(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [])
        write(b"12")
        yield b"345"
        yield b""
        yield b"6"

    ask(TracingMiddleware(app))
    assert metadata(traces)["response_bytes"] == "6"


def test_duration_ends_with_the_body_not_with_what_follows(
    traces: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(clock[0] * 1e9))

    class Body(list[bytes]):
        def close(self) -> None:
            clock[0] += 50

    def app(environ: Any, start_response: Any) -> Body:
        clock[0] += 2
        start_response("200 OK", [])
        return Body([b"x"])

    ask(TracingMiddleware(app))
    assert runner(traces)["duration"] == 2.0


def test_request_body_of_unknown_length_is_counted_as_it_is_read(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["wsgi.input"]
        stream.seek(0)  # what else it can do is there
        stream.read(1), stream.readline(), stream.readlines()
        start_response("200 OK", [])
        return []

    body = io.BytesIO(b"one\ntwo\nthree\n")
    ask(TracingMiddleware(app), HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="", **{"wsgi.input": body})
    assert metadata(traces)["request_bytes"] == "14"


def test_callers_trace_id_is_a_strong_key(traces: list[dict[str, Any]]) -> None:
    ask(TracingMiddleware(hello), HTTP_TRACEPARENT=f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    assert metadata(traces)["http_trace_id"] == TRACE_ID


@pytest.mark.parametrize("value", ["nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01"])
def test_invalid_traceparent_is_no_trace_id(traces: list[dict[str, Any]], value: str) -> None:
    ask(TracingMiddleware(hello), HTTP_TRACEPARENT=value)
    assert "http_trace_id" not in metadata(traces)


@pytest.mark.parametrize("value", [None, b"/b", 7, ["l"]])
@pytest.mark.parametrize(
    "key",
    ["SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_TRACEPARENT", "HTTP_TRACESTATE", "HTTP_HOST", "REQUEST_METHOD"],
)
def test_environ_that_is_no_text_reaches_the_application(traces: list[dict[str, Any]], key: str, value: Any) -> None:
    epsagon.init(metadata_only=False)
    seen = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ[key])
        environ["SCRIPT_NAME"] = "/mounted"
        return hello(environ, start_response)

    assert ask(TracingMiddleware(app), **{"HTTP_TRACEPARENT": "nonsense", key: value}) == b"hello"
    assert seen == [value]
    assert metadata(traces)["status_code"] == "200"


# Errors.


def test_exception_goes_on_its_way_and_is_recorded(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError):
        ask(TracingMiddleware(app))
    event = runner(traces)
    assert event["error_code"] == 2
    assert (event["exception"]["type"], event["exception"]["message"]) == ("ZeroDivisionError", "oh")
    assert 'raise ZeroDivisionError("oh")' in event["exception"]["traceback"]
    assert metadata(traces)["status_code"] == "500"


def test_exception_in_the_middle_of_a_body_is_recorded(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"half"
        raise ValueError("rest")

    with pytest.raises(ValueError):
        ask(TracingMiddleware(app))
    assert runner(traces)["exception"]["type"] == "ValueError"
    found = metadata(traces)
    assert (found["status_code"], found["response_bytes"]) == ("200", "4")
    assert "client_closed" not in found


def test_exception_in_close_is_recorded(traces: list[dict[str, Any]]) -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise KeyError("closing")

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return Body()

    with pytest.raises(KeyError):
        ask(TracingMiddleware(app))
    assert runner(traces)["exception"]["type"] == "KeyError"


def test_exception_that_the_application_turned_into_an_answer_is_recorded(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            raise ValueError("handled")
        except ValueError:
            start_response("500 Oh", [], sys.exc_info())
            return [b"sorry"]

    ask(TracingMiddleware(app))
    event = runner(traces)
    assert (event["error_code"], event["exception"]["message"]) == (2, "handled")
    assert "raise ValueError" in event["exception"]["traceback"]


def test_status_of_a_server_error_is_an_error(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("503 Service Unavailable", [])
        return []

    ask(TracingMiddleware(app))
    event = runner(traces)
    assert event["error_code"] == 1
    assert (event["exception"]["type"], event["exception"]["message"]) == ("HTTPStatus", "503 Service Unavailable")


def test_status_of_a_clients_error_is_none(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return []

    ask(TracingMiddleware(app))
    event = runner(traces)
    assert (event["error_code"], event["exception"]) == (0, None)
    assert metadata(traces)["status_code"] == "404"


def test_applications_own_word_on_the_error_counts(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        epsagon.error("sold out")
        start_response("500 Oh", [])
        return []

    ask(TracingMiddleware(app))
    assert runner(traces)["exception"]["message"] == "sold out"


def test_worker_that_leaves_in_the_middle_makes_the_request_unfinished(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        ask(TracingMiddleware(app))
    assert runner(traces)["error_code"] == 0
    assert metadata(traces)["unfinished"] == "true"


def test_client_that_leaves_is_no_error(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"1"
        yield b"2"

    answer = TracingMiddleware(app)(environ_of(), lambda *_: lambda data: None)
    with pytest.raises(BrokenPipeError):
        try:
            for _ in answer:
                raise BrokenPipeError
        finally:
            answer.close()  # type: ignore[attr-defined]
    assert runner(traces)["error_code"] == 0
    found = metadata(traces)
    assert (found["client_closed"], found["response_bytes"]) == ("true", "1")


# What people send.


def values(traces: list[dict[str, Any]], app: Any = hello, **config: Any) -> dict[str, str]:
    """Let a form be posted with `metadata_only` off; return the metadata."""
    epsagon.init(metadata_only=False, **config)
    body = config.pop("body", b"user=ann&password=s3cret")
    ask(
        TracingMiddleware(app),
        QUERY_STRING="q=shoes&pin=1234&q=boots",
        REQUEST_METHOD="POST",
        CONTENT_TYPE="application/x-www-form-urlencoded",
        CONTENT_LENGTH=str(len(body)),
        HTTP_AUTHORIZATION="Bearer s3cret",
        HTTP_COOKIE="session=s3cret",
        HTTP_X_API_KEY="s3cret",
        **{"wsgi.input": io.BytesIO(body)},
    )
    return metadata(traces)


def reads(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Set-Cookie", "session=s3cret")])
    return [b'{"name":"ann",', b'"password":"s3cret"}']


def test_nothing_that_people_send_is_recorded_by_default(traces: list[dict[str, Any]]) -> None:
    ask(TracingMiddleware(hello), QUERY_STRING="q=secret", HTTP_X="secret", **{"wsgi.input": io.BytesIO(b"secret")})
    assert "secret" not in json.dumps(traces)


def test_query_headers_and_bodies_are_recorded_if_wanted(traces: list[dict[str, Any]]) -> None:
    found = values(traces, reads, default_ignored_keys=False)
    assert json.loads(found["query"]) == {"q": ["shoes", "boots"], "pin": "1234"}
    headers = json.loads(found["request_headers"])
    assert headers["host"] == "shop.example:8080"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert json.loads(found["request_body"]) == {"user": "ann", "password": "s3cret"}
    assert json.loads(found["response_headers"])["content-type"] == "application/json"
    assert json.loads(found["response_body"]) == {"name": "ann", "password": "s3cret"}


def test_headers_that_are_secrets_are_never_recorded(traces: list[dict[str, Any]]) -> None:
    found = values(traces, reads)
    headers = json.loads(found["request_headers"])
    assert headers["authorization"] == headers["cookie"] == "****"
    assert json.loads(found["response_headers"])["set-cookie"] == "****"


def test_ignored_keys_apply_to_all_of_it(traces: list[dict[str, Any]]) -> None:
    values(traces, reads, ignored_keys=["password", "pin", "X-Api-Key"])
    text = json.dumps(traces)
    assert "s3cret" not in text and "1234" not in text
    assert "ann" in text and "shoes" in text


@pytest.mark.parametrize("body", [b'{"password":"s3cret","x":"' + b"x" * 2000 + b'"}', b"password is s3cret"])
def test_body_that_cannot_be_masked_is_left_out(traces: list[dict[str, Any]], body: bytes) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [body]

    found = values(traces, app, ignored_keys=["password"])
    assert found["response_body"] == f"(not shown: {len(body)} bytes that may hold a secret)"


def test_of_a_long_body_only_the_beginning_is_recorded(traces: list[dict[str, Any]]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
        yield from ["é".encode()] * 3000

    found = values(traces, app)
    assert found["response_body"] == "é" * 512
    assert found["response_bytes"] == "6000"


# What is not traced.


def test_ignored_endpoints_are_not_traced(traces: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_ENDPOINTS_TO_IGNORE", "/health, /metrics")
    app = TracingMiddleware(hello)
    for path in ("/health", "/metrics", "/healthy"):
        assert ask(app, path) == b"hello"
    assert metadata(traces)["path"] == "/healthy"


def test_second_middleware_lets_the_first_one_trace(traces: list[dict[str, Any]]) -> None:
    assert ask(TracingMiddleware(TracingMiddleware(hello))) == b"hello"
    assert len(traces) == 1


def test_without_a_token_the_application_answers_by_itself(untraced: None, caplog: pytest.LogCaptureFixture) -> None:
    answers = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert KEY not in environ
        answers.append(answer := [b"own"])
        return answer

    assert TracingMiddleware(app)(environ_of(), lambda *_: None) is answers[0]


# Servers.


def serve(app: Any, handler: type[WSGIRequestHandler] = WSGIRequestHandler) -> WSGIServer:
    class Quiet(handler):  # type: ignore[misc, valid-type]
        def log_message(self, *_: Any) -> None:
            pass

    return make_server("127.0.0.1", 0, app, handler_class=Quiet)


@contextmanager
def running(server: WSGIServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(port: int, path: str = "/", method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def checked(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_middleware_keeps_to_pep_3333(traces: list[dict[str, Any]]) -> None:
    # The checker stands on both sides: it looks at us as a server and as an application.
    with running(serve(validator(TracingMiddleware(validator(checked))))) as port:
        assert fetch(port)[1] == b"hello"
    assert metadata(traces)["response_bytes"] == "5"


def test_server_still_learns_the_length_of_an_answer_in_one_piece(traces: list[dict[str, Any]]) -> None:
    with running(serve(TracingMiddleware(checked))) as port:
        assert fetch(port)[0].getheader("content-length") == "5"


def test_gevents_server_adds_up_the_pieces_first(traces: list[dict[str, Any]]) -> None:
    from gevent.pywsgi import WSGIServer as GeventServer

    answers: list[tuple[http.client.HTTPResponse, bytes]] = []
    server = GeventServer(("127.0.0.1", 0), TracingMiddleware(checked), log=None)
    server.start()
    thread = threading.Thread(target=lambda: answers.append(fetch(server.server_port)))
    thread.start()
    import gevent

    until(lambda: gevent.sleep(0.01) or answers, "the answer comes")
    thread.join()
    server.stop(timeout=1)
    # Its event loop's descriptors would be found open at the end of the process.
    gevent.get_hub().destroy(destroy_loop=True)
    assert (answers[0][0].getheader("content-length"), answers[0][1]) == ("5", b"hello")
    assert metadata(traces)["response_bytes"] == "5"


def test_files_keep_the_servers_wrapper(traces: list[dict[str, Any]]) -> None:
    closed = []

    class File(io.BytesIO):
        def close(self) -> None:
            closed.append(True)
            super().close()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return environ["wsgi.file_wrapper"](File(b"file"))

    answer = TracingMiddleware(app)(
        environ_of(**{"wsgi.file_wrapper": FileWrapper}), lambda status, headers: lambda data: None
    )
    assert type(answer) is FileWrapper
    assert b"".join(answer) == b"file"
    answer.close()
    assert closed
    assert metadata(traces)["response_bytes"] == "4"


@pytest.mark.parametrize(
    ("error", "code", "closed"), [(ValueError("disk"), 2, None), (ConnectionResetError("gone"), 0, "true")]
)
def test_file_that_is_not_sent_whole_says_so(
    traces: list[dict[str, Any]], error: Exception, code: int, closed: str | None
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"file"), 3)

    answer = TracingMiddleware(app)(
        environ_of(**{"wsgi.file_wrapper": FileWrapper}), lambda status, headers: lambda data: None
    )
    assert isinstance(answer, FileWrapper)
    with pytest.raises(type(error)):
        # As servers do.
        try:
            next(answer)
            raise error
        finally:
            answer.close()
    # How much of it was sent nobody says.
    assert metadata(traces)["response_bytes"] == "0"
    assert metadata(traces).get("client_closed") == closed
    assert runner(traces)["error_code"] == code


@pytest.mark.parametrize(("method", "size"), [("GET", "4"), ("HEAD", "0")])
def test_file_of_unknown_length_is_measured(traces: list[dict[str, Any]], method: str, size: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        file = io.BytesIO(b"a file")
        file.seek(2)
        return environ["wsgi.file_wrapper"](file)

    # gunicorn's sendfile leaves the file where it was.
    answer = TracingMiddleware(app)(
        environ_of(**{"wsgi.file_wrapper": FileWrapper, "REQUEST_METHOD": method}), lambda *_: lambda data: None
    )
    answer.close()  # type: ignore[attr-defined]
    assert metadata(traces)["response_bytes"] == size


def test_client_that_leaves_while_the_application_writes_is_no_error(traces: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"1234")
        write(b"5678")
        return []

    pieces = []

    def gone(data: bytes) -> None:
        if pieces:
            raise ConnectionResetError
        pieces.append(data)

    with pytest.raises(ConnectionResetError):
        TracingMiddleware(app)(environ_of(), lambda *_: gone)
    assert (metadata(traces)["client_closed"], metadata(traces)["response_bytes"]) == ("true", "4")
    assert runner(traces)["error_code"] == 0


def test_input_may_be_read_in_every_way_of_the_servers_object(traces: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        with environ["wsgi.input"] as stream:
            return [next(stream), stream.read(1), *stream]

    body = io.BytesIO(b"a\nbc\nd")
    assert ask(TracingMiddleware(app), HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input": body}) == b"a\nbc\nd"
    assert metadata(traces)["request_bytes"] == "6"


def test_client_that_hangs_up_on_a_real_server(traces: list[dict[str, Any]]) -> None:
    asked, gone = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        asked.set()
        assert gone.wait(60)
        # The first pieces may still fit into the socket's buffer.
        for _ in range(1000):
            yield b"x" * 65536

    class Handler(WSGIRequestHandler):
        def get_stderr(self) -> Any:
            return io.StringIO()

    with running(serve(TracingMiddleware(app), Handler)) as port:
        client = socket.create_connection(("127.0.0.1", port), 10)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert asked.wait(60)
        client.close()
        gone.set()
        until(lambda: traces, "the trace ends")
    assert metadata(traces)["client_closed"] == "true"
    assert runner(traces)["error_code"] == 0


def test_request_leaves_nothing_to_the_garbage_collector(traces: list[dict[str, Any]]) -> None:
    app = TracingMiddleware(hello)
    ask(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            ask(app)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_application_that_had_the_connection_to_itself_has_not_failed(traces: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise StopIteration

    with pytest.raises(StopIteration):
        ask(TracingMiddleware(app))
    assert runner(traces)["error_code"] == 0
    assert "unfinished" not in metadata(traces) and "status_code" not in metadata(traces)


def test_status_is_the_one_that_the_client_saw(traces: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        try:
            raise KeyError("late")
        except KeyError:
            start_response("500 Oh", [], sys.exc_info())

    def server(status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info:
            raise exc_info[1]

    answer: Any = TracingMiddleware(app)(environ_of(), server)
    with pytest.raises(KeyError):
        list(answer)
    answer.close()
    assert metadata(traces)["status_code"] == "200"
    assert runner(traces)["exception"]["type"] == "KeyError"


def test_status_of_an_answer_that_never_began_is_the_servers(traces: list[dict[str, Any]]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        raise KeyError("after the status")

    with pytest.raises(KeyError):
        ask(TracingMiddleware(app))
    assert metadata(traces)["status_code"] == "500"


def test_ignored_endpoint_runs_in_no_trace(traces: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_ENDPOINTS_TO_IGNORE", "/health")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        epsagon.label("path", environ["PATH_INFO"])
        return hello(environ, start_response)

    with epsagon.trace("the request before"):
        ask(TracingMiddleware(app), "/health")
    assert metadata(traces)["labels"] == "{}"
