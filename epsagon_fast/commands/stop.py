"""Ask the collector to finish and leave.

It delivers or stores what it can within two seconds and leaves the rest in its folder for the next collector, which a
process that still traces starts. --force kills it at once, which loses nothing either.
"""

import argparse
import os
import signal
import time

from epsagon_fast.commands.saying import fail
from epsagon_fast.commands.status import overview
from epsagon_fast.queue.folder import Folder
from epsagon_fast.queue.overview import Overview, look

# A collector needs two seconds, and more on a busy machine or to store much.
TIMEOUT_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast stop`."""
    parser.add_argument("--force", action="store_true", help="kill it instead of asking")


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when no collector runs any more, 1 if there was none or it did not leave in time."""
    seen = overview("stop")
    if seen is None or seen.pid is None:
        print("No collector runs.")
        return 1
    try:
        os.kill(seen.pid, signal.SIGKILL if arguments.force else signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        return fail("stop", f"pid {seen.pid}: {error.strerror}")
    return _wait(seen, time.monotonic() + TIMEOUT_S)


def _wait(seen: Overview, deadline: float) -> int:
    folder = Folder(seen.path)
    # A successor may hold the folder by then.
    while folder.is_held() and _serves(seen):
        if time.monotonic() > deadline:
            return fail("stop", f"pid {seen.pid} did not leave in {TIMEOUT_S:.0f} s")
        time.sleep(0.02)
    print(f"The collector (pid {seen.pid}) has left.")
    return 0


def _serves(seen: Overview) -> bool:
    try:
        now = look(seen.path)
    except OSError:
        return False
    return now.pid == seen.pid and now.incarnation == seen.incarnation
