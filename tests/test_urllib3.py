"""Requests that go out through urllib3: by itself, by requests, by botocore; against a real server on loopback."""

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
import requests
import urllib3
from botocore.config import Config
from places import Place
from servers import Server, reset, status
from waiting import TIMEOUT_S

import epsagon_fast as epsagon
from epsagon_fast.backend import Backend
from epsagon_fast.integrations import urllib3 as integration
from epsagon_fast.producer import current
from epsagon_fast.propagation import TraceContext, continue_context, extract
from epsagon_fast.testing import capture_traces

Traces = list[dict[str, Any]]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as own:
        yield own


@pytest.fixture
def instrumented(untraced: None) -> Iterator[None]:
    integration.instrument()
    yield
    integration.uninstrument()


@pytest.fixture
def traces(instrumented: None) -> Iterator[Traces]:
    with capture_traces() as captured:
        yield captured


def ask(url: str, method: str = "GET", **options: Any) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager() as pools:
        return pools.request(method, url, timeout=10, **options)


def events(traces: Traces) -> list[dict[str, Any]]:
    (trace,) = traces
    return list(trace["events"][:-1])


def metadata(traces: Traces) -> dict[str, str]:
    (event,) = events(traces)
    return dict(event["resource"]["metadata"])


# The event.


def test_request_is_one_event(traces: Traces, server: Server) -> None:
    with epsagon.trace("work"):
        assert ask(f"{server.url}orders/17?token=secret", "POST", body=b"secret").status == 200
    (event,) = events(traces)
    assert event["resource"] == {
        "name": "127.0.0.1",
        "type": "http",
        "operation": "POST",
        "metadata": {"path": "/orders/17", "port": str(server.port), "status_code": "200"},
    }
    assert (event["origin"], event["error_code"], event["exception"]) == ("urllib3", 0, None)
    assert event["duration"] > 0
    assert "secret" not in json.dumps(traces)
    assert len(server.wait_for(1)) == 1


@pytest.mark.parametrize(("code", "error_code"), [(204, 0), (404, 0), (500, 1), (503, 1)])
def test_status_is_recorded_and_a_servers_error_is_one(
    traces: Traces, server: Server, code: int, error_code: int
) -> None:
    server.behave = status(code, body=b"")
    with epsagon.trace("work"):
        ask(server.url, retries=False)
    assert metadata(traces)["status_code"] == str(code)
    assert events(traces)[0]["error_code"] == error_code


def test_request_that_fails_is_an_event_with_its_exception(traces: Traces, server: Server) -> None:
    server.behave = reset
    with epsagon.trace("work"), pytest.raises(urllib3.exceptions.HTTPError):
        ask(server.url, retries=False)
    (event,) = events(traces)
    assert event["error_code"] == 2
    assert event["exception"]["type"] == "ProtocolError"
    assert "status_code" not in metadata(traces)


def test_attempts_of_one_call_are_one_event(traces: Traces, server: Server) -> None:
    server.behave = status(503)
    with epsagon.trace("work"):
        ask(server.url, retries=urllib3.Retry(2, status_forcelist=[503], raise_on_status=False))
    assert len(server.wait_for(3)) == 3
    assert metadata(traces)["status_code"] == "503"


def test_each_hop_of_a_redirect_is_an_event(traces: Traces, server: Server) -> None:
    with Server() as other:
        server.behave = status(302, {"Location": f"{other.url}there"})
        with epsagon.trace("work") as tracer:
            assert ask(f"{server.url}here").status == 200
        (first,) = server.wait_for(1)
        (second,) = other.wait_for(1)
    seen = [event["resource"]["metadata"] for event in events(traces)]
    assert [(each["path"], each["status_code"]) for each in seen] == [("/here", "302"), ("/there", "200")]
    ids = [event["id"] for event in events(traces)]
    assert [extract(hop.headers) for hop in (first, second)] == [TraceContext(tracer.trace_id, each) for each in ids]


def test_requests_through_a_proxy_name_whom_they_are_for(traces: Traces, server: Server) -> None:
    with epsagon.trace("work"), urllib3.ProxyManager(server.url) as proxy:
        proxy.request("GET", "http://shop.example:8080/orders?q=1", timeout=TIMEOUT_S)
    (event,) = events(traces)
    assert event["resource"]["name"] == "shop.example"
    assert metadata(traces) == {"path": "/orders", "port": "8080", "status_code": "200"}


def test_url_that_cannot_be_read_is_left_to_urllib3(traces: Traces) -> None:
    with (
        epsagon.trace("work"),
        urllib3.HTTPConnectionPool("127.0.0.1") as pool,
        pytest.raises(urllib3.exceptions.LocationParseError),
    ):
        pool.urlopen("GET", "http://[bad/")
    assert events(traces)[0]["exception"]["type"] == "LocationParseError"


def test_without_a_trace_nothing_is_sent_or_counted(instrumented: None, server: Server) -> None:
    ask(server.url)
    (request,) = server.wait_for(1)
    assert "traceparent" not in request.headers


# Values.


def test_request_outside_of_any_trace_may_be_a_trace_of_its_own(instrumented: None, server: Server) -> None:
    integration.instrument(["elsewhere"], alone=True)
    with capture_traces() as traces:
        ask(server.url)
        with current.within(current.NOT_TRACED):
            ask(server.url)
        with epsagon.trace("work"):
            ask(server.url)
    names = [[event["resource"]["name"] for event in trace["events"]] for trace in traces]
    assert names == [["127.0.0.1", "GET 127.0.0.1"], ["127.0.0.1", "work"]]
    assert ["traceparent" in request.headers for request in server.requests] == [True, False, True]


def test_query_and_headers_are_recorded_only_if_values_are(traces: Traces, server: Server) -> None:
    epsagon.init(metadata_only=False, ignored_keys=("card", "X-Pin"))
    server.behave = status(200, {"Set-Cookie": "secret", "X-Answer": "yes"})
    with epsagon.trace("work"):
        ask(
            f"{server.url}pay?card=secret&size=2&size=3",
            headers={"Authorization": "secret", "x-pin": "secret", "X-Size": "2"},
        )
    known = metadata(traces)
    assert json.loads(known["query"]) == {"card": "****", "size": ["2", "3"]}
    sent = json.loads(known["request_headers"])
    assert (sent["authorization"], sent["x-pin"], sent["x-size"]) == ("****", "****", "2")
    answered = json.loads(known["response_headers"])
    assert (answered["set-cookie"], answered["x-answer"]) == ("****", "yes")
    assert "secret" not in json.dumps(traces)


# The context.


def test_request_carries_the_traces_context(traces: Traces, server: Server) -> None:
    with epsagon.trace("work") as tracer:
        ask(server.url, headers={"X-Mine": "1"})
    (request,) = server.wait_for(1)
    assert extract(request.headers) == TraceContext(tracer.trace_id, events(traces)[0]["id"], 1, "")
    assert request.headers["x-mine"] == "1"
    assert traces[0]["events"][-1]["resource"]["metadata"]["http_trace_id"] == tracer.trace_id


def test_context_that_came_in_goes_on(traces: Traces, server: Server) -> None:
    context = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 0, "rojo=1,congo=t61")
    with epsagon.trace("work") as tracer:
        continue_context(tracer, context)
        ask(server.url)
    (request,) = server.wait_for(1)
    assert extract(request.headers) == context._replace(parent_id=events(traces)[0]["id"])


def test_callers_own_headers_stay_as_they_are(traces: Traces, server: Server) -> None:
    mine = {"X-Mine": "1"}
    with epsagon.trace("work"), urllib3.PoolManager(headers={"X-All": "1"}) as pools:
        pools.request("GET", server.url, headers=mine, timeout=TIMEOUT_S)
        pools.request("GET", server.url, timeout=TIMEOUT_S)
        assert dict(pools.headers) == {"X-All": "1"}
    assert mine == {"X-Mine": "1"}
    first, second = server.wait_for(2)
    assert ("x-mine" in first.headers, "x-all" in second.headers) == (True, True)


def test_context_that_the_application_sends_is_not_replaced(traces: Traces, server: Server) -> None:
    own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    with epsagon.trace("work"):
        ask(server.url, headers={"TraceParent": own})
        ask(server.url, headers={b"traceparent": own.encode()})
    assert [request.headers["traceparent"] for request in server.wait_for(2)] == [own, own]
    assert len(events(traces)) == 2


# Who goes through urllib3.


def test_requests_is_traced(traces: Traces, server: Server) -> None:
    with epsagon.trace("work") as tracer, requests.Session() as session:
        assert session.get(f"{server.url}r?q=1", timeout=TIMEOUT_S).status_code == 200
    assert metadata(traces)["path"] == "/r"
    assert tracer.trace_id in server.wait_for(1)[0].headers["traceparent"]


def test_botocore_is_traced(traces: Traces, server: Server) -> None:
    server.behave = status(200, {"Content-Type": "application/x-amz-json-1.0"}, b'{"TableNames": []}')
    client = botocore.session.Session().create_client(
        "dynamodb",
        region_name="eu-west-1",
        endpoint_url=server.url,
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with epsagon.trace("work") as tracer:
        assert client.list_tables()["TableNames"] == []
    client.close()
    (event,) = events(traces)
    assert event["resource"]["operation"] == "POST"
    assert metadata(traces)["status_code"] == "200"
    (request,) = server.wait_for(1)
    assert tracer.trace_id in request.headers["traceparent"]
    # Added after the request was signed, and no part of the signature.
    assert "traceparent" not in request.headers["authorization"]


# Turning it on and off.


def test_ignored_hosts_get_neither_event_nor_context(traces: Traces, server: Server) -> None:
    integration.instrument(ignored_hosts=["LOCALHOST", "[::1]"])
    with epsagon.trace("work"):
        ask(f"http://localhost:{server.port}/")
        ask(f"{server.url}")
    first, second = server.wait_for(2)
    assert ("traceparent" in first.headers, "traceparent" in second.headers) == (False, True)
    assert metadata(traces)["port"] == str(server.port)


def test_ignored_urls_get_neither_event_nor_context(
    traces: Traces, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPSAGON_URLS_TO_IGNORE", "elsewhere,*/health*")
    integration.instrument()
    with epsagon.trace("work"):
        for path in ("/health", "/items"):
            ask(f"{server.url.rstrip('/')}{path}")
    first, second = server.wait_for(2)
    assert ("traceparent" in first.headers, "traceparent" in second.headers) == (False, True)
    assert metadata(traces)["path"] == "/items"


def test_instrumenting_twice_is_instrumenting_once(traces: Traces, server: Server) -> None:
    integration.instrument()
    with epsagon.trace("work"):
        ask(server.url)
    assert len(events(traces)) == 1


def test_uninstrumented_urllib3_is_as_it_was(untraced: None, server: Server) -> None:
    before = urllib3.HTTPConnectionPool.urlopen
    integration.instrument()
    assert urllib3.HTTPConnectionPool.urlopen is not before
    integration.uninstrument()
    integration.uninstrument()
    assert urllib3.HTTPConnectionPool.urlopen is before


def test_uninstrumenting_under_somebody_elses_wrapper_stops_tracing_and_keeps_theirs(
    traces: Traces, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, calls = urllib3.HTTPConnectionPool.urlopen, []

    def theirs(pool: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return ours(pool, *args, **kwargs)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", theirs)
    integration.uninstrument()
    with epsagon.trace("work"):
        ask(server.url)
        integration.instrument()
        ask(server.url)
    assert (len(calls), len(events(traces))) == (2, 1)


def test_one_host_must_come_in_a_collection() -> None:
    with pytest.raises(TypeError, match="not a str"):
        integration.instrument("localhost")


def test_collector_is_never_traced(untraced: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPSAGON_IN_COLLECTOR", "1")
    before = urllib3.HTTPConnectionPool.urlopen
    integration.instrument()
    assert urllib3.HTTPConnectionPool.urlopen is before


DELIVERED = """
import epsagon_fast as epsagon
from epsagon_fast.integrations import urllib3
urllib3.instrument()
epsagon.create_global_tracer().start()
for number in range(3):
    with epsagon.trace("work"):
        pass
epsagon.flush(60)
epsagon.stop_global_tracer()
"""


def test_delivery_is_no_part_of_what_is_traced(backend: Backend, place: Place) -> None:
    place.run(DELIVERED)
    place.until_left()
    bodies = [json.loads(body) for _, body in backend.store.bodies()]
    assert sorted(len(body["events"]) for body in bodies) == [0, 1, 1, 1]
