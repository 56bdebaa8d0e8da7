"""Look at the whole way of a trace, in the environment of the program: send one, and say what to do where it is ill.

A row is `ok`, `??` where something is to be looked at, or `BAD` where no trace passes. The way ends at the first BAD.
Exit code 0 if the backend took the trace.
"""

import argparse
import json

import epsagon_fast.commands.doctor.environment as environment
import epsagon_fast.commands.doctor.way as way
from epsagon_fast.commands.doctor.finding import BAD, Finding
from epsagon_fast.foreign import escaped
from epsagon_fast.log import logger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")


def run(arguments: argparse.Namespace) -> int:
    """Print each finding, end at the first that is BAD; return 0 if there is none, else 1."""
    config, warned = environment.resolved()
    for finding in (*warned, *environment.findings(config)):
        _print(finding, arguments.json)
    # The rows say what would be warned of.
    logger().disabled = not config.debug
    for finding in way.findings(config):
        _print(finding, arguments.json)
        if finding.verdict == BAD:
            return 1
    return 0


def _print(finding: Finding, as_json: bool) -> None:
    if as_json:
        print(json.dumps(finding._asdict()), flush=True)
        return
    print(f"{finding.verdict:3}  {finding.place:<11} {escaped(finding.text)}", flush=True)
    if finding.advice:
        print(f"{'':17}-> {escaped(finding.advice)}", flush=True)
