"""What a collector's loop takes by its clock for whole traces, and how much of it is the kernel's.

`python benches/loop_time.py` records traces of so many events of some 660 bytes as fast as a collector takes them, and
a sink takes what it sends. It prints, for a trace, the loop's time on the processor, the part of it in the kernel, and
the pages that the loop had to be given. Numbers behind it choose how many events a trace has; one of a hundred is over
its limit, and is trimmed.
"""

import sys
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent.parent / "tests"
sys.path.append(str(TESTS))

# Events of a trace, and traces: enough to fill the journal's files several times.
SHAPES = {1: 6000, 10: 6000, 90: 2500, 100: 2500}
EVENT_BYTES = 500
# The kernel counts its part in these.
TICK_S = 0.01


class Used(NamedTuple):
    """What the loop has used so far."""

    took_ns: int
    kernel_ns: int
    faults: int


def used(pid: int) -> Used:
    # Of the first thread alone, which is the loop's.
    task = Path(f"/proc/{pid}/task/{pid}")
    fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
    took_ns = int((task / "schedstat").read_text().split()[0])
    return Used(took_ns, int(int(fields[12]) * TICK_S * 1e9), int(fields[7]))


def per_trace(events: int, traces: int) -> tuple[float, float, float]:
    """Return the microseconds for a trace, those in the kernel, and its page faults."""
    from yard import yard

    with yard() as own:
        producer = own.producer()
        # What is used once, for the first traces, is no part of it.
        producer.do("trace", traces // 4, events, EVENT_BYTES)
        collector = own.collector()
        before = used(collector)
        producer.do("trace", traces, events, EVENT_BYTES)
        after = used(collector)
    took_ns, kernel_ns, faults = (now - then for now, then in zip(after, before, strict=True))
    return took_ns / traces / 1000, kernel_ns / traces / 1000, faults / traces


def main() -> None:
    """Print a line for each shape."""
    for events in [int(each) for each in sys.argv[1:]] or SHAPES:
        took_us, kernel_us, faults = per_trace(events, SHAPES.get(events, 1000))
        print(
            f"a trace of {events}: {took_us:.1f} us, {kernel_us:.1f} of them in the kernel, {faults:.2f} page faults",
            flush=True,
        )


if __name__ == "__main__":
    main()
