"""What each step of the WSGI middleware takes of a request, in instructions: `python benches/steps.py`.

Counted by callgrind in one process, warm: a step is what an application costs more that has it, beside one that has it
not. The second column is the way in Python, on which every request goes about which something is unusual.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from counting import instructions

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
import marked, steps, web, epsagon_fast as epsagon
from epsagon_fast.integrations import wsgi
if sys.argv[3] == "python":
    wsgi._answered = lambda *_: wsgi._UNUSUAL
with tempfile.TemporaryDirectory() as folder:
    epsagon.init(token="t", collector_url="http://127.0.0.1:1", runtime_dir=folder, ring_bytes=16 << 20)
    app = steps.application(sys.argv[2])
    web.drive(app, steps.WARM_UP)
    marked.look_no_more()
    any(web.drive(app, 1, number) for number in range(steps.REQUESTS))
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


def taken(name: str, way: str) -> float:
    """Return how many instructions a request takes. way: compiled or python."""
    return instructions(PROGRAM, str(Path(__file__).parent), name, way)[0].total() / REQUESTS


def main() -> None:
    """Print the table of docs/performance.md."""
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
