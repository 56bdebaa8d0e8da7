"""What the body of a trace takes that goes out as OTLP, and its part in a request of many: instructions, by callgrind.

`python benches/otlp_cost.py` prints both for each encoding, of traces of a web request with so many events inside:
those of shops.py, as the middleware and the tracer record them.
"""

from collections.abc import Callable
from pathlib import Path

import orjson
from counting import instructions, show

# As many as share a request at 400 a second.
TRACES = 80
SHOWN = 8
EVENTS = (1, 10, 100)
FORMS = {"JSON": "otlp+", "protobuf": "otlp-protobuf+"}
PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../tests"]
import otlp_cost
any(step() for step in otlp_cost.steps(sys.argv[2], int(sys.argv[3]))[int(sys.argv[4])])
"""
RUNNER = {
    "id": "cbc7ab2c9a37d05abfbfbf4b370fa064",
    "start_time": 1795988920210064396,
    "resource": {
        "name": "127.0.0.1:18955",
        "type": "http",
        "operation": "GET",
        "metadata": {"path": "/items/00000007", "request_bytes": "0", "response_bytes": "5", "status_code": "200"},
    },
    "origin": "runner",
    "duration": 0.000086891,
    "error_code": 0,
    "exception": None,
}
EVENT = {
    "id": "1b3c2f63af725f16",
    "start_time": 1795988920264765936,
    "resource": {
        "name": "charge",
        "type": "python-function",
        "operation": "invoke",
        "metadata": {"card": "visa", "amount": 42, "order": "order-00000007"},
    },
    "origin": "python",
    "duration": 0.000037022,
    "error_code": 0,
    "exception": None,
}


def steps(form: str, events_each: int) -> tuple[list[Callable[[], None]], list[Callable[[], None]]]:
    """Return what builds the bodies of so many traces, and what makes a request of them."""
    from records import CONFIG, TRACE_ID

    from epsagon_fast.collector.assembling import body
    from epsagon_fast.collector.assembling.open_trace import OpenTrace
    from epsagon_fast.collector.formats.choice import format_for
    from epsagon_fast.collector.parcel import Parcel

    attributes = {"host.name": "vm", "process.pid": 21360, "process.runtime.name": "cpython"}
    config = {**CONFIG, "collector_url": form + "http://127.0.0.1:1/", "resource_attributes": attributes}
    opening = {"config": config, "platform": "python 3.11.7", "runner": RUNNER, "opened_at": 1795988920.21}
    opened = orjson.dumps(opening)

    def trace(number: int) -> OpenTrace:
        # The runner takes its span's id from the first half, which must not be that of an event.
        made = OpenTrace((number << 64 + 32).to_bytes(16, "big"), b"ring", opened, {})
        for place in range(events_each):
            event = {**EVENT, "id": f"{place + 1:016x}"}
            made.add_event(orjson.dumps(event))
        made.is_closed = True
        return made

    traces = [trace(number + 1) for number in range(TRACES)]
    parcels = [Parcel(TRACE_ID, each.terms.destination, body.build(each).data) for each in traces]

    def request() -> None:
        taken = format_for(parcels[0].destination)
        taken.post(parcels[: taken.shared(parcels)])

    request()
    return [lambda each=each: body.build(each) and None for each in traces], [request]


def main() -> None:
    """Print for each encoding and size of a trace what its body takes, and its part in a request."""
    for encoding, form in FORMS.items():
        for events_each in EVENTS:
            for number, what in enumerate(("the body of", "a request's part of")):
                counts = instructions(PROGRAM, str(Path(__file__).parent), form, str(events_each), str(number))
                show(f"{encoding}, {what} a trace of {events_each}", counts, TRACES, SHOWN)


if __name__ == "__main__":
    main()
