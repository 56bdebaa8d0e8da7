"""The applications of shops.py, which say when callgrind is to count their worker; for request_cost.py.

With any tracer's Python, so it imports nothing else of ours.
"""

import ctypes
import gc
import json
import math
import os
import sys
from typing import Any, Final

from shops import App, hello, made

# Where the compiled marks for callgrind are, in the worker's environment.
LIBRARY: Final = "REQUEST_COST_MARKS"


def counted(name: str) -> App:
    """Return an application that also tells what its worker has collected, and marks for callgrind; for gunicorn."""
    app, marks = made(name), ctypes.CDLL(os.environ[LIBRARY])

    def serve(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = str(environ["PATH_INFO"])
        if path.startswith("/items/"):
            return app(environ, start_response)
        if path != "/garbage":
            look_no_more()
            getattr(marks, path[1:])()
            return hello(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([each["collections"] for each in gc.get_stats()]).encode()]

    return serve


def look_no_more() -> None:
    """Let our tracer not look after its collector, once a second: callgrind makes seconds of milliseconds."""
    if "epsagon_fast" in sys.modules:
        from epsagon_fast.producer.process import process

        process.own.writers._current._next_look = math.inf  # type: ignore[union-attr]
        if process.own.footing is not None:
            process.own.footing.next_look_s = math.inf
