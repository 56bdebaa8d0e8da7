"""What a request costs a worker of gunicorn's, counted and not timed: bare, with ours, with OpenTelemetry.

`python benches/request_cost.py` prints, for the applications of shops.py, what the kernel does for a request (system
calls of each kind, switches between threads, page faults) and how often garbage is collected; then what callgrind
counts in all threads of the worker: instructions by library and function, and misses of a simulated processor. Words
after it choose applications, as in `'bare application' epsagon_fast`. It needs valgrind, strace and a C compiler.

No collector runs beside it, so the ring is not emptied. OpenTelemetry exports to a closed port.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import gunicorns
from counting import counts_in, need_valgrind, show
from marked import LIBRARY
from over_http import Web, gunicorn
from report import peers_python
from shops import BARE, OTEL, OURS

# Requests. The interpreter adapts its code to what it has seen in the first ones.
WARM_UP, COUNTED = 100, 100
SHOWN: Final = 12
# As large as what a core has for itself; callgrind's cost for a miss is not used.
PROCESSOR: Final = (
    *("--instr-atstart=no", "--cache-sim=yes", "--branch-sim=yes"),
    *("--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64"),
)
MISSES: Final = {
    "I1mr": "instruction cache",
    "D1mr": "data cache, read",
    "D1mw": "data cache, written",
    "ILmr": "second cache, instructions",
    "DLmr": "second cache, data",
    "Bcm": "branches guessed wrong",
    "Bim": "jumps guessed wrong",
}
MARKS: Final = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void dump(void) { CALLGRIND_DUMP_STATS; }
void zero(void) { CALLGRIND_ZERO_STATS; }
"""


@contextlib.contextmanager
def serving(name: str, python: str, folder: str, command: Sequence[str] = ()) -> Iterator[tuple[Web, int]]:
    """Serve an application that is warm; yield its connection and its worker."""
    env = {**os.environ, "EPSAGON_LAUNCH": "0", "EPSAGON_TOKEN": "t", "EPSAGON_RUNTIME_DIR": folder}
    for address in ("EPSAGON_COLLECTOR_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        env[address] = "http://127.0.0.1:1"
    env |= {LIBRARY: library(folder), "PYTHONHASHSEED": "0", "PYTHONPATH": sys.path[-1]}
    with gunicorn(f"marked:counted({name!r})", python, env, command, stderr=subprocess.DEVNULL) as web:
        web.ask(WARM_UP)
        yield web, gunicorns.children_of(web.pid)[0]


def library(folder: str) -> str:
    """Compile MARKS. Return its path."""
    source, made_of_it = Path(folder, "marks.c"), Path(folder, "marks.so")
    if not made_of_it.exists():
        source.write_text(MARKS)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", made_of_it, source], check=True)
    return str(made_of_it)


def switches(worker: int) -> Counter[str]:
    """Return what the kernel has counted for a worker's threads so far."""
    found = Counter[str]()
    for task in Path(f"/proc/{worker}/task").iterdir():
        told = dict(line.split(":\t") for line in (task / "status").read_text().splitlines() if ":\t" in line)
        found["sleeps of a thread"] += int(told["voluntary_ctxt_switches"])
        found["threads put off"] += int(told["nonvoluntary_ctxt_switches"])
    found["page faults"] = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[7])
    return found


def show_kernels_part(name: str, python: str, folder: str) -> None:
    """Print what the kernel does for a request."""
    with serving(name, python, folder) as (web, worker):
        before, garbage = switches(worker), json.loads(web.read("/garbage"))
        web.ask(COUNTED)
        collected = [now - was for now, was in zip(json.loads(web.read("/garbage")), garbage, strict=True)]
        found = switches(worker) - before
        calls = Path(folder, "calls")
        with subprocess.Popen(["strace", "-c", "-f", "-o", calls, "-p", str(worker)], stderr=subprocess.PIPE) as strace:
            assert strace.stderr
            assert b"attached" in strace.stderr.readline()
            web.ask(COUNTED)
            strace.terminate()
        rows = [line.split() for line in calls.read_text().splitlines()[2:-2]]
        found.update({row[-1] if row[-1] != "errors" else row[-2]: int(row[3]) for row in rows})
    print(f"\n{name}, of {COUNTED} requests: {collected} collections of garbage, by generation; for each request")
    for key, count in found.most_common():
        if count >= COUNTED / 100:
            print(f"  {count / COUNTED:8.2f}  {key}", flush=True)


def show_instructions(name: str, python: str, folder: str) -> None:
    """Print what callgrind counts."""
    out = Path(folder, "out")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}.%p", *PROCESSOR]
    with serving(name, python, folder, command) as (web, worker):
        web.read("/begin")
        # What is looked at for the first time is translated.
        web.ask(WARM_UP // 10)
        web.read("/zero")
        web.ask(COUNTED)
        web.read("/dump")
    dumps = [path for path in Path(folder).glob(f"out.{worker}.*") if "Client Request" in path.read_text()]
    dump = max(dumps, key=lambda path: int(path.suffix[1:]))
    show(name, counts_in(str(dump)), COUNTED, SHOWN)
    text = dump.read_text()
    [(names, totals)] = re.findall(r"^events: (.*)$.*^(?:totals|summary): ([\d ]*)$", text, re.MULTILINE | re.DOTALL)
    for key, count in zip(names.split(), map(int, totals.split()), strict=False):
        if key in MISSES:
            print(f"  {count / COUNTED:8,.0f}  {MISSES[key]}", flush=True)


def main() -> None:
    """Print all this for each application."""
    need_valgrind()
    theirs = peers_python()
    pythons = {BARE: sys.executable, OURS: sys.executable, **({OTEL: theirs} if theirs else {})}
    for name in sys.argv[1:] or pythons:
        for part in (show_kernels_part, show_instructions):
            folder = tempfile.mkdtemp(prefix="epsagon-request-", dir="/dev/shm")
            try:
                part(name, str(pythons[name]), folder)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
