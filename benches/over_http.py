"""The applications of `web.py` and `shops.py` behind a real gunicorn, and requests to them."""

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
        self.asked = 0
        self._connection = connection

    def ask(self, count: int) -> list[int]:
        """Send `count` requests one after another. Return how long each took, in nanoseconds."""
        took = []
        for number in range(self.asked, self.asked + count):
            start = time.perf_counter_ns()
            self._connection.request("GET", f"/items/{number:08d}?page=2")
            self._connection.getresponse().read()
            took.append(time.perf_counter_ns() - start)
        self.asked += count
        return took


@contextlib.contextmanager
def gunicorn(app: str, python: str, env: dict[str, str]) -> Iterator[Web]:
    """Serve an application, as in `web:traced('bare')`."""
    port = free_port()
    words = [python, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "-k", "gthread"]
    words += ["--log-level", "error", "--keep-alive", "600", "--chdir", os.path.dirname(__file__), app]
    process = subprocess.Popen(words, env=env)
    try:
        until(lambda: connects(port), "gunicorn serves")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            yield Web(process.pid, connection)
    finally:
        process.terminate()
        process.wait(60)
