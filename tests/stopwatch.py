"""How long the README's first screen takes, from a clone to the trace of a request: `python tests/stopwatch.py`.

It works in a folder of its own, with a clone of this repository as it is committed, and leaves nothing. Installing asks
a package index, so the figure is that of the network and the machine too.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from places import free_port

ROOT = Path(__file__).parents[1]
PROGRAM = "from flask import Flask\napp = Flask('shop')\n\n@app.get('/')\ndef hello():\n    return 'hello'\n"
PATIENCE_S = 60.0


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Print what the block took."""
    begun = time.monotonic()
    yield
    print(f"{time.monotonic() - begun:7.1f} s  {step}", flush=True)


def read(url: str) -> str:
    """Return what is there as soon as somebody answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextmanager
def running(words: Sequence[str], **options: object) -> Iterator[None]:
    """Run a program for the time of the block."""
    program = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # type: ignore
    try:
        yield
    finally:
        program.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            program.wait(PATIENCE_S)
        program.kill()
        program.wait()


def measure(folder: Path) -> None:
    """Go from nothing to a trace in a folder, and print each step."""
    tools, web, backend = folder / "venv/bin", free_port(), free_port()
    (folder / "app.py").write_text(PROGRAM)
    with timed("a clone"):
        subprocess.run(["git", "clone", "--quiet", ROOT, folder / "epsagon_fast"], check=True)
    with timed("an environment"):
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    with timed("pip install flask gunicorn, as an application has them"):
        subprocess.run([tools / "pip", "install", "--quiet", "flask", "gunicorn"], check=True)
    with timed("pip install './epsagon_fast[auto,backend]'"):
        subprocess.run([tools / "pip", "install", "--quiet", "./epsagon_fast[auto,backend]"], cwd=folder, check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EPSAGON_", "OTEL_"))}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "EPSAGON_RUNTIME_DIR": str(folder / "run")}
    environment |= {"EPSAGON_STATE_DIR": str(folder / "state"), "EPSAGON_TOKEN": "local"}
    environment |= {"EPSAGON_COLLECTOR_URL": f"http://127.0.0.1:{backend}", "EPSAGON_APP_NAME": "shop"}
    serve = ["epsagon-fast", "backend", "--port", str(backend)]
    run = ["epsagon-fast", "run", "gunicorn", "--bind", f"127.0.0.1:{web}", "app:app"]
    with running([f"{tools}/{serve[0]}", *serve[1:]], env=environment):
        with timed("epsagon-fast backend, until it answers"):
            read(environment["EPSAGON_COLLECTOR_URL"])
        with running([f"{tools}/{run[0]}", *run[1:]], env=environment, cwd=folder):
            with timed("epsagon-fast run gunicorn app:app, until it answers a request"):
                read(f"http://127.0.0.1:{web}/")
            with timed("until the trace of that request is in the list"):
                deadline = time.monotonic() + PATIENCE_S
                while "GET /" not in read(environment["EPSAGON_COLLECTOR_URL"] + "/?app=shop"):
                    if time.monotonic() > deadline:
                        raise TimeoutError("no trace came")
                    time.sleep(0.02)
    subprocess.run([tools / "epsagon-fast", "stop"], env=environment, capture_output=True, check=False)


def main() -> int:
    """Measure once."""
    with tempfile.TemporaryDirectory() as folder, timed("in all"):
        measure(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
