"""Where a collector's loop spends its instructions on a trace, from the ring to the settlement, by callgrind.

`python benches/loop_cost.py` prints, for traces of one event and of a hundred, what the whole takes and where. Ring,
journal and ledger are real; the backend takes everything at once, since sending is no part of the loop.
"""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from counting import instructions, show

# Of the traces of one pass, as at 400 requests a second.
BATCH = 20
SHOWN = 12
EVENTS = (1, 100)
PASSES = {1: 20, 100: 4}
PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../tests"]
from loop_cost import counted
counted(int(sys.argv[2]))
"""
EVENT = {
    "id": "0123456789abcdef",
    "start_time": 1700000000.123456,
    "resource": {
        "name": "charge",
        "type": "python-function",
        "operation": "invoke",
        "metadata": {"card": "visa", "url": "https://x.example/pay", "user": "alice" * 40},
    },
    "origin": "python",
    "duration": 0.00012345,
    "error_code": 0,
    "exception": None,
}


def rig(events_each: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what pushes a pass's traces, and what has the loop take them."""
    from records import CONFIG, own_runner

    from epsagon_fast.collector.loop import Loop
    from epsagon_fast.collector.measuring.deliveries import MeasuredSender
    from epsagon_fast.collector.parcel import Parcel
    from epsagon_fast.collector.sending.verdict import Verdict
    from epsagon_fast.protocol import CLOSE_PAYLOAD, UNCHANGED, Kind, Outcome
    from epsagon_fast.queue import ring
    from epsagon_fast.queue.liveness import own_start_time
    from epsagon_fast.queue.state import StatePage

    class Willing:
        """Takes every request at once."""

        def __init__(self) -> None:
            self._verdicts: list[Verdict] = []

        def prepare(self) -> None:
            pass

        def lags(self, now: float) -> bool:
            return False

        def submit(self, parcels: Sequence[Parcel]) -> None:
            self._verdicts.append(Verdict([parcel.trace_id for parcel in parcels], Outcome.DELIVERED, at=0.0))

        def verdicts(self) -> list[Verdict]:
            verdicts, self._verdicts = self._verdicts, []
            return verdicts

        def close(self, timeout_s: float) -> None:
            pass

    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = tempfile.mkdtemp(prefix="epsagon-loop-", dir=base)
    atexit.register(shutil.rmtree, path)
    os.environ["EPSAGON_STATE_DIR"] = path + "/outbox"
    folder_fd = os.open(path, os.O_RDONLY)
    loop = Loop(folder_fd, path, StatePage(folder_fd, create=True), 1)
    sender = loop.sending._delivery
    assert isinstance(sender, MeasuredSender)
    sender._sender = Willing()
    fd = ring.create(folder_fd, "0" * 32 + ".ring", 4 << 20, pid=os.getpid(), start_time=own_start_time())
    producer = ring.Producer(fd)
    os.close(fd)
    start = json.dumps({"config": {**CONFIG, "state_dir": path}, "platform": "python 3.11.7"}, separators=(",", ":"))
    runner = json.dumps(own_runner(), separators=(",", ":"))
    opened = f'{start[:-1]},"runner":{runner},"opened_at":1700000000.0}}'.encode()
    event = json.dumps(EVENT, separators=(",", ":")).encode()

    def push() -> None:
        for _ in range(BATCH):
            trace_id = os.urandom(16)
            producer.push(Kind.OPEN, 0, trace_id, opened)
            for _ in range(events_each):
                producer.push(Kind.EVENT, 0, trace_id, event)
            producer.push(Kind.CLOSE, 0, trace_id, CLOSE_PAYLOAD.pack(0.1, UNCHANGED))

    def take() -> None:
        for _ in range(3):
            loop.one_pass()

    for _ in range(3):
        push()
        take()
    assert loop.counts["delivered"] == 3 * BATCH, dict(loop.counts)
    return push, take


def counted(events_each: int) -> None:
    """Do what is counted within any()."""
    push, take = rig(events_each)
    for _ in range(PASSES[events_each]):
        push()
        any(take() for _ in range(1))


def main() -> None:
    """Print for each size of a trace where its instructions go."""
    for events_each in EVENTS:
        counts = instructions(PROGRAM, str(Path(__file__).parent), str(events_each))
        show(f"a trace of {events_each}", counts, PASSES[events_each] * BATCH, SHOWN)


if __name__ == "__main__":
    main()
