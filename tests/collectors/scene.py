"""The shop of shop/, running: two gunicorns and a celery worker, traced, and what Jaeger says of one request."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from built import Jaeger, fetch
from gunicorns import connects
from places import Place, free_port, until
from waiting import TIMEOUT_S

SHOP = Path(__file__).parent / "shop"
HOOKS = ("-c", "python:epsagon_fast.integrations.gunicorn")
# Of one request: two of the first server's own, what is asked and done of the others, and the requests themselves.
SPANS = 8


class Span(NamedTuple):
    """A span as Jaeger's API tells it: times in microseconds, attributes as (type, value)."""

    id: str
    service: str
    name: str
    parent: str
    start_us: int
    took_us: int
    tags: dict[str, tuple[str, Any]]
    # The fields of its events.
    logs: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        """Its kind; Jaeger says none of an internal one."""
        return str(self.tags.get("span.kind", ("", "internal"))[1])


def spans_of(trace: Mapping[str, Any]) -> list[Span]:
    """Return the spans of a trace of Jaeger's API, by their begin."""
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    return sorted((_span(each, services) for each in trace["spans"]), key=lambda span: span.start_us)


def _span(told: Mapping[str, Any], services: Mapping[str, str]) -> Span:
    parents = [each["spanID"] for each in told["references"] if each["refType"] == "CHILD_OF"]
    return Span(
        told["spanID"],
        services[told["processID"]].rpartition("-")[2],
        told["operationName"],
        parents[0] if parents else "",
        told["startTime"],
        told["duration"],
        {tag["key"]: (tag["type"], tag["value"]) for tag in told["tags"]},
        [{"at_us": log["timestamp"], **{each["key"]: each["value"] for each in log["fields"]}} for log in told["logs"]],
    )


Tree = tuple[str, str, tuple["Tree", ...]]


def tree_of(spans: list[Span], parent: str = "") -> tuple[Tree, ...]:
    """Return service and kind of each span below `parent`, with what is below those."""
    return tuple((each.service, each.kind, tree_of(spans, each.id)) for each in spans if each.parent == parent)


class Shop(NamedTuple):
    """A shop whose processes start."""

    place: Place
    traced_by: str
    front: int
    stock: int

    def asked(self, jaeger: Jaeger) -> list[Span]:
        """Serve one request; return the spans that Jaeger has of it, in the only trace that there is."""
        until(lambda: connects(self.front) and connects(self.stock), lambda: f"it opens: {_logs(self.place)}")
        assert fetch(self.front, "/checkout/7") == (200, b"thanks")
        service = f"{self.traced_by}-front"

        def traces() -> list[dict[str, Any]]:
            found = jaeger.traces(service)
            return found if sum(len(trace["spans"]) for trace in found) >= SPANS else []

        [trace] = until(traces, lambda: f"all spans arrive: {jaeger.traces(service)}\n{_logs(self.place)}")
        return spans_of(trace)


@contextmanager
def shop(place: Place, traced_by: str, broker: Mapping[str, Any], worker: Mapping[str, str]) -> Iterator[Shop]:
    """Start the shop in a place. `worker`: what its worker's environment has besides."""
    made = Shop(place, traced_by, free_port(), free_port())
    text = "".join(f"{name} = {value!r}\n" for name, value in {**broker, "task_default_queue": traced_by}.items())
    (place.scratch / "shopconfig.py").write_text(text)
    hooks = HOOKS if traced_by == "by_epsagon_fast" else ()
    place.env |= {"TRACED_BY": traced_by, "STOCK_URL": f"http://127.0.0.1:{made.stock}"}
    place.env["PYTHONPATH"] = f"{SHOP}:{place.scratch}"
    celery = ["celery", "-A", "shop:worker", "worker", "--pool", "solo", "--without-mingle", "--without-gossip"]
    with ExitStack() as stack:
        for name, port in (("front", made.front), ("stock", made.stock)):
            words = ["gunicorn", *hooks, "-b", f"127.0.0.1:{port}", "--no-control-socket", f"shop:{name}()"]
            stack.enter_context(_process(place, f"{traced_by}-{name}", words, {}))
        stack.enter_context(_process(place, f"{traced_by}-worker", celery, worker))
        yield made


@contextmanager
def _process(place: Place, service: str, words: list[str], more: Mapping[str, str]) -> Iterator[None]:
    env = {**place.env, **more, "EPSAGON_APP_NAME": service, "OTEL_SERVICE_NAME": service}
    with (place.scratch / f"{service}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *words], env=env, cwd=place.scratch, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def _logs(place: Place) -> str:
    return "\n".join(path.read_text()[-1500:] for path in place.scratch.glob("*.log")) + place.log()
