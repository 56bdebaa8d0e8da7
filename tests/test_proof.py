"""One request through four processes that know nothing of each other: client, web server, celery worker, web server."""

import http.client
import json
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celeries import TIMEOUT_S, Shop
from places import Place, until

from epsagon_fast.backend import Backend

TASKS = """
import os, requests
from celery import Celery
from epsagon_fast.integrations import urllib3
from epsagon_fast.integrations.celery import instrument

app = Celery("orders")
instrument(app)
urllib3.instrument()

@app.task(ignore_result=True)
def book(order):
    requests.get(os.environ["STOCK_URL"] + "/stock/" + order, timeout=60).raise_for_status()
"""

SHOP_FRONT = """
import orders

def app(environ, start_response):
    orders.book.delay("c-17")
    start_response("202 Accepted", [("Content-Length", "0")])
    return []
"""

STOCK = """
import json, os

def app(environ, start_response):
    with open(os.environ["ASKED"], "w") as file:
        json.dump({key: value for key, value in environ.items() if key.startswith("HTTP_")}, file)
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""

CLIENT = """
import sys, requests
import epsagon_fast as epsagon
from epsagon_fast.integrations import urllib3
urllib3.instrument()
with epsagon.trace("client") as tracer:
    requests.post(sys.argv[1], timeout=60).raise_for_status()
print(tracer.trace_id)
"""

CONF = "python:epsagon_fast.integrations.gunicorn"


@contextmanager
def gunicorn(place: Place, module: str) -> Iterator[str]:
    """Serve a module's `app` with one worker; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # It listens already: who comes before gunicorn is ready waits.
        number = listener.fileno()
        words = [sys.executable, "-m", "gunicorn", "-c", CONF, "-b", f"fd://{number}", "-w", "1", f"{module}:app"]
        with (place.scratch / f"{module}.log").open("w") as log:
            server = subprocess.Popen(
                [*words, "--no-control-socket"], env=place.env, cwd=place.scratch, pass_fds=[number], stderr=log
            )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(TIMEOUT_S)
        finally:
            server.kill()


@pytest.fixture
def front_url(shop: Shop) -> Iterator[str]:
    """The whole shop: a server in front, a worker behind it, a second server behind that."""
    place = shop.place
    for name, text in (("orders", TASKS), ("front", SHOP_FRONT), ("stock", STOCK)):
        (place.scratch / f"{name}.py").write_text(text)
    place.env["ASKED"] = str(place.scratch / "asked")
    with gunicorn(place, "stock") as stock_url:
        place.env["STOCK_URL"] = stock_url
        with shop.worker("-P", "prefork", "-c", "1", app="orders"), gunicorn(place, "front") as url:
            yield url


def test_task_in_the_docs_is_the_one_that_runs() -> None:
    text = (pathlib.Path(__file__).parents[1] / "docs/propagation.md").read_text()
    assert "```python\n" + TASKS[TASKS.index("@app.task") :] + "```" in text


def runners(shop: Shop, backend: Backend, count: int) -> dict[str, dict[str, Any]]:
    """The runners of as many traces as are to arrive, by what they are."""
    until(lambda: backend.store.counts()["traces"] >= count, lambda: f"{shop.traces()}\n{shop.place.log()}", TIMEOUT_S)
    last = [trace["events"][-1] for trace in shop.traces()]
    assert len(last) == count
    return {runner["resource"]["metadata"].get("path") or runner["resource"]["name"]: runner for runner in last}


def test_four_processes_four_traces_one_id(shop: Shop, backend: Backend, front_url: str) -> None:
    trace_id = shop.place.run(CLIENT, front_url + "/orders").strip()
    found = runners(shop, backend, 4)
    assert list(sorted(found)) == ["/orders", "/stock/c-17", "client", "orders.book"]
    assert {runner["resource"]["metadata"]["http_trace_id"] for runner in found.values()} == {trace_id}
    assert len({runner["id"] for runner in found.values()}) == 4
    events = {
        trace["events"][-1]["id"]: [event["resource"] for event in trace["events"][:-1]] for trace in shop.traces()
    }
    # Each one's event says whom it called.
    (posted,) = events[found["client"]["id"]]
    assert (posted["operation"], posted["metadata"]["path"], posted["metadata"]["status_code"]) == (
        "POST",
        "/orders",
        "202",
    )
    (sent,) = events[found["/orders"]["id"]]
    assert (sent["operation"], sent["name"]) == ("publish", "orders.book")
    assert sent["metadata"]["task_id"] == found["orders.book"]["resource"]["metadata"]["task_id"]
    (asked,) = events[found["orders.book"]["id"]]
    assert (asked["operation"], asked["metadata"]["path"]) == ("GET", "/stock/c-17")
    assert events[found["/stock/c-17"]["id"]] == []


def test_context_of_another_tracer_goes_through_all_of_them(shop: Shop, backend: Backend, front_url: str) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-00", "tracestate": "congo=t61rcWkgMzE"}
    client = http.client.HTTPConnection(front_url.removeprefix("http://"), timeout=TIMEOUT_S)
    client.request("POST", "/orders", headers=headers)
    assert client.getresponse().status == 202
    client.close()
    found = runners(shop, backend, 3)
    assert {runner["resource"]["metadata"]["http_trace_id"] for runner in found.values()} == {trace_id}
    asked = json.loads((shop.place.scratch / "asked").read_text())
    # The parent is the task that asked; the flags and the other tracer's state are as they came.
    assert asked["HTTP_TRACEPARENT"] == f"00-{trace_id}-{found['orders.book']['id'][:16]}-00"
    assert asked["HTTP_TRACESTATE"] == "congo=t61rcWkgMzE"
