"""The configuration files that docs/scaling.md shows are ones that a real Collector takes."""

import os
import re
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from built import EXAMPLES, ROOT, Jaeger, Kafka, Otelcol, Reading, built, running, send
from places import until
from waiting import TIMEOUT_S

FILES = sorted(EXAMPLES.glob("*.yaml"))


def validated(file: Path) -> "subprocess.CompletedProcess[str]":
    words = [built("otelcol"), "validate", "--config", str(file)]
    env = {**os.environ, "GOMAXPROCS": "1", "QUEUE_FOLDER": str(file.parent)}
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_collector_takes_each_file_of_the_examples(file: Path) -> None:
    done = validated(file)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_collector_refuses_a_file_with_a_word_that_it_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(FILES[0].read_text().replace("max_elapsed_time", "max_elapsed_tim"))
    assert "max_elapsed_tim" in validated(wrong).stderr


def test_the_page_shows_each_file() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert set(re.findall(r"\.\./examples/scaling/(\w+\.yaml)", page)) == {file.name for file in FILES}


def test_the_page_s_figures_are_those_that_the_benches_measured() -> None:
    done = subprocess.run([sys.executable, ROOT / "benches" / "scaling.py"], capture_output=True, text=True, check=True)
    assert done.stdout in (ROOT / "docs" / "scaling.md").read_text(), "benches/scaling.py --write puts them there"


def test_jaeger_gets_what_its_file_hands_on(jaeger: Jaeger, tmp_path: Path) -> None:
    endpoint = f"127.0.0.1:{jaeger.otlp_port}"
    program = Otelcol(EXAMPLES / "jaeger.yaml", tmp_path, JAEGER_ENDPOINT=endpoint)
    with running(program):
        send(program, [span(1)])
        until(lambda: jaeger.trace(trace_id(1)), lambda: f"the trace arrives: {program.output()}")


def test_a_tail_sampler_keeps_what_failed_and_few_others(jaeger: Jaeger, tmp_path: Path) -> None:
    endpoint = f"127.0.0.1:{jaeger.otlp_port}"
    env = {"JAEGER_ENDPOINT": endpoint, "DECISION_WAIT": "100ms"}
    program = Otelcol(EXAMPLES / "tail_sampling.yaml", tmp_path, **env)
    with running(program):
        send(program, [span(number) for number in range(100, 200)])
        # The part that failed comes with another request.
        send(program, [span(150, status={"code": 2})])
        until(lambda: jaeger.trace(trace_id(150)), lambda: f"the trace arrives: {program.output()}")
    kept = sum(bool(jaeger.trace(trace_id(number))) for number in range(100, 200))
    assert kept < 50
    assert len(jaeger.trace(trace_id(150))[0]["spans"]) == 2


def test_a_trace_goes_through_kafka_and_is_sampled_behind_it(jaeger: Jaeger, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    kafka = Kafka(tmp_path)
    with running(kafka):
        env = {"KAFKA_BROKER": kafka.address, "TEMPO_URL": jaeger.otlp_url, "DECISION_WAIT": "100ms"}
        sending = Otelcol(EXAMPLES / "kafka.yaml", tmp_path / "in", **env)
        reading = Reading(EXAMPLES / "from_kafka.yaml", tmp_path / "out", **env)
        with running(sending), running(reading):
            send(sending, [span(number) for number in range(200, 300)])
            send(sending, [span(number, status={"code": 2}) for number in range(200, 210)])
            failed = range(200, 210)
            until(lambda: all(jaeger.trace(trace_id(number)) for number in failed), reading.output)
        assert {len(jaeger.trace(trace_id(number))[0]["spans"]) for number in failed} == {2}
        assert sum(bool(jaeger.trace(trace_id(number))) for number in range(210, 300)) < 45


def trace_id(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()[:32]


def span(number: int, **more: Any) -> dict[str, Any]:
    begun, ended = time.time_ns(), time.time_ns()
    times = {"startTimeUnixNano": str(begun), "endTimeUnixNano": str(ended)}
    return {"traceId": trace_id(number), "spanId": os.urandom(8).hex(), "name": "work", **times, **more}
