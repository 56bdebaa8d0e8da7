"""Where a collector's loop spends its instructions on a trace, from the ring to the settlement, by callgrind.

`python benches/loop_cost.py` prints, for traces of one event and of a hundred and for those of web requests, what the
whole takes and where. With names of scenes behind it, only those. Ring, journal and ledger are real; the backend takes
everything at once, since sending is no part of the loop.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from counting import instructions, show

# Of the traces of one pass, as at 100 requests a second.
BATCH = 20
SHOWN = 12
PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../tests"]
from loop_cost import counted
counted(sys.argv[2])
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


# As integrations/wsgi.py and `event` write them, with metadata as texts, and typed.
WEB_RUNNER = {
    "id": "c3ecfba14c1f5ab99f45d02e9a1ce9d3",
    "start_time": 1700000000.740532658,
    "resource": {"name": "shop.example:8000", "type": "http", "operation": "GET", "metadata": {"path": "/items/1"}},
    "origin": "runner",
    "duration": 0,
    "error_code": 0,
    "exception": None,
}
WEB_EVENT = {
    **EVENT,
    "resource": {**EVENT["resource"], "metadata": {"card": "visa", "amount": "42", "order": "order-1"}},
}
ANSWER = {"resource": {"metadata": {"request_bytes": "0", "response_bytes": "5", "status_code": "200"}}}
NS = {"start_time": 1700000000740532658}
TYPED_EVENT = {
    **EVENT,
    **NS,
    "resource": {**EVENT["resource"], "metadata": {"card": "visa", "amount": 42, "order": "order-1"}},
}


class Scene(NamedTuple):
    """What the traces are, and how many passes are counted. `config`: what an OPEN says beside the tests' own."""

    events: list[dict[str, Any]]
    passes: int = 20
    runner: dict[str, Any] | None = None
    update: dict[str, Any] | None = None
    config: Mapping[str, Any] = MappingProxyType({})


# The keys that are hidden by default, and where its traces go.
AS_USUAL = {"default_ignored_keys": True, "masking": "loose"}
TO_OTLP = {**AS_USUAL, "collector_url": "otlp+http://127.0.0.1:4318/v1/traces"}
SCENES = {
    "a trace of one event": Scene([EVENT]),
    "a trace of a hundred": Scene([EVENT] * 100, 4),
    "a hundred, masked": Scene([EVENT] * 100, 4, config=AS_USUAL),
    "140, masked and trimmed": Scene([EVENT] * 140, 4, config=AS_USUAL),
    "a web request": Scene([WEB_EVENT], 20, WEB_RUNNER, ANSWER, AS_USUAL),
    "a web request, OTLP": Scene([TYPED_EVENT], 20, WEB_RUNNER | NS, ANSWER, TO_OTLP),
}


def rig(name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what pushes a pass's traces, and what has the loop take them."""
    from records import CONFIG, own_runner

    from epsagon_fast.collector.loop import Loop
    from epsagon_fast.collector.measuring.deliveries import MeasuredSender
    from epsagon_fast.collector.parcel import Parcel
    from epsagon_fast.collector.sending.verdict import Verdict
    from epsagon_fast.protocol import CLOSE_PAYLOAD, UNCHANGED, Kind, Outcome
    from epsagon_fast.queue import ring
    from epsagon_fast.queue.layout import END
    from epsagon_fast.queue.liveness import own_start_time
    from epsagon_fast.queue.state import StatePage
    from epsagon_fast.rows import maker

    verdict, delivered = maker(Verdict), Outcome.DELIVERED

    class Willing:
        """Takes every request at once."""

        def __init__(self) -> None:
            self._verdicts: list[Verdict] = []

        def prepare(self) -> None:
            pass

        def lags(self, now: float) -> bool:
            return False

        def submit(self, parcels: Sequence[Parcel]) -> None:
            # As the senders make them, in threads of their own.
            answer = [parcel.trace_id for parcel in parcels], delivered, False, None, False, False, 0.0
            self._verdicts.append(verdict(answer))

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
    # Valgrind has no pidfd, without which each pass reads /proc. A pipe is as quiet as a process that lives.
    os.pidfd_open = lambda pid, flags=0: os.pipe()[0]
    loop = Loop(folder_fd, path, StatePage(folder_fd, create=True), 1)
    sender = loop.sending._delivery
    assert isinstance(sender, MeasuredSender)
    sender._sender = Willing()
    fd = ring.create(folder_fd, "0" * 32 + ".ring", 4 << 20, pid=os.getpid(), start_time=own_start_time())
    producer = ring.Producer(fd)
    os.close(fd)
    scene = SCENES[name]
    start = {"config": {**CONFIG, **scene.config, "state_dir": path}, "platform": "python 3.11.7"}
    opened = encoded({**start, "runner": scene.runner or own_runner(), "opened_at": 1700000000.0})
    # As a process does it: the config stands in the ring once, and what the runner has learned goes with the CLOSE.
    producer.share(opened[: opened.index(b'"runner":') + len(b'"runner":')])
    records = [(Kind.EVENT, encoded(event)) for event in scene.events]
    news, end = (encoded(scene.update), END) if scene.update else (b"", Kind.CLOSE)

    def push() -> None:
        for _ in range(BATCH):
            trace_id = os.urandom(16)
            producer.push(Kind.OPEN, 0, trace_id, opened)
            for kind, payload in records:
                producer.push(kind, 0, trace_id, payload)
            producer.push(end, 0, trace_id, news + CLOSE_PAYLOAD.pack(0.1, UNCHANGED))

    def take() -> None:
        # Traces that share requests would wait for others.
        loop.sending._batches._sent_at.clear()
        for _ in range(3):
            loop.one_pass()

    for _ in range(3):
        push()
        take()
    assert loop.counts["delivered"] == 3 * BATCH, dict(loop.counts)
    # The folder is listed for a while after a file came, as each new segment of the journal does.
    os.utime(folder_fd, (1, 1))
    return push, take


def encoded(what: dict[str, Any]) -> bytes:
    return json.dumps(what, separators=(",", ":")).encode()


def counted(name: str) -> None:
    """Do what is counted within breakpoint(), which nothing else calls."""
    push, sys.breakpointhook = rig(name)
    for _ in range(SCENES[name].passes):
        push()
        breakpoint()


def main() -> None:
    """Print for each scene where its instructions go."""
    for name in sys.argv[1:] or SCENES:
        counts = instructions(PROGRAM, str(Path(__file__).parent), name, within="breakpoint")
        show(name, counts, SCENES[name].passes * BATCH, SHOWN)


if __name__ == "__main__":
    main()
