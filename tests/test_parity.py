"""What epsagon-go sent, through the real thing: a tracer, the queue, a collector process and a real HTTP server.

All cases share one traced process and one collector. Where we differ, test_parity_body.py says how and by which row of
the parity table; here the bytes that arrive must be the ones that it looked at.
"""

import json
import platform
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import servers
from places import Place, until
from servers import Request, Server
from test_parity_body import CASES, SENT, built, shifted_limit
from vectors import Case, comparable, without_given_ids, without_stacks
from waiting import TIMEOUT_S

from epsagon_fast import __version__
from epsagon_fast.protocol import MAX_TRACE_BYTES

# Reads one trace a line, in epsagon-go's call order, and prints what became of it.
WORKER = """
import json, sys
import epsagon_fast as epsagon

def value(told):
    if isinstance(told, dict) and "$float" in told:
        return float(told["$float"])
    return Exception(told["$error"]) if isinstance(told, dict) and "$error" in told else told

for line in sys.stdin:
    told = json.loads(line)
    tracer = epsagon.create_tracer(epsagon.Config(**told["config"]))
    tracer.start()
    for event in told.get("events", ()):
        tracer.add_event(event)
    for exception in told.get("exceptions", ()):
        tracer.add_exception(exception)
    for key, label in told.get("labels", ()):
        tracer.add_label(key, value(label))
    if told.get("error"):
        tracer.add_error(told["error"][0], value(told["error"][1]))
    print(json.dumps([tracer.trace_id, str(tracer.stop(told["timeout_s"]))]), flush=True)
"""
# test_parity_body.py's records come from this Python.
PLATFORM_SHIFT = len(platform.python_version()) - len("3.11.7")


class Sent(NamedTuple):
    """What became of a trace."""

    trace_id: str
    outcome: str


class Worker:
    """A traced process, and the server to which its collector sends."""

    def __init__(self, place: Place, server: Server) -> None:
        self.place = place
        self.server = server
        self._process = place.start(WORKER, stdin=subprocess.PIPE, stderr=None)

    def trace(self, config: dict[str, Any], *, timeout_s: float = 10.0, **parts: Any) -> Sent:
        """Have one trace sent, and wait for its outcome."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"config": config, "timeout_s": timeout_s, **parts}) + "\n")
        self._process.stdin.flush()
        return Sent(*json.loads(self._process.stdout.readline()))

    def case(self, case: Case, limit_bytes: int | None) -> Sent:
        """Have a golden trace sent."""
        config = {
            "token": case.token,
            "application_name": case.application_name,
            "debug": case.debug,
            "ignored_keys": list(case.ignored_keys),
            # Rows masked-loosely and masked-by-default.
            "masking": "exact",
            "default_ignored_keys": False,
            "collector_url": self.server.url,
            "max_trace_size_bytes": limit_bytes,
        }
        labels = [(key, _told(value)) for key, value in case.labels]
        error = case.error and (case.error[0], _told(case.error[1]))
        return self.trace(config, events=case.events, exceptions=case.exceptions, labels=labels, error=error)

    def requests(self, trace_id: str) -> list[Request]:
        """The requests that carried a trace."""
        return [request for request in self.server.requests if request.headers.get("idempotency-key") == trace_id]

    def close(self) -> None:
        self._process.communicate(timeout=TIMEOUT_S)


def _told(value: Any) -> Any:
    """Say what JSON lacks."""
    if isinstance(value, float):
        return {"$float": repr(value)}
    return {"$error": str(value)} if isinstance(value, Exception) else value


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Server() as server:
        # Room for the largest limit of all; a process has one ring.
        place = Place(server.url, EPSAGON_RING_BYTES=str(4 * MAX_TRACE_BYTES))
        worker = Worker(place, server)
        yield worker
        worker.close()
        place.close()


@pytest.fixture
def server(worker: Worker) -> Iterator[Server]:
    """The worker's server, which is well again after the test."""
    yield worker.server
    worker.server.behave = servers.status(200)


def limit_of(case: Case) -> int | None:
    return case.limit_bytes and shifted_limit(case) + PLATFORM_SHIFT


@pytest.mark.parametrize("case", SENT, ids=str)
def test_golden_trace_arrives_as_epsagon_go_sent_it_or_as_a_row_of_the_table_says(worker: Worker, case: Case) -> None:
    sent = worker.case(case, limit_of(case))
    assert sent.outcome == "DELIVERED"
    (request,) = worker.requests(sent.trace_id)
    arrived = comparable(request.body)
    for event in arrived["events"]:
        # What the tracer had to refuse is told in the next trace; epsagon-go says nothing of it.
        event["resource"]["metadata"].pop("dropped_records", None)
    expected = comparable(case.expected_body or "") if case.row is None else comparable(_ours(case))
    without_given_ids(arrived, expected)
    assert (without_stacks(arrived) if case.error else arrived) == expected, case.row
    assert json.loads(request.body)["version"] == __version__
    assert json.loads(request.body)["platform"] == f"python {platform.python_version()}"


def _ours(case: Case) -> bytes:
    body = built(case, shifted_limit(case) if case.limit_bytes else 65536).data
    assert body is not None
    return body


def test_disabled_free_without_a_token_nothing_is_sent(worker: Worker) -> None:
    case = CASES["empty_token"]
    sent = worker.case(case, None)
    assert sent.outcome == "DISABLED (no token)"
    assert worker.requests(sent.trace_id) == []


# What the forty do not cover.

RUNNER = {"id": "r", "origin": "runner", "resource": {"name": "main", "metadata": {}}}
TOKEN = {"token": "a-token"}


def metadata_of(request: Request) -> dict[str, str]:
    """The metadata of the only event."""
    (event,) = json.loads(request.body)["events"]
    return dict(event["resource"]["metadata"])


def test_request_is_a_post_with_the_headers_of_epsagon_go_and_a_key_of_its_own(worker: Worker) -> None:
    sent = worker.trace(TOKEN, events=[RUNNER])
    (request,) = worker.requests(sent.trace_id)
    assert (request.method, request.path) == ("POST", "/")
    assert request.headers == {
        "host": f"127.0.0.1:{worker.server.port}",
        "accept-encoding": "identity",
        "content-length": str(len(request.body)),
        "content-type": "application/json",
        "authorization": "Bearer a-token",
        "idempotency-key": sent.trace_id,
        "user-agent": f"epsagon-fast/{__version__}",
    }
    assert list(json.loads(request.body)) == ["app_name", "token", "events", "exceptions", "version", "platform"]


def test_token_and_name_are_each_traces_own(worker: Worker) -> None:
    for token, name in (("one", "first"), ("two", "second")):
        sent = worker.trace({"token": token, "application_name": name}, events=[RUNNER])
        (request,) = worker.requests(sent.trace_id)
        assert request.headers["authorization"] == f"Bearer {token}"
        body = json.loads(request.body)
        assert (body["token"], body["app_name"]) == (token, name)


def test_connection_is_kept_from_trace_to_trace(worker: Worker) -> None:
    connections = [worker.requests(worker.trace(TOKEN).trace_id)[0].connection for _ in range(5)]
    assert len(set(connections)) == 1


def test_disabled_process_sends_nothing(worker: Worker) -> None:
    sent = worker.trace({**TOKEN, "disable": True}, events=[RUNNER])
    assert sent.outcome == "DISABLED (disabled)"
    assert worker.requests(sent.trace_id) == []


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_outcomes_a_4xx_is_final_and_says_so(worker: Worker, server: Server, code: int) -> None:
    server.behave = servers.status(code, body=b'{"reason": "because"}')
    sent = worker.trace(TOKEN)
    assert sent.outcome == f"REJECTED ({code})"
    assert len(worker.requests(sent.trace_id)) == 1


def test_outcomes_a_redirect_is_not_followed(worker: Worker, server: Server) -> None:
    with Server() as elsewhere:
        server.behave = servers.status(302, {"Location": elsewhere.url})
        assert worker.trace(TOKEN).outcome == "REJECTED (302)"
        assert elsewhere.connections == 0


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429, 408])
def test_outcomes_a_5xx_is_sent_again_with_the_same_key_and_bytes(worker: Worker, server: Server, code: int) -> None:
    server.behave = servers.status(code)
    # Each code has a destination of its own, else the pause after the last one's failures would add up.
    sent = worker.trace({"token": f"token-{code}"}, events=[RUNNER], timeout_s=0.3)
    assert sent.outcome in ("PENDING", f"STORED ({code})")
    server.behave = servers.status(200)
    until(lambda: len(worker.requests(sent.trace_id)) > 1, "it is sent again")
    first, *_, last = worker.requests(sent.trace_id)
    assert (first.headers, first.body) == (last.headers, last.body)


def test_send_timeout_in_seconds_bounds_a_request(worker: Worker, server: Server) -> None:
    server.behave = servers.hang
    sent = worker.trace({"token": "slow", "send_timeout_s": 0.2}, timeout_s=0.1)
    until(lambda: worker.requests(sent.trace_id), "it is sent")
    # The server only ever closes a connection that its client has left.
    server.behave = servers.status(200)
    until(lambda: len(worker.requests(sent.trace_id)) > 1, "the collector gives up and tries again")


def test_default_url_names_the_region(worker: Worker) -> None:
    # The proxy's log shows the host without anybody asking a name server.
    with Server(servers.status(502)) as proxy:
        place = Place("", AWS_REGION="eu-west-3", HTTPS_PROXY=proxy.url, EPSAGON_SEND_TIMEOUT_SEC="0.5")
        try:
            place.run("import epsagon_fast as epsagon\nwith epsagon.trace('main'): pass")
            (request, *_) = proxy.wait_for(1)
            assert (request.method, request.path) == ("CONNECT", "eu-west-3.tc.epsagon.com:443")
            assert "authorization" not in request.headers
        finally:
            place.close()


def test_labels_masked_labels_are_json_in_the_runner_and_masked(worker: Worker) -> None:
    labels = [("user", 42), ("ratio", {"$float": "0.5"}), ("ok", True), ("card", "visa"), ("user", 43)]
    config = {**TOKEN, "ignored_keys": ["card"]}
    (request,) = worker.requests(worker.trace(config, events=[RUNNER], labels=labels).trace_id)
    assert json.loads(metadata_of(request)["labels"]) == {"user": 43, "ratio": 0.5, "ok": True, "card": "****"}


def test_labels_kept_one_bad_label_costs_no_other(worker: Worker) -> None:
    labels = [("good", 1), ("bad", {"$float": "NaN"}), ("better", 2)]
    (request,) = worker.requests(worker.trace(TOKEN, events=[RUNNER], labels=labels).trace_id)
    assert json.loads(metadata_of(request)["labels"]) == {"good": 1, "better": 2}


def test_masked_deep_loosely_and_by_default_it_reaches_into_json_at_any_depth(worker: Worker) -> None:
    metadata = {
        "card": "1234",
        "body": json.dumps({"card": "1234", "list": [{"card": 5}], "big": 12345678901234567890}),
        "twice": json.dumps({"inner": json.dumps({"card": "1234"})}),
        "C_A-R D": "1234",
        "Password": "1234",
    }
    event = {**RUNNER, "resource": {"name": "main", "metadata": metadata}}
    config = {**TOKEN, "ignored_keys": ["card"]}
    (request,) = worker.requests(worker.trace(config, events=[event]).trace_id)
    found = metadata_of(request)
    assert found["card"] == "****"
    assert json.loads(found["body"]) == {"card": "****", "list": [{"card": "****"}], "big": 12345678901234567890}
    assert json.loads(found["twice"]) == {"inner": '{"card":"****"}'}
    assert found["C_A-R D"] == found["Password"] == "****"
    assert b"1234" not in request.body.replace(b"12345678901234567890", b"")


def test_error_of_the_trace_is_the_runners(worker: Worker) -> None:
    sent = worker.trace(TOKEN, events=[RUNNER], error=["KeyError", {"$error": "no such user"}])
    (request,) = worker.requests(sent.trace_id)
    (event,) = json.loads(request.body)["events"]
    assert event["error_code"] == 1
    assert (event["exception"]["type"], event["exception"]["message"]) == ("KeyError", "no such user")


@pytest.mark.parametrize("limit_bytes", [1000, 4000, 65536, 524288])
def test_no_body_is_over_its_limit(worker: Worker, limit_bytes: int) -> None:
    events = [
        {"id": str(n), "resource": {"name": "n", "metadata": {"text": "x" * (limit_bytes // 20), "item_hash": "h"}}}
        for n in range(30)
    ]
    sent = worker.trace({**TOKEN, "max_trace_size_bytes": limit_bytes}, events=[*events, RUNNER])
    (request,) = worker.requests(sent.trace_id)
    assert len(request.body) <= limit_bytes
    assert json.loads(request.body)["events"][-1]["resource"]["metadata"]["is_trimmed"] == "true"
