"""The OpenTelemetry Collector and Jaeger as `make collectors` builds them, each on ports of its own.

with collector(folder, jaeger_port=...) as otelcol:     # takes OTLP at otelcol.url
    otelcol.spans()                                      # every span in its file, as often as it is there
"""

import http.client
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gunicorns import connects
from places import free_port, until
from waiting import TIMEOUT_S

ROOT = Path(__file__).parents[1]
BUILT = ROOT / ".collectors" / "bin"
CONFIGS = ROOT / "tests" / "collectors"
# What it takes is in a file, each span as it came, and in Jaeger.
TO_FILE = CONFIGS / "otelcol" / "to_file_and_jaeger.yaml"
EXAMPLES = ROOT / "examples" / "scaling"


def built(name: str) -> str:
    """Return the path of a program; without it the test is left out, unless CI is set."""
    path = BUILT / name
    if not path.exists():
        assert not os.environ.get("CI"), f"`make collectors` did not build {name}"
        pytest.skip(f"{name} is not built: `make collectors` does, and needs Go")
    return str(path)


class Program:
    """A program that listens on a port, and what it printed."""

    def __init__(self, words: list[str], env: Mapping[str, str], port: int, log: Path) -> None:
        """`port`: who answers there is ready."""
        self._words, self._env, self._log = words, {**os.environ, **env}, log
        self.port = port
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        # Beside other tests it needs no second processor.
        env = {**self._env, "GOMAXPROCS": "1"}
        with self._log.open("ab") as log:
            return subprocess.Popen(self._words, env=env, stdout=log, stderr=log)

    def restart(self) -> None:
        """Start it again after `kill`."""
        self.process = self._start()
        self.until_serving()

    def until_serving(self) -> None:
        """Wait until it answers."""

        def serves() -> bool:
            assert self.process.poll() is None, self.output()
            return answers(self.port)

        until(serves, lambda: f"it serves: {self.output()}", TIMEOUT_S, pause_s=0.02)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait(TIMEOUT_S)

    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text()


class Otelcol(Program):
    """A Collector with one of our configuration files; `url` is where it takes OTLP."""

    def __init__(self, config: Path, folder: Path, **env: str) -> None:
        port = free_port()
        self.file, self._metrics_file = folder / "spans.json", folder / "metrics.json"
        own = {"OTLP_PORT": str(port), "OTLP_ENDPOINT": f"127.0.0.1:{port}", "METRICS_LEVEL": "none"}
        own |= {"METRICS_FILE": str(self._metrics_file)}
        env = {**own, "SPANS_FILE": str(self.file), "QUEUE_FOLDER": str(folder / "queue"), **env}
        super().__init__([built("otelcol"), "--config", str(config)], env, port, folder / "otelcol.log")
        self.url = f"http://127.0.0.1:{port}"

    def spans(self) -> list["Sent"]:
        """Return the spans in the Collector's file, in their order."""
        return [*spans_in(self.file.read_text().splitlines())] if self.file.exists() else []

    def metrics(self) -> list[str]:
        """Return the lines of the Collector's other file: one request of metrics each, in JSON."""
        return self._metrics_file.read_text().splitlines() if self._metrics_file.exists() else []


class Reading(Otelcol):
    """A Collector that listens nowhere: it fetches what it takes."""

    def until_serving(self) -> None:
        """Wait until it says so."""
        until(lambda: "Everything is ready" in self.output(), self.output)


class Jaeger(Program):
    """A Jaeger with its traces in memory, which takes OTLP over gRPC at `otlp_port`, over HTTP at `otlp_url`."""

    def __init__(self, folder: Path) -> None:
        port, http_port, self.otlp_port = free_port(), free_port(), free_port()
        self.otlp_url = f"http://127.0.0.1:{http_port}"
        env = {"QUERY_PORT": str(port), "OTLP_PORT": str(self.otlp_port), "OTLP_HTTP_PORT": str(http_port)}
        words = [built("jaeger"), "--config", str(CONFIGS / "jaeger" / "config.yaml")]
        super().__init__(words, env, port, folder / "jaeger.log")

    def traces(self, service: str) -> list[dict[str, Any]]:
        """Return the traces in which a service has a span."""
        return self._asked(f"/api/traces?service={service}&limit=5000&lookback=1h")

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the trace with this id, or none."""
        return self._asked(f"/api/traces/{trace_id}")

    def _asked(self, path: str) -> list[dict[str, Any]]:
        status, body = fetch(self.port, path)
        return json.loads(body)["data"] or [] if status == 200 else []


class Kafka(Program):
    """A broker in memory with the topic of examples/scaling; `address` is what clients are told."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        super().__init__([built("kafka"), str(port)], {}, port, folder / "kafka.log")

    def until_serving(self) -> None:
        """Wait until it listens: it does not speak HTTP."""
        until(lambda: connects(self.port), lambda: f"it serves: {self.output()}")


class Sent(NamedTuple):
    """A span as the Collector's file has it, with the attributes of its process."""

    trace_id: str
    span_id: str
    name: str
    resource: dict[str, Any]
    span: dict[str, Any]


def spans_in(lines: list[str]) -> Iterator[Sent]:
    """Yield the spans of requests, each a line of JSON."""
    for request in map(json.loads, lines):
        for of_resource in request["resourceSpans"]:
            resource = {pair["key"]: pair["value"] for pair in of_resource["resource"].get("attributes", [])}
            for scope in of_resource["scopeSpans"]:
                for span in scope["spans"]:
                    yield Sent(span["traceId"], span["spanId"], span["name"], resource, span)


def send(program: Otelcol, spans: list[dict[str, Any]], service: str = "tests") -> None:
    """Send spans, as the encoding in JSON has them, in one request; it must be taken."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"partialSuccess": {}})
    finally:
        connection.close()


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a GET on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(port: int) -> bool:
    """Say whether a program speaks HTTP there."""
    try:
        return fetch(port, "/")[0] > 0
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def running(program: Program) -> Iterator[None]:
    """Wait until a program serves, and end it after the `with`."""
    try:
        program.until_serving()
        yield
    finally:
        program.kill()
