"""What this process takes of the machine."""

import resource
import sys
import time

# Linux counts it in KiB, macOS in bytes.
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
_STATM = "/proc/self/statm"


def resident_bytes() -> int:
    """Return the memory that is in use now, or the most that ever was where the system does not tell."""
    try:
        with open(_STATM, "rb", buffering=0) as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


def cpu_ms() -> int:
    """Return the processor time of all threads since the start, in milliseconds."""
    return time.process_time_ns() // 1_000_000
