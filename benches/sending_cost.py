"""What a collector's sending takes of a small trace, from the parcel to its settlement: instructions and system calls.

`python benches/sending_cost.py` prints both for each format, counted by callgrind and by strace: neither changes on a
busy machine. Dispatch, senders, sockets and ledger are real. A pass has 20 traces, and comes 20 times a second. What
is counted is the difference of two runs, so what a start takes is in neither.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from counting import LINE, named
from loop_cost import BATCH
from sink import sink

PASS_S = 0.05
FEW, MANY = 4, 24
SHOWN = 15
FORMS = ("", "otlp+")
CALL = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from sending_cost import send
send(sys.argv[2], int(sys.argv[3]))
"""


def send(url: str, passes: int) -> None:
    """Send a pass's traces so many times, as a collector's loop has them sent."""
    from epsagon_fast.collector.measuring.deliveries import Deliveries, MeasuredSender
    from epsagon_fast.collector.parcel import Destination, Parcel
    from epsagon_fast.collector.sending.arrived import Arrived
    from epsagon_fast.collector.sending.delivery import Delivery
    from epsagon_fast.collector.sending.dispatch import Dispatch
    from epsagon_fast.collector.sending.outbox.outbox import Outbox
    from epsagon_fast.queue.ledger import Ledger

    with tempfile.TemporaryDirectory() as folder:
        log = logging.getLogger("bench")
        folder_fd = os.open(folder, os.O_RDONLY)
        deliveries = Deliveries(Ledger(folder_fd))
        delivery = Delivery(log=log, arrived=Arrived(folder_fd))
        sender, outbox = MeasuredSender(delivery, deliveries), Outbox(folder, bytes(16), log=log)
        dispatch = Dispatch(sender, outbox)
        destination = Destination(url, "token", 5.0, state_dir=folder)
        span = b'{"resource":{"attributes":[]},"scopeSpans":[{"spans":[%b]}]}'
        body = (span if url.startswith("otlp") else b'{"events":[%b]}') % (b'{"id":"0123456789abcdef"},' * 50 + b"{}")
        settled = 0
        for number in range(passes):
            for place in range(BATCH):
                trace_id = (number * BATCH + place + 1).to_bytes(16, "big")
                dispatch.add(Parcel(trace_id, destination, body))
            settled += len(dispatch.step(time.monotonic()))
            time.sleep(PASS_S)
        while settled < passes * BATCH:
            time.sleep(PASS_S)
            settled += len(dispatch.step(time.monotonic()))
        sender.close(1.0)
        outbox.close(1.0)
        os.close(folder_fd)


def traced(tool: list[str], url: str, passes: int) -> None:
    words = [*tool, sys.executable, "-c", PROGRAM, str(Path(__file__).parent), url, str(passes)]
    subprocess.run(words, check=True, capture_output=True)


def instructions(url: str, passes: int) -> dict[str, Counter[str]]:
    """Return what the loop's thread and the others took, by function."""
    found = {"loop": Counter[str](), "senders": Counter[str]()}
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        traced(["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"], url, passes)
        for thread in sorted(Path(folder).glob("out-*")):
            command = ["callgrind_annotate", "--auto=no", "--threshold=100", str(thread)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            counts = found["loop" if thread.name == "out-01" else "senders"]
            for count, where, _ in LINE.findall(printed):
                if not where.startswith("PROGRAM"):
                    counts[named(where)] += int(count.replace(",", ""))
    return found


def calls(url: str, passes: int) -> dict[str, Counter[str]]:
    """Return the system calls of all threads."""
    with tempfile.NamedTemporaryFile("r") as out:
        traced(["strace", "-f", "-c", "-o", out.name], url, passes)
        return {
            "system calls": Counter({name: int(count) for count, name in CALL.findall(out.read()) if name != "total"})
        }


def show(title: str, few: Counter[str], many: Counter[str], least: float) -> None:
    per_trace = {name: (count - few[name]) / (MANY - FEW) / BATCH for name, count in many.items()}
    print(f"\n{title}: {sum(per_trace.values()):,.1f} a trace")
    for name in sorted(per_trace, key=lambda name: -per_trace[name])[:SHOWN]:
        if per_trace[name] >= least:
            print(f"  {per_trace[name]:10,.2f}  {name}", flush=True)


def main() -> None:
    """Print for each format what a trace takes."""
    for form in FORMS:
        with sink() as backend:
            for tool, count, least in (("strace", calls, 0.01), ("valgrind", instructions, 100)):
                if not shutil.which(tool):
                    print(f"{tool} is missing")
                    continue
                few, many = count(form + backend.url, FEW), count(form + backend.url, MANY)
                for what in many:
                    show(f"{form or 'epsagon'}: {what}", few[what], many[what], least)


if __name__ == "__main__":
    main()
