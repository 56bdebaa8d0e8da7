"""One request through four processes that know nothing of each other: client, web server, celery worker, web server."""

import http.client
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from celeries import Shop
from places import until
from shopfront import CLIENT, TASKS, front
from waiting import TIMEOUT_S

from epsagon_fast.backend import Backend


@pytest.fixture
def front_url(shop: Shop) -> Iterator[str]:
    """The whole shop, served."""
    with front(shop) as url:
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
    # The parent is the task's very call; the flags and the other tracer's state are as they came.
    traces = {trace["events"][-1]["id"]: trace["events"][:-1] for trace in shop.traces()}
    (call,) = traces[found["orders.book"]["id"]]
    assert asked["HTTP_TRACEPARENT"] == f"00-{trace_id}-{call['id']}-00"
    assert asked["HTTP_TRACESTATE"] == "congo=t61rcWkgMzE"
