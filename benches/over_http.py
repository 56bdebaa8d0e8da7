"""The application of `web.py` behind a real gunicorn, and requests to it."""

import contextlib
import http.client
import os
import subprocess
import time
from collections.abc import Iterator

from gunicorns import connects, free_port
from places import until


class Web:
    """A gunicorn with one worker, and one connection to it."""

    def __init__(self, pid: int, connection: http.client.HTTPConnection) -> None:
        self.pid = pid
        self._connection = connection

    def ask(self, count: int) -> list[int]:
        """Send `count` requests one after another. Return how long each took, in nanoseconds."""
        took = []
        for number in range(count):
            start = time.perf_counter_ns()
            self._connection.request("GET", f"/items/{number}?page=2")
            self._connection.getresponse().read()
            took.append(time.perf_counter_ns() - start)
        return took


@contextlib.contextmanager
def gunicorn(variant: str, python: str, env: dict[str, str]) -> Iterator[Web]:
    """Serve one of `web.py`'s variants."""
    port = free_port()
    words = [python, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "-k", "gthread"]
    words += ["--log-level", "error", "--keep-alive", "600", "--chdir", os.path.dirname(__file__), "web:app"]
    process = subprocess.Popen(words, env={**env, "BENCH_HTTP_VARIANT": variant})
    try:
        until(lambda: connects(port), "gunicorn serves")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            yield Web(process.pid, connection)
    finally:
        process.terminate()
        process.wait(60)
