"""The applications of `web.py` and `shops.py` behind a real gunicorn, and requests to them."""

import contextlib
import http.client
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gunicorns import connects, free_port
from places import until

# Until an application is imported, on a machine that is busy with other things.
START_S = 120.0


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
            self.get(f"/items/{number:08d}?page=2")
            took.append(time.perf_counter_ns() - start)
        self.asked += count
        return took

    def get(self, path: str) -> int:
        """Send one request. Return the answer's status."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def read(self, path: str) -> bytes:
        """Send one request. Return the answer's body."""
        self._connection.request("GET", path)
        return self._connection.getresponse().read()


@contextlib.contextmanager
def gunicorn(app: str, python: str, env: dict[str, str], command: Sequence[str] = (), **options: Any) -> Iterator[Web]:
    """Serve an application, as in `web:traced('bare')`.

    command: what starts a Python program so that it is traced, if that is a program too. options: Popen's.
    """
    port = free_port()
    words = [*command, python, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "-k", "gthread"]
    words += ["--timeout", f"{START_S:.0f}", "--log-level", "error", "--keep-alive", "600"]
    words += ["--chdir", os.path.dirname(__file__), app]
    process = subprocess.Popen(words, env=env, **options)
    try:
        until(lambda: connects(port), "gunicorn serves", START_S)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)) as connection:
            yield Web(process.pid, connection)
    finally:
        process.terminate()
        process.wait(60)
