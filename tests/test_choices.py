"""Which requests are not traced, and which status is an error, as the environment says it."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import propagate as otel_propagate
from opentelemetry import trace as otel

import epsagon_fast as epsagon
from epsagon_fast.integrations import choices
from epsagon_fast.integrations.choices import Urls, ignored_endpoints, ignored_urls, lowest_error, said_lowest_error
from epsagon_fast.integrations.opentelemetry.contexts import keep_apart, keep_as_one
from epsagon_fast.integrations.opentelemetry.provider import SpanProvider
from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.testing import capture_traces


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    said_lowest_error.cache_clear()
    yield
    said_lowest_error.cache_clear()


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        *(("/health", True), ("/health/", False), ("/Health", False), ("/static/a/b.css", True), ("/static", False)),
        *(("/a/ready", True), ("/a/ready/x", False), ("/a.b", False), ("/a/b", True), ("", False), ("/x\ny*z", False)),
    ],
)
def test_paths_are_left_out_by_name_and_by_pattern(
    monkeypatch: pytest.MonkeyPatch, path: str, is_left_out: bool
) -> None:
    monkeypatch.setenv(choices.ENDPOINTS, "/health, /static/*,/**/ready,/a/b,")
    assert (path in ignored_endpoints()) == is_left_out


def test_pattern_is_no_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choices.ENDPOINTS, "/(a+)+*,/[,/.*")
    found = ignored_endpoints()
    assert "/(a+)+x" in found and "/.x" in found and "/ax" not in found


@pytest.mark.parametrize(
    ("host", "path", "is_left_out"),
    [
        *(("api.example.com", "/", True), ("example.org", "/", False), ("db.internal", "/health/x", True)),
        *(("db.internal", "/items", False), ("10.0.0.1", "/Metrics", True)),
    ],
)
def test_urls_are_left_out_by_a_part_of_the_host_and_by_pattern(host: str, path: str, is_left_out: bool) -> None:
    assert Urls(["Example.com", "*.internal/health*", "*/metrics"]).have(host, path) == is_left_out


@pytest.mark.parametrize(
    ("name", "host", "port", "path", "is_left_out"),
    [
        *(("localhost:8080", "localhost", 8080, "/", True), ("localhost:8080", "localhost", 80, "/", False)),
        *(("https://example.com/", "example.com", 443, "/a", True), ("8080", "localhost", 8080, "/", False)),
        *(("example.com/health", "example.com", None, "/health", True), ("*:81/*", "h", 81, "/a", True)),
        *(("example.com/health", "example.com", 443, "/health/a", False), ("/", "example.com", 443, "/", False)),
    ],
)
def test_urls_are_left_out_as_people_write_them(
    name: str, host: str, port: int | None, path: str, is_left_out: bool
) -> None:
    assert Urls([name]).have(host, path, port) == is_left_out


def test_without_a_name_no_url_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choices.URLS, " , ")
    assert ignored_urls() is None


@pytest.mark.parametrize(
    ("text", "lowest"),
    [("", 500), ("404", 404), (" 400 ", 400), ("40", 500), ("x", 500), ("999", 500), ("\u0664\u0660\u0664", 500)],
)
def test_lowest_status_of_an_error_is_said_or_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, lowest: int
) -> None:
    monkeypatch.setenv(choices.LOWEST_ERROR, text)
    assert lowest_error() == lowest
    assert ("is ignored" in caplog.text) == (lowest == 500 and text != "")


def test_status_from_there_on_is_an_error_of_the_request(untraced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return []

    monkeypatch.setenv("EPSAGON_COLLECTOR_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("EPSAGON_TOKEN", "t")
    monkeypatch.setenv(choices.LOWEST_ERROR, "404")
    with capture_traces() as traces:
        answer: Any = TracingMiddleware(missing)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: print)
        list(answer)
    runner = traces[0]["events"][-1]
    assert (runner["error_code"], runner["exception"]["message"]) == (1, "404 Not Found")


@pytest.fixture
def spans(untraced: None) -> Iterator[Any]:
    keep_as_one()
    yield SpanProvider().get_tracer("lib")
    keep_apart()


CLIENT, SERVER = otel.SpanKind.CLIENT, otel.SpanKind.SERVER
LEFT_OUT: Any = [
    *((CLIENT, {"url.full": "http://API.example.com:81/a?b"}), (CLIENT, {"http.url": "https://h.internal/health"})),
    *((SERVER, {"url.path": "/health"}), (SERVER, {"http.target": "/health?a=1"})),
    *((SERVER, {"http.url": "http://x/health"}), (SERVER, {"url.path": "/static/a"})),
]
TRACED: Any = [
    *((CLIENT, {"url.full": "http://example.org/"}), (CLIENT, {"url.full": "http://[bad"}), (CLIENT, {"url.full": 5})),
    *((CLIENT, {"url.path": "/health"}), (SERVER, {"url.full": "http://example.com/"}), (SERVER, {"a": "/health"})),
    *((SERVER, {"http.url": "http://[bad"}), (otel.SpanKind.INTERNAL, {"url.path": "/health"})),
]


@pytest.mark.parametrize(("kind", "attributes"), [*LEFT_OUT, *TRACED], ids=str)
def test_spans_of_requests_are_left_out_with_what_is_inside(
    spans: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, attributes: Any
) -> None:
    monkeypatch.setenv(choices.URLS, "example.com,*.internal/health*")
    monkeypatch.setenv(choices.ENDPOINTS, "/health,/static/*")
    headers: dict[str, str] = {}
    with capture_traces() as traces:
        with spans.start_as_current_span("x", kind=kind, attributes=attributes), spans.start_as_current_span("inside"):
            otel_propagate.inject(headers)
        with otel.use_span(spans.start_span("x", kind=kind, attributes=attributes), end_on_exit=True):
            epsagon.label("inside", 1)
            with spans.start_as_current_span("inside"), epsagon.event("inside"):
                pass
        with spans.start_as_current_span("after"):
            pass
    is_left_out = (kind, attributes) in LEFT_OUT
    assert [trace.runner["resource"]["name"] for trace in traces] == (["after"] if is_left_out else ["x", "x", "after"])
    assert ("traceparent" in headers) != is_left_out


@pytest.mark.parametrize(
    ("said", "kind", "status", "code"),
    [
        *(("404", SERVER, 404, 1), ("404", SERVER, 403, 0), ("", SERVER, 404, 0), ("500", CLIENT, 404, 0)),
        *(("500", CLIENT, 503, 1), ("", CLIENT, 404, 1), ("400", CLIENT, "503", 1), ("x", CLIENT, 404, 1)),
    ],
)
def test_status_from_there_on_is_an_error_of_a_span(
    spans: Any, monkeypatch: pytest.MonkeyPatch, said: str, kind: Any, status: Any, code: int
) -> None:
    monkeypatch.setenv(choices.LOWEST_ERROR, said)
    with capture_traces() as traces, spans.start_as_current_span("x", kind=kind) as span:
        span.set_attribute("http.response.status_code", status)
        if kind is CLIENT:
            # As its instrumentations do from 400 on.
            span.set_status(otel.StatusCode.ERROR)
    assert traces[0].runner["error_code"] == code
