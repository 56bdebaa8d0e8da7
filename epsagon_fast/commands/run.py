"""Run a program and trace it, without a change to it: epsagon-fast run [--] COMMAND ...

Each Python below it traces what its libraries do, by our own integrations and by the OpenTelemetry instrumentations
that are installed. The environment says where the traces go. $EPSAGON_INSTRUMENT=-redis,-jinja2 leaves some out.
"""

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING, Final

import epsagon_fast.auto.path as path
import epsagon_fast.auto.watched as watched
from epsagon_fast.commands.saying import fail, say
from epsagon_fast.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

# As a shell answers for a command that it does not find, or cannot run.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast run`."""
    parser.usage = f"{parser.prog} [--] COMMAND ...\n       {parser.prog} --list | --suggest"
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="say what would be traced in this environment, and by what")
    what.add_argument("--suggest", action="store_true", help="print the pip line for what could be traced and is not")
    command = parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")
    command.required = False


def run(arguments: argparse.Namespace) -> int:
    """Become the command. Return 0 after a list, 2 without a command, 126 or 127 if it cannot be run."""
    if arguments.list or arguments.suggest:
        import epsagon_fast.auto.listing as listing

        print(listing.suggestion() if arguments.suggest else listing.table())
        return 0
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        return fail("run", "which COMMAND?", 2)
    program = _beside(command[0])
    obstacle = _obstacle()
    if obstacle:
        say("run", f"{obstacle}: the program runs untraced")
    sys.stdout.flush()
    try:
        os.execvpe(program, [program, *command[1:]], os.environ if obstacle else traced_environment(os.environ))
    except FileNotFoundError:
        return fail("run", f"{command[0]}: not found", NOT_FOUND)
    except OSError as error:
        return fail("run", f"{command[0]}: {error.strerror}", NOT_EXECUTABLE)


def _beside(name: str) -> str:
    """Return the path of a program that lies beside this Python and not on the PATH; else the name as it is.

    So `.venv/bin/epsagon-fast run gunicorn` finds the environment's gunicorn where the environment is not activated.
    A Python needs the path as its name, too: it looks for its environment by that.
    """
    if os.path.dirname(name) or shutil.which(name):
        return name
    return shutil.which(name, path=os.path.dirname(sys.executable)) or name


def traced_environment(environment: "Mapping[str, str]") -> dict[str, str]:
    """Return an environment in which each Python traces its program."""
    before = environment.get("PYTHONPATH")
    folders = os.pathsep.join([path.FOLDER, before] if before else [path.FOLDER])
    return {**environment, "PYTHONPATH": folders, watched.VARIABLE: ",".join(watched.modules())}


def _obstacle() -> str | None:
    """Return why nothing would be sent; None if all is well."""
    config = Config().resolve(warn=False)
    if config.disable:
        return "tracing is off (DISABLE_EPSAGON, OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER)"
    if not config.enabled:
        return "no backend is named (EPSAGON_COLLECTOR_URL and EPSAGON_TOKEN, or OTEL_EXPORTER_OTLP_ENDPOINT)"
    for name in watched.misunderstood():
        say("run", f"{watched.CHOICE}: {name} is ignored: it is to be a name that --list shows, with a dash before it")
    return None
