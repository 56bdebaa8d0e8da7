"""What each tracer shows of an application that knows nothing of it, read from what arrived at its backend.

The application is kiosk.py: Flask under gunicorn, with a celery worker. Each tracer starts both by its own command, as
its documentation says, or is set up in one line if it has none (kiosk_with_sentry.py), and sends to a sink of its own.
All are tried at the same time. seen.py reads what came; a cell is what was found there.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Semaphore
from typing import Any

import pytest
from bench_requests import HERE as OURSELVES
from bench_requests import QUIET, THERE
from over_http import START_S, gunicorn
from places import until
from report import Report, peers_python
from seen import PARTS, ROWS, Record, of_ddtrace, of_otlp, of_ours, of_sentry
from shops import BARE, DDTRACE, OTEL, OURS, OURS_OTLP, SENTRY, THEIR_BARE
from sink import sink
from yard import yard

RUN = ["epsagon-fast", "run"]
COMMANDS = {OURS: RUN, OURS_OTLP: RUN, OTEL: ["opentelemetry-instrument"], DDTRACE: ["ddtrace-run"]}
SETTINGS = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # As the first page of its documentation has it: else no log line is sent.
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
    # A minute by default.
    "OTEL_METRIC_EXPORT_INTERVAL": "2000",
    "OTEL_SERVICE_NAME": "kiosk",
    "DD_SERVICE": "kiosk",
}
# They use the processor alone; the waiting afterwards is done at the same time.
STARTING = Semaphore(len(os.sched_getaffinity(0)))
# ddtrace counts in windows of ten seconds, OpenTelemetry sends spans every five. Then the servers are stopped, and what
# they send at their end may come until the second has passed.
SETTLES_S, ENDS_S = 12.0, 2.0

pytestmark = pytest.mark.timeout(0)


@contextlib.contextmanager
def celery_worker(module: str, python: str, env: dict[str, str], command: list[str], **options: Any) -> Iterator[None]:
    words = [*command, python, "-m", "celery", "--workdir", os.path.dirname(__file__), "-A", f"{module}:tasks"]
    process = subprocess.Popen([*words, "worker", "--concurrency", "1"], env=env, **options)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def ask_all(name: str, python: str, env: dict[str, str], scratch: pathlib.Path) -> None:
    """Start the application with this tracer, send it both requests, and stop it when the tracer has had its time."""
    module = "kiosk_with_sentry" if name == SENTRY else "kiosk"
    command = [str(pathlib.Path(python).parent / COMMANDS[name][0]), *COMMANDS[name][1:]] if name in COMMANDS else []
    messages, parcel, printed = (scratch / each for each in ("messages", "parcel", "printed"))
    messages.mkdir()
    env = {**env, "KIOSK_MESSAGES": str(messages), "KIOSK_PARCEL": str(parcel)}
    with printed.open("w") as out, contextlib.ExitStack() as stack:
        options = {"stdout": out, "stderr": out}
        with STARTING:
            stack.enter_context(celery_worker(module, python, env, command, **options))
            web = stack.enter_context(gunicorn(f"{module}:app", python, env, command, **options))
            assert (web.get("/orders/17"), web.get("/broken/18")) == (200, 500), printed.read_text()
            until(parcel.exists, lambda: f"the task is done\n{printed.read_text()}", START_S)
        time.sleep(SETTLES_S)


def seen(name: str, python: str, stock_url: str) -> list[Record]:
    """Run the application once with this tracer; return all that arrived."""
    with yard(form=OURSELVES.get(name, ""), keeps=True) as own:
        url = own.backend.url.rstrip("/")
        env = {**own.place.env, **QUIET, **SETTINGS, "KIOSK_STOCK": stock_url, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        # Without a path, as people write it: metrics go beside the traces.
        env |= {"EPSAGON_COLLECTOR_URL": OURSELVES.get(name, "") + url, "DD_TRACE_AGENT_URL": url}
        if name == SENTRY:
            env["SENTRY_DSN"] = url.replace("//", "//key@") + "/1"
        ask_all(name, python, env, own.place.scratch)
        time.sleep(ENDS_S)
        sent = own.backend.requests()
    read = {OURS: of_ours, OURS_OTLP: of_otlp, OTEL: of_otlp, DDTRACE: partial(of_ddtrace, python=python)}
    return list(read.get(name, of_sentry)(sent))


def test_what_is_seen(report: Report) -> None:
    peers = peers_python()
    pythons = {name: sys.executable for name in OURSELVES if name != BARE}
    pythons |= {name: peers for name in THERE if peers and name != THEIR_BARE}
    with sink() as stock, ThreadPoolExecutor(len(pythons)) as pool:
        stock_url = stock.url.rstrip("/")
        found = dict(zip(pythons, pool.map(lambda each: seen(*each, stock_url), pythons.items()), strict=True))
    # Each was started and read: a row that is empty says something of the tracer.
    assert all(ROWS[name](records) for records in found.values() for name in PARTS)
    table = [[row, *("seen" if sees(each) else "no" for each in found.values())] for row, sees in ROWS.items()]
    note = (
        "Of one request that succeeds and one that fails, to Flask under gunicorn; its sources name no tracer, but for "
        "sentry-sdk's `init`. OpenTelemetry has the instrumentations that `opentelemetry-bootstrap` names, and sends "
        "log lines as its first page has it; all else is as it comes, so what a tracer does when told to is not here. "
        "Neither is what an agent or a service makes of it later: Datadog's agent counts spans, and reads log files."
    )
    report.leading("seen", "What arrives of an application that knows nothing of tracing", ("", *pythons), table, note)
