"""Show one request as a tree with bars: all its traces, by its id or the id of one of them.

It looks where `epsagon-fast traces` looks.
"""

import argparse
import sys

import epsagon_fast.backend.outline as outline
import epsagon_fast.commands.looking as looking
from epsagon_fast.amounts import counted
from epsagon_fast.backend.shape import NotATrace, checked
from epsagon_fast.backend.timeline import Timeline, build
from epsagon_fast.commands.saying import fail
from epsagon_fast.foreign import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast show`."""
    parser.add_argument("id", metavar="ID", help="of a request (http_trace_id) or of a trace")
    looking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show it; return 0, or 1 if it is not there."""
    try:
        with looking.source("show", arguments) as source:
            bodies = source.request(arguments.id)
    except looking.Unreachable as error:
        return fail("show", str(error))
    if not bodies:
        return fail("show", f"there is no trace and no request with the id {shown(arguments.id)}")
    try:
        for _, body in bodies:
            checked(body)
    except NotATrace as error:
        return fail("show", f"it is not a trace: {error}")
    timeline = build(bodies)
    print(outline.as_json(timeline) if arguments.json else as_text(timeline), end="")
    return 0


def as_text(timeline: Timeline) -> str:
    """Return a request as a person reads it: a head, then a line for each event."""
    apps = ", ".join(dict.fromkeys(outline.cut(trace["app_name"], 40) for _, trace in timeline.traces))
    head = (
        f"{outline.moment(timeline.start)}  {outline.duration(timeline.duration_s)},"
        f" {counted(len(timeline.nodes), 'event')} of {counted(len(timeline.traces), 'trace')} ({apps})"
    )
    return f"{head}\n{outline.text(timeline, colours=looking.colours(sys.stdout.isatty))}"
