"""What each step of the WSGI middleware takes of a request, in instructions: `python benches/steps.py`.

`python benches/steps.py Flask ASGI` prints instead what the middleware adds to a request of some of frameworks.py.

Counted by callgrind in one process, warm: a step is what an application costs more that has it, beside one that has it
not. The second column is the way in Python, on which every request goes about which something is unusual.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from counting import instructions
from shops import OURS

REQUESTS: Final = 200
# Until the interpreter has adapted its code.
WARM_UP: Final = 200
# In both columns; what each does more than the one above it.
STEPS: Final = {
    "silent": "the server's environ and an application that returns a list",
    "in a trace": "begin and end of the trace",
    "answered": "the answer's status and headers",
    "with a block": "the application's block with three values",
}
PROGRAM: Final = """
import os, sys, tempfile
os.environ["EPSAGON_LAUNCH"] = "0"
sys.path.insert(0, sys.argv[1])
import frameworks, marked, steps, web, epsagon_fast as epsagon
from epsagon_fast.integrations import asgi, wsgi
name, way, tracer = sys.argv[2:]
if way == "python":
    wsgi._answered = lambda *_: wsgi._UNUSUAL
    asgi.Channel.begin = lambda channel: False
drive = frameworks.drive if name in frameworks.ASGI else web.drive
with tempfile.TemporaryDirectory() as folder:
    epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=folder, ring_bytes=16 << 20)
    app = steps.application(name) if name in steps.STEPS else frameworks.made(name, tracer)
    with epsagon.trace("one"):
        pass
    drive(app, steps.WARM_UP)
    marked.look_no_more()
    any(drive(app, 1, number) for number in range(steps.REQUESTS))
"""


def silent(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    return [b"hello"]


def application(name: str) -> Callable[..., Any]:
    """Return the application that has a step and all above it."""
    import shops

    import epsagon_fast as epsagon
    from epsagon_fast.integrations.wsgi import TracingMiddleware

    if name == "silent":
        # A trace all the same, so that there is a writer in each case.
        with epsagon.trace("one"):
            return silent
    if name == "in a trace":
        return TracingMiddleware(silent)
    if name == "answered":
        return TracingMiddleware(shops.hello)
    return shops.ours()


def taken(name: str, way: str, tracer: str = "") -> float:
    """Return how many instructions a request takes. way: compiled or python."""
    return instructions(PROGRAM, str(Path(__file__).parent), name, way, tracer)[0].total() / REQUESTS


def show_frameworks(names: list[str]) -> None:
    """Print what the middleware adds to a request of each."""
    print("| application | bare | with a trace, compiled | in Python |\n|---|---:|---:|---:|")
    for name in names:
        bare = taken(name, "compiled")
        more = [f"{taken(name, way, OURS) - bare:,.0f}" for way in ("compiled", "python")]
        print(f"| {name} | {bare:,.0f} | {' | '.join(more)} |", flush=True)


def main() -> None:
    """Print the tables of docs/performance.md."""
    if sys.argv[1:]:
        show_frameworks(sys.argv[1:])
        return
    print("| step | compiled | in Python |\n|---|---:|---:|")
    before = [0.0, 0.0]
    for name, what in STEPS.items():
        now = [taken(name, way) for way in ("compiled", "python")]
        steps = [f"{count - was:,.0f}" for count, was in zip(now, before, strict=True)]
        print(f"| {what} | {' | '.join(steps)} |", flush=True)
        before = now
    print(f"| all | {' | '.join(f'{count:,.0f}' for count in before)} |")


if __name__ == "__main__":
    main()
