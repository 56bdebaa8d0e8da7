"""The metrics as others read them: promtool, Prometheus' own parser, `epsagon-fast metrics`, a scrape, a probe."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import Place, free_port, until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families
from test_commands_status import SEEN
from test_docs import PACKAGE, page
from waiting import TIMEOUT_S

from epsagon_fast import protocol
from epsagon_fast.backend import Backend
from epsagon_fast.collector.measuring import endpoint
from epsagon_fast.collector.measuring.catalogue import CATALOGUE, MAX_PROCESSES
from epsagon_fast.collector.measuring.endpoint import Endpoint
from epsagon_fast.collector.measuring.figures import HISTOGRAM, View, as_json
from epsagon_fast.collector.measuring.histogram import BUCKETS, FAILURES, SUM_NS
from epsagon_fast.collector.measuring.keys import DELIVERY, REQUEST, key_of
from epsagon_fast.collector.measuring.prometheus import text
from epsagon_fast.collector.measuring.slots import (
    ERROR_AT,
    REASON,
    STORED_BYTES,
    STORED_SINCE,
    STORED_TRACES,
    SUCCESS_AT,
)
from epsagon_fast.queue.ledger import SLOTS, Series
from epsagon_fast.queue.overview import Overview, RingView
from epsagon_fast.queue.state import GAUGE_NAMES

HOSTILE = 'a"b\\c\nd'
WORKER = """
import sys, epsagon_fast as epsagon
for number in range(3):
    with epsagon.trace("job"): pass
epsagon.add_event({})
assert epsagon.flush(60)
print(flush=True)
sys.stdin.read()
"""


def series(kind: str, *texts: str, **slots: int) -> Series:
    """A series as the ledger has it; `slots` by their numbers, as in _3=1."""
    numbers = {int(name.removeprefix("_")): value for name, value in slots.items()}
    return Series(key_of(kind, *texts), tuple(numbers.get(slot, 0) for slot in range(SLOTS)))


def seen(**fields: Any) -> Overview:
    fields["counters"] = fields.get("counters") or {
        **dict.fromkeys(("delivered", "rejected", "dropped", "late", "full", "closed"), 7),
        "rejected_401": 7,
        "kept_error": 3,
        "cpu_ms": 1500,
        "refused_queue_full": 5,
    }
    return replace(SEEN, gauges=dict.fromkeys(GAUGE_NAMES, 3), **fields)


def full_view(**fields: Any) -> View:
    """A view in which each metric has a sample."""
    requests = [
        series(REQUEST, "shop", "GET /cart/{id}", token, **{f"_{BUCKETS}": 2, f"_{BUCKETS + 3}": 1, f"_{FAILURES}": 1})
        for token in ("one token", "another one")
    ]
    requests.append(series(REQUEST, "shop", HOSTILE, "", **{f"_{BUCKETS + 14}": 1, f"_{SUM_NS}": 60_000_000_000}))
    delivery = series(
        DELIVERY,
        "https://backend.example",
        **{f"_{BUCKETS + 2}": 3, f"_{FAILURES}": 1, f"_{SUCCESS_AT}": 10**18, f"_{ERROR_AT}": 10**18 + 10**9},
        **{f"_{STORED_TRACES}": 4, f"_{STORED_BYTES}": 4096, f"_{STORED_SINCE}": 10**18},
        **{f"_{REASON}": int.from_bytes(b"503", sys.byteorder)},
    )
    return View(seen(**fields), [*requests, delivery], 10**9 + 60.0)


def samples(said: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in families(said)
        for each in family.samples
    }


def promtool(said: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """What Prometheus' own linter says. It comes with Debian's package prometheus."""
    program = shutil.which("promtool")
    if program is None:
        assert not os.environ.get("CI"), "promtool is not installed"
        pytest.skip("promtool is not installed")
    command = [program, *(words or ("check", "metrics"))]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=TIMEOUT_S)


def test_prometheus_finds_nothing_to_say_against_any_metric() -> None:
    said = text(full_view())
    shown = {family.name for family in families(said) if family.samples}
    assert {metric.name.removesuffix("_total") for metric in CATALOGUE} == {
        name.removesuffix("_total") for name in shown
    }
    done = promtool(said)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_page_of_the_metrics_has_each_as_it_is() -> None:
    rows = re.findall(r"^\| `(epsagon_fast_\w+)` \| (\w+) \| (.*) \| (.+) \|$", page("metrics.md"), re.MULTILINE)
    made = [(each.name, each.kind, ", ".join(f"`{name}`" for name in each.labels), each.help) for each in CATALOGUE]
    assert rows == made


def test_alerts_of_the_page_are_rules_that_name_metrics_of_ours(tmp_path: Path) -> None:
    (rules,) = re.findall(r"^```yaml\n(groups:.*?)^```$", page("metrics.md"), re.DOTALL | re.MULTILINE)
    (tmp_path / "rules.yml").write_text(rules)
    done = promtool("", "check", "rules", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    names = {name for each in CATALOGUE for name in (each.name, f"{each.name}_count")}
    assert set(re.findall(r"epsagon_fast_\w+", rules)) <= names


def test_each_counter_of_the_collector_is_in_a_metric() -> None:
    sources = "".join(path.read_text() for path in PACKAGE if "collector" in path.parts)
    counted = set(re.findall(r'count(?:er)?s\["(\w+)"\]|_lose\(ring_id, "(\w+)"\)', sources))
    names = {name for pair in counted for name in pair if name}
    assert len(names) > 15
    for name in names:
        before, after = (json.dumps(as_json(CATALOGUE, full_view(counters={name: n}))) for n in (1, 2))
        assert before != after, name


def test_openmetrics_is_what_its_own_strict_parser_takes() -> None:
    said = text(full_view(), is_open=True)
    assert said.endswith("# EOF\n")
    found = {family.name: family.type for family in open_families(said)}
    assert found == {metric.name.removesuffix("_total"): metric.kind for metric in CATALOGUE}


def test_requests_of_one_name_are_one_histogram_whoever_they_are_for() -> None:
    found = samples(text(full_view()))
    name = "epsagon_fast_request_duration_seconds"
    here = "shop", "GET /cart/{id}"
    assert found[f"{name}_count", *here] == 6
    assert found[f"{name}_bucket", here[0], "0.005", here[1]] == 4
    assert found[f"{name}_bucket", here[0], "0.05", here[1]] == 6
    assert found["epsagon_fast_request_errors_total", *here] == 2
    assert (found[f"{name}_count", "shop", HOSTILE], found[f"{name}_sum", "shop", HOSTILE]) == (1, 60.0)
    assert found[f"{name}_bucket", "shop", "10.0", HOSTILE] == 0


def test_outcomes_and_reasons_are_labels() -> None:
    found = samples(text(full_view()))
    for outcome, count in (("delivered", 7), ("rejected", 7), ("stored", 0)):
        assert found["epsagon_fast_traces_total", outcome] == count
    assert found["epsagon_fast_traces_by_reason_total", "rejected", "401"] == 7
    assert found["epsagon_fast_refused_total", "queue_full"] == 5
    assert found["epsagon_fast_process_refused_total", "43", "queue_full"] == 5
    assert not [key for key in found if protocol.Outcome.PENDING.name.lower() in key]


def test_destination_says_how_it_is_and_what_waits_for_it() -> None:
    found = samples(text(full_view()))
    expected = {
        "duration_seconds_count": 3,
        "errors_total": 1,
        "last_success_timestamp_seconds": 1e9,
    }
    where = "https://backend.example"
    for name, value in expected.items():
        assert found[f"epsagon_fast_delivery_{name}", where] == value
    assert found["epsagon_fast_delivery_last_error_timestamp_seconds", where, "503"] == 1e9 + 1
    for name, value in (("traces", 4), ("bytes", 4096), ("oldest_age_seconds", 60)):
        assert found[f"epsagon_fast_outbox_{name}", where] == value
    assert found["epsagon_fast_collector_cpu_seconds_total",] == 1.5


def test_processes_without_number_have_no_series_without_number() -> None:
    rings = [RingView(pid, True, 65536, pid, 0, 0, 0, {"queue_full": pid % 7}) for pid in range(1, 1000)]
    found = samples(text(full_view(rings=rings)))
    unread = [int(key[1]) for key in found if key[0] == "epsagon_fast_process_unread_bytes"]
    assert len(unread) == MAX_PROCESSES
    assert {pid % 7 for pid in unread} == {6}
    assert found["epsagon_fast_queue_unread_bytes",] == sum(range(1, 1000))


def test_figures_that_no_collector_keeps_are_left_out_and_counters_stay() -> None:
    found = samples(text(full_view(pid=None, heartbeat_age_s=None, up_s=None)))
    assert found["epsagon_fast_up",] == 0
    assert found["epsagon_fast_traces_total", "delivered"] == 7
    assert not [
        key for key in found if key[0] in ("epsagon_fast_pending_traces", "epsagon_fast_collector_uptime_seconds")
    ]
    assert samples(text(View(None, [], 0.0)))["epsagon_fast_up",] == 0


def test_json_has_the_same_figures() -> None:
    view = full_view()
    found = json.loads(json.dumps(as_json(CATALOGUE, view)))
    said = samples(text(view))
    for metric in CATALOGUE:
        for each in found[metric.name]:
            labels = tuple(each[name] for name in sorted(metric.labels))
            if metric.kind == HISTOGRAM:
                assert said[f"{metric.name}_count", *labels] == each["count"] == each["buckets"]["+Inf"]
                assert said[f"{metric.name}_sum", *labels] == each["sum"]
            else:
                assert said[metric.name, *labels] == each["value"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of an endpoint for a folder that is not there."""
    own = Endpoint("/nowhere", 0)
    own.start()
    yield own.port
    own.close()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Ask the endpoint; return status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_probe_fails_while_no_collector_runs(port: int) -> None:
    assert ask(port, "/healthz")[::2] == (503, "no collector runs\n")
    status, kind, said = ask(port, "/metrics")
    assert (status, samples(said)["epsagon_fast_up",]) == (200, 0)
    assert kind.startswith("text/plain; version=")


def test_scrape_may_ask_for_openmetrics(port: int) -> None:
    status, kind, said = ask(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200 and kind.startswith("application/openmetrics-text")
    assert said.endswith("# EOF\n")


def test_scrape_may_ask_for_some_by_name_and_for_the_head_alone(port: int) -> None:
    assert {*samples(ask(port, "/metrics?name[]=epsagon_fast_up")[2])} == {("epsagon_fast_up",)}
    status, kind, said = ask(port, "/metrics", "HEAD")
    assert (status, said) == (200, "") and kind.startswith("text/plain; version=")
    assert ask(port, "/healthz", "HEAD")[0] == 503


def test_header_that_cannot_be_read_leaves_no_traceback(port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(port, "/metrics", Accept="application/openmetrics-text; version=none")[0] in (200, 500)
    assert capfd.readouterr() == ("", "")


def test_nothing_else_is_served(port: int) -> None:
    assert ask(port, "/")[0] == 404
    assert ask(port, "/metrics", "POST")[0] == 405
    # A page in a browser, whose name was made to lead to loopback.
    assert ask(port, "/metrics", Host="evil.example")[0] == 403
    assert ask(port, "/metrics", Host=f"localhost:{port}")[0] == 200


def test_clients_that_say_nothing_do_not_keep_a_scrape_waiting(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.05)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(endpoint.MAX_CONNECTIONS + 4)]

    def scraped() -> bool:
        try:
            return ask(port, "/metrics")[0] == 200
        except (OSError, http.client.HTTPException):
            # All places are taken; in a moment they are not.
            return False

    until(scraped, "a scrape is answered")
    for each in silent:
        each.close()


def test_self_started_collector_is_asked_without_a_port(backend: Backend, place: Place) -> None:
    with place.start(WORKER, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "\n"
        until(lambda: place.look().counters.get("delivered") == 3, "all are counted")
        done = place.command("metrics")
        assert (done.returncode, done.stderr) == (0, "")
        found = samples(done.stdout)
        assert found["epsagon_fast_request_duration_seconds_count", "tests", "job"] == 3
        assert found["epsagon_fast_traces_total", "delivered"] == 3
        assert found["epsagon_fast_process_refused_total", str(process.pid), "no_trace"] == 1
        assert "secret-token" not in done.stdout
        assert promtool(done.stdout).returncode == 0
        shown = json.loads(place.command("status", "--json").stdout)["metrics"]
        (requests,) = shown["epsagon_fast_request_duration_seconds"]
        assert (requests["application"], requests["name"], requests["count"]) == ("tests", "job", 3)
        process.communicate()


def test_collector_under_a_supervisor_serves_its_port(backend: Backend, place: Place) -> None:
    port = free_port()
    command = [sys.executable, "-m", "epsagon_fast", "collector", "--port", str(port)]
    with subprocess.Popen(command, env=place.env, cwd=place.scratch, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: place.look().pid == process.pid if os.path.isdir(place.folder) else False, "it serves")
        assert ask(port, "/healthz")[::2] == (200, "ok\n")
        place.run("import epsagon_fast as e\nwith e.trace('job'): pass\nassert e.flush(60)")
        until(
            lambda: samples(ask(port, "/metrics")[2]).get(
                ("epsagon_fast_request_duration_seconds_count", "tests", "job")
            ),
            "the request is counted",
        )
        again = place.command("collector", "--port", str(port))
        assert again.returncode == 1 and "in use" in again.stderr
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0 and "Traceback" not in errors
    assert f"http://127.0.0.1:{port}/metrics" in errors


def test_port_that_is_none_is_refused(place: Place) -> None:
    done = place.command("collector", "--port", "70000")
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_without_the_extra_it_is_said_what_is_missing(place: Place, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    place.env["PYTHONPATH"] = str(tmp_path)
    for words in (("metrics",), ("collector", "--port", "1234")):
        done = place.command(*words)
        assert done.returncode == 1 and "epsagon-fast[metrics]" in done.stderr
