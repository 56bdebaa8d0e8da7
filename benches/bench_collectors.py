"""What a span costs on its way to a real OpenTelemetry Collector and through it: processor time, bytes, disk.

One host at a steady rate, a service of 200 requests a second with five spans each. benches/scaling.py makes of it what
docs/scaling.md says of many hosts. Needs `make collectors`.

All runs on this machine, but bodies are compressed, as they are on their way to another one.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from built import EXAMPLES, Otelcol, running
from places import Place, until
from report import Report
from scaling import IN_APPLICATION, IN_COLLECTOR, IN_OTELCOL, IN_OUTBOX, IN_QUEUE, TABLE
from servers import Request, Server, reply

REQUESTS_PER_S, SPANS, SECONDS = 200, 5, 10
# The first second, in which processes start, is not measured.
WARM_UP = REQUESTS_PER_S
REQUESTS = WARM_UP + REQUESTS_PER_S * SECONDS
COUNT = REQUESTS_PER_S * SECONDS * SPANS
# What an instrumented service says of a request and of what it asks others. Values differ as they do in life, since
# equal ones would be compressed to nothing.
PROGRAM = f"""
import random, sys, time, epsagon_fast as epsagon
chance = random.Random(1)
tables = ["orders", "customers", "articles", "shelves", "carts", "prices", "coupons", "parcels"]
began = time.monotonic()
for number in range({REQUESTS}):
    if number == {WARM_UP}:
        used = time.process_time()
        print("warm", flush=True)
    with epsagon.trace("GET /cart/{{id}}") as trace:
        for event in range({SPANS - 1}):
            table, key = chance.choice(tables), chance.getrandbits(40)
            with epsagon.event(f"SELECT shop.{{table}}", type="database", operation="SELECT") as made:
                made.metadata.update({{"db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db-1",
                    "server.port": 5432, "db.operation.name": "SELECT", "db.collection.name": table,
                    "db.query.text": f"SELECT id, state, total FROM {{table}} WHERE id = $1 AND state <> $2 LIMIT 20",
                    "db.query.parameter.id": key, "db.response.returned_rows": key % 20}})
        epsagon.label("customer", chance.getrandbits(32))
    ahead = began + (number + 1) / {REQUESTS_PER_S} - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
print((time.process_time() - used) / {COUNT}, flush=True)
assert epsagon.flush(60)
"""

pytestmark = pytest.mark.timeout(0)


class Counting:
    """A backend that counts what came, in bytes as they came."""

    def __init__(self) -> None:
        self.requests = self.compressed = 0
        self.bytes = 0
        self._counting = threading.Lock()
        self._answer = reply(200, {}, b"{}")

    def __call__(self, request: Request, connection: socket.socket) -> bool:
        with self._counting:
            self.requests += 1
            self.compressed += request.headers.get("content-encoding") == "gzip"
            self.bytes += len(request.body)
        connection.sendall(self._answer)
        return True


@contextmanager
def backend() -> Iterator[tuple[Counting, str]]:
    counting = Counting()
    with Server(counting, keeps=False) as server:
        yield counting, server.url.rstrip("/")


def used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def host(url: str) -> Place:
    # In OpenTelemetry's words, since ours compress nothing for this machine.
    otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    place = Place("", EPSAGON_TOKEN="", EPSAGON_RING_BYTES=str(8 << 20), **otlp)
    place.linger()
    return place


def spent(place: Place, *pids: Callable[[], int]) -> list[float]:
    """Run the program; return processor seconds a span: its own, and those of other processes once it is warm."""
    with place.start(PROGRAM) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "warm\n"
        before = [used_s(pid()) for pid in pids]
        own_s = float(program.stdout.readline())
        _, errors = program.communicate(timeout=60)
        assert program.returncode == 0, errors
        after = [used_s(pid()) for pid in pids]
    assert not place.look().counters.get("refused_queue_full")
    return [own_s, *((end - begin) / COUNT for begin, end in zip(before, after, strict=True))]


def test_a_span_on_its_way_through_a_collector(report: Report, tmp_path: Path) -> None:
    rows: list[tuple[str, float | str, float | str, float | str]] = []
    with backend() as (direct, url), closing(host(url)) as place:
        spent(place)
    with backend() as (behind, url):
        otelcol = Otelcol(EXAMPLES / "tempo.yaml", tmp_path, TEMPO_URL=url)
        with running(otelcol), closing(host(otelcol.url)) as place:
            application_s, collector_s, otelcol_s = spent(place, place.the_collector, lambda: otelcol.process.pid)
    assert all(each.requests == each.compressed > 0 for each in (direct, behind))
    sent, seconds = REQUESTS * SPANS, REQUESTS / REQUESTS_PER_S
    rows.append((IN_APPLICATION, application_s * 1e6, "-", "-"))
    rows.append((IN_COLLECTOR, collector_s * 1e6, direct.bytes / sent, direct.requests / seconds))
    rows.append((IN_OTELCOL, otelcol_s * 1e6, behind.bytes / sent, behind.requests / seconds))
    rows += [(IN_OUTBOX, "-", waiting_here(), "-"), (IN_QUEUE, "-", waiting_there(tmp_path / "sick"), "-")]
    columns = ["", "CPU µs a span", "bytes a span", "requests a second"]
    note = (
        f"{REQUESTS_PER_S} requests a second of {SPANS} spans each, over {SECONDS} s. Bytes as they are sent, "
        "compressed, or as they lie on the disk while the backend does not answer."
    )
    report.table("collectors", TABLE, columns, rows, note)


def waiting_here() -> float:
    """Return the bytes on the disk of a span that waits in our outbox."""
    with closing(host("http://127.0.0.1:9")) as place:
        spent(place)
        until(lambda: place.look().gauges["stored"] >= REQUESTS, lambda: str(place.look()))
        return size_of(place.scratch / "state") / (REQUESTS * SPANS)


def waiting_there(folder: Path) -> float:
    """Return the bytes on the disk of a span that waits in the Collector's queue."""
    folder.mkdir()
    otelcol = Otelcol(EXAMPLES / "tempo.yaml", folder, TEMPO_URL="http://127.0.0.1:9")
    with running(otelcol), closing(host(otelcol.url)) as place:
        spent(place)
        return size_of(folder / "queue") / (REQUESTS * SPANS)
