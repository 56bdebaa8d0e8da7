"""What a collector's loop takes by its clock at a rate and at twice that, so what its passes take and what its traces.

`python benches/pass_cost.py` records traces of one event in one process, at each of these rates for ten seconds; a sink
takes them. With rates behind it, at those. A busy machine shows here: look at several runs.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path.append(str(TESTS))

PER_SECOND = (30, 60, 120, 240)
SECONDS, EVENTS, EVENT_BYTES = 10.0, 1, 470


def loop_ms_per_s(per_second: float) -> float:
    """Return the milliseconds that the loop uses in a second in which so many traces come."""
    from yard import yard

    with yard() as own:
        boss = own.producer()
        boss.do("hire", 1, per_second, SECONDS, EVENTS, EVENT_BYTES)
        collector = own.collector()
        # What is used once, for the first traces, is no part of it.
        boss.do("work")
        before = own.spent(collector)
        boss.do("work")
        return own.spent(collector).since(before).loop_ns / 1e6 / SECONDS


def main() -> None:
    """Print each rate's figures, and the straight line between the first and the last."""
    rates = [float(each) for each in sys.argv[1:]] or PER_SECOND
    found = {rate: loop_ms_per_s(rate) for rate in rates}
    for rate, took_ms in found.items():
        print(f"{rate:5.0f} traces/s: {took_ms:6.2f} ms a second, {took_ms / rate * 1000:6.1f} us a trace", flush=True)
    (low, low_ms), (high, high_ms) = min(found.items()), max(found.items())
    if high > low:
        each_ms = (high_ms - low_ms) / (high - low)
        print(f"{low_ms - each_ms * low:.2f} ms a second for its passes, {each_ms * 1000:.1f} us for a trace")


if __name__ == "__main__":
    main()
