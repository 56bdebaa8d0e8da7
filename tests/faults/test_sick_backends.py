"""Backends that fail in every way: traces are kept, rejected or delivered, and nothing else suffers."""

import json
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from places import FULL, times, until
from scenes import Scene, holds, scene
from servers import Behaviour, Request, Server, certificate, closing, drip, hang, reply, reset, status

TRIES = times(50, 5)
EVENTS = 3
# A backend that asks for patience gets it.
RETRY_AFTER_S = 3
MIB = 1024 * 1024
# An idle collector has about 45 MB; a sender more costs its stack and a connection.
MOST_RESIDENT_BYTES = 110 * MIB
MOST_THREADS = 64 + 4

# Each trace has a token of its own, and so a destination with a back-off of its own.
WORKER = """
import json, sys, epsagon_fast as epsagon, noting
from collections import Counter
tracers = [epsagon.create_tracer(epsagon.Config(token=f"token-{n}")) for n in range(int(sys.argv[1]))]
for tracer in tracers:
    tracer.start()
    for _ in range(int(sys.argv[2])):
        noting.add(tracer)
    tracer.send_stop_signal()
print(json.dumps(Counter(str(tracer.stop(60)) for tracer in tracers)), flush=True)
sys.stdin.readline()
print(json.dumps(Counter(str(tracer.stop(60)) for tracer in tracers)), flush=True)
"""


class Patient:
    """A server that is sick until it is well, and what it has seen of each token."""

    def __init__(self, sick: Behaviour) -> None:
        self.sick = sick
        self.well = False
        self.times: dict[str, list[float]] = defaultdict(list)
        self.take: Callable[[str, bytes], None] = lambda key, body: None
        self._lock = threading.Lock()
        self._healthy = status(200)

    def __call__(self, request: Request, connection: socket.socket) -> bool:
        with self._lock:
            self.times[request.headers["authorization"]].append(time.monotonic())
            if self.well:
                self.take(request.headers["idempotency-key"], request.body)
        return (self._healthy if self.well else self.sick)(request, connection)


def asks_for_patience(code: int, form: str) -> Behaviour:
    """Answer with a Retry-After, as seconds or as a date."""

    def behave(_: Request, connection: socket.socket) -> bool:
        value = str(RETRY_AFTER_S) if form == "seconds" else formatdate(time.time() + RETRY_AFTER_S + 1, usegmt=True)
        connection.sendall(reply(code, {"Retry-After": value}, b"{}"))
        return True

    return behave


SICK: dict[str, tuple[Behaviour, str]] = {
    "hangs": (hang, "STORED (timeout)"),
    "resets connections": (reset, "STORED (connection)"),
    "drips a byte a second": (drip(reply(200, {}, b"{}"), 1.0), "STORED (timeout)"),
    "500": (status(500), "STORED (500)"),
    "502": (status(502), "STORED (502)"),
    "503, Retry-After in seconds": (asks_for_patience(503, "seconds"), "STORED (503)"),
    "429, Retry-After as a date": (asks_for_patience(429, "date"), "STORED (429)"),
    "400": (status(400), "REJECTED (400)"),
    "401": (status(401), "REJECTED (401)"),
    "413": (status(413), "REJECTED (413)"),
}


@pytest.mark.parametrize("how", SICK)
def test_a_sick_backend_gets_all_that_it_did_not_reject_once_it_is_well(how: str) -> None:
    sick, outcome = SICK[how]
    patient = Patient(sick)
    with Server(patient) as server, scene(f"backend: {how}", url=server.url, EPSAGON_SEND_TIMEOUT_SEC="0.5") as here:
        patient.take = here.sink.take
        _treat(here, patient, outcome, lambda: None)
        rejected = outcome.startswith("REJECTED")
        reason = "rejected_" + outcome.partition("(")[2].rstrip(")")
        counters = here.look().counters
        if rejected:
            assert counters[reason] == TRIES and not counters.get("stored")
        else:
            assert counters["stored"] == counters["delivered"] == TRIES
        here.account({reason: EVENTS * TRIES} if rejected else {})
        holds(here.row)
        # A request that timed out may have been taken all the same; no such server takes any here.
        assert here.row.duplicates == 0
        if "Retry-After" in how:
            for seen in patient.times.values():
                assert seen[1] - seen[0] >= RETRY_AFTER_S


def test_a_backend_that_refuses_connections_gets_all_once_it_is_there() -> None:
    patient = Patient(hang)
    absent = Server()
    absent.close()
    with scene("backend: refuses connections", url=absent.url) as here:
        patient.take = here.sink.take
        come: list[Server] = []
        _treat(here, patient, "STORED (connection)", lambda: come.append(Server(patient, port=absent.port)))
        here.account({})
        come[0].close()
        holds(here.row)


def test_a_redirect_is_not_followed() -> None:
    with Server() as thief:
        patient = Patient(status(302, {"Location": thief.url}))
        with Server(patient) as server, scene("backend: redirects", url=server.url) as here:
            patient.take = here.sink.take
            _treat(here, patient, "REJECTED (302)", lambda: None)
            here.account({"rejected_302": EVENTS * TRIES})
            holds(here.row)
        assert thief.connections == 0


def test_a_backend_with_a_wrong_certificate_gets_no_token(tmp_path: Path) -> None:
    right = certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    patient = Patient(hang)
    patient.well = True
    impostor = Server(patient, tls=certificate(other))
    with scene("backend: wrong TLS certificate", url=impostor.url, SSL_CERT_FILE=right.ca_file) as here:
        patient.take = here.sink.take
        with here.start(WORKER, str(TRIES), str(EVENTS), stdin=-1) as worker:
            assert worker.stdin is not None and worker.stdout is not None
            outcomes = json.loads(worker.stdout.readline())
            here.row.tried += TRIES
            assert outcomes == {"STORED (tls)": TRIES}, here.log()
            assert not impostor.requests, "a token went to an impostor"
            port = impostor.port
            impostor.close()
            # Asked again after minutes; by the next collector at once.
            os.kill(here.the_collector(), 9)
            with Server(patient, tls=right, port=port):
                worker.communicate("\n")
                here.run("import noting; noting.fill(1)")
                here.account({})
        holds(here.row)


def test_a_backend_that_closes_kept_connections_gets_each_trace() -> None:
    patient = Patient(closing())
    script = (
        "import time, noting\nfor _ in range(int(__import__('sys').argv[1])):\n    noting.fill(3)\n    time.sleep(0.01)"
    )
    with Server(patient) as server, scene("backend: closes keep-alive", url=server.url) as here:
        patient.take = here.sink.take
        patient.well, patient._healthy = True, closing()
        here.run(script, str(TRIES))
        here.row.tried = TRIES
        noted = here.account()
        holds(here.row)
        assert noted.opened == set(here.sink.traces)
        assert not here.counter("stored")


def _treat(here: Scene, patient: Patient, outcome: str, heal: Callable[[], None]) -> None:
    """Trace while the backend is sick, see what becomes of that, then let it be well."""
    with here.start(WORKER, str(TRIES), str(EVENTS), stdin=-1) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        outcomes = json.loads(worker.stdout.readline() or "{}")
        here.row.tried += TRIES
        assert outcomes == {outcome: TRIES}, f"{outcomes}\n{here.log()}"
        resident, threads = _size(here.the_collector())
        assert resident < MOST_RESIDENT_BYTES and threads <= MOST_THREADS
        patient.well = True
        heal()
        if outcome.startswith("STORED"):
            until(lambda: here.gauge("stored") == 0, lambda: f"all is sent: {here.look()}\n{here.log()}", 90)
        out, errors = worker.communicate("\n")
        assert worker.returncode == 0, errors
        expected = "DELIVERED" if outcome.startswith("STORED") else outcome
        assert json.loads(out) == {expected: TRIES}
    # No token in it, however each failure is worded.
    assert "token-" not in here.log()


def _size(pid: int) -> tuple[int, int]:
    """Return a process's own resident bytes and its number of threads."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024, int(lines["Threads"])


# Gone for a while, under load.

STEADY = """
import os, sys, time, noting
def steady(traces_per_s, seconds, count, size):
    began = time.monotonic()
    for number in range(int(traces_per_s * seconds)):
        noting.fill(count, size)
        ahead = began + (number + 1) / traces_per_s - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
rate, seconds, count, size = map(float, sys.argv[1:])
pids = [noting.spawn(steady, rate / 2, seconds, int(count), int(size)) for _ in range(2)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
assert codes == [0, 0], codes
"""
GONE_S = 60.0 if FULL else 2.0
RATE = 500.0 if FULL else 150.0


def test_a_backend_that_is_gone_for_a_minute_gets_all_of_it() -> None:
    with scene(f"backend gone for {GONE_S:.0f} s at {RATE:.0f} traces/s") as here:
        for _ in range(times(3, 1)):
            with here.start(STEADY, str(RATE), str(GONE_S + 2), "2", "200") as load:
                time.sleep(1.0)
                here.sink.close()
                time.sleep(GONE_S)
                resident, threads = _size(here.the_collector())
                print(f"{resident / MIB:.0f} MiB, {threads} threads, {here.look().gauges}")
                assert resident < MOST_RESIDENT_BYTES and threads <= MOST_THREADS
                here.sink.open()
                _, errors = load.communicate(timeout=120)
                assert load.returncode == 0, errors
            here.row.tried += 1
            until(lambda: here.gauge("stored") == 0, lambda: f"all is sent: {here.look()}", 300)
        here.account(patience_s=300)
        holds(here.row)
        assert here.row.refused.keys() <= {"queue_full"}
        assert here.counter("dropped_outbox_full") == 0


if FULL:  # 84 MB have to be pushed for it; tests/test_outbox.py has a smaller bound

    def test_over_the_outbox_s_bound_the_oldest_go_and_are_counted() -> None:
        with scene("outbox over its bound", EPSAGON_RING_BYTES=str(16 << 20)) as here:
            here.sink.close()
            # Some 84 MB: each trace is nearly as large as it may be.
            here.run(
                "import time, noting\nfor _ in range(1400):\n    noting.fill(4, 15000)\n    time.sleep(0.003)",
                timeout_s=120,
            )
            here.row.tried = 1
            until(lambda: not sum(ring.unread_bytes for ring in here.look().rings), "all is read")
            until(lambda: here.gauge("pending") == 0, lambda: f"all is stored: {here.look()}", 60)
            here.sink.open()
            until(lambda: here.gauge("stored") == 0, lambda: f"all is sent: {here.look()}", 120)
            dropped = here.counter("dropped_outbox_full")
            here.account({"outbox_full": 4 * dropped})
            holds(here.row)
            assert 200 < dropped < 800
