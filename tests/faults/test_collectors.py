"""A real OpenTelemetry Collector behind us: it dies, our own one dies, both do, and a backend that is busy for a while.

The Collector has the configuration of examples/scaling, whose queue is a file: what it answered with 200 outlives it.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from built import EXAMPLES, Otelcol, running
from places import FULL, times
from scenes import LOAD, holds, scene, serving
from sink import OtlpSink
from waiting import TIMEOUT_S

TRIES = times(30, 2)
BUSY_S = 60.0 if FULL else 1.5


@pytest.mark.parametrize(
    "victims, scheme", [("our collector", "otlp+"), ("the Collector", "otlp-protobuf+"), ("both", "otlp+")]
)
def test_all_spans_come_through_a_collector_whichever_of_the_two_dies(
    tmp_path: Path, victims: str, scheme: str
) -> None:
    chance = random.Random(victims)
    sink = OtlpSink()
    otelcol = Otelcol(EXAMPLES / "tempo.yaml", tmp_path, TEMPO_URL=sink.url.rstrip("/"))
    settings = {"EPSAGON_TOKEN": "", "EPSAGON_RING_BYTES": str(16 << 20)}
    fault = f"OTLP: SIGKILL {victims} under load"
    with running(otelcol), scene(fault, url=scheme + otelcol.url, sink=sink, **settings) as here:
        with here.start(LOAD) as load:
            for _ in range(TRIES):
                pid = serving(here, 0 if victims == "the Collector" else here.row.tried)
                time.sleep(chance.random() * 0.3)
                if victims != "the Collector":
                    os.kill(pid, signal.SIGKILL)
                if victims != "our collector":
                    otelcol.kill()
                    otelcol.restart()
                here.row.tried += 1
            here.stop()
            _, errors = load.communicate(timeout=TIMEOUT_S)
            assert load.returncode == 0, errors
        noted = here.account()
        holds(here.row)
        assert not noted.opened - set(sink.traces)
        assert not here.row.refused.keys() - {"queue_full", "no_trace"}


def test_a_backend_that_answers_503_for_a_minute_gets_all_of_it() -> None:
    sink = OtlpSink()
    fault = f"OTLP: 503 for {BUSY_S:g} s"
    with scene(fault, url="otlp+" + sink.url, sink=sink, EPSAGON_TOKEN="", EPSAGON_RING_BYTES=str(16 << 20)) as here:
        with here.start(LOAD) as load:
            serving(here, 0)
            sink.is_sick = True
            time.sleep(BUSY_S)
            assert here.counter("stored")
            sink.is_sick = False
            here.row.tried = 1
            here.stop()
            _, errors = load.communicate(timeout=TIMEOUT_S)
            assert load.returncode == 0, errors
        noted = here.account()
        holds(here.row)
        assert not noted.opened - set(sink.traces) and not here.row.duplicates
