"""The command line `epsagon-fast`: one module per subcommand, imported only when it is chosen.

Each module has `add_arguments(parser) -> None` and `run(arguments) -> int`. Exit codes: 1 failed, 2 wrong usage.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from epsagon_fast.commands.saying import PROGRAM, fail, writable
from epsagon_fast.version import __version__

# The modules by name, with the line that `--help` prints for each.
COMMANDS = {
    "run": "run a program and trace it, without a change to it",
    "demo": "show a traced shop, break it, and check that all arrives that it did",
    "backend": "run a small backend on this machine that takes any token",
    "traces": "list the traces that a backend has, or follow them as they come",
    "show": "show one request as a tree, with all its traces",
    "status": "show the collector and what it has counted",
    "metrics": "print the collector's metrics as Prometheus reads them",
    "doctor": "look at the whole way of a trace, and say what to do where it is held up",
    "collector": "run a collector in the foreground",
    "stop": "ask the collector to finish and leave",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    argv: the arguments after the program's name; None: those of this process. As with any argparse program, wrong usage
    raises SystemExit(2), and `--help` and `--version` raise SystemExit(0).
    """
    writable(sys.stdout)
    command, arguments = parse(argv)
    try:
        code = int(command.run(arguments))
        # At the end of the interpreter it would be too late to say that this failed.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # `epsagon-fast status --watch | head`: the reader has gone.
        return _unheard()
    except OSError as error:
        # `epsagon-fast doctor > FILE` on a full disk. What commands do with files of their own, they say themselves.
        if error.errno != errno.ENOSPC:
            raise
        return fail(command.__name__.rpartition(".")[2], f"cannot write: {error.strerror}", _unheard())


def _unheard() -> int:
    """Let what is still buffered go nowhere; return 1."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def parse(argv: Sequence[str] | None = None) -> tuple[Any, argparse.Namespace]:
    """Return the module of the command that a command line names, and its arguments. Raises SystemExit as `main`."""
    chosen = _parser().parse_args(argv)
    command = importlib.import_module(f"{__name__}.{chosen.command}")
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {chosen.command}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return command, parser.parse_args(chosen.arguments)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s [--help] [--version] COMMAND ...",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {does}" for name, does in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below; each has a --help")
    # The command's own parser takes them, so that only the chosen command is imported.
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    # Otherwise argparse would report a missing COMMAND as two missing arguments.
    rest.required = False
    return parser
