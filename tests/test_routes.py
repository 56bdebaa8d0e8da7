"""The pattern that a request's path matched, with where the application is mounted, and never what matched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, shift_path_info

import pytest
from test_wsgi import ask, hello, metadata, traces
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from epsagon_fast.integrations.wsgi import TracingMiddleware

__all__ = ["traces"]
Traces = list[dict[str, Any]]


def flask_app() -> Any:
    import flask

    app = flask.Flask("shop")
    app.add_url_rule("/items/<int:number>", "item", lambda number: "item")
    return app


@pytest.fixture
def django_app(tmp_path: Path) -> Iterator[Any]:
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse, HttpResponse
    from django.urls import path

    file = tmp_path / "file"
    file.write_bytes(b"four")
    urls = (
        path("items/<int:number>", lambda request, number: HttpResponse("item")),
        path("files/<str:name>", lambda request, name: FileResponse(open(file, "rb"))),  # noqa: SIM115
    )
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="s", USE_TZ=True)
    before = getattr(settings, "ROOT_URLCONF", None)
    settings.ROOT_URLCONF = urls
    import django

    django.setup(set_prefix=False)
    from django.urls import clear_url_caches

    clear_url_caches()
    yield WSGIHandler()
    settings.ROOT_URLCONF = before
    clear_url_caches()


def by_tenant(app: Any) -> Any:
    """As the dispatcher of Flask's documentation: part of the path says whose application answers."""

    def dispatching(environ: dict[str, Any], start_response: Any) -> Any:
        shift_path_info(environ)
        return app(environ, start_response)

    return dispatching


def mounted(path: str, app: Any) -> Any:
    return DispatcherMiddleware(hello, {path: app})


@pytest.mark.parametrize(
    ("app", "path", "route"),
    [
        (flask_app(), "/items/5", "/items/<int:number>"),
        (mounted("/shop", flask_app()), "/shop/items/5", "/shop/items/<int:number>"),
        (mounted("/eu", mounted("/shop", flask_app())), "/eu/shop/items/5", "/eu/shop/items/<int:number>"),
        (mounted("/static", hello), "/static/a.css", "/static"),
        (mounted("/static", hello), "/other", None),
        (by_tenant(flask_app()), "/ann/items/5", "/items/<int:number>"),
        (by_tenant(mounted("/shop", flask_app())), "/ann/shop/items/5", "/items/<int:number>"),
    ],
)
def test_route_is_the_pattern_with_its_mounts(traces: Traces, app: Any, path: str, route: str | None) -> None:
    ask(TracingMiddleware(app), path)
    assert metadata(traces).get("route") == route
    assert metadata(traces)["path"] == path


def test_servers_own_prefix_is_no_part_of_a_route(traces: Traces) -> None:
    ask(TracingMiddleware(mounted("/shop", flask_app())), "/shop/items/5", SCRIPT_NAME="/behind/a/proxy")
    assert metadata(traces)["route"] == "/shop/items/<int:number>"


@pytest.mark.parametrize(("path", "route"), [("/items/5", "items/<int:number>"), ("/files/a", "files/<str:name>")])
def test_djangos_route_is_known_of_files_too(traces: Traces, django_app: Any, path: str, route: str) -> None:
    ask(TracingMiddleware(django_app), path, **{"wsgi.file_wrapper": FileWrapper})
    assert metadata(traces)["route"] == route
    assert metadata(traces)["response_bytes"] == "4"


def test_mounted_django_has_a_route_below_its_mount(traces: Traces, django_app: Any) -> None:
    ask(TracingMiddleware(mounted("/shop", django_app)), "/shop/items/5")
    assert metadata(traces)["route"] == "/shop/items/<int:number>"
