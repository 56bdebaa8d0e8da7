"""A long time under load, with workers and collectors killed at random: memory flat, nothing left behind."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from places import FULL, until
from scenes import holds, scene

MIB = 1024 * 1024
SECONDS = float(os.environ.get("EPSAGON_SOAK_SECONDS", "300" if FULL else "6"))
TRACES_PER_S = 1000 if FULL else 150
WORKERS = 4
# Once no more collectors are killed. What a backlog took before, after a kill, is not given back to the system.
GROWTH_BYTES = 12 * MIB
MOST_BYTES = (256 + 64) * MIB

# Keeps four workers at work, and replaces each that is killed.
MOTHER = """
import os, sys, time, noting
rate = float(sys.argv[1])
stop = os.path.join(os.environ["NOTES"], "..", "stop")
def steady():
    began, number = time.monotonic(), 0
    while not os.path.exists(stop):
        noting.fill(10, 300)
        number += 1
        ahead = began + number / rate - time.monotonic()
        if ahead > 0: time.sleep(ahead)
pids = {noting.spawn(steady) for _ in range(int(sys.argv[2]))}
print(*pids, flush=True)
while pids:
    pid, status = os.wait()
    pids.discard(pid)
    assert status in (0, 9), status
    if status == 9 and not os.path.exists(stop):
        pids.add(noting.spawn(steady))
        print(*pids, flush=True)
"""


def resident_bytes(pid: int) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024


def descriptors(pid: int) -> list[str]:
    """What a process has open, but for connections and what belongs to its living producers."""
    names = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(name for name in names if not name.startswith(("socket:", "anon_inode:[pidfd]")))


def test_a_long_time_under_load_with_random_kills() -> None:
    chance = random.Random(5)
    fault = f"soak: {SECONDS:.0f} s at {TRACES_PER_S} traces/s of 10 events, random kills"
    with scene(fault, EPSAGON_RING_BYTES=str(2 << 20)) as here:
        here.linger()
        with here.start(MOTHER, str(TRACES_PER_S / WORKERS), str(WORKERS)) as mother:
            assert mother.stdout is not None
            began, memory = time.monotonic(), []
            pids = mother.stdout.readline().split()
            while time.monotonic() - began < SECONDS:
                time.sleep(chance.random() * 2 * min(1.0, SECONDS / 20))
                # Collectors in the first third only: one that lives on shows whether its memory grows.
                if chance.random() < 0.4 and time.monotonic() - began < SECONDS / 3:
                    for pid in here.collectors():
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                else:
                    os.kill(int(chance.choice(pids)), signal.SIGKILL)
                    pids = mother.stdout.readline().split()
                here.row.tried += 1
                memory += [(time.monotonic() - began, resident_bytes(pid)) for pid in here.collectors()[:1]]
            here.stop()
            seconds = time.monotonic() - began
            _, errors = mother.communicate(timeout=120)
            assert mother.returncode == 0, errors
        collector = here.the_collector()
        here.account()
        holds(here.row)
        some = [f"{size // MIB} MiB at {at:.0f} s" for at, size in memory[:: max(1, len(memory) // 15)]]
        print(f"{len(here.sink.traces) / seconds:.0f} traces/s; collector: {', '.join(some)}")
        assert max(size for _, size in memory) < MOST_BYTES
        if FULL:
            (middle, last) = (next(size for at, size in memory if at > SECONDS * part) for part in (0.6, 0.97))
            assert last < middle + GROWTH_BYTES
        until(lambda: not list(Path(here.folder).glob("*.ring")), "no ring is left")
        until(lambda: here.gauge("stored") == here.gauge("pending") == 0, "nothing waits")
        with suppress(FileNotFoundError):
            own = {"/dev/null", here.folder, os.path.join(here.folder, "log")}
            rest = [name for name in descriptors(collector) if name not in own]
            assert all(name.startswith((here.folder, here.settings["EPSAGON_STATE_DIR"])) for name in rest), rest
            assert len(rest) <= 6, rest
        here.dismiss()
        assert set(os.listdir(here.folder)) <= {"arrived", "bell", "ledger", "log", "start", "state"}
