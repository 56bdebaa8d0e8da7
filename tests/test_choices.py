"""Which requests are not traced, and which status is an error, as the environment says it."""

from typing import Any

import pytest

from epsagon_fast.integrations import choices
from epsagon_fast.integrations.choices import Urls, ignored_endpoints, ignored_urls, lowest_error
from epsagon_fast.integrations.wsgi import TracingMiddleware
from epsagon_fast.testing import capture_traces


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    lowest_error.cache_clear()
    yield
    lowest_error.cache_clear()


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


def test_without_a_name_no_url_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choices.URLS, " , ")
    assert ignored_urls() is None


@pytest.mark.parametrize(
    ("text", "lowest"), [("", 500), ("404", 404), (" 400 ", 400), ("40", 500), ("x", 500), ("999", 500)]
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
