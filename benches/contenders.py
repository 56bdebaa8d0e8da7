"""One way to record an event, in a process of its own: `python contenders.py NAME`, then a command a line.

A command is JSON: ["events", bytes, count] or ["traces", events each, count]. The answer: what each call took in the
caller; the processor time that the whole process used per call until everything was encoded and handed over, background
threads included; and what another process used that does the rest (our collector, the queue's reader). Peers are told
to keep all they get; what they send goes nowhere, or to a sink.

Each tracer is compared by a block: the same name, the same metadata, timed. A ready dict is what other rows record.
"""

import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from events import of_size
from measure import cpu_clock_ns

PATIENCE_S = 30.0
# What an HTTP client's span says.
CALL = {
    "http.request.method": "GET",
    "url.full": "http://stock.internal:8080/stock/17?fields=count",
    "server.address": "stock.internal",
    "server.port": 8080,
    "network.protocol.version": "1.1",
}


class Contender:
    """Records events of one size. `one` is what is measured; `flush` returns when nothing is left to do."""

    # Whether `flush` does work of this process, or waits for its threads to do it, that is part of the price.
    works_later = False

    def prepare(self, size_bytes: int) -> None:
        self.made = [of_size(number, size_bytes) for number in range(200)]

    def one(self, number: int) -> None:
        raise NotImplementedError

    def trace(self, events_each: int) -> None:
        """Record a whole trace; what is measured of those."""
        raise NotImplementedError

    def flush(self) -> None:
        """Wait for background work."""

    def helper_pid(self) -> int:
        """Return the pid of another process that works for this one; 0: there is none."""
        return 0


class Nothing(Contender):
    """What measuring costs."""

    def one(self, number: int) -> None:
        self.made[number % 200]


class Building(Contender):
    """The dict alone: its values are there already."""

    def one(self, number: int) -> None:
        made = self.made[number % 200]
        resource = made["resource"]
        {
            "id": made["id"],
            "start_time": made["start_time"],
            "resource": {
                "name": resource["name"],
                "type": "http",
                "operation": "GET",
                "metadata": {key: value for key, value in resource["metadata"].items()},
            },
            "origin": "sdk",
            "duration": 0.0125,
            "error_code": 0,
            "exception": None,
        }


class Orjson(Contender):
    def __init__(self) -> None:
        from orjson import dumps

        self.dumps = dumps

    def one(self, number: int) -> None:
        self.dumps(self.made[number % 200])


class Queue(Contender):
    """multiprocessing.Queue.put of the same bytes, with a reader in another process."""

    works_later = True

    def __init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        self.queue = fork.Queue()
        self.reader = fork.Process(target=self.drain, daemon=True)
        self.reader.start()

    def drain(self) -> None:
        while True:
            self.queue.get()

    def prepare(self, size_bytes: int) -> None:
        from orjson import dumps

        super().prepare(size_bytes)
        self.payloads = [dumps(each) for each in self.made]

    def one(self, number: int) -> None:
        self.queue.put(self.payloads[number % 200])

    def flush(self) -> None:
        wait(lambda: self.queue.qsize() == 0)

    def helper_pid(self) -> int:
        return self.reader.pid or 0


class Ready(Contender):
    """add_event of a complete dict to an open trace: what remains if the event was built before."""

    def __init__(self) -> None:
        import epsagon_fast as epsagon
        from epsagon_fast.producer.process import process

        self.epsagon, self.process = epsagon, process
        self.tracer = epsagon.create_tracer()
        self.tracer.start()
        self.add = self.tracer.add_event

    def one(self, number: int) -> None:
        self.add(self.made[number % 200])

    def trace(self, events_each: int) -> None:
        with self.epsagon.create_tracer() as tracer:
            for number in range(events_each):
                tracer.add_event(self.made[number])

    def flush(self) -> None:
        wait(lambda: all(each.drained() and each.settled == each.closed for each in self.process.writers.known()))

    def helper_pid(self) -> int:
        from epsagon_fast.queue.overview import look

        (path,) = (each.path for each in self.process.writers.known())
        return look(path).pid or 0


class Incomplete(Ready):
    """The same with three fields left out and one metadata value that is no string."""

    def prepare(self, size_bytes: int) -> None:
        super().prepare(size_bytes)
        for each in self.made:
            del each["error_code"], each["exception"], each["duration"]
            each["resource"]["metadata"]["status"] = 200


class Block(Ready):
    """An event block in an open trace."""

    def __init__(self) -> None:
        super().__init__()
        self.event = self.epsagon.event
        self.outer = self.epsagon.trace("outer")
        self.outer.__enter__()

    def one(self, number: int) -> None:
        resource = self.made[number % 200]["resource"]
        with self.event(resource["name"]) as event:
            event.metadata.update(resource["metadata"])

    def trace(self, events_each: int) -> None:
        with self.epsagon.trace("runner", new=True):
            for number in range(events_each):
                self.one(number)


class Function(Block):
    """A call of a traced function in an open trace."""

    def __init__(self) -> None:
        super().__init__()
        self.call = self.epsagon.trace(same)

    def one(self, number: int) -> None:
        self.call(number)


def same(number: int) -> int:
    """Do nothing: what is measured is the tracing."""
    return number


class OpenTelemetry(Contender):
    """A span with the metadata as attributes; the OTLP encoder's bytes go nowhere."""

    works_later = True

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Encoding(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                encode_spans(spans).SerializeToString()
                return SpanExportResult.SUCCESS

        self.provider = TracerProvider()
        # A queue that drops nothing in a round: dropping would be cheap.
        self.provider.add_span_processor(BatchSpanProcessor(Encoding(), max_queue_size=100_000))
        self.start = self.provider.get_tracer("bench").start_as_current_span

    def one(self, number: int) -> None:
        resource = self.made[number % 200]["resource"]
        with self.start(resource["name"], attributes=resource["metadata"]):
            pass

    def trace(self, events_each: int) -> None:
        with self.start("runner"):
            for number in range(events_each):
                self.one(number)

    def flush(self) -> None:
        self.provider.force_flush()


class OpenTelemetryFunction(OpenTelemetry):
    """A call of a function that start_as_current_span decorates."""

    def __init__(self) -> None:
        super().__init__()
        self.call = self.start("same")(same)

    def one(self, number: int) -> None:
        self.call(number)


class Spans(Ready):
    """A span as instrumentations make it, through OpenTelemetry's API, on our recorder: OTLP to the sink."""

    def __init__(self) -> None:
        super().__init__()
        from opentelemetry import trace

        from epsagon_fast.integrations.opentelemetry import install

        install()
        self.client = trace.SpanKind.CLIENT
        self.start = trace.get_tracer("bench", "1.0").start_as_current_span

    def prepare(self, size_bytes: int) -> None:
        """Open the trace that the single spans are part of."""
        super().prepare(size_bytes)
        self.outer = self.start("outer")
        self.outer.__enter__()

    def one(self, number: int) -> None:
        with self.start("GET", kind=self.client, attributes={**CALL, "http.request.resend_count": number}) as span:
            span.set_attribute("http.response.status_code", 200)

    def trace(self, events_each: int) -> None:
        with self.start("GET /cart/{id}", context={}):
            for number in range(events_each - 1):
                self.one(number)


class SpansOfTheSdk(Spans):
    """The same with OpenTelemetry's SDK, its batches and its exporter: OTLP to the sink."""

    works_later = True

    def __init__(self) -> None:
        import os

        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        endpoint = os.environ["EPSAGON_COLLECTOR_URL"].removeprefix("otlp+") + "v1/traces"
        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), max_queue_size=100_000))
        self.client = trace.SpanKind.CLIENT
        self.start = self.provider.get_tracer("bench", "1.0").start_as_current_span

    def flush(self) -> None:
        self.provider.force_flush()

    def helper_pid(self) -> int:
        return 0


class Ddtrace(Contender):
    """A span with the metadata as tags, sent to an agent that takes all."""

    works_later = True

    def __init__(self) -> None:
        from ddtrace.trace import tracer

        self.tracer = tracer

    def one(self, number: int) -> None:
        resource = self.made[number % 200]["resource"]
        with self.tracer.trace(resource["name"]) as span:
            span.set_tags(resource["metadata"])

    def trace(self, events_each: int) -> None:
        with self.tracer.trace("runner"):
            for number in range(events_each):
                self.one(number)

    def flush(self) -> None:
        self.tracer.flush()


class DdtraceFunction(Ddtrace):
    """A call of a function that tracer.wrap decorates."""

    def __init__(self) -> None:
        super().__init__()
        self.call = self.tracer.wrap()(same)

    def one(self, number: int) -> None:
        self.call(number)


class Epsagon(Contender):
    """An event of the PyPI package; its send path is whole up to the socket."""

    works_later = True

    def __init__(self) -> None:
        import urllib3

        urllib3.PoolManager.request = lambda *_, **__: None  # type: ignore[method-assign,assignment]
        import epsagon
        from epsagon.event import BaseEvent
        from epsagon.trace import trace_factory

        epsagon.init(token="t", app_name="bench", collector_url="http://127.0.0.1:1", use_ssl=False)
        self.event, self.factory = BaseEvent, trace_factory

    def prepare(self, size_bytes: int) -> None:
        super().prepare(size_bytes)
        self.open = self.factory.get_or_create_trace()

    def one(self, number: int) -> None:
        resource = self.made[number % 200]["resource"]
        made = self.event(time.time())
        made.resource["name"] = resource["name"]
        made.resource["metadata"].update(resource["metadata"])
        made.terminate()
        self.open.add_event(made)
        # It sends in the caller's thread, at the end of a trace. More events would be over its limit.
        if len(self.open.events) == 20:
            self.flush()

    def trace(self, events_each: int) -> None:
        for number in range(events_each):
            self.one(number)
        self.flush()

    def flush(self) -> None:
        if self.open.events:
            self.open.set_runner(self.event(time.time()))
            self.open.send_traces()
            assert self.open.trace_sent
            self.factory.pop_trace()
            self.open = self.factory.get_or_create_trace()


CONTENDERS = {
    "nothing": Nothing,
    "building the dict": Building,
    "orjson.dumps": Orjson,
    "multiprocessing.Queue.put": Queue,
    "add_event of a ready dict": Ready,
    "add_event of an incomplete dict": Incomplete,
    "epsagon_fast block": Block,
    "epsagon_fast function": Function,
    "OpenTelemetry block": OpenTelemetry,
    "OpenTelemetry function": OpenTelemetryFunction,
    "ddtrace block": Ddtrace,
    "ddtrace function": DdtraceFunction,
    "epsagon_fast spans": Spans,
    "OpenTelemetry SDK spans": SpansOfTheSdk,
    "epsagon event": Epsagon,
}


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the background work does not end"
        time.sleep(0.001)


def timed(call: Callable[[Any], None], arguments: list[Any]) -> list[int]:
    calls_ns = []
    now = time.perf_counter_ns
    for argument in arguments:
        start = now()
        call(argument)
        calls_ns.append(now() - start)
    return calls_ns


def used_ns(contender: Contender, call: Callable[[Any], None], arguments: list[Any]) -> tuple[float, float]:
    """Return the processor time of a call, here and in the helper, without clock readings in between."""
    helper = contender.helper_pid()
    start, helper_start = time.process_time_ns(), cpu_clock_ns(helper)
    for argument in arguments:
        call(argument)
    if contender.works_later:
        contender.flush()
    here = time.process_time_ns() - start
    contender.flush()
    return here / len(arguments), (cpu_clock_ns(helper) - helper_start) / len(arguments)


def run(contender: Contender, call: Callable[[Any], None], arguments: list[Any]) -> dict[str, Any]:
    contender.flush()
    calls_ns = timed(call, arguments)
    contender.flush()
    cpu_ns, helper_ns = used_ns(contender, call, arguments)
    return {"calls_ns": calls_ns, "cpu_ns": cpu_ns, "helper_ns": helper_ns}


def events(contender: Contender, size_bytes: int, count: int) -> dict[str, Any]:
    contender.prepare(size_bytes)
    return run(contender, contender.one, list(range(count)))


def traces(contender: Contender, events_each: int, count: int) -> dict[str, Any]:
    contender.prepare(500)
    return run(contender, contender.trace, [events_each] * count)


def crowded(contender: Contender, size_bytes: int, count: int) -> dict[str, Any]:
    """Measure events beside a thread that wants the processor all the time."""
    contender.prepare(size_bytes)
    contender.flush()
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        return {"calls_ns": timed(contender.one, list(range(count))), "cpu_ns": 0, "helper_ns": 0}
    finally:
        stop.set()
        thread.join()


COMMANDS = {each.__name__: each for each in (events, traces, crowded)}

if __name__ == "__main__":
    chosen = CONTENDERS[sys.argv[1]]()
    print("ready", flush=True)
    with suppress(KeyboardInterrupt):
        for line in sys.stdin:
            name, *numbers = json.loads(line)
            print(json.dumps(COMMANDS[name](chosen, *numbers)), flush=True)
