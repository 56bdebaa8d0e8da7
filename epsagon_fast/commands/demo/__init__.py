"""Show a traced shop of three services, break it, and check that all arrives that it did.

A web server, a celery worker and another web server run under `epsagon-fast run`, with a backend of their own. While
clients order, a worker and the collector are killed. Then what the backend has is compared with what the clients asked
for. Exit code 1 if anything is missing. Nothing is left behind, and no setting of yours counts.

--load traces the standard library's packages in four processes instead: much at once, and larger than a trace may be.
"""

import argparse
import signal
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

from epsagon_fast.commands.saying import fail

if TYPE_CHECKING:
    from epsagon_fast.commands.demo.stage import Scene, Stage

# What the backend's extra brings and what the shop needs besides, by their names on PyPI.
BACKEND = ("jinja2", "starlette", "uvicorn")
SHOP = (*BACKEND, "celery", "flask", "gunicorn", "opentelemetry-instrumentation-sqlite3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast demo`."""
    parser.add_argument("--keep", action="store_true", help="leave all of it up until Ctrl-C, to look around")
    parser.add_argument("--load", action="store_true", help="trace the standard library's packages instead of a shop")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return 0 if nothing is missing."""
    lacking = [name for name in (BACKEND if arguments.load else SHOP) if not _is_installed(name)]
    if lacking:
        extra = "backend" if arguments.load else "demo"
        return fail("demo", f"not installed here: {', '.join(lacking)}; pip install 'epsagon-fast[{extra}]'")
    import epsagon_fast.commands.demo.stage as stage

    try:
        with stage.ends_by_signals(), stage.stage() as built:
            return _scene(arguments.load)(built, _stay if arguments.keep else None)
    except stage.Failed as error:
        return fail("demo", str(error))


def _scene(is_load: bool) -> "Scene":
    if is_load:
        from epsagon_fast.commands.demo.load.scene import scene
    else:
        from epsagon_fast.commands.demo.visit import scene
    return scene


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _stay(built: "Stage") -> None:
    """Say where to look, and wait for Ctrl-C."""
    print(f"Its collector: EPSAGON_RUNTIME_DIR={built.runtime} epsagon-fast status")
    print(f"Its logs:      {built.scratch}")
    print("All stays up until Ctrl-C.", flush=True)
    with suppress(KeyboardInterrupt):
        signal.pause()
