"""Show the collector of this user and version, the processes that it serves, and what was counted.

Exit code 1 if no collector runs.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict

import epsagon_fast.compiled as compiled
from epsagon_fast.collector.measuring import figures
from epsagon_fast.collector.measuring.catalogue import CATALOGUE
from epsagon_fast.commands.saying import say
from epsagon_fast.config import Config
from epsagon_fast.foreign import escaped
from epsagon_fast.queue import folder as folders
from epsagon_fast.queue.overview import Overview, SetAside, look, set_aside
from epsagon_fast.queue.state import STALLED_S


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `epsagon-fast status`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--watch", action="store_true", help="print again every second until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Print what is there; return 0 if a collector runs, else 1."""
    while True:
        seen = overview()
        aside = [each for place in _places(seen) for each in set_aside(place)]
        if arguments.json:
            print(json.dumps(as_json(seen, aside)), flush=True)
        else:
            print(as_text(seen, aside), flush=True)
        if not arguments.watch:
            return 0 if seen is not None and seen.pid is not None else 1
        time.sleep(1.0)


def overview(command: str = "status") -> Overview | None:
    """Return an overview of this user's folder; None if there is none. `command`: the one that says what is wrong."""
    base = Config(disable=True).resolve().runtime_dir
    if obstacle := folders.obstacle(base):
        say(command, f"tracing is off: {obstacle}")
        return None
    path = folders.existing(base)
    try:
        return look(path) if path else None
    except OSError as error:
        say(command, str(error))
        return None


def _places(seen: Overview | None) -> list[str]:
    """Return the directories in which a collector may have set files aside."""
    return [place for place in (seen.path if seen else "", Config(disable=True).resolve().state_dir) if place]


def as_json(seen: Overview | None, aside: Sequence[SetAside] = ()) -> dict[str, object]:
    """Return the object that `--json` prints."""
    return {
        "running": bool(seen and seen.pid),
        **compiled.overview(),
        **(asdict(seen) if seen else {}),
        "set_aside": [asdict(each) for each in aside],
        "metrics": figures.as_json(CATALOGUE, figures.view(seen)),
    }


def as_text(seen: Overview | None, aside: Sequence[SetAside] = ()) -> str:
    """Return the text for a person."""
    if seen is None:
        lines = ["No collector runs, and no process has traced anything yet.", _build_line()]
    else:
        lines = _lines(seen)
    lines += [f"set aside  {each.path}: {each.size_bytes} bytes, {_age(each.age_s)} old" for each in aside]
    return "\n".join(map(escaped, lines))


def _lines(seen: Overview) -> list[str]:
    lines = [_collector_line(seen), f"folder     {seen.path}", _build_line()]
    lines += [f"inherited  {text} (of its starter; it may not change that)" for text in seen.inherited]
    lines += _table("now", seen.gauges) + _table("counted", {k: v for k, v in seen.counters.items() if v})
    for view in seen.rings:
        refused = ", ".join(f"{reason} {count}" for reason, count in view.refused.items()) or "none"
        lines.append(
            f"process    {view.pid} {'lives' if view.lives else 'has ended'}; unread {view.unread_bytes} of "
            f"{view.capacity_bytes} bytes, held {view.held_bytes}; closed {view.closed}, settled {view.settled}; "
            f"refused: {refused}"
        )
    return lines


def _collector_line(seen: Overview) -> str:
    if seen.pid is None:
        return "collector  none runs"
    age_s = seen.heartbeat_age_s or 0.0
    stalled = f", STALLED for {age_s:.0f} s (`epsagon-fast stop --force` ends it)" if age_s > STALLED_S else ""
    leaving = ", leaving" if seen.is_leaving else ""
    return f"collector  pid {seen.pid}, up {seen.up_s or 0:.0f} s, number {seen.incarnation} here{leaving}{stalled}"


def _build_line() -> str:
    parts = compiled.overview()
    slower = "" if {*parts.values()} == {compiled.COMPILED} else "; plain Python does the same, slower"
    return f"build      {', '.join(f'{name}: {which}' for name, which in parts.items())}{slower}"


def _age(age_s: float) -> str:
    hours = int(age_s // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours" if hours else f"{age_s // 60:.0f} minutes"


def _table(title: str, values: dict[str, int]) -> list[str]:
    return [f"{title:<10} {name:<28} {value}" for name, value in values.items()]
