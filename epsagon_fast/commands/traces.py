"""List what a backend has, the newest at the end.

It asks the backend to which $EPSAGON_COLLECTOR_URL sends traces, else the one on this machine, else reads its file. The
filters are those of the backend's pages.
"""

import argparse
import json
import sys
import time
from typing import Any

import epsagon_fast.backend.outline as outline
import epsagon_fast.backend.summary as summary
import epsagon_fast.commands.looking as looking
from epsagon_fast.amounts import counted
from epsagon_fast.backend.filters import BadQuery, amount_s, moment_of
from epsagon_fast.commands.saying import fail, say
from epsagon_fast.foreign import escaped

# Nothing at all would leave open whether that is an answer. To stderr, since programs read the rest.
NONE_YET = "no trace yet; start your program with `epsagon-fast run`, or let `epsagon-fast doctor` send one"
NONE_LIKE_THAT = "no trace is like that"
_LOOK_S = 0.5
_COLOURS = {summary.OK: "32", summary.TIMEOUT: "33"}
_BAR_CHARACTERS = 10
_NAMED = ("text", "app", "name", "status", "error_type", "max_duration", "http_trace_id", "since", "until")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast traces`."""
    looking.add_arguments(parser)
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="1 to 1000 (default: %(default)s)")
    parser.add_argument("--failed", action="store_true", help="only errors, timeouts and processes that died")
    parser.add_argument("--slow", metavar="TIME", help="only those that took so long, as 500ms or 2s")
    for name in _NAMED:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=name.upper(), help=argparse.SUPPRESS)
    for kind in ("label", "attr"):
        parser.add_argument(f"--{kind}", metavar="KEY=VALUE", action="append", default=[], help=argparse.SUPPRESS)
    parser.epilog = f"also: {', '.join('--' + name.replace('_', '-') for name in _NAMED)}, --label and --attr KEY=VALUE"


def run(arguments: argparse.Namespace) -> int:
    """List; return 0, or 1 if there is nothing to look at, 2 for a filter that says nothing clear."""
    try:
        query = _query(arguments)
        if not 1 <= arguments.limit <= 1000:
            raise BadQuery("--limit is 1 to 1000")
        with looking.source("traces", arguments) as source:
            after = source.latest() if arguments.follow else 0.0
            rows = source.newest(query, arguments.limit)
            if not rows:
                say("traces", NONE_LIKE_THAT if query else NONE_YET)
            _print(rows[::-1], arguments.json)
            while arguments.follow:
                rows, after = source.arrivals(query, after)
                _print(rows, arguments.json)
                time.sleep(_LOOK_S)
    except BadQuery as error:
        return fail("traces", str(error), 2)
    except looking.Unreachable as error:
        return fail("traces", str(error), 1)
    return 0


def _query(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    # Here, by the option's name: the backend would name its own parameter.
    for option in ("slow", "max_duration"):
        amount_s(f"--{option.replace('_', '-')}", getattr(arguments, option) or "0")
    for option in ("since", "until"):
        moment_of(f"--{option}", getattr(arguments, option) or "0", time.time())
    query = [(name, value) for name in _NAMED if (value := getattr(arguments, name))]
    query += looking.FAILED if arguments.failed else []
    query += [("min_duration", arguments.slow)] if arguments.slow else []
    for kind in ("label", "attr"):
        for said in getattr(arguments, kind):
            key, equals, value = said.partition("=")
            if not (key and equals):
                raise BadQuery(f"--{kind} is KEY=VALUE")
            query.append((f"{kind}.{key}", value))
    return query


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    longest_s = max((row["duration_s"] or 0.0 for row in rows), default=0.0)
    in_colours = looking.colours(sys.stdout.isatty)
    for row in rows:
        print(json.dumps(row) if as_json else _line(row, longest_s, in_colours))
    sys.stdout.flush()


def _line(row: dict[str, Any], longest_s: float, in_colours: bool) -> str:
    duration_s, status = row["duration_s"], row["status"]
    ended = status if status in (summary.OK, summary.TIMEOUT) else row["error_type"] or status
    colour = _COLOURS.get(status, "31") if in_colours else ""
    part = (duration_s or 0.0) / longest_s if longest_s else 0.0
    return "  ".join(
        (
            outline.moment(row["started_at"]),
            f"{outline.duration(duration_s):>8}",
            outline.painted(outline.drawing(0, part, _BAR_CHARACTERS), colour),
            outline.painted(f"{outline.cut(ended, 20):16}", colour),
            f"{outline.cut(row['app_name'], 20):14}",
            f"{outline.cut(row['name'], 60):32}",
            f"{counted(row['event_count'], 'event'):>12}{' trimmed' if row['is_trimmed'] else ''}",
            escaped(row["trace_id"]),
        )
    )
