"""Run the collector of this user and version in the foreground, under a supervisor of your own.

It stays until SIGTERM or SIGINT. Traced processes start a collector if none runs; then this one waits until that has
left. Set EPSAGON_LAUNCH=0 in those processes, and they start none.
"""

import argparse
import sys

from epsagon_fast.collector import __main__ as collector
from epsagon_fast.commands.metrics import NEEDS_EXTRA
from epsagon_fast.commands.saying import fail, say
from epsagon_fast.config import Config
from epsagon_fast.queue import folder as folders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast collector`."""
    parser.add_argument("--runtime-dir", help="base directory, as EPSAGON_RUNTIME_DIR says it to the workers")
    parser.add_argument("--port", type=int, help="serve /metrics and /healthz on this port of 127.0.0.1")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes; return the collector's exit code, or 1 if the folder cannot be used."""
    base = Config(disable=True, runtime_dir=arguments.runtime_dir).resolve().runtime_dir
    try:
        path = folders.resolve(base).path
    except OSError as error:
        return fail("collector", str(error.strerror))
    if arguments.port is not None and not _shows_metrics(path, arguments.port):
        return 1
    return collector.main(["--runtime-dir", path], stays=True)


def _shows_metrics(path: str, port: int) -> bool:
    """Serve /metrics and /healthz from now on, also while another collector has the folder."""
    try:
        from epsagon_fast.collector.measuring.endpoint import LOOPBACK, Endpoint

        endpoint = Endpoint(path, port)
        endpoint.start()
        # With port 0 the system has chosen one.
        print(f"epsagon-fast collector: metrics at http://{LOOPBACK}:{endpoint.port}/metrics", file=sys.stderr)
        return True
    except ImportError:
        say("collector", f"--port {NEEDS_EXTRA}")
    except (OSError, OverflowError) as error:
        say("collector", f"port {port}: {error}")
    return False
