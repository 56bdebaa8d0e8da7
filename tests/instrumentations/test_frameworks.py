"""Below `run`, a request is one trace: of frameworks with servers of their own, and behind each server."""

import json
import pathlib
from typing import Any

import pytest
from places import Place, until
from programs_below import RUN, started

from epsagon_fast.backend import Backend

# What is started, and the pattern that the request matches as the framework writes it.
FRAMEWORKS = {
    "aiohttp": (("-m", "aiohttp_app", "PORT"), "/{name}"),
    "litestar": (("-m", "uvicorn", "--port", "PORT", "litestar_app:app"), "/{name}"),
    "sanic": (("-m", "sanic_app", "PORT", "one"), "/<name:str>"),
    "sanic with workers": (("-m", "sanic_app", "PORT"), "/<name:str>"),
    "sanic under uvicorn": (("-m", "uvicorn", "--port", "PORT", "sanic_app:app"), None),
    "tornado": (("-m", "tornado_app", "PORT"), "/{name}"),
}
# The application is a function that has no framework, but where the server is not written in Python.
SERVERS = {
    "gunicorn": ("-m", "gunicorn", "-b", "127.0.0.1:PORT", "--no-control-socket", "plain_apps:wsgi"),
    "gunicorn with our hooks": (
        *("-m", "gunicorn", "-c", "python:epsagon_fast.integrations.gunicorn", "-b", "127.0.0.1:PORT"),
        *("--no-control-socket", "plain_apps:wsgi"),
    ),
    "gunicorn asgi": ("-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:PORT", "--no-control-socket", "plain_apps:asgi"),
    "uvicorn": ("-m", "uvicorn", "--port", "PORT", "plain_apps:asgi"),
    "uvicorn --workers": ("-m", "uvicorn", "--workers", "2", "--port", "PORT", "plain_apps:asgi"),
    "hypercorn": ("-m", "hypercorn", "-b", "127.0.0.1:PORT", "plain_apps:asgi"),
    "hypercorn wsgi": ("-m", "hypercorn", "-b", "127.0.0.1:PORT", "plain_apps:wsgi"),
    "granian": ("-m", "granian", "--interface", "asgi", "--port", "PORT", "plain_apps:asgi"),
    "granian wsgi": ("-m", "granian", "--interface", "wsgi", "--port", "PORT", "plain_apps:wsgi"),
    "waitress": ("-m", "waitress", "--listen", "127.0.0.1:PORT", "plain_apps:wsgi"),
    "daphne": ("-m", "daphne", "-p", "PORT", "plain_apps:asgi"),
    "wsgiref": ("-m", "plain_apps", "PORT"),
    "flask run": ("-m", "flask", "--app", "plain_apps:flask", "run", "--port", "PORT"),
    "manage.py runserver": ("manage.py", "runserver", "PORT"),
    "uwsgi": ("uwsgi", "--http-socket", "127.0.0.1:PORT", "--master", "--die-on-term", "-w", "plain_apps:flask"),
}


def runners(backend: Backend) -> list[dict[str, Any]]:
    bodies = [json.loads(body)["events"] for _, body in backend.store.bodies()]
    return [event for events in bodies for event in events if event["origin"] == "runner"]


def arrived(backend: Backend, place: Place, count: int) -> list[dict[str, Any]]:
    until(lambda: len(runners(backend)) >= count, lambda: f"{runners(backend)} {place.log()}")
    return runners(backend)


def command(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a program is below, and its words: all but uWSGI are Python's."""
    return (
        (RUN[:-1], (str(pathlib.Path(RUN[-1]).parent / words[0]), *words[1:])) if words[0] == "uwsgi" else (RUN, words)
    )


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_request_to_a_framework_is_one_trace(name: str, place: Place, backend: Backend) -> None:
    words, pattern = FRAMEWORKS[name]
    with started(RUN, place.env, place.scratch / "log", *words) as program:
        assert program.ask("/hello/you") == "you"
        with pytest.raises(AssertionError, match="500"):
            program.ask("/fails/you")
        arrived(backend, place, 2)
    good, bad = sorted(runners(backend), key=lambda runner: runner["start_time"])
    assert (good["error_code"], bad["error_code"]) == (0, 2)
    assert bad["exception"]["type"] == "ValueError"
    if pattern:
        routes = [
            each["resource"]["metadata"].get("route") or each["resource"]["name"].split()[1] for each in (good, bad)
        ]
        assert routes == [f"/hello{pattern}", f"/fails{pattern}"]


def test_sanic_request_that_is_not_to_be_recorded_leaves_nothing(place: Place, backend: Backend) -> None:
    env = {**place.env, "EPSAGON_SAMPLE_RATE": "50%", "EPSAGON_ENDPOINTS_TO_IGNORE": "/hello/ignored"}
    words, _ = FRAMEWORKS["sanic"]
    with started(RUN, env, place.scratch / "log", *words) as program:
        for name in ("ignored", *map(str, range(40))):
            assert program.ask(f"/hello/{name}") == name
    place.until_left()
    # The handler's query would be a trace of its own.
    paths = {runner["resource"]["metadata"].get("path") for runner in runners(backend)}
    assert 0 < len(paths) < 40
    assert not paths & {None, "/hello/ignored"}


@pytest.mark.parametrize("name", SERVERS)
def test_request_to_a_server_is_one_trace(name: str, place: Place, backend: Backend) -> None:
    below, words = command(SERVERS[name])
    with started(below, place.env, place.scratch / "log", *words) as program:
        assert program.ask("/hello/you") == "hello"
        arrived(backend, place, 1)
    place.until_left()
    (runner,) = runners(backend)
    metadata = runner["resource"]["metadata"]
    assert (metadata["path"], metadata["status_code"], runner["error_code"]) == ("/hello/you", "200", 0)
