"""What a real Collector took is what was traced: each span once."""

from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from built import TO_FILE, Jaeger, Otelcol, Sent, running, send
from places import Place, until

TRACES = 1000
# Room for all of them: none is refused, however busy the machine.
ROOM = {"EPSAGON_RING_BYTES": str(8 << 20)}
PROGRAM = f"""
import sys, epsagon_fast as epsagon
for number in range({TRACES}):
    with epsagon.trace(f"trace {{number}}"):
        with epsagon.event(f"event {{number}}") as event:
            event.metadata["number"] = number
print(epsagon.flush(60))
"""


def hold_each_once(otelcol: Otelcol, scheme: str) -> None:
    """Trace a thousand times; hold that the Collector's file has each span once."""
    with closing(Place(scheme + otelcol.url, EPSAGON_TOKEN="", EPSAGON_APP_NAME=scheme, **ROOM)) as place:
        assert place.run(PROGRAM) == "True\n"

        def sent() -> list[Sent]:
            mine = [span for span in otelcol.spans() if span.resource["service.name"]["stringValue"] == scheme]
            return mine if len(mine) >= 2 * TRACES else []

        spans = until(sent, lambda: f"all spans are written: {place.log()}\n{otelcol.output()}", pause_s=0.2)
        names = Counter(f"{what} {number}" for what in ("trace", "event") for number in range(TRACES))
        assert Counter(span.name for span in spans) == names
        assert len({(span.trace_id, span.span_id) for span in spans}) == 2 * TRACES
        assert place.look().counters["delivered"] == TRACES


@pytest.mark.parametrize("scheme", ["otlp+", "otlp-protobuf+"])
def test_a_thousand_traces_are_in_the_collector_s_file_once(otelcol: Otelcol, scheme: str) -> None:
    hold_each_once(otelcol, scheme)


def test_a_collector_that_takes_small_requests_only_gets_all_the_same(jaeger: Jaeger, tmp_path: Path) -> None:
    """It answers 400 and not 413 to a body that is too large, as to one in which something is wrong."""
    program = Otelcol(TO_FILE, tmp_path, JAEGER_PORT=str(jaeger.otlp_port), MOST_BYTES="20000")
    with running(program):
        hold_each_once(program, "otlp+")


def test_a_span_that_comes_twice_is_stored_twice_by_a_collector_and_shown_once_by_jaeger(
    otelcol: Otelcol, jaeger: Jaeger
) -> None:
    span = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "again", "kind": 1}
    span |= {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000000001000"}
    for _ in range(2):
        send(otelcol, [span])
    until(lambda: [span.name for span in otelcol.spans()].count("again") == 2, "the file has it twice")
    [trace] = until(lambda: jaeger.trace(str(span["traceId"])), "Jaeger has the trace")
    assert len(trace["spans"]) == 1
