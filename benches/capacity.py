"""What a collector takes of the machine, by traces a second: the table of docs/operating.md.

    python benches/capacity.py

Three workers at a steady rate, five events of 800 bytes in each trace, a backend that takes everything.
"""

import pathlib
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))
from places import Place, until
from sink import sink

RATES = (10, 100, 300, 1000)
SECONDS = 10
WORKERS = 3
# Traces at a rate, from now on, then says how many.
WORKER = """
import sys, time, epsagon_fast as epsagon
rate, ends = float(sys.argv[1]), time.monotonic() + float(sys.argv[2])
event, due = {"resource": {"name": "n", "metadata": {"k": "x" * 700}}}, time.monotonic()
while (now := time.monotonic()) < ends:
    with epsagon.trace("t"):
        for _ in range(5):
            epsagon.add_event(event)
    due = max(due + 1 / rate, now - 1)
    time.sleep(max(0.0, due - now))
"""


def row(rate: int) -> str:
    """Return the line of the table for so many traces a second."""
    with sink() as backend:
        place = Place(backend.url)
        place.linger()
        try:
            workers = [place.start(WORKER, str(rate / WORKERS), str(SECONDS)) for _ in range(WORKERS)]
            began = time.monotonic()
            for worker in workers:
                _, errors = worker.communicate()
                assert worker.returncode == 0, errors
            took_s = time.monotonic() - began
            # The collector writes its own figures once a second.
            before = place.look().heartbeat_age_s
            until(lambda: place.look().gauges["pending"] == 0, f"all is settled ({before})")
            time.sleep(1.2)
            seen = place.look()
        finally:
            place.close()
    counters, gauges = seen.counters, seen.gauges
    refused = sum(count for name, count in counters.items() if name.startswith("refused_"))
    cpu, mib = counters["cpu_ms"] / 10 / took_s, gauges["resident_bytes"] / 2**20
    return f"| {rate:,} | {counters['delivered'] / took_s:,.0f} | {cpu:.0f} % | {mib:.0f} MiB | {refused:,} |"


def main() -> None:
    """Print the table."""
    print("| traces a second asked | delivered | one CPU | memory | records refused |\n|---:|---:|---:|---:|---:|")
    for rate in RATES:
        print(row(rate), flush=True)


if __name__ == "__main__":
    main()
