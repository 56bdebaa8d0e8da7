"""Which share of requests arrives at the backend if a worker, the server or the backend fails, beside the peers.

The applications are those of bench_requests.py, each tracer as its documentation sets it up, each with a sink of its
own. All faults are tried at the same time. A request has arrived if the sink has both of its spans and answered 200.
"""

import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest
from bench_requests import HERE as OURSELVES
from bench_requests import THERE, Served, served, shown_share
from report import Report, peers_python
from shops import BARE, THEIR_BARE

REQUESTS = 200
# How long the backend answers 503, and how long each may take to deliver what it has after the fault.
SICK_S, PATIENCE_S = 30.0, 30.0

pytestmark = pytest.mark.timeout(0)


def nothing(each: Served) -> None:
    each.web.ask(REQUESTS)


def worker_is_killed(each: Served) -> None:
    """As the kernel does that is out of memory, or a supervisor whose patience has ended."""
    each.web.ask(REQUESTS)
    os.kill(each.worker, signal.SIGKILL)


def server_is_stopped(each: Served) -> None:
    """As in a deployment."""
    each.web.ask(REQUESTS)
    os.kill(each.web.pid, signal.SIGTERM)


def backend_refuses(each: Served) -> None:
    each.backend.answer(503)
    each.web.ask(REQUESTS)


def backend_refuses_and_worker_dies(each: Served) -> None:
    backend_refuses(each)
    os.kill(each.worker, signal.SIGKILL)


FAULTS: dict[str, Callable[[Served], None]] = {
    "no fault": nothing,
    "worker killed after its last answer (SIGKILL)": worker_is_killed,
    "server stopped (SIGTERM)": server_is_stopped,
    f"backend answers 503 for {SICK_S:.0f} s": backend_refuses,
    "both, 503 and SIGKILL": backend_refuses_and_worker_dies,
}


def shares(pythons: dict[str, str]) -> dict[str, list[float]]:
    """Let each fault happen to each of them; return which share arrived of each."""
    with contextlib.ExitStack() as stack:
        tried = {fault: [stack.enter_context(served(*each)) for each in pythons.items()] for fault in FAULTS}
        for fault, all_served in tried.items():
            for each in all_served:
                each.count_anew()
                FAULTS[fault](each)
        time.sleep(SICK_S)
        for each in itertools.chain(*tried.values()):
            each.backend.answer(200)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = {fault: [each.share_arrived() for each in all_served] for fault, all_served in tried.items()}
            if time.monotonic() > deadline or min(itertools.chain(*found.values())) == 1:
                return found
            time.sleep(1)


def test_faults(report: Report) -> None:
    peers = peers_python()
    pythons = {name: sys.executable for name in OURSELVES if name != BARE}
    pythons |= {name: peers for name in THERE if peers and name != THEIR_BARE}
    found = shares(pythons)
    table = [[fault, *map(shown_share, each)] for fault, each in found.items()]
    note = (
        f"Of {REQUESTS} requests, one after another, at the time of the fault. What has arrived {PATIENCE_S:.0f} s "
        f"after the backend is well again, {SICK_S + PATIENCE_S:.0f} s after the other faults."
    )
    report.leading("survival", "Requests that arrive", ("", *pythons), table, note)
    for fault, each in found.items():
        least = min(each[: len(OURSELVES) - 1])
        report.target(f"every request arrives: {fault}", f"{least:.1%}", least == 1, "See section 10.")
