"""What a web request with one event takes of its process's ring, and how many fit that no collector has read.

python benches/ring_room.py
"""

import os
import tempfile
from pathlib import Path

import steps
import web

import epsagon_fast as epsagon
from epsagon_fast.config import DEFAULT_RING_BYTES
from epsagon_fast.producer.process import process

# A second. At this rate the default ring was full before a collector had started.
RATE = 600
# The first request of a process brings the config, and takes more.
WARM_UP = 5
BASE = "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    """Print both."""
    os.environ["EPSAGON_LAUNCH"] = "0"
    with tempfile.TemporaryDirectory(dir=BASE) as folder:
        epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=folder, ring_bytes=DEFAULT_RING_BYTES)
        app = steps.application("with a block")
        web.drive(app, WARM_UP)
        writer = process.own.writers.current(process.config().resolve())
        before, count = writer._ring.head, WARM_UP
        web.drive(app, 1)
        taken = writer._ring.head - before
        while not writer.overflowed:
            count += 1
            web.drive(app, 1)
        print(f"{taken} bytes a request; {count} fit, {count / RATE:.2f} s at {RATE} a second")


if __name__ == "__main__":
    main()
