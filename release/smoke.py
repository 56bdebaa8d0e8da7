"""Try an installed epsagon_fast[backend]: are the modules the expected ones, and does a traced process deliver?

`python -I release/smoke.py compiled` or `reference`, from any directory: it uses nothing of the source tree. What is
wrong ends it with a traceback.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import epsagon_fast
from epsagon_fast import trimming
from epsagon_fast.backend import Backend, running
from epsagon_fast.queue import ring

TIMEOUT_S = 60.0
# What is traced is larger, so it has to be trimmed.
LIMIT_BYTES = 16384
TRACED = """
import logging
logging.basicConfig(level=logging.DEBUG)
import epsagon_fast as epsagon

text = "v" * 80
event = {"id": "e", "start_time": 1.0, "resource": {"name": "n", "type": "http", "operation": "GET",
         "metadata": {f"key_{n}": text for n in range(10)}},
         "origin": "sdk", "duration": 0.5, "error_code": 0, "exception": None}
with epsagon.trace("smoke") as tracer:
    epsagon.label("user", 42)
    for _ in range(50):
        tracer.add_event(event)
print(epsagon.flush(30))
"""
SLOWER = "slower"


def main(expected: str) -> None:
    """Run all checks."""
    check_modules(expected)
    with tempfile.TemporaryDirectory(prefix="epsagon-smoke-") as folder, running() as backend:
        environment = settings(backend, folder)
        try:
            check_delivery(backend, environment, expected)
            check_commands(environment, expected)
        finally:
            until(lambda: not serves(environment), "the collector leaves")


def check_modules(expected: str) -> None:
    """See that the modules are the expected ones, and those of the installation."""
    found = {trimming.IMPLEMENTATION, ring.IMPLEMENTATION}
    assert found == {expected}, found
    place = Path(epsagon_fast.__file__).resolve().parent
    assert place.is_relative_to(Path(sys.prefix).resolve()), f"{place} is not in {sys.prefix}"
    modules = sorted(str(path.relative_to(place)) for path in place.rglob("*.so"))
    assert bool(modules) == (expected == "compiled"), modules
    print(f"installed  {epsagon_fast.__version__} on Python {sys.version.split()[0]}: {', '.join(modules) or expected}")


def settings(backend: Backend, folder: str) -> dict[str, str]:
    """Return the environment of the processes that are traced."""
    own = {
        "EPSAGON_COLLECTOR_URL": backend.url,
        "EPSAGON_TOKEN": "smoke",
        "EPSAGON_RUNTIME_DIR": os.path.join(folder, "runtime"),
        "EPSAGON_STATE_DIR": os.path.join(folder, "state"),
        "EPSAGON_LINGER_SEC": "0.2",
        "EPSAGON_MAX_TRACE_SIZE": str(LIMIT_BYTES),
    }
    os.mkdir(own["EPSAGON_RUNTIME_DIR"], 0o700)
    return {**os.environ, **own}


def check_delivery(backend: Backend, environment: dict[str, str], expected: str) -> None:
    """See that a traced process's events arrive, trimmed, and that a slow installation says so once."""
    done = run(environment, "-c", TRACED, EPSAGON_DEBUG="1")
    assert (done.returncode, done.stdout) == (0, "True\n"), done
    assert done.stderr.count(SLOWER) == (expected == "reference"), done.stderr
    until(lambda: backend.store.counts()["traces"] == 1, "the trace arrives")
    [(_, body)] = backend.store.bodies()
    *events, runner = json.loads(body)["events"]
    assert len(events) == 50 and len(body) <= LIMIT_BYTES, (len(events), len(body))
    assert not events[0]["resource"]["metadata"], events[0]
    assert json.loads(runner["resource"]["metadata"]["labels"]) == {"user": 42}, runner
    print(f"delivered  {len(events)} events, trimmed to {len(body)} bytes")


def check_commands(environment: dict[str, str], expected: str) -> None:
    """See that the command line is installed and finds everything well."""
    program = os.path.join(sys.prefix, "bin", "epsagon-fast")
    doctor = subprocess.run([program, "doctor"], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert doctor.returncode == 0, doctor
    status = run(environment, "-m", "epsagon_fast", "status").stdout
    assert (SLOWER in status) == (expected == "reference"), status
    print(doctor.stdout.splitlines()[-1])


def run(environment: dict[str, str], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run this Python."""
    command = [sys.executable, "-I", *arguments]
    return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=TIMEOUT_S)


def serves(environment: dict[str, str]) -> bool:
    """Say whether a collector runs."""
    return run(environment, "-m", "epsagon_fast", "status").returncode == 0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {TIMEOUT_S:g} s: {what}"
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
